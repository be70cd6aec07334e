"""`lookhear publish`: a checkpoint, Space, metric or benchmark as a repository of the Hub."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .parsing import Commands, add_command


def add(commands: Commands) -> None:
    example = "lookhear publish model_cards/avsr-grid-tiny --repo ORG/avsr-grid-tiny --dry-run"
    example += "\n  lookhear publish runs/mine --repo ORG/mine --license cc-by-4.0 --dry-run"
    example += "\n  lookhear publish evaluation/metrics/wer --repo ORG/wer"
    summary = "put a checkpoint, Space, metric or benchmark on the Hub, all of it or nothing"
    parser = add_command(commands, "publish", summary, example, run)
    kinds = "folder of a checkpoint (config.json) or of the training run that ends with one, a metric (NAME/NAME.py), "
    kinds += "a benchmark (eval.yaml) or a Space (README.md with sdk)"
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=kinds)
    parser.add_argument(
        "--repo", required=True, metavar="ORG/NAME", help="the repository; created if it does not exist"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check and list every file; send nothing, need no login"
    )
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument(
        "--prune", action="store_true", help="remove files of the repository that the folder does not have"
    )
    licence = "licence of a checkpoint without a card, as the Hub names it (cc-by-4.0, apache-2.0): a card is made"
    parser.add_argument("--license", metavar="ID", help=licence)
    parser.add_argument("--message", metavar="TEXT", help="message of the commit")


def run(options: argparse.Namespace) -> None:
    from lookhear.publishing import gather, push

    publication = gather(options.folder, options.repo, options.license)
    for remark in publication.remarks:
        print(f"lookhear publish: {remark}", file=sys.stderr)
    if options.dry_run:
        print(publication.listing(), end="")
        return
    done = push(publication, private=options.private, prune=options.prune, message=options.message)
    if done.others:
        text = f"{', '.join(done.others)}: in the repository, but not in the folder (--prune removes them)"
        print(f"lookhear publish: {text}", file=sys.stderr)
    if not done.changed:
        print("lookhear publish: nothing has changed since the last commit", file=sys.stderr)
    print(done.url)
