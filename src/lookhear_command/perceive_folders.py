"""`lookhear perceive FOLDER --output DIR`: what is found in each picture and video of folders."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .argument_types import shard
from .folder_run import FolderBar, FolderRun
from .found_files import CLIPS, PICTURES, FoundFile, find_files, in_shard
from .shared_options import SHARD, STANDARD_INPUT, check_folder, checked_model, result_name

FORMATS = ("json", "overlay")
ALL = "all"
OTHERS = ("out", "json", "coco", "coco_vis", "mot", "fps", "frames")  # options that apply to single files
PLACED = ("point", "box", "scribble", "mask")


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("options for folders")
    where = "search each file of folders by itself: write DIR/NAME.json (of a video .jsonl), as the files lie there"
    group.add_argument("--output", type=Path, metavar="DIR", help=where)
    group.add_argument("--recursive", action="store_true", help="search the folders in a folder, too")
    group.add_argument("--shard", type=shard, metavar="I/N", help=SHARD)
    kinds = "what is written: json; overlay, NAME.png or NAME.mp4 with what was found drawn on it; or all (json)"
    group.add_argument("--format", choices=(*FORMATS, ALL), help=kinds)


def check_options(options: argparse.Namespace) -> None:
    """Checks that the options for folders, and those for single files, go together."""
    if options.output is None:
        if options.recursive or options.format is not None:
            raise ValueError("--recursive and --format go with --output DIR, which is missing")
        if options.shard is not None:
            raise ValueError("--shard needs --output DIR, into which all jobs write")
        return
    for name in OTHERS:
        if getattr(options, name) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} doesn't go with --output: choose by --format what is written"
            )
    if STANDARD_INPUT in options.files:
        raise ValueError("- doesn't go with --output, which is for files: choose --json or --out")
    if placed := [name for name in PLACED if getattr(options, name) is not None]:
        raise ValueError(f"--{placed[0]} applies to a single image; --output takes labels and expressions")


def perceive_folders(options: argparse.Namespace, prompts: Mapping[str, Any]) -> int:
    """Searches the files; returns the exit code."""
    found = find_files(options.files, PICTURES + CLIPS, options.recursive, options.output)
    if found is None:
        found = [FoundFile(file, result_name(file)) for file in options.files]
        names = [file.name for file in found]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two files would both be written to {options.output / twice[0]}; rename one")
    formats = FORMATS if options.format == ALL else (options.format or FORMATS[0],)
    found = in_shard(found, options.shard)
    check_folder(options.output, shared=options.shard is not None)
    options.model = checked_model(options, "glee")
    folders = FolderRun(options, lambda file: _results(file, options.output, formats))
    found = folders.pending(found)
    if not found:
        return 2 if folders.failed else 0

    from lookhear.commands.loading import load_pipeline
    from lookhear.commands.perceive_folder import perceive_folder

    see = load_pipeline("object-perception", options.model, options.device, options.dtype)
    videos = {name: getattr(options, name) for name in ("tracking", "reprompt") if getattr(options, name) is not None}
    both = {} if options.max_pixels is None else {"max_pixels": options.max_pixels}
    seen = perceive_folder(
        [(file.path, options.output / file.name) for file in found],
        see,
        prompts,
        formats,
        CLIPS,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        video_settings=videos,
        picture_settings={"one_label": options.one_label},
        threshold=options.threshold,
        top_k=options.top_k,
        **both,
    )
    with FolderBar([file.path for file in found], options.progress) as bar:
        for path, written, problem, seconds in seen:
            with bar.aside():
                for file in written:
                    print(file)
                if problem is not None:
                    print(f"lookhear perceive: error: {problem}", file=sys.stderr)
                    folders.add_problem(path, problem)
            bar.add(path, seconds)
    print(f"lookhear perceive: {bar.summary()}", file=sys.stderr)
    return 2 if folders.failed else 0


def _results(file: FoundFile, output: Path, formats: tuple[str, ...]) -> list[Path]:
    """Returns the files of results."""
    video = Path(file.path).suffix.lower() in CLIPS
    endings = {"json": ".jsonl" if video else ".json", "overlay": ".mp4" if video else ".png"}
    return [output / f"{file.name}{endings[kind]}" for kind in formats]
