"""Small corpora in the schema, of pictures with coloured rectangles."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

COLOURS = {"cup": (200, 20, 20), "dog": (20, 200, 20), "cat": (20, 20, 200), "bus": (200, 200, 20), None: (90, 90, 90)}


@pytest.fixture(scope="session")
def rectangles():
    """
    A function that makes a `datasets.Dataset` of pictures of 64 x 96 or 96 x 64 with two rectangles each.

    Arguments: count; names, drawn evenly; masks, whether there are some; sentences, whether each object has one
    ("the left cup"); video, frames of each video (0: stills); every_seed. A third of the objects of videos is missing.
    """
    from datasets import Dataset

    from lookhear.training.glee.corpora.masks import encode_runs, write_counts
    from lookhear.training.glee.corpora.schema import features, make_expression, make_row

    def make(count, names=("cup", "dog", "cat"), masks=True, sentences=False, video=0, seed=0):
        random = np.random.default_rng(seed)
        rows = []
        for index in range(count):
            size = (64, 96) if index % 3 or video else (96, 64)
            pixels = np.zeros((*size, 3), dtype=np.uint8) + 30
            objects, expressions = [], []
            for place in range(2):
                if video and random.random() < 0.33 and index % video:
                    continue
                x0 = int(random.integers(2, 8)) + place * size[1] // 2
                y0 = int(random.integers(2, 30))
                name = (
                    names[random.integers(len(names))] if not video else names[(index // video + place) % len(names)]
                )
                mask = np.zeros(size, dtype=bool)
                mask[y0 : y0 + 30, x0 : x0 + 20] = True
                pixels[mask] = COLOURS[name]
                expressions.append(make_expression(f"the {('left', 'right')[place]} {name}", [len(objects)]))
                runs = {"counts": write_counts(encode_runs(mask)), "polygons": None}
                objects.append(
                    {
                        "box": [x0, y0, x0 + 20, y0 + 30],
                        "mask": runs if masks else None,
                        "category": name,
                        "track_id": 10 + place if video else None,
                        "crowd": False,
                    }
                )
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            clip = (f"v{index // video}", index % video) if video else (None, None)
            said = expressions if sentences else ()
            rows.append(make_row(f"{seed}-{index}", file.getvalue(), size, objects, said, *clip))
        return Dataset.from_list(rows, features=features())

    return make
