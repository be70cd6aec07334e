"""The project on a GPU: first whether it gives what the CPU gives, then how fast it is, with peers in the same run.

    python benchmarks/gpu.py [--clips FOLDER] [--only PART ...]
    python benchmarks/gpu.py --device cpu --small     # a trial of the script itself, with tiny models

At most 8 minutes. Each part has a time limit, and what fails is named in one line and left out, so that the rest is
measured all the same. The first four parts take 100 s and say what matters most: `right` (texts, boxes, masks and
tracks beside the CPU's, in three precisions), `speech` (encoder, joint search with and without CUDA graphs),
`pictures` (GLEE-Lite, and `see` from a picture to masks), `fits` (a batch that is halved).

Models have random weights at full size, unless a checkpoint is named. Figures are the least of several calls, each
waited for. `--clips` is a folder of talking faces for `right`; without one, portraits are synthesized.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

CHARACTERS_A_SECOND = 15  # of English
TOKENS = 45  # that Whisper writes of ten seconds of English
LABELS = ["circle", "square", "triangle", "star", "heart", "ring", "moon", "cross"]
BEAMS, CTC_WEIGHT = 5, 0.1
H, W = 800, 1333  # of a picture


@dataclass(frozen=True)
class Bench:
    """Where and how large: the device, whether models are tiny, and a folder of clips, or None."""

    device: str
    small: bool
    clips: Path | None

    @property
    def seconds(self) -> int:
        """Seconds of a clip."""
        return 2 if self.small else 10

    def batches(self, *full: int) -> tuple[int, ...]:
        return (1, 2) if self.small else full

    @property
    def picture(self) -> tuple[int, int]:
        return (96, 128) if self.small else (H, W)


# ----------------------------------------------------------------------------------------------------------- measuring


def say(text: str) -> None:
    print(f"   {text}", flush=True)


def wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def timed(bench: Bench, call: Callable[[], Any], budget: float = 0.7, warm: int = 1) -> float:
    """Returns the least seconds of a call; called for `budget` seconds, twice at least."""
    for _ in range(warm):
        call()
    wait(bench.device)
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < (1 if bench.small else 2) or (not bench.small and time.perf_counter() - begin < budget):
        start = time.perf_counter()
        call()
        wait(bench.device)
        times.append(time.perf_counter() - start)
    return min(times)


def release(bench: Bench) -> None:
    """Frees what earlier cases hold, and counts the peak of memory anew."""
    import torch

    gc.collect()
    if bench.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(bench: Bench) -> str:
    import torch

    return f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if bench.device == "cuda" else "memory not measured"


@contextlib.contextmanager
def guarded(what: str) -> Iterator[None]:
    """Names a failing case in one line and goes on; the end of a part's time is none."""
    try:
        yield
    except TimeoutError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        say(f"FAILED {what}: {type(error).__name__}: {reason}")


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises a TimeoutError where its body takes longer."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"its {seconds:g} s are over")

    before = signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)  # of a limit that somebody else has set
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left)


def built(bench: Bench, make: Callable[[], Any], dtype: Any, train: bool = False) -> Any:
    """Builds a model on the device, with the same random weights each time."""
    import torch

    torch.manual_seed(0)
    with torch.device(bench.device):
        model = make()
    return model.to(bench.device, dtype).train(train)


# --------------------------------------------------------------------------------------------------------------- right


def right(bench: Bench) -> None:
    """Compares avsr-grid-tiny and glee-tiny with the CPU in float32, the reference of every line."""
    import lookhear

    cards = Path(lookhear.__file__).parent / "model_cards"
    ways = [("float32 on the CPU", "cpu", "float32")]
    ways += [(dtype, bench.device, dtype) for dtype in ("float32", "float16", "bfloat16")]
    with guarded("clips"), tempfile.TemporaryDirectory() as folder:
        files = clip_files(bench, Path(folder))
        compare_texts(cards / "avsr-grid-tiny", files, ways)
    with guarded("pictures"):
        compare_objects(cards / "glee-tiny", ways)
    with guarded("full size"):
        compare_networks(bench)


