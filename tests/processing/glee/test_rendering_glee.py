"""Pictures of what was found: size, translucent masks, tags that stay inside and apart, prompts, odd pictures."""

import itertools

import numpy as np
import pytest
from PIL import Image

from lookhear.processing.glee.rendering_glee import (
    INK,
    MIN_READABLE,
    PALETTE,
    PAPER,
    colours_of,
    contrasting,
    draw_objects,
    lay_out_tag,
    lay_out_tags,
    place_tag,
)

GREY = 90


def grey(width: int = 320, height: int = 240) -> Image.Image:
    return Image.new("RGB", (width, height), (GREY,) * 3)


def result(x0, y0, x1, y1, label="cat", score=0.87, size=(320, 240), mask=True) -> dict:
    box = {"xmin": x0, "ymin": y0, "xmax": x1, "ymax": y1}
    filled = np.zeros((size[1], size[0]), bool)
    filled[y0:y1, x0:x1] = True
    return {"label": label, "score": score, "box": box, **({"mask": filled} if mask else {})}


def changed(picture: Image.Image) -> np.ndarray:
    return (np.asarray(picture) != GREY).any(axis=2)


def has(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    """How many pixels have exactly this colour."""
    return int((np.asarray(picture) == colour).all(axis=2).sum())


def test_masks_are_translucent_and_their_border_is_not():
    picture = draw_objects(grey(), [result(100, 80, 220, 180)], opacity=0.5)
    assert (picture.mode, picture.size) == ("RGB", (320, 240))
    inside = np.asarray(picture)[130, 160].astype(int)
    assert np.abs(inside - (np.array(PALETTE[0]) + GREY) / 2).max() <= 1
    assert np.abs(np.asarray(picture)[130, 100].astype(int) - PALETTE[0]).max() <= 30  # the line at the left
    assert (np.asarray(picture)[230, 20] == GREY).all()
    assert has(draw_objects(grey(), [result(100, 80, 220, 180)], opacity=0), (GREY,) * 3) > 320 * 240 * 0.9


def test_where_masks_lie_over_each_other_the_smaller_one_is_seen():
    large, small = result(40, 60, 280, 220, "table"), result(140, 120, 200, 180, "cup", 0.5)
    for order in ([large, small], [small, large]):
        picture = draw_objects(grey(), order, opacity=0.5)
        expected = (np.array(PALETTE[order.index(small)]) + GREY) / 2
        assert np.abs(np.asarray(picture)[150, 170].astype(int) - expected).max() <= 1


def test_the_given_picture_and_results_stay_as_they_are():
    image, found = grey(), result(100, 80, 220, 180)
    mask = found["mask"].copy()
    mask.setflags(write=False)
    draw_objects(image, [{**found, "mask": mask}])
    assert has(image, (GREY,) * 3) == 320 * 240 and np.array_equal(mask, found["mask"])


def test_colours_follow_labels_unless_there_is_only_one():
    assert colours_of(["cat", "dog", "cat"]) == [PALETTE[0], PALETTE[1], PALETTE[0]]
    assert len(set(colours_of(["object"] * 9))) == 9
    assert len(set(colours_of([str(i) for i in range(len(PALETTE))]))) == len(PALETTE)
    assert len(colours_of([str(i) for i in range(100)])) == 100 and colours_of([]) == []


def test_letters_stand_out_from_every_tag():
    def luminance(colour):
        linear = [(v / 255 / 12.92) if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for colour in PALETTE:
        light, dark = sorted((luminance(colour), luminance(contrasting(colour))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, colour  # WCAG's bound for small text
    assert contrasting((0, 0, 0)) == PAPER and contrasting((255, 255, 0)) == INK


def test_the_tag_says_label_and_score():
    """Text cannot be read back cheaply, but more of it takes more room."""
    box = result(120, 100, 200, 160, mask=False)
    with_score, without = (draw_objects(grey(), [box], scores=scores) for scores in (True, False))
    nameless = draw_objects(grey(), [{**box, "label": ""}], scores=False)
    assert has(with_score, PALETTE[0]) > has(without, PALETTE[0]) > has(nameless, PALETTE[0]) > 0
    dark = [(np.asarray(picture).max(axis=2) < 70).sum() for picture in (with_score, without, nameless)]
    assert dark[0] > dark[1] > dark[2] == 0
    unscored = draw_objects(grey(), [{name: box[name] for name in ("label", "box")}])
    assert np.array_equal(np.asarray(unscored), np.asarray(without))


@pytest.mark.parametrize(
    "box", [(0, 0, 30, 20), (290, 0, 320, 15), (0, 220, 20, 240), (300, 225, 320, 240), (0, 0, 320, 240)]
)
@pytest.mark.parametrize(
    "text", ["cat 0.87", "the man in the orange suit who holds a microphone beside the stage 0.51"]
)
def test_tags_stay_inside(box, text):
    tag = lay_out_tag(text, 13, (320, 240))
    left, top, right, bottom = place_tag(tag, box, (320, 240))
    assert 0 <= left < right <= 320 and 0 <= top < bottom <= 240
    assert right - left == tag.width and bottom - top == tag.height


def test_tags_avoid_each_other_and_small_objects():
    boxes = [(100 + 8 * i, 100 + 3 * i, 150 + 8 * i, 160 + 3 * i) for i in range(12)]
    tag, taken = lay_out_tag("wine glass 0.90", 12, (640, 480)), []
    for box in boxes:
        taken.append(place_tag(tag, box, (640, 480), taken))
    for a, b in itertools.combinations(taken, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)
    small = (200, 90, 210, 98)
    place = place_tag(tag, (200, 100, 260, 200), (640, 480), (), [small])
    assert place[3] <= small[1] or place[1] >= small[3] or place[0] >= small[2] or place[2] <= small[0]


def test_long_text_is_broken_and_cut():
    tag = lay_out_tag("a very long expression " * 20, 13, (640, 480))
    assert len(tag.lines) == 3 and tag.lines[-1].endswith("…") and tag.width <= 640
    word = lay_out_tag("x" * 300, 13, (200, 100))
    assert word.lines[0].endswith("…") and word.size == MIN_READABLE and word.width <= 200
    assert lay_out_tag("", 13, (640, 480)) is None
    assert lay_out_tag("cat", 13, (5, 5)) is None
    small = lay_out_tag("wine glass 0.98", 13, (60, 40))
    assert small.width <= 60 and small.height <= 40


def test_letters_shrink_where_there_are_many():
    few, many = (lay_out_tags(["wine glass 0.98"] * n, 14, (640, 480)) for n in (3, 60))
    assert few[0].size == 14 and 10 <= many[0].size < 14


def test_lines_and_letters_grow_with_the_picture():
    shares = []
    for scale in (1, 4):
        box = [scale * side for side in (120, 100, 200, 160)]
        size = (320 * scale, 240 * scale)
        picture = draw_objects(grey(*size), [result(*box, size=size)])
        shares.append(changed(picture).mean())
    assert shares[1] == pytest.approx(shares[0], rel=0.35)


def test_tiny_pictures_are_not_hidden_by_tags():
    boxes = [(4 * i, 20, 4 * i + 6, 30) for i in range(12)]
    picture = draw_objects(grey(96, 64), [result(*box, size=(96, 64), mask=False) for box in boxes])
    assert picture.size == (96, 64) and changed(picture).mean() < 0.6
    for size in ((2, 2), (3, 2), (2, 400), (400, 2)):
        found = result(0, 0, *size, size=size)
        assert draw_objects(grey(*size), [found], points=[[(0, 0)]], boxes=[(0, 0, *size)]).size == size


def test_empty_and_degenerate_results():
    assert has(draw_objects(grey(), []), (GREY,) * 3) == 320 * 240
    empty_mask = {**result(10, 10, 60, 60), "mask": np.zeros((240, 320), bool)}
    line = result(40, 120, 40, 120, mask=False)
    outside = result(0, 0, 10, 10) | {"box": {"xmin": -50, "ymin": 300, "xmax": 900, "ymax": 200}}
    assert changed(draw_objects(grey(), [empty_mask, line, outside])).any()
    whole = {**result(0, 0, 319, 239), "mask": np.ones((240, 320), bool)}
    assert changed(draw_objects(grey(), [whole])).all()


def test_pictures_of_every_kind():
    found = [result(100, 80, 220, 180)]
    grey_array = np.full((240, 320), GREY, np.uint8)
    expected = np.asarray(draw_objects(grey(), found))
    rgba = np.dstack([grey_array] * 3 + [np.full_like(grey_array, 255)])
    for image in (
        Image.fromarray(grey_array),
        grey_array,
        np.dstack([grey_array] * 3),
        rgba,
        Image.fromarray(rgba),
        grey().quantize(),
    ):
        assert np.array_equal(np.asarray(draw_objects(image, found)), expected)
    deep = Image.fromarray((np.arange(320 * 240) % 65536).reshape(240, 320).astype(np.uint16))
    shown = np.asarray(draw_objects(deep, []))
    assert shown.min() == 0 and shown.max() == 255  # as the network sees it: 65535 is white
    turned = Image.new("RGB", (240, 320))
    turned.getexif()[0x0112] = 6
    assert draw_objects(turned, found).size == (320, 240)


def test_prompts_are_drawn():
    assert has(draw_objects(grey(), [], points=[[(50, 60), (90, 60)], [(200, 100)]]), PAPER) >= 3 * 30
    picture = np.asarray(draw_objects(grey(), [], points=[[(50, 60)]]))
    assert tuple(picture[60, 50]) == PAPER and changed(Image.fromarray(picture)).sum() < 300
    boxed = draw_objects(grey(), [], boxes=[(40, 50, 200, 150)])
    rows, columns = np.nonzero(changed(boxed))
    assert abs(rows.min() - 50) <= 3 and abs(columns.max() - 200) <= 3 and has(boxed, PAPER) and has(boxed, INK)
    path = draw_objects(grey(), [], scribbles=[[(20, 20), (120, 20), (120, 100)]])
    assert tuple(np.asarray(path)[20, 70]) == PAPER and tuple(np.asarray(path)[60, 120]) == PAPER
    mask = np.zeros((240, 320), bool)
    mask[100:110, 30:90] = True
    assert has(draw_objects(grey(), [], scribbles=[mask]), PAPER) == 600
    far = draw_objects(grey(), [], points=[[(-500, 900)]], scribbles=[[(-50, -50), (-20, -20)]])
    assert not changed(far).any()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"results": [result(1, 1, 9, 9, size=(32, 24))]}, "results"),
        ({"image": np.zeros((5, 6, 7), np.uint8)}, "image"),
        ({"image": np.full((4, 4, 3), np.nan)}, "image"),
        ({"opacity": 1.5}, "opacity"),
        ({"text_size": 0}, "text_size"),
    ],
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        draw_objects(**{"image": grey(), "results": [], **arguments})


def test_tracks_keep_their_colour_and_show_their_id():
    first, second = ({**result(x, 80, x + 60, 140), "track_id": number} for x, number in ((40, 3), (200, 5)))
    together, alone = draw_objects(grey(), [first, second]), draw_objects(grey(), [second])
    for picture in (together, alone):
        assert np.abs(np.asarray(picture)[110, 200].astype(int) - PALETTE[5]).max() <= 30  # the line at the left
    assert np.abs(np.asarray(together)[110, 40].astype(int) - PALETTE[3]).max() <= 30
    plain = draw_objects(grey(), [{**second, "track_id": None}])
    assert (np.asarray(plain) != np.asarray(alone)).any()
