"""Draws results on their picture: translucent masks, outlines, boxes, readable tags, and the prompts.

Masks and boxes are painted by torchvision; tags are written in Pillow's own font, so that no font needs to be
installed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from .image_reading_glee import read_images

Colour = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom in pixels
Scribble = Sequence[tuple[float, float]] | np.ndarray  # a polyline, or (height, width) bool
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Okabe and Ito's colours, which can be told apart with any kind of colour blindness; then the same, darker and
# lighter.
BASE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (204, 121, 167),
    (213, 94, 0),
    (240, 228, 66),
    (0, 114, 178),
)
DARKER = tuple((round(0.62 * r), round(0.62 * g), round(0.62 * b)) for r, g, b in BASE)
LIGHTER = tuple((round(0.5 * r + 127), round(0.5 * g + 127), round(0.5 * b + 127)) for r, g, b in BASE)
PALETTE: tuple[Colour, ...] = BASE + DARKER + LIGHTER

INK, PAPER = (17, 17, 17), (255, 255, 255)
TEXT_SHARE = 0.024  # height of letters as a share of the square root of the picture's area
MIN_TEXT = 10  # pixels

MIN_READABLE = 7  # pixels of letters; a tag that would need smaller ones is left out
CROWDED = 0.1  # share of the picture that tags may hide before their letters shrink
MAX_LINES = 3  # of one tag; a longer expression ends in an ellipsis
MOST_TAGS = 0.4  # share of the picture that tags may hide; the objects of lowest score have no tag then

SMOOTHING = 4  # tags and prompts are drawn this much larger and reduced, so that their curves are smooth


def draw_objects(
    image: Image.Image | np.ndarray,
    results: Sequence[Mapping[str, Any]],
    *,
    points: Sequence[Sequence[tuple[float, float]]] | None = None,
    boxes: Sequence[Rectangle] | None = None,
    scribbles: Sequence[Scribble] | None = None,
    opacity: float = 0.42,
    scores: bool = True,
    text_size: int | None = None,
) -> Image.Image:
    """
    Draws objects on a copy of their picture.

    Each label has its colour; where all objects have the same label, each object has its own. Objects of a video have
    the colour of their track, the same in all frames, and its id in their tags. Lines and letters grow with the
    picture. Tags are inside the picture, and do not overlap where there is room; a picture that is too small for
    letters has none. Prompts are white with a dark rim.

    Args:
        image: PIL image, array or tensor; see `read_images`.
        results: those of `object-perception` for this picture: `"label"`, `"box"` (`{"xmin", "ymin", "xmax", "ymax"}`
            in pixels), and optionally `"score"` (0 to 1), `"mask"` (`(height, width)` bool) and `"track_id"`.
        points: for each prompt its points `(x, y)` in pixels.
        boxes: for each prompt `(x0, y0, x1, y1)` in pixels.
        scribbles: for each prompt a polyline `[(x, y), …]` or `(height, width)` bool.
        opacity: of masks, 0 (invisible) to 1 (opaque).
        scores: whether the score is written after the label.
        text_size: height of letters in pixels; None for one that fits the size of the picture.

    Returns:
        RGB picture of the same size.

    Raises:
        ValueError: `image` cannot be read, a mask has another size than it, or an argument is out of its range.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"`opacity` must be a number from 0 to 1, not {opacity!r}.")
    if text_size is not None and text_size < 1:
        raise ValueError(f"`text_size` must be a positive number of pixels, not {text_size!r}.")
    picture = read_images(image)[0]
    size = text_size or max(MIN_TEXT, round(TEXT_SHARE * math.sqrt(picture.width * picture.height)))
    line = max(1, round(size / 8))
    objects = _objects(results, picture)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # (3, height, width) uint8
    pixels = _paint_masks(pixels, objects, opacity, line)
    pixels = _paint_boxes(pixels, objects, line)
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    _draw_prompts(picture, points or (), boxes or (), scribbles or (), size)
    texts = [found.text(scores) for found in objects]
    _draw_tags(picture, objects, lay_out_tags(texts, size, picture.size))
    return picture


def colours_of(labels: Sequence[str]) -> list[Colour]:
    """Chooses a colour for each label, in order of appearance; equal labels share one, unless all are equal."""
    keys = list(range(len(labels))) if len(set(labels)) == 1 else list(labels)
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return [PALETTE[places[key] % len(PALETTE)] for key in keys]


def contrasting(colour: Colour) -> Colour:
    """Returns black or white, whichever has the higher contrast with the colour (relative luminance, WCAG 2)."""
    shares = [value / 255 for value in colour]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INK if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else PAPER


# ------------------------------------------------------------------------------------------------------------ objects


