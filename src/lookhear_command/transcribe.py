"""`lookhear transcribe`: what is said in video or sound files."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .argument_types import channel, chunk_length, count, positive, rate, seconds, shard, share, speaker, track, weight
from .folder_run import FolderBar, FolderRun
from .found_files import CLIPS, SOUNDS, FoundFile, find_files, in_shard, readable
from .interrupted import FilesDone
from .parsing import Commands, add_command
from .shared_options import (
    MODALITIES,
    SHARD,
    add_dtype,
    add_model,
    add_search,
    check_folder,
    checked_model,
    result_name,
    search_settings,
)

FORMATS = ("txt", "srt", "vtt", "tsv", "json")
ALL = "all"
EVERYONE = "everyone"


def add(commands: Commands) -> None:
    example = (
        "lookhear transcribe interview.mp4 --format srt --output subtitles/\n  "
        "lookhear transcribe recordings/ --recursive --format all --output transcripts/\n  "
        'lookhear transcribe interview.mp4 --speaker "the person on the left"\n  '
        "lookhear transcribe interview.mp4 --speaker everyone --format vtt --output subtitles/"
    )
    parser = add_command(commands, "transcribe", "read what is said in video or sound files", example, run)
    files = "video or sound file, URL, folder (--output mirrors it), or - for the standard input"
    parser.add_argument("files", nargs="+", metavar="FILE", help=files)
    parser.add_argument("--recursive", action="store_true", help="read the folders in a folder, too")
    add_model(parser)
    add_dtype(parser)
    parser.add_argument("--modality", choices=("auto", *MODALITIES), default="auto", help="what to read from (auto)")
    parser.add_argument("--format", choices=(*FORMATS, ALL), default="txt", help="format of the result (txt)")
    folder = "write DIR/NAME.FORMAT for each file; the same command resumes there after an interruption"
    parser.add_argument("--output", metavar="DIR", type=Path, help=folder)
    parser.add_argument("--shard", type=shard, metavar="I/N", help=SHARD)
    anew = "read all files, also those that an interrupted command has read"
    parser.add_argument("--overwrite", action="store_true", help=anew)
    underlined = "underline each word in srt and vtt while it is said"
    parser.add_argument("--highlight-words", action="store_true", help=underlined)
    parser.add_argument("--timestamps", choices=("word", "char"), help="put times into txt and json")
    chunk = "length that the model reads in one pass; longer files are read utterance by utterance (the checkpoint's)"
    parser.add_argument("--chunk-length", type=chunk_length, metavar="SECONDS", help=chunk)
    bar = "show a progress bar for folders and long files (on a terminal)"
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=None, help=bar)
    add_search(parser)
    model = "causal language model over the checkpoint's ids, folder or Hub id, that takes part in the search (none)"
    parser.add_argument("--language-model", metavar="MODEL", help=model)
    parser.add_argument("--language-model-weight", type=weight, metavar="W", help="its weight, 0 or more (0.3)")
    readers = "processes that read files ahead of the model (one for each core but one, from five files on)"
    parser.add_argument("--num-workers", type=count, metavar="N", help=readers)
    least = "leave out what is read with a lower confidence, 0 to 1, as no speech; 0: nothing (the checkpoint's)"
    parser.add_argument("--speech-confidence", type=share, metavar="C", help=least)
    what = parser.add_argument_group("what to read of files that hold several tracks or channels")
    number = "number, from 0 on, or language (the default one; a warning lists them)"
    what.add_argument("--audio-track", type=track, metavar="TRACK", help=f"sound track: {number}")
    what.add_argument("--video-track", type=track, metavar="TRACK", help=f"video: {number}")
    choice = "channel of the sound: number, from 0 on, left, right, or mean of all (those in which somebody speaks)"
    what.add_argument("--channel", type=channel, metavar="CHANNEL", help=choice)
    size = "pixels that a picture of a video may have; larger ones are refused (36000000)"
    what.add_argument("--max-pixels", type=positive, metavar="N", help=size)
    what.add_argument("--audio", type=Path, metavar="SOUND", help="file with the sound, instead of the video's own")
    offset = "seconds after the video's beginning at which that file begins (0)"
    what.add_argument("--audio-offset", type=seconds, metavar="SECONDS", help=offset)
    who = parser.add_argument_group("whom to read if several people are in view")
    forms = (
        "words that describe one person, X,Y or X0,Y0,X1,Y1 in pixels of the first picture, or everyone: a subtitle "
    )
    forms += "track each"
    who.add_argument("--speaker", type=speaker, metavar="WHO", help=forms)
    boxes = (
        "where the speaker is in each picture: a JSON list of [x0, y0, x1, y1] or null, or what perceive --json wrote"
    )
    who.add_argument("--speaker-track", type=Path, metavar="FILE", help=boxes)
    who.add_argument("--speaker-track-id", type=positive, metavar="N", help="track_id in that file (the only one)")
    who.add_argument("--speaker-fps", type=rate, metavar="N", help="frames per second of that file (25)")
    finder = "checkpoint that finds the speaker, folder or Hub id (the packaged glee-tiny: people side by side)"
    who.add_argument("--speaker-model", metavar="MODEL", help=finder)


def _chosen(options: argparse.Namespace) -> Any:
    """Returns the pipeline's argument `speaker`."""
    if options.speaker_track is None:
        if options.speaker_track_id is not None or options.speaker_fps is not None:
            raise ValueError(
                "--speaker-track-id and --speaker-fps apply to the file of --speaker-track, which is missing"
            )
        return options.speaker
    if options.speaker is not None:
        raise ValueError("--speaker and --speaker-track both choose the speaker: give one of them")
    if len(options.files) > 1:
        raise ValueError(f"--speaker-track applies to a single video, and there are {len(options.files)}")
    boxes, fps = read_track(options.speaker_track, options.speaker_track_id)
    fps = options.speaker_fps or fps
    return {"track": boxes, **({} if fps is None else {"fps": fps})}


