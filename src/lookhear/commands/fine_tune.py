"""`lookhear train glee`: a COCO file of one's own in, a checkpoint with its card out; also under `accelerate launch`.

accelerate launch --config_file training/accelerate/multi_gpu.yaml -m lookhear.cli train glee --data my_coco.json …
"""

from __future__ import annotations

import argparse
import os
from typing import Any

SECTIONS = ("optimiser", "augmentation", "source", "config", "held_out", "sheet")


def run(options: argparse.Namespace, settings: list[str]) -> None:
    """
    Trains a model, and prints its average precisions.

    Args:
        options: of the command line.
        settings: `section.field=value`: of `training` (fields of `transformers.TrainingArguments`), `optimiser`,
            `augmentation`, `source` (the data, see [`Source`]) and `config` (of the model); or `held_out=`, `sheet=`.

    Raises:
        ValueError: an option is missing, or what [`fine_tune`] raises.
    """
    missing = [name for name in ("data", "model", "output") if getattr(options, name) is None]
    if missing:
        raise ValueError(f"train glee needs --{missing[0]}: a COCO file, a checkpoint, and a folder for the result")
    named = [setting for setting in settings if setting.partition("=")[0].partition(".")[0] in SECTIONS]
    training = _settings([setting for setting in settings if setting not in named])
    from lookhear.training.glee.fine_tuning.fine_tune import FineTuneOptions, fine_tune

    names = ["data", "model", "output", "images", "validation", "validation_images", "text", "epochs", "batch_size"]
    names += ["learning_rate", "skip_bad", "keep_empty", "seed", "shots", "overwrite"]
    chosen = {name: getattr(options, name) for name in names}
    chosen |= {"freeze": tuple(options.freeze or ()), "patience": options.patience}
    metrics = fine_tune(FineTuneOptions(**chosen, training=training, **_sections(named)))
    if os.environ.get("RANK", "0") == "0":
        for name in ("box_AP", "box_AP50", "mask_AP", "mask_AP50"):
            if name in metrics:
                print(f"{name}\t{metrics[name]:.4f}")
        print(options.output)


def _sections(settings: list[str]) -> dict[str, Any]:
    """Reads settings of other sections; each value as in a recipe."""
    from lookhear.training.glee.fine_tuning.fine_tune import FineTuneOptions
    from lookhear.training.glee.optimiser import OptimiserRecipe
    from lookhear.training.recipe_reading import fill, read_value

    sections: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"setting {setting!r} must read {name}=value")
        place, (*parts, last) = sections, name.split(".")
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = read_value(value, f"setting {setting!r}")
    if "optimiser" in sections:
        sections["optimiser"] = fill(OptimiserRecipe, sections["optimiser"], "optimiser")
    for name in ("held_out", "sheet"):
        if name in sections and not isinstance(sections[name], (int, float)):
            raise ValueError(f"{name} must be a number, not {sections[name]!r}")
    known = FineTuneOptions.__dataclass_fields__
    return {name: value for name, value in sections.items() if name in known}


def _settings(settings: list[str]) -> dict[str, Any]:
    """Reads `training.field=value`; each value as in a recipe."""
    from lookhear.training.recipe_reading import read_value

    training = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.startswith("training."):
            raise ValueError(
                f"setting {setting!r} must read training.field=value, as in training.bf16=true, or be of one of "
                f"{', '.join(SECTIONS)}"
            )
        training[name.removeprefix("training.")] = read_value(value, f"setting {setting!r}")
    return training
