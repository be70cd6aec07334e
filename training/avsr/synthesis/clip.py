"""A spoken clip: a moving portrait and a voice from a text, with the times of the words."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lookhear.evaluation.whole_files import write_text

from .portrait import PORTRAITS, Portrait, PortraitSource, Pose, load_portrait
from .recording import Recording
from .visemes import ARTICULATORS, articulate, sample_track
from .voice import SAMPLING_RATE, VOICES, Phoneme, Speech, Word, speak

DEFAULT_SIZE = (360, 288)  # width, height of one portrait's frame, as in GRID
_SPEECH_LEVEL = 0.06  # root mean square of the voice, full scale 1
_FLOOR_LEVEL = 4e-4  # of the faint noise added to it: no room is digitally silent


@dataclass(frozen=True)
class SynthesizedClip:
    """
    A clip that `synthesize_clip` has written.

    Attributes:
        video: the MP4 file.
        metadata: the JSON file beside it.
        text: what the first speaker says.
        words: [{"word", "start", "end"}] of the first speaker, in seconds.
        voice: of the first speaker.
        portrait: name of the first portrait.
        seed: of all random choices.
        fps: frames per second.
        duration: in seconds.
    """

    video: Path
    metadata: Path
    text: str
    words: list[dict]
    voice: str
    portrait: str
    seed: int
    fps: float
    duration: float


@dataclass(frozen=True)
class _Take:
    """One speaker's part before it is rendered; `articulation` (T, 9), one pose a frame, audio (n,)."""

    portrait: Portrait
    articulation: np.ndarray
    poses: list[Pose]
    audio: np.ndarray
    words: list[Word]
    settings: dict

    def frames(self) -> Iterator[np.ndarray]:
        """Renders (H, W, 3) uint8 pictures in order."""
        for row, pose in zip(self.articulation, self.poses):
            yield self.portrait.render(row, pose)


def render_clip(
    text: str | None = None,
    *,
    portrait: PortraitSource = None,
    voice: str = "en-us",
    rate: int | None = None,
    pitch: int | None = None,
    seed: int = 0,
    fps: float = 25.0,
    size: tuple[int, int] = DEFAULT_SIZE,
    second: PortraitSource = None,
    second_text: str | None = None,
    second_voice: str | None = None,
    recording: Recording | None = None,
) -> tuple[Iterator[np.ndarray], np.ndarray, list[dict]]:
    """Makes a portrait say a text, without writing a file. Arguments: see `synthesize_clip`.

    Returns:
        frames: iterator over (H, W, 3) uint8, rendered one by one. The first is at 0 s.
        audio: (samples,) float32 at 16 kHz, as long as the frames.
        words: [{"word", "start", "end"}] in seconds, of the first speaker.
    """
    takes = _takes(text, portrait, voice, rate, pitch, seed, fps, size, second, second_text, second_voice, recording)
    return _frames(takes), _mix(takes), [asdict(word) for word in takes[0].words]


