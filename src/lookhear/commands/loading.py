"""The pipelines that commands work with."""

from __future__ import annotations

from typing import Any


def load_pipeline(task: str, model: str, device: str | None = None, **settings: Any) -> Any:
    """
    Loads a pipeline of this package. Code that comes with a checkpoint isn't run, and nobody is asked for it.

    Args:
        task: `"audio-visual-speech-recognition"`, `"object-perception"` or `"reasoning-segmentation"`.
        model: checkpoint folder or Hub id.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, ...; None for the first accelerator, else the CPU.
        settings: defaults of the pipeline's calls.
    """
    from transformers import pipeline

    import lookhear  # noqa: F401 - registers the tasks

    return pipeline(  # type: ignore[call-overload]  # transformers' types list only its own tasks
        task, model=model, device=device, trust_remote_code=False, **settings
    )
