"""Transcripts as files: txt, srt, vtt, tsv and json through one call."""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

MAX_CHARACTERS = 42  # a caption line that reads well on a phone and on television
MAX_LINES = 2
MAX_SECONDS = 6.0  # a cue stays on screen no longer
MIN_SECONDS = 1.0  # and no shorter, where the next one leaves room
PAUSE_SECONDS = 0.8  # a silence of this length ends a cue, and a sentence
MAX_SENTENCE = 30.0  # seconds: a longer sentence is cut at its longest pause
SENTENCE_ENDS = tuple(".?!\u2026\u3002\uff1f\uff01")
CLOSING = "\"')]}\u2019\u201d\u00bb"  # what may follow the mark that ends a sentence
ABBREVIATIONS = ("dr.", "mr.", "mrs.", "ms.", "prof.", "st.", "vs.")  # whose full stop ends none


@dataclass(frozen=True)
class Word:
    """A word, its times in seconds, and its speaker, if known."""

    text: str
    start: float
    end: float
    speaker: str = ""


@dataclass(frozen=True)
class Cue:
    """What is on screen from `start` to `end` (seconds): one or more lines, their speaker, if known, and words."""

    lines: tuple[str, ...]
    start: float
    end: float
    speaker: str = ""
    words: tuple[Word, ...] = ()


