"""Asks the pipeline `reasoning-segmentation` about pictures, and measures what its answers show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lookhear.evaluation.measures.mask_runs import encode_mask
from lookhear.evaluation.measures.shown_objects import shown_rates
from lookhear.evaluation.protocols.run import ProtocolRun

Answer = dict[str, Any]  # {"text": str, "masks": [run lengths]}


def ask_about(run: ProtocolRun, pictures: Sequence[Any], questions: Sequence[Sequence[str]]) -> list[list[Answer]]:
    """
    Asks all questions about some pictures in one pass.

    Args:
        run: the protocol's run.
        pictures: paths or pictures. The pipeline reads each once, whatever the number of questions about it.
        questions: those about each picture.

    Returns:
        The answers to the questions of each picture.
    """
    if run.ask is None:
        raise ValueError(f"ask: protocol {run.name} needs the pipeline reasoning-segmentation")
    pairs = [(picture, text) for picture, texts in zip(pictures, questions, strict=True) for text in texts]
    inputs = [{"image": picture, "question": text} for picture, text in pairs]
    answers = iter(run.ask(inputs, batch_size=len(inputs)) if inputs else ())
    return [[_stored_form(next(answers)) for _ in texts] for texts in questions]


def _stored_form(answer: Mapping[str, Any]) -> Answer:
    return {"text": answer["text"], "masks": [encode_mask(found["mask"]) for found in answer["objects"]]}


def answer_figures(references: Sequence[Mapping], predictions: Sequence[Mapping], names: Sequence[str]) -> Answer:
    """
    Computes a report's figures: those of all samples, and `NAME_GROUP` of each group.

    Args:
        references: see `shown_rates`.
        predictions: see `shown_rates`.
        names: of the rates; those that no sample has an answer for are left out.
    """
    rates = shown_rates(references, predictions)
    every = {"": rates, **{f"_{group}": part for group, part in rates["groups"].items()}}
    figures = {f"{name}{group}": part[name] for group, part in every.items() for name in names}
    return {name: value for name, value in figures.items() if not math.isnan(value)}
