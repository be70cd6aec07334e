"""Evaluation of a checkpoint on photos: `python -m lookhear.training.glee.scenes.evaluate_photos CHECKPOINT --people
COCO_FOLDER`.

Asked are people, who are there, and shapes and sentences that are not. Photos are those of `person_photos` that are
held out from training.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from PIL import Image
from transformers import pipeline

import lookhear  # noqa: F401  (registers the pipelines)
from lookhear.evaluation.measures.mask_runs import box_ious
from lookhear.processing.glee import GleeProcessor, ObjectPerceptionPipeline
from lookhear.training.glee.scenes.absence import absent_sentences
from lookhear.training.glee.scenes.evaluate_scenes import EVALUATION_SEED, SceneEvaluation, side_ious
from lookhear.training.glee.scenes.person_photos import PersonPhoto, read_people
from lookhear.training.glee.scenes.recipe import with_people
from lookhear.training.glee.scenes.scenes import Scene, SceneMaterial, photo_scene
from lookhear.training.glee.scenes.shapes import KINDS

LABELS = ("person", *KINDS)
LARGE = 0.04  # of the picture: a person's box from which the person counts
ABSENT = 3  # sentences about nothing that are asked of each photo
SIDE_SCENES = 100
FULL_SIZE = 4096  # pixels: photos are looked at as they are
See = Callable[..., Any]
Box = tuple[float, float, float, float]


@dataclass
class PhotoAnswers:
    """
    What a checkpoint finds in photos, whatever the score.

    Attributes:
        persons: for each photo with one large person, the scores of the boxes that are found for "person", best first.
        overlaps: their IoU with the person's box.
        false: for each photo the scores of what is found for the eight kinds of shapes.
        present: by what is asked ("person", "face", "mouth"), score and IoU of the box found for the sentence.
        absent: scores of sentences that are true of nothing.
    """

    persons: list[np.ndarray] = field(default_factory=list)
    overlaps: list[np.ndarray] = field(default_factory=list)
    false: list[np.ndarray] = field(default_factory=list)
    present: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    absent: list[float] = field(default_factory=list)

    def found(self) -> float:
        """Returns the share of the photos whose best box for "person" has an IoU of at least 0.5."""
        return float(np.mean([len(ious) > 0 and ious[0] >= 0.5 for ious in self.overlaps])) if self.overlaps else 0.0

    def false_shapes(self, threshold: float) -> float:
        """Returns how many shapes are found in a photo, on average, at a threshold."""
        return float(np.mean([np.sum(scores >= threshold) for scores in self.false])) if self.false else 0.0

    def said(self, threshold: float) -> float:
        """Returns the share of the sentences about nothing whose score reaches a threshold."""
        return float(np.mean(np.array(self.absent) >= threshold)) if self.absent else 0.0


def ask_photos(see: See, photos: Sequence[PersonPhoto], seed: int = EVALUATION_SEED) -> PhotoAnswers:
    """
    Asks a pipeline about photos.

    Args:
        see: the pipeline `object-perception`.
        photos: with the people in them.
        seed: other seeds give other sentences about nothing.
    """
    answers = PhotoAnswers()
    for number, photo in enumerate(photos):
        scene = photo_scene(photo)
        people = {shape.kind: shape.box for shape in scene.shapes} if _is_large(scene) else {}
        absent = absent_sentences(scene, np.random.default_rng((seed, number)), ABSENT)
        image = Image.fromarray(photo.picture)
        found = see(image, labels=list(LABELS), threshold=0.0, masks=False)
        answers.false.append(np.array([entry["score"] for entry in found if entry["label"] != "person"]))
        if people:
            _add_people(answers, people["person"], [entry for entry in found if entry["label"] == "person"])
        said = see(image, expressions=[f"the {kind}" for kind in people] + absent, masks=False)
        for (kind, box), entry in zip(people.items(), said):
            answers.present.setdefault(kind, []).append((entry["score"], _ious(box, [entry])[0]))
        answers.absent += [entry["score"] for entry in said[len(people) :]]
    return answers


def _add_people(answers: PhotoAnswers, box: Box, found: list[dict[str, Any]]) -> None:
    answers.persons.append(np.array([entry["score"] for entry in found]))
    answers.overlaps.append(_ious(box, found))


def _ious(box: Box, found: list[dict[str, Any]]) -> np.ndarray:
    """Computes the IoU of each found box with a true one."""
    return box_ious([box], [tuple(entry["box"].values()) for entry in found]).reshape(-1)


def _is_large(scene: Scene) -> bool:
    """Whether a photo shows one person, whose box is large enough to count."""
    boxes = [shape.box for shape in scene.shapes if shape.kind == "person"]
    height, width = scene.image.shape[:2]
    return len(boxes) == 1 and (boxes[0][2] - boxes[0][0]) * (boxes[0][3] - boxes[0][1]) > LARGE * height * width


def figures(answers: PhotoAnswers, label_threshold: float, expression_threshold: float) -> dict[str, float]:
    """
    Computes the figures of a checkpoint on photos, by names for the log of a training.

    Args:
        answers: see `ask_photos`.
        label_threshold: the lowest score of what is found for labels.
        expression_threshold: the lowest score of what is found for sentences.
    """
    present = {f"{kind}_P50": _precision(found) for kind, found in answers.present.items()}
    return {
        "label_person_P50": answers.found(),
        "false_shapes": answers.false_shapes(label_threshold),
        **present,
        "absent_said": answers.said(expression_threshold),
    }


def _precision(found: Sequence[tuple[float, float]]) -> float:
    return float(np.mean([iou >= 0.5 for _, iou in found]))


def table(
    see: ObjectPerceptionPipeline, photos: Sequence[PersonPhoto], scenes: int = SIDE_SCENES
) -> Iterator[tuple[str, str, float]]:
    """
    Lists prompt, measure and value, row by row.

    Args:
        see: the pipeline `object-perception`.
        photos: to be asked about, with the people in them.
        scenes: pictures of two or three of the photos side by side that are asked about.
    """
    answers, (labels, expressions) = ask_photos(see, photos), default_thresholds(see)
    persons = [scores for scores in answers.persons if len(scores)]
    above = sum(float(scores[0]) >= labels for scores in persons) / max(len(answers.persons), 1)
    yield "label: person", f"best box has IoU 0.5 ({len(answers.persons)})", answers.found()
    yield "label: person", f"best score of {labels:g} and more ({len(answers.persons)})", above
    yield "label: 8 kinds", f"false shapes in a photo at {labels:g} ({len(photos)})", answers.false_shapes(labels)
    for kind, found in answers.present.items():
        yield f"expression: the {kind}", f"P@0.5 ({len(found)})", _precision(found)
        said = float(np.mean([score >= expressions for score, _ in found]))
        yield f"expression: the {kind}", f"score of {expressions:g} and more ({len(found)})", said
    yield (
        "expression about nothing",
        f"score of {expressions:g} and more ({len(answers.absent)})",
        answers.said(expressions),
    )
    panels = with_people(SceneMaterial(), list(photos)).frames
    if panels:
        processor = cast(GleeProcessor, see.processor)
        evaluation = SceneEvaluation(see.model, processor, material=SceneMaterial(frames=panels))
        ious = side_ious(evaluation, scenes)
        share = float(np.mean(np.array(ious) > 0.5)) if ious else float("nan")
        yield "the person on the left, in the middle, on the right", f"P@0.5 ({len(ious)})", share


def default_thresholds(see: ObjectPerceptionPipeline) -> tuple[float, float]:
    """Returns the lowest score of what a pipeline finds by labels, and of what is taken as found by a sentence."""
    settings, config = see.settings.updated({"expression_threshold": "auto"}), see.model.config
    return settings.of_labels(config), settings.of_expressions(config)


def read_held_out(folders: Sequence[str], split: str, skipped: Sequence[str] = ()) -> list[PersonPhoto]:
    """Reads the photos of COCO folders that are never trained on, see `read_people`, at their own size."""
    return [photo for folder in folders for photo in read_people(folder, split, True, skipped, FULL_SIZE)]


def main() -> None:
    """Prints the table of a checkpoint."""
    parser = argparse.ArgumentParser(description="evaluate what a GLEE checkpoint finds in photos of people")
    parser.add_argument("checkpoint")
    folders = "COCO folder with image_licenses.csv, of whose photos one in five is used; may be repeated"
    parser.add_argument("--people", action="append", required=True, help=folders)
    parser.add_argument("--split", default="train2017", help="of folders with annotations/instances_SPLIT.json")
    parser.add_argument("--photos", type=int, help="only the first of them")
    options = parser.parse_args()
    see = pipeline("object-perception", model=options.checkpoint)  # type: ignore[call-overload]  # lists its own tasks only
    photos = read_held_out(options.people, options.split)[: options.photos]
    print("| prompt | measure | value |\n|---|---|---|")
    for name, measure, value in table(see, photos):
        print(f"| {name} | {measure} | {value:.3f} |", flush=True)


if __name__ == "__main__":
    main()
