"""Where long clips are cut and how their words are joined: speech made of numbers, a model made of a look-up."""

import numpy as np
import pytest

from lookhear.processing.avsr.alignment_avsr import (
    MARGIN,
    Piece,
    TimedText,
    choose_seam,
    find_speech,
    first_pause,
    plan_utterance,
    plan_window,
    split_at,
    within_scene,
    words_after,
    words_before,
)
from lookhear.processing.avsr.clip_stream_avsr import ClipPiece
from lookhear.processing.avsr.long_form_avsr import ChunkResult, ClipWindow, LongFormDecoder

FPS, RATE, STEP = 25, 1000, 0.02


def letters(*spans: tuple[float, float], length: float) -> np.ndarray:
    steps = np.arange(round(length / STEP)) * STEP
    heard = np.zeros(len(steps), bool)
    for start, end in spans:
        heard |= (start <= steps + 1e-9) & (steps + 1e-9 < end)
    return heard


def plan(*spans: tuple[float, float], length: float = 4.0, last: bool = False):
    return plan_window(letters(*spans, length=length), STEP, length, last)


def places(window_plan) -> list[tuple[float, float]]:
    return [(round(piece.start, 2), round(piece.end, 2)) for piece in window_plan.pieces]


def test_speech_is_what_lies_between_pauses():
    heard = letters((0.2, 0.6), (0.8, 1.0), (2.0, 2.5), length=3.0)
    assert np.allclose(find_speech(heard, STEP, 0.5), [(0.2, 1.0), (2.0, 2.5)])
    assert np.allclose(find_speech(heard, STEP, 0.2), [(0.2, 0.6), (0.8, 1.0), (2.0, 2.5)])
    assert find_speech(np.zeros(9, bool), STEP, 0.5) == []
    assert find_speech(np.zeros(0, bool), STEP, 0.5) == []
    assert np.allclose(find_speech(np.ones(50, bool), STEP, 0.5), [(0.0, 1.0)])


def test_finished_utterances_are_pieces_and_the_next_window_starts_before_the_unfinished_one():
    window = plan((0.6, 1.2), (2.0, 2.4), (3.6, 4.0))
    assert places(window) == [(0.1, 1.6), (1.6, 2.9)]
    assert window.next_start == pytest.approx(3.1) and not window.in_utterance


def test_a_pause_at_the_end_of_the_window_counts_when_it_is_long_enough():
    assert places(plan((0.5, 3.5))) == [(0.0, 4.0)]
    assert plan((0.5, 3.5)).next_start == pytest.approx(3.75)
    assert plan((0.5, 3.6)).in_utterance


def test_silence_has_no_pieces_and_half_of_it_is_looked_at_again():
    assert plan().pieces == () and plan().next_start == pytest.approx(2.0)
    assert plan(last=True).pieces == ()


def test_an_utterance_that_begins_late_is_left_to_the_next_window():
    window = plan((0.8, 4.0))
    assert window.pieces == () and window.next_start == pytest.approx(0.8 - MARGIN) and not window.in_utterance


def test_an_utterance_that_fills_the_window_is_cut_at_its_longest_late_pause():
    window = plan((0.0, 1.0), (1.4, 2.0), (2.2, 3.0), (3.3, 4.0))
    assert places(window) == [(0.0, 3.15)] and window.next_start == pytest.approx(3.15) and window.in_utterance


def test_without_any_pause_the_piece_is_unfinished():
    window = plan((0.0, 4.0))
    assert window.pieces == (Piece(0.0, 4.0, 0.0, 4.0, unfinished=True),) and window.next_start is None


def test_at_the_end_of_the_clip_everything_is_read():
    window = plan((0.0, 1.0), (2.0, 4.0), last=True)
    assert places(window) == [(0.0, 1.5), (1.5, 4.0)] and window.next_start == 4.0


