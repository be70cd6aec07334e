"""`lookhear demo`: a talking face read in three ways, clean and in babble, and one of two people who talk at the same
time.

Without a video of yours everything is made on the spot: portraits say sentences of the GRID corpus, and the babble is
other synthesized voices. Nothing is downloaded.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from lookhear.processing.avsr import Clip

Readings = dict[tuple[str, str], dict[str, Any]]  # by (modality, kind of sound)
MODALITIES = ("audio", "visual", "audiovisual")
SNR = -5.0  # dB of the babble, over the whole clip
TALKERS = 20
SENTENCE = "bin blue at f two now"
PORTRAIT = "hopper"
SEED = 7


def run_demo(
    output: str | Path,
    video: str | Path | BinaryIO | None = None,
    model: str | Path | None = None,
    device: str | None = None,
    text: str = SENTENCE,
    seed: int = SEED,
    speaker: str | None = None,
) -> Readings:
    """Makes or takes a clip, reads it in three ways with and without babble, prints and writes what was read.

    Then two portraits talk at the same time, and one of them is read; or one person in a clip of yours, if you name
    them.

    Args:
        output: folder for the results; made if missing.
        video: a clip of yours; None lets a portrait say `text`.
        model: checkpoint folder or Hub id; None for the packaged one.
        device: None for the first accelerator, else the CPU.
        text: what the portrait says.
        seed: of the synthesized clip and of the babble.
        speaker: whom to read of the two portraits, or in your clip: "the person on the left".

    Returns:
        {(modality, "clean" | "babble"): result of the pipeline}, for the modalities that the clip has; and
        {("speaker", "sound alone" | who): result} where one of several is read.

    Raises:
        ValueError: the video cannot be read.
        ImportError: the extras `demo` and `face` are missing.
    """
    from lookhear.commands.demo_speaker import run_speaker_demo
    from lookhear.commands.loading import load_pipeline
    from lookhear.processing.avsr import read_clip

    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    given = video
    video, said = (video, None) if video is not None else (_synthesized(output, text, seed), text)
    model = str(model or Path(__file__).parents[1] / "model_cards" / "avsr-grid-tiny")
    asr = load_pipeline("audio-visual-speech-recognition", model, device, return_timestamps="word")
    rate, image_processor = asr.processor.feature_extractor.sampling_rate, asr.processor.image_processor
    clip = read_clip(video if hasattr(video, "read") else str(video), "auto", rate, image_processor)
    for warning in clip.report.warnings:
        _say(warning)
    noisy = _in_babble(clip.audio, seed) if clip.audio is not None else None
    readings = _read(asr, clip, noisy)
    print(_table(said, readings))
    for path in _write(output, video, said, clip, noisy, readings):
        print(path)
    if given is None or speaker is not None:
        print()
        chosen = run_speaker_demo(output, asr, speaker, given)
        readings |= {("speaker", who): result for who, result in chosen.items()}
    return readings


def _synthesized(output: Path, text: str, seed: int) -> Path:
    from lookhear.training.avsr.synthesis import synthesize_clip

    _say(f"a portrait learns to say: {text}")
    return synthesize_clip(text, output / "clip.mp4", portrait=PORTRAIT, seed=seed).video


def _in_babble(audio: np.ndarray, seed: int) -> np.ndarray:
    """Mixes `TALKERS` synthesized voices into the sound."""
    from lookhear.processing.avsr import babble, mix_at_snr
    from lookhear.training.avsr.synthesis import VOICES, grid_sentence, speak

    _say(f"{TALKERS} voices babble at {SNR:g} dB")
    generator = np.random.default_rng([seed, 1])
    voices = [
        speak(grid_sentence(generator), VOICES[i % len(VOICES)], int(generator.integers(125, 171))).audio
        for i in range(TALKERS)
    ]
    return mix_at_snr(audio, babble(voices, len(audio), generator, TALKERS), SNR)


def _read(asr: Any, clip: Clip, noisy: np.ndarray | None) -> Readings:
    """Reads the clip in every way that it allows."""
    rate = asr.processor.feature_extractor.sampling_rate
    lips = {"mouths": clip.mouths} if clip.mouths is not None else {}
    sounds = {"clean": clip.audio, "babble": noisy} if clip.audio is not None else {}
    readings: Readings = {}
    for name, audio in sounds.items():
        sound = {"audio": audio, "sampling_rate": rate}
        readings["audio", name] = asr(sound, modality="audio")
        if lips:
            readings["audiovisual", name] = asr({**sound, **lips}, modality="audiovisual")
    if lips:
        readings["visual", "clean"] = readings["visual", "babble"] = asr(lips, modality="visual")
    return readings


def _table(said: str | None, readings: Readings) -> str:
    """Formats what was read, one row per modality; a tick marks text that was read correctly."""
    from lookhear.evaluation.measures.rates import normalise

    def cell(modality: str, sound: str) -> str:
        if (modality, sound) not in readings:
            return "-"
        text = readings[modality, sound]["text"] or "(nothing)"
        right = said is not None and normalise(text) == normalise(said)
        return text + ("  \u2713" if right else "")

    rows = [("", "clean", f"babble at {SNR:g} dB")]
    rows += [(modality, cell(modality, "clean"), cell(modality, "babble")) for modality in MODALITIES]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(([f"said: {said}", ""] if said else []) + lines) + "\n"


def _write(
    output: Path, video: Any, said: str | None, clip: Clip, noisy: np.ndarray | None, readings: Readings
) -> list[Path]:
    """Writes subtitles and a captioned video of the best clean reading, and a picture of the readings in babble."""
    from lookhear.processing.avsr import draw_reading, write_captioned_video, write_captions

    best = next(readings[m, "clean"] for m in ("audiovisual", "audio", "visual") if (m, "clean") in readings)
    written = [write_captions(best, output / "clip.srt")]
    if clip.mouths is not None:
        written.append(write_captioned_video(video, best, output / "captioned.mp4"))
    rows = {modality: readings[modality, "babble"] for modality in MODALITIES if (modality, "babble") in readings}
    title = f"In babble at {SNR:g} dB" if noisy is not None else "Without sound"
    return [
        *written,
        draw_reading(output / "reading.png", rows, clip.mouths, noisy, reference=said, title=title),
    ]


def _say(message: str) -> None:
    print(message, file=sys.stderr)