@dataclass(frozen=True)
class _Object:
    """One result, as it is drawn."""

    label: str
    score: float | None
    box: Rectangle
    mask: torch.Tensor | None  # (height, width) bool
    colour: Colour
    track: int | None

    def text(self, scores: bool) -> str:
        label = " ".join(self.label.split())
        label = label if self.track is None else f"{self.track} {label}"
        return f"{label} {self.score:.2f}".strip() if scores and self.score is not None else label


def _objects(results: Sequence[Mapping[str, Any]], picture: Image.Image) -> list[_Object]:
    colours = colours_of([str(result["label"]) for result in results])
    objects = []
    for index, (result, colour) in enumerate(zip(results, colours)):
        mask = result.get("mask")
        if mask is not None:
            mask = torch.from_numpy(np.require(mask, bool, "W"))
            if tuple(mask.shape) != (picture.height, picture.width):
                raise ValueError(
                    f"The mask of `results[{index}]` is {tuple(mask.shape)}, the picture is "
                    f"{(picture.height, picture.width)} (height, width): pass the picture that the results are of."
                )
        box = _inside((result["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")), picture)
        track = result.get("track_id")
        colour = colour if track is None else PALETTE[track % len(PALETTE)]
        objects.append(_Object(str(result["label"]), result.get("score"), box, mask, colour, track))
    return objects


def _inside(box: Iterable[float], picture: Image.Image) -> Rectangle:
    """Clips a box (x0, y0, x1, y1) to the picture; NaN becomes 0."""
    left, top, right, bottom = map(float, box)
    x0, x1 = sorted(min(max(0.0, x), picture.width - 1.0) for x in (left, right))
    y0, y1 = sorted(min(max(0.0, y), picture.height - 1.0) for y in (top, bottom))
    return x0, y0, x1, y1


# ---------------------------------------------------------------------------------------------------- masks and boxes


def _paint_masks(pixels: torch.Tensor, objects: Sequence[_Object], opacity: float, line: int) -> torch.Tensor:
    """Fills masks, small ones over large ones, and draws a line along the inside of each border."""
    masked = [(found.mask, found.colour) for found in objects if found.mask is not None and found.mask.any()]
    masked.sort(key=lambda pair: -int(pair[0].sum()))
    colours = list(dict.fromkeys(colour for _, colour in masked))
    owner = torch.full(pixels.shape[1:], -1, dtype=torch.int16)  # (height, width): whose colour a pixel gets
    for mask, colour in masked:
        owner[mask] = colours.index(colour)
    if colours:
        fills = owner == torch.arange(len(colours))[:, None, None]  # (colours, height, width), disjoint
        pixels = draw_segmentation_masks(pixels, fills, alpha=opacity, colors=colours)
    for mask, colour in masked:
        (y0, y1), (x0, x1) = (_span(mask.any(dim=axis)) for axis in (1, 0))
        crop = pixels[:, y0:y1, x0:x1]
        border = inner_border(mask, line, (y0, y1, x0, x1))
        pixels[:, y0:y1, x0:x1] = draw_segmentation_masks(crop, border, alpha=0.9, colors=colour)
    return pixels


def inner_border(mask: torch.Tensor, width: int, part: tuple[int, int, int, int]) -> torch.Tensor:
    """
    Finds the pixels of a mask that are nearer than `width` to a pixel outside it; the picture's border is not outside.

    Args:
        mask: `(height, width)` bool.
        width: pixels, at least 1.
        part: first and last row, first and last column (the last ones excluded) around the mask.

    Returns:
        bool of the part's size.
    """
    y0, y1, x0, x1 = part
    top, left = max(0, y0 - width), max(0, x0 - width)
    outside = (~mask[top : y1 + width, left : x1 + width]).float()[None]
    near = torch.nn.functional.max_pool2d(outside, 2 * width + 1, stride=1, padding=width)[0] > 0
    return mask[y0:y1, x0:x1] & near[y0 - top : y1 - top, x0 - left : x1 - left]


def _span(present: torch.Tensor) -> tuple[int, int]:
    """Finds the first True, and the place after the last one."""
    places = present.nonzero()
    return int(places[0]), int(places[-1]) + 1