def clip_files(bench: Bench, folder: Path) -> list[str]:
    """Returns some clips of talking faces: given ones, or synthesized ones."""
    if bench.clips is None:
        from lookhear.training.avsr.synthesis import synthesize_corpus

        bench = Bench(bench.device, bench.small, synthesize_corpus(folder, 2 if bench.small else 4, seed=1).parent)
    files = sorted(path for path in Path(bench.clips or folder).rglob("*") if path.suffix in (".mp4", ".mov", ".mkv"))
    if not files:
        raise ValueError(f"--clips {bench.clips} has no videos")
    return [str(path) for path in files[: 1 if bench.small else 8]]


def compare_texts(card: Path, files: list[str], ways: list[tuple[str, str, str]]) -> None:
    from transformers import pipeline

    expected: dict[str, list[dict]] = {}
    for name, device, dtype in ways:
        with guarded(f"avsr-grid-tiny, {name}"):
            asr = pipeline("audio-visual-speech-recognition", model=str(card), device=device, dtype=dtype)
            for modality in ("audiovisual", "visual", "audio"):
                found = asr(files, batch_size=4, modality=modality, return_timestamps="word")
                others = expected.setdefault(modality, found)
                same = sum(one["text"] == other["text"] for one, other in zip(found, others))
                off = max(abs(one["confidence"] - other["confidence"]) for one, other in zip(found, others))
                say(f"avsr-grid-tiny {name:18s} {modality:11s} {same}/{len(files)} texts, confidence within {off:.3f}")


def compare_objects(card: Path, ways: list[tuple[str, str, str]]) -> None:
    import numpy as np
    from transformers import pipeline

    from lookhear.training.glee.scenes.moving_scenes import MovingRecipe, make_moving_scene

    scene = make_moving_scene(np.random.default_rng(5), recipe=MovingRecipe(frames=8))
    frames = [frame.image for frame in scene]
    asked = {"labels": LABELS, "expressions": ["the star"], "points": [[(40, 40)]]}
    expected: dict[str, Any] = {}
    for name, device, dtype in ways:
        with guarded(f"glee-tiny, {name}"):
            see = pipeline("object-perception", model=str(card), device=device, dtype=dtype)
            for kind, prompt in asked.items():
                found = see(frames[0], **{kind: prompt})
                say(f"glee-tiny {name:18s} {kind:11s} {difference(found, expected.setdefault(kind, found))}")
            for tracking in ("memory", "minvis"):
                results = list(see({"video": iter(frames), "fps": 25}, labels=LABELS, tracking=tracking))
                tracks = [[(one["track_id"], one["label"]) for one in each] for each in results]
                same = sum(one == other for one, other in zip(tracks, expected.setdefault(tracking, tracks)))
                say(f"glee-tiny {name:18s} video {tracking}: {same}/8 frames with the same tracks")


def difference(found: list[dict], expected: list[dict]) -> str:
    """Says in a few words by how much results of `see` differ."""
    import numpy as np

    if [one["label"] for one in found] != [one["label"] for one in expected]:
        return f"{len(found)} objects for {len(expected)}, or in another order"
    pairs = list(zip(found, expected))
    boxes = max((abs(one["box"][key] - other["box"][key]) for one, other in pairs for key in one["box"]), default=0.0)
    scores = max((abs(one["score"] - other["score"]) for one, other in pairs), default=0.0)
    masks = sum(int((np.asarray(one["mask"]) != np.asarray(other["mask"])).sum()) for one, other in pairs)
    return f"{len(found)} objects, boxes within {boxes:.3f} pixel, scores within {scores:.4f}, {masks} pixels of masks"


def compare_networks(bench: Bench) -> None:
    """Compares GLEE-Lite at random weights, whose sampling is another kernel on a GPU, with the CPU."""
    import detection
    import torch

    cpu = Bench("cpu", bench.small, None)
    model = built(cpu, glee(bench), torch.float32)
    inputs = detection.cached_glee_inputs(model, 96, 128)
    with torch.no_grad():
        expected = model(**inputs)
        found = model.to(bench.device)(**{name: value.to(bench.device) for name, value in inputs.items()})
    off = {name: float((found[name].cpu() - expected[name]).abs().max()) for name in ("logits", "pred_boxes")}
    say(f"GLEE-Lite, random weights, float32: off by at most {off}")


# -------------------------------------------------------------------------------------------------------------- speech


