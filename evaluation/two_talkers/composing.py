"""Mixtures as videos: clips side by side, those who do not talk at rest, and the sum of the voices."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lookhear.evaluation.two_talkers.planning import Mixture
from lookhear.evaluation.whole_files import write_text
from lookhear.training.avsr.corpora import Utterance

FPS = 25.0
SAMPLING_RATE = 16000  # Hz
LONGEST = 30.0  # seconds of a mixture: its sound is held as a whole
REST = 2.0  # seconds at most of a face at rest, which are played forth and back
BESIDE_WORDS = 0.1  # seconds before and after words in which lips still move
PEAK = 0.98  # of full scale


def compose_mixtures(
    mixtures: Sequence[Mixture], folder: str | Path, progress: Callable[[int, int], None] | None = None
) -> Path:
    """
    Writes each mixture as an mp4, and a `metadata.jsonl` over all, one row (see `describe`) per mixture.

    Existing files remain, so an interrupted run resumes.

    Args:
        mixtures: of `plan_mixtures`.
        folder: made if absent.
        progress: called with (mixtures done, mixtures in all).

    Returns:
        The path of `metadata.jsonl`.

    Raises:
        ValueError: the folder holds other mixtures.
        MediaError: a clip cannot be read.
    """
    folder, rows = Path(folder), [describe(mixture) for mixture in mixtures]
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder / "plan.json", rows)
    for number, mixture in enumerate(mixtures, start=1):
        path = folder / f"{mixture.id}.mp4"
        if not path.exists():
            _write(mixture, path)
        if progress is not None:
            progress(number, len(mixtures))
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    return write_text(folder / "metadata.jsonl", "\n".join(lines) + "\n")


def describe(mixture: Mixture) -> dict:
    """
    Returns a mixture as plain values.

    Returns:
        `file_name`, `text` (what the target says, "" if nothing), `snr` (dB, None where the target is silent),
        `target` (place from the left), `people`: for each `{"prompt", "clip", "text"}` from left to right, `unseen`:
        the text of a person out of view, or None.
    """
    people = [
        {"prompt": prompt, "clip": person.id, "text": mixture.text_of(place)}
        for place, (prompt, person) in enumerate(zip(mixture.prompts, mixture.people, strict=True))
    ]
    return {
        "file_name": f"{mixture.id}.mp4",
        "text": mixture.text_of(mixture.target),
        "snr": mixture.snr,
        "target": mixture.target,
        "people": people,
        "unseen": mixture.unseen and mixture.unseen.text,
    }


def _claim(path: Path, rows: list[dict]) -> None:
    """Notes in the folder what it is for, or compares it with what was noted."""
    text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    if not path.exists():
        write_text(path, text)
    elif path.read_text(encoding="utf-8") != text:
        raise ValueError(f"{path.parent} holds other mixtures ({path.name} says which); choose another folder")


def _write(mixture: Mixture, path: Path) -> None:
    from lookhear.processing.avsr import write_video

    frames, audio = compose(mixture)
    write_video(path, frames, FPS, audio, SAMPLING_RATE)


def compose(mixture: Mixture) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """
    Returns one mixture, as long as the target's clip.

    A neighbour whose clip is over stays at rest. Sizes follow the target's picture.

    Returns:
        frames: iterator of `(height, people * width, 3)` uint8 at 25 frames per second.
        audio: `(samples,)` float32 at 16 kHz, as long as the frames, within full scale.

    Raises:
        ValueError: the target's clip is longer than 30 seconds, or no moment without words is known of a clip that
            needs one.
        MediaError: a clip cannot be read.
    """
    target = mixture.people[mixture.target]
    seconds = _seconds(target)
    if seconds > LONGEST:
        raise ValueError(f"{target.id} is {seconds:.0f} s long; mixtures need clips of at most {LONGEST:g} s")
    count = max(1, round(seconds * FPS))
    return _side_by_side(mixture, count), _mixed(mixture, round(count / FPS * SAMPLING_RATE))


def _seconds(clip: Utterance) -> float:
    from lookhear.processing.avsr import probe_media

    end = clip.end if clip.end is not None else probe_media(clip.media).duration
    return end - (clip.start or 0.0)


# ------------------------------------------------------------------------------------------------------------ pictures


def _side_by_side(mixture: Mixture, count: int) -> Iterator[np.ndarray]:
    """Yields `count` pictures of all people side by side."""
    rows = [
        _resting(person) if place == mixture.target and mixture.snr is None else _talking(person)
        for place, person in enumerate(mixture.people)
    ]
    for pictures in itertools.islice(zip(*rows), count):
        height, width = pictures[mixture.target].shape[:2]
        yield np.concatenate([_fitted(picture, width, height) for picture in pictures], axis=1)


def _fitted(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resizes a picture, and crops it where the proportions differ."""
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(ImageOps.fit(Image.fromarray(picture), (width, height), Image.Resampling.BICUBIC))


