"""Runs the pipeline on pictures, some at a time, and stores the results as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lookhear.evaluation.measures.mask_runs import encode_mask
from lookhear.evaluation.protocols.layout import need_files
from lookhear.evaluation.protocols.run import ProtocolRun
from lookhear.evaluation.protocols.stored_results import StoredResults

S = TypeVar("S")
T = TypeVar("T")
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
    need_pictures(run, stored, questions)
    for batch in open_batches(run, stored, questions, what):
        inputs = [{"image": str(picture), **prompts} for _, picture, prompts in batch]
        answers = run.see(inputs, batch_size=len(batch), **settings)
        for (key, _, _), answer in zip(batch, answers, strict=True):
            stored.add(key, answer_columns(answer, masks))


def need_pictures(run: ProtocolRun, stored: StoredResults, questions: Sequence[tuple[str, Path, Any]]) -> None:
    """Raises LayoutError if a picture of questions (key, picture, …) that are not answered yet is missing."""
    if files := [picture for key, picture, _ in questions if key not in stored]:
        need_files(files, str(run.images or run.data))


def open_batches(
    run: ProtocolRun, stored: StoredResults, questions: Sequence[tuple[str, S, T]], what: str = "pictures"
) -> Iterator[Sequence[tuple[str, S, T]]]:
    """
    Yields the questions that are not answered yet, `run.batch_size` pictures at a time, and reports progress.

    Args:
        stored: has the answers, also those of the batches that were yielded.
        questions: key, picture, and what is asked about it.
        what: label of the progress, see `run.progress`.
    """
    open_questions = [question for question in questions if question[0] not in stored]
    done = len(questions) - len(open_questions)
    run.progress(what, done, len(questions))
    for first in range(0, len(open_questions), run.batch_size):
        batch = open_questions[first : first + run.batch_size]
        yield batch
        done += len(batch)
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
