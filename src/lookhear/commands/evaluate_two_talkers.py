"""`lookhear evaluate two-talkers`: people side by side whose voices are mixed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

OUTPUT = "two-talkers"


def run(options: argparse.Namespace, model: str, search: dict, progress: Callable[[str, int, int], None]) -> None:
    """
    Composes the mixtures, reads them, and prints the figures.

    Args:
        options: of the command line.
        model: the checkpoint.
        search: `num_beams`, `ctc_weight`, `search`, where they are given.
        progress: called with (what, done, total).

    Raises:
        ValueError: an argument or a folder is unusable.
    """
    for name in ("csv", "picture"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} applies to avsr only; the figures of two talkers go to stdout and --json")
    from lookhear.commands.loading import load_pipeline
    from lookhear.evaluation.avsr_conditions import parse_snr
    from lookhear.evaluation.protocols.stored_results import remove_stored
    from lookhear.evaluation.tables import to_json
    from lookhear.evaluation.two_talkers.planning import SNRS
    from lookhear.evaluation.two_talkers.running import run_two_talkers
    from lookhear.evaluation.two_talkers.showing import to_text
    from lookhear.evaluation.whole_files import write_text
    from lookhear.training.named_models import local_model

    levels = [parse_snr(snr) for snr in options.snr or SNRS]
    snrs = [level for level in levels if level is not None]
    if len(snrs) < len(levels):
        raise ValueError("--snr: two talkers are never 'clean'; give decibels of one voice over the other")
    if options.overwrite:
        remove_stored(options.output or Path(OUTPUT))
    if options.speaker_model is not None:
        search = {**search, "speaker_model": local_model(options.speaker_model)}
    results = run_two_talkers(
        load_pipeline("audio-visual-speech-recognition", model, options.device),
        options.output or Path(OUTPUT),
        data=options.data,
        others=options.others,
        talking=options.talking,
        silent=options.silent,
        snrs=snrs,
        seed=options.seed,
        limit=options.limit,
        about=model,
        choose=options.choose,
        progress=progress,
        allow_outside=options.allow_outside,
        **search,
    )
    rows = [result.to_dict() for result in results]
    print(to_text(rows), end="")
    if options.json is not None:
        write_text(options.json, to_json(rows))
