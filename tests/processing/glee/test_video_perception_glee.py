"""Videos in the pipeline: a list a frame, windows, prompts that come and go, bounded reading, errors on the way."""

import gc
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from lookhear.processing.glee.pipeline_glee import ObjectPerceptionPipeline
from lookhear.processing.glee.video_perception_glee import VideoPerception

LABELS = ["cat", "dog"]
EVERYTHING = {"tracking": "minvis", "threshold": 0.0}


def film(count: int = 10, height: int = 60, width: int = 90) -> list[np.ndarray]:
    """A patch of noise that moves over another."""
    random = np.random.default_rng(0)
    ground = random.integers(0, 160, (height, width, 3), dtype=np.uint8)
    patch = random.integers(100, 255, (20, 20, 3), dtype=np.uint8)
    frames = []
    for index in range(count):
        frame = ground.copy()
        frame[20:40, 5 + 3 * index % 60 : 25 + 3 * index % 60] = patch
        frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def see(tiny_glee) -> ObjectPerceptionPipeline:
    model, processor = tiny_glee
    return ObjectPerceptionPipeline(model, processor=processor, device="cpu")


@pytest.fixture(scope="module")
def alone(tiny_glee):
    """The same model with `padding_mask=True`."""
    model, processor = tiny_glee
    config = type(model.config).from_dict({**model.config.to_dict(), "padding_mask": True})
    twin = type(model)(config).eval()
    twin.load_state_dict(model.state_dict())
    return ObjectPerceptionPipeline(twin, processor=processor, device="cpu")


def same(a: list[dict], b: list[dict], tolerance: float = 3e-4) -> bool:
    """Whether results agree; scores have 4 digits behind the point, boxes 2."""
    return [(x["track_id"], x["label"]) for x in a] == [(y["track_id"], y["label"]) for y in b] and all(
        abs(x["score"] - y["score"]) <= tolerance
        and all(abs(x["box"][side] - y["box"][side]) <= 100 * tolerance for side in x["box"])
        and (x["mask"] != y["mask"]).mean() <= 5 * tolerance
        for x, y in zip(a, b)
    )


def ids(results: list[dict]) -> list[int]:
    return [found["track_id"] for found in results]


def test_one_list_a_frame(see):
    frames = film(10)
    video = see({"video": frames, "fps": 5}, labels=LABELS, **EVERYTHING)
    assert isinstance(video, VideoPerception)
    assert (video.fps, video.frames, video.duration, video.size) == (5, 10, 2, (60, 90))
    assert (video.index, video.time, video.frame) == (-1, None, None)
    for index, results in enumerate(video):
        assert (video.index, video.time) == (index, index / 5)
        assert np.array_equal(np.asarray(video.frame), frames[index])
        assert len(results) == 12 and len(set(ids(results))) == 12  # queries
        for found in results:
            assert list(found) == ["track_id", "score", "label", "box", "mask"]
            assert found["label"] in LABELS and 0 <= found["score"] <= 1
            assert found["mask"].shape == (60, 90) and found["mask"].dtype == bool
            assert 0 <= found["box"]["xmin"] <= found["box"]["xmax"] <= 90
    assert index == 9 and list(video) == []


def test_an_object_that_is_shown_is_found_as_in_an_image(see):
    frames = film(3)
    for prompt in ({"points": [[(15, 30)]]}, {"boxes": [(5, 20, 25, 40)]}, {"scribbles": [[(8, 25), (20, 35)]]}):
        (expected,) = see(frames[0], **prompt)
        (found,) = next(iter(see({"video": frames}, **prompt)))
        assert found["track_id"] == 1 and found["label"] == "object"
        assert np.array_equal(found["mask"], expected["mask"]) and found["box"] == expected["box"]


