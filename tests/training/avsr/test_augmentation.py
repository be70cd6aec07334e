"""Disturbances keep sound and lips in step: in these clips frame i and block i of the sound both say i."""

import numpy as np
import pytest

from lookhear.training.avsr.augmentation import (
    SAMPLES_PER_FRAME,
    Clip,
    add_noise,
    augment,
    change_intensity,
    change_speed,
    crop_and_flip,
    cut,
    cut_at_words,
    cut_part,
    cut_silence,
    first_words,
    mask_stretches,
    splice_word,
    word_window,
)
from lookhear.training.avsr.recipe import AugmentationRecipe

WORDS = (("BIN", 0.40, 0.80), ("BLUE", 0.80, 1.20), ("AT", 1.40, 1.60), ("F", 1.60, 1.80))
SPANS = {word: (round(25 * start), round(25 * end)) for word, start, end in WORDS}


def counting_clip(frames: int = 60, offset: int = 0, words=WORDS) -> Clip:
    """Frame i is grey level i + offset, its 640 samples are (i + offset) / 1000."""
    numbers = np.arange(frames) + offset
    mouths = np.broadcast_to(numbers[:, None, None], (frames, 20, 20)).astype(np.uint8)
    audio = np.repeat(numbers / 1000, SAMPLES_PER_FRAME).astype(np.float32)
    return Clip(" ".join(word for word, *_ in words), audio, mouths, words)


def seen(clip: Clip) -> np.ndarray:
    return clip.mouths[:, 0, 0].astype(int)


def heard(clip: Clip) -> np.ndarray:
    """What the middle of each frame's sound says."""
    middles = np.arange(len(clip.mouths)) * SAMPLES_PER_FRAME + SAMPLES_PER_FRAME // 2
    return np.round(1000 * clip.audio[middles]).astype(int)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_cut_takes_sound_lips_and_words():
    part = cut(counting_clip(), 20, 41)
    assert seen(part).tolist() == heard(part).tolist() == list(range(20, 41))
    assert part.frames == 21 and len(part.audio) == 21 * SAMPLES_PER_FRAME
    assert [word for word, *_ in part.words] == ["BLUE", "AT"] and part.text == "BLUE AT"
    assert part.words[0][1:] == pytest.approx((0.0, 0.4)) and part.words[1][1:] == pytest.approx((0.6, 0.8))
    whole = cut(counting_clip(), 5, 60)
    assert whole.text == "BIN BLUE AT F"
    assert cut(Clip("NO TIMES", mouths=counting_clip().mouths), 0, 10).text == "NO TIMES"


@pytest.mark.parametrize(
    ("most", "frames", "text", "times"),
    [
        (59, (0, 59), "BIN BLUE AT F", [(0.4, 0.8), (0.8, 1.2), (1.4, 1.6), (1.6, 1.8)]),  # silence goes first
        (45, (0, 45), "BIN BLUE AT F", [(0.4, 0.8), (0.8, 1.2), (1.4, 1.6), (1.6, 1.8)]),  # F ends with frame 44
        (44, (0, 40), "BIN BLUE AT", [(0.4, 0.8), (0.8, 1.2), (1.4, 1.6)]),  # F would be cut: it begins at frame 40
        (39, (0, 35), "BIN BLUE", [(0.4, 0.8), (0.8, 1.2)]),  # of the pause before AT all, of AT nothing
        (34, (0, 34), "BIN BLUE", [(0.4, 0.8), (0.8, 1.2)]),
        (20, (0, 20), "BIN", [(0.4, 0.8)]),
        (19, (10, 20), "BIN", [(0.0, 0.4)]),  # BIN ends with frame 19, but not from the beginning on
        (9, (35, 40), "AT", [(0.0, 0.2)]),  # the first word of less than ten frames
    ],
)
def test_long_clips_are_cut_between_words(most, frames, text, times):
    part = cut_at_words(counting_clip(), most)
    assert seen(part).tolist() == heard(part).tolist() == list(range(*frames))
    assert part.text == text == " ".join(word for word, *_ in part.words)
    assert [time for _, *span in part.words for time in span] == pytest.approx([t for span in times for t in span])


