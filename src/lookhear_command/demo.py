"""`lookhear demo`: a talking face read in three ways."""

from __future__ import annotations

import argparse
from pathlib import Path

from .parsing import add_command
from .shared_options import add_model, checked_model


def add(commands) -> None:
    example = "lookhear demo --video holiday.mp4 --output demo"
    summary = "read a talking face in three ways, clean and in babble, and write captions and a picture"
    parser = add_command(commands, "demo", summary, example, run)
    parser.add_argument("--video", type=Path, help="a clip of yours; without it one is synthesized")
    parser.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="where results go (demo)")
    add_model(parser)


def run(options: argparse.Namespace) -> None:
    from lookhear.demo import run_demo

    run_demo(options.output, video=options.video, model=checked_model(options), device=options.device)
