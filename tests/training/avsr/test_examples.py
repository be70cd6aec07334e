"""Training examples: the same whatever the order, worker or process; batches as the model reads them."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from lookhear.processing.avsr import AvsrFeatureExtractor, AvsrProcessor, AvsrTokenizer, MouthRoiImageProcessor
from lookhear.training.avsr.augmentation import Clip
from lookhear.training.avsr.examples import ClipCollator, EvaluationClips, TrainingClips, read_clip
from lookhear.training.avsr.prepare import load_prepared
from lookhear.training.avsr.recipe import AugmentationRecipe, DataRecipe

EVERYTHING = AugmentationRecipe(
    intensity=0.2,
    noise_probability=0.7,
    noise_snr=(-5, 10),
    noise_talkers=(1, 3),
    talker_probability=0.3,
    human_probability=0.2,
    video_masks=2,
    audio_masks=2,
    splice_probability=0.4,
    silence=True,
    speed=(0.9, 1.1),
)

CHILD = """
import hashlib, sys
from lookhear.training.avsr.examples import TrainingClips
from lookhear.training.avsr.prepare import load_prepared
from lookhear.training.avsr.recipe import AugmentationRecipe, DataRecipe
recipe = AugmentationRecipe(**eval(sys.argv[2]))
clips = TrainingClips(load_prepared(sys.argv[1], cache_dir=sys.argv[3]), recipe, DataRecipe(), 16, seed=5)
clips.set_epoch(2)
for i in (6, 1, 3):
    clip = clips[i]
    print(i, clip.text, hashlib.sha256(clip.audio.tobytes() + clip.mouths.tobytes()).hexdigest(), sep="|")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, prepared_folder, make_texts):
    return prepared_folder(tmp_path_factory.mktemp("prepared") / "data", make_texts(8))


@pytest.fixture
def rows(folder):
    return load_prepared(folder)


def equal(a: Clip, b: Clip) -> bool:
    return a.text == b.text and np.array_equal(a.audio, b.audio) and np.array_equal(a.mouths, b.mouths)


def identity(batch):
    return batch


def test_a_row_comes_back_as_a_clip(rows, make_texts, spelled):
    for number, text in enumerate(make_texts(8)):
        clip, (audio, mouths) = read_clip(rows[number]), spelled(text, number)
        assert clip.text == text and np.array_equal(clip.mouths, mouths)
        assert np.abs(clip.audio - audio).max() < 1e-4  # 16 bit
        assert [word for word, *_ in clip.words] == text.split() and clip.words[0][1] == 0.0


def test_order_and_history_do_not_matter(rows):
    first, second = (TrainingClips(rows, EVERYTHING, DataRecipe(), 16, seed=5) for _ in range(2))
    forwards = [first[i] for i in range(8)]
    backwards = [second[i] for i in reversed(range(8))][::-1]
    assert all(equal(a, b) for a, b in zip(forwards, backwards))


def test_epoch_and_seed_matter(rows):
    clips = TrainingClips(rows, EVERYTHING, DataRecipe(), 16, seed=5)
    first = [clips[i] for i in range(8)]
    clips.set_epoch(1)
    second = [clips[i] for i in range(8)]
    other = TrainingClips(rows, EVERYTHING, DataRecipe(), 16, seed=6)
    assert not any(equal(a, b) for a, b in zip(first, second))
    assert not any(equal(a, other[i]) for i, a in enumerate(first))
    clips.set_epoch(0)
    assert all(equal(a, clips[i]) for i, a in enumerate(first))


def test_workers_do_not_matter(rows):
    """Worker processes see the epoch that is set, and make the clips that the main process makes."""
    clips = TrainingClips(rows, EVERYTHING, DataRecipe(), 16, seed=5)
    clips.set_epoch(3)
    alone = [clips[i] for i in range(8)]
    loader = torch.utils.data.DataLoader(clips, batch_size=2, num_workers=2, collate_fn=identity)
    assert all(equal(a, b) for a, b in zip(alone, (clip for batch in loader for clip in batch)))


@pytest.mark.slow
def test_processes_do_not_matter(rows, folder, tmp_path):
    import hashlib

    changed = {name: getattr(EVERYTHING, name) for name in vars(EVERYTHING)}
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), repr(changed), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    clips = TrainingClips(rows, EVERYTHING, DataRecipe(), 16, seed=5)
    clips.set_epoch(2)
    for line in result.stdout.strip().splitlines():
        number, text, digest = line.split("|")
        clip = clips[int(number)]
        assert clip.text == text
        assert hashlib.sha256(clip.audio.tobytes() + clip.mouths.tobytes()).hexdigest() == digest


