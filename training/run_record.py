"""What a training was started with: written beside its checkpoints, and compared before it is resumed."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from lookhear.evaluation.tables import write_text

RECORD = "started.json"
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
WHOLE = 1 << 26  # bytes up to which a file is hashed as a whole; of a larger one, size, beginning and end
ENDS = 1 << 20
PASSING = (".", "cache", "README")  # beginnings of files in a folder that don't count
FILES = 20_000  # of a folder that are looked at


def last_checkpoint(folder: str | None) -> str | None:
    """Returns the newest checkpoint in a folder to resume from, or None."""
    return get_last_checkpoint(folder) if folder is not None and Path(folder).is_dir() else None


def begin_or_resume(
    arguments: TrainingArguments, started: Mapping[str, Any], overwrite: bool = False, mend: str = ""
) -> str | None:
    """
    Records what a run is started with, and returns the checkpoint to resume from.

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
    found = None if overwrite else last_checkpoint(str(folder))
    if found is not None:
        if differences := compare(read_record(folder), started):
            listed = "; ".join(differences[:MOST_SHOWN])
            more = f"; and {len(differences) - MOST_SHOWN} more" if len(differences) > MOST_SHOWN else ""
            raise ValueError(
                f"{folder} holds a run that was started with {listed}{more}. Repeat its command to resume it"
                f"{mend}, or name another folder"
            )
    if arguments.should_save:
        if overwrite:
            for checkpoint in folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
        write_text(folder / RECORD, json.dumps(dict(started), indent=2, ensure_ascii=False) + "\n")
    return found


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


def with_content(value: str) -> str:
    """Returns a path's last part with a hash of the file's or folder's content; other text as it is."""
    path = Path(value)
    try:
        if not {"/", ".", os.sep} & set(value) or not path.exists():  # a plain word may be anything
            return value
        return f"{path.resolve().name} ({fingerprint(path)})"
    except (OSError, ValueError):  # no path after all: too long, or with a null character
        return value


def fingerprint(path: Path) -> str:
    """
    Computes 12 hexadecimal digits of a file's content, or of a folder's files.

    Of a file above 64 MB, size, beginning and end count; of a folder, the names and sizes of the files right in it
    (without caches), and the content of its weights and of its JSON files up to 1 MB.
    """
    digest = hashlib.sha256()
    if path.is_file():
        _add_file(digest, path)
        return digest.hexdigest()[:12]
    files = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith(PASSING))
    for file in files[:FILES]:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        if file.suffix in (".safetensors", ".bin") or (file.suffix == ".json" and size <= ENDS):
            _add_file(digest, file)
    return digest.hexdigest()[:12]


def _add_file(digest: Any, path: Path) -> None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
            return
        digest.update(f"{size}".encode() + file.read(ENDS))
        file.seek(-ENDS, os.SEEK_END)
        digest.update(file.read())