def test_cut_between_words_is_exact_to_the_frame():
    """Times as float32 stores them, of which some are a little less than a whole number of frames."""
    words = tuple((str(n), float(np.float32(n / 25)), float(np.float32((n + 1) / 25))) for n in range(60))
    for most in range(1, 60):
        part = cut_at_words(counting_clip(words=words), most)
        assert seen(part).tolist() == list(range(most)) and part.text.split() == [str(n) for n in range(most)]


def test_words_that_are_too_long_or_overlap():
    assert first_words(WORDS, 4) is None and first_words((), 100) is None
    assert first_words((("LONG", 0.0, 4.0), ("AT", 4.2, 4.4), ("ON", 4.4, 4.6)), 11) == (105, range(1, 3))
    overlapping = (("A", 0.0, 0.4), ("B", 0.32, 0.8))
    part = cut_at_words(counting_clip(words=overlapping), 15)
    assert part.text == "A" and seen(part).tolist() == list(range(10))  # A is whole, though B begins before its end
    written = Clip("Bin, blue: at F!", None, counting_clip().mouths, WORDS)
    assert cut_at_words(written, 50).text == "Bin, blue: at F!"  # no word is lost, so the text stays


def test_length_is_that_of_the_longer_part():
    clip = counting_clip(10)
    assert Clip("", clip.audio, None).frames == Clip("", None, clip.mouths).frames == 10
    assert Clip("", clip.audio[:-1], clip.mouths[:3]).frames == 10 and Clip("").frames == 0


@pytest.mark.parametrize("seed", range(20))
def test_silence_goes_but_no_word(seed):
    part = cut_silence(counting_clip(), generator(seed))
    assert np.array_equal(seen(part), heard(part)) and part.text == "BIN BLUE AT F"
    assert [word for word, *_ in part.words] == ["BIN", "BLUE", "AT", "F"]
    for word, start, end in part.words:
        assert seen(part)[round(25 * start) : round(25 * end)].tolist() == list(range(*SPANS[word]))


def test_silence_is_cut_at_both_ends():
    parts = [seen(cut_silence(counting_clip(), generator(seed))) for seed in range(50)]
    assert {0, 9} <= {int(part[0]) for part in parts} and max(int(part[0]) for part in parts) < 10
    assert {46, 59} <= {int(part[-1]) for part in parts} and min(int(part[-1]) for part in parts) >= 45


@pytest.mark.parametrize("seed", range(20))
def test_word_window_is_a_run_of_words(seed):
    part = word_window(counting_clip(), 0.5, generator(seed), 160)
    chosen = part.text.split()
    assert chosen in (["BIN", "BLUE"], ["BLUE", "AT"], ["AT", "F"])
    assert seen(part).tolist() == heard(part).tolist() == list(range(SPANS[chosen[0]][0], SPANS[chosen[1]][1]))
    assert [word for word, *_ in part.words] == chosen and part.words[0][1] == pytest.approx(0.0, abs=0.04)


def test_word_window_is_shortened_until_it_fits():
    texts = {word_window(counting_clip(), 1.0, generator(seed), 22).text for seed in range(5)}
    assert texts == {"BIN BLUE"}
    assert word_window(counting_clip(), 1.0, generator(), 5).frames == 5
    assert word_window(Clip("X", words=None), 0.3, generator(), 5).text == "X"


