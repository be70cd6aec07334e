"""A generated scene as a picture, with what is in it beside it: something to try a model on."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from lookhear.evaluation.tables import whole_file, write_text
from lookhear.training.glee.expressions import all_expressions
from lookhear.training.glee.scenes import make_scene

SEED = 20260101  # beside the user's, so that no training has seen the scene


def write_scene(path: str | Path, seed: int = 0, size: tuple[int, int] = (480, 600)) -> tuple[Path, Path]:
    """
    Writes a scene and `{"objects": [{"label", "box"}], "expressions": [{"text", "object"}]}`, foremost object last.

    Args:
        path: of the picture; its ending gives the format. The facts go beside it, as `.json`.
        seed: equal seeds make equal scenes; size: (height, width) in pixels.
    Returns:
        both paths.
    Raises:
        ValueError: the ending is not one of a picture.
    """
    path = Path(path)
    if path.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"output {str(path)!r} must end as a picture does, such as .png or .jpg")
    scene = make_scene(np.random.default_rng((SEED, seed)), size)
    objects = [
        {"label": f"{shape.colour} {shape.kind}", "box": [round(float(side), 1) for side in shape.box]}
        for shape in scene.shapes
    ]
    sentences = [{"text": found.text, "object": found.shape} for found in all_expressions(scene)]
    with whole_file(path) as partial:
        Image.fromarray(scene.image).save(partial)
    facts = json.dumps({"objects": objects, "expressions": sentences}, indent=1) + "\n"
    return path, write_text(path.with_suffix(".json"), facts)
