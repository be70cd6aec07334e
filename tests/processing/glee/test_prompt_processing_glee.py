"""`GleePromptProcessor`: labels, expressions and everything that is drawn."""

import numpy as np
import pytest
import torch
from PIL import Image

from lookhear.processing.glee import GleePromptProcessor
from lookhear.processing.glee.prompt_processing_glee import clean_expression, clean_label

ONE = {"image_sizes": [(100, 200)], "resized_sizes": [(200, 400)], "padded_size": (224, 416)}
TWO = {"image_sizes": [(100, 200), (50, 50)], "resized_sizes": [(200, 400), (200, 200)], "padded_size": (224, 416)}
MASK, BOX, POINT, SCRIBBLE = range(4)


@pytest.fixture(scope="module")
def prompts(tokenizer) -> GleePromptProcessor:
    return GleePromptProcessor(tokenizer)


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) of the pixels that are set, exclusive at the end; all of them are set."""
    y, x = np.nonzero(mask)
    box = int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1
    assert mask[box[1] : box[3], box[0] : box[2]].all()
    return box


# ------------------------------------------------------------------------------------------------------------- words


def test_labels_are_padded_to_the_longest(prompts, tokenizer):
    inputs = prompts(labels=["cat", " T-shirt; blue "])
    assert {name: (value.shape, value.dtype) for name, value in inputs.items()} == {
        "input_ids": ((2, 14), np.int64),
        "attention_mask": ((2, 14), np.int64),
    }
    assert inputs["attention_mask"].sum(axis=1).tolist() == [5, 14]
    first = inputs["input_ids"][0]
    assert tokenizer.convert_ids_to_tokens(first[:5]) == ["<|startoftext|>", "c", "a", "t</w>", "<|endoftext|>"]
    assert (first[5:] == tokenizer.pad_token_id).all()
    assert "-</w>" in tokenizer.convert_ids_to_tokens(inputs["input_ids"][1])  # as it was written


def test_expressions_are_cleaned_and_padded_to_the_full_length(prompts, tokenizer):
    inputs = prompts(expressions=[["The cup!", "a  man's T-shirt"], ["dog"]], **TWO)
    assert inputs["expression_input_ids"].shape == inputs["expression_attention_mask"].shape == (3, 77)
    assert inputs["prompt_image_indices"].tolist() == [0, 0, 1]
    assert inputs["expression_attention_mask"].sum(axis=1).tolist() == [8, 13, 5]
    ids = inputs["expression_input_ids"][1][inputs["expression_attention_mask"][1] == 1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a mans t shirt"


def test_a_shorter_text_encoder_takes_shorter_expressions(tokenizer):
    assert GleePromptProcessor(tokenizer, max_length=9)(expressions="dog", **ONE)["expression_input_ids"].shape == (
        1,
        9,
    )


@pytest.mark.parametrize("expressions", ["dog", ["dog"], ("dog",), [["dog"]]])
def test_expressions_of_one_image(prompts, expressions):
    assert prompts(expressions=expressions, **ONE)["expression_attention_mask"].sum() == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The man in red, left of the dog.", "the man in red left of the dog"),
        ("  left/right\n (2nd) T-shirt: #1 *; “ok” ?!", "left right 2nd t shirt 1 “ok”"),
        ("Café crème", "café crème"),
        ("the red_triangle", "the red triangle"),
        ("!?", ""),
    ],
)
def test_clean_expression(text, expected):
    assert clean_expression(text) == expected


@pytest.mark.parametrize(
    "text", ["red_triangle", "Red Triangle", "red triangle.", " red\u00a0 triangle ; ", "RED__triangle"]
)
def test_a_name_means_the_same_however_it_is_written(prompts, text):
    assert clean_label(text) == "red triangle"
    assert np.array_equal(prompts(labels=[text])["input_ids"], prompts(labels=["red triangle"])["input_ids"])


def test_punctuation_within_a_name_stays():
    assert clean_label("Bolt, small (M4) 3/4.") == "bolt, small (m4) 3/4" and clean_label("...") == ""


# ------------------------------------------------------------------------------------------------------------- drawing


def test_a_point_is_a_rectangle_round_it(prompts):
    inputs = prompts(points=[[(50, 25)], [(0, 0)], [(199.9, 99.9)]], **ONE)
    masks = inputs["prompt_masks"]
    assert masks.shape == (3, 224, 416) and masks.dtype == bool
    assert extent(masks[0]) == (90, 45, 111, 56)  # 400 / 40 and 200 / 40 to each side
    assert extent(masks[1]) == (0, 0, 11, 6)
    assert extent(masks[2][:200, :400]) == (389, 194, 400, 200) and not masks[2][200:].any()
    assert inputs["prompt_types"].tolist() == [POINT] * 3 and inputs["prompt_image_indices"].tolist() == [0] * 3


def test_points_of_one_object_are_one_mask(prompts):
    together = prompts(points=[[(50, 25), (100, 50)]], **ONE)["prompt_masks"]
    alone = prompts(points=[[(50, 25)], [(100, 50)]], **ONE)["prompt_masks"]
    assert np.array_equal(together, alone.any(axis=0, keepdims=True))


def test_boxes_are_filled_and_cut_off_at_the_image(prompts):
    boxes = [(10, 20, 30, 40), (-5, -5, 5, 5), (190, 90, 300, 300), (10, 10, 11, 11.1), (199, 99, 200, 100)]
    inputs = prompts(boxes=boxes, **ONE)
    expected = [(20, 40, 60, 80), (0, 0, 10, 10), (380, 180, 400, 200), (20, 20, 22, 22), (398, 198, 400, 200)]
    assert [extent(mask) for mask in inputs["prompt_masks"]] == expected
    assert inputs["prompt_types"].tolist() == [BOX] * 5


def test_scribbles_are_lines_or_pixels(prompts):
    pixels = np.zeros((100, 200), bool)
    pixels[10:20, 30:50] = True
    lines = [[(10, 50), (190, 50)], [(20, 20)], [(-50, 30), (50, 30)]]
    inputs = prompts(scribbles=[*lines, pixels, torch.from_numpy(pixels)], **ONE)
    line, dot, cut, first, second = inputs["prompt_masks"]
    y, x = np.nonzero(line)
    assert 18 <= x.min() <= 20 and 380 <= x.max() <= 382 and 98 <= y.min() and y.max() <= 102
    assert line[100, 20:380].all() and line.sum() < 5 * 365
    assert dot[40, 40] and 5 <= dot.sum() <= 25
    assert cut[60, 0] and cut[60, 100]
    assert extent(first) == (60, 20, 100, 40) and np.array_equal(first, second)
    assert inputs["prompt_types"].tolist() == [SCRIBBLE] * 5
    thick = prompts(
        scribbles=[lines[0]], image_sizes=[(100, 200)], resized_sizes=[(800, 1600)], padded_size=(800, 1600)
    )
    assert thick["prompt_masks"][0, :, 800].sum() in (8, 9)  # a 100th of the short side


def test_masks_of_any_container(prompts):
    mask = np.zeros((100, 200), bool)
    mask[10:20, 30:50] = True
    alike = [mask, torch.from_numpy(mask), mask.astype(np.uint8) * 255, Image.fromarray(mask)]
    inputs = prompts(masks=alike, **ONE)
    assert [extent(drawn) for drawn in inputs["prompt_masks"]] == [(60, 20, 100, 40)] * 4
    assert inputs["prompt_types"].tolist() == [MASK] * 4
    assert np.array_equal(prompts(masks=np.stack([mask] * 4), **ONE)["prompt_masks"], inputs["prompt_masks"])


def test_every_kind_for_several_images_in_one_call(prompts):
    mask = np.ones((50, 50), bool)
    inputs = prompts(
        points=[[[(1, 1)], [(2, 2), (3, 3)]], []],
        boxes=[[(1, 1, 9, 9)], torch.tensor([[1, 1, 9, 9], [2, 2, 8, 8]])],
        scribbles=[[], [[(1, 1), (9, 9)], mask]],
        masks=[[], [mask]],
        **TWO,
    )
    assert inputs["prompt_image_indices"].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert inputs["prompt_types"].tolist() == [POINT, POINT, BOX, BOX, BOX, SCRIBBLE, SCRIBBLE, MASK]
    assert extent(inputs["prompt_masks"][-1]) == (0, 0, 200, 200)
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (1, 8)  # "object"


def test_one_image_may_have_the_outer_list(prompts):
    for inner, outer in (([[(5, 5)]], [[[(5, 5)]]]), (np.array([[[5, 5]]]), [np.array([[[5, 5]]])])):
        assert np.array_equal(
            prompts(points=inner, **ONE)["prompt_masks"], prompts(points=outer, **ONE)["prompt_masks"]
        )
    box = [(1, 1, 9, 9)]
    assert np.array_equal(prompts(boxes=box, **ONE)["prompt_masks"], prompts(boxes=[box], **ONE)["prompt_masks"])


# -------------------------------------------------------------------------------------------------------------- errors

EMPTY, FULL = np.zeros((100, 200), bool), np.ones((100, 200), bool)
NAN = float("nan")
SHARES = "coordinates are pixels, not shares; multiply x by the width 200 and y by the height 100"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "nothing to look for"),
        ({"labels": ["a"], "expressions": ["b"]}, "labels and expressions exclude each other"),
        ({"expressions": ["b"], "boxes": [(0, 0, 1, 1)]}, "expressions and boxes exclude each other"),
        ({"labels": []}, "labels is empty"),
        ({"labels": "person"}, "labels must be a list of strings, got str"),
        ({"labels": [["person"]]}, "labels: item 0 must be a string, got list"),
        ({"labels": ["a", "  "]}, "labels: item 1 is empty"),
        ({"labels": ["a", "b", "a "]}, "labels: 'a' is there twice, items 0 and 2"),
        ({"labels": ["a", "."]}, "labels: item 1 is empty"),
        ({"labels": ["A_b", "a b."]}, "labels: 'a b' is there twice \\(as 'A_b' and 'a b.'\\), items 0 and 1"),
        ({"labels": ["a", "b" * 76]}, "labels: item 1 has 78 tokens, 77 fit"),
        ({"expressions": []}, "expressions is empty"),
        ({"expressions": ["a", "?"]}, "expressions: image 0, item 1 has no word"),
        ({"expressions": ["x" * 76]}, "expressions: item 0 has 78 tokens, 77 fit"),
        ({"expressions": [["a"], ["b"]]}, "expressions must be one list of sentences for each of 1 images"),
        ({"expressions": [[3]]}, "expressions: image 0: item 0 must be a string, got int"),
        ({"expressions": 3}, "expressions must be one list"),
        ({"points": []}, "points is empty"),
        ({"points": [[]]}, "points: image 0, object 0: it must be a list of \\(x, y\\) points"),
        ({"points": [(5, 5)]}, "points: image 0, object 0: it must be a list of \\(x, y\\) points"),
        ({"points": (5, 5)}, "points: image 0, object 0: it must be"),
        ({"points": 5}, "points must be one list of objects for each of 1 images"),
        ({"points": [[(5, 5)], [(5, "five")]]}, "points: image 0, object 1: it must be"),
        ({"points": [[(5, 5), (200, 5)]]}, "points: image 0, object 0: the point \\(200, 5\\) is outside"),
        ({"points": [[(5, -1)]]}, "points: .* outside"),
        ({"points": [[(5, NAN)]]}, "points: .* NaN"),
        ({"boxes": []}, "boxes is empty"),
        ({"boxes": (0, 0, 5, 5)}, "boxes: image 0, object 0: it must be four numbers"),
        ({"boxes": [(0, 0, 5)]}, "boxes: image 0, object 0: it must be four numbers"),
        ({"boxes": [(5, 5, 5, 9)]}, "boxes: .* has no area"),
        ({"boxes": [(9, 5, 5, 9)]}, "boxes: .* has no area"),
        ({"boxes": [(0, 0, 5, NAN)]}, "boxes: .* NaN"),
        ({"boxes": [(0, 0, 5, 5), (200, 0, 210, 5)]}, "boxes: image 0, object 1: the box .* is outside"),
        (
            {"points": [[(0.4, 0.6)]]},
            f"points: image 0, object 0: the point .0.4, 0.6. is less than a pixel .*{SHARES}",
        ),
        ({"points": [[(0, 1), (0.5, 0.5)]]}, f"points: .*{SHARES}"),
        ({"boxes": [(0.1, 0.2, 0.5, 0.9)]}, f"boxes: .* smaller than a pixel .*{SHARES}"),
        ({"boxes": [(0, 0, 1, 1)]}, f"boxes: .*{SHARES}"),
        ({"boxes": [(10, 10, 40, 10.5)]}, f"boxes: .*{SHARES}"),
        ({"boxes": [(199.9, 99.9, 200, 100)]}, f"boxes: .*{SHARES}"),
        ({"scribbles": [[(0.1, 0.2), (0.9, 0.4)]]}, f"scribbles: .* shorter than a pixel .*{SHARES}"),
        ({"scribbles": [[(0, 0), (1, 1)]]}, f"scribbles: .*{SHARES}"),
        ({"scribbles": []}, "scribbles is empty"),
        ({"scribbles": [[]]}, "scribbles: image 0, object 0: it must be a line"),
        ({"scribbles": [EMPTY]}, "scribbles: image 0, object 0: it marks no pixel"),
        ({"scribbles": [[(500, 500), (600, 600)]]}, "scribbles: .* the line is outside"),
        ({"scribbles": [[(5, 5), (NAN, 6)]]}, "scribbles: .* NaN"),
        ({"masks": [EMPTY]}, "masks: image 0, object 0: it marks no pixel"),
        ({"masks": FULL}, "masks: image 0, object 0: it must be a bool array"),
        ({"masks": [FULL, FULL.T]}, "masks: image 0, object 1: its size is \\(200, 100\\)"),
        ({"masks": [FULL.astype(float)]}, "masks: .* bool, or integers"),
        ({"masks": [[(5, 5)]]}, "masks: image 0, object 0: it must be a bool array"),
        ({"masks": []}, "masks is empty"),
    ],
)
def test_wrong_prompts_are_refused(prompts, arguments, words):
    with pytest.raises(ValueError, match=f"^{words}") as raised:
        prompts(**arguments, **ONE)
    assert "\n" not in str(raised.value)


def test_prompts_of_several_images_are_counted(prompts):
    for arguments in ({"points": [[(5, 5)]]}, {"boxes": [[(0, 0, 5, 5)]] * 3}, {"expressions": "a"}):
        with pytest.raises(ValueError, match=f"^{next(iter(arguments))} must be one list .* each of 2 images"):
            prompts(**arguments, **TWO)
    with pytest.raises(ValueError, match="images must be there"):
        prompts(boxes=[(0, 0, 5, 5)])
