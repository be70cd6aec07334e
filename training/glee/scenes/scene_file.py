"""A generated scene as a picture or a video, with its objects in a JSON file: something to try a model on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lookhear.evaluation.whole_files import whole_file, write_text
from lookhear.processing.glee.writers_glee import ENDINGS, VideoWriter
from lookhear.training.glee.scenes.expressions import all_expressions
from lookhear.training.glee.scenes.moving_scenes import MovingFrame, MovingRecipe, make_moving_scene
from lookhear.training.glee.scenes.portraits import portrait_cutouts
from lookhear.training.glee.scenes.scenes import SceneMaterial, Shape, make_scene

SEED = 20260101  # together with the user's, so that the scene is in no training
VIDEO_ENDINGS = tuple(ending for ending in ENDINGS if ending not in Image.registered_extensions())
FPS = 12  # of videos
RECIPE = MovingRecipe(frames=60, people=(1, 1))


def write_scene(path: str | Path, seed: int = 0, size: tuple[int, int] | None = None) -> tuple[Path, Path]:
    """
    Writes a scene, and a JSON file `{"objects", "expressions": [{"text", "object"}]}`, objects back to front.

    Objects of a picture are `{"label", "box"}`. A video has 60 frames, 12 a second, with shapes that move, cross and
    return, and a person if there is room; its objects are `{"label", "boxes"}`, a box or null for each frame, and the
    sentences are about its first frame.

    Args:
        path: of the picture or video, whose suffix gives the format; the JSON file is written beside it.
        seed: equal seeds make equal scenes.
        size: (height, width) in pixels; None: (480, 600) of a picture, (288, 360) of a video.

    Returns:
        Both paths.

    Raises:
        ValueError: the suffix is neither one of a picture nor one of a video.
    """
    path = Path(path)
    if path.suffix.lower() in VIDEO_ENDINGS:
        facts = _write_video(path, seed, size or (288, 360))
    elif path.suffix.lower() in Image.registered_extensions():
        facts = _write_picture(path, seed, size or (480, 600))
    else:
        raise ValueError(
            f"output {str(path)!r} must have the suffix of a picture or a video, such as .png, .jpg or .mp4"
        )
    return path, write_text(path.with_suffix(".json"), json.dumps(facts, indent=1) + "\n")


def _write_picture(path: Path, seed: int, size: tuple[int, int]) -> dict[str, Any]:
    scene = make_scene(np.random.default_rng((SEED, seed)), size)
    with whole_file(path) as partial:
        Image.fromarray(scene.image).save(partial)
    objects = [{"label": _label(shape), "box": _box(shape)} for shape in scene.shapes]
    sentences = [{"text": found.text, "object": found.shape} for found in all_expressions(scene)]
    return {"objects": objects, "expressions": sentences}


def _write_video(path: Path, seed: int, size: tuple[int, int]) -> dict[str, Any]:
    """Draws and writes frames one by one."""
    material = SceneMaterial(portraits=portrait_cutouts())
    scene = make_moving_scene(np.random.default_rng((SEED, seed)), size, RECIPE, material)
    objects: dict[int, dict[str, Any]] = {}
    sentences: list[dict[str, Any]] = []
    writer = VideoWriter(path, size, FPS)
    try:
        for index, frame in enumerate(scene):
            if index == 0:
                sentences = _sentences(frame)
            for instance in frame.objects:
                entry = {"label": _label(instance.shape), "boxes": [None] * len(scene)}
                objects.setdefault(instance.track_id, entry)["boxes"][index] = _box(instance.shape)
            writer.add(index, index / FPS, frame.image)
        writer.close()
    except BaseException:
        writer.discard()
        raise
    places = {track_id: place for place, track_id in enumerate(sorted(objects))}
    sentences = [sentence | {"object": places[sentence["object"]]} for sentence in sentences]
    return {"fps": FPS, "objects": [objects[track_id] for track_id in places], "expressions": sentences}


def _sentences(frame: MovingFrame) -> list[dict[str, Any]]:
    scene, ids = frame.as_still()
    return [{"text": found.text, "object": ids[found.shape]} for found in all_expressions(scene)]


def _label(shape: Shape) -> str:
    return f"{shape.colour} {shape.kind}".strip()


def _box(shape: Shape) -> list[float]:
    return [round(float(side), 1) for side in shape.box]