def recogniser(bench: Bench) -> Callable[[], Any]:
    """Returns what builds AVSR at the paper's size, or a tiny one."""
    from transformers import Wav2Vec2Config

    from lookhear import AvsrConfig, AvsrForConditionalGeneration

    settings: dict[str, Any] = {}
    if bench.small:
        sound = Wav2Vec2Config(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            mask_time_prob=0.0,
            mask_feature_prob=0.0,
        )
        lips = {"layer_type": "basic", "hidden_sizes": (8, 8), "depths": (1, 1), "stem_channels": 8}
        layers = {"encoder_layers": 1, "fusion_layers": 1, "decoder_layers": 1}
        settings = {**layers, "hidden_size": 32, "num_attention_heads": 2, "visual_config": lips}
        settings["audio_config"] = {"encoder_config": sound.to_dict()}
    return lambda: AvsrForConditionalGeneration(AvsrConfig(**settings))


def speech_inputs(bench: Bench, batch: int, dtype: Any) -> dict[str, Any]:
    import torch

    random = torch.Generator().manual_seed(0)
    sound = torch.randn(batch, 16000 * bench.seconds, generator=random)
    lips = torch.randn(batch, 25 * bench.seconds, 1, 112, 112, generator=random)
    return {"input_values": sound.to(bench.device, dtype), "pixel_values_videos": lips.to(bench.device, dtype)}


def speech(bench: Bench) -> None:
    """Times the encoder, and a joint search of as many steps as English has letters, which no rule ends before."""
    import torch

    dtype = torch.float32 if bench.device == "cpu" else torch.bfloat16
    model = built(bench, recogniser(bench), dtype)
    model.prepare_for_inference()
    steps = (1 if bench.small else CHARACTERS_A_SECOND) * bench.seconds
    for batch in bench.batches(1, 8, 32):
        with guarded(f"speech, batch {batch}"):
            release(bench)
            told = speech_times(bench, model, speech_inputs(bench, batch, dtype), steps)
            say(f"batch {batch:2d}: {told}; {peak(bench)}")


def speech_times(bench: Bench, model: Any, inputs: dict[str, Any], steps: int) -> str:
    """Says what one batch takes: the encoder, the search, CTC alone, and speech a second of all."""
    import torch

    with torch.no_grad():
        encoder = timed(bench, lambda: model.get_encoder()(**inputs))
        encoded = model.get_encoder()(**inputs)
    settings = {"num_beams": BEAMS, "ctc_weight": CTC_WEIGHT, "early_stopping": "never", "max_new_tokens": steps}
    seconds, texts = {}, {}
    first = 0.0
    for graphs in (False, True):
        model.generation_config.cuda_graphs = graphs
        begin = time.perf_counter()
        texts[graphs] = model.generate(encoder_outputs=encoded, **settings)
        wait(bench.device)
        first = time.perf_counter() - begin
        seconds[graphs] = timed(bench, lambda: model.generate(encoder_outputs=encoded, **settings))
    greedy = timed(bench, lambda: model.generate(encoder_outputs=encoded, search="greedy"), 0.3)
    spoken, alike = len(texts[True]) * bench.seconds, torch.equal(texts[True], texts[False])
    plain, graph = (1e3 * seconds[graphs] / steps for graphs in (False, True))
    return (
        f"encoder {encoder * 1e3:.1f} ms; search {graph:.2f} ms a step, {plain:.2f} without graphs, the first one "
        f"{first - seconds[True]:.2f} s more, texts {'alike' if alike else 'DIFFER'}; RTFx "
        f"{spoken / (encoder + seconds[True]):.0f}, CTC alone {spoken / (encoder + greedy):.0f}"
    )


