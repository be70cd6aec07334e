"""Measures a recogniser on the Open ASR Leaderboard's terms.

    python -m lookhear.evaluation.open_asr --model ORG/MODEL --dataset librispeech:test.clean \
        --spelling normalizer.json --output results

Result files go to the output folder, named and laid out as the leaderboard's scripts expect them; a table goes to
stdout.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lookhear.evaluation.open_asr.samples import DATASETS, REPOSITORY

WITHOUT = "none"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        table = _run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"open_asr: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(table, end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lookhear.evaluation.open_asr",
        description="measure a recogniser on the Open ASR Leaderboard's terms",
    )
    parser.add_argument("--model", required=True, help="checkpoint: folder or Hub id")
    parser.add_argument("--name", metavar="ORG/NAME", help="of the model in the result files (--model)")
    parser.add_argument("--repository", default=REPOSITORY, help=f"Hub id or folder of the data sets ({REPOSITORY})")
    parser.add_argument(
        "--dataset", action="append", metavar="CONFIG:SPLIT", help=f"may be repeated ({', '.join(DATASETS)})"
    )
    parser.add_argument(
        "--spelling",
        required=True,
        metavar="FILE",
        help="British to American spellings: normalizer.json of a Whisper checkpoint; 'none' leaves them as they are, "
        "which is not what the leaderboard does",
    )
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the result files (results)")
    parser.add_argument("--batch-size", type=int, default=16, help="samples that are read at a time (16)")
    parser.add_argument("--warm-up", type=int, default=1, help="batches that are read before the clock runs (1)")
    parser.add_argument("--limit", type=int, help="samples of each data set to look at, from the first (all)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (the first accelerator, else the CPU)")
    return parser


def _run(options: argparse.Namespace) -> str:
    from transformers import pipeline

    import lookhear  # noqa: F401 - registers the task
    from lookhear.evaluation.open_asr.manifests import to_markdown
    from lookhear.evaluation.open_asr.running import run_open_asr
    from lookhear.evaluation.open_asr.samples import load_normaliser

    normalise = load_normaliser(None if options.spelling == WITHOUT else options.spelling)
    asr = pipeline(  # type: ignore[call-overload]  # transformers' types list only its own tasks
        "audio-visual-speech-recognition", model=options.model, device=options.device
    )
    scores = run_open_asr(
        asr,
        options.dataset or DATASETS,
        options.output,
        model=options.name or options.model,
        repository=options.repository,
        normalise=normalise,
        batch_size=options.batch_size,
        warm_up=options.warm_up,
        limit=options.limit,
        progress=lambda dataset, done: print(f"\r{dataset}: {done} samples", end="", file=sys.stderr, flush=True),
    )
    print(file=sys.stderr)
    return to_markdown(scores)


if __name__ == "__main__":
    sys.exit(main())
