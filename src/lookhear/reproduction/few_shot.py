"""ODinW-13 after training on a few pictures: a detector for each data set and selection, measured on its test part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lookhear.evaluation.protocols.odinw import ODINW_13, OTHER_PARTS, odinw_13_file
from lookhear.reproduction.definitions import Measure

Found = tuple[dict[str, float], dict[str, list[float]], str]


def measure_few_shot(
    spec: Measure,
    model: str,
    data: Path,
    folder: Path,
    training: dict[str, Any],
    device: str | None,
    progress: Callable[[str, int, int], None],
) -> Found:
    """
    Trains and measures; what is finished in the folder is not done again, an interrupted training goes on.

    Args:
        spec: with `shots`, `seeds` and `epochs`; `limit` takes the first data sets only.
        model: detector that all trainings start from.
        data: folder of ODinW's data sets.
        folder: of the results.
        training: more fields of `TrainingArguments`.
        device: of the measurement; None: the first accelerator, else the CPU.
        progress: called with (what, done, total).

    Returns:
        `box_AP`, the mean over data sets and selections, and `box_AP NAME` of each data set, its mean over selections;
        lowest and highest value of the selections; a note on the selections.

    Raises:
        ValueError: a data set lacks a part, which is named.
    """
    names = list(ODINW_13)[: spec.limit]
    seeds = spec.seeds if spec.shots is not None else spec.seeds[:1]  # all pictures are one selection
    files = {name: _parts(data, name) for name in names}
    values: dict[str, list[float]] = {}
    published = 0
    for number, name in enumerate(names):
        values[name] = []
        for place, seed in enumerate(seeds):
            progress(f"few-shot {name}", number * len(seeds) + place, len(names) * len(seeds))
            chosen = _published(files[name]["train"], spec.shots, seed)
            published += chosen is not None
            run = folder / name / f"seed{seed}"
            detector = _train(spec, model, files[name], chosen, seed, run, training)
            values[name].append(_test(data, name, detector, run, device))
    progress("few-shot", len(names) * len(seeds), len(names) * len(seeds))
    table = np.array(list(values.values()))  # (data sets, selections)
    figures = {"box_AP": float(table.mean())} | {f"box_AP {name}": float(np.mean(values[name])) for name in names}
    ranges = {"box_AP": table.mean(axis=0)} | {f"box_AP {name}": np.array(values[name]) for name in names}
    spread = {name: [float(each.min()), float(each.max())] for name, each in ranges.items() if len(seeds) > 1}
    note = f"{len(names)} data sets, {len(seeds)} selections of pictures"
    if spec.shots is not None:
        note += f", {published} of {len(names) * len(seeds)} of them ODinW's own, the others chosen by our rule"
    return figures, spread, note


def _parts(data: Path, name: str) -> dict[str, Path]:
    """Returns the annotation files of a data set's three parts."""
    files = {part: odinw_13_file(data, name, part) for part in ("train", "valid", "test")}
    found = {part: path for part, path in files.items() if path is not None}
    if missing := [part for part in files if part not in found]:
        raise ValueError(f"{data}: {ODINW_13[name]} has no part {' and no '.join(missing)}; unpack ODinW's data sets")
    return found


def _published(train: Path, shots: int | None, seed: int) -> Path | None:
    """Returns ODinW's own selection of pictures, if it lies beside them."""
    path = train.with_name(f"fewshot_train_shot{shots}_seed{seed}.json")
    return path if shots is not None and path.is_file() else None


def _train(
    spec: Measure,
    model: str,
    files: dict[str, Path],
    chosen: Path | None,
    seed: int,
    run: Path,
    training: dict[str, Any],
) -> Path:
    from lookhear.training.glee.fine_tuning.fine_tune import FineTuneOptions, fine_tune

    detector = run / "detector"
    if (detector / "metrics.json").is_file() and (detector / "README.md").is_file():  # the card is written last
        return detector
    options = FineTuneOptions(
        chosen or files["train"],
        model,
        detector,
        validation=files["valid"],
        shots=spec.shots if chosen is None else None,
        skip_bad=True,
        epochs=spec.epochs,
        seed=seed,
        training=training,
    )
    fine_tune(options)
    return detector


def _test(data: Path, name: str, detector: Path, run: Path, device: str | None) -> float:
    """Returns the box AP of a detector on the test part of its data set."""
    from lookhear.commands.evaluate_glee import lazy_pipeline
    from lookhear.evaluation.protocols.run import ProtocolRun
    from lookhear.evaluation.protocols.running import run_protocol

    report = run / "test" / "report.json"
    if not report.is_file():
        part = OTHER_PARTS["test"].get(name, "test")
        see = lazy_pipeline("object-perception", str(detector), device)
        run_protocol(
            ProtocolRun("odinw", data / ODINW_13[name], run / "test", see=see, model=str(detector), split=part)
        )
    figure = json.loads(report.read_text(encoding="utf-8"))["metrics"]["box_AP"]
    return float("nan") if figure is None else float(figure)
