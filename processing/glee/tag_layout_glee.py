"""The tags of a picture with objects: how their text is broken into lines, and where they hide least."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import ImageFont

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom in pixels

MIN_READABLE = 7  # pixels of letters; a tag that would need smaller ones is left out
CROWDED = 0.1  # share of the picture that tags may hide before their letters shrink
MAX_LINES = 3  # of one tag; a longer expression ends in an ellipsis


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
    """Tags of one picture, with smaller letters (three quarters at least) where many tags would hide too much of it."""
    tags = [lay_out_tag(text, size, picture) for text in texts]
    share = sum(tag.width * tag.height for tag in tags if tag is not None) / (picture[0] * picture[1])
    smaller = round(size * max(0.75, math.sqrt(CROWDED / share))) if share > CROWDED else size
    return tags if smaller >= size else [lay_out_tag(text, smaller, picture) for text in texts]


def lay_out_tag(text: str, size: int, picture: tuple[int, int]) -> Tag | None:
    """
    Breaks a text into lines that fit, with smaller letters where they must be.

    Args:
        text: words; those behind the third line become an ellipsis.
        size: height of letters that is wished, pixels.
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


def _wrap(text: str, font: ImageFont.FreeTypeFont, room: float) -> tuple[str, ...]:
    """Words in lines no wider than `room` (a single longer word is wider), at most `MAX_LINES`."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) <= MAX_LINES:
        return tuple(lines)
    return *lines[: MAX_LINES - 1], _cut(lines[MAX_LINES - 1] + " " + lines[MAX_LINES], font, room)


def _cut(line: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The line, or as much of its beginning as fits before an ellipsis; empty where that is next to nothing."""
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
    Where a tag goes: above its box, else inside, below or beside it, wherever it hides least.

    Args:
        tag: no larger than the picture.
        box: of the object.
        picture: width and height.
        taken: rectangles of the tags that are there; to cover one costs most.
        shown: boxes of all objects; to cover a small one whole is worse than a part of a large one.

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
