"""What half precision gives on a CPU, and what it changes: `--dtype` of the commands, `dtype` in Python.

    python benchmarks/half_precision.py [--dtypes bfloat16 float16] [--clips GRID/s1/test] [--threads 1] [--repeat 3]

Two tables, both against float32. Processor seconds of networks at random weights, the dtypes in turns, the least of a
few calls: AVSR at the paper's size (ten seconds of sound and lips, and thirty steps of the search) and GLEE-Lite with
80 labels. And what the packaged checkpoints read and find: words of clips, given or synthesized ones, and scores of
objects in generated scenes. float16 is made for GPUs: few CPUs compute in it. `gpu.py` has the figures for those.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import detection
import numpy as np
import torch
from gpu import BEAMS, CTC_WEIGHT, Bench, built, clip_files, glee, recogniser, speech_inputs
from torchvision.ops import box_iou

LABELS = ["circle", "square", "star", "heart", "triangle", "ring", "moon", "cross"]
SIZES = ((480, 640), (800, 1333))
STEPS = 30
SCENES = 40
FOUND = 0.3  # score of an object in float32 that is looked up again
SAME = 0.7  # intersection over union of the boxes of one object
OFF = 0.02  # difference of scores that is counted

# --------------------------------------------------------------------------------------------------------------- times


def speech_calls(bench: Bench, dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """Returns what is timed of AVSR, by name."""
    model = built(bench, recogniser(bench), dtype)
    model.prepare_for_inference()
    inputs = speech_inputs(bench, 1, dtype)
    encoded = model.get_encoder()(**inputs)
    settings = {"num_beams": BEAMS, "ctc_weight": CTC_WEIGHT, "early_stopping": "never", "max_new_tokens": STEPS}
    return {
        f"AVSR, encoder, {bench.seconds} s of sound and lips": lambda: model.get_encoder()(**inputs),
        f"AVSR, search, {STEPS} steps of {BEAMS} beams": lambda: model.generate(encoder_outputs=encoded, **settings),
    }


def picture_calls(bench: Bench, dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """Returns what is timed of GLEE-Lite, by name."""
    model = built(bench, glee(bench), dtype)
    calls = {}
    for height, width in ((64, 96),) if bench.small else SIZES:
        inputs = detection.cached_glee_inputs(model, height, width)
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
        calls[f"GLEE-Lite, {height}x{width}"] = functools.partial(model, **inputs)
    return calls


def time_lines(bench: Bench, dtypes: Sequence[str], repeat: int) -> Iterator[str]:
    """Yields a line for each network: seconds in float32, and the share of them that another dtype takes."""
    for make in (speech_calls, picture_calls):
        with torch.inference_mode():
            calls = {name: make(bench, getattr(torch, name)) for name in ("float32", *dtypes)}
            for what in calls["float32"]:
                seconds = {name: float("inf") for name in calls}
                for turn in range(repeat + 1):  # the first one is not counted
                    for name, by_name in calls.items():
                        begin = time.process_time()
                        by_name[what]()
                        spent = time.process_time() - begin
                        seconds[name] = min(seconds[name], spent) if turn else seconds[name]
                shares = (f"{seconds[name] / seconds['float32']:.2f}" for name in dtypes)
                yield f"| {what} | {seconds['float32']:.2f} s | {' | '.join(shares)} |"


# ------------------------------------------------------------------------------------------------------------- results


def read_texts(card: Path, files: list[str], modality: str, dtype: str) -> list[str]:
    """Returns what a checkpoint reads in clips."""
    from transformers import pipeline

    import lookhear  # noqa: F401 - registers the tasks

    asr = pipeline("audio-visual-speech-recognition", model=str(card), device="cpu", dtype=dtype)
    return [result["text"].lower() for result in asr(files, batch_size=4, modality=modality, num_workers=0)]


def find_objects(card: Path, count: int, dtype: str) -> list[list[dict]]:
    """Returns what a checkpoint finds in generated scenes."""
    from transformers import pipeline

    import lookhear  # noqa: F401 - registers the tasks
    from lookhear.training.glee.scenes.scenes import make_scene

    see = pipeline("object-perception", model=str(card), device="cpu", dtype=dtype)
    scenes = [make_scene(np.random.default_rng((11, number))) for number in range(count)]
    return [see(scene.image, labels=LABELS, threshold=0.05, masks=False) for scene in scenes]


def differences(expected: Iterable[list[dict]], found: Iterable[list[dict]]) -> np.ndarray:
    """Returns by how much the score of each object differs; of one that is not found again, it is its own score."""
    off = []
    for things, others in zip(expected, found):
        for thing in (thing for thing in things if thing["score"] >= FOUND):
            alike = [(overlap(thing, other), other["score"]) for other in others if other["label"] == thing["label"]]
            shared, score = max(alike, default=(0.0, 0.0))
            off.append(abs(thing["score"] - (score if shared >= SAME else 0.0)))
    return np.array(off)


def overlap(first: dict, second: dict) -> float:
    """Returns the intersection over union of the boxes of two results."""
    sides = ("xmin", "ymin", "xmax", "ymax")
    one, other = (torch.tensor([[float(thing["box"][side]) for side in sides]]) for thing in (first, second))
    return float(box_iou(one, other))


def result_lines(bench: Bench, dtypes: Sequence[str]) -> Iterator[str]:
    """Yields a line for each packaged checkpoint and what it does: what differs from float32."""
    import jiwer

    import lookhear

    cards = Path(lookhear.__file__).parent / "model_cards"
    with tempfile.TemporaryDirectory() as folder:
        files = clip_files(bench, Path(folder))
        for modality in ("audio", "visual", "audiovisual"):
            expected = read_texts(cards / "avsr-grid-tiny", files, modality, "float32")
            cells = []
            for dtype in dtypes:
                words = jiwer.process_words(expected, read_texts(cards / "avsr-grid-tiny", files, modality, dtype))
                changed = words.substitutions + words.deletions + words.insertions
                cells.append(f"{changed} of {sum(len(text.split()) for text in expected)} words")
            yield f"| avsr-grid-tiny, {len(files)} clips, {modality} | {' | '.join(cells)} |"
    count = 2 if bench.small else SCENES
    objects = find_objects(cards / "glee-tiny", count, "float32")
    off = [differences(objects, find_objects(cards / "glee-tiny", count, dtype)) for dtype in dtypes]
    cells = [f"scores off by {one.mean():.4f}, {(one > OFF).mean():.1%} by more than {OFF}" for one in off]
    yield f"| glee-tiny, {len(off[0])} objects in {count} scenes | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", choices=("bfloat16", "float16"), default=["bfloat16"])
    parser.add_argument("--clips", type=Path, help="folder of clips of talking faces (synthesized ones)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (1)")
    parser.add_argument("--repeat", type=int, default=3, help="calls of which the fastest counts (3)")
    parser.add_argument("--small", action="store_true", help="tiny networks: a trial of the script")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench = Bench("cpu", options.small, options.clips)
    columns = " | ".join(options.dtypes)
    rule = "---:|" * len(options.dtypes)
    print(f"| network | float32 | {columns} |\n|---|---:|{rule}", flush=True)
    for line in time_lines(bench, options.dtypes, options.repeat):
        print(line, flush=True)
    print(f"\n| against float32 | {columns} |\n|---|{rule}", flush=True)
    for line in result_lines(bench, options.dtypes):
        print(line, flush=True)


if __name__ == "__main__":
    main()