def _talking(clip: Utterance) -> Iterator[np.ndarray]:
    """Yields the clip's pictures, then the same face at rest, without end."""
    yield from _pictures(clip, clip.start or 0.0, clip.end)
    yield from _resting(clip)


def _resting(clip: Utterance) -> Iterator[np.ndarray]:
    """Yields the clip's pictures of a moment without words, back and forth without end."""
    start, end = resting_span(clip.words, _seconds(clip))
    begin = clip.start or 0.0
    forth = list(_pictures(clip, begin + start, begin + min(end, start + REST)))
    if not forth:
        raise ValueError(f"{clip.id}: no picture could be read between {start:.2f} and {end:.2f} s")
    return itertools.cycle([*forth, *forth[-2:0:-1]])


def _pictures(clip: Utterance, start: float, end: float | None) -> Iterator[np.ndarray]:
    from lookhear.processing.avsr import read_frames

    return read_frames(clip.media, FPS, start=start, end=end)


def resting_span(words: Sequence[dict] | None, seconds: float) -> tuple[float, float]:
    """
    Returns the longer one of the moments before the first and after the last word.

    Args:
        words: `{"word", "start", "end"}` in seconds.
        seconds: length of the clip.

    Returns:
        `(start, end)` in seconds; the last picture only where neither moment is as long as one.
    """
    last = (max(0.0, seconds - 1 / FPS), seconds)
    if not words:
        return last
    first_word, last_word = min(word["start"] for word in words), max(word["end"] for word in words)
    spans = [(0.0, first_word - BESIDE_WORDS), (last_word + BESIDE_WORDS, seconds)]
    longest = max(spans, key=lambda span: span[1] - span[0])
    return longest if longest[1] - longest[0] >= 1 / FPS else last


# --------------------------------------------------------------------------------------------------------------- sound


def _mixed(mixture: Mixture, samples: int) -> np.ndarray:
    """Returns the target's voice with the others', each of these equally loud."""
    from lookhear.processing.avsr import mix_at_snr

    others = [_voice(clip, samples) for clip in mixture.voices]
    if mixture.snr is None:
        mixed = np.sum(others, axis=0)
    else:
        noise = np.sum([wave / max(float(np.sqrt(np.mean(wave**2))), 1e-8) for wave in others], axis=0)
        mixed = mix_at_snr(_voice(mixture.people[mixture.target], samples), noise, mixture.snr)
    return (mixed / max(1.0, float(np.abs(mixed).max(initial=0.0)) / PEAK)).astype(np.float32)


def _voice(clip: Utterance, samples: int) -> np.ndarray:
    """Returns `(samples,)` of a clip's sound, silence after it."""
    from lookhear.processing.avsr import MediaError, read_audio

    wave = read_audio(clip.media, SAMPLING_RATE, start=clip.start or 0.0, end=clip.end)
    if wave is None or not wave.any():
        raise MediaError(f"{str(clip.media)!r} has no sound: two talkers need two voices")
    wave = wave[:samples]
    return np.pad(wave, (0, samples - len(wave)))
