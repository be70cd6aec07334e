"""The parser of the command line and of its commands."""

from __future__ import annotations

import argparse


class Parser(argparse.ArgumentParser):
    """Answers wrong arguments with one line instead of the whole usage."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help shows how)\n")


def add_command(commands, name: str, summary: str, example: str, run) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser
