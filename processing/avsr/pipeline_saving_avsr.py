"""Saving a pipeline so that it loads again with lookhear, and through its own code where lookhear is not installed."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

from transformers import Pipeline
from transformers.dynamic_module_utils import custom_object_save

MODEL_CLASS = "AutoModelForSpeechSeq2Seq"


def save_with_code(
    pipe: Pipeline, task: str, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs
) -> None:
    """
    Writes the model, the processor, and the code of both and of the pipeline; the pipeline may be in use meanwhile.

    Args:
        pipe: its `model` and `processor` are saved.
        task: the pipeline's name in `config.json`, where `pipeline(..., trust_remote_code=True)` looks for it.
        save_directory: made if missing.
        push_to_hub: whether all of it is uploaded as well, to `repo_id`, by default the folder's name.
        kwargs: of the model's `save_pretrained`; with `push_to_hub` those of the pipeline's `push_to_hub`.

    Raises:
        ValueError: `save_directory` is a file.
    """
    folder = Path(save_directory)
    if folder.is_file():
        raise ValueError(f"`save_directory` must be a folder, and {str(folder)!r} is a file.")
    if push_to_hub:
        pipe.push_to_hub(kwargs.pop("repo_id", folder.name), **kwargs)
        kwargs = {}
    model = copy.copy(pipe.model)  # the same weights; saving writes into the configuration, which may be in use
    model.config = copy.deepcopy(pipe.model.config)
    model.save_pretrained(folder, **kwargs)
    pipe.processor.save_pretrained(folder)
    custom_object_save(pipe, folder)
    # Into the file only: with a pipeline's name in the model's own configuration, `pipeline` would ask for trust_remote_code.
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["auto_map"]["AutoModel"] = _reference(pipe.model.base_model)  # saving names the model's own class only
    config["custom_pipelines"] = {task: {"impl": _reference(pipe), "pt": [MODEL_CLASS], "type": "multimodal"}}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _reference(instance: object) -> str:
    """`module.Class` of an object, as configurations name code beside them."""
    return f"{type(instance).__module__.split('.')[-1]}.{type(instance).__name__}"
