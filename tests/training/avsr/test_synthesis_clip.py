"""Portraits that move, clips and corpora."""

import json

import numpy as np
import pytest
from PIL import Image

from lookhear.training.avsr.synthesis import (
    PORTRAITS,
    PortraitError,
    grid_sentence,
    load_portrait,
    render_clip,
    synthesize_clip,
    synthesize_corpus,
)
from lookhear.training.avsr.synthesis import corpus as corpora
from lookhear.training.avsr.synthesis.visemes import VISEMES

SIZE = (200, 160)


def _shape(symbol):
    return np.array(VISEMES[symbol].targets(), np.float32)


def _mouth(portrait, frame):
    x, y = portrait._origin.astype(int)
    half = int(0.33 * portrait.unit)
    return frame[y - half // 3 : y + half, x - half : x + half].astype(np.float32)


def _darkness(portrait, frame):
    """Share of dark pixels in the middle of the mouth."""
    x, y = portrait._origin.astype(int)
    half = int(0.18 * portrait.unit)
    return (frame[y - half // 2 : y + half, x - half : x + half].mean(-1) < 60).mean()


@pytest.mark.parametrize("name", PORTRAITS)
def test_open_mouth_is_dark_inside_and_closed_lips_show_nothing_of_it(name):
    portrait = load_portrait(name)
    dark = {s: _darkness(portrait, portrait.render(_shape(s))) for s in ("m", "", "ɑ")}
    assert dark["ɑ"] > 0.2 and max(dark["m"], dark[""]) < 0.05
    rest = portrait.render(_shape(""))
    still = np.abs(portrait.render(_shape("ɑ")).astype(int) - rest)[: int(portrait.height * 0.4)]
    assert still.max() <= 2, "eyes and hair do not move with the jaw"


@pytest.mark.parametrize("name", PORTRAITS)
def test_portraits_by_name_need_no_detector(monkeypatch, name):
    monkeypatch.setattr("lookhear.processing.avsr.landmarks_avsr.make_detector", lambda: pytest.fail("a detector"))
    assert load_portrait(name, (176, 144)).render(_shape("m")).shape == (144, 176, 3)


@pytest.mark.parametrize("name", PORTRAITS)
def test_landmarks_see_the_lips_move(name):
    pytest.importorskip("dlib", reason="needs lookhear[dlib]")
    from lookhear.processing.avsr.landmarks_avsr import DlibLandmarkDetector

    portrait, detector = load_portrait(name), DlibLandmarkDetector()
    points = {s: detector(portrait.render(_shape(s)))[0].points for s in ("m", "ɑ", "u", "i")}
    gap = {s: p[66, 1] - p[62, 1] for s, p in points.items()}
    width = {s: p[54, 0] - p[48, 0] for s, p in points.items()}
    assert gap["ɑ"] > gap["m"] + 5 and width["i"] > width["u"]
    assert points["ɑ"][8, 1] > points["m"][8, 1] + 2, "the chin goes down with the jaw"


def test_mouth_shapes_of_different_sounds_differ():
    portrait = load_portrait("hopper")
    mouths = {
        s: _mouth(portrait, portrait.render(_shape(s)))
        for s in ["m", "f", "θ", "l", "s", "ʃ", "i", "ɛ", "ɑ", "ɔ", "u"]
    }
    names = list(mouths)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert np.abs(mouths[first] - mouths[second]).mean() > 1.0, (first, second)


def test_seed_decides_everything():
    def clip(seed):
        frames, audio, words = render_clip("bin blue", seed=seed, size=SIZE)
        return np.stack(list(frames)), audio, words

    (frames, audio, words), (same_frames, same_audio, same_words), (_, other_audio, other_words) = map(clip, (3, 3, 4))
    np.testing.assert_array_equal(frames, same_frames)
    np.testing.assert_array_equal(audio, same_audio)
    assert words == same_words != other_words and len(audio) != len(other_audio)
    assert frames.dtype == np.uint8 and frames.shape[1:] == (160, 200, 3)


@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_sound_is_as_long_as_the_pictures_and_holds_the_words(fps):
    frames, audio, words = render_clip("lay green", seed=1, fps=fps, size=SIZE)
    assert len(audio) == round(sum(1 for _ in frames) / fps * 16000)
    assert [word["word"] for word in words] == ["lay", "green"]
    assert words[0]["start"] >= 0.15 and words[-1]["end"] <= len(audio) / 16000 - 0.15
    quiet = audio[: int((words[0]["start"] - 0.03) * 16000)]
    assert np.abs(quiet).max() < 0.01 < np.abs(audio).max() <= 1


def test_file_can_be_read_back(tmp_path):
    from lookhear.processing.avsr.media_avsr import probe_media, read_audio, read_frames

    clip = synthesize_clip("set white", tmp_path / "clip.mp4", seed=2, size=SIZE, portrait="hopper")
    info = probe_media(clip.video)
    assert (info.width, info.height, info.has_audio) == (200, 160, True)
    frames = list(read_frames(clip.video))
    assert len(frames) == round(clip.duration * 25)
    rendered, audio, words = render_clip("set white", seed=2, size=SIZE, portrait="hopper")
    assert np.abs(frames[5].astype(int) - list(rendered)[5]).mean() < 6
    assert np.corrcoef(read_audio(clip.video)[: len(audio)], audio[: len(read_audio(clip.video))])[0, 1] > 0.9
    record = json.loads(clip.metadata.read_text())
    assert record["words"] == words == clip.words
    assert (record["text"], record["voice"], record["seed"], record["portrait"]) == ("set white", "en-us", 2, "hopper")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.json", "clip.mp4"]


def test_two_speakers_side_by_side(tmp_path):
    clip = synthesize_clip(
        "now", tmp_path / "two.mp4", seed=5, size=SIZE, second="hopper", second_text="place blue again"
    )
    second = json.loads(clip.metadata.read_text())["second"]
    assert second["portrait"] == "hopper" and second["voice"] != clip.voice
    assert [word["word"] for word in second["words"]] == ["place", "blue", "again"]
    assert second["words"][-1]["end"] <= clip.duration


def test_silent_second_speaker_keeps_the_mouth_closed():
    alone, audio, _ = render_clip("bin", seed=5, size=SIZE)
    both, mixed, _ = render_clip("bin", seed=5, size=SIZE, second="hopper")
    alone, both = np.stack(list(alone)), np.stack(list(both))
    np.testing.assert_array_equal(both[:, :, :200], alone)
    portrait = load_portrait("hopper", SIZE)
    assert both.shape[2] == 400 and max(_darkness(portrait, f[:, 200:]) for f in both) < 0.12
    assert np.abs(mixed - audio).max() < 0.01


@pytest.mark.parametrize("kind", ["path", "turned", "pil", "array", "grey", "transparent"])
def test_pictures_of_the_user(tmp_path, kind):
    import skimage.data

    image = Image.fromarray(skimage.data.astronaut()[:300, 60:390])
    if kind == "path":
        image.save(tmp_path / "me.png")
        source = tmp_path / "me.png"
    elif kind == "turned":  # stored lying, with the orientation in EXIF
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "me.jpg", exif=exif, quality=95)
        source = tmp_path / "me.jpg"
    else:
        modes = {
            "pil": image,
            "array": np.asarray(image),
            "grey": image.convert("L"),
            "transparent": image.convert("RGBA"),
        }
        source = modes[kind]
    portrait = load_portrait(source, SIZE)
    eyes = portrait._to_pixels(portrait._face[[36, 45]])
    assert eyes[1, 0] - eyes[0, 0] > 30 and abs(eyes[1, 1] - eyes[0, 1]) < 6, "the face is upright"
    assert portrait.render(_shape("ɑ")).shape == (160, 200, 3)


def test_pictures_that_cannot_serve(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    small = Image.fromarray(_astronaut()).resize((128, 128))
    cases = [
        (tmp_path / "absent.jpg", "no file"),
        (tmp_path / "text.jpg", "cannot be read"),
        (np.full((200, 200, 3), 127, np.uint8), "no face"),
        (small, "too small|no face"),
        (np.zeros((20, 20), np.float32), "uint8"),
    ]
    for source, message in cases:
        with pytest.raises(PortraitError, match=message):
            load_portrait(source)


def _astronaut():
    import skimage.data

    return skimage.data.astronaut()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": ""}, "text is empty"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"fps": 0}, "fps"),
        ({"size": (31, 20)}, "size"),
        ({"second_text": "hello"}, "second="),
        ({"output": "clip.avi"}, r"\.mp4"),
        ({"output": "nowhere/clip.mp4"}, "does not exist"),
    ],
)
def test_one_clear_error(tmp_path, arguments, message):
    output = tmp_path / arguments.pop("output", "clip.mp4")
    with pytest.raises(ValueError, match=message):
        synthesize_clip(**{"text": "hi", "output": output, **arguments})
    assert not list(tmp_path.iterdir())


def test_grid_sentences():
    sentences = [grid_sentence(np.random.default_rng(seed)).split() for seed in range(300)]
    assert all(len(words) == 6 for words in sentences)
    assert {words[3] for words in sentences} == set(corpora.LETTERS) and "w" not in corpora.LETTERS
    assert len({tuple(words) for words in sentences}) > 290


def _short(generator):
    return str(generator.choice(["red", "blue", "now"]))


def test_corpus_goes_on_where_it_stopped(tmp_path):
    arguments = {"seed": 7, "sentence": _short, "size": (120, 96), "voices": ("en-us", "en-gb")}
    synthesize_corpus(tmp_path, 2, **arguments)
    kept = (tmp_path / "000000.mp4").stat().st_mtime_ns
    (tmp_path / "000001.json").unlink()
    steps = []
    index = synthesize_corpus(tmp_path, 3, **arguments, progress=lambda done, clips: steps.append((done, clips)))
    assert steps == [(2, 3), (3, 3)] and (tmp_path / "000000.mp4").stat().st_mtime_ns == kept
    rows = [json.loads(line) for line in index.read_text().splitlines()]
    assert [row["file_name"] for row in rows] == ["000000.mp4", "000001.mp4", "000002.mp4"]
    assert all(row["words"] and row["voice"] and row["portrait"] in PORTRAITS for row in rows)
    with pytest.raises(ValueError, match="other settings"):
        synthesize_corpus(tmp_path, 3, **{**arguments, "seed": 8})


@pytest.mark.slow
def test_corpus_does_not_depend_on_the_number_of_workers(tmp_path):
    arguments = {"seed": 1, "size": (120, 96)}
    one = synthesize_corpus(tmp_path / "one", 2, **arguments).read_text()
    assert synthesize_corpus(tmp_path / "two", 2, processes=2, **arguments).read_text() == one
