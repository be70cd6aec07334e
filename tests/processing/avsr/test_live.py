"""Speech that is read while it happens: words once and when they are certain, pictures left out, sound never."""

import itertools
import threading
import time

import numpy as np
import pytest

from lookhear.processing.avsr.alignment_avsr import UTTERANCE_PAUSE, TimedText
from lookhear.processing.avsr.clip_stream_avsr import ClipPiece
from lookhear.processing.avsr.live_avsr import KEPT, SETTLED, LiveDecoder
from lookhear.processing.avsr.live_source_avsr import BEHIND, FAR_BEHIND, PICTURE, SOUND, LatestLocator, LiveSource
from lookhear.processing.avsr.long_form_avsr import ChunkResult, ClipWindow

RATE, FPS = 1000, 25


class Reader:
    """Reads known words; a word that it hasn't heard to its end is read wrong, and differently each time."""

    def __init__(self, words, confidence=0.9):
        self.words, self.confidence = words, confidence
        self.guesses, self.longest = 0, 0.0

    def nonblank_probability(self, clip):
        steps = clip.first / FPS + (np.arange(round(clip.duration * FPS)) + 0.5) / FPS
        spoken = [(steps >= start) & (steps < end) for _, start, end in self.words]
        return np.where(np.any([steps < 0, *spoken], axis=0), 0.99, 0.01)

    def read(self, clips):
        (clip,) = clips
        start = clip.first / FPS
        self.longest = max(self.longest, clip.duration)
        letters = []
        for text, begin, end in self.words:
            if begin >= start - 0.02 and begin < start + clip.duration - 0.05:
                whole = end <= start + clip.duration
                self.guesses += not whole
                text = text if whole else f"x{self.guesses}"
                times = np.linspace(begin, min(end, start + clip.duration), len(text) + 1) - start
                letters += [TimedText(" ", letters[-1].end, letters[-1].end, 1.0)] if letters else []
                letters += [TimedText(c, a, b, self.confidence) for c, a, b in zip(text, times, times[1:])]
        return [ChunkResult(letters)]


