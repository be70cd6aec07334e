"""`lookhear demo`: a talking face read in three ways, and one of two people who talk at the same time."""

from __future__ import annotations

import argparse
from pathlib import Path

from .parsing import Commands, add_command
from .shared_options import add_model, check_folder, checked_model


def add(commands: Commands) -> None:
    example = "lookhear demo --video holiday.mp4 --output demo"
    summary = (
        "read a talking face in three ways, clean and in babble, and one of two people who talk at the same time; "
    )
    summary += "write captions and pictures"
    parser = add_command(commands, "demo", summary, example, run)
    parser.add_argument("--video", type=Path, help="a clip of yours; without it one is synthesized")
    parser.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="where results go (demo)")
    who = "whom to read of the two portraits at the end (the person on the left), or in your clip"
    parser.add_argument("--speaker", metavar="WHO", help=who)
    add_model(parser)


def run(options: argparse.Namespace) -> None:
    check_folder(options.output)
    from lookhear.commands.demo import run_demo

    model = checked_model(options, "avsr")
    run_demo(options.output, video=options.video, model=model, device=options.device, speaker=options.speaker)
