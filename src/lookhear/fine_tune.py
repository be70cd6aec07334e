"""`lookhear train glee`: a COCO file of one's own in, a checkpoint with its card out; also under `accelerate launch`.

accelerate launch --config_file training/accelerate/multi_gpu.yaml -m lookhear.fine_tune --data my_coco.json …
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

EXAMPLE = "lookhear train glee --data my_coco.json --images pictures/ --model glee-lite/ --output my-glee/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `lookhear train glee`; nothing heavy is imported."""
    own = parser.add_argument_group("your own classes (lookhear train glee)")
    own.add_argument("--data", type=Path, metavar="FILE", help="COCO file; its categories are the classes")
    own.add_argument("--images", type=Path, metavar="DIR", help="folder of the pictures (the file's own)")
    own.add_argument("--model", metavar="FOLDER", help="GLEE checkpoint to start from: folder or Hub id")
    own.add_argument("--output", type=Path, metavar="DIR", help="where the result goes; a stopped run goes on there")
    own.add_argument("--validation", type=Path, metavar="FILE", help="COCO file to measure on (a tenth of --data)")
    own.add_argument("--validation-images", type=Path, metavar="DIR", help="folder of its pictures (the file's own)")
    own.add_argument("--text", choices=("frozen", "trained"), default="frozen", help="the text encoder (frozen)")
    own.add_argument("--epochs", type=float, default=12, metavar="N", help="12; after each, AP is measured")
    own.add_argument("--batch-size", type=int, default=2, metavar="N", help="pictures a step and process (2)")
    own.add_argument("--learning-rate", type=float, default=1e-4, metavar="X", help="1e-4; a tenth for the backbone")
    own.add_argument("--skip-bad", action="store_true", help="go on without annotations that cannot be used")
    own.add_argument("--keep-empty", action="store_true", help="train on pictures without objects, too")
    own.add_argument("--seed", type=int, default=0, help="of order, augmentation and what is held out (0)")


def run(options: argparse.Namespace, settings: list[str]) -> None:
    """
    Trains, and prints the average precisions.

    Args:
        settings: `training.field=value`, fields of `transformers.TrainingArguments`.
    Raises:
        ValueError: an option is missing, or what [`fine_tune`] raises.
    """
    missing = [name for name in ("data", "model", "output") if getattr(options, name) is None]
    if missing:
        raise ValueError(f"train glee needs --{missing[0]}, as in: {EXAMPLE}")
    training = _settings(settings)
    from lookhear.training.glee.fine_tune import FineTuneOptions, fine_tune

    names = ("data", "model", "output", "images", "validation", "validation_images", "text", "epochs", "batch_size")
    names += ("learning_rate", "skip_bad", "keep_empty", "seed")
    chosen = {name: getattr(options, name) for name in names}
    metrics = fine_tune(FineTuneOptions(**chosen, training=training))
    if os.environ.get("RANK", "0") == "0":
        for name in ("box_AP", "box_AP50", "mask_AP", "mask_AP50"):
            if name in metrics:
                print(f"{name}\t{metrics[name]:.4f}")
        print(options.output)


def _settings(settings: list[str]) -> dict:
    import yaml

    training = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.startswith("training."):
            raise ValueError(f"setting {setting!r} must read training.field=value, as in training.bf16=true")
        training[name.removeprefix("training.")] = yaml.safe_load(value)
    return training


def main() -> None:
    """As `lookhear train glee`, for `accelerate launch -m lookhear.fine_tune`."""
    parser = argparse.ArgumentParser(prog="lookhear train glee", epilog=f"example: {EXAMPLE}")
    add_arguments(parser)
    parser.add_argument(
        "settings", nargs="*", metavar="training.field=value", help="of transformers.TrainingArguments"
    )
    options = parser.parse_args()
    try:
        run(options, options.settings)
    except ValueError as error:
        sys.exit(f"lookhear train glee: error: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
