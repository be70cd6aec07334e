"""From a GRID video file to its sentence, with the checkpoint that the project ships."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import pipeline

import lookhear  # noqa: F401  (registers the task)

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def asr(repository):
    checkpoint = repository / "model_cards" / "avsr-grid-tiny"
    return pipeline("audio-visual-speech-recognition", model=str(checkpoint), device="cpu")


@pytest.fixture(scope="module")
def clips(shared) -> list[tuple[Path, dict]]:
    folder = shared / "data" / "grid_s1" / "test"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines() if line.strip()]
    return [(folder / row["file_name"], row) for row in rows[:4]]


@pytest.mark.parametrize(("modality", "errors"), [("audio", 2), ("visual", 6), ("audiovisual", 1)])
def test_a_file_becomes_its_sentence(asr, clips, modality, errors):
    """Four clips, 24 words; so many of them may be wrong."""
    results = asr([path for path, _ in clips], modality=modality, batch_size=4)
    wrong = 0
    for (_, row), result in zip(clips, results):
        said, heard = row["text"].split(), result["text"].split()
        wrong += sum(a != b for a, b in zip(said, heard)) + abs(len(said) - len(heard))
        assert result["report"]["modality"] == modality
        assert 0.3 < result["confidence"] <= 1
    assert wrong <= errors


def test_words_are_where_they_were_said(asr, clips):
    """Starts of all but the first word, which CTC may put anywhere into the silence before it."""
    distances = []
    for path, row in clips:
        chunks = asr(path, return_timestamps="word")["chunks"]
        if [chunk["text"] for chunk in chunks] == row["text"].split():
            starts = [word["start"] for word in row["words"]]
            distances += [abs(chunk["timestamp"][0] - start) for chunk, start in zip(chunks, starts)][1:]
    assert len(distances) >= 10
    assert np.median(distances) < 0.12
