"""What a stage does: it prepares, trains or measures, and goes on where an earlier run was interrupted."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lookhear.evaluation.tables import write_text
from lookhear.reproduction.definitions import Measure, Paper, Preparation
from lookhear.reproduction.few_shot import measure_few_shot
from lookhear.reproduction.places import Places, located
from lookhear.reproduction.stages import Stage

Progress = Callable[[str, int, int], None]
STDERR = 2  # file descriptor: what a launched training prints is no result


@dataclass(frozen=True)
class Figures:
    """
    What a measurement found.

    Attributes:
        values: fractions by name; NaN where there is none.
        intervals: their 95 % intervals, or lowest and highest values, as far as there are any.
        note: what the reader has to know, such as which server measures.
    """

    values: dict[str, float]
    intervals: dict[str, list[float]]
    note: str = ""


def prepare(stage: Stage, places: Places, paper: Paper) -> None:
    """
    Prepares a part of a corpus; finished shards are not made again.

    Args:
        stage: of the kind `prepare`.
        places: where things are.
        paper: of the table.

    Raises:
        ValueError: the source is not laid out as it should be, or the folder was prepared with other settings.
    """
    from lookhear.training.avsr.prepare import prepare as prepare_shards

    spec = stage.spec
    assert isinstance(spec, Preparation)  # by its kind
    folder = places.prepared(stage.name)
    summary = prepare_shards(spec.corpus, places.source(spec.source), folder, split=spec.split, **stage.settings)
    print(summary, file=sys.stderr)


def train(stage: Stage, places: Places, paper: Paper, launcher: Path | None = None) -> None:
    """
    Trains by a recipe, which is written to `recipes/`; the last checkpoint is where it goes on.

    Args:
        stage: of the kind `train`.
        places: where things are.
        paper: of the table.
        launcher: configuration file of `accelerate launch`, which runs the training; None: this process does.

    Raises:
        ValueError: the recipe cannot be run.
    """
    from lookhear.training.run_recipe import run_recipe

    content = located(stage.content, places, paper)
    content["training"] = {**content.get("training", {}), "output_dir": str(places.output / "runs" / stage.name)}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    recipe = write_text(places.output / "recipes" / f"{stage.name}.yaml", text)
    if launcher is None:
        run_recipe(recipe)
        gc.collect()  # a trainer is full of circles, and the next model needs the memory
        return
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(launcher)]
    done = subprocess.run([*command, "-m", "lookhear.cli", "train", str(recipe)], stdout=STDERR)
    if done.returncode:
        raise ValueError(
            f"training {stage.name} ended with exit code {done.returncode}; its own message is above. Once that is "
            "mended, the same command goes on with this training"
        )


def measure(stage: Stage, places: Places, paper: Paper, progress: Progress) -> Figures:
    """
    Measures a model.

    Args:
        stage: of the kind `measure`.
        places: where things are.
        paper: of the table.
        progress: called with (what, done, total).

    Raises:
        ValueError: the data are not laid out as they should be, or the model is of another kind.
    """
    spec = stage.spec
    assert isinstance(spec, Measure)  # by its kind
    model = places.model(stage.settings["model"])
    data = places.prepared(spec.data) if spec.data in paper.preparations else places.source(spec.data)
    device, folder = stage.settings.get("device"), places.output / "measured" / stage.name
    if spec.kind == "speech":
        return _speech(spec, model, data, device, progress)
    if spec.kind == "words":
        return _words(spec, model, data, device, progress)
    if spec.kind == "few-shot":
        found = measure_few_shot(spec, model, data, folder, stage.content.get("training", {}), device, progress)
        return Figures(*found)
    images = None if spec.images is None else places.source(spec.images)
    return _protocol(spec, model, data, images, folder, device, progress)


def _speech(spec: Measure, model: str, data: Path, device: str | None, progress: Progress) -> Figures:
    from transformers import AutoConfig

    import lookhear  # noqa: F401 - registers the configurations
    from lookhear.evaluation.avsr_conditions import CLEAN, evaluate_avsr

    config = AutoConfig.from_pretrained(model)
    trained = config.ctc_loss_weight or config.alignment_loss_weight
    rows = [
        result.to_dict()
        for result in evaluate_avsr(
            model,
            data,
            modalities=[spec.modality or config.modality],
            noises=spec.noise,
            snrs=spec.snr,
            noise_probability=spec.noise_probability,
            num_beams=spec.num_beams,
            ctc_weight=spec.ctc_weight if trained else None,
            batch_size=spec.batch_size or 8,
            limit=spec.limit,
            seed=spec.seed,
            device=device,
            progress=progress,
        )
    ]
    values, intervals = {}, {}
    for row in rows:
        place = CLEAN if row["snr"] == CLEAN else f"{row['noise']} {row['snr']}"
        for name in ("wer", "cer"):
            values[f"{name} {place}"] = row[name]
        intervals[f"wer {place}"] = row["interval"]
    return Figures(values, intervals, f"{rows[0]['clips']} clips")


def _words(spec: Measure, model: str, data: Path, device: str | None, progress: Progress) -> Figures:
    from lookhear.evaluation.lip_words import evaluate_words

    settings: dict[str, Any] = {"split": spec.split, "limit": spec.limit, "seed": spec.seed, "device": device}
    row = evaluate_words(model, data, batch_size=spec.batch_size or 32, progress=progress, **settings).to_dict()
    return Figures({"accuracy": row["accuracy"]}, {"accuracy": row["interval"]}, f"{row['clips']} clips")


def _protocol(
    spec: Measure, model: str, data: Path, images: Path | None, folder: Path, device: str | None, progress: Progress
) -> Figures:
    """Runs a protocol; predictions that are there already are not made again."""
    from lookhear.commands.evaluate_glee import lazy_pipeline
    from lookhear.evaluation.protocols.run import ProtocolRun
    from lookhear.evaluation.protocols.running import run_protocol

    report = run_protocol(
        ProtocolRun(
            str(spec.protocol),
            data,
            folder,
            see=lazy_pipeline("object-perception", model, device),
            ask=lazy_pipeline("reasoning-segmentation", model, device),
            model=model,
            split=spec.split,
            images=images,
            limit=spec.limit,
            batch_size=spec.batch_size or 1,
            tracking=spec.tracking,
            progress=progress,
        )
    )
    values = dict(report.metrics)
    for figure, parts in report.parts.items():
        if isinstance(parts, dict):
            values |= {f"{figure} {part}": value for part, value in parts.items() if isinstance(value, float)}
    return Figures(values, {}, report.note or f"{report.count} {report.unit}")