def read_track(path: Path, number: int | None = None) -> tuple[list[Any], float | None]:
    """
    Reads the boxes of one person from a file.

    Args:
        path: a JSON list of `[x0, y0, x1, y1]` or null, one per picture; or JSON lines as `lookhear perceive --json`
            writes them, `{"time", "objects": [{"track_id", "box": …}]}`.
        number: the `track_id`, needed where the file has several.

    Returns:
        A box or None for each picture, and how many there are a second, if the file says it.

    Raises:
        ValueError: the file holds no tracks, or not that one.
    """
    try:
        with open(path, encoding="utf-8") as file:
            if file.read(1) == "[":
                file.seek(0)
                return list(json.load(file)), None
            file.seek(0)
            frames = [_seen(json.loads(line)) for line in file if line.strip()]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"--speaker-track {path} holds no track: {type(error).__name__} {error}") from None
    numbers = sorted({number for _, seen in frames for number in seen})
    number = numbers[0] if number is None and len(numbers) == 1 else number
    if number not in numbers:
        which = "--speaker-track-id must say which track" if number is None else f"there is no track {number}"
        raise ValueError(f"--speaker-track {path}: {which}; it has {', '.join(map(str, numbers)) or 'none'}")
    last = frames[-1][0]
    return [seen.get(number) for _, seen in frames], (len(frames) - 1) / last if last else None


def _seen(frame: dict[str, Any]) -> tuple[float | None, dict[int, list[float]]]:
    """Returns the time of a frame, and a box for each of its tracks."""
    edges = ("xmin", "ymin", "xmax", "ymax")
    return frame["time"], {found["track_id"]: [found["box"][edge] for edge in edges] for found in frame["objects"]}


def _check_sound(options: argparse.Namespace) -> None:
    """Checks that `--audio` and `--audio-offset` apply."""
    if options.audio is None and options.audio_offset is not None:
        raise ValueError("--audio-offset applies to the file of --audio, which is missing")
    if options.audio is not None and len(options.files) > 1:
        raise ValueError(f"--audio applies to a single video, and there are {len(options.files)}")


def _sources(options: argparse.Namespace) -> list[Any]:
    """Returns the pipeline's input for each file; pipes are read here."""
    files = [readable(file) for file in options.files]
    if options.audio is None:
        return files
    return [{"video": file, "audio": options.audio, "audio_offset": options.audio_offset or 0.0} for file in files]


