"""A picture to tap and draw on, and what was drawn as prompts: points, boxes and scribbles in its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from PIL import Image

from media import as_data_url

KINDS = ("point", "box", "scribble")
MOST_SHAPES = 8
LONG_SIDE = 1280  # pixels of the picture that is sent to the page
HERE = Path(__file__).parent

TEMPLATE = """
<div class="pad" data-tools="{tools}" data-most="{most}">
  <p class="pad-label">{label}</p>
  <div class="pad-empty">{empty}</div>
  <div class="pad-stage" hidden>
    <img class="pad-picture" alt="The picture to point at" draggable="false">
    <svg class="pad-drawing" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="Tap or draw here"></svg>
  </div>
  <div class="pad-tools" hidden><span class="pad-hint" aria-live="polite"></span></div>
</div>
"""


def drawing_pad(
    elem_id: str,
    label: str,
    empty: str,
    tools: Sequence[str] = KINDS,
    most: int = MOST_SHAPES,
    visible: bool | Literal["hidden"] = True,
) -> gr.HTML:
    """
    Makes the component. Its value is a list of shapes, see `drawing_pad.js`; `show_picture` gives it a picture.

    Args:
        elem_id: its name in the page.
        label: what it is for.
        empty: what it says without a picture.
        tools: of `KINDS`, which may be drawn.
        most: how many shapes; the oldest one goes.
        visible: as for any Gradio component.
    """
    return gr.HTML(
        value=[],
        # An update replaces all properties together, so what never changes is no property but part of the template.
        label=label,  # for programs: the page has the template's
        html_template=TEMPLATE.format(tools=" ".join(tools), most=most, label=label, empty=empty),
        css_template=(HERE / "drawing_pad.css").read_text(encoding="utf-8"),
        js_on_load=(HERE / "drawing_pad.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        container=True,
        elem_id=elem_id,
        visible=visible,
        picture=None,
    )


def show_picture(picture: Image.Image | None) -> dict[str, Any]:
    """Returns the update that puts a picture on a pad, without shapes; None takes it away."""
    return gr.update(value=[], picture=None if picture is None else as_source(picture))


def as_source(picture: Image.Image) -> dict[str, Any]:
    """
    Returns `{"src", "width", "height"}`: a JPEG as a data URL, no larger than the page needs, and the original size.
    """
    small = picture.convert("RGB")
    small.thumbnail((LONG_SIDE, LONG_SIDE))
    return {"src": as_data_url(small), "width": picture.width, "height": picture.height}


def as_prompts(shapes: Any) -> dict[str, list]:
    """
    Converts what was drawn to arguments of `object-perception`.

    Args:
        shapes: the pad's value, which comes from the browser and is not trusted.

    Returns:
        `points` (one object each), `boxes` and `scribbles`, as far as there are any.

    Raises:
        ValueError: it is no list of shapes.
    """
    if shapes in (None, ""):
        return {}
    if not isinstance(shapes, list) or len(shapes) > MOST_SHAPES:
        raise ValueError("The drawing cannot be read: clear it and draw again.")
    prompts: dict[str, list] = {}
    for shape in shapes:
        kind, points = _checked(shape)
        if kind == "point":
            prompts.setdefault("points", []).append(points[:1])
        elif kind == "box":
            (x0, y0), (x1, y1) = points[0], points[-1]
            prompts.setdefault("boxes", []).append((x0, y0, x1, y1))
        else:
            prompts.setdefault("scribbles", []).append(points)
    return prompts


def _checked(shape: Any) -> tuple[str, list[tuple[float, float]]]:
    """Returns kind and points of a shape."""
    kind = shape.get("kind") if isinstance(shape, dict) else None
    points = shape.get("points") if isinstance(shape, dict) else None
    if kind not in KINDS or not isinstance(points, list) or not 1 <= len(points) <= 1000:
        raise ValueError("The drawing cannot be read: clear it and draw again.")
    try:
        numbers = [(float(x), float(y)) for x, y in points]
    except (TypeError, ValueError):
        numbers = [(math.nan, math.nan)]
    if not all(math.isfinite(value) for point in numbers for value in point):
        raise ValueError("The drawing cannot be read: clear it and draw again.")
    return kind, numbers
