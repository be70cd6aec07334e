"""Training clips that say nothing, in all or in part: what is made, what each view of it is to say, and the losses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from transformers import EvalPrediction

from lookhear.modeling.avsr import AvsrForConditionalGeneration
from lookhear.processing.avsr import AvsrFeatureExtractor, AvsrProcessor, AvsrTokenizer, MouthRoiImageProcessor
from lookhear.training.avsr.augmentation import Clip, blur, change_gamma, lower_frame_rate, scramble, splice_word
from lookhear.training.avsr.channel import add_room, change_pitch, delay_of, encode, telephone
from lookhear.training.avsr.examples import ClipCollator, TrainingClips, add_quiet, join, with_both
from lookhear.training.avsr.prepare import load_prepared
from lookhear.training.avsr.recipe import AugmentationRecipe, DataRecipe, NonSpeechRecipe, load_recipe
from lookhear.training.avsr.train import hold_speakers, train
from lookhear.training.avsr.trainer import ErrorRates
from lookhear.training.avsr.wordless_lips import resting, stretched, wander, wordless_lips
from lookhear.training.avsr.wordless_sound import KINDS, coloured_noise, wordless_sound

VIEWS = ("audio", "visual", "audiovisual")
PLAIN = AugmentationRecipe(noise_probability=0.0, flip=0.0)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def rows(tmp_path, prepared_folder, make_texts):
    return load_prepared(prepared_folder(tmp_path / "data", make_texts(6)))


@pytest.fixture
def processor():
    images = MouthRoiImageProcessor(roi_size=20, crop_size=16, mouth_width=10)
    return AvsrProcessor(AvsrFeatureExtractor(), images, AvsrTokenizer())


# ------------------------------------------------------------------------------------------------------------- sounds


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_sound_fills_its_time(kind, generator):
    for samples in (1600, 16001):
        wave = KINDS[kind](samples, generator)
        assert wave.shape == (samples,) and np.isfinite(wave).all() and np.abs(wave).max() > 0


def test_slopes_of_noise(generator):
    """White has equal power in equal bands of frequency, pink in equal octaves, brown falls by four an octave."""

    def octaves(slope):
        power = np.abs(np.fft.rfft(coloured_noise(160000, generator, slope))) ** 2
        return [power[start : 2 * start].sum() for start in (10000, 20000, 40000)]  # 1, 2, 4 kHz

    for slope, step in ((0, 2.0), (1, 1.0), (2, 0.5), (-2, 8.0)):
        low, middle, high = octaves(slope)
        assert middle / low == pytest.approx(step, rel=0.1) and high / middle == pytest.approx(step, rel=0.1)


def test_wordless_sound_has_many_levels_and_stays_in_range(generator):
    waves = [wordless_sound(8000, generator) for _ in range(60)]
    assert all(wave.dtype == np.float32 and wave.shape == (8000,) and np.abs(wave).max() <= 1 for wave in waves)
    levels = [20 * np.log10(max(float(np.sqrt(np.mean(wave**2))), 1e-9)) for wave in waves]
    assert min(levels) < -85 and max(levels) > -25 and np.ptp([x for x in levels if x > -70]) > 20


# --------------------------------------------------------------------------------------------------------------- lips


def test_rest_is_what_lies_outside_of_the_words(generator):
    mouths = np.repeat(np.arange(50, dtype=np.uint8)[:, None, None], 4, 1).repeat(4, 2)
    words = (("a", 0.4, 0.8), ("b", 0.8, 1.4))  # frames 10 to 35
    shown = np.unique([resting(mouths, words, 30, generator)[:, 0, 0] for _ in range(20)])
    assert set(shown) <= {*range(8), *range(37, 50)} and len(shown) > 15
    assert (resting(mouths, (("a", 0.1, 1.9),), 9, generator) == 0).all()  # no rest: the first picture


def test_a_smile_widens_and_a_jaw_sinks():
    picture = np.zeros((1, 21, 21), np.uint8)
    picture[0, 10, 6] = picture[0, 10, 14] = 200  # corners of the mouth
    picture[0, 16, 10] = 100  # chin
    wide = stretched(picture, np.array([3.0]), np.array([0.0]))[0]
    low = stretched(picture, np.array([0.0]), np.array([2.0]))[0]
    left, right = (wide[10].astype(float) @ (np.arange(21) * side) / wide[10][side].sum() for side in halves(21))
    assert right - left > 9.5 and np.array_equal(stretched(picture, np.zeros(1), np.zeros(1)), picture)
    assert low[18, 10] > 80 and low[16, 10] < 30 and (low[10, [6, 14]] == 200).all()


def halves(size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(size) < size // 2, np.arange(size) > size // 2


def test_lips_have_the_size_and_length_wanted(generator):
    mouths = generator.integers(0, 255, (20, 24, 24)).astype(np.uint8)
    for _ in range(30):
        lips = wander(wordless_lips(mouths, (("a", 0.3, 0.5),), 12, generator), 16, generator)
        assert lips.shape == (12, 16, 16) and lips.dtype == np.uint8


# ------------------------------------------------------------------------------------------------ channels and looks


@pytest.fixture
def speech(generator):
    """A second of pulses whose loudness changes, with an edge every tenth of a second."""
    time = np.arange(16000) / 16000
    voiced = np.sign(np.sin(2 * np.pi * 120 * time)) * 0.2 * (np.floor(time * 10) % 2)
    return (voiced + 0.001 * generator.standard_normal(16000)).astype(np.float32)


@pytest.mark.parametrize("codec", ["aac", "opus"])
def test_codecs_keep_the_time(codec, speech):
    decoded = encode(speech, codec, 24000)
    assert decoded.shape == speech.shape and decoded.dtype == np.float32
    assert np.corrcoef(decoded, speech)[0, 1] > 0.9 and not np.array_equal(decoded, speech)


def test_rooms_and_telephones_keep_the_time(speech, generator):
    loudness = np.abs(speech).reshape(100, 160).mean(1)
    for changed in (add_room(speech, generator), telephone(speech), change_pitch(speech, 1.2)):
        assert changed.shape == speech.shape and changed.dtype == np.float32
        heard = np.abs(changed).reshape(100, 160).mean(1)
        assert abs(int(np.correlate(heard, loudness, "full").argmax()) - 99) <= 4  # hundredths of a second
    spectrum = np.abs(np.fft.rfft(telephone(speech)))
    assert spectrum[4000:].max() < 0.01 * spectrum.max() and spectrum[:200].max() < 0.1 * spectrum.max()


def test_pitch_rises_by_its_factor():
    time = np.arange(32000) / 16000
    raised = change_pitch((0.3 * np.sin(2 * np.pi * 400 * time)).astype(np.float32), 1.25)
    assert np.abs(np.fft.rfft(raised[8000:24000])).argmax() == pytest.approx(500, abs=5)  # Hz, of one second


def test_delay_is_found_on_both_sides(generator):
    wave = generator.standard_normal(5000)
    assert delay_of(np.pad(wave, (37, 0)), wave) == 37 and delay_of(wave[12:], wave) == -12


def test_looks_of_the_crops(generator):
    mouths = generator.integers(0, 255, (50, 8, 8)).astype(np.uint8)
    slow = lower_frame_rate(mouths, 10.0)
    assert len(slow) == 50 and len(np.unique(slow.reshape(50, -1), axis=0)) == 20
    assert blur(mouths, 3.0, np.random.default_rng(1)).std() < mouths.std()
    bent = change_gamma(mouths, 0.5, generator)
    assert bent.min() == mouths.min() == 0 and np.array_equal(np.argsort(np.unique(bent)), range(len(np.unique(bent))))


def test_words_are_spliced_without_lips_too():
    first = Clip("a b", np.zeros(16000, np.float32), None, (("a", 0.0, 0.4), ("b", 0.4, 1.0)))
    second = Clip("c d", np.ones(16000, np.float32), None, (("c", 0.0, 0.6), ("d", 0.6, 1.0)))
    spliced = splice_word(first, second, 0)
    assert spliced.text == "c b" and spliced.mouths is None and len(spliced.audio) == 16000 + 0.2 * 16000
    assert spliced.words == (("c", 0.0, 0.6), ("b", pytest.approx(0.6), pytest.approx(1.2)))
    assert (spliced.audio[:9600] == 1).all() and (spliced.audio[9600:] == 0).all()


# --------------------------------------------------------------------------------------------------- clips and labels


def test_a_share_of_the_clips_says_nothing(rows):
    recipe = NonSpeechRecipe(share=0.5, views=(1, 1, 2))
    clips = TrainingClips(rows, PLAIN, DataRecipe(), 16, seed=1, non_speech=recipe)
    made = []
    for epoch in range(20):
        clips.set_epoch(epoch)
        made += [clips[i] for i in range(6)]
    empty = [clip for clip in made if not clip.text]
    kinds = [(clip.audio is not None, clip.mouths is not None) for clip in empty]
    assert 0.35 < len(empty) / len(made) < 0.65
    assert {(True, False), (False, True), (True, True)} == set(kinds) and kinds.count((True, True)) > len(kinds) / 3
    assert all(clip.heard == clip.seen == "" and clip.words == () for clip in empty)
    assert all(clip.heard == clip.seen == clip.text for clip in made if clip.text)
    again = TrainingClips(rows, PLAIN, DataRecipe(), 16, seed=1, non_speech=recipe)
    again.set_epoch(19)
    assert all(np.array_equal(again[i].audio, made[-6 + i].audio) for i in range(6))  # fixed by seed, epoch, number


def test_still_lips_and_noise_alone_take_away_one_view(rows):
    still = TrainingClips(rows, PLAIN, DataRecipe(), 16, non_speech=NonSpeechRecipe(still_lips=1.0))[0]
    assert (still.text_of("audio"), still.text_of("visual"), still.text_of("audiovisual")) == (
        still.text,
        "",
        still.text,
    )
    assert len(still.mouths) == still.frames
    noise = TrainingClips(rows, PLAIN, DataRecipe(), 16, non_speech=NonSpeechRecipe(noise_alone=1.0))[0]
    assert (noise.text_of("audio"), noise.text_of("visual")) == ("", noise.text) and noise.text
    backwards = NonSpeechRecipe(share=0.999, backwards=1.0)
    reversed_clip = TrainingClips(rows, PLAIN, DataRecipe(), 16, non_speech=backwards)[0]
    plain = TrainingClips(rows, PLAIN, DataRecipe(), 16)[0]
    assert np.allclose(np.abs(reversed_clip.audio[::-1]).mean(), np.abs(plain.audio).mean(), rtol=1e-3)


def test_scrambled_speech_has_all_its_pieces_and_no_words(generator):
    audio = np.repeat(np.arange(1, 51), 640).astype(np.float32)
    mouths = np.broadcast_to(np.arange(1, 51, dtype=np.uint8)[:, None, None], (50, 4, 4))
    made = scramble(Clip("a b", audio, mouths, (("a", 0.1, 0.3),)), generator)
    order = made.mouths[:, 0, 0]
    assert (made.text, made.words) == ("", ()) and sorted(order) == list(range(1, 51))  # each frame once
    assert (made.audio[320::640] == order).all()  # sound and lips stay together
    steps = np.flatnonzero(np.diff(order.astype(int)) != 1)
    assert 8 <= len(steps) <= 24 and (np.diff(steps) >= 2).all()  # pieces of 2 to 6 frames
    assert made.audio[0] == made.audio[-1] == 0
    assert scramble(Clip("a", audio[:640], None, None), generator).audio.shape == (640,)  # one frame


def test_backwards_and_scrambled_together_are_at_most_all(rows):
    clips = TrainingClips(
        rows, PLAIN, DataRecipe(), 16, non_speech=NonSpeechRecipe(share=0.999, backwards=0.5, scrambled=0.5)
    )
    made = clips[0]
    assert (made.text, made.heard, made.seen, made.words) == ("", "", "", ())
    with pytest.raises(ValueError, match="non_speech.backwards 0.7 and non_speech.scrambled 0.4"):
        NonSpeechRecipe(backwards=0.7, scrambled=0.4)


def test_quiet_moves_the_words(generator):
    clip = Clip("a", np.ones(6400, np.float32), np.full((10, 4, 4), 7, np.uint8), (("a", 0.1, 0.3),))
    moved = [add_quiet(clip, 1.0, (-60.0, -25.0), np.random.default_rng(seed)) for seed in range(10)]
    for one in moved:
        start = round(one.words[0][1] * 25 - 2.5)  # frames of quiet before it
        assert len(one.audio) == 640 * len(one.mouths) and (one.audio[start * 640 : start * 640 + 6400] == 1).all()
        assert (one.mouths == 7).all() and np.abs(one.audio[: start * 640]).max(initial=0) < 0.5
    assert len({len(one.mouths) for one in moved}) > 5
    loud = [add_quiet(clip, 2.0, (3.0, 3.0), np.random.default_rng(seed)).audio for seed in range(10)]
    noises = [audio[audio != 1] for audio in loud]
    louder = [np.std(noise) for noise in noises if noise.any()]  # the others are silent, or have nothing added
    assert len(louder) > 3 and louder == pytest.approx([10 ** (3 / 20)] * len(louder), rel=0.05)


def test_two_clips_are_joined_by_a_pause():
    mouths = np.full((10, 4, 4), 7, np.uint8)
    first = Clip("a", np.ones(6300, np.float32), mouths, (("a", 0.1, 0.3),))  # the sound ends before the pictures do
    second = Clip("b", np.full(6400, 2, np.float32), mouths + 1, (("b", 0.0, 0.2),))
    gaps = set()
    for seed in range(10):
        both = join(first, second, 1.0, (-20.0, -20.0), np.random.default_rng(seed))
        gap = both.frames - 20
        assert both.text == "a b" and len(both.mouths) == both.frames and len(both.audio) == 640 * both.frames
        assert (both.audio[:6300] == 1).all() and (both.audio[-6400:] == 2).all()
        assert np.abs(both.audio[6400:-6400]).max(initial=0) < 0.6
        assert (both.mouths[: 10 + gap // 2] == 7).all() and (both.mouths[10 + gap // 2 :] == 8).all()
        assert both.words == (("a", 0.1, 0.3), ("b", pytest.approx((10 + gap) / 25), pytest.approx((15 + gap) / 25)))
        gaps.add(gap)
    assert len(gaps) > 5 and max(gaps) <= 25
    heard = join(replace(first, mouths=None), replace(second, mouths=None), 0.0, (0.0, 0.0), np.random.default_rng(0))
    assert heard.mouths is None and len(heard.audio) == 12800 and heard.words[1][1] == pytest.approx(0.4)
    assert join(first, replace(second, audio=None), 1.0, (0.0, 0.0), np.random.default_rng(0)) is first


def test_pairs_are_of_one_speaker_and_fit(tmp_path, prepared_folder, make_texts):
    texts = {name: make_texts(4, seed=seed) for seed, name in enumerate(("s1", "s2"))}
    folders = [prepared_folder(tmp_path / name, texts[name], speaker=name) for name in texts]
    rows = load_prepared(folders)
    non_speech = NonSpeechRecipe(pairs=1.0, quiet_seconds=0.4)
    clips = TrainingClips(rows, PLAIN, DataRecipe(), 16, non_speech=non_speech)
    for index in range(len(rows)):
        mine = texts["s1" if index < 4 else "s2"]
        words = clips[index].text.split()
        assert " ".join(words[:2]) == rows[index]["text"] and " ".join(words[2:]) in mine
    short = max(len(clips[index].mouths) for index in range(len(rows))) // 2 - 10
    alone = TrainingClips(rows, PLAIN, DataRecipe(max_frames=short), 16, non_speech=non_speech)
    assert all(len(alone[index].text.split()) <= 2 for index in range(len(rows)))


def test_a_batch_has_a_text_for_each_view(processor, spelled):
    audio, mouths = spelled("TO IN", 0)
    mouths = mouths[:, 2:18, 2:18]
    words = (("TO", 0.0, 0.24), ("IN", 0.36, 0.6))
    clips = [
        Clip("TO IN", audio, mouths, words, "TO IN", ""),
        Clip("TO IN", audio, None, words, "TO IN", "TO IN"),
        Clip("", None, mouths, (), "", ""),
    ]
    batch = ClipCollator(processor, steps_per_second=25, views=VIEWS)(clips)
    ids, eos = processor.tokenizer("TO IN").input_ids, processor.tokenizer.eos_token_id
    whole, nothing, absent = ids, [eos] + [-100] * (len(ids) - 1), [-100] * len(ids)
    expected = [whole, whole, absent, nothing, absent, nothing, whole, whole, nothing]
    assert batch["labels"].tolist() == expected
    spoken = batch["alignment_labels"]
    assert (spoken[3, : len(mouths)] == 0).all() and (spoken[4] == -100).all() and (spoken[0] > 0).any()
    assert ClipCollator(processor)(clips[:2])["labels"].shape == (2, len(ids))  # as they are, without views


def test_every_batch_has_sound_and_lips(spelled):
    audio, mouths = spelled("TO", 0)
    (clip,) = with_both([Clip("TO", audio, None, None, "TO", "TO")], 16)
    assert clip.mouths.shape == (len(mouths), 16, 16) and (clip.seen, clip.text) == ("", "TO")
    (clip,) = with_both([Clip("TO", None, mouths, None, "TO", "TO")], 16)
    assert len(clip.audio) == 640 * len(mouths) and clip.heard == ""


def test_views_without_a_text_have_no_loss(processor, spelled, tiny_recipe, tmp_path):
    """The gradient of the lips' front-end is zero where no row has a text for them."""
    from lookhear.training.avsr.recipe import ModelRecipe
    from lookhear.training.avsr.train import build_model

    torch.manual_seed(0)
    config = tiny_recipe(tmp_path, tmp_path)["model"]["config"]
    weights = {"audio": 1.0, "visual": 1.0, "audiovisual": 0.0}
    more = {"modality_loss_weights": weights, "label_smoothing": 0.1, "empty_text_length": 22}
    model: AvsrForConditionalGeneration = build_model(ModelRecipe(config={**config, **more})).train()
    audio, mouths = spelled("TO", 0)
    clip = Clip("TO", audio, mouths[:, 2:18, 2:18], None, "TO", "TO")
    collator = ClipCollator(processor, views=VIEWS)
    gradients = {}
    for name in ("known", "unknown"):
        batch = collator([clip, replace(clip, text="", heard="", seen="")])
        if name == "unknown":
            batch["labels"][2:4] = -100
        model.zero_grad()
        model(**batch).loss.backward()
        gradients[name] = sum(
            float(parameter.grad.abs().sum())
            for part, parameter in model.named_parameters()
            if "visual_front_end" in part and parameter.grad is not None
        )
    assert gradients["known"] > 0 and gradients["unknown"] == 0


