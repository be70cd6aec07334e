"""`lookhear ask`: questions about pictures, answered in words and by showing what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path

from .argument_types import between, positive
from .overlays import PICTURES, overlay_paths
from .parsing import Commands, add_command
from .shared_options import add_model, check_outputs, checked_model


def add(commands: Commands) -> None:
    example = (
        'lookhear ask scene.png "Which of these would roll? Show it." --out overlay.png\n  '
        'lookhear ask scene.png "How many stars are there?" "Which shape is the largest?" --json\n  '
        'lookhear ask a.png b.png --question "What is left of the heart?" --out overlays/'
    )
    summary = "answer questions about images in words, and show what the words mean"
    parser = add_command(commands, "ask", summary, example, run)
    parser.add_argument("image", metavar="IMAGE", help="image file, or URL")
    several = "one question, or several, which are asked in turn as one conversation about the image; with "
    several += "--question, further images"
    parser.add_argument("rest", nargs="*", metavar="QUESTION", help=several)
    text = "a question that all images are asked; may be repeated: a conversation about each image"
    parser.add_argument("--question", action="append", metavar="TEXT", help=text)
    add_model(parser, "lisa-glee-tiny", "questions about shapes of generated scenes, nothing else")
    share = "share, above 0 and below 1, from which a pixel belongs to what is shown (0.5)"
    parser.add_argument("--threshold", type=between, default=0.5, metavar="SHARE", help=share)
    longest = "longest answer in tokens (128)"
    parser.add_argument("--max-new-tokens", type=positive, default=128, metavar="N", help=longest)
    parser.add_argument("--num-beams", type=positive, default=1, metavar="N", help="width of the beam search (1)")
    out = "draw what an answer shows: an image file, or a folder for NAME.png of each image, with several "
    out += "questions NAME-1.png, NAME-2.png, …"
    parser.add_argument("--out", type=Path, metavar="PATH", help=out)
    results = "write JSON with masks as COCO run lengths; without a name, or with -, to stdout instead of the text"
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help=results)


def run(options: argparse.Namespace) -> int:
    files, questions = _asked(options)
    if options.json not in (None, "-") and Path(options.json).suffix.lower() != ".json":
        raise ValueError(f"--json {options.json}: the ending must be .json; put --json after images and questions")
    overlays = overlay_paths(files, options.out, len(questions))
    check_outputs(json=options.json, out=overlays[0] if overlays else None)
    model = checked_model(options, "lisa_glee")

    from lookhear.commands.ask import ask
    from lookhear.commands.loading import load_pipeline

    failed = ask(
        files,
        load_pipeline("reasoning-segmentation", model, options.device),
        questions,
        overlays=overlays,
        json_path=options.json,
        threshold=options.threshold,
        max_new_tokens=options.max_new_tokens,
        num_beams=options.num_beams,
    )
    return 2 if failed else 0


def _asked(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Returns images and questions."""
    if options.question is not None:
        files, questions = [options.image, *options.rest], options.question
    else:
        files, questions = [options.image], options.rest
    if not questions:
        raise ValueError("nothing is asked: put a question after the image")
    for question in questions:
        if not question.strip():
            raise ValueError("a question is empty: ask something about the image")
        if Path(question).suffix.lower() in PICTURES:
            raise ValueError(f"{question} is an image, not a question; several images need --question TEXT")
    return files, questions
