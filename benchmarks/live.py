"""How long after the end of a word it is read live, and whether it is what the whole file says.

    python benchmarks/live.py --data GRID/s1/test [--model model_cards/avsr-grid-tiny] [--limit 50] [--modality audio]

FOLDER holds a `metadata.jsonl` with word times beside videos, which are read from their files at their own speed, one
after the other: a person "in front of" a camera. Without `--data`, talking portraits are synthesized. Delays are
counted from the word's true end. It takes as long as the clips play, twice: live, and then as files.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import pipeline

import lookhear  # noqa: F401 - registers the task
from lookhear.commands.live import Caption, open_source, read_live
from lookhear.training.avsr.synthesis import synthesize_corpus


class Watch(Caption):
    """Notes when each word was shown."""

    def __init__(self) -> None:
        super().__init__(json_lines=False, out=sys.stderr)
        self.words: list[tuple[str, float, float]] = []  # text, end in the clip, and seconds of the clock

    def show(self, words: list[dict[str, Any]], partial: str = "") -> None:
        now = time.monotonic()
        self.words += [(word["text"], word["timestamp"][1], now) for word in words]


@dataclass
class Clip:
    """
    What one clip gave.

    Attributes:
        same: whether live and file are equal.
        words: of the file.
        found: of these, that were read live in their order.
        delays: seconds from the end of each word to when it was shown.
        left_out: pictures.
    """

    same: bool
    words: int
    found: int
    delays: list[float]
    left_out: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with a metadata.jsonl")
    parser.add_argument("--model", default=Path(__file__).parent.parent / "model_cards" / "avsr-grid-tiny")
    parser.add_argument("--modality", choices=("auto", "audio", "visual", "audiovisual"), default="auto")
    parser.add_argument("--limit", type=int, default=50, help="the first N clips only (50)")
    parser.add_argument("--clips", type=int, default=20, help="how many are synthesized without --data (20)")
    parser.add_argument("--threads", type=int, help="of torch (as many as there are cores)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    asr = pipeline("audio-visual-speech-recognition", model=str(options.model))
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or synthesize_corpus(folder, options.clips, seed=424242).parent
        rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
        clips = []
        for number, row in enumerate(rows[: options.limit], 1):
            clips.append(measure(asr, data / row["file_name"], row["words"], options.modality))
            print(f"{number}: {row['file_name']}{'' if clips[-1].same else ' differs'}", file=sys.stderr)
    print(table(clips, options.modality))


def measure(asr: Any, path: Path, words: Sequence[dict[str, Any]], modality: str) -> Clip:
    """Reads a clip live, and then as a file."""
    watch, source = Watch(), open_source(str(path))
    try:
        report = read_live(asr, [source], watch, None, str, modality=modality)
    finally:
        source.close()
    live = [text for text, *_ in watch.words]
    whole = asr(path, modality=modality)["text"].split()
    found = sum(one == other for one, other in zip(live, whole)) if len(live) == len(whole) else 0
    delays = []
    for _, end, shown in watch.words:
        true = min((word["end"] for word in words), key=lambda second: abs(second - end))
        delays.append(shown - report["began"] - true)
    return Clip(live == whole, len(whole), found, delays, report["pictures_left_out"])


def table(clips: Sequence[Clip], modality: str) -> str:
    """Returns the figures as a table in Markdown."""
    delays = sorted(delay for clip in clips for delay in clip.delays)
    share = 100 * sum(clip.same for clip in clips) / len(clips)
    words = 100 * sum(clip.found for clip in clips) / max(1, sum(clip.words for clip in clips))
    late = delays[min(len(delays) - 1, int(0.95 * len(delays)))] if delays else float("nan")
    middle = statistics.median(delays) if delays else float("nan")
    cells = [modality, str(len(clips)), f"{middle:.2f}", f"{late:.2f}", f"{delays[-1] if delays else late:.2f}"]
    cells += [f"{share:.0f}", f"{words:.1f}", str(sum(clip.left_out for clip in clips))]
    return "\n".join(
        (
            "| read | clips | delay s, median | 95 % | most | equal clips % | equal words % | pictures left out |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
            f"| {' | '.join(cells)} |",
            f"\n{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        )
    )


if __name__ == "__main__":
    main()