def decoded(words, seconds, confidence=0.9, least=0.5, longest=6.0, step=5):
    """Reads words live: (word, seconds that had been read when it was certain), the reader, most frames in memory."""
    window = ClipWindow(iter(()), RATE, FPS)
    reader = Reader(words, confidence)
    decoder = LiveDecoder(window, reader, lambda modality: least, longest, 1 / FPS)
    noise = np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    found, most, frames = [], 0, round(seconds * FPS)
    for first in range(0, frames, step):
        last = min(frames, first + step)
        piece = noise[first * RATE // FPS : last * RATE // FPS]
        window.append(ClipPiece(first / FPS, piece, None, None, None, None))
        found += [(word, decoder.position) for word in decoder.step(ended=last == frames)]
        most = max(most, window.last - window.first)
    return found, reader, most


def test_words_come_once_and_when_they_are_certain():
    words = [("bin", 0.6, 0.84), ("blue", 0.84, 1.2), ("at", 1.3, 1.5), ("now", 3.0, 3.4), ("please", 3.4, 4.0)]
    found, reader, _ = decoded(words, 4.8)
    assert [word.text for word, _ in found] == [text for text, *_ in words] and reader.guesses > 3
    for (word, at), (text, start, end) in zip(found, words):
        assert (word.start, word.end) == pytest.approx((start, end)), text
        assert SETTLED <= at - word.end <= UTTERANCE_PAUSE + 0.2, "certain soon, and not before more was heard"
    assert [word.text for word, _ in decoded(words, 4.0)[0]] == [text for text, *_ in words], "the end comes early"


def test_several_utterances_in_one_step_are_all_read():
    words = [("one", 0.5, 0.8), ("two", 1.6, 1.9), ("three", 2.7, 3.0)]
    found, _, _ = decoded(words, 4.0, step=100)
    assert [word.text for word, _ in found] == ["one", "two", "three"]


def test_what_is_unsure_is_no_speech():
    words = [("bin", 0.6, 0.84), ("blue", 0.84, 1.2)]
    assert decoded(words, 3.0, confidence=0.4)[0] == []
    assert len(decoded(words, 3.0, confidence=0.4, least=0.3)[0]) == 2


def test_an_utterance_without_end_is_read_in_bounded_memory():
    words = [(f"w{number}", 0.5 + number * 0.4, 0.88 + number * 0.4) for number in range(60)]
    found, reader, most = decoded(words, 25.0, longest=4.0)
    assert [word.text for word, _ in found] == [text for text, *_ in words]
    assert most / FPS <= 4.5 and reader.longest <= 4.5
    assert all(at - word.end < 1.0 for word, at in found)


def test_somebody_else_is_read_from_where_they_were_chosen():
    """Words that had ended stay, one that is cut off does not, and of the other nothing from before is read."""
    window, noise = ClipWindow(iter(()), RATE, FPS), np.random.default_rng(0).normal(0, 0.1, 5 * RATE)
    mine = Reader([("one", 0.2, 0.5), ("two", 0.6, 1.0), ("three", 1.1, 1.5), ("four", 1.7, 2.3)])
    theirs = Reader([("before", 0.6, 1.5), ("after", 2.4, 2.8), ("last", 2.9, 3.3)], confidence=0.2)
    decoder = LiveDecoder(window, mine, lambda modality: 0.5, 6.0, 1 / FPS)
    found, heard = [], []
    for first in range(0, 5 * FPS, 5):
        if first == 50:
            found += decoder.change(theirs, lambda modality: 0.0, True)
            heard, found = [word.text for word in found], []
            assert decoder.partial == "" and window.chosen and window.first == window.last == 50
        piece = noise[first * RATE // FPS : (first + 5) * RATE // FPS].astype(np.float32)
        window.append(ClipPiece(first / FPS, piece, None, None, None, None))
        found += decoder.step(ended=first == 5 * FPS - 5)
    assert heard == ["one", "two", "three"] and [word.text for word in found] == ["after", "last"]


def test_silence_is_forgotten():
    found, _, most = decoded([], 30.0)
    assert found == [] and most / FPS <= KEPT + 0.3


# ----------------------------------------------------------------------------------------------------- what is pushed


def taken(source) -> tuple[np.ndarray, list]:
    """All sound, and the numbers of the pictures (their first pixel), None where there is none."""
    items = list(source)
    sound = [values for kind, values in items if kind == SOUND]
    pictures = [None if values is None else int(values[0, 0, 0]) for kind, values in items if kind == PICTURE]
    return np.concatenate([np.zeros(0, np.float32), *sound]), pictures


def picture(number: int) -> np.ndarray:
    return np.full((4, 6, 3), number, np.uint8)


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (25, [0, 1, 2, 3, 4, 5]),
        (50, [0, 2, 4]),
        (12.5, [0, 0, 1, 2, 2, 3, 4, 4, 5, 5, 5]),
    ],
)
def test_pictures_are_put_on_the_clock(fps, expected):
    source = LiveSource(None, fps, 16000, 25.0)
    for number in range(6):
        source.push_picture(picture(number))
    source.finish()
    found = taken(source)[1]
    assert len(found) == pytest.approx(6 / fps * 25, abs=1) and found[0] == 0
    for tick, number in enumerate(found):
        assert abs(number / fps - tick / 25) <= 0.5 / fps + 1e-6 or number == 5, (tick, found)
    assert set(found) <= set(range(6)) and sorted(found) == found
    assert len(expected) - 1 <= len(found) <= len(expected) + 1


def test_pictures_come_at_their_times():
    source = LiveSource(None, 30.0, 16000, 25.0)
    for number, second in enumerate((0.4, 0.44, 0.44, 0.48, 3.0, 3.04)):
        source.push_picture(picture(number), second)
    source.finish()
    found = taken(source)[1]
    assert found[:10] == [None] * 10 and found[10:13] == [0, 1, 3], "none before the first, none twice"
    assert found[25] is None and found[60] is None and found[75:77] == [4, 5] and len(found) in (77, 78)


def test_sound_is_taken_whole_and_pictures_are_left_out():
    source = LiveSource(16000, 25.0, 16000, 25.0)
    noise = np.random.default_rng(0).normal(0, 0.1, 16000 * 8).astype(np.float32)
    for number in range(200):
        source.push_sound(noise[number * 640 : (number + 1) * 640])
        source.push_picture(picture(number))
    arrays = {id(values) for kind, values in source._items if isinstance(values, np.ndarray) and kind == PICTURE}
    assert len(arrays) <= FAR_BEHIND, "no more pictures are held"
    source.finish()
    sound, pictures = taken(source)
    np.testing.assert_array_equal(sound, noise)
    assert len(pictures) == 200 and source.dropped >= 200 - FAR_BEHIND
    assert pictures[:1] == [0] and pictures[FAR_BEHIND - BEHIND + 1 : FAR_BEHIND] == list(
        range(FAR_BEHIND - BEHIND + 1, FAR_BEHIND)
    ), "as soon as few wait, none is left out"