def speech_peers(bench: Bench) -> None:
    """Times Whisper large-v3 and Parakeet CTC 1.1B at random weights on clips of the same length."""
    import torch
    from transformers import (
        GenerationConfig,
        ParakeetCTCConfig,
        ParakeetForCTC,
        WhisperConfig,
        WhisperForConditionalGeneration,
    )

    dtype = torch.float32 if bench.device == "cpu" else torch.bfloat16
    wide, layers, heads, inner = (64, 1, 2, 64) if bench.small else (1280, 32, 20, 5120)
    with guarded("Whisper"):
        sizes: dict[str, Any] = {"d_model": wide, "num_mel_bins": 128, "vocab_size": 51866}
        for part in ("encoder", "decoder"):
            sizes |= {f"{part}_layers": layers, f"{part}_attention_heads": heads, f"{part}_ffn_dim": inner}
        config = WhisperConfig(**sizes, suppress_tokens=None, begin_suppress_tokens=None)
        model = built(bench, lambda: WhisperForConditionalGeneration(config), dtype)
        count = 4 if bench.small else TOKENS
        plan = GenerationConfig(min_new_tokens=count, max_new_tokens=count, do_sample=False, use_cache=True)
        plan.update(decoder_start_token_id=1, bos_token_id=1, eos_token_id=2, pad_token_id=2)
        for batch in bench.batches(1, 32):
            sound = torch.randn(batch, 128, 2 * config.max_source_positions, device=bench.device).to(dtype)
            seconds = timed(bench, lambda sound=sound: model.generate(sound, generation_config=plan), 1.0)
            speed = f"{seconds * 1e3:.0f} ms, RTFx {batch * 10 / seconds:.0f}"
            say(f"Whisper large-v3's size, greedy, batch {batch}: {speed}")
        del model
    release(bench)
    with guarded("Parakeet"):
        small = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
        settings = {"encoder_config": {**small, "subsampling_conv_channels": 32}} if bench.small else {}
        config = ParakeetCTCConfig(**settings)
        model = built(bench, lambda: ParakeetForCTC(config), dtype)
        for batch in bench.batches(1, 32):
            bins = config.encoder_config.num_mel_bins
            sound = torch.randn(batch, 100 * bench.seconds, bins, device=bench.device).to(dtype)
            with torch.no_grad():
                seconds = timed(bench, lambda sound=sound: model(input_features=sound).logits.argmax(-1))
            spoken = batch * bench.seconds
            say(f"Parakeet CTC's size, greedy, batch {batch}: {seconds * 1e3:.1f} ms, RTFx {spoken / seconds:.0f}")


# ------------------------------------------------------------------------------------------------------------ pictures


def glee(bench: Bench, size: str = "lite") -> Callable[[], Any]:
    """Returns what builds GLEE in a published size, or a tiny one."""
    from lookhear import GleeConfig, GleeForObjectDetection

    less = {"encoder_layers": 1, "decoder_layers": 1, "num_queries": 20} if bench.small else {}
    return lambda: GleeForObjectDetection(getattr(GleeConfig, "lite" if bench.small else size)(**less))


def time_detector(bench: Bench, name: str, model: Any, inputs: dict[str, Any], batches: tuple[int, ...]) -> None:
    """Prints the pictures a second of a forward call, in batches of one picture repeated."""
    import torch

    for batch in batches:
        with guarded(f"{name}, batch {batch}"), torch.no_grad():
            release(bench)
            many = repeated(inputs, batch, bench.device)
            many["pixel_values"] = many["pixel_values"].to(model.dtype)
            seconds = timed(bench, partial(model, **many))
            say(f"{name}, batch {batch}: {batch / seconds:.1f} pictures a second, {peak(bench)}")


def repeated(inputs: dict[str, Any], batch: int, device: str) -> dict[str, Any]:
    """Repeats the picture and its caption; GLEE's embedded labels are those of all pictures."""
    own = ("pixel_values", "pixel_mask", "input_ids", "attention_mask", "token_type_ids")
    many = {n: value.expand(batch, *value.shape[1:]) if n in own else value for n, value in inputs.items()}
    return {name: value.to(device).contiguous() for name, value in many.items()}


def pictures(bench: Bench) -> None:
    """Times GLEE-Lite's forward call with cached labels, and `see` from a picture to masks of 100 objects."""
    import detection
    import numpy as np
    import torch
    from transformers import AutoProcessor, pipeline

    import lookhear

    dtype = torch.float32 if bench.device == "cpu" else torch.float16
    model = built(bench, glee(bench), dtype)
    with torch.no_grad():
        inputs = detection.cached_glee_inputs(model.float(), *bench.picture)
    model = model.to(dtype)
    inputs = {n: v.to(dtype) if v.is_floating_point() and n != "pixel_values" else v for n, v in inputs.items()}
    time_detector(bench, f"GLEE-Lite {dtype}, labels cached", model, inputs, bench.batches(1, 8))
    with guarded("see"):
        processor = AutoProcessor.from_pretrained(Path(lookhear.__file__).parent / "model_cards" / "glee-tiny")
        edges = {"shortest_edge": min(bench.picture), "longest_edge": max(bench.picture)}
        processor.image_processor = lookhear.GleeImageProcessor(size=edges)
        see = pipeline("object-perception", model=model, processor=processor, device=bench.device)
        picture = np.random.default_rng(0).integers(0, 255, (*bench.picture, 3), dtype=np.uint8)
        for batch in bench.batches(1, 8):
            call = [picture] * batch
            found = len(see(picture, labels=LABELS, threshold=0.0))
            seconds = timed(bench, lambda call=call: see(call, labels=LABELS, threshold=0.0, batch_size=len(call)))
            say(f"see, {found} objects, batch {batch}: {batch / seconds:.1f} pictures a second")


