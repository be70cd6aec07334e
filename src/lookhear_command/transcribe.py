"""`lookhear transcribe`: what is said in video or sound files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .argument_types import chunk_length
from .parsing import add_command
from .shared_options import MODALITIES, add_model, add_search, checked_model, result_name, search_settings

FORMATS = ("txt", "srt", "vtt", "tsv", "json")


def add(commands) -> None:
    example = "lookhear transcribe interview.mp4 --format srt --output subtitles/"
    parser = add_command(commands, "transcribe", "read what is said in video or sound files", example, run)
    parser.add_argument("files", nargs="+", metavar="FILE", help="video or sound file, or URL")
    add_model(parser)
    parser.add_argument("--modality", choices=("auto", *MODALITIES), default="auto", help="what to read from (auto)")
    parser.add_argument("--format", choices=FORMATS, default="txt", help="of the result (txt)")
    parser.add_argument("--output", metavar="DIR", type=Path, help="write DIR/NAME.FORMAT for each file")
    parser.add_argument("--timestamps", choices=("word", "char"), help="put times into the json")
    chunk = "what goes through the model at once; longer files are read utterance by utterance (the checkpoint's)"
    parser.add_argument("--chunk-length", type=chunk_length, metavar="SECONDS", help=chunk)
    bar = "show how far a long file is read (on a terminal)"
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=None, help=bar)
    add_search(parser)


def run(options: argparse.Namespace) -> int:
    names = [result_name(file) for file in options.files]
    if options.output is None and len(names) > 1 and options.format in ("srt", "vtt", "tsv"):
        raise ValueError(f"several files as {options.format} need --output DIR")
    if options.output is not None and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two files would both be written to {options.output / twice}.{options.format}; rename one")
    from lookhear.processing.avsr.captions_avsr import format_captions, write_captions

    asr = _pipeline(options)
    timestamps = options.timestamps or ("word" if options.format in ("srt", "vtt", "tsv") else False)
    failed = 0
    for file, name, result, error in _results(asr, options, names, timestamps):
        if result is not None and options.output is not None:
            print(write_captions(result, options.output / f"{name}.{options.format}", options.format))
        elif result is not None:
            start = f"{file}\t" if len(names) > 1 and options.format == "txt" else ""
            print(start + format_captions(result, options.format), end="", flush=True)
        if error is not None:
            failed += 1
            part = "" if result is None else f" (the first {result['report']['duration']:.1f} s were read)"
            message = " ".join(str(error).split()) or type(error).__name__
            print(f"lookhear transcribe: error: {message}{part}", file=sys.stderr)
        if isinstance(error, KeyboardInterrupt):
            raise error
    return 2 if failed else 0


def _results(asr, options: argparse.Namespace, names: list[str], timestamps):
    """(file, name, result, error) one by one; a batch in which one file cannot be read is read file by file."""
    settings = {"modality": options.modality, "chunk_length_s": options.chunk_length, **search_settings(options)}
    settings["return_timestamps"] = timestamps
    for first in range(0, len(names), options.batch_size):
        files = options.files[first : first + options.batch_size]
        opened = [_attempt(asr.stream, file, **settings) for file in files]
        short = [speech.source for speech, error in opened if error is None and not speech.chunked]
        together, failed = _attempt(asr, short, batch_size=len(short), **settings) if short else ([], None)
        together = iter(together or [])
        for file, name, (speech, error) in zip(files, names[first:], opened):
            if error is not None:
                result = None
            elif speech.chunked:
                result, error = _read_long(speech, name, options.progress)
            elif failed is not None:
                result, error = _attempt(asr, file, **settings)
            else:
                result = next(together)
            yield file, name, result, error


def _attempt(read, *arguments, **settings):
    """(what `read` returns, None), or (None, the error) where the input is bad."""
    try:
        return read(*arguments, **settings), None
    except (ValueError, OSError) as error:
        return None, error


def _read_long(speech, name: str, progress: bool | None):
    """The result of a long file, as far as it could be read, and what stopped the reading of it."""
    from tqdm.auto import tqdm

    hidden = not sys.stderr.isatty() if progress is None else not progress
    shape = (
        "{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]" if speech.duration else None
    )
    chunks, error = [], None
    with speech, tqdm(total=speech.duration, desc=name, file=sys.stderr, disable=hidden, bar_format=shape) as bar:
        try:
            for chunk in speech:
                chunks.append(chunk)
                bar.update(speech.position - bar.n)
            bar.update(speech.position - bar.n)
        except (ValueError, OSError, KeyboardInterrupt) as caught:
            error = caught
    return (speech.to_result(chunks) if chunks or error is None else None), error


def _pipeline(options: argparse.Namespace):
    from transformers import pipeline

    return pipeline("audio-visual-speech-recognition", model=checked_model(options), device=options.device)