def write_captions(
    result: dict,
    path: str | os.PathLike,
    format: str | None = None,
    times: bool = False,
    highlight_words: bool = False,
) -> Path:
    """
    Writes one result of the pipeline to a file; an existing file is replaced only when the new one is complete.

    Args:
        result: `{"text", "chunks", …}` as the pipeline returns it. srt, vtt and tsv need `return_timestamps`. With
            `speaker="everyone"`, the whole result or one of its `"speakers"`.
        path: the file to write.
        format: `"txt"`, `"srt"`, `"vtt"`, `"tsv"` or `"json"`; taken from the suffix of `path` by default.
        times: whether txt has a line for each chunk, with its times; the other formats have them anyway.
        highlight_words: whether srt and vtt underline each word while it is said.

    Returns:
        The path.

    Raises:
        ValueError: unknown format, or times are needed and `result` has none.
        OSError: the file cannot be written.
    """
    path = Path(path)
    text = format_captions(result, format or path.suffix.lstrip("."), times, highlight_words)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.replace(partial, path)
    except OSError as error:  # that of a full disk names no file
        raise OSError(f"{str(path)!r} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return path


def format_captions(result: dict, format: str, times: bool = False, highlight_words: bool = False) -> str:
    """
    Returns the text of the file that [`write_captions`] writes.

    Args:
        result: see [`write_captions`].
        format: see [`write_captions`].
        times: see [`write_captions`].
        highlight_words: see [`write_captions`].

    Raises:
        ValueError: see [`write_captions`].
    """
    writer = to_timed_txt if times and format.lower() == "txt" else WRITERS.get(format.lower())
    if highlight_words and writer in (to_srt, to_vtt):
        writer = partial(writer, highlight_words=True)
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


def to_srt(result: dict, highlight_words: bool = False) -> str:
    """
    Returns SubRip: numbered cues, a comma before the milliseconds; with several speakers, names before the text.

    Args:
        result: see [`write_captions`].
        highlight_words: whether each word is underlined while it is said.
    """
    several = "speakers" in result
    blocks = []
    for number, (cue, lines) in enumerate(_shown_cues(result, _escape_srt, highlight_words), 1):
        lines = [f"{_escape_srt(cue.speaker)}: {lines[0]}", *lines[1:]] if several else lines
        blocks.append(f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n" + "\n".join(lines))
    return "".join(block + "\n\n" for block in blocks)


def to_vtt(result: dict, highlight_words: bool = False) -> str:
    """
    Returns WebVTT (W3C): a header, a full stop before the milliseconds, `&<>` escaped, `<v NAME>` where known.

    Args:
        result: see [`write_captions`].
        highlight_words: whether each word is underlined while it is said.
    """
    blocks = []
    for cue, lines in _shown_cues(result, _escape_vtt, highlight_words):
        voice = f"<v {_escape_vtt(cue.speaker)}>" if cue.speaker else ""
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{voice}" + "\n".join(lines))
    return "WEBVTT\n\n" + "".join(block + "\n\n" for block in blocks)


def _shown_cues(result: dict, escape: Callable[[str], str], highlight_words: bool) -> Iterator[tuple[Cue, list[str]]]:
    """Yields the cues of a result with their escaped lines; with `highlight_words`, one for each word and gap."""
    for cue in make_cues(words_of(result)):
        if not highlight_words:
            yield cue, [escape(line) for line in cue.lines]
            continue
        for start, end, said in _moments(cue):
            lines = []
            for first, line in _words_by_line(cue):
                texts = [escape(word.text) for word in line]
                lines.append(" ".join(f"<u>{t}</u>" if first + i == said else t for i, t in enumerate(texts)))
            yield Cue(cue.lines, start, end, cue.speaker), lines


def _moments(cue: Cue) -> Iterator[tuple[float, float, int | None]]:
    """Yields start, end and the number of the word that is said then, None between words; without empty moments."""
    now = cue.start
    for number, word in enumerate(cue.words):
        following = cue.words[number + 1].start if number + 1 < len(cue.words) else cue.end
        end = min(word.end, following)
        yield from (part for part in ((now, word.start, None), (max(now, word.start), end, number)) if _lasts(*part))
        now = max(now, end)
    if _lasts(now, cue.end):
        yield now, cue.end, None


def _lasts(start: float, end: float, *_: object) -> bool:
    return _milliseconds(end) > _milliseconds(start)


def _words_by_line(cue: Cue) -> Iterator[tuple[int, tuple[Word, ...]]]:
    """Yields for each line of a cue the number of its first word, and its words."""
    first = 0
    for line in cue.lines:
        last = first + 1
        while " ".join(word.text for word in cue.words[first:last]) != line:
            last += 1
        yield first, cue.words[first:last]
        first = last


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
    """
    Returns the whole result as JSON; numbers of numpy and torch as plain ones, NaN and infinity as null.

    Where there are times, `"segments"` has its sentences, see [`make_sentences`].
    """
    if any(one.get("chunks") for one in _voices(result)):
        result = {"text": result.get("text", ""), "segments": make_sentences(result), **result}
    return json.dumps(_plain(result), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


WRITERS: dict[str, Callable[[dict], str]] = {
    "txt": to_txt,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
    "json": to_json,
}


def make_sentences(result: dict) -> list[dict[str, Any]]:
    """
    Joins the words of a result to sentences.

    A sentence ends with a full stop, a question or an exclamation mark, or at a pause, as many models write none of
    these marks. One that is longer than half a minute is cut at its longest pause.

    Args:
        result: `{"text", "chunks", …}` as the pipeline returns it, with times; those of several speakers, too.

    Returns:
        `{"id", "start", "end", "text", "confidence", "words"}` of each sentence, sorted by start: times in seconds,
        the confidence (0 to 1) as the geometric mean of its words', the words as in `"chunks"`; and the `"speaker"` of
        several.

    Raises:
        ValueError: `result` has no times.
    """
    sentences = []
    for one in _voices(result):
        speaker = {"speaker": one["speaker"]} if "speaker" in one else {}
        sentences += [_sentence(words) | speaker for words in _split_at_ends(_word_chunks(one))]
    sentences.sort(key=lambda sentence: sentence["start"])
    return [{"id": number, **sentence} for number, sentence in enumerate(sentences)]


def _sentence(words: list[dict]) -> dict[str, Any]:
    return {
        "start": words[0]["timestamp"][0],
        "end": words[-1]["timestamp"][1],
        "text": " ".join(_one_line(word["text"]) for word in words),
        "confidence": _mean_confidence(words),
        "words": words,
    }


def _split_at_ends(words: list[dict]) -> list[list[dict]]:
    """Splits words into sentences."""
    sentences: list[list[dict]] = []
    for word in words:
        before = sentences[-1] if sentences else None
        if before and not _ends_sentence(before[-1], word):
            before.append(word)
        else:
            sentences.append([word])
    return [part for sentence in sentences for part in _split_long(sentence)]


def _ends_sentence(word: dict, following: dict) -> bool:
    if following["timestamp"][0] - word["timestamp"][1] >= PAUSE_SECONDS:
        return True
    text = _one_line(word["text"]).rstrip(CLOSING)
    return text.endswith(SENTENCE_ENDS) and text.lower() not in ABBREVIATIONS


def _split_long(words: list[dict]) -> list[list[dict]]:
    """Splits a sentence that is too long at its longest pause, and its parts again."""
    done, waiting = [], [words]
    while waiting:
        part = waiting.pop()
        if part[-1]["timestamp"][1] - part[0]["timestamp"][0] <= MAX_SENTENCE or len(part) == 1:
            done.append(part)
            continue
        pauses = [after["timestamp"][0] - before["timestamp"][1] for before, after in zip(part, part[1:])]
        cut = 1 + max(range(len(pauses)), key=lambda place: pauses[place])
        waiting += [part[cut:], part[:cut]]
    return done


def _mean_confidence(chunks: list[dict]) -> float:
    """Returns the geometric mean of the confidences of chunks."""
    return math.exp(sum(math.log(max(chunk.get("confidence", 0.0), 1e-30)) for chunk in chunks) / len(chunks))


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
            words=tuple(group),
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
            "confidence": _mean_confidence(word),
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
