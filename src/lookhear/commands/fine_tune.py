"""`lookhear train glee`: a COCO file of one's own in, a checkpoint with its card out; also under `accelerate launch`.

accelerate launch --config_file training/accelerate/multi_gpu.yaml -m lookhear.cli train glee --data my_coco.json …
"""

from __future__ import annotations

import argparse
import os
from typing import Any


def run(options: argparse.Namespace, settings: list[str]) -> None:
    """
    Trains a model, and prints its average precisions.

    Args:
        options: of the command line.
        settings: `training.field=value`, fields of `transformers.TrainingArguments`.

    Raises:
        ValueError: an option is missing, or what [`fine_tune`] raises.
    """
    missing = [name for name in ("data", "model", "output") if getattr(options, name) is None]
    if missing:
        raise ValueError(f"train glee needs --{missing[0]}: a COCO file, a checkpoint, and a folder for the result")
    training = _settings(settings)
    from lookhear.training.glee.fine_tuning.fine_tune import FineTuneOptions, fine_tune

    names = ["data", "model", "output", "images", "validation", "validation_images", "text", "epochs", "batch_size"]
    names += ["learning_rate", "skip_bad", "keep_empty", "seed", "shots"]
    chosen = {name: getattr(options, name) for name in names}
    metrics = fine_tune(FineTuneOptions(**chosen, training=training))
    if os.environ.get("RANK", "0") == "0":
        for name in ("box_AP", "box_AP50", "mask_AP", "mask_AP50"):
            if name in metrics:
                print(f"{name}\t{metrics[name]:.4f}")
        print(options.output)


def _settings(settings: list[str]) -> dict[str, Any]:
    """Reads `training.field=value`; each value as in a recipe."""
    from lookhear.training.recipe_reading import read_value

    training = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.startswith("training."):
            raise ValueError(f"setting {setting!r} must read training.field=value, as in training.bf16=true")
        training[name.removeprefix("training.")] = read_value(value, f"setting {setting!r}")
    return training
