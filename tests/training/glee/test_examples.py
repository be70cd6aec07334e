"""Batches ask for what is in their scenes, and the answers stand in the order of the model's rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lookhear.training.glee.scenes.examples import SceneBatches, SceneCollator, ask_labels, ask_prompts
from lookhear.training.glee.scenes.recipe import SceneDataRecipe
from lookhear.training.glee.scenes.scenes import make_scene
from lookhear.training.glee.scenes.vocabulary import learn_merges, learn_tokenizer


@pytest.fixture
def scenes():
    return [make_scene(np.random.default_rng(seed), (64, 96)) for seed in range(4)]


@pytest.fixture
def collator(tiny_glee):
    return SceneCollator(tiny_glee[1])


def test_a_batch_has_one_task_and_is_always_the_same():
    recipe = SceneDataRecipe(canvases=[(64, 64), (64, 96)], images={"labels": 2, "expressions": 3, "prompts": 1})
    first, again = SceneBatches(recipe, 40, seed=5), SceneBatches(recipe, 40, seed=5)
    tasks = set()
    for index in range(40):
        batch = first[index]
        assert len({scene.image.shape for scene in batch.scenes}) == 1
        assert np.array_equal(batch.scenes[0].image, again[index].scenes[0].image)
        tasks |= {"prompts" if name in ("points", "boxes", "scribbles", "masks") else name for name in batch.prompts}
    assert tasks == {"labels", "expressions", "prompts"}
    assert not np.array_equal(first[0].scenes[0].image[:64, :64], first[1].scenes[0].image[:64, :64])
    with pytest.raises(IndexError):
        first[40]


@pytest.mark.parametrize("mode", ["object", "kind", "pair", "mixed"])
def test_labels_name_each_shape_once(scenes, mode):
    batch = ask_labels(scenes, np.random.default_rng(0), mode)
    labels = batch.prompts["labels"]
    assert len(labels) == len(set(labels))
    for number, shapes, classes in batch.rows:
        assert len(set(shapes)) == len(shapes)
        for shape, name in zip(shapes, classes):
            shape = scenes[number].shapes[shape]
            assert labels[name] in ("object", shape.kind, f"{shape.colour} {shape.kind}")
    if mode in ("object", "kind"):
        assert [len(shapes) for _, shapes, _ in batch.rows] == [len(scene.shapes) for scene in scenes]


def test_a_recipe_says_which_lists_of_labels_are_asked():
    asked = {"tasks": {"labels": 1.0}, "images": {"labels": 1}, "canvases": [(64, 64)]}
    for mode, length in (("object", 1), ("kind", 11)):
        batches = SceneBatches(SceneDataRecipe(labels={mode: 1.0, "pair": 0.0}, **asked), 6)
        assert {len(batches[index].prompts["labels"]) for index in range(6)} == {length}
    with pytest.raises(ValueError, match="data.labels has no 'colour'; it has object, kind, pair, mixed"):
        SceneDataRecipe(labels={"colour": 1.0})


def test_targets_are_shares_of_the_canvas(scenes, collator):
    batch = ask_labels(scenes, np.random.default_rng(0), "object")
    inputs = collator([batch])
    assert inputs["pixel_values"].shape == (4, 3, 64, 96)
    for scene, entry in zip(scenes, inputs["labels"]):
        for shape, box, mask in zip(scene.shapes, entry["boxes"], entry["masks"]):
            x0, y0, x1, y1 = shape.box
            wanted = [(x0 + x1) / 192, (y0 + y1) / 128, (x1 - x0) / 96, (y1 - y0) / 64]
            assert box.tolist() == pytest.approx(wanted, abs=1e-6)
            assert np.array_equal(mask.numpy(), shape.mask)


def test_prompts_lie_on_the_objects_of_their_rows(scenes, collator):
    batch = ask_prompts(scenes, np.random.default_rng(1), 3)
    inputs = collator([batch])
    assert len(inputs["prompt_masks"]) == len(inputs["labels"]) == len(batch.rows) >= 8
    assert inputs["prompt_image_indices"].tolist() == [number for number, *_ in batch.rows]
    for prompt, kind, entry in zip(inputs["prompt_masks"], inputs["prompt_types"], inputs["labels"]):
        mask = entry["masks"][0]
        assert (prompt & mask).any()
        if kind in (0, 1):  # a mask is the object; a box is its box, but for a few per cent
            assert (prompt & mask).sum() > 0.85 * mask.sum()


def test_sentences_go_with_their_scenes(collator):
    recipe = SceneDataRecipe(tasks={"expressions": 1.0}, images={"expressions": 3}, canvases=[(64, 64)])
    batch = SceneBatches(recipe, 1)[0]
    inputs = collator([batch])
    texts = [text for of_scene in batch.prompts["expressions"] for text in of_scene]
    assert len(inputs["expression_input_ids"]) == len(inputs["labels"]) == len(texts)
    assert inputs["prompt_image_indices"].tolist() == [number for number, *_ in batch.rows]
    assert all(len(entry["boxes"]) == 1 for entry in inputs["labels"])


def test_a_model_learns_from_each_task(tiny_glee, collator, scenes):
    model = tiny_glee[0]
    model.config.loss_settings = {"mask_points": 32}
    for task in ("labels", "expressions", "prompts"):
        recipe = SceneDataRecipe(tasks={task: 1.0}, images={task: 2}, canvases=[(64, 64)])
        loss = model(**collator([SceneBatches(recipe, 1)[0]])).loss
        assert torch.isfinite(loss) and loss > 0


def test_a_tokenizer_learns_words_and_still_reads_everything():
    assert learn_merges(["low low lower"], 2) == [("l", "o"), ("lo", "w</w>")]
    tokenizer = learn_tokenizer(["the red circle"] * 3 + ["a blue star"], merges=40, max_length=24)
    assert tokenizer.tokenize("the red star") == ["the</w>", "red</w>", "star</w>"]
    ids = tokenizer("the Ünknown circle")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "the ünknown circle"
    assert tokenizer.model_max_length == 24