def test_sound_of_any_rate_and_type_is_taken():
    second = np.sin(2 * np.pi * 440 * np.arange(48000) / 48000)
    for samples in (second, np.stack([second, second]), (second * 32767).astype(np.int16)):
        source = LiveSource(48000, None, 16000, 25.0)
        for part in np.split(samples, 48, axis=-1):
            source.push_sound(part)
        source.finish()
        sound, _ = taken(source)
        assert abs(len(sound) - 16000) < 50
        middle = sound[4000:12000]
        assert np.abs(middle).max() == pytest.approx(1.0, abs=0.02)
        spectrum = np.abs(np.fft.rfft(middle))
        assert spectrum.argmax() == 220
    source = LiveSource(16000, None, 16000, 25.0)
    source.push_sound(np.array([np.nan, np.inf, 0.5], np.float32))
    source.finish()
    assert taken(source)[0].tolist() == [0.0, 0.0, 0.5]


def test_delays_are_counted_from_the_push():
    source = LiveSource(16000, None, 16000, 25.0)
    source.push_sound(np.zeros(16000))
    time.sleep(0.2)
    source.push_sound(np.zeros(16000))
    assert 0.2 <= source.since(0.9) < 5 and source.since(1.5) < source.since(0.9) - 0.15


def test_a_slow_locator_sees_the_latest_picture():
    seen, ready = [], threading.Event()

    def slow(frames, prompt):
        for frame in frames:
            seen.append(int(frame[0, 0, 0]))
            if len(seen) == 2:
                ready.wait(10)
            yield (seen[-1], 0, 100 + seen[-1], 100)

    def frames():
        for number in range(40):
            if number == 30:
                ready.set()
            until = time.monotonic() + 10
            while len(seen) < {5: 2, 30: 3}.get(number, 0) and time.monotonic() < until:
                time.sleep(0.01)
            yield picture(number)

    boxes = list(LatestLocator(slow)(frames(), "who"))
    assert len(boxes) == 40 and boxes[0] == (0, 0, 100, 100), "the first box is waited for"
    assert 1 <= seen[1] <= 4 and seen[2] == 29 and boxes[29] in ((0, 0, 100, 100), (seen[1], 0, 100 + seen[1], 100))

    def broken(frames, prompt):
        raise ValueError("nobody there")
        yield

    with pytest.raises(ValueError, match="nobody there"):
        list(LatestLocator(broken)(frames(), "who"))


def test_a_locator_that_looks_at_several_pictures_first_gets_the_first_one_again():
    """As one for videos does, which takes them in windows; else each would wait for the other."""
    seen = []

    def windows(frames, prompt):
        while window := list(itertools.islice(frames, 4)):
            seen.append([int(frame[0, 0, 0]) for frame in window])
            yield from [(seen[-1][-1], 0, 100, 100)] * len(window)

    boxes = list(LatestLocator(windows)((picture(number) for number in range(3)), "who"))
    assert len(boxes) == 3 and boxes[0] == (0, 0, 100, 100) and seen[0] == [0, 0, 0, 0]


# --------------------------------------------------------------------------------------------------------- a pipeline


@pytest.fixture(scope="module")
def asr(tiny_checkpoint):
    from transformers import pipeline

    return pipeline("audio-visual-speech-recognition", model=str(tiny_checkpoint), search="greedy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling_rate": None, "fps": None}, "`sampling_rate` is None, and there is nothing to read"),
        ({"sampling_rate": -1}, "`sampling_rate` must be a positive number or None, not -1"),
        ({"fps": 0}, "`fps` must be a positive number or None, not 0"),
        ({"fps": None, "modality": "audiovisual"}, "`fps` is None, and lips are to be read"),
        ({"modality": "visual", "fps": None}, "`fps` is None, and lips are to be read"),
        ({"modality": "audio", "sampling_rate": None}, "`sampling_rate` is None"),
        ({"speaker": "everyone"}, "`speaker`: live, one person is read"),
        ({"speaker": {"track": [None]}}, "`speaker`: live, one person is read"),
    ],
)
def test_arguments_are_checked(asr, arguments, message):
    with pytest.raises(ValueError, match=message):
        asr.live(**arguments)
    assert not [thread for thread in threading.enumerate() if thread.name == "read speech"]