def picture_peers(bench: Bench) -> None:
    """Times MM-Grounding-DINO, RT-DETR and D-FINE, and GLEE's larger sizes."""
    import detection
    import torch
    from transformers import DFineConfig, DFineForObjectDetection, RTDetrConfig, RTDetrForObjectDetection

    half = torch.float32 if bench.device == "cpu" else torch.bfloat16
    batches = bench.batches(1, 8)
    with guarded("MM-Grounding-DINO-T"):
        model = built(bench, detection.build_mm_grounding_dino, half)
        size = (256, 256) if bench.small else bench.picture  # smaller ones have fewer pixels than it has queries
        inputs = detection.grounding_dino_inputs(model, *size)
        time_detector(bench, "MM-Grounding-DINO-T", model, inputs, batches)
        del model
    side = 192 if bench.small else 640
    for name, config, kind in (
        ("RT-DETR-R50, 80 classes, boxes only", RTDetrConfig, RTDetrForObjectDetection),
        ("D-FINE-L, 80 classes, boxes only", DFineConfig, DFineForObjectDetection),
    ):
        with guarded(name):
            model = built(bench, lambda kind=kind, config=config: kind(config(num_labels=80)), half)
            time_detector(
                bench, f"{name}, {side}x{side}", model, {"pixel_values": torch.randn(1, 3, side, side)}, batches
            )
            del model
    for size in () if bench.small else ("plus", "pro"):
        with guarded(f"GLEE-{size}"):
            model = built(bench, glee(bench, size), torch.float32)
            with torch.no_grad():
                inputs = detection.cached_glee_inputs(model, *((H, W) if size == "plus" else (1536, 1536)))
            inputs = {n: v.half() if v.is_floating_point() else v for n, v in inputs.items()}
            time_detector(bench, f"GLEE-{size}, labels cached", model.half(), inputs, batches)
            del model


def fits(bench: Bench) -> None:
    """Sees a batch that does not fit in a part of the memory: halved, with the same results and one warning."""
    import numpy as np
    import torch
    from transformers import pipeline

    import lookhear
    from lookhear.training.glee.scenes.scenes import make_scene

    card = Path(lookhear.__file__).parent / "model_cards" / "glee-tiny"
    see = pipeline("object-perception", model=str(card), device=bench.device, dtype="float32")
    side = 128 if bench.small else 1024
    see.processor.image_processor.size = {"shortest_edge": side, "longest_edge": side}
    count = 2 if bench.small else 8
    given = [make_scene(np.random.default_rng(seed), (side, side)).image for seed in range(count)]
    expected = see(given, labels=LABELS, threshold=0.05, batch_size=len(given))
    release(bench)
    if bench.device == "cuda":
        see(given[:1], labels=LABELS, threshold=0.05)
        one, total = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(0).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, 3 * one / total))
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = see(given, labels=LABELS, threshold=0.05, batch_size=len(given))
    finally:
        if bench.device == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)
    lines = sorted({str(each.message) for each in told if "fit in memory" in str(each.message)})
    worst = [difference(one, other) for one, other in zip(found, expected)]
    say(f"{lines or 'no warning'}; the first picture: {worst[0]}")


# ----------------------------------------------------------------------------------------------------- video, training


def videos(bench: Bench) -> None:
    """Times following of shown objects beside Sam2Video, see video.py."""
    import video

    cases = [("exact", "GLEE-Lite, following exactly"), ("glee", "GLEE-Lite"), ("sam2", "Sam2Video, Hiera-T")]
    side = 256 if bench.small else 1024
    for key, name in cases[:1] if bench.small else cases:
        for shown in (1,) if bench.small else (1, 5):
            with guarded(f"{name}, {shown} shown"):
                release(bench)
                variant = "float32" if bench.device == "cpu" else "bfloat16"
                case = video.Case(key, name, shown, side, bench.device, variant)
                measured = video.measure(case, video.WARM_UP + (1 if bench.small else 3) * video.GROUP, 1)
                say(f"{name}, {side}x{side}, {case.asked}: {1 / measured.seconds:.1f} frames a second, {peak(bench)}")