def synthesize_clip(
    text: str | None,
    output: str | os.PathLike,
    *,
    portrait: PortraitSource = None,
    voice: str = "en-us",
    rate: int | None = None,
    pitch: int | None = None,
    seed: int = 0,
    fps: float = 25.0,
    size: tuple[int, int] = DEFAULT_SIZE,
    second: PortraitSource = None,
    second_text: str | None = None,
    second_voice: str | None = None,
    recording: Recording | None = None,
) -> SynthesizedClip:
    """Makes a portrait say a text; writes `output` (MP4, H.264 and AAC) and a JSON file of the same name beside it.

    Args:
        text: English text; None: what the recording says.
        output: path ending in .mp4, in a folder that exists.
        portrait: a name in `PORTRAITS` (default the first), a photo's path, a PIL image or an array (H, W, 3) uint8.
        voice: one of `VOICES`, or another voice of espeak-ng.
        rate: words per minute; None: chosen at random.
        pitch: 0 to 100; None: chosen at random.
        seed: of all random choices: silence around the speech, rate, pitch, strength of the lips'
            movements, framing, movements of the head. The same seed gives the same frames and samples.
        fps: frames per second, 5 to 120.
        size: (width, height) of one portrait's frame; two portraits make a frame twice as wide.
        second: a second portrait, shown to the right of the first.
        second_text: what the second speaker says; None: nothing.
        second_voice: voice of the second speaker; None: another one than the first speaker's.
        recording: a recorded voice, which is heard as it is and moves the first speaker's lips; None: `voice` speaks.

    Raises:
        ValueError: text, voice, portrait, size, fps or output cannot be used; the message says what to give.
        ImportError: a package for the voice or the portrait is missing (`pip install lookhear[demo]`).
    """
    from lookhear.processing.avsr.rendering_avsr import write_video

    output = Path(output)
    if output.suffix.lower() != ".mp4":
        raise ValueError(f"output is {str(output)!r}; give a path that ends in .mp4")
    if not output.parent.is_dir():
        raise ValueError(f"output: the folder {str(output.parent)!r} does not exist; make it first")
    takes = _takes(text, portrait, voice, rate, pitch, seed, fps, size, second, second_text, second_voice, recording)
    write_video(output, _frames(takes), fps, _mix(takes), SAMPLING_RATE)
    first = takes[0]
    words = [asdict(word) for word in first.words]
    record = {**first.settings, "words": words, "seed": seed, "fps": fps, "size": list(size)}
    record["duration"] = round(len(first.articulation) / fps, 3)
    if len(takes) > 1:
        record["second"] = {**takes[1].settings, "words": [asdict(word) for word in takes[1].words]}
    metadata = output.with_suffix(".json")
    write_json(metadata, record)
    settings = first.settings
    said = settings["text"]
    return SynthesizedClip(
        output, metadata, said, words, settings["voice"], settings["portrait"], seed, fps, record["duration"]
    )


def write_json(path: Path, record: dict) -> None:
    """Writes a JSON file that appears complete or not at all."""
    write_text(path, json.dumps(record, ensure_ascii=False, indent=1))


