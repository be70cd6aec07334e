"""The memory that reading takes does not depend on how long the clip is."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from lookhear.processing.avsr.rendering_avsr import write_video

RATE, FPS, SIZE = 16000, 25, 64

# Reads a file in a process of its own and writes what it took.
CHILD = """
import json, resource, sys
import lookhear
from transformers import pipeline

asr = pipeline("audio-visual-speech-recognition", model=sys.argv[1], device="cpu", num_beams=1, ctc_weight=1.0)
result = asr(sys.argv[2], chunk_length_s=8, return_timestamps="word")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"peak": peak, "duration": result["report"]["duration"], "frames": result["report"]["frames"]}))
"""


def write_clip(path, minutes: int) -> None:
    """Grey pictures that brighten and darken, and bursts of noise."""
    rng = np.random.default_rng(0)
    second = np.concatenate([0.1 * rng.standard_normal(RATE * 3 // 4), np.zeros(RATE // 4)]).astype(np.float32)
    pictures = (np.full((SIZE, SIZE, 3), 100 + frame % 50, np.uint8) for frame in range(minutes * 60 * FPS))
    write_video(path, pictures, FPS, np.tile(second, minutes * 60), RATE)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_ten_minutes_take_as_much_memory_as_two(tiny_checkpoint, tmp_path):
    peaks = {}
    for minutes in (2, 10):
        path = tmp_path / f"{minutes}.mp4"
        write_clip(path, minutes)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        command = [sys.executable, "-c", CHILD, str(tiny_checkpoint), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
        assert done.returncode == 0, done.stderr
        took = json.loads(done.stdout.splitlines()[-1])
        assert took["duration"] == pytest.approx(60 * minutes, abs=1)
        assert took["frames"] == pytest.approx(60 * minutes * FPS, abs=FPS)
        peaks[minutes] = took["peak"]
    assert peaks[10] <= 1.1 * peaks[2], peaks
