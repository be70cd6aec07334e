"""How much memory a large picture with many objects takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

MOST = 1.5e9  # bytes, of the whole process
SCRIPT = """
import re, sys
import numpy as np
import lookhear
from pathlib import Path
from transformers import pipeline

see = pipeline("object-perception", model=sys.argv[1])
picture = np.random.default_rng(0).integers(0, 255, (3000, 4000, 3), np.uint8)
labels = ["circle", "square", "star", "person"]
found = see(picture, labels=labels, threshold=0.0, top_k=80)
seen = [entry["mask"].shape for entry in found]
assert len(found) == 80 and set(seen) == {(3000, 4000)}, len(found)
assert any(entry["mask"].any() for entry in found)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/status is Linux's")
def test_a_large_picture_with_many_objects_takes_little_memory(repository):
    command = [sys.executable, "-c", SCRIPT, str(repository / "model_cards" / "glee-tiny")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = int(done.stdout.split()[-1]) * 1024
    assert peak < MOST, f"{peak / 1e9:.2f} GB"
