"""What a client of `/v1/audio/transcriptions` asks for, and its answers in the forms that such clients read."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lookhear.processing.avsr import format_captions, make_sentences
from lookhear.serving.handler import SPEECH, RequestError, checked_parameters, plain

FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")
TIMED = ("srt", "vtt", "verbose_json", "diarized_json")
GRANULARITIES = ("word", "segment")
# Fields of such clients that change nothing here: the model reads one language, takes no hints and has no randomness.
WITHOUT_EFFECT = ("language", "prompt", "temperature", "chunking_strategy", "include[]", "include", "user")
NAMED = ("modality", "search", "speaker", "channel", "audio_track", "video_track")  # parameters that may be texts
NUMBERS = ("num_beams", "ctc_weight", "chunk_length_s", "speech_confidence", "lip_evidence")
EVERYONE = "everyone"
TEXT_TYPE = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Question:
    """
    What a request asks for beside its file.

    Attributes:
        format: one of `FORMATS`.
        model: as the client names it; "" where it does not.
        stream: whether words are sent as soon as they are certain.
        granularities: what verbose_json lists, of `GRANULARITIES`.
        language: as the client names it; "" where it does not.
        settings: arguments of the pipeline.
    """

    format: str = "json"
    model: str = ""
    stream: bool = False
    granularities: tuple[str, ...] = ("segment",)
    language: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


def read_question(form: list[tuple[str, str]]) -> Question:
    """
    Reads the text fields of a form.

    Args:
        form: names and values; beside those of such clients `modality`, `speaker` and other arguments of the pipeline.

    Raises:
        RequestError: a field is unknown, given twice, or its value cannot be used.
    """
    lists = [value for name, value in form if name.removesuffix("[]") == "timestamp_granularities"]
    single: dict[str, str] = {}
    for name, value in form:
        if name.removesuffix("[]") == "timestamp_granularities" or name in WITHOUT_EFFECT[1:]:
            continue
        if name not in ("response_format", "model", "stream", "language", *NAMED, *NUMBERS):
            raise RequestError(f"There is no field {name[:40]!r}; there are {', '.join((*NAMED, *NUMBERS))}.")
        if name in single:
            raise RequestError(f"`{name}` is given twice.")
        single[name] = value
    format = single.get("response_format") or "json"
    if format not in FORMATS:
        raise RequestError(f"`response_format` must be one of {', '.join(FORMATS)}, not {format[:40]!r}.")
    if unknown := [value for value in lists if value not in GRANULARITIES]:
        raise RequestError(f"`timestamp_granularities` may hold word and segment, not {unknown[0][:40]!r}.")
    stream = single.get("stream", "").lower() in ("true", "1")
    settings = _settings(single)
    if format == "diarized_json":
        settings["speaker"] = settings.get("speaker", EVERYONE)
    if stream and (format not in ("json", "text") or settings.get("speaker") == EVERYONE):
        raise RequestError("`stream` goes with `response_format` json or text, and one speaker.")
    if format in TIMED:
        settings["return_timestamps"] = "word"
    language = single.get("language", "")[:20]
    return Question(format, single.get("model", ""), stream, tuple(lists) or ("segment",), language, settings)


def _settings(single: Mapping[str, str]) -> dict[str, Any]:
    """Returns the arguments of the pipeline; numbers and places as such."""
    settings: dict[str, Any] = {name: single[name] for name in NAMED if single.get(name)}
    for name in (*NUMBERS, "audio_track", "video_track", "channel"):
        text = single.get(name)
        if not text or (name not in NUMBERS and not text.isdecimal()):
            continue
        try:
            settings[name] = int(text) if text.isdecimal() else float(text)
        except ValueError:
            raise RequestError(f"`{name}` must be a number, not {text[:40]!r}.") from None
    if "speaker" in settings:
        settings["speaker"] = _speaker(settings["speaker"])
    return checked_parameters(SPEECH, settings)


def _speaker(text: str) -> str | dict[str, tuple[float, ...]]:
    """Reads who is to be read: two numbers are a point, four a box, and everything else is words."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        return text
    if len(numbers) not in (2, 4) or not all(map(math.isfinite, numbers)):
        raise RequestError("`speaker` must be X,Y or X0,Y0,X1,Y1 in pixels of the first picture, or words.")
    return {{2: "point", 4: "box"}[len(numbers)]: numbers}


def usage(seconds: float) -> dict[str, Any]:
    """Returns how much was read, as clients count it."""
    return {"type": "duration", "seconds": math.ceil(seconds)}


def answer(result: dict[str, Any], question: Question) -> tuple[str, str]:
    """
    Formats a result.

    Args:
        result: of the pipeline; with words where the format has times.
        question: what is asked for.

    Returns:
        The body, and its type.
    """
    kind, seconds = question.format, float(result["report"]["duration"])
    if kind == "text":
        return format_captions(result, "txt"), TEXT_TYPE
    if kind in ("srt", "vtt"):
        return format_captions(result, kind), "text/vtt; charset=utf-8" if kind == "vtt" else TEXT_TYPE
    body: dict[str, Any] = {"text": result["text"], "usage": usage(seconds)}
    if kind == "verbose_json":
        words = sorted((word for one in make_sentences(result) for word in one["words"]), key=_begin)
        body = {"task": "transcribe", "language": question.language or "unknown", "duration": seconds, **body}
        if "segment" in question.granularities:
            body["segments"] = [_segment(one) for one in make_sentences(result)]
        if "word" in question.granularities:
            body["words"] = [dict(zip(("word", "start", "end"), (w["text"], *w["timestamp"]))) for w in words]
    elif kind == "diarized_json":
        body = {"task": "transcribe", "duration": seconds, **body}
        body["segments"] = [_turn(one) for one in make_sentences(result)]
    return json.dumps(plain(body), ensure_ascii=False, allow_nan=False), "application/json"


def _begin(word: Mapping[str, Any]) -> float:
    return word["timestamp"][0]


def _segment(sentence: Mapping[str, Any]) -> dict[str, Any]:
    """
    Returns a sentence as verbose_json has it. There are no tokens; what is probably no speech was left out before; and
    the probability is that of the letters.
    """
    text = sentence["text"].encode()
    return {
        "id": sentence["id"],
        "seek": 0,
        "start": sentence["start"],
        "end": sentence["end"],
        "text": sentence["text"],
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": math.log(max(sentence["confidence"], 1e-30)),
        "compression_ratio": len(text) / len(zlib.compress(text)),
        "no_speech_prob": 0.0,
    }


def _turn(sentence: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a sentence as diarized_json has it."""
    times = {name: sentence[name] for name in ("start", "end", "text")}
    speaker = sentence.get("speaker", "Speaker 1")
    return {"type": "transcript.text.segment", "id": f"seg_{sentence['id']}", **times, "speaker": speaker}


def event(kind: str, **facts: Any) -> str:
    """Formats one event of a stream."""
    return f"data: {json.dumps({'type': kind, **plain(facts)}, ensure_ascii=False)}\n\n"


def error_body(message: str, status: int) -> dict[str, Any]:
    """Returns an error as clients read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}
