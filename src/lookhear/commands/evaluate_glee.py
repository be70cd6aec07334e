"""`lookhear evaluate glee`: a published protocol on its own folder, its figures, and the file that a server wants."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from lookhear.commands.loading import load_pipeline
from lookhear.evaluation.tables import write_text

MODEL_TYPES = {"object-perception": "glee", "reasoning-segmentation": "lisa_glee"}


def run(options: argparse.Namespace, progress: Callable[[str, int, int], None]) -> None:
    """
    Runs the protocol and prints its figures.

    Args:
        options: of the command line; `output` is None for a folder with the protocol's name, `data` is None only for
            scene-questions, which is made then.
        progress: called with (what, done, total).

    Raises:
        ValueError: no protocol is named, or what `run_protocol` raises.
    """
    if options.protocol is None:
        raise ValueError("evaluate glee needs --protocol, such as coco; evaluation/protocols/README.md lists them")
    for name in ("csv", "picture"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"--{name} applies to avsr only; the figures of a protocol go to stdout, --json and the output folder"
            )
    from lookhear.evaluation.protocols.run import ProtocolRun
    from lookhear.evaluation.protocols.running import format_report, run_protocol, to_json
    from lookhear.evaluation.scene_questions import CARD

    report = run_protocol(
        ProtocolRun(
            options.protocol,
            options.data or CARD,
            options.output or Path(options.protocol),
            see=lazy_pipeline("object-perception", options.model, options.device),
            ask=lazy_pipeline("reasoning-segmentation", options.model, options.device),
            model=str(options.model),
            split=options.split,
            images=options.images,
            limit=options.limit,
            batch_size=options.batch_size or 1,
            tracking=options.tracking,
            progress=progress,
        )
    )
    print(format_report(report), end="")
    if options.json is not None:
        write_text(options.json, to_json(report))


def lazy_pipeline(task: str, model: str, device: str | None) -> Callable[..., Any]:
    """Returns a pipeline, loaded at its first call: after the protocol has checked its folder, or never."""
    load = cache(partial(_load, task, model, device))
    return lambda inputs, **settings: load()(inputs, **settings)


def _load(task: str, model: str, device: str | None) -> Any:
    """Loads a pipeline; refuses the other system's checkpoint, which transformers loads too or rejects at length."""
    from transformers import AutoConfig

    import lookhear  # noqa: F401 - registers the configurations

    found, needed = AutoConfig.from_pretrained(model).model_type, MODEL_TYPES[task]
    if found != needed and found in MODEL_TYPES.values():
        raise ValueError(f"--model {model} is a {found}; this protocol needs a checkpoint of {needed}")
    return load_pipeline(task, model, device)
