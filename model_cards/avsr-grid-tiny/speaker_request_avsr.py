"""Who is to be read: what the argument `speaker` of the pipeline may be, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

EVERYONE = "everyone"
FORMS = '"text", "everyone", {"point": (x, y)}, {"box": (x0, y0, x1, y1)} or {"track": one box a frame}'
PLACES = {"point": (2, "(x, y)"), "box": (4, "(x0, y0, x1, y1)")}

Speaker = str | Mapping[str, Any]


def check_speaker(speaker: Any) -> Speaker:
    """
    The argument `speaker`, if it says who is to be read.

    Args:
        speaker: a text about one person, `"everyone"`, `{"point": (x, y)}` or `{"box": (x0, y0, x1, y1)}` in pixels of the
            first picture, or `{"track": boxes}`, for each picture `(x0, y0, x1, y1)` or None where the person isn't
            seen, with `"fps"` where these are not 25 a second.

    Returns:
        The same; numbers of points and boxes as tuples of float.

    Raises:
        ValueError: it is nothing of these.
    """
    if isinstance(speaker, str) and speaker.strip():
        return speaker.strip()
    if not isinstance(speaker, Mapping) or not speaker:
        raise ValueError(f"`speaker` must be {FORMS}, not {speaker!r}.")
    kind, *more = [key for key in speaker if key != "fps"] or [None]
    if kind not in ("point", "box", "track") or more or ("fps" in speaker and kind != "track"):
        raise ValueError(f"`speaker` must be {FORMS}, not a dictionary with {sorted(map(str, speaker))}.")
    if kind == "track":
        return _checked_track(speaker)
    count, form = PLACES[kind]
    numbers = _numbers(speaker[kind])
    if len(numbers) != count:
        raise ValueError(f'`speaker`: "{kind}" must be {form} in pixels of the first picture, not {speaker[kind]!r}.')
    if kind == "box" and not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        raise ValueError(
            f'`speaker`: "box" {numbers} is empty: (x0, y0) is its top left corner, (x1, y1) the other one.'
        )
    return {kind: numbers}


def _checked_track(speaker: Mapping[str, Any]) -> Mapping[str, Any]:
    track, fps = speaker["track"], speaker.get("fps")
    if isinstance(track, (str, Mapping)) or not isinstance(track, Iterable):
        raise ValueError(f'`speaker`: "track" must be one box a frame, not {type(track).__name__}.')
    number = isinstance(fps, (int, float)) and not isinstance(fps, bool)
    if fps is not None and not (number and 0 < fps < math.inf):
        raise ValueError(f'`speaker`: "fps" of a track must be a positive number, not {fps!r}.')
    return speaker


def _numbers(value: Any) -> tuple[float, ...]:
    """Finite numbers of a sequence or an array; nothing where it is none."""
    try:
        numbers = tuple(float(number) for number in value) if not isinstance(value, str) else ()
    except (TypeError, ValueError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def speaker_name(speaker: Speaker) -> str:
    """How messages call who was chosen."""
    if isinstance(speaker, str):
        return f'"{speaker}"'
    if "track" in speaker:
        return "the speaker of the track"
    kind = next(iter(speaker))
    return f"the speaker at the {kind} ({', '.join(f'{number:g}' for number in speaker[kind])})"


def asked_place(speaker: Speaker) -> tuple[float, ...] | None:
    """`(x0, y0, x1, y1)` of where the speaker is in the first picture, a point without an area; None where it isn't said."""
    if isinstance(speaker, str) or "track" in speaker:
        return None
    (numbers,) = speaker.values()
    return (*numbers, *numbers)[:4]


def plain_speaker(speaker: Speaker) -> str | dict[str, Sequence[float] | str]:
    """The request as a report holds it: plain text and numbers, of a track only that it was one."""
    if isinstance(speaker, str):
        return speaker
    return {kind: "given" if kind == "track" else list(value) for kind, value in speaker.items() if kind != "fps"}
