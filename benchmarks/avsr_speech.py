"""What avsr-grid-tiny reads, and what it leaves alone: speech that it knows, speech that it doesn't, and non-speech.

    python benchmarks/avsr_speech.py --grid GRID/s1/test --voices NATURAL_VOICES --speakers af_sky,am_puck,bm_lewis \
        --others GRID/speakers [--model model_cards/avsr-grid-tiny] [--limit 50] [--json table.json]

Folders hold a `metadata.jsonl` beside sounds or videos. A line whose folder is not given is left out; portraits, music
and sentences of other words are made here. About ten minutes on two cores.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from lookhear.evaluation.avsr_conditions import MODALITIES, Clip, Recogniser, evaluate_avsr, load_clips
from lookhear.evaluation.measures.rates import word_errors
from lookhear.evaluation.non_speech import evaluate_non_speech, format_non_speech, quiet_sound
from lookhear.evaluation.whole_files import write_text
from lookhear.training.avsr.synthesis import VOICES, speak, synthesize_corpus

PAUSE = 4  # seconds between two sentences
OTHER_WORDS = (
    "the weather will be cloudy tomorrow morning",
    "she sells fresh bread near the old station",
    "please remember to water the garden plants",
    "our train leaves from platform twelve today",
    "I would like another cup of coffee thanks",
    "the children played football behind the school",
    "can you tell me where the museum is",
    "he wrote a long letter to his uncle",
)
Row = tuple[str, str, float]  # what, by what, and the figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=Path(__file__).parent.parent / "model_cards" / "avsr-grid-tiny")
    parser.add_argument("--grid", type=Path, help="clips of the speaker that it was trained on, not trained on")
    parser.add_argument("--voices", type=Path, help="recordings in natural voices")
    parser.add_argument("--speakers", help="comma-separated voices of --voices (all)")
    parser.add_argument("--others", type=Path, help="clips of other people")
    parser.add_argument("--limit", type=int, help="the first N clips of each folder only")
    parser.add_argument("--clips", type=int, default=24, help="synthesized clips (24)")
    parser.add_argument("--json", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(table(options, Path(folder)))
    write_table(rows)
    quiet = []
    if options.grid:
        quiet = evaluate_non_speech(options.model, options.grid, limit=options.limit, progress=_progress)
        print("\n" + format_non_speech(quiet, markdown=True), end="")
    if options.json:
        facts = {"speech": [list(row) for row in rows], "non_speech": [result.to_dict() for result in quiet]}
        write_text(options.json, json.dumps(facts, indent=1) + "\n")


def table(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Yields the lines: word error rates in per cent, and confidences in [0, 1]."""
    if options.grid:
        yield from rates(options, options.grid, "held clips of its speaker")
        yield from rates(options, options.grid, "babble", noise="babble", levels=("0", "-5"))
        yield from two_sentences(options)
    if options.voices:
        chosen = some_speakers(options.voices, options.speakers, folder / "voices")
        yield from rates(options, chosen, "natural voices", modalities=("audio",))
        noise = folder / "pink.wav"
        generator = np.random.default_rng(5)
        soundfile.write(noise, quiet_sound("pink", 60 * 16000, [], generator), 16000)
        more = {"noise": str(noise), "levels": ("5",), "modalities": ("audio",)}
        yield from rates(options, chosen, "natural voices, pink noise", **more)
    if options.others:
        yield from rates(options, options.others, "other speakers")
    clips = synthesize_corpus(folder / "portraits", options.clips, seed=424242).parent
    yield from rates(options, clips, "synthesized portraits")
    yield from other_words(options)


def rates(
    options: argparse.Namespace,
    data: Path,
    what: str,
    noise: str = "babble",
    levels: Sequence[str] = ("clean",),
    modalities: Sequence[str] = MODALITIES,
) -> Iterator[Row]:
    """Yields a line for each modality and level of noise; lips are not disturbed by noise."""
    modalities = [modality for modality in modalities if modality != "visual" or "clean" in levels]
    results = evaluate_avsr(
        options.model,
        data,
        modalities=modalities,
        noises=[noise],
        snrs=levels,
        limit=options.limit,
        allow_outside=True,  # `some_speakers` lists recordings in their own place
        progress=_progress,
    )
    for result in results:
        level = "" if result.snr == "clean" else f", {result.snr} dB"
        yield what + level, result.modality, 100 * result.words.rate


