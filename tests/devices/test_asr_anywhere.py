"""`asr` gives on an accelerator what it gives on a CPU: each modality and search, long clips and streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.devices.conftest import assert_heard

slow = pytest.mark.slow


def sound(seconds: float = 0.6) -> dict[str, Any]:
    wave = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * 16000))
    return {"audio": wave.astype(np.float32), "sampling_rate": 16000}


def lips(count: int = 15) -> dict[str, Any]:
    return {"mouths": np.random.default_rng(0).integers(0, 255, (count, 24, 24), dtype=np.uint8)}


CLIPS = {"audio": sound(), "visual": lips(), "audiovisual": {**sound(), **lips()}}
WORDS = {"return_timestamps": "word", "num_beams": 3, "num_return_sequences": 2}


@pytest.mark.parametrize(
    ("modality", "settings"),
    [
        pytest.param("audiovisual", WORDS, id="audiovisual"),
        pytest.param("audio", WORDS, id="audio", marks=slow),
        pytest.param("visual", WORDS, id="visual", marks=slow),
        pytest.param("audiovisual", {"return_timestamps": "char"}, id="characters", marks=slow),
        pytest.param("audiovisual", {"search": "two_pass", "num_beams": 3}, id="two-pass", marks=slow),
        pytest.param("audiovisual", {"search": "greedy"}, id="greedy", marks=slow),
    ],
)
def test_a_clip(far, make_asr, modality, settings):
    found, expected = (make_asr(device)(CLIPS[modality], **settings) for device in ("pretended", "cpu"))
    assert expected["report"]["modality"] == modality and expected["text"]
    assert_heard(found, expected)


@slow
def test_the_search_as_published(far, make_asr):
    results = []
    for device in ("pretended", "cpu"):
        asr = make_asr(device)
        asr.model.generation_config.ctc_prefix = "reference"
        results.append(asr(CLIPS["audiovisual"], **WORDS))
    assert_heard(*results)


@slow
def test_a_batch_with_a_language_model(far, make_asr):
    from transformers import GPT2Config, GPT2LMHeadModel

    given = [CLIPS["audiovisual"], {**sound(0.4), **lips(10)}, CLIPS["audiovisual"]]
    results = []
    for device in ("pretended", "cpu"):
        asr = make_asr(device)
        torch.manual_seed(0)
        size = asr.model.config.vocab_size
        language = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=16, n_layer=1, n_head=2)).to(device).eval()
        results.append(asr(given, batch_size=3, language_model=language, language_model_weight=0.3, **WORDS))
    for found, expected in zip(*results, strict=True):
        assert_heard(found, expected)


@slow
def test_a_long_clip(far, make_asr):
    clip = {**sound(7.0), **lips(175)}
    settings = {"chunk_length_s": 2, "return_timestamps": "word", "num_beams": 2}
    found, expected = (make_asr(device)(clip, **settings) for device in ("pretended", "cpu"))
    assert_heard(found, expected)
    streams = []
    for device in ("pretended", "cpu"):
        with make_asr(device).stream(clip, **settings) as speech:
            streams.append([word["text"] for word in speech])
    assert streams[0] == streams[1] and streams[0]
