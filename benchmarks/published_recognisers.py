"""Speed of the presets of other authors' recognisers, at random weights: seconds of a clip read in one second.

    python benchmarks/published_recognisers.py [--presets usr2-base auto_avsr-visual] [--seconds 10] [--pieces 40]

Each reads one clip of random sound and lips, encoder included, in float32: by CTC's best path, and by the search with
which its error rates were published (beam 40, CTC weight 0.1), of a text of exactly so many pieces, as random weights
end anywhere. Least of the repetitions, after a call on one second that isn't timed. About ten minutes on two threads,
most of them for the largest; 6 GB of memory. On a busy machine, `--threads 1 --processor` counts what the processor
spends.
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lookhear import AvsrConfig, AvsrForConditionalGeneration

CROP = 88  # pixels
VIEWS = {"audio": "sound", "visual": "lips", "audiovisual": "both"}
SEARCHES: dict[str, dict[str, Any]] = {
    "best path": {"num_beams": 1, "ctc_weight": 1.0},
    "beam 40": {"num_beams": 40, "ctc_weight": 0.1},
}
MODEL_JSON = {  # of the smaller files of VSR-ML, after their size
    "adim": 256,
    "aheads": 4,
    "eunits": 2048,
    "elayers": 12,
    "dunits": 2048,
    "dlayers": 6,
    "macaron_style": True,
    "use_cnn_module": True,
    "cnn_module_kernel": 31,
    "transformer_input_layer": "conv3d",
    "transformer_encoder_attn_layer_type": "rel_mha",
    "mtlalpha": 0.1,
    "char_list": [f"<{number}>" for number in range(41)],
}


def presets() -> dict[str, Callable[[], "AvsrConfig"]]:
    """Returns what makes the configuration of each preset."""
    from lookhear import AvsrConfig

    made: dict[str, Callable[[], AvsrConfig]] = {
        f"usr2-{size}": lambda size=size: AvsrConfig.usr2(size) for size in ("base", "base+", "large", "huge")
    }
    for modality in ("visual", "audio"):
        made[f"auto_avsr-{modality}"] = lambda modality=modality: AvsrConfig.auto_avsr(modality)
    return made | {"vsr-ml": lambda: AvsrConfig.vsr_ml(MODEL_JSON)}


def inputs_of(view: str, seconds: float) -> dict[str, Any]:
    """Returns random sound and lips of one clip."""
    import torch

    frames = round(25 * seconds)
    inputs = {}
    if view != "visual":
        inputs["input_values"] = torch.randn(1, 640 * frames)
    if view != "audio":
        inputs["pixel_values_videos"] = torch.randn(1, frames, 1, CROP, CROP)
    return inputs


def measure(model: "AvsrForConditionalGeneration", view: str, search: dict, options: argparse.Namespace) -> float:
    """Returns the seconds that one clip takes by the clock or the processor, the least of the repetitions."""
    now = time.process_time if options.processor else time.perf_counter
    lengths = {}
    if search["ctc_weight"] < 1:
        lengths = {"min_new_tokens": options.pieces, "max_new_tokens": options.pieces + 1}  # the last one is EOS
    model.generate(**inputs_of(view, 1.0), num_beams=1, ctc_weight=1.0)
    inputs, taken = inputs_of(view, options.seconds), []
    for _ in range(options.repeat):
        start = now()
        model.generate(**inputs, **search, **lengths)
        taken.append(now() - start)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", metavar="NAME", help="some of them; all by default")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clip")
    parser.add_argument("--pieces", type=int, default=40, help="of the text that the search finds")
    parser.add_argument("--repeat", type=int, default=2, help="timed calls")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processor", action="store_true", help="seconds of the processor, on a busy machine")
    options = parser.parse_args()
    if options.processor and options.threads != 1:
        parser.error("--processor: needs --threads 1, as threads that wait for each other count, too")
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(options.threads))
    import torch

    from lookhear import AvsrForConditionalGeneration

    torch.set_num_threads(options.threads)
    known = presets()
    if unknown := set(options.presets or ()) - set(known):
        parser.error(f"--presets: {', '.join(sorted(unknown))} is not one of {', '.join(known)}")
    print("| preset | parameters | reads | best path, RTFx | beam 40, RTFx |")
    print("|---|---:|---|---:|---:|")
    for name in options.presets or known:
        torch.manual_seed(0)
        model = AvsrForConditionalGeneration(known[name]()).eval()
        count = sum(parameter.numel() for parameter in model.parameters())
        views = VIEWS if model.config.modality == "audiovisual" else (model.config.modality,)
        for view in views:
            speeds = []
            for title, search in SEARCHES.items():
                taken = measure(model, view, search, options)
                speeds.append(f"{options.seconds / taken:.1f}")
                print(f"{name}, {VIEWS[view]}, {title}: {taken:.2f} s", file=sys.stderr)
            print(f"| {name} | {count / 1e6:.1f} M | {VIEWS[view]} | {speeds[0]} | {speeds[1]} |", flush=True)
        del model
        gc.collect()


if __name__ == "__main__":
    main()
