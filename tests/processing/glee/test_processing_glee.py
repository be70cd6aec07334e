"""`GleeProcessor`: names and shapes of the inputs, tasks that exclude each other, round trip."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from lookhear.processing.glee import GleeImageProcessor, GleeProcessor


@pytest.fixture(scope="module")
def processor(tokenizer) -> GleeProcessor:
    return GleeProcessor(GleeImageProcessor(size={"shortest_edge": 80, "longest_edge": 133}), tokenizer)


@pytest.fixture
def images() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (*size, 3), np.uint8)) for size in ((48, 64), (64, 48))]


def shapes(inputs) -> dict:
    assert all(isinstance(value, torch.Tensor) for value in inputs.values())
    return {name: tuple(value.shape) for name, value in inputs.items()}


def test_labels(processor, images):
    expected = {
        "pixel_values": (2, 3, 128, 128),
        "pixel_mask": (2, 128, 128),
        "input_ids": (2, 8),
        "attention_mask": (2, 8),
    }
    assert shapes(processor(images, labels=["cat", "person"])) == expected
    assert shapes(processor(images, text=["cat", "person"])) == expected
    assert shapes(processor(images[0], ["cat"]))["input_ids"] == (1, 5)


def test_expressions(processor, images):
    inputs = processor(images, expressions=[["cat"], ["the dog", "a man"]])
    assert shapes(inputs) == {
        "pixel_values": (2, 3, 128, 128),
        "pixel_mask": (2, 128, 128),
        "expression_input_ids": (3, 77),
        "expression_attention_mask": (3, 77),
        "prompt_image_indices": (3,),
    }


def test_five_objects_by_every_kind_of_prompt(processor, images):
    mask = np.zeros((48, 64), bool)
    mask[10:20, 10:20] = True
    inputs = processor(
        images[0],
        points=[[(i, i)] for i in range(5)],
        boxes=[(i, i, i + 9, i + 9) for i in range(5)],
        scribbles=[[(i, i), (20, 20)] for i in range(5)],
        masks=[mask] * 5,
    )
    assert shapes(inputs) == {
        "pixel_values": (1, 3, 96, 128),
        "pixel_mask": (1, 96, 128),
        "prompt_masks": (20, 96, 128),
        "prompt_types": (20,),
        "prompt_image_indices": (20,),
        "input_ids": (1, 8),
        "attention_mask": (1, 8),
    }
    assert inputs["prompt_masks"].dtype == torch.bool and inputs["prompt_masks"].any(dim=(1, 2)).all()
    assert set(inputs) <= set(processor.model_input_names)


def test_prompts_follow_the_image_as_it_is_resized_and_turned(processor):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[12:24, 32:48] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(picture)
    turned.getexif()[0x0112] = 6
    for image, box, options in (
        (picture, (32, 12, 48, 24), {}),
        (picture, (32, 12, 48, 24), {"do_resize": False}),
        (turned, (24, 32, 36, 48), {}),
    ):
        inputs = processor(image, boxes=[box], do_normalize=False, **options)
        white = inputs["pixel_values"][0, 0] > 0.5
        assert (white != inputs["prompt_masks"][0]).float().mean() < 0.005


def test_either_half_alone(processor, images):
    assert set(processor(labels=["cat"])) == {"input_ids", "attention_mask"}
    assert set(processor(images)) == {"pixel_values", "pixel_mask"}
    arrays = processor(images, labels=["cat"], return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in arrays.values())
    grey = np.zeros((3, 48, 3), np.uint8)
    assert processor(grey, input_data_format="channels_first")["pixel_values"].shape[-2:] == (160, 32)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "nothing to process: pass images"),
        ({"labels": ["a"], "text": ["a"]}, "text and labels"),
        ({"boxes": [(0, 0, 5, 5)]}, "images must be there"),
        ({"images": np.zeros((1, 1, 3)), "labels": ["a"]}, "images: item 0 is 1 x 1"),
        ({"images": np.zeros((9, 9, 3)), "labels": []}, "labels is empty"),
        ({"images": np.zeros((9, 9, 3)), "labels": ["a"], "points": [[(1, 1)]]}, "labels and points exclude"),
        ({"images": np.zeros((9, 9, 3)), "points": [[(9, 1)]]}, "points: .* width 9 and height 9"),
    ],
)
def test_wrong_arguments_are_named(processor, arguments, words):
    with pytest.raises(ValueError, match=words):
        processor(**arguments)


def test_save_and_load(processor, images, tmp_path):
    AutoImageProcessor.register("GleeImageProcessor", slow_image_processor_class=GleeImageProcessor, exist_ok=True)
    processor.save_pretrained(tmp_path)
    loaded = GleeProcessor.from_pretrained(tmp_path)
    assert loaded.image_processor.to_dict() == processor.image_processor.to_dict()
    for arguments in ({"labels": ["cat", "person"]}, {"boxes": [[(0, 0, 9, 9)], [(1, 1, 5, 5)]]}):
        before, after = processor(images, **arguments), loaded(images, **arguments)
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_what_example_scripts_pass(processor, images):
    expected = processor(images, labels=["cat", "person"])
    for texts in (["cat", "person"], "cat. person.", "Cat . person"):
        inputs = processor(images=images, text=texts, padding=True, truncation=True, return_tensors="pt")
        assert all(torch.equal(inputs[name], value) for name, value in expected.items())


def test_annotations_become_labels_of_the_model(processor, images):
    """Pictures of 48 x 64 and 64 x 48 become 80 x 107 and 107 x 80, on a padded image of 128 x 128."""
    box = {"category_id": 3, "bbox": [16, 12, 32, 24], "segmentation": [[16, 12, 48, 12, 48, 36, 16, 36]]}
    lengths = {"size": [64, 48], "counts": [0] + [32, 32] * 48}
    runs = {"category_id": 1, "bbox": [0, 0, 48, 32], "segmentation": lengths}
    annotations = [
        {"image_id": 7, "annotations": [box, {**box, "iscrowd": 1}]},
        {"image_id": 9, "annotations": [runs]},
    ]
    inputs = processor(images=images, annotations=annotations, return_segmentation_masks=True)
    first, second = inputs["labels"]
    assert first["class_labels"].tolist() == [3] and second["class_labels"].tolist() == [1]
    scale = 107 / 64  # of x; of y it is 80 / 48
    centre = [32 * scale / 128, 24 * 80 / 48 / 128, 32 * scale / 128, 24 * 80 / 48 / 128]
    assert first["boxes"][0].tolist() == pytest.approx(centre) and first["boxes"].dtype == torch.float32
    assert first["masks"].shape == (1, 128, 128) and first["masks"].dtype == torch.bool
    rows, columns = first["masks"][0].nonzero().T
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (20, 60, 27, 80)
    assert second["masks"].sum() == 80 * 53 and second["masks"][0, 0, 0]
    assert (first["image_id"].item(), first["size"].tolist(), first["orig_size"].tolist()) == (7, [80, 107], [48, 64])
    alone = processor.image_processor(images[0], annotations=annotations[0], return_tensors="pt")
    assert "masks" not in alone["labels"][0] and len(alone["labels"]) == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"bbox": [0.1, 0.2, 0.5, 0.5]}, "image 0, object 0: its bbox .* in pixels of the image"),
        ({"bbox": [4, 4, 0, 9]}, "image 0, object 0: its bbox"),
        ({"bbox": None}, "its bbox must be x, y, width, height, got None"),
        ({"bbox": [4, 4, 9, 9]}, "it has no segmentation"),
        ({"bbox": [4, 4, 9, 9], "segmentation": {"size": [9, 9], "counts": [81]}}, "its segmentation is .9, 9., its"),
    ],
)
def test_annotations_that_cannot_be_used(processor, images, entry, message):
    given = {"image_id": 1, "annotations": [{"category_id": 0, **entry}]}
    with pytest.raises(ValueError, match=f"^annotations: .*{message}"):
        processor(images=images[0], annotations=given, return_segmentation_masks=True)
