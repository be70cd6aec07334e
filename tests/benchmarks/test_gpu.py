"""benchmarks/gpu.py, on a CPU: every part runs, and one that fails or takes too long doesn't end the rest."""

from __future__ import annotations

import sys
import time

import pytest


@pytest.fixture
def gpu(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import gpu

    return gpu


def test_the_rest_is_measured_all_the_same(gpu, capsys):
    def broken(bench):
        with gpu.guarded("one case"):
            raise ValueError("no such\nkernel")
        gpu.say("the next case")
        raise RuntimeError("out of luck")

    def slow(bench):
        with gpu.guarded("what takes long"):
            time.sleep(60)
        gpu.say("never")

    parts = [("broken", broken, 30), ("slow", slow, 0.05), ("last", lambda bench: gpu.say("measured"), 30)]
    gpu.run_parts(gpu.Bench("cpu", False, None), parts)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if not line.startswith("==")]
    assert lines == [
        "FAILED one case: ValueError: no such kernel",
        "the next case",
        "FAILED broken: RuntimeError: out of luck",
        "slow ends here: its 0.05 s are over",
        "measured",
    ]


def test_all_parts_take_at_most_eight_minutes(gpu):
    limits = [seconds for _, _, seconds in gpu.PARTS]
    assert sum(limits[:4]) <= 100 and sum(limits) <= 470  # and some seconds to import
    assert gpu.PARTS[0][0] == "right"


def test_results_are_compared(gpu):
    box = {"xmin": 1.0, "ymin": 2.0, "xmax": 5.0, "ymax": 6.0}
    one = {"label": "cat", "score": 0.5, "box": box, "mask": [[True, False]]}
    other = {"label": "cat", "score": 0.51, "box": {**box, "xmax": 5.25}, "mask": [[True, True]]}
    assert gpu.difference([one], [other]) == (
        "1 objects, boxes within 0.250 pixel, scores within 0.0100, 1 pixels of masks"
    )
    assert gpu.difference([one], []) == "1 objects for 0, or in another order"


def test_without_a_gpu_it_says_so(gpu, monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    gpu.main()
    assert capsys.readouterr().err == "There is no CUDA GPU here; --device cpu --small tries the script.\n"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "parts",
    [["right"], ["speech", "pictures", "fits", "training"], ["speech-peers"]],
    ids=["right", "ours", "peers"],
)
def test_every_part_runs(gpu, talking_clips, monkeypatch, capsys, parts):
    command = ["gpu.py", "--device", "cpu", "--small", "--clips", str(talking_clips), "--only", *parts]
    monkeypatch.setattr(sys, "argv", command)
    gpu.main()
    told = capsys.readouterr().out
    assert "FAILED" not in told and "ends here" not in told and "DIFFER" not in told, told
    assert told.count("==") == len(parts) and len(told.splitlines()) >= 1 + 2 * len(parts)
    if parts == ["right"]:
        texts = [line for line in told.splitlines() if "avsr-grid-tiny" in line]
        assert len(texts) == 12 and all("1/1 texts" in line for line in texts if "float32" in line), told
