"""GLEE-Lite beside two open-vocabulary detectors of transformers: seconds, share of MM-Grounding-DINO-T's, memory.

    python benchmarks/detection.py [--sizes 480x640 800x1333] [--threads 2] [--repeat 5] [--only glee mm]

All models have random weights, see the same random image and look for COCO's 80 labels; what is timed is one forward
call on prepared tensors in float32, the cases in turn, so that a busy machine slows all of them equally. GLEE's label
embeddings are either computed in the call ("new") or before it ("cached"); the other two have no way to keep theirs.
Peak memory is that of a process that does nothing else (imports and weights included). With CUDA there are columns for
bfloat16, compiled. About ten minutes on two threads.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

# COCO's labels, each with its number of BERT word pieces where that isn't its number of words. CLIP has all the words.
LABELS = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant:3,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe:3,backpack,umbrella,handbag:2,tie,suitcase,"
    "frisbee:3,skis:2,snowboard:2,sports ball,kite,baseball bat,baseball glove,skateboard:2,surfboard:2,tennis racket,"
    "bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli:3,carrot:2,hot dog,pizza,"
    "donut:2,cake,chair,couch,potted plant:3,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,"
    "microwave,oven,toaster:2,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier:3,toothbrush:2"
).split(",")
CLIP_BEGIN, CLIP_END = 49406, 49407
BERT_CLS, BERT_SEP, BERT_DOT = 101, 102, 1012


@dataclass
class Detector:
    """A model to time: `build()` returns it, `inputs(model, height, width)` what one call of it gets."""

    key: str
    name: str
    text: str
    build: Callable
    inputs: Callable


def build_glee():
    from lookhear import GleeConfig, GleeForObjectDetection

    return GleeForObjectDetection(GleeConfig.lite())


def build_mm_grounding_dino():
    from transformers import BertConfig, MMGroundingDinoConfig, MMGroundingDinoForObjectDetection, SwinConfig

    config = MMGroundingDinoConfig(backbone_config=SwinConfig(out_indices=[2, 3, 4]), text_config=BertConfig())
    return MMGroundingDinoForObjectDetection(config)


def build_grounding_dino():
    from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

    config = GroundingDinoConfig(backbone_config=SwinConfig(out_indices=[2, 3, 4]), text_config=BertConfig())
    return GroundingDinoForObjectDetection(config)


def glee_inputs(model, height: int, width: int) -> dict:
    """Pads the image to multiples of 32, as GLEE's processor does, and the labels to the longest."""
    import torch

    pixel_values = torch.nn.functional.pad(image(height, width), (0, -width % 32, 0, -height % 32))
    pixel_mask = torch.zeros(1, *pixel_values.shape[-2:], dtype=torch.int64)
    pixel_mask[:, :height, :width] = 1
    words = [len(label.split(":")[0].split()) for label in LABELS]
    input_ids = torch.full((len(words), max(words) + 2), CLIP_END)
    for row, count in zip(input_ids, words):
        row[0] = CLIP_BEGIN
        row[1 : count + 1] = torch.arange(1000, 1000 + count)
    attention_mask = (torch.arange(input_ids.shape[1]) < torch.tensor(words)[:, None] + 2).long()
    return {
        "pixel_values": pixel_values,
        "pixel_mask": pixel_mask,
        "input_ids": input_ids,
        "attention_mask": attention_mask,
    }


def cached_glee_inputs(model, height: int, width: int) -> dict:
    inputs = glee_inputs(model, height, width)
    text = [inputs.pop(name).to(model.device) for name in ("input_ids", "attention_mask")]
    labels = model.get_label_embeddings(*text)
    return {**inputs, **labels}


def grounding_dino_inputs(model, height: int, width: int) -> dict:
    """Joins the labels to one caption, "person. bicycle. …", whose dots separate what may attend to each other."""
    import torch

    ids = [BERT_CLS]
    for label in LABELS:
        name, _, pieces = label.partition(":")
        ids += [*range(2000, 2000 + int(pieces or len(name.split()))), BERT_DOT]
    input_ids = torch.tensor([[*ids, BERT_SEP]])
    return {
        "pixel_values": image(height, width),
        "pixel_mask": torch.ones(1, height, width, dtype=torch.int64),
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "token_type_ids": torch.zeros_like(input_ids),
    }


def image(height: int, width: int):
    """Makes noise with mean 0 and variance 1, like a normalised image, `(1, 3, height, width)`."""
    import torch

    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