def test_a_part_of_a_sentence_keeps_its_words_and_their_place():
    clip, parts = counting_clip(), set()
    edges = {"BIN": (0, 20), "BLUE": (20, 32), "AT": (32, 40), "F": (40, 60)}  # "at" comes after a pause of 5 frames
    for seed in range(60):
        part = cut_part(clip, generator(seed))
        words = part.text.split()
        start, end = edges[words[0]][0], edges[words[-1]][1]
        assert seen(part).tolist() == heard(part).tolist() == list(range(start, end))
        for word, begins, ends in part.words:
            assert (round(25 * begins) + start, round(25 * ends) + start) == SPANS[word]
        parts.add(part.text)
    rows = [[word for word, *_ in WORDS][a:b] for a in range(4) for b in range(a + 1, 5) if b - a < 4]
    assert parts == {" ".join(row) for row in rows}  # each but the whole
    assert cut_part(Clip("NO TIMES", mouths=clip.mouths), generator()).text == "NO TIMES"
    one = counting_clip(words=WORDS[:1])
    assert cut_part(one, generator()) is one


def test_spliced_word_brings_its_sound_lips_and_times():
    words = (("SET", 0.2, 0.6), ("GREEN", 0.6, 1.16), ("IN", 1.2, 1.4), ("Q", 1.4, 1.8))
    clip, other = counting_clip(), counting_clip(50, 100, words)
    spliced = splice_word(clip, other, 1)
    expected = [*range(20), *range(115, 129), *range(30, 60)]
    assert seen(spliced).tolist() == heard(spliced).tolist() == expected
    assert spliced.text == "BIN GREEN AT F" and spliced.frames == 64
    times = [(word, round(25 * start), round(25 * end)) for word, start, end in spliced.words]
    assert times == [("BIN", 10, 20), ("GREEN", 20, 34), ("AT", 39, 44), ("F", 44, 49)]
    for word, start, end in times:
        number = 115 if word == "GREEN" else SPANS[word][0]
        assert seen(spliced)[start:end].tolist() == list(range(number, number + end - start))
    again = splice_word(spliced, other, 3)
    assert np.array_equal(seen(again), heard(again)) and again.text == "BIN GREEN AT Q"


def test_what_cannot_be_spliced_stays():
    clip = counting_clip()
    outside = counting_clip(20)  # its words lie behind its end
    assert splice_word(clip, outside, 2) is clip
    assert splice_word(clip, Clip(clip.text, None, clip.mouths, clip.words), 0) is clip
    empty = counting_clip(words=(("BIN", 0.4, 0.41), *WORDS[1:]))
    assert splice_word(clip, empty, 0) is clip


@pytest.mark.parametrize("factor", [0.8, 0.93, 1.0, 1.15, 1.5])
def test_speed_moves_sound_lips_and_words_alike(factor):
    fast = change_speed(counting_clip(), factor)
    assert abs(len(fast.mouths) - 60 / factor) <= 0.5 and abs(len(fast.audio) - 38400 / factor) < 1
    middles = np.arange(len(fast.mouths) - 1) * SAMPLES_PER_FRAME + SAMPLES_PER_FRAME // 2
    assert np.abs(1000 * fast.audio[middles] - seen(fast)[:-1]).max() <= 1.5
    for word, start, end in fast.words:
        middle = int(25 * (start + end) / 2)
        assert SPANS[word][0] - 1 <= seen(fast)[middle] <= SPANS[word][1]
    if factor == 1.0:
        assert np.array_equal(fast.audio, counting_clip().audio) and np.array_equal(seen(fast), np.arange(60))


def test_speed_changes_a_tone():
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(change_speed(Clip("", tone), 1.25).audio))
    assert spectrum.argmax() == pytest.approx(440, abs=1)  # 12800 samples: a bin is 1.25 Hz, and 550 Hz is bin 440


def test_crop_and_flip_are_one_for_the_clip():
    mouths = np.random.default_rng(0).integers(0, 256, (4, 20, 20)).astype(np.uint8)
    places = set()
    for seed in range(60):
        cropped = crop_and_flip(mouths, 16, generator(seed), 0.5, None)
        found = [
            (top, left, flipped)
            for top in range(5)
            for left in range(5)
            for flipped in (False, True)
            if np.array_equal(cropped, mouths[:, top : top + 16, left : left + 16][:, :, :: -1 if flipped else 1])
        ]
        assert len(found) == 1
        places.add(found[0])
    assert {place[2] for place in places} == {False, True}
    assert {place[0] for place in places} == {place[1] for place in places} == set(range(5))
    centre = crop_and_flip(mouths, 16, generator(), 0.0, 0)
    assert np.array_equal(centre, mouths[:, 2:18, 2:18])


