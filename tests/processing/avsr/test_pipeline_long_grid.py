"""Sentences spoken one after the other are read as each of them alone, with the checkpoint that is shipped."""

import json

import numpy as np
import pytest
from transformers import pipeline

import lookhear  # noqa: F401  (registers the task)
from lookhear.processing.avsr.clip_stream_avsr import read_clip

pytestmark = pytest.mark.shared
CLIPS, RATE, FPS = 10, 16000, 25


@pytest.fixture(scope="module")
def asr(repository):
    return pipeline(
        "audio-visual-speech-recognition", model=str(repository / "model_cards" / "avsr-grid-tiny"), device="cpu"
    )


@pytest.fixture(scope="module")
def clips(asr, shared) -> list[dict]:
    """Sound, mouths and words of sentences; sound and mouths of each are of the same length."""
    folder = shared / "data" / "grid_s1" / "validation"
    lines = (folder / "metadata.jsonl").read_text().splitlines()[:CLIPS]
    found = []
    for row in map(json.loads, lines):
        clip = read_clip(folder / row["file_name"], "auto", RATE, asr.processor.image_processor)
        audio = np.zeros(len(clip.mouths) * RATE // FPS, np.float32)
        audio[: len(clip.audio)] = clip.audio[: len(audio)]
        found.append({"audio": audio, "mouths": clip.mouths, "words": row["words"]})
    return found


def joined(clips: list[dict], modality: str) -> dict:
    sound = {"audio": np.concatenate([clip["audio"] for clip in clips]), "sampling_rate": RATE}
    lips = {"mouths": np.concatenate([clip["mouths"] for clip in clips])}
    return {"audio": sound, "visual": lips, "audiovisual": sound | lips}[modality]


def wrong_words(said: list[str], heard: list[str]) -> int:
    """Word edit distance."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        corner, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (word != other))
    return row[-1]


@pytest.mark.parametrize(("modality", "more"), [("audio", 3), ("visual", 3), ("audiovisual", 2)])
def test_half_a_minute_is_read_as_its_sentences_are(asr, clips, modality, more):
    """So many of the 60 words may be wrong more than in the sentences alone."""
    said = [word["word"] for clip in clips for word in clip["words"]]
    starts = np.cumsum([0.0, *(len(clip["mouths"]) / FPS for clip in clips)])
    alone = asr([joined([clip], modality) for clip in clips], batch_size=5, modality=modality)
    result = asr(joined(clips, modality), modality=modality, return_timestamps="word")
    errors = wrong_words(said, result["text"].split())
    assert errors <= wrong_words(said, " ".join(one["text"] for one in alone).split()) + more
    assert result["report"]["duration"] == starts[-1] and result["report"]["sound_only"] == []
    times = [chunk["timestamp"][0] for chunk in result["chunks"]]
    assert times == sorted(times)
    if len(times) == len(said):
        true = [offset + word["start"] for offset, clip in zip(starts, clips) for word in clip["words"]]
        assert np.median(np.abs(np.subtract(times, true))) < 0.06


@pytest.mark.parametrize("modality", ["visual", "audiovisual"])
def test_a_sentence_that_is_longer_than_a_chunk_stays_whole(asr, clips, modality):
    for clip in clips[:4]:
        clip = joined([clip], modality)
        assert asr(clip, chunk_length_s=2)["text"] == asr(clip)["text"]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 5])
def test_sound_with_quiet_pauses_is_encoded_once(asr, clips, batch_size):
    """Counted in frames that the encoder gets; the words are those of each utterance alone."""
    encoded = []
    hook = asr.model.get_encoder().register_forward_hook(
        lambda module, arguments, named, output: encoded.append(int(output.frame_mask.sum())), with_kwargs=True
    )
    try:
        result = asr(joined(clips, "audiovisual"), batch_size=batch_size)
    finally:
        hook.remove()
    frames = sum(len(clip["mouths"]) for clip in clips)
    assert len(result["text"].split()) > 50
    assert frames * 0.95 < sum(encoded) < frames * 1.4