def _takes(
    text, portrait, voice, rate, pitch, seed, fps, size, second, second_text, second_voice, recording=None
) -> list[_Take]:
    """Returns the speakers' parts, of equal length."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed is {seed!r}; give a whole number, 0 or larger")
    if not 5 <= fps <= 120:
        raise ValueError(f"fps is {fps}; give frames per second from 5 to 120")
    if text is None and recording is None:
        raise ValueError("text is None, and there is no recording: give one of them")
    if recording is not None and (rate is not None or pitch is not None):
        raise ValueError("rate and pitch are of a synthetic voice: leave them out with a recording")
    if second is None and (second_text is not None or second_voice is not None):
        raise ValueError("second_text and second_voice need a second portrait: give second=")
    parts = [(portrait, text, voice)]
    if second is not None:
        other = VOICES[(VOICES.index(voice) + 4) % len(VOICES)] if voice in VOICES else VOICES[0]
        parts.append((second, second_text, second_voice or other))
    generators = [np.random.default_rng([int(seed), index]) for index in range(len(parts))]
    said = [
        _say(t, v, rate, pitch, g) if index or recording is None else _recorded(recording, t, g)
        for index, ((_, t, v), g) in enumerate(zip(parts, generators))
    ]
    frames = int(np.ceil(max(speech.duration for speech, _ in said) * fps))
    return [
        _act(load_portrait(picture, size), picture, speech, settings, frames, fps, generator)
        for (picture, _, _), (speech, settings), generator in zip(parts, said, generators)
    ]


def _say(text, voice, rate, pitch, generator: np.random.Generator) -> tuple[Speech, dict]:
    """Returns the voice with silence around it; nothing for the text `None` of a silent second speaker."""
    drawn_rate, drawn_pitch = int(generator.integers(105, 156)), int(generator.integers(38, 63))
    lead, tail = generator.uniform(0.15, 0.5), generator.uniform(0.2, 0.6)
    gain = 10 ** (generator.uniform(-3, 3) / 20)
    rate, pitch = drawn_rate if rate is None else rate, drawn_pitch if pitch is None else pitch
    settings = {"text": text or "", "voice": voice, "rate": rate, "pitch": pitch}
    if text is None:
        return Speech(np.zeros(0, np.float32), [], []), settings
    speech = speak(text, voice, rate, pitch)
    spoken_until = max(phoneme.end for phoneme in speech.phonemes if phoneme.symbol)
    spoken = speech.audio[: int((spoken_until + 0.05) * SAMPLING_RATE)]
    level = gain * _SPEECH_LEVEL / max(float(np.sqrt(np.mean(spoken**2))), 1e-6)
    audio = np.pad(spoken * level, (round(lead * SAMPLING_RATE), round(tail * SAMPLING_RATE)))
    lead = round(lead * SAMPLING_RATE) / SAMPLING_RATE
    phonemes = [Phoneme(p.symbol, p.start + lead, p.end + lead) for p in speech.phonemes]
    words = [Word(w.word, round(w.start + lead, 3), round(w.end + lead, 3)) for w in speech.words]
    return Speech(audio.astype(np.float32), phonemes, words), settings


def _recorded(recording: Recording, text: str | None, generator: np.random.Generator) -> tuple[Speech, dict]:
    """Returns a recorded voice as it is; draws as many numbers as `_say`, so that a seed moves the head alike."""
    _say(None, "", None, None, generator)
    said = recording.text if text is None else text
    return recording.speech, {"text": said, "voice": recording.name, "rate": None, "pitch": None}


def _act(portrait, picture, speech: Speech, settings, frames: int, fps, generator) -> _Take:
    """Computes how the speaker moves: lips by the phonemes, head and framing at random."""
    strength = generator.uniform(0.9, 1.12) * generator.uniform(0.93, 1.07, len(ARTICULATORS))
    track = articulate(speech.phonemes, frames / fps, strength)
    samples = round(frames / fps * SAMPLING_RATE)
    audio = np.zeros(samples, np.float32)
    audio[: len(speech.audio)] = speech.audio[:samples]
    audio += generator.normal(0.0, _FLOOR_LEVEL, samples).astype(np.float32)
    poses = _poses(frames, fps, generator)
    settings = {**settings, "portrait": _portrait_name(picture)}
    return _Take(portrait, sample_track(track, frames, fps), poses, audio, speech.words, settings)


def _poses(frames: int, fps: float, generator: np.random.Generator) -> list[Pose]:
    """Returns a fixed framing and a slow sway of the head."""
    zoom = generator.uniform(-0.03, 0.08)
    pan_x, pan_y = generator.uniform(-6, 6), generator.uniform(-4, 4)
    sizes = {"roll": 0.018, "shift_x": 2.2, "shift_y": 1.8, "scale": 0.010, "yaw": 2.2, "nod": 1.6}
    times = np.arange(frames) / fps
    sway = {name: size * _slow_noise(times, generator) for name, size in sizes.items()}
    return [
        Pose(zoom, pan_x, pan_y, **{name: float(values[index]) for name, values in sway.items()})
        for index in range(frames)
    ]


def _slow_noise(times: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns (T,) smooth noise of about unit size: a few sines of 0.1 to 0.9 Hz."""
    frequencies = generator.uniform(0.1, 0.9, 4)
    phases = generator.uniform(0.0, 2 * np.pi, 4)
    weights = generator.uniform(0.3, 1.0, 4) / np.sqrt(1.0 + (frequencies / 0.4) ** 2)
    return np.sin(2 * np.pi * frequencies * times[:, None] + phases) @ weights / 1.4


def _portrait_name(picture: PortraitSource) -> str:
    """Returns the portrait's name for the JSON file: its own, its file's, or "picture"."""
    if picture is None:
        return PORTRAITS[0]
    return Path(picture).name if isinstance(picture, (str, os.PathLike)) else "picture"


def _frames(takes: list[_Take]) -> Iterator[np.ndarray]:
    """Puts the speakers side by side."""
    for pictures in zip(*(take.frames() for take in takes)):
        yield pictures[0] if len(pictures) == 1 else np.concatenate(pictures, axis=1)


def _mix(takes: list[_Take]) -> np.ndarray:
    """Returns (n,) float32, the sum of the voices, scaled to stay within full scale."""
    audio = np.sum([take.audio for take in takes], axis=0)
    return (audio / max(1.0, float(np.abs(audio).max()) / 0.98)).astype(np.float32)
