"""What is measured on generated videos, with pipelines that know the truth, or nearly."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from lookhear.training.glee.scenes.evaluate_videos import (
    SHOWN,
    FollowedFrames,
    VideoEvaluation,
    VideoFigures,
    came_through,
    confusable,
    kept_figures,
    lasting_sentences,
    table,
)
from lookhear.training.glee.scenes.moving_scenes import Crossing, MovingFrame, MovingRecipe

SIZE = (96, 128)
RECIPE = MovingRecipe(frames=40)


class Knowing:
    """A pipeline that finds what is clearly seen, its answers changed by `change(index, results)`."""

    def __init__(self, change: Callable[[int, list[dict]], list[dict]] | None = None):
        self.change = change or (lambda index, results: results)
        self.frames: dict[bytes, MovingFrame] = {}
        self.evaluation = VideoEvaluation(self, SIZE, recipe=RECIPE)

    def scene(self, number: int):
        """A scene and its frames, which it knows from now on."""
        scene = self.evaluation.scene(number)
        frames = list(scene)
        self.frames |= {frame.image.tobytes(): frame for frame in frames}
        return scene, frames

    @contextmanager
    def __call__(self, inputs: dict[str, Any], **options: Any):
        frames = [self.frames[image.tobytes()] for image in inputs["video"]]
        if "labels" in inputs:
            answers = [
                [entry(thing, 100 + thing.track_id) for thing in frame.objects if thing.clear] for frame in frames
            ]
        else:
            who = self.meant(frames, inputs)
            count = len(SHOWN) if "points" in inputs else 1
            answers = [
                [
                    entry(thing, number)
                    for thing in frame.objects
                    if thing.track_id == who
                    for number in range(1, count + 1)
                ]
                for frame in frames
            ]
        yield (self.change(index, results) for index, results in enumerate(answers))

    def meant(self, frames: list[MovingFrame], inputs: dict[str, Any]) -> int:
        if "expressions" in inputs:
            return dict(lasting_sentences(frames))[inputs["expressions"][0]]
        ((x, y),) = inputs["points"][0]
        return next(t.track_id for t in frames[0].objects if t.shape.mask[int(y), int(x)])


def entry(thing, number: int) -> dict[str, Any]:
    box = dict(zip(("xmin", "ymin", "xmax", "ymax"), thing.shape.box))
    return {"track_id": number, "score": 1.0, "label": thing.shape.kind, "box": box, "mask": thing.shape.mask}


def values(see: Knowing, count: int) -> dict[str, float]:
    """The table of the first videos, by its measures without the numbers in brackets."""
    for number in range(count):
        see.scene(number)
    videos = [VideoFigures.of(see.evaluation, number) for number in range(count)]
    return {f"{name}: {measure.split(' (')[0]}": value for name, measure, value in table(videos)}


def test_who_knows_the_truth_makes_no_mistakes():
    found = values(Knowing(), 3)
    assert found.pop("labels: switches") == 0
    assert len(found) == 4 + 1 + 4 + 2
    assert set(found.values()) == {1.0}


def test_wrong_labels_and_misses_count():
    def forget(index: int, results: list[dict]) -> list[dict]:
        return [{**found, "label": "nothing"} for found in results] if index % 4 == 0 else results

    found = values(Knowing(forget), 2)
    assert found["labels: recall"] == pytest.approx(0.75, abs=0.03)
    assert found["labels: MOTA"] == pytest.approx(0.5, abs=0.05), "misses and false alarms"
    assert found["labels: crossings after which both keep their ids"] == 1.0, "labels don't matter for ids"


def test_exchanged_ids_count():
    """Half-way the two that meet change their ids."""
    see = Knowing()
    number = next(n for n in range(20) if see.evaluation.scene(n).crossings())
    scene, frames = see.scene(number)
    crossing = scene.crossings()[0]
    pair = {100 + crossing.one: 100 + crossing.other, 100 + crossing.other: 100 + crossing.one}

    def exchange(index: int, results: list[dict]) -> list[dict]:
        late = index > (crossing.first + crossing.last) // 2
        return [
            {**found, "track_id": pair.get(found["track_id"], found["track_id"]) if late else found["track_id"]}
            for found in results
        ]

    before, crossings, kept = see.evaluation.labels(scene, frames)
    assert (before.switches, kept) == (0, crossings)
    see.change = exchange
    counts, _, kept = see.evaluation.labels(scene, frames)
    assert counts.switches == 2 and kept < crossings
    assert counts.rates()["idf1"] < 1 == counts.rates()["recall"]


def test_a_track_that_is_new_after_a_crossing_did_not_come_through():
    history = {0: {3: 7, 4: 7, 9: 7}, 1: {3: 8, 9: 8}}
    assert came_through(history, Crossing(0, 1, 5, 8))
    assert not came_through({**history, 1: {3: 8, 9: 9}}, Crossing(0, 1, 5, 8))
    assert not came_through({**history, 1: {3: 8, 6: 8}}, Crossing(0, 1, 5, 8)), "never found again"


def test_nobody_is_blamed_for_what_is_hardly_seen():
    """Results on slivers are left out, those on nothing stay."""
    see = Knowing()
    slivers = 0
    for number in range(4):
        for frame in see.scene(number)[1]:
            hardly = [entry(thing, 5) for thing in frame.objects if not thing.clear]
            slivers += len(hardly)
            assert confusable(frame, hardly) == []
            clear = [entry(thing, 6) for thing in frame.objects if thing.clear]
            assert confusable(frame, clear + hardly) == clear
            empty = {**clear[0], "box": dict.fromkeys(clear[0]["box"], 0.0), "mask": np.zeros(SIZE, bool)}
            assert confusable(frame, [empty]) == [empty]
    assert slivers > 10


def test_masks_and_absences_of_what_was_shown():
    """A mask that is missing counts 0 where the thing is, and 1 where it is not."""
    see = Knowing(lambda index, results: [found for found in results if found["track_id"] != 2])
    _, frames = see.scene(0)
    found = see.evaluation.shown(frames, np.random.default_rng(0))
    assert set(found) == set(SHOWN)
    assert set(found["points"]) == set(found["masks"]) == {1.0}
    assert np.mean(found["boxes"]) < 0.7


def test_frames_of_a_sentence():
    see = Knowing(lambda index, results: [] if index < 10 else results)
    _, frames = see.scene(1)
    counts = see.evaluation.expression(frames, np.random.default_rng(0))
    assert counts.there - counts.right in range(1, 11) and counts.silent == counts.away
    assert counts + FollowedFrames(1, 1, 1, 1) == FollowedFrames(
        counts.there + 1, counts.right + 1, counts.away + 1, counts.silent + 1
    )
    see.change = lambda index, results: [{**found, "mask": ~found["mask"]} for found in results]
    assert see.evaluation.expression(frames, np.random.default_rng(0)).right == 0


def test_lasting_sentences_are_true_of_one_thing():
    """Whatever the sentence says of colour and kind fits no other thing of the whole video."""
    see = Knowing()
    total = 0
    for number in range(6):
        scene, frames = see.scene(number)
        words = {mover.track_id: {mover.colour, mover.kind, "shape"} for mover in scene.movers}
        for text, who in lasting_sentences(frames):
            total += 1
            if text.split()[1] not in ("leftmost", "rightmost", "topmost", "bottommost"):
                fitting = [other for other, known in words.items() if set(text.split()[1:]) <= known]
                assert fitting == [who]
    assert total > 12


def test_figures_are_kept(tmp_path):
    """Each video is measured once, and the table is the same afterwards; those of another checkpoint are not taken."""
    see, measured = Knowing(), []
    for number in range(2):
        see.scene(number)

    def figures(number: int, about: str = "a") -> VideoFigures:
        def measure() -> VideoFigures:
            measured.append(number)
            return VideoFigures.of(see.evaluation, number)

        return kept_figures(tmp_path / "kept", {"checkpoint": about}, number, measure)

    first, second = ([figures(number) for number in range(2)] for _ in range(2))
    assert measured == [0, 1] and first == second and list(table(first)) == list(table(second))
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == ["00000.json", "00001.json"]
    with pytest.raises(ValueError, match="another folder"):
        figures(0, "b")
