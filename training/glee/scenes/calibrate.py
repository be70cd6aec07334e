"""Thresholds of a checkpoint, stored in its configuration: `python -m lookhear.training.glee.scenes.calibrate
CHECKPOINT --people COCO_FOLDER`.

`label_threshold` is the score from which the objects of labels are results, `expression_threshold` the one from which
a sentence is taken as being about something that is there. Both are chosen on photos and scenes that are held out from
training.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import pipeline

import lookhear  # noqa: F401  (registers the pipelines)
from lookhear.evaluation.measures.mask_runs import box_ious
from lookhear.evaluation.whole_files import write_text
from lookhear.training.glee.scenes.absence import absent_sentences
from lookhear.training.glee.scenes.backgrounds import read_photos
from lookhear.training.glee.scenes.evaluate_photos import PhotoAnswers, See, ask_photos, read_held_out
from lookhear.training.glee.scenes.evaluate_scenes import HARD_SCENES
from lookhear.training.glee.scenes.expressions import choose_expressions
from lookhear.training.glee.scenes.portraits import portrait_cutouts
from lookhear.training.glee.scenes.recipe import with_people
from lookhear.training.glee.scenes.scenes import HELD_OUT_PAIRS, Scene, SceneMaterial, make_scene
from lookhear.training.glee.scenes.shapes import KINDS

# Scenes of the seeds (CALIBRATION_SEED, number): neither those of a training nor those of an evaluation.
CALIBRATION_SEED = 555_555
SIZE = (128, 160)
MOST_FALSE = 0.15  # shapes in a photo, of those that there are not
STEPS = np.round(np.arange(0.05, 0.96, 0.01), 2)  # thresholds that are tried


class SceneAnswers:
    """
    What a checkpoint finds in generated scenes.

    Attributes:
        scores: of everything that is found by labels.
        right: which of these are an object that no better result is.
        objects: number of objects that were to be found.
        present: scores of sentences that are true of an object.
        absent: scores of sentences that are true of nothing.
    """

    def __init__(self) -> None:
        self.scores: list[float] = []
        self.right: list[bool] = []
        self.objects = 0
        self.present: list[float] = []
        self.absent: list[float] = []


def ask_scenes(see: See, scenes: Sequence[Scene]) -> SceneAnswers:
    """
    Asks a pipeline for the kinds of shapes and people in scenes, and by a true and an untrue sentence.

    Args:
        see: the pipeline `object-perception`.
        scenes: the pictures.
    """
    answers = SceneAnswers()
    for number, scene in enumerate(scenes):
        random = np.random.default_rng((CALIBRATION_SEED, number, 1))
        found = see(scene.image, labels=[*KINDS, "person"], threshold=0.0, masks=False)
        wanted = [shape for shape in scene.shapes if shape.kind in (*KINDS, "person")]
        answers.objects += len(wanted)
        free = list(wanted)
        for entry in found:  # best first
            mine = [shape for shape in free if shape.kind == entry["label"]]
            ious = box_ious([shape.box for shape in mine], [tuple(entry["box"].values())]).reshape(-1)
            hit = len(ious) > 0 and float(ious.max()) >= 0.5
            if hit:
                free.remove(mine[int(ious.argmax())])
            answers.scores.append(entry["score"])
            answers.right.append(hit)
        true = [found.text for found in choose_expressions(scene, random, 1)]
        said = see(scene.image, expressions=true + absent_sentences(scene, random, 1, HELD_OUT_PAIRS), masks=False)
        answers.present += [entry["score"] for entry in said[: len(true)]]
        answers.absent += [entry["score"] for entry in said[len(true) :]]
    return answers


def label_threshold(photos: PhotoAnswers, scenes: SceneAnswers, most_false: float = MOST_FALSE) -> float:
    """
    Chooses the threshold of labels: of those with few false shapes in photos the one with the highest sum of F1 on
    scenes and F1 of people in photos; the highest one that is tried, if all have too many.

    Args:
        photos: what is found in photos.
        scenes: what is found in scenes.
        most_false: most false shapes in a photo.
    """
    possible = [float(step) for step in STEPS if photos.false_shapes(float(step)) <= most_false]
    scores, right = np.array(scenes.scores), np.array(scenes.right, bool)

    def quality(threshold: float) -> float:
        above = scores >= threshold
        hits = [score[0] >= threshold and ious[0] >= 0.5 for score, ious in zip(*_found(photos))]
        shown = sum(int(np.sum(score >= threshold)) for score in photos.persons)
        return _f1(int(np.sum(right & above)), int(above.sum()), scenes.objects) + _f1(
            int(np.sum(hits)), shown, len(photos.persons)
        )

    return max(possible, key=quality) if possible else float(STEPS[-1])


def expression_threshold(present: Sequence[float], absent: Sequence[float]) -> float:
    """
    Chooses the threshold of sentences that tells best, in the mean of both shares, which are true of something.

    Args:
        present: scores of sentences that are true of an object.
        absent: scores of sentences that are true of nothing.
    """
    there, nothing = np.array(present), np.array(absent)
    return float(max(STEPS, key=lambda step: float(np.mean(there >= step) + np.mean(nothing < step))))


def _found(photos: PhotoAnswers) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the scores and overlaps of those photos in which anything is found for "person"."""
    pairs = [(score, ious) for score, ious in zip(photos.persons, photos.overlaps) if len(score)]
    return [score for score, _ in pairs], [ious for _, ious in pairs]


