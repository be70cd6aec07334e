"""The command line: `lookhear transcribe | perceive | ask | prepare | train | evaluate | reproduce | convert |
export | publish | synthesize | serve | demo`.

One file per command: `add` says what it takes, `run` carries it out. Results go to stdout, messages and progress to
stderr. Bad input ends in one line and exit code 2.

`import lookhear` registers its classes with transformers, which takes seconds; help and wrong arguments should not. So
this is a package of its own, and whatever is heavy is imported by the command that needs it, after the arguments have
been read.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from . import (
    ask,
    convert,
    demo,
    evaluate,
    export,
    perceive,
    prepare,
    publish,
    reproduce,
    serve,
    synthesize,
    train,
    transcribe,
)
from .errors import EXPECTED, explained
from .parsing import Parser

COMMANDS = (
    *(transcribe, perceive, ask, prepare, train, evaluate, reproduce, convert),
    *(export, publish, synthesize, serve, demo),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for bad input, 1 for anything unforeseen, 130 after Ctrl-C."""
    options = _parsed(_joined(sys.argv[1:] if arguments is None else arguments))
    try:
        code = options.run(options) or 0
        sys.stdout.flush()  # here, as an error of it is one line, too
        return code
    except KeyboardInterrupt:
        print("lookhear: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("LOOKHEAR_TRACEBACK") and not isinstance(error, EXPECTED):  # the whole story is wanted
            raise
        code, message = explained(error)
    print(f"lookhear {options.command}: error: {message}", file=sys.stderr)
    _end_output()
    return code


def _end_output() -> None:
    """Discards what the standard output cannot take, so that Python doesn't report it again when it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of all commands; each one's `run` is the function that carries it out."""
    parser = Parser(
        prog="lookhear",
        description="Reads what a talking face says, and finds in images what is named, described or pointed at.",
        epilog="example: lookhear transcribe clip.mp4",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('lookhear')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """
    Parses arguments; questions and settings may come after options that follow the image, recipe or table, where
    argparse expects no more.
    """
    parser = build_parser()
    options, further = parser.parse_known_args(arguments)
    rest = {"ask": "rest", "train": "settings", "reproduce": "settings"}.get(options.command)
    expected = all(not text.startswith("-") and (rest == "rest" or "=" in text) for text in further)
    if further and rest is not None and expected:
        getattr(options, rest).extend(further)
    elif further:
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    return options


def _joined(arguments: Sequence[str]) -> list[str]:
    """Joins `--snr -5,0` to `--snr=-5,0`: argparse takes a list that begins with a minus for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--snr", "--point", "--box", "--scribble"):
            joined[-1] += "=" + argument
        else:
            joined.append(argument)
    return joined
