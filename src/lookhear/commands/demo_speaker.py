"""The end of `lookhear demo`: two portraits talk at the same time, and one of them is read."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

PORTRAITS = ("hopper", "astronaut")  # from left to right
SAID = {"the person on the left": "set white by k nine soon", "the person on the right": "bin blue at f two now"}
SPEAKER = "the person on the left"
SOUND = "sound alone"
SEED = 11


def run_speaker_demo(
    output: Path,
    asr: Any,
    speaker: str | None = None,
    video: str | Path | BinaryIO | None = None,
    seed: int = SEED,
) -> dict[str, dict]:
    """
    Reads one of several people; prints what was read, writes captions, a video that shows whom, and a picture.

    Args:
        output: folder that exists.
        asr: the pipeline `audio-visual-speech-recognition`.
        speaker: whom to read, in words; None for the person on the left.
        video: a clip; None lets two portraits talk at the same time.
        seed: of the synthesized clip.

    Returns:
        What the sound alone gives (where there is sound) and what the speaker says: {"sound alone" | speaker: result}.

    Raises:
        ValueError: the video cannot be read, or no person is found in it.
        ImportError: the extras `demo` and `face` are missing.
    """
    from lookhear.processing.avsr import fetch_media

    speaker = speaker or SPEAKER
    said = {} if video is not None else SAID
    clip = fetch_media(video) if video is not None else str(_two_portraits(output, seed))
    readings = {SOUND: asr(clip, modality="audio", return_timestamps="word")} if _has_sound(clip) else {}
    readings[speaker] = asr(clip, speaker=speaker, return_timestamps="word")
    for warning in readings[speaker]["report"]["warnings"]:
        print(warning, file=sys.stderr)
    print(_table(said, readings, speaker))
    for path in _write(output, clip, readings, speaker, said.get(speaker)):
        print(path)
    return readings


def _two_portraits(output: Path, seed: int) -> Path:
    from lookhear.training.avsr.synthesis import synthesize_clip

    print("two portraits talk at the same time", file=sys.stderr)
    left, right = SAID.values()
    first, second = PORTRAITS
    target = output / "two.mp4"
    return synthesize_clip(left, target, portrait=first, second=second, second_text=right, seed=seed).video


def _has_sound(video: Any) -> bool:
    from lookhear.processing.avsr import probe_media

    return probe_media(video).has_audio


def _table(said: dict[str, str], readings: dict[str, dict], speaker: str) -> str:
    """Formats who says what, and what was read; a tick marks text that was read correctly."""
    from lookhear.evaluation.measures.rates import normalise

    width = max(map(len, (*said, *readings)))
    lines = [f"{who.ljust(width)}   says: {text}" for who, text in said.items()] + [""] * bool(said)
    for who, result in readings.items():
        right = speaker in said and normalise(result["text"]) == normalise(said[speaker])
        tick = "  \u2713" if right else ""
        lines.append(f"{who.ljust(width)}   read: {result['text'] or '(nothing)'}{tick}")
    return "\n".join(lines) + "\n"


def _write(output: Path, video: Any, readings: dict[str, dict], speaker: str, said: str | None) -> list[Path]:
    """Writes subtitles of the speaker, the video with the speaker in a frame, and a picture of both readings."""
    from lookhear.processing.avsr import write_captions, write_speaker_video

    written = [
        write_captions(readings[speaker], output / "speaker.srt"),
        write_speaker_video(video, readings[speaker], output / "speaker.mp4"),
    ]
    return [*written, _draw(output, written[1], readings, speaker, said)]


def _draw(output: Path, shown: Path, readings: dict[str, dict], speaker: str, said: str | None) -> Path:
    """Draws a frame of the video that was written, above what was read."""
    from PIL import Image

    from lookhear.evaluation.whole_files import whole_file
    from lookhear.processing.avsr import draw_reading, read_audio

    with tempfile.TemporaryDirectory() as folder:
        audio = read_audio(shown) if SOUND in readings else None
        shown_rows = {"the speaker" if who == speaker else who: result for who, result in readings.items()}
        title = "Two voices at once" if said else None
        drawn = draw_reading(Path(folder) / "rows.png", shown_rows, audio=audio, reference=said, title=title)
        rows = Image.open(drawn).convert("RGB")
    frame = Image.fromarray(_middle_frame(shown, readings[speaker]))
    frame = frame.resize((rows.width, round(frame.height * rows.width / frame.width)), Image.Resampling.BICUBIC)
    picture = Image.new("RGB", (rows.width, frame.height + rows.height), "white")
    picture.paste(frame, (0, 0))
    picture.paste(rows, (0, frame.height))
    with whole_file(output / "speaker.jpg") as partial:
        picture.save(partial, quality=88)
    return output / "speaker.jpg"


def _middle_frame(video: Path, result: dict) -> np.ndarray:
    """Returns the frame `(height, width, 3)` at which half of the words have been said."""
    from lookhear.processing.avsr import read_frames

    chunks = result["chunks"]
    time = sum(chunks[len(chunks) // 2]["timestamp"]) / 2 if chunks else result["report"]["duration"] / 2
    return next(read_frames(video, start=max(0.0, time - 0.04)))