DETECTORS = (
    Detector("mm", "MM-Grounding-DINO-T", "new", build_mm_grounding_dino, grounding_dino_inputs),
    Detector("gdino", "Grounding DINO-T", "new", build_grounding_dino, grounding_dino_inputs),
    Detector("glee-new", "GLEE-Lite", "new", build_glee, glee_inputs),
    Detector("glee", "GLEE-Lite", "cached", build_glee, cached_glee_inputs),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["480x640", "800x1333"], help="height x width of the image")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5, help="timed calls of each case")
    parser.add_argument("--only", nargs="+", choices=[d.key for d in DETECTORS], help="only these models")
    parser.add_argument("--memory-of", choices=[d.key for d in DETECTORS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(options.threads))
    sizes = [tuple(int(side) for side in size.split("x")) for size in options.sizes]
    if options.memory_of:
        print(peak_memory(options.memory_of, sizes[0], options.threads))
        return
    detectors = [d for d in DETECTORS if not options.only or d.key in options.only]
    # First, while this process is small: a child's peak counts from the size of the process that starts it.
    memory = {(d.key, size): memory_in_child(d, size, options.threads) for d in detectors for size in sizes}
    seconds = time_on_cpu(detectors, sizes, options.threads, options.repeat)
    print_table(detectors, sizes, seconds, memory, time_on_gpu(detectors, sizes, options.repeat))


def prepare(detector: Detector, device: str = "cpu", dtype=None):
    """Builds the detector's model for inference, with the same random weights each time."""
    import torch

    torch.manual_seed(0)
    return detector.build().to(device=device, dtype=dtype).eval()


def prepare_inputs(detector: Detector, model, size: tuple[int, int]) -> dict:
    """Makes the inputs of the model, on its device and in its precision."""
    inputs = detector.inputs(model, *size)
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def time_on_cpu(detectors: list[Detector], sizes: list[tuple], threads: int, repeat: int) -> dict[tuple, list[float]]:
    """Seconds of each call by (detector, size). The detectors take turns; one call each goes before, untimed."""
    import torch

    torch.set_num_threads(threads)
    seconds = {(d.key, size): [] for d in detectors for size in sizes}
    models = {d.build: prepare(d) for d in {d.build: d for d in detectors}.values()}
    with torch.inference_mode():
        for size in sizes:
            inputs = {d.key: prepare_inputs(d, models[d.build], size) for d in detectors}
            for turn in range(repeat + 1):
                for d in detectors:
                    start = time.perf_counter()
                    models[d.build](**inputs[d.key])
                    elapsed = time.perf_counter() - start
                    print(f"{size} call {turn} of {repeat}: {d.key} {elapsed:.2f} s", file=sys.stderr)
                    if turn:
                        seconds[d.key, size].append(elapsed)
    return seconds


def time_on_gpu(detectors: list[Detector], sizes: list[tuple], repeat: int) -> dict[tuple, float]:
    """Returns the least seconds of a call by (detector, size), in bfloat16 and compiled; empty without CUDA."""
    import torch

    seconds = {}
    for d in detectors if torch.cuda.is_available() else ():
        model = prepare(d, "cuda", torch.bfloat16)
        compiled = torch.compile(model)
        with torch.inference_mode():
            for size in sizes:
                inputs = prepare_inputs(d, model, size)
                calls = []
                for _ in range(repeat + 3):  # three to compile and to warm up
                    torch.cuda.synchronize()
                    start = time.perf_counter()
                    compiled(**inputs)
                    torch.cuda.synchronize()
                    calls.append(time.perf_counter() - start)
                seconds[d.key, size] = min(calls[3:])
    return seconds


def memory_in_child(detector: Detector, size: tuple[int, int], threads: int) -> float:
    """Returns the peak resident memory in GB of a process that builds the model and calls it once."""
    command = [sys.executable, __file__, "--memory-of", detector.key, "--sizes", "x".join(map(str, size))]
    done = subprocess.run([*command, "--threads", str(threads)], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def peak_memory(key: str, size: tuple[int, int], threads: int) -> float:
    """Returns the peak resident memory of this process in GB, after one call."""
    import torch

    torch.set_num_threads(threads)
    detector = next(d for d in DETECTORS if d.key == key)
    with torch.inference_mode():
        model = prepare(detector)
        model(**prepare_inputs(detector, model, size))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; on macOS bytes
    return peak / (1e9 if sys.platform == "darwin" else 1e9 / 1024)


def print_table(
    detectors: list[Detector],
    sizes: list[tuple],
    seconds: dict[tuple, list[float]],
    memory: dict[tuple, float],
    on_gpu: dict[tuple, float],
) -> None:
    """Prints one row per size and case, in Markdown; times as shares of MM-Grounding-DINO-T's if it was measured."""

    def share(table: dict, d: Detector, size: tuple) -> str:
        reference = table.get((DETECTORS[0].key, size))
        return f"{_least(table[d.key, size]) / _least(reference):.2f}" if reference else ""

    columns = ["image", "model", "text", "s, least", "s, median", f"share of {DETECTORS[0].name}", "peak memory GB"]
    columns += ["GPU bf16 compiled ms", "share"] if on_gpu else []
    print("| " + " | ".join(columns) + " |")
    print("|---|---|---" + "|---:" * (len(columns) - 3) + "|")
    for size in sizes:
        for d in detectors:
            calls = seconds[d.key, size]
            row = ["x".join(map(str, size)), d.name, d.text, f"{min(calls):.2f}", f"{statistics.median(calls):.2f}"]
            row += [share(seconds, d, size), f"{memory[d.key, size]:.2f}"]
            row += [f"{1000 * on_gpu[d.key, size]:.1f}", share(on_gpu, d, size)] if on_gpu else []
            print("| " + " | ".join(row) + " |")


def _least(times: list[float] | float) -> float:
    return min(times) if isinstance(times, list) else times


if __name__ == "__main__":
    main()
