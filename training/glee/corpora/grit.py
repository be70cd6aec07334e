"""GRIT: captions of web pictures with boxes of a model around their phrases, as img2dataset downloads them."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lookhear.processing.glee.image_reading_glee import open_picture
from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.glee.corpora.schema import make_expression, make_object, make_row
from lookhear.training.glee.corpora.shards import list_shards, read_shard

LAYOUT = "00000.tar ... of img2dataset (webdataset), with key.jpg and key.json"


def grit_shards(root: str | Path) -> list[Path]:
    """Lists the tar files or folders of GRIT below `root`."""
    return list_shards(root, LAYOUT)


def read_grit(
    root: str | Path,
    split: str | None = None,
    problems: Problems | None = None,
    *,
    shards: Sequence[str | Path] | None = None,
    kinds: Sequence[str] = ("noun_chunks", "ref_exps"),
    least_score: float = 0.0,
) -> Iterator[dict]:
    """
    Reads GRIT picture by picture; nothing is held in memory. Each phrase of the caption is an expression about its
    box.

    The JSON files need the columns `noun_chunks` and `ref_exps`, lists of
    `[start, end, x0, y0, x1, y1, score]` with the place in the caption and shares of the picture.

    Args:
        root: the folder of tar files.
        split: None, as there are no splits.
        problems: where annotations that cannot be used are reported.
        shards: some of `grit_shards(root)`; None: all.
        kinds: which of the two columns are read.
        least_score: lowest score of the model that made the boxes.
    """
    problems = problems or Problems()
    if split is not None:
        raise CorpusError(f"GRIT has no split {split!r}; leave it out")
    for shard in grit_shards(root) if shards is None else map(Path, shards):
        for name, picture, content in read_shard(shard, problems):
            row = _row(name, picture, content, problems, kinds, least_score)
            problems.settle(shard)
            if row is not None:
                yield row
        problems.settle(shard)


def _row(
    name: str, picture: Path | bytes, content: dict, problems: Problems, kinds: Sequence[str], least_score: float
) -> dict | None:
    size = _picture_size(name, picture, problems)
    caption = content.get("caption")
    if size is None or not isinstance(caption, str) or not any(kind in content for kind in kinds):
        if size is not None:
            problems.add(f"image {name}", f"its JSON has no caption, or none of {', '.join(kinds)}")
        return None
    height, width = size
    objects: list[dict] = []
    expressions, known = [], {}
    for kind in kinds:
        for index, phrase in enumerate(_entries(content.get(kind))):
            label = f"image {name}, {kind} {index}"
            try:
                start, end, x0, y0, x1, y1, *score = (float(value) for value in phrase)
                text = caption[int(start) : int(end)].strip()
            except (TypeError, ValueError):
                problems.add(label, f"{phrase!r} is not [start, end, x0, y0, x1, y1, score]")
                continue
            box = (x0 * width, y0 * height, x1 * width, y1 * height)
            if not text or (score and score[0] < least_score):
                continue
            if box not in known:  # a noun and the longer phrase around it share a box
                instance = make_object(label, size, problems, box)
                if instance is None:
                    continue
                known[box] = len(objects)
                objects.append(instance)
            expressions.append(make_expression(text, [known[box]]))
    return make_row(name, picture, size, objects, expressions) if expressions else None


def _entries(value: Any) -> list:
    """Returns a list, which img2dataset writes as JSON if it comes from a Parquet column."""
    return json.loads(value) if isinstance(value, str) else list(value) if value is not None else []


def _picture_size(name: str, picture: Path | bytes, problems: Problems) -> tuple[int, int] | None:
    """Reads (height, width) from the header; None, reported, if it cannot be read."""
    try:
        with open_picture(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as opened:
            return opened.height, opened.width
    except OSError as error:
        problems.add(f"image {name}", f"its picture cannot be read ({error})")
    return None
