"""What an argument of the command line may be; argparse turns each refusal into one line."""

import argparse
import math
import re


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def track(text: str) -> int | str:
    """Reads the number of a track, from 0 on, or a language."""
    text = text.strip()
    if not text or text.startswith("-"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a track's number, from 0 on, nor a language")
    return int(text) if text.isdecimal() else text


def channel(text: str) -> int | str:
    if not text.isdecimal() and text not in ("left", "right", "mean"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a channel's number, from 0 on, nor left, right or mean")
    return int(text) if text.isdecimal() else text


def seconds(text: str) -> float:
    number = _number(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return number


def rate(text: str) -> float:
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def weight(text: str) -> float:
    number = _number(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, 0 or more")
    return number


def chunk_length(text: str) -> float:
    number = _number(text)
    if not 2 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 2 or more")
    return number


def share(text: str) -> float:
    number = _number(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return number


def share_or_auto(text: str) -> float | str:
    return text if text == "auto" else share(text)


def between(text: str) -> float:
    number = _number(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and below 1")
    return number


def shard(text: str) -> tuple[int, int]:
    """Reads `2/8`, the third of eight jobs."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip(), re.ASCII)
    if match is None or not int(match[1]) < int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, job I of N jobs, with I from 0 to N - 1")
    return int(match[1]), int(match[2])


def speaker(text: str) -> str | dict[str, tuple[float, ...]]:
    """Reads who is meant: two numbers are a point, four a box, and everything else is words."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if numbers and not (len(numbers) in (2, 4) and all(map(math.isfinite, numbers))):
        raise argparse.ArgumentTypeError(f"{text!r} is neither X,Y nor X0,Y0,X1,Y1, nor words about a person")
    if not text.strip():
        raise argparse.ArgumentTypeError("the text is empty")
    return {{2: "point", 4: "box"}[len(numbers)]: numbers} if numbers else text


def comma_list(text: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty entry")
    return items


def picture_size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH in pixels, such as 480x640")
    return int(height), int(width)


def box(text: str) -> tuple[float, ...]:
    return _numbers(text, 4)


def points(text: str) -> list[tuple[float, ...]]:
    return [_numbers(point, 2) for point in text.split(";")]


def line(text: str) -> list[tuple[float, ...]]:
    points = [_numbers(point, 2) for point in text.split()]
    if not points:
        raise argparse.ArgumentTypeError("it has no points")
    return points


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # in no range


def _numbers(text: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"{text!r} is not {count} numbers separated by commas")
    return numbers