def test_what_is_no_sound_or_picture_is_refused(asr):
    with asr.live(16000, None) as live:
        with pytest.raises(ValueError, match="`pictures` were not announced"):
            live.push(pictures=[picture(0)])
        with pytest.raises(ValueError, match=r"`sound` must be numbers of shape .* not float64 of shape \(2, 2, 2\)"):
            live.push(np.zeros((2, 2, 2)))
        with pytest.raises(ValueError, match="there are no pictures"):
            live.choose("somebody")
        live.push(np.zeros(160, np.int16))
        assert live.finish() == [] and live.to_report()["words"] == 0
        with pytest.raises(ValueError, match="`push` comes after `finish`"):
            live.push(np.zeros(160))
    with asr.live(None, 25, modality="visual") as live:
        with pytest.raises(ValueError, match=r"`pictures` must be uint8 of shape \(height, width, 3\), not float64"):
            live.push(pictures=np.zeros((1, 4, 4, 3)))
        with pytest.raises(ValueError, match="`times` must be one for each picture: there are 2 for 1"):
            live.push(pictures=[picture(0)], times=[0, 1])
        with pytest.raises(ValueError, match="`sound` was not announced"):
            live.push(np.zeros(10))


def test_errors_of_the_threads_are_raised(asr, monkeypatch):
    with asr.live(16000, None) as live:
        monkeypatch.setattr(live._decoder, "step", lambda ended: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            live.push(np.random.default_rng(0).normal(0, 0.1, 16000))
            live.finish()


@pytest.mark.slow
def test_mouths_that_come_promptly_are_those_of_a_file(talking_clips):
    from lookhear import MouthRoiImageProcessor
    from lookhear.processing.avsr import read_frames
    from lookhear.processing.avsr.clip_stream_avsr import MouthFinder

    pictures = list(read_frames(talking_clips / "0.mp4"))
    images, crops = MouthRoiImageProcessor(), []
    for prompt in (False, True):
        finder, rows, ahead = MouthFinder(images, images.landmarks, None, prompt), [], 0
        with finder:
            for number, one in enumerate(pictures, 1):
                rows += list(finder.add(one))
                if rows:
                    ahead = max(ahead, number - sum(len(row[0]) for row in rows))
            rows += list(finder.finish())
        crops.append([np.concatenate(parts) for parts in zip(*rows)])
        assert not prompt or ahead <= 12, "crops come half a second after their pictures"
    for name, file, live in zip(("mouths", "found", "cuts", "absent", "lips"), *crops):
        np.testing.assert_allclose(file, live, rtol=0, atol=1 if name == "mouths" else 1e-3, err_msg=name)
    assert (crops[0][0] != crops[1][0]).mean() < 1e-3, "sums are rounded elsewhere"


@pytest.mark.slow
def test_a_talking_face_is_read_live(repository, tmp_path, monkeypatch):
    """As fast as it is read, not as fast as it plays, and no picture is left out, however busy the machine is."""
    from transformers import pipeline

    from lookhear.processing.avsr import live_source_avsr, read_audio, read_frames
    from lookhear.training.avsr.synthesis import synthesize_clip

    for name in ("BEHIND", "FAR_BEHIND"):
        monkeypatch.setattr(live_source_avsr, name, 1000)
    asr = pipeline("audio-visual-speech-recognition", model=str(repository / "model_cards" / "avsr-grid-tiny"))
    clip = tmp_path / "clip.mp4"
    synthesize_clip("bin blue at f two now", clip, portrait="hopper")
    expected = asr(clip)["text"]
    sound, pictures = read_audio(clip), list(read_frames(clip))
    for speaker in (None, {"point": (180, 140)}):
        with asr.live(16000, 25, speaker=speaker) as live:
            words = []
            for number, one in enumerate(pictures):
                words += live.push(sound[number * 640 : (number + 1) * 640], one[None])
                while live.behind > 1.4:
                    time.sleep(0.02)
            words += live.finish()
            report = live.to_report()
        assert " ".join(word["text"] for word in words) == expected == "bin blue at f two now", speaker
        assert report["words"] == len(words) and report["duration"] == pytest.approx(len(pictures) / 25, abs=0.3)
        assert all(set(word) == {"text", "timestamp", "confidence", "delay"} for word in words)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_five_minutes_take_as_much_memory_as_one(asr):
    """Pushed as fast as they are read; a hundred megabytes are what torch's and the system's allocators may move."""
    import psutil

    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 255, (25, 90, 120, 3), dtype=np.uint8)
    process, used = psutil.Process(), []
    with asr.live(16000, 25) as live:
        for second in range(300):
            for part in range(5):
                sound = generator.normal(0, 0.1 if second % 4 else 1e-6, 3200)
                live.push(sound, pictures[part * 5 : part * 5 + 5])
            while live.behind > 3:
                time.sleep(0.01)
            if second % 30 == 29:
                used.append(process.memory_info().rss / 2**20)
        live.finish()
    assert max(used[2:]) - used[1] < 100, used
