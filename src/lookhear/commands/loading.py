"""The pipelines that commands work with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TASKS = {"audio-visual-speech-recognition": "avsr", "object-perception": "glee", "reasoning-segmentation": "lisa_glee"}
KINDS = {  # of each model_type
    "avsr": "a speech model",
    "glee": "a model that finds objects",
    "lisa_glee": "a model that answers questions about images",
}
MOST_LAYERS = 1000  # in a part of a model; more would be built for hours before their weights are found missing
LARGEST = 100_000_000  # number in a configuration
COMMANDS = {"avsr": "transcribe", "glee": "perceive", "lisa_glee": "ask"}


def load_pipeline(task: str, model: str, device: str | None = None, dtype: str = "auto", **settings: Any) -> Any:
    """
    Loads a pipeline of this package. Code that comes with a checkpoint isn't run, and nobody is asked for it.

    Args:
        task: one of `TASKS`.
        model: checkpoint folder or Hub id, or a name such as `"glee-lite"`.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, ...; None for the first accelerator, else the CPU.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; `"auto"`: see [`chosen_dtype`].
        settings: defaults of the pipeline's calls.

    Raises:
        ValueError: the checkpoint is of another kind of model, or of an absurd size.
    """
    from transformers import AutoConfig, pipeline

    import lookhear  # noqa: F401 - registers the tasks
    from lookhear.training.named_models import local_model

    model = local_model(model)
    config = AutoConfig.from_pretrained(model)
    check_kind(model, config.model_type, TASKS[task])
    check_sizes(model, config.to_dict())
    dtype = chosen_dtype(dtype, TASKS[task], device)
    return pipeline(  # type: ignore[call-overload]  # transformers' types list only its own tasks
        task, model=model, device=device, dtype=dtype, trust_remote_code=False, **settings
    )


def chosen_dtype(dtype: str, system: str, device: str | None) -> str:
    """
    Chooses what `"auto"` means: on a CUDA device half precision, elsewhere the dtype of the stored weights.

    Scores of objects are within .01 of float32's in float16 and up to .25 off in bfloat16, so that GLEE takes float16.
    Speech reads the same texts in both; bfloat16 can't overflow. What answers questions keeps its language model's.

    Args:
        dtype: as it was given.
        system: a value of `TASKS`.
        device: as it was given; None for the first accelerator, else the CPU.
    """
    import torch

    on_cuda = torch.cuda.is_available() and (device is None or str(device).startswith("cuda"))
    if dtype != "auto" or not on_cuda or system == "lisa_glee":
        return dtype
    return "bfloat16" if system == "avsr" and torch.cuda.is_bf16_supported() else "float16"


def check_kind(model: str, found: str, needed: str) -> None:
    """
    Checks that a command gets the kind of model that it works with.

    Args:
        model: as it was given, for the message.
        found: its `model_type`.
        needed: a key of `KINDS`.

    Raises:
        ValueError: it is another.
    """
    if found == needed:
        return
    what, where = KINDS.get(found, "a model of another kind"), ""
    if found in COMMANDS:
        where = f", for lookhear {COMMANDS[found]}"
    raise ValueError(f"--model {model} is {what} ({found}){where}; this command needs {KINDS[needed]} ({needed})")


def check_sizes(model: str, fields: Mapping[str, Any], name: str = "config.json") -> None:
    """
    Checks that a damaged or hostile configuration doesn't keep the machine busy before its weights are looked at.

    Args:
        model: as it was given, for the message.
        fields: of the configuration, or of a part of it.
        name: of the part, for the message.

    Raises:
        ValueError: a number of layers is above `MOST_LAYERS`, or any number above `LARGEST`.
    """
    for key, value in fields.items():
        if isinstance(value, Mapping):
            check_sizes(model, value, f"{name}: {key}")
            continue
        most = MOST_LAYERS if re.search("layers|depths", str(key)) else LARGEST  # ids of labels are keys, too
        for number in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(number, int) and number > most:
                raise ValueError(
                    f"--model {model} is damaged: its {name} says {key}: {number}, and {most} is the most that is "
                    "loaded; get it again"
                )
