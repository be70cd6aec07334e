import numpy as np
import pytest
from PIL import Image

from lookhear.processing.avsr.captions_avsr import Word
from lookhear.processing.avsr.media_avsr import probe_media, read_audio, read_frames
from lookhear.processing.avsr.rendering_avsr import (
    COMING,
    CURRENT,
    SPOKEN,
    caption_frames,
    draw_reading,
    write_captioned_video,
    write_video,
)

CHUNKS = [
    {"text": "BIN", "timestamp": (0.2, 0.5), "confidence": 0.9},
    {"text": "BLUE", "timestamp": (0.5, 0.9), "confidence": 0.9},
    {"text": "NOW", "timestamp": (2.4, 2.8), "confidence": 0.9},
]
RESULT = {"text": "BIN BLUE NOW", "chunks": CHUNKS}
WORDS = [Word(chunk["text"], *chunk["timestamp"]) for chunk in CHUNKS]


def grey(seconds: float, size: tuple[int, int] = (480, 640), fps: float = 10) -> list[np.ndarray]:
    return [np.full((*size, 3), 90, np.uint8) for _ in range(round(seconds * fps))]


def has(frame: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Whether at least a few points have the colour of a word."""
    return int((np.abs(frame.astype(int) - colour).max(axis=2) <= 3).sum()) > 15


def test_each_word_is_coloured_at_its_time():
    frames = list(caption_frames(iter(grey(3)), WORDS, 10))
    assert len(frames) == 30 and frames[0].shape == (480, 640, 3) and frames[0].dtype == np.uint8
    np.testing.assert_array_equal(frames[0], grey(0.1)[0])  # nothing before the first word
    at_bin, at_blue, after = frames[3], frames[6], frames[10]
    assert has(at_bin, CURRENT) and has(at_bin, COMING) and not has(at_bin, SPOKEN)
    assert has(at_blue, CURRENT) and has(at_blue, SPOKEN) and not has(at_blue, COMING)
    assert has(after, SPOKEN) and not has(after, CURRENT)
    np.testing.assert_array_equal(frames[18], grey(0.1)[0])  # the pause
    assert has(frames[25], CURRENT)
    changed = np.flatnonzero((at_bin != 90).any(axis=(1, 2)))
    assert changed.min() > 380  # only the lower part is drawn on


def test_speakers_at_the_same_time_stand_below_each_other():
    other = [Word("SET", 0.2, 0.6, "Speaker 2"), Word("RED", 0.6, 0.9, "Speaker 2")]
    both = [*(Word(word.text, word.start, word.end, "Speaker 1") for word in WORDS), *other]
    alone, together = (list(caption_frames(iter(grey(3)), words, 10)) for words in (WORDS, both))
    rows = [(frames[3] != 90).any(axis=(1, 2)).sum() for frames in (alone, together)]
    assert 1.8 * rows[0] < rows[1] < 2.2 * rows[0]
    columns = [(frames[25] != 90).any(axis=(0, 2)).sum() for frames in (alone, together)]
    assert columns[1] > 2 * columns[0], "with the name in front, also where one talks alone"
    one = list(caption_frames(iter(grey(3)), other, 10))
    assert (one[3] != 90).any(axis=(0, 2)).sum() < (together[3] != 90).any(axis=(0, 2)).sum(), (
        "a single one needs none"
    )


def test_frames_are_drawn_one_by_one():
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield grey(0.1)[0]

    drawn = caption_frames(endless(), WORDS, 10)
    next(drawn), next(drawn)
    assert len(taken) == 2


def test_small_and_narrow_videos_get_legible_captions():
    small = next(iter(caption_frames(iter(grey(0.1, (96, 128))), WORDS, 10)))
    assert small.shape == (480, 640, 3)
    long_word = [Word("SUPERCALIFRAGILISTICEXPIALIDOCIOUS", 0.0, 1.0)]
    narrow = next(iter(caption_frames(iter(grey(0.1, (640, 200))), long_word, 10)))
    assert narrow.shape == (640, 200, 3)
    # From end to end, none cut off; the letters are thin.
    yellow = (narrow[..., 0].astype(int) - narrow[..., 2] > 60).any(axis=0)  # of each column
    assert yellow[15:185].sum() > 80 and not yellow[:5].any() and not yellow[-5:].any()


def test_captioned_video_keeps_time_and_sound(tmp_path):
    sound = (0.3 * np.sin(np.arange(32000) * 0.2)).astype(np.float32)
    write_video(tmp_path / "in.mp4", grey(2, (120, 160)), 10, sound, 16000)
    path = write_captioned_video(tmp_path / "in.mp4", RESULT, tmp_path / "out.mp4")
    info = probe_media(path)
    assert (info.width, info.height, info.has_audio) == (640, 480, True)
    assert info.fps == pytest.approx(10, abs=0.1) and info.duration == pytest.approx(2, abs=0.05)
    frames = list(read_frames(path, fps=10))
    assert np.abs(frames[6].astype(int) - frames[18]).max() > 60
    assert np.std(read_audio(path)) == pytest.approx(np.std(sound), rel=0.1)


def test_captioned_video_needs_a_video_and_times(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    with pytest.raises(ValueError, match="no video"):
        write_captioned_video(tmp_path / "a.wav", RESULT, tmp_path / "out.mp4")
    write_video(tmp_path / "in.mp4", grey(0.5, (120, 160)), 10)
    with pytest.raises(ValueError, match="return_timestamps"):
        write_captioned_video(tmp_path / "in.mp4", {"text": "BIN", "chunks": []}, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def parts(seconds: float) -> dict:
    generator = np.random.default_rng(0)
    return {
        "mouths": generator.integers(0, 255, (round(25 * seconds), 24, 24), dtype=np.uint8),
        "audio": generator.normal(0, 0.1, round(16000 * seconds)).astype(np.float32),
    }


@pytest.mark.parametrize("seconds", [0.04, 3.0, 9.0, 70.0])
def test_picture_of_any_length(tmp_path, seconds):
    path = draw_reading(tmp_path / "a.png", {"audiovisual": RESULT}, **parts(seconds), title="A title")
    picture = Image.open(path)
    assert picture.width == 1560 and 150 < picture.height < 5000
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_wrong_words_are_red(tmp_path):
    def red(reference: str | None) -> bool:
        path = draw_reading(tmp_path / "a.png", {"audio": RESULT}, reference=reference, **parts(3))
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        return bool((np.abs(pixels - (251, 224, 221)).max(axis=2) <= 2).sum() > 100)

    assert red("bin green now") and not red("bin blue now") and not red(None)


def test_picture_of_what_there_is(tmp_path):
    heights = []
    for absent in ("mouths", "audio"):
        path = draw_reading(tmp_path / f"{absent}.png", {"one": RESULT}, **{**parts(3), absent: None})
        heights.append(Image.open(path).height)
    empty = {"text": "", "chunks": []}
    path = draw_reading(tmp_path / "all.png", {"one": RESULT, "two": empty}, **parts(3))
    assert Image.open(path).height > max(heights)
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_reading(tmp_path / "none.png", {"two": empty})
