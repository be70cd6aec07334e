"""How often a long file is encoded, and what that costs at full size, for which no strong weights can be had.

    python benchmarks/long_file.py [--video long.mp4] [--minutes 2] [--model model_cards/avsr-grid-tiny]

A small checkpoint reads a video; where none is given, it is one of sentences that are said over and over. Whenever its
fusion has encoded some frames, an encoder of the paper's size and of random weights encodes as many: the text is that
of speech, and the time that of the large network, but for its search. Printed are processor seconds of one thread, in
all and of the large encoder, the frames that were encoded, in times of the video's own, and the words.

To compare another state of the code, run this file with that one's `src` first in PYTHONPATH and its own checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from avsr_pipeline import FPS, RATE, TASK, make_video, repeat_video
from transformers import pipeline

from lookhear import AvsrConfig, AvsrForConditionalGeneration

SAMPLES = RATE // FPS  # of a frame


@dataclass
class LargeEncoder:
    """
    Encodes as many frames as a small model's fusion does, each time that it does.

    Attributes:
        model: of the size that is timed.
        frames: that were encoded so far.
        seconds: of the processor that they took.
    """

    model: AvsrForConditionalGeneration
    frames: int = 0
    seconds: float = 0.0

    def encode_beside(self, fusion: torch.nn.Module, given: tuple, named: dict[str, Any], output: Any) -> None:
        """Is a forward hook of a fusion, whose first argument is `(batch, frames, size)`."""
        first = given[0] if given else next(iter(named.values()))
        batch, frames = first.shape[:2]
        side = self.model.config.visual_config.crop_size
        start = time.process_time()
        with torch.inference_mode():
            self.model.get_encoder()(
                input_values=torch.zeros(batch, SAMPLES * frames),
                attention_mask=torch.ones(batch, SAMPLES * frames, dtype=torch.long),
                pixel_values_videos=torch.zeros(batch, frames, 1, side, side),
                video_attention_mask=torch.ones(batch, frames, dtype=torch.bool),
            )
        self.seconds += time.process_time() - start
        self.frames += batch * frames


def read(model: str | Path, video: Path, config: AvsrConfig) -> dict[str, Any]:
    """Reads a video with a small model; returns what is printed, by name, and the `text`."""
    torch.manual_seed(0)
    large = LargeEncoder(AvsrForConditionalGeneration(config).eval())
    asr = pipeline(TASK, model=str(model), device="cpu")
    asr.model.get_encoder().fusion.register_forward_hook(large.encode_beside, with_kwargs=True)
    start = time.process_time()
    text = asr(str(video), num_workers=0)["text"]
    seconds = time.process_time() - start
    return {"seconds": seconds, "of the large encoder": large.seconds, "frames": large.frames, "text": text}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path, help="a file that the model can read; none: one is made")
    parser.add_argument("--minutes", type=float, default=2.0, help="length of the video that is made")
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "model_cards" / "avsr-grid-tiny")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        video, length = options.video, 0.0
        if video is None:
            short, video = Path(folder) / "short.mp4", Path(folder) / "long.mp4"
            length = repeat_video(short, video, make_video(short), 60 * options.minutes)
        found = read(options.model, video, AvsrConfig())
    words = found["text"].split()
    times = f", {found['frames'] / (FPS * length):.2f} times the video's" if length else ""
    print(f"{found['seconds']:.1f} processor seconds, {found['of the large encoder']:.1f} of the large encoder's")
    print(f"{found['frames']} frames encoded{times}")
    print(f"{len(words)} words, digest {hashlib.sha256(found['text'].encode()).hexdigest()[:8]}")


if __name__ == "__main__":
    main()
