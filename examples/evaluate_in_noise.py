"""Measure how much lips help: word error rates from sound alone and from both, the louder the babble the more.

python examples/evaluate_in_noise.py clips/

The folder has videos and a metadata.jsonl with lines such as {"file_name": "0.mp4", "text": "bin blue at f two now"}.
The babble is made from the other clips of the folder.
"""

import argparse

from lookhear.evaluation import evaluate_avsr, format_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with a metadata.jsonl, or one made by `lookhear prepare`")
    parser.add_argument("--model", default="model_cards/avsr-grid-tiny", help="folder or Hub id")
    parser.add_argument("--snr", nargs="+", default=["clean", 5, 0, -5], help="'clean', or decibels (clean 5 0 -5)")
    parser.add_argument("--limit", type=int, help="read the first clips only")
    options = parser.parse_args()

    results = evaluate_avsr(
        options.model, options.data, modalities=("audio", "audiovisual"), snrs=options.snr, limit=options.limit
    )
    print(format_table([result.to_dict() for result in results]))
    worst = results[-1]  # what was read from sound and lips in the loudest babble
    for said, read in zip(worst.references, worst.hypotheses, strict=True):
        print(f"said: {said}\nread: {read}")


if __name__ == "__main__":
    main()