def _f1(hits: int, found: int, wanted: int) -> float:
    return 2 * hits / max(found + wanted, 1)


def store_thresholds(folder: str | Path, labels: float, expressions: float) -> Path:
    """
    Writes thresholds into the `config.json` of a checkpoint.

    Args:
        folder: of the checkpoint.
        labels: its `label_threshold`, from 0 to 1.
        expressions: its `expression_threshold`, from 0 to 1.

    Returns:
        The file.

    Raises:
        ValueError: the folder has no configuration of a GLEE model.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"checkpoint {str(folder)!r} has no config.json that can be read; name its folder") from error
    if config.get("model_type") != "glee":
        raise ValueError(
            f"checkpoint {str(folder)!r} is of the model type {config.get('model_type')}, not glee: name another"
        )
    config |= {"label_threshold": labels, "expression_threshold": expressions}
    return write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def calibration_scenes(photos: Sequence[np.ndarray], count: int) -> list[Scene]:
    """
    Generates the scenes that thresholds are chosen on, with portraits, the same in every run.

    Args:
        photos: backgrounds.
        count: number of scenes.
    """
    material = SceneMaterial(list(photos), portrait_cutouts())
    look = replace(HARD_SCENES, excluded=HELD_OUT_PAIRS)
    seeds = (np.random.default_rng((CALIBRATION_SEED, number)) for number in range(count))
    return [make_scene(random, SIZE, look, material) for random in seeds]


def main() -> None:
    """Chooses and stores the thresholds of a checkpoint."""
    parser = argparse.ArgumentParser(description="choose the thresholds of a GLEE checkpoint on photos and scenes")
    parser.add_argument("checkpoint", help="folder, whose config.json is written")
    folders = "COCO folder with image_licenses.csv, of whose photos one in five is used; may be repeated"
    parser.add_argument("--people", action="append", required=True, help=folders)
    parser.add_argument("--split", default="train2017", help="of folders with annotations/instances_SPLIT.json")
    parser.add_argument("--photos", help="COCO folder with image_licenses.csv; its val2017 are backgrounds of scenes")
    parser.add_argument("--scenes", type=int, default=200)
    options = parser.parse_args()
    see = pipeline("object-perception", model=options.checkpoint)  # type: ignore[call-overload]  # lists its own tasks only
    held_out = read_held_out(options.people, options.split)
    grounds = with_people(SceneMaterial(), held_out).photos
    grounds += read_photos(options.photos, "val2017") if options.photos else []
    photos, scenes = (
        ask_photos(see, held_out, CALIBRATION_SEED),
        ask_scenes(see, calibration_scenes(grounds, options.scenes)),
    )
    labels = label_threshold(photos, scenes)
    said = [score for found in photos.present.values() for score, _ in found]
    expressions = expression_threshold(said + scenes.present, photos.absent + scenes.absent)
    store_thresholds(options.checkpoint, labels, expressions)
    print(f"label_threshold {labels:g}, expression_threshold {expressions:g}")


if __name__ == "__main__":
    main()