def test_results_do_not_depend_on_windows(see, alone):
    for pipe, sizes in ((see, (1, 3, 8)), (alone, (1, 3))):
        prompts = {"labels": LABELS, "expressions": ["the cat", "a dog"], "top_k": 3, **EVERYTHING}
        one, *others = (list(pipe({"video": film(5)}, batch_size=size, **prompts)) for size in sizes)
        assert all(len(each) == 5 and all(map(same, one, each)) for each in others)
        # Within the first window what is shown is looked for by the prompt itself.
        shown = {"points": [[(15, 30)]], "masks": [np.eye(60, 90) > 0]}
        few, many = (list(pipe({"video": film(3)}, prompts_at_once=rows, **shown)) for rows in (4, 40))
        assert len(few) == 3 and all(map(same, few, many))


def test_the_threshold_is_that_of_all_prompts(see):
    """What was shown is handed out in its first frame in any case."""
    asked = {"expressions": ["a dog"], "points": [[(15, 30)]]}
    every, none = (list(see({"video": film(3)}, threshold=threshold, **asked)) for threshold in (0.0, 1.0))
    assert [ids(results) for results in every][0] == [1, 2] and ids(every[-1])[0] == 1
    assert [ids(results) for results in none] == [[2], [], []]


def test_an_expression_helped_by_its_own_mask(see):
    """In the first window there is no mask yet; later there is one more candidate, never above the object's best."""
    asked = {"expressions": ["a dog", "the cat"], "threshold": 0.0, "batch_size": 2}
    alone, helped = see({"video": film(6)}, **asked), see({"video": film(6)}, reprompt=True, **asked)
    most = 0.0
    for place, (one, other) in enumerate(zip(alone, helped)):
        assert place >= 2 or same(one, other)
        prompts = [helped._prompts[number] for number in (1, 2)]
        counts = [len(prompt.candidates[place % 2]) for prompt in prompts]
        assert counts == ([13, 13] if place >= 2 else [12, 12])  # queries
        if place >= 2:
            assert all(float(prompt.candidates[place % 2].logits[-1].sigmoid()) <= most + 1e-4 for prompt in prompts)
        most = max(prompt.follower.usual_score for prompt in prompts) if place % 2 else most
        assert {found["track_id"] for found in other} <= {1, 2}
    assert place == 5


def test_ids_are_those_of_the_objects(see):
    video = see({"video": film(3)}, labels=["cat"], expressions=["a dog"], points=[[(15, 30)]], **EVERYTHING)
    assert video.prompts == {3: "cat", 1: "a dog", 2: "object"}
    results = next(video)
    assert min(ids(results)[:12]) == 4 and set(ids(results)[12:]) <= {1, 2}


def test_prompts_come_and_go(see):
    video = see({"video": film(12)}, labels=["cat"], batch_size=4, **EVERYTHING)
    first = next(video)
    assert video.add(points=[[(15, 30)]]) == [14]
    shown = next(video)
    assert set(ids(shown)[:12]) == set(ids(first)) and ids(shown)[12:] in ([], [14])
    video.drop(ids(first)[0])
    assert set(ids(next(video))[:11]) == set(ids(first)[1:])
    video.drop(1)  # the labels
    assert set(ids(next(video))) <= {14} and video.prompts == {14: "object"}
    assert video.add(labels=["dog"], expressions=["a cat"]) == [16, 15]
    results = next(video)  # the first frame of a window
    assert [found["label"] for found in results][:12] == ["dog"] * 12 and min(ids(results)[:12]) == 17
    video.drop(14)
    video.drop(15)
    assert len(next(video)) == 12
    video.drop(16)
    assert next(video) == [] and video.prompts == {} and next(video) == []
    with pytest.raises(ValueError, match="nothing with the id 5 is looked for"):
        video.drop(5)


def test_what_is_added_is_about_the_frame_that_was_given_last(see):
    """At any place of a window the object that is pointed at is the one of that frame, as if the video began there."""
    frames = film(10)
    for place in (0, 2, 3):
        video = see({"video": frames}, labels=["cat"], batch_size=4, **EVERYTHING)
        for _ in range(place + 1):
            next(video)
        (number,) = video.add(boxes=[(5, 20, 25, 40)])
        found = [thing for thing in next(video) if thing["track_id"] == number]
        other = see({"video": frames[place:]}, boxes=[(5, 20, 25, 40)], batch_size=2)
        next(other)
        expected = next(other)
        assert len(found) == len(expected)
        for one, two in zip(found, expected):
            assert abs(one["score"] - two["score"]) < 1e-3 and (one["mask"] != two["mask"]).mean() < 2e-3