def test_speakers_are_held_out(rows):
    rows = rows.remove_columns("speaker").add_column("speaker", ["x", "y", "hopper y", "x", "z", None])
    train, held = hold_speakers(rows, ["y"])
    assert train["speaker"] == ["x", "x", "z", None] and held["speaker"] == ["y"]
    assert hold_speakers(rows, []) == (rows, None)
    with pytest.raises(ValueError, match="no clip of data.train is of w"):
        hold_speakers(rows, ["y", "w"])


def test_some_clips_must_have_something():
    with pytest.raises(ValueError, match="non_speech.views are all 0: one of sound, lips and both must have a share"):
        NonSpeechRecipe(share=0.1, views=(0, 0, 0))


# ------------------------------------------------------------------------------------------------------- the training


def test_rates_of_views_that_are_missing_and_of_clips_without_words(processor):
    ids = processor.tokenizer(["TO IN", "AT"], padding=True).input_ids
    labels = np.where(np.array(ids) == processor.tokenizer.pad_token_id, -100, ids)
    unread = np.full_like(labels, -100)
    rates = ErrorRates(processor.tokenizer, VIEWS)(EvalPrediction(np.stack([labels, unread, labels], 2), labels))
    assert rates == {"wer_audio": 0.0, "cer_audio": 0.0, "wer_audiovisual": 0.0, "cer_audiovisual": 0.0, "wer": 0.0}
    nothing = np.full((2, 1), processor.tokenizer.eos_token_id)
    heard = ErrorRates(processor.tokenizer, ("audio",))(EvalPrediction(labels[:, :, None], nothing))
    assert heard == {"words_audio": 1.5}  # two words, and one