def training(bench: Bench) -> None:
    """Times training steps: GLEE-Lite beside Mask2Former-R50, AVSR with gradient checkpointing."""
    import glee_training
    import torch

    size = (64, 96) if bench.small else (H, 1344)
    for batch in (1,) if bench.small else (2, 8):
        images = glee_training.make_images(batch, 3 if bench.small else 20, *size)
        with guarded(f"GLEE-Lite, batch {batch}"):
            inputs = sent(glee_training.glee_inputs(images), bench.device)
            time_training(bench, f"GLEE-Lite, batch {batch}", built(bench, glee(bench), torch.float32, True), inputs)
        if not bench.small:
            with guarded(f"Mask2Former, batch {batch}"):
                inputs = sent(glee_training.mask2former_inputs(images), bench.device)
                model = built(bench, glee_training.build_mask2former, torch.float32, True)
                time_training(bench, f"Mask2Former-R50, batch {batch}", model, inputs)
    for batch, checkpointed in ((1, True),) if bench.small else ((8, False), (8, True), (16, True)):
        with guarded(f"AVSR, batch {batch}"):
            model = built(bench, recogniser(bench), torch.float32, True)
            if checkpointed:
                model.gradient_checkpointing_enable()
            labels = torch.randint(
                1, 39, (batch, 8 if bench.small else 151), generator=torch.Generator().manual_seed(1)
            )
            labels[:, -1] = model.config.eos_token_id
            inputs = {**speech_inputs(bench, batch, torch.float32), "labels": labels.to(bench.device)}
            name = f"AVSR, {bench.seconds} s, batch {batch}{', checkpointed' if checkpointed else ''}"
            time_training(bench, name, model, inputs)


def sent(value: Any, device: str) -> Any:
    """Moves the tensors of inputs to the device."""
    if isinstance(value, dict):
        return {name: sent(item, device) for name, item in value.items()}
    if isinstance(value, list):
        return [sent(item, device) for item in value]
    return value.to(device) if hasattr(value, "to") else value


def time_training(bench: Bench, name: str, model: Any, inputs: dict[str, Any]) -> None:
    import torch

    release(bench)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses: list[float] = []

    def step() -> None:
        with torch.autocast(bench.device, torch.bfloat16):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))

    seconds = timed(bench, step, 2.0)
    finite = all(loss == loss for loss in losses)
    say(f"{name}: {1 / seconds:.2f} steps a second, {peak(bench)}, losses finite: {finite}")


PARTS: tuple[tuple[str, Callable[[Bench], None], float], ...] = (  # with their most seconds; the first four take 100
    ("right", right, 40),
    ("speech", speech, 25),
    ("pictures", pictures, 20),
    ("fits", fits, 15),
    ("speech-peers", speech_peers, 60),
    ("picture-peers", picture_peers, 90),
    ("videos", videos, 90),
    ("training", training, 110),
)


def run_parts(bench: Bench, parts: list[tuple[str, Callable[[Bench], None], float]]) -> None:
    """Runs parts one after the other, each as long as it may take; one that fails doesn't end the rest."""
    begin = time.perf_counter()
    for name, part, seconds in parts:
        print(f"== {name} (at {time.perf_counter() - begin:.0f} s, at most {seconds:g} s)", flush=True)
        try:
            with limited(seconds * (20 if bench.small else 1)), guarded(name):  # a trial may be on a busy machine
                part(bench)
        except TimeoutError as error:
            say(f"{name} ends here: {error}")
        release(bench)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=Path, help="folder of clips of talking faces; by default they are synthesized")
    parser.add_argument("--only", nargs="+", choices=[name for name, _, _ in PARTS], help="only these parts")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny models, one call each: a trial of the script")
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1")
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA GPU here; --device cpu --small tries the script.", file=sys.stderr)
        return
    import lookhear  # noqa: F401  (registers the tasks)

    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}", flush=True)
    chosen = [part for part in PARTS if not options.only or part[0] in options.only]
    run_parts(Bench(options.device, options.small, options.clips), chosen)


if __name__ == "__main__":
    main()
