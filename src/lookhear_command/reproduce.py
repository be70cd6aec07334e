"""`lookhear reproduce`: a paper's table, from the corpora to the figures beside the published ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .parsing import Commands, add_command


def add(commands: Commands) -> None:
    example = "lookhear reproduce table6 --data corpora/ --accelerate training/accelerate/multi_gpu.yaml"
    example += "\n  lookhear reproduce table6 --data corpora/ --dry-run training.max_steps=100"
    example += "\n  lookhear reproduce glee-table1 --data corpora/ --model glee_stage2_lite=glee-lite/"
    summary = "prepare, train and measure the rows of a paper's table, and show them beside the published figures"
    parser = add_command(commands, "reproduce", summary, example, run)
    parser.add_argument("table", nargs="?", metavar="NAME", help="of the table; --dry-run without it lists all")
    setting = "[STAGE:]section.field=value: replaces a field of the recipes, or of prepare or measure"
    parser.add_argument("settings", nargs="*", metavar="setting", help=setting)
    data = "folder with the corpora, each under the name that --dry-run shows (data); NAME=PATH names one elsewhere"
    parser.add_argument("--data", action="append", default=[], metavar="FOLDER | NAME=PATH", help=data)
    out = "where everything goes; tables share what they have in common, an interrupted run resumes there (reproduced)"
    parser.add_argument("--out", type=Path, default=Path("reproduced"), metavar="DIR", help=out)
    given = "use a checkpoint (folder or Hub id) in the place of a training's result"
    parser.add_argument("--model", action="append", default=[], metavar="STAGE=MODEL", help=given)
    launch = "train by `accelerate launch` with this configuration file (in this process)"
    parser.add_argument("--accelerate", type=Path, metavar="FILE", help=launch)
    own = "take the tables of this YAML file instead of the papers'"
    parser.add_argument("--tables", type=Path, metavar="FILE", help=own)
    dry = "list stages, data, hours and memory, and do nothing"
    parser.add_argument("--dry-run", action="store_true", help=dry)


def run(options: argparse.Namespace) -> None:
    name, settings = options.table, options.settings
    if name is not None and "=" in name:  # without a name the first setting stands in its place
        name, settings = None, [name, *settings]
    if name is None and not options.dry_run:
        raise ValueError("reproduce needs the name of a table; `lookhear reproduce --dry-run` lists all")
    if options.accelerate is not None and not options.accelerate.is_file():
        raise ValueError(f"--accelerate {options.accelerate} is not a file; training/accelerate/ has some")
    from lookhear.reproduction import Places, describe_plan, find_paper, read_papers, reproduce

    folders, sources = _named(options.data)
    others, models = _named(options.model)
    if others:
        raise ValueError(f"--model {others[0]} must read STAGE=MODEL; --dry-run shows the stages")
    if len(folders) > 1:
        raise ValueError(f"--data names two folders, {' and '.join(folders[:2])}; name one, and others by NAME=PATH")
    places = Places(
        options.out,
        Path(folders[0] if folders else "data"),
        {source: Path(path) for source, path in sources.items()},
        models,
    )
    papers = read_papers(options.tables)
    if options.dry_run:
        for paper in papers if name is None else [find_paper(name, papers)]:
            print(f"{paper.title}, {paper.link}\n")
            for each in paper.tables if name is None else [name]:
                print(describe_plan(each, paper, settings, places))
            print(f"Estimates: {paper.basis}\n")
        return
    paper = find_paper(name, papers)
    from lookhear.reproduction.results import to_markdown

    filled, files = reproduce(name, paper, settings, places, options.accelerate, _Progress())
    print(to_markdown(filled), end="")
    for file in files:
        print(file, file=sys.stderr)


def _named(texts: list[str]) -> tuple[list[str], dict[str, str]]:
    """Divides arguments into plain ones, and those that read NAME=VALUE."""
    pairs = [text.partition("=") for text in texts]
    return [text for text, equals, _ in pairs if not equals], {name: value for name, equals, value in pairs if equals}


class _Progress:
    """A bar on stderr for each measurement that reports: (label, done, total)."""

    def __init__(self) -> None:
        self.label: str | None = None
        self.bar: Any = None  # tqdm, which is imported when there is something to show

    def __call__(self, label: str, done: int, total: int) -> None:
        from tqdm.auto import tqdm

        if self.label != label:
            self.bar, self.label = tqdm(total=total, desc=label, file=sys.stderr), label
        self.bar.update(done - self.bar.n)
        if done >= total:
            self.bar.close()