def test_intensity_is_one_table_for_the_clip():
    mouths = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for seed in range(10):
        table = change_intensity(mouths, 0.2, generator(seed)).astype(int).ravel()
        assert (np.diff(table) >= 0).all() and abs(table[128] - 128) <= 52
    assert np.array_equal(change_intensity(mouths, 0.0, generator()), mouths)


def test_masks_are_short_and_few():
    values = np.arange(1, 101)
    for seed in range(30):
        masked = mask_stretches(values, 2, 7, 0, generator(seed))
        changed = masked != values
        runs = np.flatnonzero(np.diff(np.concatenate(([0], changed, [0]))) == 1)
        assert len(runs) <= 2 and changed.sum() <= 14 and not masked[changed].any()
    assert np.array_equal(mask_stretches(np.ones(3), 0, 7, 0, generator()), np.ones(3))
    assert len(mask_stretches(np.ones(3), 5, 7, 0.0, generator())) == 3


@pytest.mark.parametrize("kind", ["babble", "talker", "human"])
@pytest.mark.parametrize("snr", [-5.0, 5.0])
def test_noise_has_the_level_that_is_asked_for(kind, snr):
    waves = [np.random.default_rng(seed).normal(size=9000).astype(np.float32) for seed in range(4)]
    share = {"talker": {"talker_probability": 1.0}, "human": {"human_probability": 1.0}}.get(kind, {})
    recipe = AugmentationRecipe(noise_snr=(snr, snr), noise_talkers=(2, 3), **share)
    speech = 0.1 * np.random.default_rng(9).normal(size=12000).astype(np.float32)
    noise = add_noise(speech, waves, recipe, generator()) - speech
    assert 10 * np.log10(np.mean(speech**2) / np.mean(noise**2)) == pytest.approx(snr, abs=0.01)


@pytest.mark.parametrize("seed", range(15))
def test_everything_together_stays_in_step(seed):
    recipe = AugmentationRecipe(silence=True, speed=(0.85, 1.15), noise_probability=0.0)
    clip = augment(counting_clip(), recipe, 16, [], generator(seed))
    assert clip.mouths.shape[1:] == (16, 16) and clip.mouths.dtype == np.uint8 and clip.audio.dtype == np.float32
    middles = np.arange(len(clip.mouths) - 1) * SAMPLES_PER_FRAME + SAMPLES_PER_FRAME // 2
    assert np.abs(1000 * clip.audio[middles] - seen(clip)[:-1]).max() <= 1.5
    assert abs(len(clip.audio) / SAMPLES_PER_FRAME - len(clip.mouths)) <= 1


def test_clips_of_one_modality_pass():
    recipe = AugmentationRecipe(silence=True, speed=(0.9, 1.1), video_masks=2, audio_masks=2, intensity=0.1)
    whole = counting_clip()
    wave = [np.random.default_rng(0).normal(size=4000).astype(np.float32)]
    sound = augment(Clip("A", whole.audio, None, WORDS), recipe, 16, wave, generator())
    lips = augment(Clip("A", None, whole.mouths, WORDS), recipe, 16, wave, generator())
    assert sound.mouths is None and lips.audio is None and len(sound.audio) and len(lips.mouths)


def test_a_pause_in_the_noise_leaves_a_clip_as_it_is():
    """A part of a clip may be shorter than the pause in the voice that is to disturb it."""
    recipe = AugmentationRecipe(noise_probability=1.0, talker_probability=1.0, flip=0.0)
    voice = np.concatenate([np.zeros(80000, np.float32), np.ones(160, np.float32)])
    clip = counting_clip(3, 1, (("BIN", 0.0, 0.12),))
    outcomes = {
        np.array_equal(augment(clip, recipe, 20, [voice], generator(seed)).audio, clip.audio) for seed in range(20)
    }
    assert True in outcomes
