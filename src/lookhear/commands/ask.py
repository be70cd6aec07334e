"""`lookhear ask`: answers about pictures as text and as JSON, and drawn on the pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lookhear.commands.perceive import objects_entry
from lookhear.evaluation.tables import whole_file, write_text
from lookhear.processing.glee import draw_objects, read_image


def ask(
    files: Sequence[str],
    pipe: Any,
    questions: Sequence[str],
    *,
    overlays: Sequence[Path] | None = None,
    json_path: str | None = None,
    **settings: Any,
) -> int:
    """
    Asks the questions about each picture in turn, as one conversation; prints and writes the answers.

    Args:
        files: paths or URLs. One that cannot be read is reported; the others are still asked about.
        pipe: pipeline of the task `reasoning-segmentation`.
        questions: asked in this order.
        overlays: where the drawing of each answer goes, picture by picture; None for none.
        json_path: of the JSON; "-" prints it instead of the text, None leaves it out.
        settings: of the pipeline, such as `threshold`.

    Returns:
        How many files could not be read.

    Raises:
        ValueError: a setting cannot be used.
    """
    entries, failed = [], 0
    for index, file in enumerate(files):
        try:
            image = read_image(file, alone=True)
        except ValueError as error:
            failed += 1
            print(f"lookhear ask: error: {' '.join(str(error).split())}", file=sys.stderr)
            continue
        talk = pipe.conversation(image, **settings)
        answers = []
        for number, question in enumerate(questions):
            answer = talk.ask(question)
            answers.append({"question": question, **answer, "objects": objects_entry(answer["objects"])})
            if json_path != "-":
                given = [file] * (len(files) > 1) + [question] * (len(questions) > 1)
                print("\t".join([*given, answer["text"]]), flush=True)
            if overlays is not None:
                _draw(image, answer["objects"], overlays[index * len(questions) + number])
        entries.append({"image": file, "height": image.height, "width": image.width, "answers": answers})
    if not entries:
        return failed
    text = json.dumps({"images": entries}, ensure_ascii=False) + "\n"
    if json_path == "-":
        print(text, end="")
    elif json_path is not None:
        write_text(json_path, text)
    return failed


def _draw(image: Image.Image, objects: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws what an answer shows; an object whose mask is empty has no place in the picture."""
    with whole_file(path) as partial:
        draw_objects(image, [found for found in objects if found["box"] is not None]).save(partial)
    print(path, file=sys.stderr)