def test_each_frame_and_each_text_goes_through_its_encoder_once(see, monkeypatch):
    seen, texts = [], []
    features, encode = see.model.model._image_features, see.model.model.text_encoder.forward
    monkeypatch.setattr(see.model.model, "_image_features", lambda x: seen.append(len(x)) or features(x))
    monkeypatch.setattr(
        see.model.model.text_encoder, "forward", lambda *given: texts.append(len(given[0])) or encode(*given)
    )
    see.label_cache.clear()
    prompts = {"labels": LABELS, "expressions": ["a cat", "a dog"], "points": [[(15, 30)]], "boxes": [(5, 20, 25, 40)]}
    results = list(see({"video": film(10)}, batch_size=4, **prompts, **EVERYTHING))
    assert len(results) == 10 and seen == [4, 4, 2]
    assert sorted(texts) == [1, 2, 2]  # "object", the labels, the sentences


def test_frames_are_read_once_and_a_bounded_number_ahead(see):
    taken = []

    def frames():
        for index, frame in enumerate(film(16)):
            taken.append(index)
            yield frame

    video = see({"video": frames()}, labels=["cat"], batch_size=3, **EVERYTHING)
    next(video)
    assert len(taken) <= 3 + 3 + 1  # the window, as many waiting, one in the hand
    assert len(list(video)) == 15 and taken == list(range(16))


def test_files_arrays_and_folders(see, tmp_path, write_clip):
    frames = film(6)
    clip = write_clip(tmp_path / "clip.mp4", frames)
    (tmp_path / "folder").mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "folder" / f"{index:05}.png")
    expected = list(see(np.stack(frames), labels=LABELS, **EVERYTHING))
    assert all(map(same, list(see(tmp_path / "folder", labels=LABELS, **EVERYTHING)), expected))
    video = see(str(clip), labels=LABELS, **EVERYTHING)
    assert (video.fps, video.frames, len(list(video))) == (25, 6, 6) and video.time == pytest.approx(0.2, abs=2e-3)
    assert len(list(see(clip.read_bytes(), labels=LABELS))) == 6
    with clip.open("rb") as file:
        assert len(list(see(file, expressions=["a cat"]))) == 6


def test_what_came_before_an_error_is_given(see):
    frames = [*film(6), "no picture", *film(3)]
    video = see({"video": frames}, labels=["cat"], batch_size=4, **EVERYTHING)
    assert len([next(video) for _ in range(6)]) == 6
    with pytest.raises(ValueError, match="`inputs`: the video, frame 6 "):
        next(video)
    assert list(video) == [] and video.index == 5


def test_a_video_with_something_wrong_warns(see):
    frames = [*film(3), *film(3, 120, 180)]
    with pytest.warns(UserWarning, match="resized to the first one's"):
        video = see({"video": frames}, labels=["cat"], **EVERYTHING)
        assert [found["mask"].shape for results in video for found in results] == [(60, 90)] * 12 * 6
    assert len(video.warnings) == 1


def test_it_can_be_left_at_any_time(see):
    closed = threading.Event()

    def frames():
        try:
            while True:
                yield from film(3)
        finally:
            closed.set()

    with see({"video": frames()}, labels=["cat"]) as video:
        next(video)
    assert closed.is_set() and list(video) == []
    closed.clear()
    video = see({"video": frames()}, points=[[(15, 30)]])
    next(video)
    del video
    gc.collect()
    assert closed.wait(10)


def test_prompts_may_be_given_to_the_pipeline_and_in_the_item(tiny_glee):
    model, processor = tiny_glee
    settings = {"labels": ["cat"], "threshold": 0.0, "top_k": 2, "tracking": "minvis", "batch_size": 3}
    see = ObjectPerceptionPipeline(model, processor=processor, device="cpu", **settings)
    assert [len(results) for results in see({"video": film(4)})] == [2] * 4
    assert {found["label"] for results in see({"video": film(2), "labels": ["dog"]}) for found in results} == {"dog"}
    assert {found["label"] for found in see(film(1)[0])} == {"cat"}  # images do not mind how videos are tracked


