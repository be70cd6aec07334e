"""What a training was started with: written beside its checkpoints, and compared before it is resumed."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from lookhear.evaluation.fingerprints import with_content
from lookhear.evaluation.whole_files import remove_leftovers, write_text
from lookhear.training.checkpoints import STATE, checkpoints, list_older, newest_whole, remove_halves

RECORD = "started.json"
LISTED = "checkpoints"  # in it: the run's checkpoints list their files, which those of earlier versions do not
# Fields of a recipe's `training` that change no weights: where a run is, how it is watched, stored and fed; or
# beginnings of their names.
HARMLESS = tuple(
    """
    output_dir overwrite logging_ log_ disable_tqdm report_to run_name project trackio_ push_to_hub hub_ debug
    save_steps save_strategy save_total_limit skip_memory_metrics dataloader_ ddp_ use_cpu local_rank
    per_device_eval_batch_size eval_accumulation_steps
    """.split()
)
GROWING = ("training.max_steps", "training.num_train_epochs")  # a run may be resumed for longer
MOST_SHOWN = 3


def begin_or_resume(
    arguments: TrainingArguments, started: Mapping[str, Any], overwrite: bool = False, mend: str = ""
) -> str | None:
    """
    Records what a run is started with, and returns the checkpoint to resume from: the newest that is whole.

    Halves of checkpoints are removed, and so is what a killed process has left beside them.

    Args:
        arguments: of the run; its `output_dir` is compared and written to.
        started: by dotted names, plain values as JSON has them.
        overwrite: whether the checkpoints of an earlier run are removed, so that this one starts anew.
        mend: how the caller starts anew, for the error message.

    Returns:
        The checkpoint's folder; None for a run that starts.

    Raises:
        ValueError: the folder holds checkpoints of a run that was started with something else.
    """
    folder = Path(str(arguments.output_dir))
    with arguments.main_process_first(local=arguments.save_on_each_node, desc="choosing a checkpoint"):
        found = checkpoints(folder)
        before = None if overwrite or not found else read_record(folder)
        if differences := compare(before, started):
            listed = "; ".join(differences[:MOST_SHOWN])
            more = f"; and {len(differences) - MOST_SHOWN} more" if len(differences) > MOST_SHOWN else ""
            raise ValueError(
                f"{folder} holds a run that was started with {listed}{more}. Repeat its command to resume it"
                f"{mend}, or name another folder"
            )
        if arguments.should_save:
            for checkpoint in found if overwrite else []:
                shutil.rmtree(checkpoint)
            if not (before or {}).get(LISTED):
                list_older(folder)
            remove_halves(folder)
            remove_leftovers(folder)
            if newest_whole(folder) is None:
                (folder / STATE).unlink(missing_ok=True)  # a result there is not of the run that starts
            record = dict(started) | {LISTED: True}
            write_text(folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        chosen = newest_whole(folder)
    return None if chosen is None else str(chosen)


def read_record(folder: Path) -> dict[str, Any] | None:
    """Reads what the run in a folder was started with; None if it did not record it. Raises ValueError if damaged."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        raise ValueError(f"{path} is damaged: remove it and the checkpoints there, or name another folder") from None


def compare(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """Lists what differs between two runs that should be one: `learning_rate 0.1, not 0.2`."""
    if before is None:  # of an earlier version, which did not record it
        return []
    now = json.loads(json.dumps(dict(now)))
    differences = []
    for name in dict.fromkeys([*before, *now]):
        if name == LISTED:
            continue
        if before.get(name) != now.get(name) and not _grows(name, before.get(name), now.get(name)):
            differences.append(f"{name} {_shown(before.get(name))}, not {_shown(now.get(name))}")
    return differences


def _grows(name: str, before: Any, now: Any) -> bool:
    number = isinstance(before, (int, float)) and isinstance(now, (int, float))
    return name in GROWING and number and now >= before


def _shown(value: Any) -> str:
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}..."


def recipe_record(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """
    Returns what a recipe starts a run with, without what changes no weights.

    Args:
        recipe: plain values, such as `asdict` makes of a recipe.

    Returns:
        By dotted names; files and folders by their name and a hash of their content, so that they may be moved.
    """
    flat = flattened(recipe)
    kept = {name: value for name, value in flat.items() if not _is_harmless(name)}
    return {name: with_content(value) if isinstance(value, str) else value for name, value in kept.items()}


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested mappings and lists of mappings as one, by dotted names: `data.sources.0.root`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, str)) for item in value):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _is_harmless(name: str) -> bool:
    return name.startswith(tuple(f"training.{field}" for field in HARMLESS))