@pytest.mark.slow
def test_all_of_it_trains_is_resumed_and_keeps_the_best(tmp_path, prepared_folder, make_texts, tiny_recipe, spelled):
    def spoken(name, count, speaker, lips=True):
        texts = make_texts(count, seed=len(name))
        made = [spelled(text, number) for number, text in enumerate(texts)]
        made = made if lips else [(audio, None) for audio, _ in made]
        return str(prepared_folder(tmp_path / name, texts, speaker, made))

    content = tiny_recipe(spoken("grid", 6, "s1"), tmp_path / "out", eval_strategy="steps", eval_steps=3)
    content["model"]["config"] |= {"modality_loss_weights": dict.fromkeys(VIEWS, 1.0), "empty_text_length": 5}
    content["model"]["config"] |= {"alignment_loss_weight": 0.5}
    content["data"]["train"] += [spoken("ann", 4, "ann", lips=False), spoken("bob", 3, "bob", lips=False)]
    content["data"] |= {"validation": [spoken("held", 3, "s1")], "held_speakers": ["bob"]}
    content["evaluation"] = {"by_folder": True}
    content["non_speech"] = {"share": 0.3, "still_lips": 0.2, "noise_alone": 0.2, "quiet": 0.5, "backwards": 0.1}
    content["augmentation"] |= {"room_probability": 0.3, "codec_probability": 0.3, "pitch": [0.9, 1.1], "gamma": 0.2}
    content["augmentation"] |= {"background_probability": 0.3, "blur": 0.5, "slow_probability": 0.3}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "mean_wer", "greater_is_better": False}
    content["training"] |= best
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    trainer = train(load_recipe(path))
    assert len(trainer.train_dataset.rows) == 10 and len(trainer.eval_dataset["held_speakers"]) == 3
    logged = [entry for entry in trainer.state.log_history if "eval_mean_wer" in entry]
    assert [entry["step"] for entry in logged] == [3, 6]
    assert trainer.state.best_metric == min(entry["eval_mean_wer"] for entry in logged)
    names = {name for entry in trainer.state.log_history for name in entry}
    assert {"eval_held_wer_visual", "eval_held_speakers_wer_audio", "alignment_loss"} <= names
    assert "eval_held_speakers_wer_visual" not in names  # they have no lips
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 6 and np.isfinite(losses).all()
    again = train(load_recipe(path, ["training.max_steps=8"]))
    assert again.state.global_step == 8