def test_pieces_neither_overlap_nor_leave_their_window():
    rng = np.random.default_rng(0)
    for _ in range(300):
        length = float(rng.integers(2, 13))
        heard = np.repeat(rng.random(round(length / STEP) // 10) < rng.random(), 10)
        window = plan_window(heard, STEP, length, bool(rng.integers(2)))
        borders = [0.0, *(x for piece in window.pieces for x in (piece.start, piece.end)), length]
        assert borders == sorted(borders)
        for piece in window.pieces:
            assert piece.start <= piece.speech_start < piece.speech_end <= piece.end
        assert window.next_start is None or 0 < window.next_start <= length


def levels(*stretches: tuple[int, float]) -> np.ndarray:
    """Frames at a level in decibels."""
    return np.concatenate([np.full(frames, level) for frames, level in stretches])


def test_the_sound_pauses_where_it_is_long_enough_much_quieter():
    loud, quiet = -20.0, -60.0
    assert first_pause(levels((20, loud), (20, quiet), (30, loud)), FPS) == (30, True)  # the middle
    assert first_pause(levels((5, quiet), (20, loud), (61, quiet), (30, loud)), FPS) == (38, True)  # half a second
    assert first_pause(levels((20, loud), (14, quiet)), FPS) == (27, True)  # at the window's end
    assert first_pause(levels((20, loud), (12, quiet), (30, loud)), FPS) is None  # 0.48 s
    assert first_pause(levels((20, loud), (20, loud - 17), (30, loud)), FPS) is None
    assert first_pause(levels((36, quiet), (20, loud), (20, quiet)), FPS) == (24, False)  # speech begins late
    assert first_pause(levels((20, loud), (20, quiet), (2, loud), (20, quiet)), FPS) == (32, True)  # a click
    assert first_pause(levels((50, quiet)), FPS) is None and first_pause(levels((50, loud)), FPS) is None
    assert first_pause(levels((9, loud), (8, quiet), (9, loud), (20, quiet), (30, loud)), FPS) == (36, True)


def test_a_window_is_one_piece_where_its_letters_are_one_utterance():
    whole = plan_utterance(letters((0.3, 0.9), (1.2, 2.0), length=2.5), STEP, 2.5, True)
    assert whole is not None and whole.next_start == 2.5 and places(whole) == [(0.0, 2.5)]
    for spans, length in (((), 2.5), (((0.3, 2.4),), 2.5), (((0.1, 0.3), (1.9, 2.2)), 2.5), (((1.6, 2.0),), 2.5)):
        assert plan_utterance(letters(*spans, length=length), STEP, length, True) is None
    assert plan_utterance(letters((0.3, 0.9), length=2.5), STEP, 2.5, True) is None  # more silence than is read
    silence = plan_utterance(letters(length=2.0), STEP, 2.0, False)
    assert silence is not None and silence.next_start == 2.0 and silence.pieces == ()
    assert plan_utterance(letters((0.3, 0.9), length=2.0), STEP, 2.0, False) is None  # somebody whispers


def test_a_piece_keeps_to_its_scene():
    piece = Piece(1.0, 4.0, 1.5, 3.5)
    assert within_scene(piece, [0.5, 1.2, 3.8]) == Piece(1.2, 3.8, 1.5, 3.5)
    assert within_scene(piece, [2.0]) == piece
    parts = split_at(piece, [2.0, 3.0])
    assert [(part.start, part.end) for part in parts] == [(1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]
    assert [(part.speech_start, part.speech_end) for part in parts] == [(1.5, 2.0), (2.0, 3.0), (3.0, 3.5)]


def timed(*words: tuple[str, float, float]) -> list[TimedText]:
    return [TimedText(*word, 1.0) for word in words]


def test_the_seam_lies_between_words_near_the_middle_of_the_overlap():
    words = timed(("a", 0.0, 2.0), ("b", 2.1, 3.4), ("c", 3.5, 3.7), ("d", 3.8, 4.0))
    assert choose_seam(words, end=4.0, length=4.0) == pytest.approx(3.45)
    assert choose_seam(timed(("long", 0.0, 4.0)), end=4.0, length=4.0) == pytest.approx(3.5)
    assert choose_seam([], end=4.0, length=4.0) == pytest.approx(3.5)


def test_no_word_is_lost_or_said_twice_at_a_seam():
    before = timed(("one", 2.0, 2.5), ("two", 2.6, 3.2), ("thr", 3.4, 4.0))
    said = words_before(before, 3.3)
    assert [word.text for word in said] == ["one", "two"]
    after = timed(("wo", 2.8, 3.2), ("three", 3.4, 4.1), ("four", 4.2, 4.5))
    assert [word.text for word in words_after(after, 3.3, said)] == ["three", "four"]
    late = timed(("two", 3.0, 3.7), ("three", 3.8, 4.1))  # where the second piece hears the same word a little later
    assert [word.text for word in words_after(late, 3.3, said)] == ["three"]
    missed = timed(("and", 3.22, 3.3), ("three", 3.4, 4.1))  # which the first piece has not heard at all
    assert [word.text for word in words_after(missed, 3.3, said)] == ["and", "three"]
    again = timed(("two", 3.4, 3.9))  # said a second time
    assert [word.text for word in words_after(again, 3.3, said)] == ["two"]


# ------------------------------------------------------------------------------------------- reading, without a model


def say(words: list[tuple[float, float]], length: float) -> np.ndarray:
    """Sound in which every sample of a word is the word's number."""
    wave = np.zeros(round(length * RATE), np.float32)
    for number, (start, end) in enumerate(words, 1):
        wave[round(start * RATE) : round(end * RATE)] = number
    return wave


def pieces_of(wave: np.ndarray | None, lips: np.ndarray | None = None, cuts=()) -> list[ClipPiece]:
    """One-second pieces; `lips` `(frames,)` are the words' numbers as (1, 1) pictures."""
    frames = len(wave) * FPS // RATE if wave is not None else len(lips)
    return [
        ClipPiece(
            first / FPS,
            None if wave is None else wave[first * RATE // FPS : (first + FPS) * RATE // FPS],
            None if lips is None else lips[first : first + FPS, None, None],
            None if lips is None else lips[first : first + FPS] < 255,
            None if lips is None else np.isin(np.arange(first, min(first + FPS, frames)), cuts),
            None if lips is None else np.zeros(len(lips[first : first + FPS]), bool),
        )
        for first in range(0, frames, FPS)
    ]


def numbers_of(clip, step: float) -> np.ndarray:
    """The number of the word at each step; 0 in silence."""
    count = round(clip.duration / step)
    rows, rate = (clip.audio, RATE) if clip.audio is not None else (clip.mouths[:, 0, 0], FPS)
    places = np.minimum((np.arange(count) * step * rate).round().astype(int), len(rows) - 1)
    return np.where(rows[places] == 255, 0, rows[places]).astype(int)


class Listener:
    """Reads numbers; a word that a piece's border cuts through is not recognised."""

    def __init__(self, lengths: dict[int, float]):
        self.lengths, self.clips = lengths, []

    def nonblank_probability(self, clip) -> np.ndarray:
        return (numbers_of(clip, STEP) > 0).astype(float)

    def read(self, clips) -> list[ChunkResult]:
        self.clips += clips
        return [ChunkResult(self._spell(numbers_of(clip, 0.001))) for clip in clips]

    def _spell(self, numbers: np.ndarray) -> list[TimedText]:
        edges = np.flatnonzero(np.diff(np.pad(numbers, 1)))
        characters = []
        for start, end in zip(edges, edges[1:]):
            number = int(numbers[start])
            if number:
                whole = (end - start) / 1000 > self.lengths[number] - 0.045
                text = str(number) if whole else "?"
                until = characters[-1].end if characters else 0.0
                characters += [TimedText(" ", until, until, 0.9)] if characters else []
                characters += [TimedText(c, start / 1000, end / 1000, 0.9) for c in text]
        return characters


def read_long(words, length: float, chunk_length: float, lips=None, sound=True, cuts=()):
    listener = Listener({number: end - start for number, (start, end) in enumerate(words, 1)})
    pieces = pieces_of(say(words, length) if sound else None, lips, cuts)
    reading = LongFormDecoder(
        ClipWindow(iter(pieces), RATE, FPS), listener.nonblank_probability, listener.read, chunk_length, STEP
    )
    return list(reading), reading, listener


def talk(seed: int, length: float, pause: float, longest_utterance: float) -> list[tuple[float, float]]:
    """Words of 0.15 to 0.6 s with short gaps, and a pause of at least `pause` after each utterance."""
    rng, time, words = np.random.default_rng(seed), 0.3, []
    until = time + longest_utterance
    while time < length - 1:
        lasting = rng.uniform(0.15, 0.6)
        if time + lasting > until:
            time += pause + rng.exponential(0.5)
            until = time + rng.uniform(0.4, 1.0) * longest_utterance
        words.append((round(time, 2), round(time + lasting, 2)))
        time += lasting + rng.uniform(0.04, 0.1)
    return [word for word in words if word[1] < length]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("chunk_length", "utterance"), [(2.0, 1.2), (4.0, 2.5), (12.0, 9.0)])
def test_every_word_is_read_once_and_whole_where_the_speaker_pauses(seed, chunk_length, utterance):
    words = talk(seed, 60.0, 0.6, utterance)
    found, reading, listener = read_long(words, 60.0, chunk_length)
    assert [word.text for word in found] == [str(number) for number in range(1, len(words) + 1)]
    assert np.allclose([(w.start, w.end) for w in found], words, atol=0.045)
    assert max(clip.duration for clip in listener.clips) <= 1.5 * chunk_length
    assert reading.position == 60.0 and reading.statistics.fits


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("chunk_length", [4.0, 12.0])
def test_every_word_is_read_once_where_nobody_ever_pauses(seed, chunk_length):
    words = talk(seed, 60.0, 0.0, 1e9)
    found, _, listener = read_long(words, 60.0, chunk_length)
    assert [word.text for word in found] == [str(number) for number in range(1, len(words) + 1)]
    assert all(a.end <= b.start for a, b in zip(found, found[1:]))
    assert max(clip.duration for clip in listener.clips) <= 1.5 * chunk_length


@pytest.mark.parametrize(("length", "chunk_length"), [(4.0, 4.0), (3.0, 4.0), (6.0, 4.0), (3.0, 2.0)])
def test_one_chunk_or_one_utterance_is_one_piece(length, chunk_length):
    words = [(0.5, 0.8), (0.9, 1.5), (1.6, 2.1)]
    found, _, listener = read_long(words, length, chunk_length)
    assert len(found) == 3 and [clip.duration for clip in listener.clips] == [length]


def test_silence_is_not_read_at_all():
    found, reading, listener = read_long([], 60.0, 4.0)
    assert found == [] and listener.clips == [] and reading.statistics.confidence == 1.0 and reading.position == 60.0


def test_words_come_before_the_clip_ends():
    words = talk(1, 60.0, 0.6, 2.5)
    window = ClipWindow(iter(pieces_of(say(words, 60.0))), RATE, FPS)
    listener = Listener({number: end - start for number, (start, end) in enumerate(words, 1)})
    reading = LongFormDecoder(window, listener.nonblank_probability, listener.read, 4.0, STEP)
    for word in reading:
        assert window.last / FPS - word.end < 8 and window.last - window.first <= 7 * FPS
        assert reading.position <= word.start


class Watcher(Listener):
    """Notes the windows that it looks at; with `denies`, CTC hears letters until the end of each short one."""

    def __init__(self, words, denies: bool = False):
        super().__init__({number: end - start for number, (start, end) in enumerate(words, LOUD + 1)})
        self.windows, self.denies = [], denies

    def nonblank_probability(self, clip) -> np.ndarray:
        self.windows.append((clip.first, clip.duration))
        letters = super().nonblank_probability(clip)
        if self.denies and clip.duration < 6:
            letters[-5:] = 1.0
        return letters

    def decode(self, words, length: float, batch_size: int = 1):
        wave = say(words, length)
        wave[wave > 0] += LOUD
        window = ClipWindow(iter(pieces_of(wave)), RATE, FPS)
        return list(LongFormDecoder(window, self.nonblank_probability, self.read, 12.0, STEP, batch_size))


LOUD = 100  # added to the numbers, so that all words are about as loud


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("quiet", [True, False])
def test_utterances_between_quiet_pauses_are_windows_of_their_own(monkeypatch, batch_size, quiet):
    if not quiet:
        monkeypatch.setattr(ClipWindow, "levels", lambda self, start, end: np.zeros(end - start))
    words = talk(4, 60.0, 0.7, 2.5)
    watcher = Watcher(words)
    found = watcher.decode(words, 60.0, batch_size)
    assert [word.text for word in found] == [str(number) for number in range(LOUD + 1, LOUD + len(words) + 1)]
    assert np.allclose([(w.start, w.end) for w in found], words, atol=0.045)
    windows = sum(length for _, length in watcher.windows)
    pieces = [(clip.first, clip.duration) for clip in watcher.clips]
    again = sum(piece[1] for piece in pieces if piece not in watcher.windows)
    if quiet:
        assert 0.85 * 60 < windows < 1.15 * 60 and again < 0.1 * 60  # silence itself is not looked at
    else:
        assert windows > 1.1 * 60 and again > 0.6 * 60


def test_sound_is_not_trusted_where_ctc_denies_its_pauses():
    words = talk(4, 60.0, 0.7, 2.5)
    watcher = Watcher(words, denies=True)
    found = watcher.decode(words, 60.0)
    assert [word.text for word in found] == [str(number) for number in range(LOUD + 1, LOUD + len(words) + 1)]
    short = [length < 6 for _, length in watcher.windows]
    assert sum(short[:6]) == 3 and not any(short[6:-1])


def lips_of(words, length: float) -> np.ndarray:
    return say(words, length)[:: RATE // FPS].astype(np.uint8)


def test_without_a_face_the_sound_is_read_and_noted():
    words = talk(2, 30.0, 0.6, 2.0)
    lips = lips_of(words, 30.0)
    lips[10 * FPS : 20 * FPS] = 255  # no face found
    found, reading, listener = read_long(words, 30.0, 4.0, lips)
    assert len(found) == len(words)
    assert {clip.modality for clip in listener.clips} == {"audio", "audiovisual"}
    (run,) = reading.statistics.sound_only
    assert 8 < run[0] < 12 and 18 < run[1] < 22
    assert reading.statistics.seconds["audio"] > 5


def test_a_change_of_scene_within_speech_leaves_the_sound():
    words = [(0.5, 0.9), (1.0, 1.6), (3.0, 3.6), (5.0, 5.5), (5.6, 6.2), (7.5, 8.0)]
    lips = lips_of(words, 10.0)
    found, reading, listener = read_long(words, 10.0, 4.0, lips, cuts=[round(2.3 * FPS), round(5.3 * FPS)])
    assert [word.text for word in found] == list("123456")
    assert [clip.modality for clip in listener.clips] == ["audiovisual", "audiovisual", "audio", "audiovisual"]
    assert reading.statistics.changes == 1


def test_lips_alone_are_read_scene_by_scene():
    words = [(0.5, 0.9), (1.0, 1.6), (2.0, 2.4), (6.0, 6.5)]
    lips = lips_of(words, 10.0)
    found, _, listener = read_long(words, 10.0, 4.0, lips, sound=False, cuts=[round(1.8 * FPS)])
    assert [word.text for word in found] == list("1234")
    assert np.allclose([clip.duration for clip in listener.clips][:2], [1.8, 1.1], atol=0.05)


def test_an_error_comes_after_the_finished_words():
    words = talk(3, 30.0, 0.6, 2.0)

    def broken():
        yield from pieces_of(say(words, 30.0))[:15]
        raise ValueError("the file ends here")

    listener = Listener({number: end - start for number, (start, end) in enumerate(words, 1)})
    reading = LongFormDecoder(ClipWindow(broken(), RATE, FPS), listener.nonblank_probability, listener.read, 4.0, STEP)
    found = []
    with pytest.raises(ValueError, match="ends here"):
        for word in reading:
            found.append(word.text)
    assert found == [str(number) for number in range(1, len(found) + 1)] and len(found) > 5


def test_sound_may_end_before_the_picture_and_have_gaps():
    wave, lips = np.ones(2 * RATE, np.float32), np.ones(5 * FPS, np.uint8)
    pieces = pieces_of(None, lips)
    gap = [*range(2), *range(3, 5)]
    window = ClipWindow(
        iter(
            ClipPiece(p.start, wave[:RATE] if i in (0, 3) else None, p.mouths, p.found, p.cuts, p.absent)
            for i, p in enumerate(pieces)
            if i in gap
        ),
        RATE,
        FPS,
    )
    window.fill(5 * FPS)
    window.fill(6 * FPS)
    assert window.ended and window.last == 5 * FPS
    assert window.take(0, 25).modality == "audiovisual"
    assert window.take(50, 75).modality == ""
    assert window.take(75, 100).modality == "audiovisual"
    assert window.take(100, 125).modality == "visual"
    window.drop(80)
    assert len(window.take(80, 125).mouths) == 45 and len(window.take(80, 125).audio) == 800
