"""A clip alone and in a batch of eight: the same numbers, the same text, with whatever of it is given."""

import numpy as np
import pytest
import torch
from transformers import pipeline

import lookhear  # noqa: F401  (registers the task)
from lookhear.processing.avsr import read_clip
from lookhear.training.avsr.synthesis import synthesize_clip

SOUND = ("input_values", "attention_mask")
LIPS = ("pixel_values_videos", "video_attention_mask")
VIEWS = {"audio": SOUND, "visual": LIPS, "audiovisual": (*SOUND, *LIPS)}
# samples and frames of eight clips: the first one is among the shortest; one lacks sound, two lack lips
SIZES = [(3950, 6), (12800, 20), (None, 25), (16000, None), (6400, 10), (700, 1), (15000, 24), (4700, None)]


@pytest.fixture
def batch(model, make_batch):
    """Eight clips, padded. Of a model of one modality each clip has that one."""
    generator, modality = np.random.default_rng(0), model.config.modality
    sizes = [
        (samples or 9000, frames or 15) if modality != "audiovisual" else (samples, frames)
        for samples, frames in SIZES
    ]
    crop = model.config.visual_config.crop_size
    clips = [
        (
            None if samples is None or modality == "visual" else generator.normal(size=samples).astype(np.float32),
            None
            if frames is None or modality == "audio"
            else generator.normal(size=(frames, crop, crop)).astype(np.float32),
        )
        for samples, frames in sizes
    ]
    return make_batch(clips, lengths=(5, 2, 7, 1, 9, 3, 4, 6))


@pytest.fixture(params=VIEWS)
def view(request, batch):
    """What is given of the batch, its labels too."""
    names = [name for name in VIEWS[request.param] if name in batch]
    if len(names) < len(VIEWS[request.param]):
        pytest.skip("the model doesn't read this")
    return {name: batch[name] for name in (*names, "labels")}


def inputs_of(batch):
    return {name: value for name, value in batch.items() if name != "labels"}


def clip_alone(batch, row):
    """One clip of a batch on its own, without its padding and its absent modality; None if nothing is left."""
    alone = {}
    for values, mask in (SOUND, LIPS):
        length = int(batch[mask][row].sum()) if mask in batch else 0
        if length:
            alone |= {name: batch[name][row : row + 1, :length] for name in (values, mask)}
    labels = batch["labels"][row : row + 1, : int((batch["labels"][row] != -100).sum())]
    return alone | {"labels": labels} if alone else None


def clips_alone(batch):
    """Pairs (row, clip) of all rows that have something."""
    clips = [(row, clip_alone(batch, row)) for row in range(len(batch["labels"]))]
    return [(row, clip) for row, clip in clips if clip]


def largest_difference(a, b):
    return float((a.float() - b.float()).abs().max())


@torch.no_grad()
def test_numbers_do_not_depend_on_the_batch(model, view):
    together = model(**view)
    upsampling = model.config.ctc_upsampling
    for row, clip in clips_alone(view):
        alone = model(**clip)
        frames, length = alone.frame_mask.shape[1], alone.logits.shape[1]
        assert alone.frame_mask.all() and int(together.frame_mask[row].sum()) == frames
        pairs = [
            (together.encoder_last_hidden_state[row, :frames], alone.encoder_last_hidden_state[0]),
            (together.ctc_logits[row, : frames * upsampling], alone.ctc_logits[0]),
            (together.logits[row, :length], alone.logits[0]),
        ]
        assert max(largest_difference(a, b) for a, b in pairs) < 1e-4
    spread = together.ctc_logits[0, 0] - together.ctc_logits[1, 0]
    assert spread.abs().max() > 1e-2  # clips differ, so that the test can fail


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3, 1.0])
def test_text_does_not_depend_on_the_batch(model, batch, ctc_weight):
    search = {"num_beams": 3, "ctc_weight": ctc_weight, "return_dict_in_generate": True, "output_scores": True}
    together = model.generate(**inputs_of(batch), **search)
    for row, clip in clips_alone(batch)[::3]:
        alone = model.generate(**inputs_of(clip), **search)
        assert_same_text(together.sequences[row], alone.sequences[0])
        assert abs(float(together.sequences_scores[row] - alone.sequences_scores[0])) < 1e-4