def run(options: argparse.Namespace) -> int:
    found = find_files(options.files, CLIPS + SOUNDS, options.recursive, options.output)
    if found is not None:
        options.files = [file.path for file in found]
    names = [result_name(file) for file in options.files] if found is None else [file.name for file in found]
    _check_formats(options, names)
    if options.shard is not None:
        found = in_shard(found or [FoundFile(*pair) for pair in zip(options.files, names)], options.shard)
    _check_sound(options)
    speaker = _chosen(options)
    model = checked_model(options, "avsr")
    folders, done = None, None
    if found is not None and options.output is not None:
        check_folder(options.output, shared=options.shard is not None)
        folders = FolderRun(options, lambda file: [options.output / f"{file.name}.{kind}" for kind in _kinds(options)])
        found = folders.pending(found)
        options.files = [file.path for file in found]
        names = [file.name for file in found]
    else:
        done = _done(options)
    from lookhear.commands.loading import load_pipeline
    from lookhear.processing.avsr import format_captions
    from lookhear.training.named_models import local_model

    if not options.files:
        return 2 if folders is not None and folders.failed else 0
    sources = _sources(options)
    asr = load_pipeline("audio-visual-speech-recognition", model, options.device, options.dtype)
    if options.speaker_model is not None:
        options.speaker_model = local_model(options.speaker_model)
    timestamps = _timestamps(asr, options)
    failed = 0
    for file, name, result, error, alone in _shown(
        _results(asr, options, sources, names, timestamps, speaker, done), options, folders
    ):
        if done is not None and result is None and error is None:
            print(*done[file]["written"], sep="\n")
        elif result is not None and options.output is not None:
            if folders is not None and isinstance(error, KeyboardInterrupt):  # what is there counts as done
                raise error
            written = _write(result, options.output, name, options)
            if done is not None and error is None:
                done.add(file, written, alone=alone)
        elif result is not None:
            start = f"{file}\t" if len(names) > 1 and options.format == "txt" else ""
            text = format_captions(result, options.format, options.timestamps is not None, options.highlight_words)
            print("".join(start + line for line in text.splitlines(keepends=True)), end="", flush=True)
        if error is not None:
            failed += 1
            part = "" if result is None else f" (the first {result['report']['duration']:.1f} s were read)"
            message = " ".join(str(error).split()) or type(error).__name__
            print(f"lookhear transcribe: error: {message}{part}", file=sys.stderr)
            if folders is not None and isinstance(error, Exception):
                folders.add_problem(file, f"{message}{part}")
        if isinstance(error, KeyboardInterrupt):
            raise error
    if done is not None:
        done.remove()
    return 2 if failed or (folders is not None and folders.failed) else 0


def _check_formats(options: argparse.Namespace, names: list[str]) -> None:
    """Checks that the results of these names can be written, or printed, as `--format` says."""
    if options.output is None and options.format == ALL:
        raise ValueError("--format all needs --output DIR")
    if options.output is None and options.shard is not None:
        raise ValueError("--shard needs --output DIR, into which all jobs write")
    if options.output is None and len(names) > 1 and options.format in ("srt", "vtt", "tsv"):
        raise ValueError(f"several files as {options.format} need --output DIR")
    if options.highlight_words and not {"srt", "vtt"} & set(_kinds(options)):
        raise ValueError(f"--highlight-words applies to srt and vtt, and --format is {options.format}")
    if options.output is not None and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        ending = _kinds(options)[0]
        raise ValueError(f"two files would both be written to {options.output / twice}.{ending}; rename one")


def _kinds(options: argparse.Namespace) -> tuple[str, ...]:
    """Returns the formats that are written."""
    return FORMATS if options.format == ALL else (options.format,)


def _timestamps(asr: Any, options: argparse.Namespace) -> str | bool:
    """Returns the argument `return_timestamps`; json has words where the model can tell their times."""
    if options.timestamps is not None:
        return options.timestamps
    config = asr.model.config
    timed = options.format == "json" and (config.ctc_loss_weight or config.alignment_loss_weight)
    return "word" if timed or options.format in ("srt", "vtt", "tsv", ALL) else False


def _shown(results: Iterator[Any], options: argparse.Namespace, folders: FolderRun | None) -> Iterator[Any]:
    """Yields the results; of folders, a bar shows how far they are."""
    if folders is None:
        yield from results
        return
    with FolderBar(options.files, options.progress) as bar:
        options.progress = False  # one bar is enough
        for result in results:
            with bar.aside():
                yield result
            bar.add(result[0], 0.0 if result[2] is None else result[2]["report"]["duration"])
    print(f"lookhear transcribe: {bar.summary()}", file=sys.stderr)


def _done(options: argparse.Namespace) -> FilesDone | None:
    """Returns what the same command has done before it was interrupted; None where that makes no difference."""
    check_folder(options.output)
    if options.output is None or len(options.files) < 2:
        return None
    return FilesDone(options.output / ".transcribe.done", options)


def _write(result: dict[str, Any], folder: Path, name: str, options: argparse.Namespace) -> list[Path]:
    """
    Writes the result; if it has times and several people, also a file for each of them. Returns and prints the paths.
    """
    from lookhear.processing.avsr import write_captions

    written = []
    for kind in _kinds(options):
        timed, underlined = options.timestamps is not None, options.highlight_words
        written.append(write_captions(result, folder / f"{name}.{kind}", kind, timed, underlined))
        for one in result.get("speakers", ()) if kind in ("srt", "vtt") else ():
            speaker = one["speaker"].lower().replace(" ", "-")
            path = folder / f"{name}.{speaker}.{kind}"
            written.append(write_captions(one, path, kind, highlight_words=underlined))
    print(*written, sep="\n")
    return written


