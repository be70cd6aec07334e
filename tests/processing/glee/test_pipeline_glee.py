"""The pipeline `object-perception`: what it returns for every kind of prompt and input, and what it refuses."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from lookhear.processing.glee.perception_request_glee import distribute
from lookhear.processing.glee.pipeline_glee import ObjectPerceptionPipeline

SIZES = [(60, 90), (64, 64), (90, 60)]  # (height, width)
LABELS = ["cat", "dog", "traffic light"]


def picture(height: int = 60, width: int = 90, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def see(tiny_glee) -> ObjectPerceptionPipeline:
    model, processor = tiny_glee
    return ObjectPerceptionPipeline(model, processor=processor, device="cpu")


@pytest.fixture(scope="module")
def alone(tiny_glee):
    """A pipeline whose results do not depend on batch mates: `padding_mask=True`."""
    model, processor = tiny_glee
    config = type(model.config).from_dict({**model.config.to_dict(), "padding_mask": True})
    twin = type(model)(config).eval()
    twin.load_state_dict(model.state_dict())
    return ObjectPerceptionPipeline(twin, processor=processor, device="cpu")


def same(a: list[dict], b: list[dict], tolerance: float = 2e-4) -> bool:
    """Whether results agree; scores have 4 digits behind the point, boxes 2."""
    return [x["label"] for x in a] == [y["label"] for y in b] and all(
        abs(x["score"] - y["score"]) <= tolerance
        and all(abs(x["box"][side] - y["box"][side]) <= 100 * tolerance for side in x["box"])
        and (x["mask"] != y["mask"]).mean() <= tolerance
        for x, y in zip(a, b)
    )


def test_results_of_labels(see):
    results = see(picture(), labels=LABELS, threshold=0.0)
    assert 0 < len(results) <= 36  # 12 queries, 3 labels
    assert {"cat", "dog", "traffic light"} == {result["label"] for result in results}
    scores = [result["score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    for result in results:
        assert set(result) == {"score", "label", "box", "mask"} and type(result["score"]) is float
        assert result["mask"].shape == (60, 90) and result["mask"].dtype == bool
        box = result["box"]
        assert list(box) == ["xmin", "ymin", "xmax", "ymax"] and all(type(side) is float for side in box.values())
        assert 0 <= box["xmin"] <= box["xmax"] <= 90 and 0 <= box["ymin"] <= box["ymax"] <= 60


def test_they_are_those_of_model_and_processor(see, tiny_glee):
    model, processor = tiny_glee
    image = picture()
    with torch.no_grad():
        outputs = model(**processor(images=image, labels=LABELS))
    expected = processor.post_process_instance_segmentation(outputs, threshold=0.0, target_sizes=[(60, 90)])[0]
    results = see(image, labels=LABELS, threshold=0.0)
    assert [result["label"] for result in results] == [LABELS[index] for index in expected["labels"]]
    np.testing.assert_allclose([r["score"] for r in results], expected["scores"].numpy(), atol=1e-4)
    np.testing.assert_array_equal([r["mask"] for r in results], expected["masks"].numpy())


def test_masks_are_stored_as_run_lengths(see):
    asked = {"labels": LABELS, "expressions": ["a cat"], "points": [[(5, 6)]], "threshold": 0.0}
    results = see(picture(), **asked)
    for found in results:
        assert isinstance(found, dict) and not isinstance(dict.__getitem__(found, "mask"), np.ndarray)
        mask = found["mask"]
        assert type(mask) is np.ndarray and mask.dtype == bool and mask.shape == (60, 90) and mask.flags.writeable
        copies = [{**found}, dict(found), found | {}, {} | found, dict(found.items()), found.copy(), {**found.copy()}]
        copies += [copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))]
        copies += [{"mask": found.get("mask")}, dict(zip(found, found.values()))]
        for other in copies:
            assert type(other["mask"]) is np.ndarray and np.array_equal(other["mask"], mask)
        assert list(found) == ["score", "label", "box", "mask"] and "RunLength" not in repr(found)
        assert np.array_equal(found.copy().pop("mask"), mask) and found.pop("none", 3) == 3
    boxes = see(picture(), **asked, masks=False)
    for plain, found in zip(boxes, results, strict=True):
        assert plain == {name: value for name, value in found.items() if name != "mask"}


def test_one_label_of_each_object(see):
    every = see(picture(), labels=LABELS, threshold=0.0)
    results = see(picture(), labels=LABELS, threshold=0.0, one_label=True)
    sides = [tuple(found["box"].values()) for found in results]
    assert len(sides) == len(set(sides)) and {tuple(found["box"].values()) for found in every} >= set(sides)
    for found in results:
        same_object = [one["score"] for one in every if one["box"] == found["box"]]
        assert found["score"] == max(same_object)
    with see(np.stack([picture()] * 2), labels=LABELS, threshold=0.0, one_label=True, masks=False) as video:
        for frame in video:
            assert len({found["track_id"] for found in frame}) == len(frame)
            assert all(list(found) == ["track_id", "score", "label", "box"] for found in frame)
    with pytest.raises(ValueError, match="`one_label` must be True or False"):
        see(picture(), labels=LABELS, one_label=1)


def test_prompts_of_every_container(see):
    image, box = picture(), (5.0, 6.0, 40.0, 30.0)
    sides = dict(zip(("xmin", "ymin", "xmax", "ymax"), box))
    (expected,) = see(image, boxes=[box])
    for boxes in (
        torch.tensor([box]),
        [torch.tensor(box)],
        [[torch.tensor(side) for side in box]],
        np.array([box]),
        [sides],
        [{"score": 0.5, "label": "cat", "box": sides, "mask": np.ones((60, 90), bool)}],
    ):
        assert same(see(image, boxes=boxes), [expected], 0)
        assert same(see([image, image], boxes=[boxes, boxes])[1], [expected])
    (expected,) = see(image, points=[[(10, 20), (30, 25)]])
    both = torch.tensor([[[10, 20], [30, 25]]])
    for points in (both, [both[0]], [[both[0, 0], (30, 25)]]):
        assert same(see(image, points=points), [expected], 0)
    (again,) = see(image, masks=[expected])
    assert same([again], see(image, masks=[expected["mask"]]), 0)
    with see(np.stack([image] * 2), boxes=[sides]) as video:
        assert len(next(video)) <= 1
    with pytest.raises(ValueError, match="`boxes`: object 0 must be"):
        see(image, boxes=[{"left": 3}])
    with pytest.raises(ValueError, match="`points`: object 0 must be"):
        see(image, points=[{"x": 3, "y": 4}])


def test_numbers_of_numpy_and_candidate_labels(see):
    asked = {"labels": ["cat", "dog"], "threshold": 0.3, "top_k": 5}
    expected = see(picture(), **asked)
    numbers = {"threshold": np.float32(0.3), "top_k": np.int64(5), "batch_size": np.int32(1)}
    assert same(see(picture(), candidate_labels="cat, dog", **numbers), expected, 0)
    item = {"image": picture(), "candidate_labels": ["cat", "dog"]}
    assert same(see(item, threshold=torch.tensor(0.3), top_k=5), expected)
    with pytest.raises(ValueError, match="'candidate_labels' and 'labels' are two names"):
        see(picture(), candidate_labels=["cat"], labels=["dog"])


def test_what_the_pictures_of_a_folder_or_an_animation_are(see, tmp_path):
    pictures = [Image.fromarray(picture(seed=seed)) for seed in range(3)]
    pictures[0].save(tmp_path / "moving.png", save_all=True, append_images=pictures[1:], duration=100)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, image in zip(["beach.png", "cat 2.png", "cat 10.png"], pictures):
        image.save(folder / name)
    asked = {"labels": ["cat"], "threshold": 0.0}
    expected = [see(image, **asked) for image in pictures]
    for source in (tmp_path / "moving.png", folder):
        assert all(map(same, list(see(source, **asked, frames="each")), expected))
        assert same(see(source, **asked, frames="first"), expected[0])
    with see(tmp_path / "moving.png", **asked) as video:
        assert video.frames == 3 and video.fps == pytest.approx(10)
    (first,) = see([str(tmp_path / "moving.png")], **asked, frames="first")
    assert same(first, expected[0])
    with pytest.raises(ValueError, match=r"inputs\[0\].*holds 3 pictures.*frames='first'"):
        see([str(tmp_path / "moving.png")], **asked)
    with pytest.raises(ValueError, match="`frames` must be one of 'video', 'each', 'first', not 'all'"):
        see(folder, **asked, frames="all")


def test_threshold_and_top_k(see):
    everything = see(picture(), labels=LABELS, threshold=0.0)
    middle = everything[len(everything) // 2]["score"]
    some = see(picture(), labels=LABELS, threshold=middle + 1e-4)
    assert 0 < len(some) < len(everything) and all(result["score"] > middle for result in some)
    assert len(see(picture(), labels=LABELS, threshold=0.0, top_k=2)) == 2
    assert see(picture(), labels=LABELS, threshold=1.0) == []


def test_thresholds_come_from_the_checkpoint_unless_a_call_has_its_own(see, monkeypatch):
    asked = {"labels": LABELS, "expressions": ["a cat", "a dog"], "threshold": 0.0}
    everything = see(picture(), **asked)
    objects, said = everything[:-2], sorted(found["score"] for found in everything[-2:])
    middle = objects[len(objects) // 2]["score"] + 1e-4
    monkeypatch.setattr(see.model.config, "label_threshold", middle)
    monkeypatch.setattr(see.model.config, "expression_threshold", said[1] - 1e-4)
    del asked["threshold"]
    expected = [found for found in objects if found["score"] >= middle]
    assert 0 < len(expected) < len(objects)
    # An expression always has a result, unless the call asks for those only that are there.
    assert same(see(picture(), **asked), expected + everything[-2:])
    assert same(see(picture(), **asked, threshold=0.0), everything)
    there = [found for found in everything[-2:] if found["score"] == said[1]]
    assert len(there) == 1 and same(see(picture(), **asked, expression_threshold="auto"), expected + there)
    assert same(see(picture(), **asked, expression_threshold=said[0] - 1e-3), expected + everything[-2:])
    assert see(picture(), expressions=["a cat", "a dog"], expression_threshold=1.0) == []
    # Without one of its own, the checkpoint's labels have the published demo's, and its sentences that of its labels.
    monkeypatch.setattr(see.model.config, "expression_threshold", None)
    monkeypatch.setattr(see.model.config, "label_threshold", said[1] - 1e-4)
    results = see(picture(), expressions=["a cat", "a dog"], expression_threshold="auto")
    assert [found["label"] for found in results] == [found["label"] for found in there]
    monkeypatch.setattr(see.model.config, "label_threshold", None)
    assert same(see(picture(), labels=LABELS), see(picture(), labels=LABELS, threshold=0.2))
    for value in ("all", True, -0.1, 2):
        with pytest.raises(ValueError, match="`expression_threshold` must be a number from 0 to 1, or 'auto', not"):
            see(picture(), expressions=["a cat"], expression_threshold=value)


def test_one_result_for_each_expression_and_visual_prompt(see):
    mask = np.zeros((60, 90), bool)
    mask[10:40, 20:60] = True
    expressions = ["The red Cup, left of the plate!", "the plate"]
    results = see(
        picture(),
        expressions=expressions,
        points=[[(10, 20), (12, 22)], [(80, 50)]],
        boxes=[(5, 5, 40, 40)],
        scribbles=[[(5, 5), (40, 30), (60, 20)], mask],
        masks=[mask],
        threshold=0.99,  # is about labels only
    )
    assert [result["label"] for result in results] == [*expressions, *["object"] * 6]
    prompts = {
        "points": [[[(10, 20), (12, 22)]], [[(80, 50)]]],
        "boxes": [[(5, 5, 40, 40)]],
        "scribbles": [[[(5, 5), (40, 30), (60, 20)]], [mask]],
        "masks": [[mask]],
    }
    singles = [see(picture(), **{name: value})[0] for name, values in prompts.items() for value in values]
    assert same(results[2:], singles)
    assert same(results[:2], [see(picture(), expressions=[text])[0] for text in expressions])


def test_everything_at_once_comes_in_order(see):
    labelled = see(picture(), labels=["cat"], threshold=0.0, top_k=3)
    results = see(picture(), points=[[(10, 20)]], expressions=["a dog"], labels=["cat"], threshold=0.0, top_k=3)
    assert [result["label"] for result in results] == ["cat"] * len(labelled) + ["a dog", "object"]
    assert same(results[: len(labelled)], labelled)


def test_five_objects_by_five_prompts_each_in_one_call(see):
    points = [[(5 + 9 * i + j, 6 + 8 * i + j) for j in range(5)] for i in range(5)]
    results = see(picture(), points=points, prompts_at_once=5)
    assert len(results) == 5 and same(results, [see(picture(), points=[several])[0] for several in points])
    assert same(results, see(picture(), points=points, prompts_at_once=2))


def test_open_world_is_the_label_object(see):
    results = see(picture(), labels=["object"], threshold=0.0)
    assert len(results) == 12 and {result["label"] for result in results} == {"object"}


def test_several_images_of_one_size(see):
    images = [picture(seed=seed) for seed in range(3)]
    singles = [see(image, labels=LABELS, expressions=["a cat"], threshold=0.0) for image in images]
    for batch_size in (1, 2, 3, 8):
        results = see(images, labels=LABELS, expressions=["a cat"], threshold=0.0, batch_size=batch_size)
        assert len(results) == 3 and all(map(same, results, singles)), batch_size
    (result,) = see(tuple(images[:1]), labels=["cat"], threshold=0.0)
    assert same(result, see(images[0], labels=["cat"], threshold=0.0), 0)


@pytest.mark.parametrize("pipe", ["see", "alone"])
def test_images_of_several_sizes_do_not_disturb_each_other(pipe, request):
    """Whether or not the model sees padding as image."""
    alone = request.getfixturevalue(pipe)
    images = [picture(*size, seed=seed) for seed, size in enumerate(SIZES)]
    prompts = {
        "labels": [["cat"], ["dog", "cat"], ["cat"]],
        "expressions": [["a cat"], [], ["a dog", "a bird"]],
        "points": [[], [[(5, 6)]], [[(30, 40)], [(10, 80)]]],
        "boxes": [[(1, 2, 50, 40)], [], [(3, 4, 30, 80)]],
    }
    results = alone(images, batch_size=3, threshold=0.0, prompts_at_once=3, **prompts)
    for index, (image, size, result) in enumerate(zip(images, SIZES, results)):
        mine = {name: values[index] for name, values in prompts.items() if len(values[index])}
        assert same(result, alone(image, threshold=0.0, **mine)), index
        assert all(found["mask"].shape == size for found in result)


def test_batches_of_mixed_sizes_are_as_if_one_by_one(see):
    random = np.random.default_rng(0)
    images = [picture(*random.integers(40, 130, 2), seed=seed) for seed in range(6)]
    images += [picture(60, 90, seed=7), picture(60, 90, seed=8)]
    asked = {"labels": LABELS, "expressions": ["a cat"], "threshold": 0.0}
    singles = [see(image, **asked) for image in images]
    results = see(images, **asked, batch_size=8)
    assert all(same(*pair, tolerance=1e-4) for pair in zip(results, singles, strict=True))


def test_without_one_they_have_their_own_sizes_and_counts(see):
    images = [picture(*size, seed=seed) for seed, size in enumerate(SIZES)]
    results = see(images, labels=["cat"], threshold=0.0, batch_size=3, expressions=[["a"], ["a", "b"], []])
    for size, result, count in zip(SIZES, results, (1, 2, 0)):
        assert all(found["mask"].shape == size for found in result)
        assert sum(found["label"] in ("a", "b") for found in result) == count


def test_items_with_prompts_of_their_own(see):
    items = [{"image": picture(), "labels": ["cat"]}, {"image": picture(), "points": [[(10, 20)]]}]
    results = see(items, threshold=0.0)
    assert {found["label"] for found in results[0]} == {"cat"} and [f["label"] for f in results[1]] == ["object"]
    assert same(see(items[0], threshold=0.0), results[0])
    shared = see([items[0], picture()], expressions=["a bird"], threshold=0.0)
    assert [found["label"] for found in shared[1]] == ["a bird"] and shared[0][-1]["label"] == "a bird"


def test_generators_are_read_as_they_are_needed(see):
    taken = []

    def images():
        for seed in range(6):
            taken.append(seed)
            yield picture(seed=seed)

    results = see(images(), labels=["cat"], threshold=0.0, batch_size=2)
    assert taken == [] or taken == [0]
    first = next(results)
    assert len(taken) == 2 and same(first, see(picture(seed=0), labels=["cat"], threshold=0.0))
    assert len(list(results)) == 5


def test_data_sets_are_read_item_by_item(see):
    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            if index >= 2:
                raise IndexError
            return {"image": picture(seed=index), "boxes": [(1, 2, 30, 40)]}

    assert [len(result) for result in see(Images())] == [1, 1]


def test_prompts_may_be_given_to_the_pipeline(tiny_glee):
    model, processor = tiny_glee
    see = ObjectPerceptionPipeline(model, processor=processor, device="cpu", labels=["cat"], threshold=0.0, top_k=2)
    assert {found["label"] for found in see(picture())} == {"cat"} and len(see(picture())) == 2
    assert {found["label"] for found in see(picture(), labels=["dog"])} == {"dog"}
    assert [found["label"] for found in see(picture(), points=[[(4, 4)]])] == ["object"]


def test_a_batch_size_may_be_given_to_the_pipeline(tiny_glee):
    model, processor = tiny_glee
    see = ObjectPerceptionPipeline(model, processor=processor, device="cpu", batch_size=2, labels=["cat"])
    taken = []

    def images():
        for seed in range(3):
            taken.append(seed)
            yield picture(seed=seed)

    results = see(images())
    next(results)
    assert len(taken) == 2 and len(list(results)) == 2
    next(see(images(), batch_size=1))
    assert len(taken) == 4
    with pytest.raises(ValueError, match="`batch_size`"):
        ObjectPerceptionPipeline(model, processor=processor, device="cpu", batch_size=0)


def test_a_pipeline_is_whole_while_it_is_saved(tiny_glee, tmp_path, monkeypatch):
    model, processor = tiny_glee
    see = ObjectPerceptionPipeline(model, processor=processor, device="cpu")
    expected, save, meanwhile = see(picture(), labels=["cat"], threshold=0.0), type(model).save_pretrained, []

    def saving(*args, **kwargs):
        save(*args, **kwargs)
        meanwhile.append((see.tokenizer, see.image_processor, getattr(model.config, "custom_pipelines", None)))
        meanwhile.append(see(picture(), labels=["cat"], threshold=0.0))

    monkeypatch.setattr(type(model), "save_pretrained", saving)
    see.save_pretrained(tmp_path / "saved")
    parts, results = meanwhile
    assert parts == (processor.tokenizer, processor.image_processor, None) and same(results, expected, 0)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["custom_pipelines"]["object-perception"]["pt"] == ["AutoModelForZeroShotObjectDetection"]
    assert config["architectures"] == ["GleeForObjectDetection"] and len(config["auto_map"]) == 3
    assert getattr(model.config, "auto_map", None) is None


def test_labels_are_encoded_once(tiny_glee, monkeypatch):
    model, processor = tiny_glee
    see = ObjectPerceptionPipeline(model, processor=processor, device="cpu")
    calls = []
    encode = model.get_label_embeddings
    monkeypatch.setattr(model, "get_label_embeddings", lambda *ids: calls.append(len(ids[0])) or encode(*ids))
    first = see([picture(seed=seed) for seed in range(3)], labels=LABELS, threshold=0.0)
    again = see(picture(), labels=LABELS, threshold=0.0)
    assert calls == [3] and same(again, first[0], 0)
    see(picture(), points=[[(4, 4)]])
    see(picture(), boxes=[(4, 4, 20, 20)])
    see(picture(), labels=LABELS[::-1])
    assert calls == [3, 1, 3] and len(see.label_cache) == 3
    see.label_cache.clear()
    assert same(see(picture(), labels=LABELS, threshold=0.0), again, 0) and calls == [3, 1, 3, 3]


def test_half_precision_runs(tiny_glee):
    model, processor = tiny_glee
    half = type(model)(model.config).eval()
    half.load_state_dict(model.state_dict())
    see = ObjectPerceptionPipeline(half.bfloat16(), processor=processor, device="cpu")
    results = see(picture(), labels=["cat"], expressions=["a cat"], points=[[(10, 20)]], threshold=0.0)
    assert [found["label"] for found in results[-2:]] == ["a cat", "object"]
    assert all(0 <= found["score"] <= 1 for found in results)


def test_two_calls_give_the_same(see):
    prompts = {"labels": ["cat"], "scribbles": [[(0, 0), (80, 50)]], "masks": [np.ones((60, 90), bool)]}
    assert same(see(picture(), threshold=0.0, **prompts), see(picture(), threshold=0.0, **prompts), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to look for"),
        ({"labels": []}, "`labels` is empty"),
        ({"labels": "cat"}, "`labels` must be a list of strings"),
        ({"labels": [1]}, "labels: item 0"),
        ({"labels": ["cat", " "]}, "labels: item 1"),
        ({"labels": ["x" * 200]}, "labels: item 0 has 202 tokens"),
        ({"expressions": []}, "`expressions` is empty"),
        ({"expressions": "a cat"}, "`expressions` must be a list of strings"),
        ({"expressions": ["a cat", "..."]}, "expressions: .*item 1"),
        ({"points": [[(500, 20)]]}, "points: .*object 0: .*outside"),
        ({"points": [(10, 20)]}, "`points`: object 0 must be a list of"),
        ({"points": [[(10, 20)], [(float("nan"), 20)]]}, "points: .*object 1"),
        ({"boxes": [(10, 10, 10, 40)]}, "boxes: .*object 0: .*no area"),
        ({"boxes": (10, 10, 20, 40)}, "`boxes`: object 0 must be"),
        ({"boxes": [(10, 10, 20)]}, "boxes: .*object 0"),
        ({"scribbles": [[(900, 900), (950, 950)]]}, "scribbles: .*object 0"),
        ({"masks": [np.zeros((60, 90), bool)]}, "masks: .*object 0"),
        ({"masks": [np.ones((9, 9), bool)]}, "masks: .*object 0"),
        ({"masks": 3}, "`masks` must be a list"),
        ({"labels": ["cat"], "threshold": 2}, "`threshold`"),
        ({"labels": ["cat"], "threshold": True}, "`threshold`"),
        ({"labels": ["cat"], "top_k": 0}, "`top_k`"),
        ({"labels": ["cat"], "prompts_at_once": 0}, "`prompts_at_once`"),
        ({"labels": ["cat"], "batch_size": 0}, "`batch_size`"),
        ({"labels": ["cat"], "candidate_labels": ["cat"]}, "'candidate_labels'"),
    ],
)
def test_bad_arguments_are_named_in_one_line(see, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        see(picture(), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "prompts", "message"),
    [
        ([], {"labels": ["cat"]}, "`inputs` is an empty list"),
        ([picture(), "missing.jpg"], {"labels": ["cat"]}, r"`inputs\[1\]`: .*missing.jpg"),
        ([picture()] * 2, {"points": [[[(1, 1)]]]}, "`points` must be one list for each of the 2 images; got 1"),
        ([picture()] * 2, {"labels": [["cat"]]}, "`labels` must be one list for each of the 2 images"),
        ([picture()] * 2, {"points": [[[(1, 1)]], [[(99, 1)]]]}, r"`inputs\[1\]`: points: .*outside"),
        ([picture()] * 2, {"expressions": [["a"], ["?"]]}, r"`inputs\[1\]`: expressions"),
        ((picture() for _ in range(2)), {"points": [[[(1, 1)]]] * 2}, "`points` cannot be shared"),
        ({"picture": picture()}, {"labels": ["cat"]}, '"image"'),
        ([{"image": picture(), "lables": ["cat"]}], {}, r"`inputs\[0\]` has an unknown key 'lables'"),
        (np.full((8, 8, 3), np.nan), {"labels": ["cat"]}, "`inputs`: .*NaN"),
        (Image.new("RGB", (1, 1)), {"labels": ["cat"]}, "`inputs`: .*1 x 1"),
        (None, {"labels": ["cat"]}, "`inputs`: .*no image"),
        ("clip.mp4", {"labels": ["cat"]}, "clip.mp4"),
    ],
)
def test_bad_inputs_are_named_in_one_line(see, inputs, prompts, message):
    with pytest.raises(ValueError, match=message) as caught:
        see(inputs, **prompts)
    assert "\n" not in str(caught.value)


def test_bad_prompts_are_found_before_the_model_runs(see, monkeypatch):
    monkeypatch.setattr(see, "forward", lambda *_, **__: pytest.fail("the model ran"))
    for prompts in ({"points": [[(500, 20)]]}, {"expressions": ["?"]}, {"masks": [np.zeros((60, 90), bool)]}):
        with pytest.raises(ValueError, match=next(iter(prompts))):
            see(picture(), labels=["cat"], **prompts)


def test_a_model_without_processor_is_refused(tiny_glee):
    with pytest.raises(ValueError, match="`processor` is missing"):
        ObjectPerceptionPipeline(tiny_glee[0], device="cpu")


def test_prompts_find_their_images():
    shared = distribute([1, 2], {"labels": ["cat"], "points": [[[(1, 1)]], []], "boxes": None})
    assert shared == [
        {"image": 1, "labels": ["cat"], "points": [[(1, 1)]], "index": 0},
        {"image": 2, "labels": ["cat"], "points": [], "index": 1},
    ]
    assert distribute("a.jpg", {"labels": ["cat"]}) == {"image": "a.jpg", "labels": ["cat"], "index": None}


def test_bounds_of_files_are_settings(see, tmp_path):
    """Of the pipeline or of a call, for pictures and for videos."""
    Image.fromarray(picture()).save(tmp_path / "one.png")
    (tmp_path / "film").mkdir()
    for number in range(2):
        Image.fromarray(picture()).save(tmp_path / "film" / f"{number}.png")
    height, width = picture().shape[:2]
    for name, value in (("max_pixels", height * width - 1), ("max_side", max(height, width) - 1)):
        bound = rf"has {width} x {height} pixels, and `{name}` allows {value}: make it smaller, or pass a larger"
        for source in (tmp_path / "one.png", tmp_path / "film"):
            with pytest.raises(ValueError, match=bound):
                list(see(str(source), labels=["cat"], **{name: value}))
        with pytest.raises(ValueError, match=f"`{name}` must be a positive integer"):
            see(picture(), labels=["cat"], **{name: 0})
        assert see(str(tmp_path / "one.png"), labels=["cat"], threshold=0.0, **{name: value + 1})
