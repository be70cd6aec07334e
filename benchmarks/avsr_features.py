"""A training step of the paper's last stage with stored features, beside one that computes them: seconds, and losses.

    python benchmarks/avsr_features.py [--clips 8] [--seconds 4] [--threads 2] [--repeat 3]

The recipe is `lrs2_audiovisual.yaml`: the full-size model (wav2vec 2.0 Large, ResNet-50, six layers in each
Transformer) with random weights, whose front-ends and back-ends are frozen. Clips are noise of LRS2's size (120x120
lips at 25 frames a second, 16 kHz sound) with random texts. A step reads and augments its clips, or reads what is
stored of them, makes the batch, and does forward, losses, backward and AdamW, in float32. Both kinds of step take
turns, so that a busy machine slows both equally; the ratio is of processor seconds. Beforehand the losses of both are
compared on the same weights and dropout; afterwards the frozen weights are compared with what they were. About ten
minutes on two threads.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

SHIPPED = Path(__file__).parent.parent / "training" / "avsr" / "recipes" / "lrs2_audiovisual.yaml"


def write_clips(folder: Path, clips: int, seconds: float) -> None:
    """Writes a folder as `lookhear prepare` does, of noise."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lookhear.training.avsr.prepare import PREPARED_SCHEMA, encode_flac

    folder.mkdir()
    generator, frames = np.random.default_rng(0), round(25 * seconds)
    rows = []
    for number in range(clips):
        letters = "".join(generator.choice(list("ABCDEFGHIJ "), round(12 * seconds)))
        row = {
            "id": str(number),
            "text": " ".join(letters.split()),
            "duration": seconds,
            "audio": encode_flac(0.1 * generator.normal(size=640 * frames)),
            "mouths": generator.integers(0, 256, (frames, 120, 120), np.uint8).tobytes(),
            "mouth_shape": [frames, 120, 120],
            "landmarks": np.zeros((frames, 68, 2), np.float16).tobytes(),
            "report": json.dumps({"frames_with_face": 1.0}),
        }
        rows.append(dict.fromkeys(PREPARED_SCHEMA.names) | row)
    pq.write_table(pa.Table.from_pylist(rows, PREPARED_SCHEMA), folder / "clips-00000-of-00001.parquet")
    settings = {"roi_size": 120, "mouth_width": 60.0, "fps": 25.0}
    (folder / "prepare.json").write_text(json.dumps(settings), encoding="utf-8")


def make_step(model, optimizer, frozen: list, clips, collator, size: int) -> Callable[[], None]:
    """Returns a function that does one training step on `size` clips."""

    def step() -> None:
        inputs = collator([clips[place] for place in range(size)])
        model.train()
        for module in frozen:
            module.eval()
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def losses_of(model, frozen: list, batches: list[dict]) -> list[float]:
    """Returns the loss of each batch while training, with the same dropout."""
    import torch

    model.train()
    for module in frozen:
        module.eval()
    losses = []
    for batch in batches:
        torch.manual_seed(0)
        with torch.no_grad():
            losses.append(model(**batch).loss.item())
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=8, help="of a batch")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a clip")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3, help="timed steps of each kind")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Prints the table; `folder` is for clips and features."""
    import torch

    from lookhear.training.avsr.examples import ClipCollator
    from lookhear.training.avsr.feature_writing import FeatureWriter, frozen_parts
    from lookhear.training.avsr.features import FeatureCollator
    from lookhear.training.avsr.recipe import load_recipe
    from lookhear.training.avsr.train import build_parts

    torch.set_num_threads(options.threads)
    write_clips(folder / "clips", options.clips, options.seconds)
    data = [f"data.train=[{folder / 'clips'}]", "data.validation=[]", f"data.cache_features={folder / 'features'}"]
    training = [f"training.output_dir={folder / 'run'}", "training.bf16=false", "training.use_cpu=true"]
    schedule = ["training.lr_scheduler_type=constant", "training.lr_scheduler_kwargs={}", "training.eval_strategy=no"]
    others = ["training.dataloader_num_workers=0", "training.load_best_model_at_end=false"]
    recipe = load_recipe(SHIPPED, ["model.initialise=[]", *data, *training, *schedule, *others])
    parts = build_parts(recipe)
    named = frozen_parts(parts.model, recipe.model.freeze)
    frozen = list(named.values())
    for module in frozen:
        module.requires_grad_(False)
    before = [[value.clone() for value in module.state_dict().values()] for module in frozen]
    writer = FeatureWriter(parts.model, parts.processor, recipe, parts.arguments)
    begin = time.process_time()
    stored = writer.store("train", parts.train)
    written = time.process_time() - begin
    size = sum(path.stat().st_size for path in (folder / "features").rglob("*.parquet"))

    kinds = {
        "computed": (parts.train, ClipCollator(parts.processor)),
        "stored": (stored, FeatureCollator(parts.processor)),
    }
    batches = [collator([clips[place] for place in range(options.clips)]) for clips, collator in kinds.values()]
    losses = losses_of(parts.model, frozen, batches)
    trained = [parameter for parameter in parts.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
    steps = {
        kind: make_step(parts.model, optimizer, frozen, clips, collator, options.clips)
        for kind, (clips, collator) in kinds.items()
    }
    seconds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for turn in range(options.repeat + 1):  # the first one warms up
        for kind, step in steps.items():
            start = time.process_time(), time.perf_counter()
            step()
            if turn:
                seconds[kind].append((time.process_time() - start[0], time.perf_counter() - start[1]))
    print_table(seconds, losses)
    parameters = [sum(p.numel() for p in group) for group in (trained, parts.model.parameters())]
    after = [list(module.state_dict().values()) for module in frozen]
    same = all(map(torch.equal, chain.from_iterable(before), chain.from_iterable(after)))
    print(f"\nfrozen weights bitwise unchanged: {same}")
    print(f"trained parameters: {parameters[0]:,} of {parameters[1]:,}")
    print(f"storing: {written / options.clips:.1f} processor s and {size / options.clips / 1e3:.0f} kB a clip, once")


def print_table(seconds: dict[str, list[tuple[float, float]]], losses: list[float]) -> None:
    """Prints one row per kind of step, in Markdown, from processor and clock seconds of each step."""
    print("| features | processor s a step, least | clock s, least | times as fast | loss of the same batch |")
    print("|---|---:|---:|---:|---:|")
    first = min(seconds["computed"])[0]
    for (kind, taken), loss in zip(seconds.items(), losses, strict=True):
        processor, clock = (min(part) for part in zip(*taken, strict=True))
        print(f"| {kind} | {processor:.2f} | {clock:.2f} | {first / processor:.1f} | {loss:.5f} |")


if __name__ == "__main__":
    main()