def _results(
    asr: Any,
    options: argparse.Namespace,
    sources: list[Any],
    names: list[str],
    timestamps: str | bool,
    speaker: Any,
    done: FilesDone | None = None,
) -> Iterator[tuple[str, str, dict[str, Any] | None, BaseException | None, bool]]:
    """
    Yields (file, name, result, error, whether it was read by itself) for each file; each is opened and read once,
    whatever the others hold. Those that are done have neither result nor error; of a batch only all can be, as it is
    padded to the longest of them.
    """
    settings = {"modality": options.modality, "chunk_length_s": options.chunk_length, **search_settings(options)}
    settings |= {
        "language_model": options.language_model,
        "language_model_weight": options.language_model_weight,
    }
    settings |= {"speech_confidence": options.speech_confidence}
    settings |= {"return_timestamps": timestamps, "speaker": speaker, "speaker_model": options.speaker_model}
    settings |= {"audio_track": options.audio_track, "video_track": options.video_track, "channel": options.channel}
    settings |= {"max_pixels": options.max_pixels, "batch_size": options.batch_size}
    if speaker == EVERYONE:
        for file, source, name in zip(options.files, sources, names, strict=True):
            known = done is not None and file in done
            yield file, name, *((None, None) if known else _attempt(asr, source, **settings)), True
        return
    batches = _batches(options, done)
    wanted = [sources[place] for batch in batches for place in batch.wanted]
    read = asr.read_ahead(wanted, num_workers=options.num_workers, **settings)
    for batch in batches:
        yield from ((options.files[place], names[place], None, None, False) for place in batch.skipped)
        yield from _read_batch(asr, options, names, batch, list(itertools.islice(read, len(batch.wanted))), settings)


@dataclass(frozen=True)
class _Batch:
    """Places of files that are read together, and of those among them that need not be read again."""

    wanted: list[int]
    skipped: list[int]


def _batches(options: argparse.Namespace, done: FilesDone | None) -> list[_Batch]:
    batches = []
    for first in range(0, len(options.files), options.batch_size):
        skipped = _skipped(options.files[first : first + options.batch_size], done)
        places = range(first, min(first + options.batch_size, len(options.files)))
        wanted = [place for place in places if options.files[place] not in skipped]
        batches.append(_Batch(wanted, [place for place in places if options.files[place] in skipped]))
    return batches


def _read_batch(
    asr: Any, options: argparse.Namespace, names: list[str], batch: _Batch, read: list[Any], settings: dict[str, Any]
) -> Iterator[tuple[str, str, dict[str, Any] | None, BaseException | None, bool]]:
    """Yields what `_results` does for the files of a batch that are wanted; `read` is what was read ahead of them."""
    from lookhear.processing.avsr import Clip

    opened = [(one, None) if isinstance(one, Clip) else _attempt(asr.stream, one, **settings) for one in read]
    short = [
        one if isinstance(one, Clip) else one.source
        for one, error in opened
        if error is None and (isinstance(one, Clip) or not one.chunked)
    ]
    together = iter(asr.attempt(short, **settings) if short else [])
    error: BaseException | None
    for place, (speech, error) in zip(batch.wanted, opened):
        file, name, result = options.files[place], names[place], None
        alone = error is None and not isinstance(speech, Clip) and speech.chunked
        if alone:
            result, error = _read_long(speech, name, options.progress)
        elif error is None:
            result = next(together)
            result, error = (None, result) if isinstance(result, Exception) else (result, None)
        yield file, name, result, error, alone


def _skipped(files: list[str], done: FilesDone | None) -> set[str]:
    """Returns those files of a batch that need not be read again."""
    known = {file for file in files if done is not None and file in done}
    return known if known == set(files) else {file for file in known if done is not None and done[file]["alone"]}


def _attempt(read: Callable[..., Any], *arguments: Any, **settings: Any) -> tuple[Any, Exception | None]:
    """Returns (what `read` returns, None), or (None, the error) if the input is bad."""
    try:
        return read(*arguments, **settings), None
    except (ValueError, OSError) as error:
        return None, error


def _read_long(speech: Any, name: str, progress: bool | None) -> tuple[dict[str, Any] | None, BaseException | None]:
    """
    Returns the result of a long file as far as it could be read, and the error that stopped the reading, or None.
    """
    from tqdm.auto import tqdm

    hidden = not sys.stderr.isatty() if progress is None else not progress
    shape = (
        "{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]" if speech.duration else None
    )
    chunks: list[dict[str, Any]] = []
    error: BaseException | None = None
    with speech, tqdm(total=speech.duration, desc=name, file=sys.stderr, disable=hidden, bar_format=shape) as bar:
        try:
            for chunk in speech:
                chunks.append(chunk)
                bar.update(speech.position - bar.n)
            bar.update(speech.position - bar.n)
        except (ValueError, OSError, KeyboardInterrupt) as caught:
            error = caught
    return (speech.to_result(chunks) if chunks or error is None else None), error
