"""Runs the pipeline on pictures, some at a time, and stores the results as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lookhear.evaluation.measures.mask_runs import encode_mask
from lookhear.evaluation.protocols.layout import need_files
from lookhear.evaluation.protocols.run import ProtocolRun
from lookhear.evaluation.protocols.stored_results import StoredResults

Question = tuple[str, Path, Mapping[str, Any]]  # key, picture, prompts


def ask_pictures(
    run: ProtocolRun,
    stored: StoredResults,
    questions: Sequence[Question],
    masks: bool = True,
    what: str = "pictures",
    **settings: Any,
) -> None:
    """
    Answers the questions that are not answered yet.

    Args:
        stored: gets `answer_columns` of each.
        masks: store masks besides boxes.
        what: label of the progress, see `run.progress`.
        settings: of the pipeline, such as `threshold` and `top_k`.

    Raises:
        LayoutError: a picture is missing; raised before the first query.
    """
    open_questions = [question for question in questions if question[0] not in stored]
    if open_questions:
        need_files((picture for _, picture, _ in open_questions), str(run.images or run.data))
    done = len(questions) - len(open_questions)
    run.progress(what, done, len(questions))
    for first in range(0, len(open_questions), run.batch_size):
        some = open_questions[first : first + run.batch_size]
        inputs = [{"image": str(picture), **prompts} for _, picture, prompts in some]
        answers = run.see(inputs, batch_size=len(some), **settings)
        for (key, _, _), answer in zip(some, answers, strict=True):
            stored.add(key, answer_columns(answer, masks))
        done += len(some)
        run.progress(what, done, len(questions))


def answer_columns(answer: Sequence[Mapping[str, Any]], masks: bool = True) -> dict[str, list]:
    """
    Converts a picture's results to columns `labels`, `scores`, `boxes` (x0, y0, x1, y1) and `masks` (run lengths).
    """
    columns = {
        "labels": [found["label"] for found in answer],
        "scores": [float(found["score"]) for found in answer],
        "boxes": [plain_box(found["box"]) for found in answer],
    }
    return columns | ({"masks": [encode_mask(found["mask"]) for found in answer]} if masks else {})


def plain_box(box: Mapping[str, float]) -> list[float]:
    """Returns the pipeline's box as [x0, y0, x1, y1]."""
    return [float(box[name]) for name in ("xmin", "ymin", "xmax", "ymax")]
