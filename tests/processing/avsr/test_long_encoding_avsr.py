"""A long clip is encoded once: what its windows and pieces share, and pieces that are read together."""

import numpy as np
import pytest
import torch

from lookhear import AudioVisualSpeechRecognitionPipeline
from lookhear.processing.avsr import long_form_avsr
from lookhear.processing.avsr.long_form_avsr import ClipWindow, LongFormDecoder, PieceReader
from lookhear.processing.avsr.recognition_avsr import LipMemory

from .test_chunking import FPS, RATE, STEP, Listener, pieces_of, say, talk
from .test_pipeline import heard, make_model, processor  # noqa: F401
from .test_pipeline_long import FAST, long_clip, talkative_model


@pytest.fixture(scope="module")
def asr(processor) -> AudioVisualSpeechRecognitionPipeline:  # noqa: F811
    return AudioVisualSpeechRecognitionPipeline(talkative_model(), processor=processor, device="cpu", **FAST)


@pytest.fixture
def encoded(asr):
    """Counts the frames that the visual front-end computes vectors of, and the clips that the encoder gets."""
    counts = {"frames": 0, "clips": 0}

    def count_frames(module, arguments, output):
        counts["frames"] += len(output)

    def count_clips(module, arguments, named, output):
        counts["clips"] += len(output.frame_mask)

    encoder = asr.model.get_encoder()
    stem = encoder.visual_front_end.folded_stem  # the pipeline has folded the norm into it
    handles = [
        stem.register_forward_hook(count_frames),
        encoder.register_forward_hook(count_clips, with_kwargs=True),
    ]
    yield counts
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("reach", [0, 2])
def test_the_memory_knows_the_inner_frames_of_what_was_stored(reach):
    """Beside a table of all frames. A frame's vector is its number, near the ends of a piece that of the piece."""
    rng = np.random.default_rng(reach)
    memory, table, dropped = LipMemory(reach), set(), 0
    assert memory.find(0, 5) is None
    memory.store(0, torch.zeros(2 * reach, 3))
    for turn in range(60):
        first = dropped + int(rng.integers(0, 40))
        count = int(rng.integers(1, 30))
        inner = range(first + reach, first + count - reach)
        vectors = torch.full((count, 3), -1.0)
        for frame in inner:
            vectors[frame - first] = frame
        memory.store(first, vectors)
        table |= set(inner)
        first, count = dropped + int(rng.integers(0, 40)), int(rng.integers(1, 30))
        found, there = memory.find(first, count)
        wanted = [frame in table and reach <= frame - first < count - reach for frame in range(first, first + count)]
        assert there.tolist() == wanted
        assert all(
            found[frame - first].eq(frame).all() for frame in range(first, first + count) if there[frame - first]
        )
        if turn % 10 == 9:
            dropped += int(rng.integers(0, 30))
            memory.drop(dropped)
            table = {frame for frame in table if frame >= dropped}


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [9, 20])
def test_each_frame_goes_through_the_visual_front_end_once(asr, encoded, seconds):
    """Beside those at the ends of windows and pieces, which see blank neighbours there."""
    asr(long_clip(seconds), chunk_length_s=2)
    reach = asr.model.get_encoder().visual_front_end.reach
    assert encoded["clips"] > seconds / 3
    assert 25 * seconds * 0.9 < encoded["frames"] <= 25 * seconds + 2 * reach * encoded["clips"]


@pytest.mark.slow
def test_an_utterance_that_fills_a_window_is_encoded_with_it(asr, encoded, monkeypatch):
    """Where nobody pauses, the first window is encoded to see it and with half as much again; all others once."""
    monkeypatch.setattr(long_form_avsr, "LETTER", -1.0)  # each step is a letter
    asr(long_clip(20), chunk_length_s=2)
    windows = 1 + np.ceil((20 - 3.0) / (3.0 - 0.75 / 2 - 0.75 / 2))
    assert encoded["clips"] <= windows + 2


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"modality": "visual"}, {"batch_size": 4}, {"modality": "audio"}])
def test_a_piece_is_read_as_it_is_alone(asr, monkeypatch, settings):
    made = []

    class Watched(PieceReader):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.arguments, self.seen = arguments, []
            made.append(self)

        def read(self, clips):
            readings = super().read(clips)
            self.seen += zip(clips, readings, strict=True)
            return readings

    monkeypatch.setattr("lookhear.processing.avsr.pipeline_avsr.PieceReader", Watched)
    asr(long_clip(12), chunk_length_s=2, **settings)
    (reader,) = made
    assert len(reader.seen) > 3
    for clip, reading in reader.seen:
        (alone,) = PieceReader(*reader.arguments).read([clip])
        assert [c.text for c in alone.characters] == [c.text for c in reading.characters]
        for name in ("start", "end", "confidence"):
            expected = [getattr(c, name) for c in alone.characters]
            assert np.allclose([getattr(c, name) for c in reading.characters], expected, atol=1e-4)
        assert reading.silence == pytest.approx(alone.silence, abs=1e-4)


