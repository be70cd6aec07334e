"""`lookhear evaluate words`: the accuracy of a classifier of words that are read from lips."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def run(options: argparse.Namespace, model: str, progress: Callable[[str, int, int], None]) -> None:
    """
    Reads the clips and prints the figures.

    Args:
        options: of the command line.
        model: the checkpoint.
        progress: called with (what, done, total).

    Raises:
        ValueError: an argument or the folder is unusable.
    """
    if options.picture is not None:
        raise ValueError("--picture applies to avsr only; the figures of words go to stdout, --json and --csv")
    from lookhear.evaluation.lip_words import evaluate_words, format_words, words_to_csv
    from lookhear.evaluation.tables import to_json
    from lookhear.evaluation.whole_files import write_text

    result = evaluate_words(
        model,
        options.data,
        split=options.split,
        batch_size=options.batch_size or 32,
        limit=options.limit,
        seed=options.seed,
        device=options.device,
        progress=progress,
        allow_outside=options.allow_outside,
    )
    row = result.to_dict()
    print(format_words(row), end="")
    if options.json is not None:
        write_text(options.json, to_json([row]))
    if options.csv is not None:
        write_text(options.csv, words_to_csv(result))
