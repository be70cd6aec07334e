"""The table of avsr-grid-tiny's card: word, character and letter errors by modality and noise, and what the lips
bring.

    python benchmarks/avsr_grid_tiny.py --data GRID/s1/test [--model model_cards/avsr-grid-tiny] [--limit 100]

FOLDER holds a `metadata.jsonl` beside GRID's videos, or clips of `lookhear synthesize` with GRID's sentences. Without
`--data` the clips are synthesized (20 of them, other seeds than the training's).
"""

import argparse
import sys
import tempfile
from pathlib import Path

from lookhear.evaluation.avsr_conditions import ConditionResult, evaluate_avsr
from lookhear.training.avsr.synthesis import synthesize_corpus

LETTER = 3  # the place of the letter in "bin blue at F two now"
CONDITIONS = (("babble", ("clean", "5", "0", "-5")), ("talker", ("0",)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with a metadata.jsonl")
    parser.add_argument("--model", default=Path(__file__).parent.parent / "model_cards" / "avsr-grid-tiny")
    parser.add_argument("--limit", type=int, help="the first N clips only")
    parser.add_argument("--clips", type=int, default=20, help="how many are synthesized without --data")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or synthesize_corpus(folder, options.clips, seed=424242).parent
        results = [
            result
            for noise, snrs in CONDITIONS
            for result in evaluate_avsr(
                options.model, data, noises=[noise], snrs=snrs, limit=options.limit, progress=_progress
            )
        ]
    print_table(results)


def print_table(results: list[ConditionResult]) -> None:
    """
    Prints one row per condition, in Markdown: WER with its interval, CER, letter error, and the lips' share of the
    gain.
    """
    print("| noise | SNR dB | modality | WER % (95 %) | CER % | letter error % | errors that the lips remove % |")
    print("|---|---|---|---|---|---|---|")
    alone = {(r.noise, r.snr): r.words.rate for r in results if r.modality == "audio"}
    for r in results:
        if r.modality == "visual" and r.snr != "clean":
            continue  # noise does not change lips
        low, high = r.words.interval(seed=r.seed)
        sound = alone[r.noise, r.snr]
        gain = f"{100 * (sound - r.words.rate) / sound:.0f}" if r.modality == "audiovisual" and sound else ""
        print(
            f"| {r.noise if r.snr != 'clean' else ''} | {r.snr} | {r.modality} | {100 * r.words.rate:.1f} "
            f"({100 * low:.1f} to {100 * high:.1f}) | {100 * r.characters.rate:.1f} "
            f"| {100 * r.at_position(LETTER).rate:.1f} | {gain} |"
        )


def _progress(label: str, done: int, total: int) -> None:
    if done == total:
        print(f"{label}: {total} clips", file=sys.stderr)


if __name__ == "__main__":
    main()