def _paint_boxes(pixels: torch.Tensor, objects: Sequence[_Object], line: int) -> torch.Tensor:
    """Draws boxes, those of the highest scores on top."""
    if not objects:
        return pixels
    ordered = sorted(objects, key=lambda found: found.score or 0.0)
    boxes = torch.tensor([found.box for found in ordered]).round()
    return draw_bounding_boxes(pixels, boxes, colors=[found.colour for found in ordered], width=max(1, line * 2 // 3))


# ---------------------------------------------------------------------------------------------------------------- tags


@dataclass(frozen=True)
class Tag:
    """Lines of text on a filled rectangle; everything in pixels."""

    lines: tuple[str, ...]
    size: int  # of the letters
    width: int
    height: int

    @property
    def pad(self) -> int:
        return max(1, round(0.28 * self.size))


def lay_out_tags(texts: Sequence[str], size: int, picture: tuple[int, int]) -> list[Tag | None]:
    """Lays out the tags of a picture, with smaller letters (at least three quarters) where many tags would hide too
    much."""
    tags = [lay_out_tag(text, size, picture) for text in texts]
    share = sum(tag.width * tag.height for tag in tags if tag is not None) / (picture[0] * picture[1])
    smaller = round(size * max(0.75, math.sqrt(CROWDED / share))) if share > CROWDED else size
    return tags if smaller >= size else [lay_out_tag(text, smaller, picture) for text in texts]


def lay_out_tag(text: str, size: int, picture: tuple[int, int]) -> Tag | None:
    """
    Breaks a text into lines that fit, with smaller letters where necessary.

    Args:
        text: words; those after the third line are replaced by an ellipsis.
        size: preferred height of letters in pixels.
        picture: width and height that the tag must not exceed.

    Returns:
        The tag, or None where it would be unreadable or there is no text.
    """
    size = max(size, MIN_READABLE)
    while text:
        font, pad = ImageFont.load_default(size), max(1, round(0.28 * size))
        room = min(picture[0], 26 * size) - 2 * pad
        lines = _wrap(text, font, room)
        if size == MIN_READABLE:
            lines = tuple(_cut(line, font, room) for line in lines)
        width = math.ceil(max(font.getlength(line) for line in lines)) + 2 * pad
        height = round(1.18 * size) * len(lines) + pad
        if width <= picture[0] and height <= picture[1]:
            return Tag(lines, size, width, height) if all(lines) else None
        if size == MIN_READABLE:
            return None
        size = max(MIN_READABLE, min(size - 1, round(0.9 * size)))
    return None


def _wrap(text: str, font: Font, room: float) -> tuple[str, ...]:
    """Breaks a text into at most `MAX_LINES` lines no wider than `room` pixels, unless a single word is."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) <= MAX_LINES:
        return tuple(lines)
    return *lines[: MAX_LINES - 1], _cut(lines[MAX_LINES - 1] + " " + lines[MAX_LINES], font, room)


def _cut(line: str, font: Font, room: float) -> str:
    """Shortens a line to what fits before an ellipsis; empty if fewer than two letters do."""
    if font.getlength(line) <= room:
        return line
    while len(line) > 2 and font.getlength(line + "…") > room:
        line = line[:-1].rstrip()
    return line + "…" if font.getlength(line + "…") <= room else ""


def place_tag(
    tag: Tag,
    box: Rectangle,
    picture: tuple[int, int],
    taken: Sequence[Rectangle] = (),
    shown: Sequence[Rectangle] = (),
) -> Rectangle:
    """
    Chooses the place of a tag: above its box, else inside, below or beside it, where it hides least.

    Args:
        tag: no larger than the picture.
        box: of the object.
        picture: width and height.
        taken: rectangles of the tags that are placed; covering one of them costs most.
        shown: boxes of all objects; covering all of a small one is worse than a part of a large one.

    Returns:
        Whole pixels, inside the picture.
    """
    x0, y0, x1, y1 = box
    right, middle = x1 + 1 - tag.width, (x0 + x1 + 1 - tag.width) / 2
    above, below, inside_below = y0 - tag.height, y1 + 1, y1 + 1 - tag.height
    rows = [above, y0, below, inside_below, above - tag.height, below + tag.height]
    rows += [y0 + step * tag.height for step in range(1, min(12, int((y1 - y0) / tag.height)))]
    best, least = (0, 0, tag.width, tag.height), math.inf
    for number, (y, x) in enumerate((y, x) for y in rows for x in (x0, right, middle, x0 - tag.width, x1 + 1)):
        left = round(min(max(0, x), picture[0] - tag.width))
        top = round(min(max(0, y), picture[1] - tag.height))
        place = (left, top, left + tag.width, top + tag.height)
        hidden = sum(_shared_area(place, other) for other in taken) / (tag.width * tag.height)
        cost = 0.02 * number + (hidden > 0) + 4 * hidden
        if cost < least:
            cost += sum(_shared_area(place, other) / _area(other) for other in shown)
        if cost < least:
            best, least = place, cost
    return best


def _area(box: Rectangle) -> float:
    return max(1.0, (box[2] - box[0]) * (box[3] - box[1]))


def _shared_area(a: Rectangle, b: Rectangle) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def _draw_tags(picture: Image.Image, objects: Sequence[_Object], tags: Sequence[Tag | None]) -> None:
    """Draws the tags of all objects; those of the highest scores are placed first and are on top."""
    placed: list[tuple[_Object, Tag, Rectangle]] = []
    shown, hidden = [found.box for found in objects], 0
    for found, tag in sorted(zip(objects, tags), key=lambda pair: -(pair[0].score or 0.0)):
        if tag is None or placed and hidden + tag.width * tag.height > MOST_TAGS * picture.width * picture.height:
            continue
        place = place_tag(tag, found.box, picture.size, [other for _, _, other in placed], shown)
        placed.append((found, tag, place))
        hidden += tag.width * tag.height
    for found, tag, place in reversed(placed):
        _draw_tag(picture, tag, place, found.colour)


def _draw_tag(picture: Image.Image, tag: Tag, place: Rectangle, colour: Colour) -> None:
    left, top, right, bottom = (int(value) for value in place)
    shape = Image.new("L", (SMOOTHING * tag.width, SMOOTHING * tag.height))
    radius = SMOOTHING * max(1, round(0.22 * tag.size))
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, shape.width - 1, shape.height - 1), radius, fill=255)
    picture.paste(colour, (left, top, right, bottom), shape.resize((tag.width, tag.height), Image.Resampling.BOX))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(tag.size)
    leading = (tag.height - tag.pad) / len(tag.lines)
    for number, line in enumerate(tag.lines):
        middle = top + tag.pad / 2 + (number + 0.5) * leading
        pen.text((left + tag.pad, middle), line, contrasting(colour), font, anchor="lm")


# ------------------------------------------------------------------------------------------------------------- prompts


def _draw_prompts(
    picture: Image.Image,
    points: Sequence[Sequence[tuple[float, float]]],
    boxes: Sequence[Iterable[float]],
    scribbles: Sequence[Scribble],
    size: int,
) -> None:
    """Draws the prompts, white with a dark rim."""
    if not (len(points) or len(boxes) or len(scribbles)):
        return
    rim, core = Image.new("L", picture.size), Image.new("L", picture.size)
    for scribble in scribbles:
        _draw_scribble(rim, core, scribble, size)
    for box in boxes:
        _draw_dashed(rim, core, _inside(box, picture), size)
    for point in (point for several in points for point in several):
        _draw_point(rim, core, point, size)
    picture.paste(INK, (0, 0), rim)
    picture.paste(PAPER, (0, 0), core)


def _draw_scribble(rim: Image.Image, core: Image.Image, scribble: Scribble, size: int) -> None:
    """Draws a polyline with round joints, or the pixels of a mask."""
    wide, narrow = max(3, round(0.5 * size)), max(1, round(0.3 * size))
    if isinstance(scribble, np.ndarray) and scribble.dtype == bool:
        core.paste(255, (0, 0), Image.fromarray(scribble.astype(np.uint8) * 255))
        return
    path = [(float(x), float(y)) for x, y in scribble]
    for layer, width in ((rim, wide), (core, narrow)):
        pen = ImageDraw.Draw(layer)
        pen.line(path, fill=255, width=width, joint="curve")
        for x, y in path:
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)


def _draw_dashed(rim: Image.Image, core: Image.Image, box: Rectangle, size: int) -> None:
    """Draws a dashed rectangle."""
    x0, y0, x1, y1 = box
    wide, narrow, dash = max(2, round(0.3 * size)), max(1, round(0.15 * size)), max(3, round(0.6 * size))
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    for (ax, ay), (bx, by) in zip(corners, corners[1:]):
        ImageDraw.Draw(rim).line((ax, ay, bx, by), fill=255, width=wide)
        length = math.hypot(bx - ax, by - ay)
        for start in range(0, math.ceil(length), 2 * dash):
            a, b = start / length, min(length, start + dash) / length
            dashed = (ax + a * (bx - ax), ay + a * (by - ay), ax + b * (bx - ax), ay + b * (by - ay))
            ImageDraw.Draw(core).line(dashed, fill=255, width=narrow)


def _draw_point(rim: Image.Image, core: Image.Image, point: tuple[float, float], size: int) -> None:
    """Draws a disc in a ring, larger at first and then reduced."""
    radius = max(3, round(0.5 * size))
    left, top = round(float(point[0])) - radius, round(float(point[1])) - radius
    side = SMOOTHING * (2 * radius + 1)
    for layer, share in ((rim, 1.0), (core, 0.68)):
        disc = Image.new("L", (side, side))
        edge = (1 - share) * side / 2
        ImageDraw.Draw(disc).ellipse((edge, edge, side - 1 - edge, side - 1 - edge), fill=255)
        disc = disc.resize((2 * radius + 1,) * 2, Image.Resampling.BOX)
        layer.paste(255, (left, top), disc)
