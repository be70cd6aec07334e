"""Scene-questions: generated pictures, questions about them, and exact answers in words and masks."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from lookhear.evaluation.protocols.answers import answer_figures, ask_about
from lookhear.evaluation.protocols.layout import LayoutError, by_key, need_folder
from lookhear.evaluation.protocols.pictures import open_batches
from lookhear.evaluation.protocols.run import ProtocolReport, ProtocolRun
from lookhear.evaluation.scene_questions import DATA, load_rows

FIGURES = ("gIoU", "cIoU", "words", "none")
ASKED = {"test": "question", "others": "other_question"}  # column of the text that is asked, by split


def run_scene_questions(run: ProtocolRun) -> ProtocolReport:
    """
    Runs scene-questions: `test.parquet`; gIoU, cIoU, answers right in words, and answers that rightly show nothing, of
    all questions, of each family, and of those whose objects have pairs of colour and kind that training leaves out.

    Splits: `test` (default); `others` asks each question about another picture, to see that questions are read.
    """
    root, split = need_folder(run.data, DATA), run.split or "test"
    if split not in ASKED:
        raise LayoutError(f"scene-questions has no split {split!r}; it has {', '.join(ASKED)}")
    scenes = run.some(list(by_key(load_rows(root), "scene").items()))
    stored = run.stored(split)
    questions = [(str(scene), rows, [row[ASKED[split]] for row in rows]) for scene, rows in scenes]
    for batch in open_batches(run, stored, questions):
        answers = ask_about(run, [_picture(rows[0]) for _, rows, _ in batch], [texts for _, _, texts in batch])
        for (scene, _, _), some in zip(batch, answers, strict=True):
            stored.add(scene, some)
    references: list[dict[str, Any]] = []
    predictions: list[dict[str, Any]] = []
    new: list[int] = []  # places of the questions about new pairs
    for scene, rows, _ in questions:
        new += [len(references) + place for place, row in enumerate(rows) if row["new_pair"]]
        references += [{"masks": row["masks"], "text": row["answer"], "group": row["family"]} for row in rows]
        predictions += stored[scene]
    metrics = answer_figures(references, predictions, FIGURES)
    pairs = [{**references[place], "group": "new_pairs"} for place in new]
    about_new = answer_figures(pairs, [predictions[place] for place in new], FIGURES)
    metrics |= {name: value for name, value in about_new.items() if name.endswith("_new_pairs")}
    return ProtocolReport(run.name, split, metrics, len(references), "questions", [stored.path])


def _picture(row: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
