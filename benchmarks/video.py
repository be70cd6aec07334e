"""GLEE-Lite beside transformers' Sam2Video and EdgeTamVideo on a video: frames per second and memory.

    python benchmarks/video.py [--sizes 512 1024] [--frames 20] [--threads 1] [--dtypes float32 bfloat16]
        [--only glee sam2 edgetam]

All have random weights and see the same square frames, each at the network's own size; a frame counts from pixels in
memory to masks of its size. Frames come one by one, as from a camera. Sam2Video (Hiera-T) and EdgeTamVideo (RepViT-M1)
follow what one, three or ten points in the first frame show; GLEE-Lite follows that too, with a pixel decoder that all
points share (with `doubt=1`, as random weights are always in doubt) or with a pass of it for each, or everything that
80 labels name (ten objects a frame). Eight frames go before, untimed; then groups of four are timed, and the fastest
one counts: by the clock, and in processor time, which hardly minds what else runs on the machine. Every case runs in
a process of its own: its peak memory is that of the process (imports and weights included; on a GPU, of its tensors),
and what it grows by with each further frame is measured over the timed ones. With CUDA there are rows in float32,
bfloat16, and bfloat16 compiled.

EdgeTamVideo needs timm (`pip install timm`) and is left out without it. About an hour on one thread.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

WARM_UP, GROUP = 8, 4  # frames; seven frames of memory are then full, and GLEE takes four at a time
LABELS = [
    f"{colour} {kind}"
    for colour in ("red", "orange", "yellow", "green", "blue", "purple", "black", "white")
    for kind in ("circle", "square", "triangle", "star", "heart", "moon", "cross", "ring", "person", "object")
]
VARIANTS = ("float32", "bfloat16", "bfloat16 compiled")


@dataclass(frozen=True)
class Case:
    """
    A model, what it is asked for, and how: its key for the command line, its name, objects that are shown (0: labels).
    """

    key: str
    model: str
    shown: int
    size: int
    device: str
    variant: str

    @property
    def asked(self) -> str:
        return {0: f"{len(LABELS)} labels", 1: "a point"}.get(self.shown, f"{self.shown} points")


@dataclass(frozen=True)
class Measured:
    """
    Seconds of a frame by the clock and of the processor, peak memory in GB, and by how many MB that grows with a
    frame.
    """

    seconds: float
    processor: float
    peak: float
    growth: float


MODELS = (
    ("sam2", "Sam2Video, Hiera-T", (1, 3, 10)),
    ("edgetam", "EdgeTamVideo, RepViT-M1", (1, 3, 10)),
    ("glee", "GLEE-Lite", (1, 3, 10, 0)),
    ("exact", "GLEE-Lite, following exactly", (1, 3)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=[512, 1024], help="sides of the frames, from 256, multiples of 32"
    )
    parser.add_argument("--frames", type=int, default=20, help=f"of the video, the first {WARM_UP} untimed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", choices=VARIANTS[:2], default=["float32"], help="on the CPU")
    parser.add_argument("--only", nargs="+", choices=[key for key, _, _ in MODELS], help="only these models")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.frames < WARM_UP + GROUP:
        parser.error(f"--frames must be at least {WARM_UP + GROUP}")
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(options.threads))
    if options.case:
        print(json.dumps(asdict(measure(Case(**options.case), options.frames, options.threads))))
        return
    # This process imports nothing large: a child's peak counts from the size of the process that starts it.
    has_cuda = _answers("torch.cuda.is_available()", "torch")
    without = {"edgetam"} if not _answers("importlib.util.find_spec('timm')", "importlib.util") else set()
    if without and (not options.only or "edgetam" in options.only):
        print("EdgeTamVideo is left out: pip install timm", file=sys.stderr)
    ways = [("cpu", dtype) for dtype in options.dtypes]
    ways += [("cuda", variant) for variant in VARIANTS] if has_cuda else []
    chosen = [each for each in MODELS if each[0] not in without and (not options.only or each[0] in options.only)]
    print_header()
    for device, variant in ways:
        for size in options.sizes:
            peers: dict[int, Measured] = {}
            for key, name, asked in chosen:
                for shown in asked:
                    case = Case(key, name, shown, size, device, variant)
                    measured = measure_in_child(case, options.frames, options.threads)
                    if key == MODELS[0][0]:
                        peers[shown] = measured
                    print_row(case, measured, peers.get(shown))


def _answers(question: str, module: str) -> bool:
    """Asks Python, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", f"import {module}; raise SystemExit(not {question})"])
    return done.returncode == 0