@pytest.mark.parametrize(
    ("inputs", "arguments", "message"),
    [
        ({"video": film(2)}, {}, "nothing to look for"),
        ({"video": film(2)}, {"labels": []}, "`labels` is empty"),
        ({"video": film(2)}, {"labels": ["cat", "cat"]}, "labels: 'cat' is there twice"),
        ({"video": film(2)}, {"expressions": ["?"]}, "expressions: .*no word"),
        ({"video": film(2)}, {"points": [[(500, 20)]]}, "points: .*outside"),
        ({"video": film(2)}, {"masks": [np.ones((9, 9), bool)]}, "masks: .*object 0"),
        ({"video": film(2), "lables": ["cat"]}, {}, "unknown key 'lables'"),
        ({"video": film(2), "fps": -1}, {"labels": ["cat"]}, "`fps`"),
        ({"video": film(2)}, {"labels": ["cat"], "tracking": "best"}, "`tracking` must be one of 'memory', 'minvis'"),
        ({"video": film(2)}, {"labels": ["cat"], "batch_size": 0}, "`batch_size`"),
        ({"video": film(2)}, {"labels": ["cat"], "candidates": 3}, "'candidates'"),
        ({"video": iter([])}, {"labels": ["cat"]}, "has no frames"),
        ({"video": "missing.mp4"}, {"labels": ["cat"]}, "'missing.mp4' does not exist"),
        ("missing.mp4", {"labels": ["cat"]}, "'missing.mp4' does not exist"),
        (["missing.mp4", film(1)[0]], {"labels": ["cat"]}, r"`inputs\[0\]`: "),
        (np.zeros((0, 60, 90, 3), np.uint8), {"labels": ["cat"]}, "at least one frame"),
    ],
)
def test_what_cannot_be_used_is_refused_at_once(see, inputs, arguments, message):
    before = threading.active_count()
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message) as caught:
        see(inputs, **arguments)
    assert "\n" not in str(caught.value)
    assert threading.active_count() <= before


def test_a_prompt_that_cannot_be_used_changes_nothing(see):
    video = see({"video": film(3)}, labels=["cat"], **EVERYTHING)
    next(video)
    for prompts, message in (
        ({"points": [[(15, 30)], [(500, 1)]]}, "points"),
        ({}, "nothing to look for"),
        ({"expressions": ["a cat"], "masks": [np.zeros((60, 90), bool)]}, "masks"),
    ):
        with pytest.raises(ValueError, match=message):
            video.add(**prompts)
    for number in ("cat", 0, True):
        with pytest.raises(ValueError, match="`number` must be"):
            video.drop(number)
    assert list(video.prompts.values()) == ["cat"] and len(next(video)) == 12


def test_a_video_has_the_thresholds_of_its_checkpoint(see, monkeypatch):
    """Of labels and of expressions, each its own; visual prompts have the pipeline's."""

    def scores(**settings) -> dict[str, list[float]]:
        asked = {"labels": LABELS, "expressions": ["a cat"], "points": [[(15, 30)]]}
        with see({"video": film(2)}, masks=False, **asked, **settings) as video:
            found = [entry for frame in video for entry in frame]
        return {label: [entry["score"] for entry in found if entry["label"] == label] for label in ("a cat", "object")}

    open_to_all = scores(threshold=0.0)
    assert len(open_to_all["a cat"]) == 2
    monkeypatch.setattr(see.model.config, "label_threshold", 1.0)
    monkeypatch.setattr(see.model.config, "expression_threshold", 0.0)
    assert scores() == {"a cat": open_to_all["a cat"], "object": scores(threshold=0.2)["object"]}
    assert scores(expression_threshold=1.0)["a cat"] == [] == scores(threshold=1.0)["a cat"]
