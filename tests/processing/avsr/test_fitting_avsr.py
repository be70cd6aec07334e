"""Clips that do not fit in memory together are read in halves, with the same results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import pipeline

import lookhear  # noqa: F401  (registers the task)
from lookhear.processing.avsr.alignment_avsr import join_found


@pytest.fixture
def asr(tiny_checkpoint):
    return pipeline("audio-visual-speech-recognition", model=str(tiny_checkpoint), device="cpu", num_beams=2)


@pytest.fixture
def fits(monkeypatch, asr):
    """`fits(part, clips)`: "encoder" or "search" runs out of memory with more clips."""
    encoder, generate = asr.model.get_encoder(), asr.model.generate
    encode = encoder.forward

    def limit(part: str, clips: int) -> None:
        def check(count: int) -> None:
            if count > clips:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        def limited_encoder(*args, **inputs):
            check(len(next(iter(inputs.values()))))
            return encode(*args, **inputs)

        def limited_search(*args, **inputs):
            check(len(inputs["encoder_outputs"].last_hidden_state))
            return generate(*args, **inputs)

        if part == "encoder":
            monkeypatch.setattr(encoder, "forward", limited_encoder)
        else:
            monkeypatch.setattr(asr.model, "generate", limited_search)

    return limit


def clip(seconds: float, seed: int = 0) -> dict:
    draw = np.random.default_rng(seed)
    wave = 0.1 * draw.standard_normal(round(seconds * 16000)).astype(np.float32)
    mouths = draw.integers(0, 255, (round(seconds * 25), 24, 24), dtype=np.uint8)
    return {"audio": wave, "sampling_rate": 16000, "mouths": mouths}


CLIPS = [clip(0.4), clip(0.6, 1), clip(0.48, 2)]
SETTINGS = {"batch_size": 3, "num_return_sequences": 2, "return_timestamps": "word"}


@pytest.mark.parametrize(("part", "most"), [("encoder", 2), ("search", 1)])
def test_results_are_the_same(asr, fits, part, most):
    expected = asr(CLIPS, **SETTINGS)
    fits(part, most)
    with pytest.warns(UserWarning, match=f"a batch of 3 clips does not fit in memory; {most} at a time do"):
        found = asr(CLIPS, **SETTINGS)
    for one, other in zip(found, expected, strict=True):
        assert one["text"] == other["text"] and one["chunks"] == other["chunks"]
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-3)
        assert [a["text"] for a in one["alternatives"]] == [a["text"] for a in other["alternatives"]]


def test_a_clip_that_does_not_fit_alone(asr, fits):
    fits("search", 0)
    with pytest.raises(ValueError, match=r"`inputs`: a clip of 0\.4 s does not fit in memory with 2 beams: lower `ch"):
        asr(CLIPS[:2], batch_size=2)


def test_texts_of_several_lengths_are_joined():
    one = {"ids": torch.tensor([[[3, 4]]]), "starts": torch.tensor([[[1, 2]]]), "score": torch.tensor([[0.5]])}
    other = {"ids": torch.tensor([[[5]], [[6]]]), "starts": torch.tensor([[[7]], [[8]]])}
    joined = join_found([one, other], blank=9)
    assert joined["ids"].tolist() == [[[3, 4]], [[5, 9]], [[6, 9]]]
    assert joined["starts"].tolist() == [[[1, 2]], [[7, 0]], [[8, 0]]] and set(joined) == {"ids", "starts"}
    assert join_found([one], blank=9) is one
