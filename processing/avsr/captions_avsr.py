"""Transcripts as files: txt, srt, vtt, tsv and json through one call."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_CHARACTERS = 42  # a caption line that reads well on a phone and on television
MAX_LINES = 2
MAX_SECONDS = 6.0  # a cue stays on screen no longer
MIN_SECONDS = 1.0  # and no shorter, where the next one leaves room
PAUSE_SECONDS = 0.8  # a silence of this length ends a cue


@dataclass(frozen=True)
class Word:
    """A word, its times in seconds, and its speaker, if known."""

    text: str
    start: float
    end: float
    speaker: str = ""


@dataclass(frozen=True)
class Cue:
    """What is on screen from `start` to `end` (seconds): one or more lines, and their speaker, if known."""

    lines: tuple[str, ...]
    start: float
    end: float
    speaker: str = ""


def write_captions(result: dict, path: str | os.PathLike, format: str | None = None, times: bool = False) -> Path:
    """
    Writes one result of the pipeline to a file; an existing file is replaced only when the new one is complete.

    Args:
        result: `{"text", "chunks", …}` as the pipeline returns it. srt, vtt and tsv need `return_timestamps`. With
            `speaker="everyone"`, the whole result or one of its `"speakers"`.
        path: the file to write.
        format: `"txt"`, `"srt"`, `"vtt"`, `"tsv"` or `"json"`; taken from the suffix of `path` by default.
        times: whether txt has a line for each chunk, with its times; the other formats have them anyway.

    Returns:
        The path.

    Raises:
        ValueError: unknown format, or times are needed and `result` has none.
    """
    path = Path(path)
    text = format_captions(result, format or path.suffix.lstrip("."), times)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def format_captions(result: dict, format: str, times: bool = False) -> str:
    """
    Returns the text of the file that [`write_captions`] writes.

    Args:
        result: see [`write_captions`].
        format: see [`write_captions`].
        times: see [`write_captions`].

    Raises:
        ValueError: see [`write_captions`].
    """
    writer = to_timed_txt if times and format.lower() == "txt" else WRITERS.get(format.lower())
    if writer is None:
        raise ValueError(f"`format` must be one of {', '.join(WRITERS)}, not {format!r}.")
    return writer(result)


def to_txt(result: dict) -> str:
    """Returns the text on one line; with several speakers, one line each, which begins with the name."""
    if "speakers" not in result:
        return _one_line(result["text"]) + "\n"
    return "".join(f"{one['speaker']}: {_one_line(one['text'])}\n" for one in result["speakers"] if one["text"])


def to_timed_txt(result: dict) -> str:
    """Returns a line for each chunk, a word or a character, with its times; of several speakers with their names."""
    rows: list[tuple[float, str]] = []
    for one in _voices(result):
        name = f"{one['speaker']}: " if "speakers" in result else ""
        for chunk in _timed_chunks(one):
            if not str(chunk["text"]).isspace():
                start, end = chunk["timestamp"]
                rows.append((start, f"[{_clock(start, '.')} --> {_clock(end, '.')}] {name}{_one_line(chunk['text'])}"))
    return "".join(line + "\n" for _, line in sorted(rows, key=lambda row: row[0]))


def to_srt(result: dict) -> str:
    """Returns SubRip: numbered cues, a comma before the milliseconds; with several speakers, names before the text."""
    several = "speakers" in result
    blocks = []
    for number, cue in enumerate(make_cues(words_of(result)), 1):
        lines = [f"{cue.speaker}: {cue.lines[0]}", *cue.lines[1:]] if several else cue.lines
        times = f"{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}"
        blocks.append(f"{number}\n{times}\n" + "\n".join(map(_escape_srt, lines)))
    return "".join(block + "\n\n" for block in blocks)


def to_vtt(result: dict) -> str:
    """Returns WebVTT (W3C): a header, a full stop before the milliseconds, `&<>` escaped, `<v NAME>` where known."""
    blocks = []
    for cue in make_cues(words_of(result)):
        voice = f"<v {_escape_vtt(cue.speaker)}>" if cue.speaker else ""
        times = f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}"
        blocks.append(f"{times}\n{voice}" + "\n".join(map(_escape_vtt, cue.lines)))
    return "WEBVTT\n\n" + "".join(block + "\n\n" for block in blocks)


def to_tsv(result: dict) -> str:
    """Returns one word per line: start and end in milliseconds, word, confidence, and the speaker of several."""
    several = "speakers" in result
    rows: list[tuple[int, list[str]]] = []  # each with its start, by which those of several speakers are sorted
    for one in _voices(result):
        for chunk in _word_chunks(one):
            start, end = map(_milliseconds, chunk["timestamp"])
            row = [str(start), str(end), _one_line(chunk["text"]), f"{chunk.get('confidence', float('nan')):.4f}"]
            rows.append((start, [*row, str(one["speaker"])] if several else row))
    header = ["start", "end", "text", "confidence", *(["speaker"] if several else [])]
    lines = [line for _, line in (sorted(rows, key=lambda row: row[0]) if several else rows)]
    return "".join("\t".join(line) + "\n" for line in [header, *lines])


def to_json(result: dict) -> str:
    """Returns the whole result as JSON; numbers of numpy and torch as plain ones, NaN and infinity as null."""
    return json.dumps(_plain(result), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


WRITERS: dict[str, Callable[[dict], str]] = {
    "txt": to_txt,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
    "json": to_json,
}


def words_of(result: dict) -> list[Word]:
    """
    Returns the words of a result with their times; characters (`return_timestamps="char"`) are joined.

    Cues are grouped by speaker.
    """
    words = []
    for one in _voices(result):
        for chunk in _word_chunks(one):
            start, end = map(float, chunk["timestamp"])
            words.append(Word(_one_line(chunk["text"]), start, end, one.get("speaker", "")))
    return words


def _voices(result: dict) -> list[dict]:
    """Returns the result of each speaker; that of the clip where they are not told apart."""
    return result.get("speakers") or [result]


def make_cues(
    words: list[Word],
    max_characters: int = MAX_CHARACTERS,
    max_lines: int = MAX_LINES,
    max_seconds: float = MAX_SECONDS,
    min_seconds: float = MIN_SECONDS,
    pause_seconds: float = PAUSE_SECONDS,
) -> list[Cue]:
    """
    Joins words to cues: a cue ends where it is full (`max_lines` of `max_characters`), at `max_seconds`, or at a
    pause.

    Cues are sorted by time and those of one speaker do not overlap; a short one stays for `min_seconds` if the next
    one leaves time for it.
    """
    speakers = list(dict.fromkeys(word.speaker for word in words))
    limits = max_characters, max_lines, max_seconds, min_seconds, pause_seconds
    cues = [cue for name in speakers for cue in _cues_of_one([w for w in words if w.speaker == name], *limits)]
    return sorted(cues, key=lambda cue: cue.start)


def _cues_of_one(
    words: list[Word],
    max_characters: int,
    max_lines: int,
    max_seconds: float,
    min_seconds: float,
    pause_seconds: float,
) -> list[Cue]:
    groups: list[list[Word]] = []
    for word in sorted(words, key=lambda word: word.start):
        group = groups[-1] if groups else None
        if (
            group
            and word.start - group[-1].end < pause_seconds
            and word.end - group[0].start <= max_seconds
            and len(break_lines([*(w.text for w in group), word.text], max_characters)) <= max_lines
        ):
            group.append(word)
        else:
            groups.append([word])
    starts = [group[0].start for group in groups] + [math.inf]
    return [
        Cue(
            lines=tuple(break_lines([word.text for word in group], max_characters)),
            start=group[0].start,
            end=min(max(group[-1].end, group[0].start + min_seconds), following),
            speaker=group[0].speaker,
        )
        for group, following in zip(groups, starts[1:])
    ]


def break_lines(words: list[str], max_characters: int = MAX_CHARACTERS) -> list[str]:
    """Breaks words into as few, and as even, lines of `max_characters` as possible (a longer word stays whole)."""

    def fill(width: int) -> list[str]:
        lines: list[str] = []
        for word in words:
            if lines and len(lines[-1]) + 1 + len(word) <= width:
                lines[-1] += " " + word
            else:
                lines.append(word)
        return lines

    needed = len(fill(max_characters))
    return next(lines for width in range(1, max_characters + 1) if len(lines := fill(width)) == needed)


def _word_chunks(result: dict) -> list[dict]:
    """Returns the chunks of a result as words with finite times."""
    chunks = _timed_chunks(result)
    return _join_characters(chunks) if _are_characters(chunks, str(result.get("text", ""))) else chunks


def _timed_chunks(result: dict) -> list[dict]:
    """Returns the chunks of a result; a ValueError says where they are missing."""
    chunks = result.get("chunks") or []
    if not chunks and str(result.get("text", "")).strip():
        raise ValueError('This format needs times: call the pipeline with return_timestamps="word".')
    return chunks


def _are_characters(chunks: list[dict], text: str) -> bool:
    """Whether chunks are characters: spaces are among them, or they make up the only word of the text."""
    parts = [str(chunk["text"]) for chunk in chunks]
    if any(part.isspace() for part in parts):
        return True
    return len(parts) > 1 and ("".join(parts) == text.strip() or (not text and all(len(part) == 1 for part in parts)))


def _join_characters(chunks: list[dict]) -> list[dict]:
    """Joins character chunks to word chunks; confidences are averaged as logarithms."""
    words: list[list[dict]] = [[]]
    for chunk in chunks:
        if str(chunk["text"]).isspace():
            words.append([])
        else:
            words[-1].append(chunk)
    return [
        {
            "text": "".join(c["text"] for c in word),
            "timestamp": (word[0]["timestamp"][0], word[-1]["timestamp"][1]),
            "confidence": math.exp(sum(math.log(max(c.get("confidence", 0.0), 1e-30)) for c in word) / len(word)),
        }
        for word in words
        if word
    ]


def _milliseconds(seconds: float) -> int:
    return max(0, round(1000 * float(seconds)))


def _clock(seconds: float, mark: str) -> str:
    """Returns `hh:mm:ss,mmm`, with `mark` before the milliseconds."""
    minutes, milliseconds = divmod(_milliseconds(seconds), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


def _escape_srt(line: str) -> str:
    """Replaces the arrow, and the brackets that players read as tags, by similar characters: SubRip has no escapes."""
    return line.replace("-->", "\u2192").replace("<", "\u2039").replace(">", "\u203a")


def _escape_vtt(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _plain(value: Any) -> Any:
    """Converts numbers and arrays of other libraries to types of JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
