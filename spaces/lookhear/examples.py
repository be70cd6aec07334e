"""The examples of all tabs, made by `lookhear synthesize` if they are missing: none comes from elsewhere."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from lookhear_command import main as lookhear
from media import first_picture

ONE = ("--text", "bin blue at f two now", "--portrait", "hopper", "--seed", "7")
TWO = (
    *("--text", "set red with a four again", "--portrait", "astronaut"),
    *("--second", "hopper", "--second-text", "lay green by m nine soon", "--seed", "3"),
)
SCENE = ("--scene", "--seed", "7")
MOVING = ("--scene", "--seed", "2")
CROWD = ("--scene", "--seed", "3")
# For each picture that the tab "Ask" offers, a question.
ASKED = {"scene": "Where is the white star?", "crowd": "How many rings are there? Show them."}
POSTER = 240  # pixels, height of a small picture of an example


@dataclass(frozen=True)
class Examples:
    """
    Files that exist.

    Attributes:
        one: video of a talking portrait.
        two: video of two talking portraits.
        scene: picture of shapes.
        crowd: picture of more shapes.
        moving: video of moving shapes.
        posters: a small picture of each, by the name of its attribute.
    """

    one: Path
    two: Path
    scene: Path
    crowd: Path
    moving: Path
    posters: dict[str, Path]


def make_examples(folder: Path) -> Examples:
    """
    Finds the examples in this folder; those that are missing are made, which takes seconds.

    Raises:
        RuntimeError: one could not be made.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "one": _made(folder / "one.mp4", ONE),
        "two": _made(folder / "two.mp4", TWO),
        "scene": _made(folder / "scene.png", SCENE),
        "crowd": _made(folder / "crowd.png", CROWD),
        "moving": _made(folder / "moving.mp4", MOVING),
    }
    posters = {name: _poster(path, folder / f"{name}-poster.jpg") for name, path in made.items()}
    return Examples(**made, posters=posters)


def questions_about(scene: Path, most: int = 3) -> tuple[str, str]:
    """Returns names of objects in a scene, separated by commas, and a sentence about one of them."""
    facts = json.loads(scene.with_suffix(".json").read_text(encoding="utf-8"))
    labels = dict.fromkeys(found["label"] for found in facts["objects"])
    sentences = [sentence["text"] for sentence in facts["expressions"]]
    places = [text for text in sentences if "most " in text]
    return ", ".join(list(labels)[:most]), (places or sentences or [""])[0]


def _made(path: Path, arguments: tuple[str, ...]) -> Path:
    if not path.is_file():
        print(f"making the example {path.name}", file=sys.stderr)
        if lookhear(["synthesize", *arguments, "--output", str(path)]):
            raise RuntimeError(f"the example {path.name} could not be made")
    return path


def _poster(path: Path, poster: Path) -> Path:
    """Writes a small picture: the first frame of a video."""
    if not poster.is_file():
        picture = first_picture(str(path))
        picture.thumbnail((2 * POSTER, POSTER))
        picture.save(poster, quality=90)
    return poster
