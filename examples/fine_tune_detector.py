"""Teach GLEE classes of your own: a COCO file and its pictures in, a checkpoint with its card out.

python examples/fine_tune_detector.py my_coco.json my-glee/ --model glee-lite/

For several GPUs, and for every option, see `lookhear train glee --help` and training/README.md.
"""

import argparse
from pathlib import Path

from transformers import pipeline

from lookhear.training.glee.fine_tuning import FineTuneOptions, fine_tune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="COCO file; its pictures are in the same folder")
    parser.add_argument("output", type=Path, help="folder of the new checkpoint")
    parser.add_argument("--model", default="model_cards/glee-tiny", help="checkpoint to start from: folder or Hub id")
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    options = parser.parse_args()

    chosen = FineTuneOptions(
        options.data, options.model, options.output, epochs=options.epochs, learning_rate=options.learning_rate
    )
    for name, value in fine_tune(chosen).items():  # average precision, also of each class
        print(f"{name}: {value:.3f}")

    see = pipeline("object-perception", model=str(options.output))  # a checkpoint like any other
    print(f"{options.output}: {see.model.num_parameters():,} parameters; see contact_sheet.jpg and README.md there")


if __name__ == "__main__":
    main()