def measure_in_child(case: Case, frames: int, threads: int) -> Measured:
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case)), "--frames", str(frames)]
    done = subprocess.run([*command, "--threads", str(threads)], stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def measure(case: Case, frames: int, threads: int) -> Measured:
    """Goes through the video in this process."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    follow = follow_with_sam if case.key in ("sam2", "edgetam") else follow_with_glee
    groups, processor, before = [], [], 0.0
    with torch.inference_mode():
        video = follow(case, frames)
        for index in range(frames):
            if index >= WARM_UP and (index - WARM_UP) % GROUP == 0:
                start, start_processor = _now(case.device), time.process_time()
            next(video)
            if index >= WARM_UP and (index - WARM_UP) % GROUP == GROUP - 1:
                groups.append(_now(case.device) - start)
                processor.append(time.process_time() - start_processor)
            if index == WARM_UP + GROUP - 1:
                before = memory(case.device)
    further = frames - WARM_UP - GROUP
    growth = (memory(case.device) - before) / further if further else 0.0
    return Measured(min(groups) / GROUP, min(processor) / GROUP, memory(case.device) / 1000, growth)


def memory(device: str) -> float:
    """Returns the peak until now in MB: of the process, or of the tensors on a GPU."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; on macOS bytes
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def _now(device: str) -> float:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


# ---------------------------------------------------------------------------------------------------------- the video


def film(size: int, count: int) -> Iterator:
    """Frames `(size, size, 3)` uint8: squares of one colour each that move over noise."""
    import numpy as np

    random = np.random.default_rng(0)
    ground = random.integers(0, 255, (size, size, 3), dtype=np.uint8)
    for index in range(count):
        frame = ground.copy()
        for place, (x, y) in enumerate(places(size, 5)):
            frame[y - size // 16 : y + size // 16, x + index - size // 16 : x + index + size // 16] = 40 * place + 40
        yield frame


def places(size: int, count: int) -> list[tuple[int, int]]:
    """Returns where the squares are in the first frame, (x, y): five on a diagonal, then five above it."""
    along = [(size // 8 + place * size // 6, size // 8 + place * size // 6) for place in range(5)]
    return [*along, *((x, y // 2 + size // 16) for x, y in along[1:]), (size // 8, size // 2)][:count]


# ---------------------------------------------------------------------------------------------------------- the models


def follow_with_glee(case: Case, frames: int) -> Iterator:
    """Follows the squares with GLEE and the packaged checkpoint's tokenizer, which knows the labels' words."""
    from pathlib import Path

    from transformers import AutoProcessor, pipeline

    import lookhear
    from lookhear import GleeConfig, GleeForObjectDetection, GleeImageProcessor

    processor = AutoProcessor.from_pretrained(Path(lookhear.__file__).parent / "model_cards" / "glee-tiny")
    processor.image_processor = GleeImageProcessor(size={"shortest_edge": case.size, "longest_edge": case.size})
    model = prepared(GleeForObjectDetection(GleeConfig.lite()), case)
    compile_parts(case, model.model.backbone, model.model.pixel_decoder, model.model.decoder)
    see = pipeline("object-perception", model=model, processor=processor, device=case.device)
    video = {"video": film(case.size, frames), "fps": 25}
    if case.shown:
        following = "exact" if case.key == "exact" else "shared"
        shown = [[place] for place in places(case.size, case.shown)]
        return see(video, points=shown, following=following, doubt=1.0)
    return see(video, labels=LABELS, threshold=0.0, top_k=10, tracking="minvis")  # which hands out as many as it may


def follow_with_sam(case: Case, frames: int) -> Iterator:
    """Follows the squares as transformers' documentation of both models streams a video."""
    from transformers import Sam2ImageProcessor, Sam2VideoProcessor, Sam2VideoVideoProcessor

    size = {"height": case.size, "width": case.size}
    processor = Sam2VideoProcessor(Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size))
    model = prepared(build_sam2(case.size) if case.key == "sam2" else build_edgetam(case.size), case)
    compile_parts(case, model.vision_encoder, model.memory_attention, model.mask_decoder)
    session = processor.init_video_session(inference_device=case.device, dtype=model.dtype)
    for index, frame in enumerate(film(case.size, frames)):
        inputs = processor(images=frame, device=case.device, return_tensors="pt")
        if index == 0:
            processor.add_inputs_to_inference_session(
                inference_session=session,
                frame_idx=0,
                obj_ids=list(range(1, case.shown + 1)),
                input_points=[[[list(place)] for place in places(case.size, case.shown)]],
                input_labels=[[[1]] * case.shown],
                original_size=inputs["original_sizes"][0],
            )
        found = model(inference_session=session, frame=inputs["pixel_values"][0])
        masks = processor.post_process_masks([found.pred_masks], original_sizes=inputs["original_sizes"])[0]
        yield masks.cpu().numpy()


def build_sam2(size: int):
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig

    backbone = Sam2HieraDetConfig(image_size=[size, size])
    vision = Sam2VisionConfig(backbone_config=backbone, backbone_feature_sizes=feature_sizes(size))
    return Sam2VideoModel(Sam2VideoConfig(vision_config=vision, **sized(size)))


def build_edgetam(size: int):
    from transformers import EdgeTamVideoConfig, EdgeTamVideoModel, EdgeTamVisionConfig, TimmWrapperConfig

    layers = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    backbone = TimmWrapperConfig(architecture="repvit_m1", model_args=layers)
    vision = EdgeTamVisionConfig(backbone_config=backbone, backbone_feature_sizes=feature_sizes(size))
    return EdgeTamVideoModel(EdgeTamVideoConfig(vision_config=vision, **sized(size)))


def feature_sizes(size: int) -> list[list[int]]:
    return [[size // stride] * 2 for stride in (4, 8, 16)]


def sized(size: int) -> dict:
    """Returns what both configurations need for a size other than 1024."""
    return {
        "image_size": size,
        "prompt_encoder_config": {"image_size": size},
        "memory_attention_rope_feat_sizes": [size // 16] * 2,
    }


def prepared(model, case: Case):
    import torch

    dtype = torch.float32 if case.variant == "float32" else torch.bfloat16
    return model.to(case.device, dtype).eval()


def compile_parts(case: Case, *parts) -> None:
    if case.variant.endswith("compiled"):
        for part in parts:
            part.compile()


# ---------------------------------------------------------------------------------------------------------- the table


def print_header() -> None:
    columns = ["device", "frames", "model", "asked for", "s a frame", "frames/s", "processor s a frame"]
    columns += ["times Sam2Video's speed", "peak memory GB", "more a frame MB"]
    print("| " + " | ".join(columns) + " |")
    print("|---|---|---|---" + "|---:" * 6 + "|", flush=True)


def print_row(case: Case, measured: Measured, peer: Measured | None) -> None:
    """Speeds are compared in processor time on the CPU, by the clock on a GPU."""
    on_cpu = case.device == "cpu"
    row = [
        f"{'CPU' if on_cpu else 'GPU'}, {case.variant}",
        f"{case.size}x{case.size}",
        case.model,
        case.asked,
    ]
    row += [f"{measured.seconds:.3f}", f"{1 / measured.seconds:.2f}", f"{measured.processor:.3f}" if on_cpu else ""]
    times = "" if peer is None else _ratio(peer, measured, on_cpu)
    print("| " + " | ".join([*row, times, f"{measured.peak:.2f}", f"{measured.growth:.1f}"]) + " |", flush=True)


def _ratio(peer: Measured, measured: Measured, on_cpu: bool) -> str:
    return f"{peer.processor / measured.processor if on_cpu else peer.seconds / measured.seconds:.2f}"


if __name__ == "__main__":
    main()