class Loud(PieceReader):
    """Takes sound that isn't silent, or lips that aren't grey, for letters."""

    def nonblank_probability(self, clip):
        steps = len(super().nonblank_probability(clip))
        rows = clip.audio[:, None] if clip.audio is not None else clip.mouths.reshape(len(clip.mouths), -1) - 128.0
        places = (np.arange(steps) * len(rows) / steps).astype(int)
        near = [rows[place : place + max(1, len(rows) // steps)] for place in places]
        return np.array([float(np.abs(some).max() > 0) for some in near])


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["auto", "audio", "visual"])
def test_pieces_that_are_read_together_are_read_as_one_by_one(asr, monkeypatch, modality):
    monkeypatch.setattr("lookhear.processing.avsr.pipeline_avsr.PieceReader", Loud)
    settings = {"chunk_length_s": 4, "return_timestamps": "char", "modality": modality}
    one_by_one = asr(long_clip(15), **settings)
    sizes = []
    generate = asr.model.generate

    def counted(**arguments):
        sizes.append(len(arguments["encoder_outputs"].frame_mask))
        return generate(**arguments)

    monkeypatch.setattr(asr.model, "generate", counted)
    together = asr(long_clip(15), batch_size=3, **settings)
    assert max(sizes) >= 3
    assert heard(together) == heard(one_by_one) and together["text"]
    assert together["confidence"] == pytest.approx(one_by_one["confidence"], abs=1e-4)
    for name in ("duration", "modality", "sound_only", "warnings"):
        assert together["report"][name] == one_by_one["report"][name]


@pytest.mark.parametrize(("pause", "utterance"), [(0.6, 2.5), (0.0, 1e9), (0.6, 7.0)])
def test_words_of_a_batch_come_in_order_and_none_is_lost(pause, utterance):
    words = talk(1, 60.0, pause, utterance)
    listener = Listener({number: end - start for number, (start, end) in enumerate(words, 1)})
    batches = []

    def read(clips):
        batches.append(len(clips))
        return listener.read(clips)

    window = ClipWindow(iter(pieces_of(say(words, 60.0))), RATE, FPS)
    reading = LongFormDecoder(window, listener.nonblank_probability, read, 4.0, STEP, batch_size=5)
    found = []
    for word in reading:
        assert reading.position <= word.start + 0.05
        found.append(word.text)
    assert found == [str(number) for number in range(1, len(words) + 1)]
    assert reading.position == 60.0
    if utterance == 2.5:
        assert max(batches) >= 5 and batches.count(5) >= len(batches) - 3


def test_an_error_comes_after_the_words_of_pieces_that_wait():
    words = talk(3, 30.0, 0.6, 2.0)

    def broken():
        yield from pieces_of(say(words, 30.0))[:15]
        raise ValueError("the file ends here")

    found = {}
    for batch_size in (1, 8):
        listener = Listener({number: end - start for number, (start, end) in enumerate(words, 1)})
        window = ClipWindow(broken(), RATE, FPS)
        reading = LongFormDecoder(window, listener.nonblank_probability, listener.read, 4.0, STEP, batch_size)
        found[batch_size] = []
        with pytest.raises(ValueError, match="ends here"):
            for word in reading:
                found[batch_size].append(word.text)
    assert found[1] == found[8] and len(found[8]) > 5


def test_a_chosen_speakers_lips_are_computed_once_for_both_readings(asr, processor, monkeypatch):  # noqa: F811
    """Sound and lips together, then lips alone to tell whose words they are."""
    rows = []
    handle = asr.model.get_encoder().visual_front_end.folded_stem.register_forward_hook(
        lambda module, arguments, output: rows.append(len(output))
    )
    inputs = {
        "input_values": torch.randn(1, 9600, generator=torch.Generator().manual_seed(0)),
        "attention_mask": torch.ones(1, 9600, dtype=torch.long),
        "pixel_values_videos": torch.randn(1, 15, 1, 20, 20, generator=torch.Generator().manual_seed(0)),
        "video_attention_mask": torch.ones(1, 15, dtype=torch.long),
        "lips_seen": torch.ones(1, 15, dtype=torch.long),
    }
    recogniser = long_form_avsr.Recogniser(asr.model, processor)
    with torch.inference_mode():
        found = recogniser.search(inputs, judge_lips=True, **FAST)
    handle.remove()
    assert "lips" in found and found["ids"].numel() and sum(rows) == 15
