"""A training step of GLEE-Lite beside one of transformers' Mask2Former-R50: seconds and peak memory, and their ratios.

    python benchmarks/glee_training.py [--size 480x640] [--images 2] [--objects 20] [--threads 2] [--repeat 3]

Both have random weights, 300 queries, ResNet-50, nine decoder layers with losses on each, and see the same random
images with the same objects (boxes and masks) of COCO's 80 labels; a step is forward, losses, backward, clipping and
AdamW, in float32. GLEE-Lite reads its labels with CLIP's text encoder and trains that too; it learns boxes beside
masks, with denoising queries ("denoising") and without. The steps take turns, so that a busy machine slows all of them
equally; peak memory is that of a process that does nothing else (imports, weights and optimiser included). About ten
minutes on two threads.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

QUERIES, CLASSES = 300, 80


@dataclass
class Learner:
    """A model to train: `build()` returns it, `inputs(images)` what one step of it gets."""

    key: str
    name: str
    build: Callable
    inputs: Callable


def build_mask2former():
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

    stages = [f"stage{number}" for number in range(1, 5)]
    backbone = ResNetConfig(out_features=stages)
    config = Mask2FormerConfig(backbone_config=backbone, num_queries=QUERIES, num_labels=CLASSES)
    return Mask2FormerForUniversalSegmentation(config)


def build_glee():
    from lookhear import GleeConfig, GleeForObjectDetection

    return GleeForObjectDetection(GleeConfig.lite(num_queries=QUERIES))


def build_glee_with_denoising():
    from lookhear import GleeConfig, GleeForObjectDetection

    return GleeForObjectDetection(GleeConfig.lite(num_queries=QUERIES, denoising_tables={"coco": CLASSES}))


@dataclass
class Images:
    """Noise `(images, 3, height, width)`, and for each image masks `(objects, height, width)` bool and classes."""

    pixel_values: object
    masks: list
    classes: list


def make_images(count: int, objects: int, height: int, width: int) -> Images:
    """Objects are ellipses of many sizes."""
    import torch

    random = torch.Generator().manual_seed(0)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    masks, classes = [], []
    for _ in range(count):
        centre = torch.rand(objects, 2, 1, 1, generator=random) * torch.tensor([height, width])[:, None, None]
        radius = (0.03 + 0.2 * torch.rand(objects, 2, 1, 1, generator=random)) * height
        inside = ((rows - centre[:, 0]) / radius[:, 0]) ** 2 + ((columns - centre[:, 1]) / radius[:, 1]) ** 2 < 1
        masks.append(inside)
        classes.append(torch.randint(0, CLASSES, (objects,), generator=random))
    return Images(torch.randn(count, 3, height, width, generator=random), masks, classes)


def mask2former_inputs(images: Images) -> dict:
    return {
        "pixel_values": images.pixel_values,
        "mask_labels": [masks.float() for masks in images.masks],
        "class_labels": images.classes,
    }


def glee_inputs(images: Images, **supervision) -> dict:
    import torch
    from torchvision.ops import box_convert, masks_to_boxes

    from lookhear.modeling.glee import GleeSupervision

    height, width = images.pixel_values.shape[-2:]
    size = torch.tensor([width, height, width, height])
    labels = [
        {"class_labels": classes, "boxes": box_convert(masks_to_boxes(masks), "xyxy", "cxcywh") / size, "masks": masks}
        for masks, classes in zip(images.masks, images.classes)
    ]
    input_ids = torch.full((CLASSES, 4), 49407)  # begin, one or two words, end
    input_ids[:, 0], input_ids[:, 1] = 49406, torch.arange(1000, 1000 + CLASSES)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[::2, 3] = 0
    return {
        "pixel_values": images.pixel_values,
        "pixel_mask": torch.ones(len(labels), height, width, dtype=torch.int64),
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "labels": labels,
        "supervision": GleeSupervision(**supervision),
    }


def glee_denoising_inputs(images: Images) -> dict:
    return glee_inputs(images, denoising_table="coco")


LEARNERS = (
    Learner("mask2former", "Mask2Former-R50", build_mask2former, mask2former_inputs),
    Learner("glee", "GLEE-Lite", build_glee, glee_inputs),
    Learner("glee-denoising", "GLEE-Lite, denoising", build_glee_with_denoising, glee_denoising_inputs),
)


def make_step(learner: Learner, images: Images) -> Callable[[], None]:
    """Returns a function that does one training step."""
    import torch

    torch.manual_seed(0)
    model = learner.build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    inputs = learner.inputs(images)

    def step() -> None:
        model(**inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        optimizer.zero_grad()

    return step


def peak_memory(learner: Learner, images: Images) -> float:
    """Returns the peak resident memory of this process in GB, after two steps."""
    step = make_step(learner, images)
    for _ in range(2):  # from the second step on, the optimiser has its state
        step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; on macOS bytes
    return peak / (1e9 if sys.platform == "darwin" else 1e9 / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="480x640", help="height x width of the images, multiples of 32")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--objects", type=int, default=20, help="of each image")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3, help="timed steps of each model")
    parser.add_argument("--memory-of", choices=[learner.key for learner in LEARNERS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(options.threads))
    # First, while this process is small: a child's peak counts from the size of the process that starts it.
    memory = {} if options.memory_of else {learner.key: memory_in_child(learner) for learner in LEARNERS}
    import torch

    torch.set_num_threads(options.threads)
    images = make_images(options.images, options.objects, *(int(side) for side in options.size.split("x")))
    if options.memory_of:
        print(peak_memory(next(learner for learner in LEARNERS if learner.key == options.memory_of), images))
        return
    steps = {learner.key: make_step(learner, images) for learner in LEARNERS}
    seconds: dict[str, list[float]] = {key: [] for key in steps}
    for turn in range(options.repeat + 1):  # the first turn warms up
        for key, step in steps.items():
            start = time.perf_counter()
            step()
            elapsed = time.perf_counter() - start
            print(f"step {turn} of {options.repeat}: {key} {elapsed:.2f} s", file=sys.stderr)
            seconds[key] += [elapsed] if turn else []
    print_table(seconds, memory)


def memory_in_child(learner: Learner) -> float:
    """Returns the peak memory of a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", learner.key]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def print_table(seconds: dict[str, list[float]], memory: dict[str, float]) -> None:
    """Prints one row per model, in Markdown, with its ratios to the first."""
    print("| model | s a step, least | ratio | peak memory GB | ratio |")
    print("|---|---:|---:|---:|---:|")
    peer = LEARNERS[0].key
    for learner in LEARNERS:
        least, peak = min(seconds[learner.key]), memory[learner.key]
        ratios = least / min(seconds[peer]), peak / memory[peer]
        print(f"| {learner.name} | {least:.2f} | {ratios[0]:.2f} | {peak:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