def test_greedy_text_does_not_depend_on_the_batch(model, view):
    together = model.generate(**inputs_of(view), num_beams=1, ctc_weight=1.0)
    for row, clip in clips_alone(view):
        assert_same_text(together[row], model.generate(**inputs_of(clip), num_beams=1, ctc_weight=1.0)[0])


def assert_same_text(row, alone):
    """The rest of the longer row is padding."""
    row, alone = row.tolist(), alone.tolist()
    assert row[: len(alone)] == alone and not any(row[len(alone) :])


@torch.no_grad()
def test_values_of_padding_do_not_matter(model, batch):
    noisy = dict(batch)
    for values, mask in (SOUND, LIPS):
        if values in batch:
            padding = ~batch[mask].bool()
            noisy[values] = batch[values].clone()
            noisy[values][padding] = torch.randn_like(noisy[values][padding])
    if "wav2vec2" in model.config.audio_config.front_end and "input_values" in batch:
        noisy["input_values"] = batch["input_values"]  # its convolutions see the padding; zeros are part of the format
    clean, other = model(**batch), model(**noisy)
    valid = clean.frame_mask
    assert largest_difference(clean.encoder_last_hidden_state[valid], other.encoder_last_hidden_state[valid]) < 1e-5
    assert largest_difference(clean.logits, other.logits) < 1e-4


@pytest.fixture(scope="module")
def asr(repository):
    checkpoint = repository / "model_cards" / "avsr-grid-tiny"
    return pipeline("audio-visual-speech-recognition", model=str(checkpoint), device="cpu")


SENTENCES = (
    "bin blue at f two now",
    "set white by k nine soon",
    "lay green with a four please",
    "place red in m seven again",
    "bin white by s one now",
)


@pytest.fixture(scope="module")
def spoken(asr, tmp_path_factory):
    """Sound and mouth crops of eight clips of talking portraits, three with a pause at the end."""
    folder = tmp_path_factory.mktemp("spoken")
    clips = []
    for seed, text in enumerate(SENTENCES):
        path = folder / f"{seed}.mp4"
        synthesize_clip(text, path, portrait=("hopper", "astronaut")[seed % 2], seed=seed)
        clip = read_clip(path, "auto", 16000, asr.processor.image_processor)
        clips.append((clip.audio[: 640 * len(clip.mouths)], clip.mouths))
    for frames, (wave, mouths) in zip((8, 15, 23), list(clips)):
        clips.append((np.pad(wave, (0, 640 * frames)), np.concatenate((mouths, np.repeat(mouths[-1:], frames, 0)))))
    return clips


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["audio", "visual", "audiovisual", "auto"])
def test_a_checkpoint_reads_files_of_any_length_together(asr, spoken, modality):
    """Through the pipeline: eight clips of different lengths; with "auto", some without sound or lips."""
    clips = []
    for seed, (wave, mouths) in enumerate(spoken):
        clip = {"audio": wave, "sampling_rate": 16000, "mouths": mouths}
        lacks = {1: ("mouths",), 2: ("audio", "sampling_rate")}.get(seed % 4, ()) if modality == "auto" else ()
        clips.append({name: value for name, value in clip.items() if name not in lacks})
    settings = {"modality": modality, "return_timestamps": "char", "num_beams": 2, "speech_confidence": 0.0}
    together = asr(clips, batch_size=8, **settings)
    assert len({result["text"] for result in together}) > 4  # it says something, and not always the same
    for clip, result in zip(clips, together):
        alone = asr(clip, **settings)
        assert alone["text"] == result["text"]
        assert [c["timestamp"] for c in alone["chunks"]] == [c["timestamp"] for c in result["chunks"]]
        assert alone["confidence"] == pytest.approx(result["confidence"], abs=2e-4)
