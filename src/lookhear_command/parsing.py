"""The parser of the command line and of its commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn, Protocol


class Parser(argparse.ArgumentParser):
    """Answers wrong arguments with one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help shows how)\n")


class Commands(Protocol):
    """What `add_subparsers` returns."""

    def add_parser(self, name: str, **settings: Any) -> argparse.ArgumentParser: ...


def add_command(
    commands: Commands, name: str, summary: str, example: str, run: Callable[[argparse.Namespace], int | None] | None
) -> argparse.ArgumentParser:
    """
    Adds a command.

    Args:
        commands: the parser's commands.
        name: of the command.
        summary: one phrase for the list of commands, without a full stop.
        example: a call of it, shown by `--help`.
        run: carries the command out; returns its exit code, or None for 0. None if its own commands do that.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser
