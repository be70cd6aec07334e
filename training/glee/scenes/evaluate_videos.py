"""Evaluation of a checkpoint on new videos: `python -m lookhear.training.glee.scenes.evaluate_videos CHECKPOINT`.

Videos are generated (`moving_scenes.py`): shapes and people that move, cross, leave and return. The pipeline's results
are measured frame by frame. Choose settings with another `--seed` than that of the reported figures.
"""

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import pipeline

import lookhear  # noqa: F401  (registers the pipeline)
from lookhear.evaluation.measures.clear_mot import MotCounts, count_video
from lookhear.evaluation.measures.mask_runs import box_ious
from lookhear.evaluation.measures.region_contour import region_similarity
from lookhear.evaluation.measures.track_frames import TrackFrame, TrackVideo
from lookhear.training.glee.scenes.backgrounds import read_photos
from lookhear.training.glee.scenes.examples import show_shape
from lookhear.training.glee.scenes.expressions import by_attribute, by_place
from lookhear.training.glee.scenes.moving_scenes import (
    Crossing,
    MovingFrame,
    MovingObject,
    MovingRecipe,
    MovingScene,
    make_moving_scene,
)
from lookhear.training.glee.scenes.portraits import portrait_cutouts
from lookhear.training.glee.scenes.scenes import HELD_OUT_PAIRS, SceneMaterial, SceneRecipe, Shape
from lookhear.training.glee.scenes.shapes import KINDS

# Training uses the seeds (seed, batch), stills (777_777, number), videos (seed, VIDEOS, number).
EVALUATION_SEED, VIDEOS = 777_777, 2
LABELS = (*KINDS, "person")
SHOWN = ("points", "boxes", "scribbles", "masks")
LEAST_IOU = 0.5  # of a pair of boxes, and of the mask of the right object
Results = list[dict[str, Any]]  # of one frame, as the pipeline gives them


@dataclass(frozen=True)
class FollowedFrames:
    """
    Counts of frames for one expression.

    Attributes:
        there: frames in which its object is clearly visible.
        right: those of them in which it is found.
        away: frames without a pixel of its object.
        silent: those of them in which nothing is found.
    """

    there: int = 0
    right: int = 0
    away: int = 0
    silent: int = 0

    def __add__(self, other: "FollowedFrames") -> "FollowedFrames":
        return FollowedFrames(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


class VideoEvaluation:
    """
    Runs a pipeline on generated videos.

    Args:
        see: the pipeline `object-perception`.
        size: (height, width) of the videos in pixels.
        material: photos and portraits.
        recipe: settings of the videos.
        seed: other seeds give other videos.
        options: of the pipeline's calls, such as `tracking` and `threshold`.
    """

    def __init__(
        self,
        see: Callable[..., Any],
        size: tuple[int, int] = (128, 160),
        material: SceneMaterial | None = None,
        recipe: MovingRecipe | None = None,
        seed: int = EVALUATION_SEED,
        options: dict[str, Any] | None = None,
    ):
        self.see, self.size, self.material = see, size, material or SceneMaterial()
        self.recipe, self.seed, self.options = recipe or MovingRecipe(), seed, options or {}

    def scene(self, number: int) -> MovingScene:
        """Generates the video with a number, the same in every run."""
        random = np.random.default_rng((self.seed, VIDEOS, number))
        return make_moving_scene(random, self.size, self.recipe, self.material)

    def look(self, frames: list[MovingFrame], **prompts: Any) -> list[Results]:
        """Runs the pipeline on a video: results frame by frame."""
        with self.see({"video": [frame.image for frame in frames], **prompts}, **self.options) as video:
            return list(video)

    def labels(self, scene: MovingScene, frames: list[MovingFrame]) -> tuple[MotCounts, int, int]:
        """Counts tracking by labels, crossings, and those after which both objects still have their ids."""
        results = self.look(frames, labels=list(LABELS))
        pairs = [(frame, confusable(frame, found)) for frame, found in zip(frames, results)]
        video = TrackVideo("", [track_frame(frame, found) for frame, found in pairs])
        history = identities([track_frame(frame, found, by_label=False) for frame, found in pairs])
        crossings = scene.crossings()
        survived = sum(came_through(history, crossing) for crossing in crossings)
        return count_video(video, LEAST_IOU), len(crossings), survived

    def shown(self, frames: list[MovingFrame], random: np.random.Generator) -> dict[str, list[float]]:
        """
        Computes J of an object in all frames after the first one, in which it was prompted, for each kind of prompt.
        """
        clear = [instance for instance in frames[0].objects if instance.clear]
        if not clear:
            return {}
        instance = clear[random.integers(len(clear))]
        prompts = {kind: [show_shape(kind, instance.shape, random)] for kind in SHOWN}
        qualities: dict[str, list[float]] = {kind: [] for kind in SHOWN}
        for frame, found in list(zip(frames, self.look(frames, **prompts)))[1:]:
            truth = object_in(frame, instance.track_id)
            if truth is not None and not truth.clear:
                continue
            masks = {entry["track_id"]: entry["mask"] for entry in found}
            empty = np.zeros(self.size, bool)
            for number, kind in enumerate(SHOWN, start=1):  # ids are given in the order of the prompts
                wanted = empty if truth is None else truth.shape.mask
                qualities[kind].append(region_similarity(wanted, masks.get(number, empty)))
        return qualities

    def expression(self, frames: list[MovingFrame], random: np.random.Generator) -> FollowedFrames | None:
        """
        Counts frames in which a sentence, true of one object in all frames, finds it; None if there is no such
        sentence.
        """
        sentences = lasting_sentences(frames)
        if not sentences:
            return None
        text, track_id = sentences[random.integers(len(sentences))]
        counts = FollowedFrames()
        for frame, found in zip(frames, self.look(frames, expressions=[text])):
            truth = object_in(frame, track_id)
            if truth is None:
                counts += FollowedFrames(away=1, silent=int(not found))
            elif truth.clear:
                right = any(region_similarity(truth.shape.mask, entry["mask"]) >= LEAST_IOU for entry in found)
                counts += FollowedFrames(there=1, right=int(right))
        return counts


def object_in(frame: MovingFrame, track_id: int) -> MovingObject | None:
    """Returns the object with an id, if a pixel of it is visible."""
    return next((instance for instance in frame.objects if instance.track_id == track_id), None)


def confusable(frame: MovingFrame, found: Results) -> Results:
    """
    Removes results that match only barely visible objects: they are ignored by the metric, as MOTChallenge does with
    its ignored regions.
    """
    clear = [instance.shape.box for instance in frame.objects if instance.clear]
    hardly = [instance.shape for instance in frame.objects if not instance.clear]
    return [entry for entry in found if not _on_hardly_seen(entry, clear, hardly)]


def _on_hardly_seen(entry: dict[str, Any], clear: list[tuple], hardly: list[Shape]) -> bool:
    """
    Whether most of a mask is on a barely visible object, or a box fits such an object and no clearly visible one.
    """
    pixels, box = max(int(np.count_nonzero(entry["mask"])), 1), [tuple(entry["box"].values())]
    if any(np.count_nonzero(entry["mask"] & shape.mask) >= LEAST_IOU * pixels for shape in hardly):
        return True
    fits = [len(boxes) > 0 and box_ious(boxes, box).max() >= LEAST_IOU for boxes in (clear, [s.box for s in hardly])]
    return not fits[0] and bool(fits[1])


def track_frame(frame: MovingFrame, found: Results, by_label: bool = True) -> TrackFrame:
    """Returns a frame's true and found ids and the IoU of their boxes, 0 between different labels."""
    clear = [instance for instance in frame.objects if instance.clear]
    boxes = [tuple(entry["box"].values()) for entry in found]
    similarity = np.asarray(box_ious([instance.shape.box for instance in clear], boxes), float)
    similarity = similarity.reshape(len(clear), len(found))
    if by_label:
        same = [[instance.shape.kind == entry["label"] for entry in found] for instance in clear]
        similarity = similarity * np.array(same, bool).reshape(similarity.shape)
    ids = np.array([instance.track_id for instance in clear], np.int64)
    return TrackFrame(ids, np.array([entry["track_id"] for entry in found], np.int64), similarity)


def identities(frames: list[TrackFrame]) -> dict[int, dict[int, int]]:
    """Returns, for each true object, the frames in which it is found, each with the found track."""
    from scipy.optimize import linear_sum_assignment

    history: dict[int, dict[int, int]] = defaultdict(dict)
    for index, frame in enumerate(frames):
        rows, columns = linear_sum_assignment(
            np.where(frame.similarity >= LEAST_IOU, frame.similarity, 0), maximize=True
        )
        for row, column in zip(rows, columns):
            if frame.similarity[row, column] >= LEAST_IOU:
                history[int(frame.truth[row])][index] = int(frame.found[column])
    return history


def came_through(history: dict[int, dict[int, int]], crossing: Crossing) -> bool:
    """Whether both objects are found by the same track before and after they meet."""
    for track_id in (crossing.one, crossing.other):
        before = [track for index, track in history[track_id].items() if index < crossing.first]
        after = [track for index, track in history[track_id].items() if index > crossing.last]
        if not before or not after or before[-1] != after[0]:
            return False
    return True


def lasting_sentences(frames: list[MovingFrame], step: int = 4) -> list[tuple[str, int]]:
    """
    Lists sentences, with ids, that are true of the same object in all frames in which it is visible, and of no other.
    """
    meant: dict[str, set[int]] = defaultdict(set)
    sentences_of: dict[int, list[set[str]]] = defaultdict(list)
    for frame in frames[::step]:
        scene, ids = frame.as_still()
        texts: dict[int, set[str]] = {track_id: set() for track_id in ids}
        for found in (*by_attribute(scene), *by_place(scene)):
            meant[found.text].add(ids[found.shape])
            texts[ids[found.shape]].add(found.text)
        for track_id, of_frame in texts.items():
            sentences_of[track_id].append(of_frame)
    return sorted(
        (text, track_id)
        for track_id, texts in sentences_of.items()
        for text in set.intersection(*texts)
        if meant[text] == {track_id}
    )


@dataclass(frozen=True)
class VideoFigures:
    """
    Figures of one video.

    Attributes:
        labels: counts of tracking by labels.
        crossings: number of crossings of two objects.
        kept: number of crossings after which both objects still have their ids.
        shown: mean J of the frames for each kind of prompt.
        sentence: counts for a sentence, if there is one.
    """

    labels: MotCounts
    crossings: int
    kept: int
    shown: dict[str, float]
    sentence: FollowedFrames | None

    @classmethod
    def of(cls, evaluation: VideoEvaluation, number: int) -> "VideoFigures":
        """Measures the video with this number."""
        scene = evaluation.scene(number)
        frames = list(scene)
        random = np.random.default_rng((evaluation.seed, VIDEOS, number, 1))
        labels = evaluation.labels(scene, frames)
        shown = {kind: float(np.mean(values)) for kind, values in evaluation.shown(frames, random).items()}
        return cls(*labels, shown, evaluation.expression(frames, random))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "VideoFigures":
        """Restores the figures from `asdict`."""
        sentence = None if values["sentence"] is None else FollowedFrames(**values["sentence"])
        return cls(**{**values, "labels": MotCounts(**values["labels"]), "sentence": sentence})


def kept_figures(
    folder: Path, about: dict[str, Any], number: int, measure: Callable[[], VideoFigures]
) -> VideoFigures:
    """
    Reads a video's figures from its file in a folder, or measures and writes them; several processes may share the
    folder.

    Args:
        folder: of the files.
        about: checkpoint and settings.
        number: of the video.
        measure: measures the figures.

    Raises:
        ValueError: the file is about another checkpoint or other settings.
    """
    file = folder / f"{number:05d}.json"
    if file.is_file():
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["about"] != about:
            raise ValueError(
                f"{file} is about {stored['about']}, not about {about}: choose another folder, or remove it."
            )
        return VideoFigures.from_dict(stored["figures"])
    figures = measure()
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps({"about": about, "figures": asdict(figures)}), encoding="utf-8")
    partial.replace(file)
    return figures


def table(videos: Iterable[VideoFigures]) -> Iterator[tuple[str, str, float]]:
    """Lists prompt, measure and value over several videos, row by row."""
    counts, crossings, survived = MotCounts(), 0, 0
    shown: dict[str, list[float]] = defaultdict(list)
    followed, sentences = FollowedFrames(), 0
    for video in videos:
        counts, crossings, survived = counts + video.labels, crossings + video.crossings, survived + video.kept
        for kind, value in video.shown.items():
            shown[kind].append(value)
        if video.sentence is not None:
            followed, sentences = followed + video.sentence, sentences + 1
    rates = counts.rates()
    for name in ("idf1", "mota", "recall", "precision"):
        yield "labels", name.upper() if name in ("idf1", "mota") else name, rates[name]
    yield "labels", f"switches ({rates['objects']} objects)", rates["switches"]
    yield "labels", f"crossings after which both keep their ids ({crossings})", survived / max(crossings, 1)
    for kind, values in shown.items():
        yield f"{kind} in the first frame", f"J ({len(values)})", float(np.mean(values))
    found, silent = followed.right / max(followed.there, 1), followed.silent / max(followed.away, 1)
    yield "expression", f"frames with the right object ({sentences} sentences)", found
    yield "expression", f"frames without the object, none found ({followed.away})", silent


def main() -> None:
    """Prints the table of a checkpoint."""
    parser = argparse.ArgumentParser(description="evaluate how a GLEE checkpoint tracks objects in generated videos")
    parser.add_argument("checkpoint")
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first video (0)")
    parser.add_argument(
        "--kept", type=Path, help="folder for the figures of each video; videos in it are not measured again"
    )
    parser.add_argument(
        "--photos", help="COCO folder with image_licenses.csv; its val2017 is the background of half of the videos"
    )
    parser.add_argument("--tracking", choices=("memory", "minvis"), default="memory")
    parser.add_argument("--following", choices=("exact", "shared"), help="how objects that are shown are followed")
    parser.add_argument("--threshold", type=float, help="lowest score of the results")
    parser.add_argument(
        "--seed", type=int, default=EVALUATION_SEED, help="of the videos; choose settings with another one"
    )
    options = parser.parse_args()
    photos = read_photos(options.photos, "val2017") if options.photos else []
    look = SceneRecipe(contrast=0.8, excluded=HELD_OUT_PAIRS, photos=0.5 if photos else 0.0)
    settings = {name: getattr(options, name) for name in ("tracking", "following", "threshold")}
    settings = {name: value for name, value in settings.items() if value is not None}
    evaluation = VideoEvaluation(
        pipeline("object-perception", model=options.checkpoint),  # type: ignore[call-overload]  # lists its own tasks only
        material=SceneMaterial(photos, portrait_cutouts(), []),
        recipe=replace(MovingRecipe(), look=look),
        seed=options.seed,
        options=settings,
    )
    about = {"checkpoint": options.checkpoint, "seed": options.seed, "photos": bool(photos), **settings}

    def figures(number: int) -> VideoFigures:
        if options.kept is None:
            return VideoFigures.of(evaluation, number)
        return kept_figures(options.kept, about, number, lambda: VideoFigures.of(evaluation, number))

    print("| prompt | measure | value |\n|---|---|---|")
    for name, measure, value in table(map(figures, range(options.first, options.first + options.videos))):
        print(f"| {name} | {measure} | {value:.3f} |", flush=True)


if __name__ == "__main__":
    main()
