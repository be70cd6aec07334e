"""The pipelines that commands work with."""

from __future__ import annotations

from typing import Any

TASKS = {"audio-visual-speech-recognition": "avsr", "object-perception": "glee", "reasoning-segmentation": "lisa_glee"}
KINDS = {  # of each model_type
    "avsr": "a speech model",
    "glee": "a model that finds objects",
    "lisa_glee": "a model that answers questions about images",
}
COMMANDS = {"avsr": "transcribe", "glee": "perceive", "lisa_glee": "ask"}


def load_pipeline(task: str, model: str, device: str | None = None, dtype: str = "auto", **settings: Any) -> Any:
    """
    Loads a pipeline of this package. Code that comes with a checkpoint isn't run, and nobody is asked for it.

    Args:
        task: one of `TASKS`.
        model: checkpoint folder or Hub id, or a name such as `"glee-lite"`.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, ...; None for the first accelerator, else the CPU.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; `"auto"` for that of the stored weights.
        settings: defaults of the pipeline's calls.

    Raises:
        ValueError: the checkpoint is of another kind of model.
    """
    from transformers import AutoConfig, pipeline

    import lookhear  # noqa: F401 - registers the tasks
    from lookhear.training.named_models import local_model

    model = local_model(model)
    check_kind(model, AutoConfig.from_pretrained(model).model_type, TASKS[task])
    return pipeline(  # type: ignore[call-overload]  # transformers' types list only its own tasks
        task, model=model, device=device, dtype=dtype, trust_remote_code=False, **settings
    )


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