def some_speakers(voices: Path, speakers: str | None, folder: Path) -> Path:
    """Makes a folder whose metadata.jsonl lists the recordings of some speakers only, in their own place."""
    rows = [json.loads(line) for line in (voices / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    names = speakers.split(",") if speakers else [row["speaker"] for row in rows]
    chosen = [row for row in rows if row["speaker"] in names]
    if not chosen:
        raise SystemExit(f"--speakers: {voices} has no recording of {speakers}")
    folder.mkdir()
    lines = [json.dumps({**row, "file_name": str((voices / row["file_name"]).resolve())}) for row in chosen]
    write_text(folder / "metadata.jsonl", "\n".join(lines) + "\n")
    return folder


def two_sentences(options: argparse.Namespace) -> Iterator[Row]:
    """Yields the error rates of two sentences with noise or music between them, while the lips stand still."""
    recogniser = Recogniser(options.model)
    clips = load_clips(options.grid, recogniser.image_processor, limit=options.limit)
    whole = [clip for clip in clips if clip.audio is not None and clip.mouths is not None][:24]
    made = [_joined(a, b, number) for number, (a, b) in enumerate(zip(whole[::2], whole[1::2]))]
    for modality in ("audio", "audiovisual"):
        found = recogniser(made, modality, lambda done, total: None)
        errors = word_errors([clip.text for clip in made], [result["text"].lower() for result in found])
        yield f"two sentences with {PAUSE} s of noise or music between", modality, 100 * errors.rate


def _joined(first: Clip, second: Clip, number: int) -> Clip:
    """Joins two clips with a pause, which has sound of the level of the first one's, 20 dB below it or as loud."""
    assert first.audio is not None and second.audio is not None
    assert first.mouths is not None and second.mouths is not None
    generator = np.random.default_rng([9, number])
    noise = quiet_sound(("pink", "music")[number % 2], PAUSE * 16000, [], generator)
    loudness = [float(np.sqrt(np.mean(np.square(wave)))) for wave in (first.audio, noise)]
    noise = noise * (loudness[0] / loudness[1] * 10 ** (-(0, 20)[number // 2 % 2] / 20))
    parts = []
    for wave, mouths in ((first.audio, first.mouths), (second.audio, second.mouths)):
        samples = len(mouths) * 640
        parts.append(np.pad(wave[:samples], (0, max(0, samples - len(wave)))))
    audio = np.concatenate([parts[0], noise, parts[1]]).astype(np.float32)
    mouths = np.concatenate([first.mouths, np.repeat(first.mouths[-1:], PAUSE * 25, 0), second.mouths])
    return Clip(f"{first.id} {second.id}", f"{first.text} {second.text}", audio, mouths)


def other_words(options: argparse.Namespace) -> Iterator[Row]:
    """Yields the median confidence of sentences whose words the checkpoint doesn't know, and how many are doubted."""
    recogniser = Recogniser(options.model)
    clips = [
        Clip(text, text, speak(text, VOICES[number % len(VOICES)]).audio, None)
        for number, text in enumerate(OTHER_WORDS)
    ]
    found = recogniser(clips, "audio", lambda done, total: None)
    said = [result for result in found if result["text"]]
    confidence = statistics.median(result["confidence"] for result in said) if said else 0.0
    yield "other words: median confidence of what is read", "audio", confidence
    doubted = [
        result for result in found if not result["text"] or "does not know" in " ".join(result["report"]["warnings"])
    ]
    yield "other words: % left out or doubted", "audio", 100 * len(doubted) / len(found)


def write_table(rows: Sequence[Row]) -> None:
    """Prints one line for each kind of speech, a column for each modality."""
    print(f"| WER % | {' | '.join(MODALITIES)} |\n|---|---|---|---|")
    for what in dict.fromkeys(row[0] for row in rows):
        figures = {modality: figure for name, modality, figure in rows if name == what}
        cells = (f"{figures[modality]:.2f}" if modality in figures else "" for modality in MODALITIES)
        print(f"| {what} | {' | '.join(cells)} |")


def _progress(label: str, done: int, total: int) -> None:
    if done == total:
        print(f"{label}: {total}", file=sys.stderr)


if __name__ == "__main__":
    main()