def test_words_are_exchanged_only_between_alike_clips(prepared_folder, make_texts, tmp_path):
    texts = make_texts(4, seed=1)
    one = prepared_folder(tmp_path / "one", texts, speaker="s1")
    two = prepared_folder(tmp_path / "two", make_texts(4, seed=2), speaker="s2")
    three = prepared_folder(tmp_path / "three", make_texts(3, seed=3, words=3), speaker="s1")
    recipe = AugmentationRecipe(splice_probability=1.0, noise_probability=0.0)
    clips = TrainingClips(load_prepared([one, two, three]), recipe, DataRecipe(), 16)
    places = [{text.split()[place] for text in texts} for place in (0, 1)]
    found = set()
    for epoch in range(6):
        clips.set_epoch(epoch)
        for number in range(4):
            words = clips[number].text.split()
            assert len(words) == 2 and words[0] in places[0] and words[1] in places[1]
            found.add(" ".join(words))
    assert len(found) > 4


def test_noise_is_made_of_other_clips(prepared_folder, tmp_path):
    """Clip 0 is loud at 1 kHz, clip 1 at 3 kHz: what disturbs clip 0 lies at 3 kHz."""
    time = np.arange(16000) / 16000
    tones = [0.5 * np.sin(2 * np.pi * hertz * time).astype(np.float32) for hertz in (1000, 3000)]
    mouths = np.full((25, 20, 20), 99, np.uint8)
    folder = prepared_folder(tmp_path / "tones", ["A", "T"], clips=[(tone, mouths) for tone in tones])
    recipe = AugmentationRecipe(noise_probability=1.0, noise_snr=(0, 0), noise_talkers=(1, 1))
    clip = TrainingClips(load_prepared(folder), recipe, DataRecipe(), 16)[0]
    spectrum = np.abs(np.fft.rfft(clip.audio - tones[0]))
    assert spectrum.argmax() == pytest.approx(3000, abs=1)


def test_long_clips_are_cut_with_their_words(rows):
    quiet = replace(EVERYTHING, noise_probability=0.0, splice_probability=0.0, silence=False, speed=(1.0, 1.0))
    clip = TrainingClips(rows, quiet, DataRecipe(max_frames=9), 16)[0]
    assert clip.frames == 9 and clip.text == rows[0]["text"].split()[0]
    window = TrainingClips(rows, quiet, DataRecipe(word_window=0.5), 16)
    assert {len(window[i].text.split()) for i in range(8)} == {1}


def test_evaluation_clips_are_as_they_are(rows):
    clips = EvaluationClips(rows)
    assert len(clips) == 8 and equal(clips[3], read_clip(rows[3]))


@pytest.fixture(scope="module")
def processor():
    images = MouthRoiImageProcessor(roi_size=20, crop_size=16, mouth_width=10.0)
    return AvsrProcessor(AvsrFeatureExtractor(), images, AvsrTokenizer())


def test_batch_is_what_the_model_reads(rows, processor):
    clips = [read_clip(rows[0]), replace(read_clip(rows[1]), audio=None), replace(read_clip(rows[2]), mouths=None)]
    clips[0] = replace(clips[0], text="ET", audio=clips[0].audio[:3200])
    batch = ClipCollator(processor)(clips)
    samples, frames = len(clips[2].audio), len(clips[0].mouths)
    assert batch["input_values"].shape == (3, samples)
    assert batch["attention_mask"].sum(dim=1).tolist() == [3200, 0, samples]
    assert batch["pixel_values_videos"].shape == (3, frames, 1, 16, 16)
    assert batch["video_attention_mask"].sum(dim=1).tolist() == [frames, len(clips[1].mouths), 0]
    labels = batch["labels"]
    assert labels[0].tolist() == [2, 3, 39] + [-100] * (labels.shape[1] - 3)
    assert processor.tokenizer.decode(labels[2].tolist(), skip_special_tokens=True) == clips[2].text
    assert all(row[row != -100][-1] == 39 for row in labels)


def test_cropped_training_mouths_pass_unchanged(rows, processor):
    """A clip that the augmentation has cropped is normalised as the centre crop of evaluation is."""
    clip = read_clip(rows[0])
    cropped = replace(clip, mouths=clip.mouths[:, 2:18, 2:18])
    evaluation, training = (ClipCollator(processor)([c])["pixel_values_videos"] for c in (clip, cropped))
    torch.testing.assert_close(training, evaluation)


def test_words_become_classes(rows, processor):
    clips = [replace(read_clip(rows[i]), text=text) for i, text in enumerate(("bin", "AT"))]
    batch = ClipCollator(processor, {"AT": 0, "BIN": 1})(clips)
    assert batch["labels"].tolist() == [1, 0] and "input_values" not in batch
