"""What the Space does apart from its page: limits, prompts, tables, messages, and what it is pushed with."""

from __future__ import annotations

import copy
import gc
import re
import tomllib
import weakref
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("gradio", reason="needs Gradio: pip install 'lookhear[demo]'")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A grey video of 3 seconds without sound."""
    import av

    path = tmp_path_factory.mktemp("clip") / "grey.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8), format="rgb24")
        for _ in range(30):
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def test_limits_of_videos(space_module, clip):
    limits = space_module("limits").Limits(megabytes=1, megapixels=0.01)
    assert limits.check_video(str(clip), 3.5) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="lasts 3 seconds; the limit here is 2"):
        limits.check_video(str(clip), 2.0)
    with pytest.raises(ValueError, match="64 x 48 pixels"):
        space_module("limits").Limits(megapixels=0.003).check_video(str(clip), 3.5)
    with pytest.raises(ValueError, match="megabytes; the limit here is 0"):
        space_module("limits").Limits(megabytes=1e-4).check_video(str(clip), 3.5)


def test_recording_that_does_not_say_its_length_is_measured(space_module, tmp_path):
    """As MediaRecorder writes webm: no length in the header."""
    import av

    path = tmp_path / "recording.webm"
    with path.open("wb") as file, av.open(_Unseekable(file), "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for _ in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert container.duration is None
    limits = space_module("limits").Limits()
    limits.check_video(str(path), 3.5)
    with pytest.raises(ValueError, match="lasts 3 seconds"):
        limits.check_video(str(path), 2.0)


class _Unseekable:
    """A file as a stream."""

    def __init__(self, file):
        self._file = file

    def write(self, data) -> int:
        return self._file.write(data)


def test_playlists_that_name_other_files_are_refused(space_module, clip, tmp_path):
    playlist = tmp_path / "harmless.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{clip}\n#EXT-X-ENDLIST\n")
    limits = space_module("limits").Limits()
    try:
        limits.check_video(str(playlist), 10.0)
    except ValueError as error:
        assert "not accepted as a video" in str(error)
    else:  # FFmpeg itself does not open it, so the reader will not either
        with pytest.raises(ValueError, match="harmless"):
            space_module("media").first_picture(str(playlist))


def test_limits_of_pictures(space_module, tmp_path):
    from PIL import Image

    path = tmp_path / "picture.png"
    Image.new("RGB", (200, 100)).save(path)
    limits = space_module("limits").Limits
    limits().check_picture(str(path))
    with pytest.raises(ValueError, match="200 x 100 pixels"):
        limits(megapixels=0.01).check_picture(str(path))


def test_limits_come_from_the_environment(space_module):
    limits = space_module("limits").Limits
    assert limits.from_environment({"LOOKHEAR_SPACE_READ_SECONDS": "7.5"}) == limits(read_seconds=7.5)
    for text in ("many", "-1", "0", "inf", "nan"):
        with pytest.raises(ValueError, match="LOOKHEAR_SPACE_MEGABYTES must be a positive number"):
            limits.from_environment({"LOOKHEAR_SPACE_MEGABYTES": text})


def test_the_pixels_of_a_whole_video_are_bounded(space_module, clip):
    limits = space_module("limits").Limits(gigapixels=30 * 64 * 48 / 1e9)
    assert limits.check_video(str(clip), 3.5) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="30 frames of 64 x 48 pixels; the limit here is 0 gigapixels in all"):
        space_module("limits").Limits(gigapixels=29 * 64 * 48 / 1e9).check_video(str(clip), 3.5)


def visitor(session: str):
    """What Gradio tells of a visitor."""
    return SimpleNamespace(session_hash=session)


def test_a_job_has_an_end(space_module, monkeypatch):
    jobs = space_module("jobs")
    now = 100.0
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now)
    with jobs.Jobs(30.0).start(visitor("a")) as job:
        now = 130.0
        job.check()
        now = 130.1
        with pytest.raises(ValueError, match="longer than 30 seconds, the limit here"):
            job.check()


def test_visitors_stop_their_own_jobs_only(space_module):
    jobs = space_module("jobs").Jobs(30.0)
    with jobs.start(visitor("a")) as first, jobs.start(visitor("b")) as second:
        jobs.stop(visitor("b"))
        jobs.stop(visitor("c"))
        first.check()
        with pytest.raises(ValueError, match="Stopped"):
            second.check()
    jobs.stop(visitor("a"))  # it is over
    with jobs.start(visitor("a")) as again:
        again.check()


@pytest.mark.parametrize("tab", ["read", "see", "ask"])
def test_a_stopped_question_frees_the_model(tabs, uploads, tab, monkeypatch, capsys):
    """It ends at its next step, with a message, and a line in the log."""
    import gradio

    who = visitor("a")
    steps = []

    def progress(share, desc):
        steps.append(desc)
        getattr(tabs, tab).jobs.stop(who)

    with pytest.raises(gradio.Error, match="Stopped"):
        if tab == "read":
            next(tabs.read._read(str(uploads / "grey.mp4"), "prominent", [], "", "auto", "saved", progress, who))
        elif tab == "see":
            short = str(uploads / "short.mp4")
            film(short, 5)
            next(tabs.see._find(short, "cat", "", [], 0.2, progress, who))
        else:
            for _ in tabs.ask._ask(str(uploads / "picture.png"), "which one is it", None, who):
                progress(0.0, "a word")
    assert len(steps) <= 2 and capsys.readouterr().err == "refused: Stopped.\n"


def film(path: str, frames: int) -> None:
    """Writes a grey video."""
    from lookhear.processing.glee import VideoWriter

    writer = VideoWriter(path, (48, 64), 10)
    for index in range(frames):
        writer.add(index, None, np.full((48, 64, 3), 128, np.uint8))
    writer.close()


def test_functions_run_on_a_gpu_where_one_is_lent(space_module, monkeypatch):
    """ZeroGPU's package gives a decorator; elsewhere, and where a folder of that name lies, nothing changes."""
    jobs = space_module("jobs")
    assert jobs.GPU is None and jobs.on_gpu(60.0)(print) is print
    monkeypatch.setattr(jobs, "GPU", lambda duration: lambda function: (duration, function))
    assert jobs.on_gpu(59.6)(print) == (60, print)


def test_errors_are_one_line_in_the_log(space_module):
    import io
    import logging
    import traceback

    log = io.StringIO()
    stream = space_module("log_lines").OneLineErrors(log)
    print("serving", file=stream)
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second\nline") from None
    except ValueError:
        traceback.print_exc(file=stream)
    try:
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise RuntimeError("effect") from error
    except RuntimeError:
        traceback.print_exc(file=stream)
    print("still serving", file=stream)
    handler = logging.StreamHandler(stream)
    try:
        raise OSError("gone")
    except OSError as error:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "a request failed", (), (type(error), error, None))
        handler.emit(record)
    print("the end", file=stream)
    lines = log.getvalue().splitlines()
    assert lines[:2] == ["serving", "error: ValueError: second"] and "error: KeyError: 'cause'" in lines
    assert lines[-3:] == ["a request failed", "OSError: gone", "the end"] and not any(
        "File " in line for line in lines
    )
    assert not any("RuntimeError" in line or "Traceback" in line for line in lines) and "still serving" in lines


def test_names_of_results_cannot_be_guessed(space_module):
    private_name = space_module("media").private_name
    first, second = private_name("/x/clip.mp4"), private_name("/x/clip.mp4")
    assert first != second and re.fullmatch(r"clip-[0-9a-f]{16}", first)


def test_shapes_become_prompts(space_module):
    as_prompts = space_module("drawing_pad").as_prompts
    shapes = [
        {"kind": "point", "points": [[3, 4]]},
        {"kind": "scribble", "points": [[1, 2], [3, 4], [5, 6]]},
        {"kind": "box", "points": [[10, 20], [30, 40]]},
        {"kind": "point", "points": [[5.5, 6]]},
    ]
    assert as_prompts(shapes) == {
        "points": [[(3, 4)], [(5.5, 6)]],
        "scribbles": [[(1, 2), (3, 4), (5, 6)]],
        "boxes": [(10, 20, 30, 40)],
    }
    assert as_prompts([]) == as_prompts(None) == {}


@pytest.mark.parametrize(
    "shapes",
    [
        "point",
        [1],
        [{"kind": "circle", "points": [[1, 2]]}],
        [{"kind": "point"}],
        [{"kind": "point", "points": []}],
        [{"kind": "point", "points": [[1, 2, 3]]}],
        [{"kind": "point", "points": [["a", 2]]}],
        [{"kind": "point", "points": [[float("nan"), 2]]}],
        [{"kind": "scribble", "points": [[1, 2]] * 2000}],
        [{"kind": "point", "points": [[1, 2]]}] * 100,
    ],
)
def test_whatever_a_browser_may_send_is_checked(space_module, shapes):
    with pytest.raises(ValueError, match="cannot be read: clear"):
        space_module("drawing_pad").as_prompts(shapes)


def test_picture_on_the_pad_is_small_and_knows_its_size(space_module):
    from PIL import Image

    source = space_module("drawing_pad").as_source(Image.new("RGB", (4000, 2000), "red"))
    assert (source["width"], source["height"]) == (4000, 2000)
    assert source["src"].startswith("data:image/jpeg;base64,") and len(source["src"]) < 50_000


def test_questions_become_a_request(space_module):
    as_request = space_module("seeing").as_request
    asked = as_request(" cat, red dog ,,", "the cat\n\n the dog on the left ", {"points": [[(1, 2)]]})
    assert asked == {
        "labels": ["cat", "red dog"],
        "expressions": ["the cat", "the dog on the left"],
        "points": [[(1, 2)]],
    }
    with pytest.raises(ValueError, match="Say what to look for"):
        as_request(" , ", "\n", {})
    with pytest.raises(ValueError, match="20 names"):
        as_request(",".join("abcdefghijklmnopqrstuvw"), "", {})
    with pytest.raises(ValueError, match="200 letters"):
        as_request("x" * 201, "", {})


def test_who_is_read(space_module):
    as_speaker = space_module("read_tab").as_speaker
    point = [{"kind": "point", "points": [[7, 8]]}]
    assert as_speaker("prominent", point, "the woman") is None
    assert as_speaker("text", point, " the woman ") == "the woman"
    assert as_speaker("point", point, "the woman") == {"point": (7, 8)}
    with pytest.raises(ValueError, match="Describe the speaker"):
        as_speaker("text", point, " ")
    with pytest.raises(ValueError, match="Tap the face"):
        as_speaker("point", [], "the woman")


def test_crop_strip(space_module):
    """16 of 40 crops in two rows, cut to the middle and enlarged; the first and the last one are among them."""
    mouths = np.repeat(np.arange(40, dtype=np.uint8), 20 * 20).reshape(40, 20, 20)
    mouths[:, :3] = mouths[:, -3:] = 255  # outside of what the network sees
    strip = space_module("reading").crop_strip(mouths, crop=14, scale=2)
    assert strip.shape == (2 * 28 + 4, 8 * 28 + 7 * 4) and strip.dtype == np.uint8
    assert (strip[:28, :28] == 0).all() and (strip[-28:, -28:] == 39).all() and (strip[28:32] == 255).all()
    assert space_module("reading").crop_strip(mouths[:3], crop=14).shape == (28, 3 * 28 + 2 * 4)


def test_lips_are_drawn_into_their_crops(space_module):
    """A square around the mouth's points 8 to 11 of the crop, which is cut by 3 pixels and enlarged twice."""
    crop_strip, line = space_module("reading").crop_strip, space_module("reading").LINE
    mouths, lips = np.zeros((3, 20, 20), np.uint8), np.full((3, 20, 2), np.nan, np.float32)
    corners = np.array([(8, 8), (11, 8), (11, 11), (8, 11)], np.float32)
    lips[0, :12], lips[0, 12:] = np.repeat(corners, 3, axis=0), np.repeat(corners, 2, axis=0)
    lips[1] = 100.0  # far outside of its crop
    strip = crop_strip(mouths, crop=14, rows=1, lips=lips)
    assert strip.shape == (28, 3 * 28 + 2 * 4, 3)
    drawn = (strip == line).all(axis=2)
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (11, 17, 11, 17)
    assert drawn.sum() == 4 * 6  # the outline of 7 x 7 pixels
    assert crop_strip(mouths, crop=14, lips=lips[:2]).ndim == 2  # of other crops


def piece(start: float, value: int) -> SimpleNamespace:
    """A second of a clip with 25 mouths, 4 of them without a face."""
    mouths, lips = np.full((25, 20, 20), value, np.uint8), np.full((25, 20, 2), value, np.float32)
    return SimpleNamespace(start=start, mouths=mouths, found=np.arange(25) >= 4, audio=None, lips=lips)


def person(name: str, modality: str = "audiovisual") -> dict:
    return {"speaker": name, "report": {"modality": modality}}


def read(space_module, pieces: list, result: dict, speaker, modality: str = "auto", seconds: float = 2.0):
    """`read_video` with a pipeline that sees these pieces and gives this result; (what was read, what was told)."""
    told = []

    def asr(path, on_piece, **settings):
        for one in pieces:
            on_piece(one)
        asr.settings = settings
        return result

    reading = space_module("reading").read_video(
        asr, "see", "x.mp4", seconds, speaker, modality, lambda share, what: told.append((share, what))
    )
    who = {} if speaker is None else {"speaker": speaker, "speaker_locator": "see"}
    assert asr.settings == {"modality": modality, "return_timestamps": "word", **who}
    assert [share for share, _ in told] == sorted(share for share, _ in told) and 0 < told[0][0] and told[-1][0] <= 0.7
    return reading, told


def test_a_reading_is_watched(space_module):
    """Every fourth mouth that was found is kept."""
    result = {"report": {"modality": "visual"}}
    reading, told = read(space_module, [piece(0.0, 1), piece(1.0, 2)], result, None)
    ((name, mouths),) = reading.mouths
    assert name == "" and mouths.shape == (12, 20, 20) and [int(m.max()) for m in mouths] == [1] * 6 + [2] * 6
    assert [lips[:, 0, 0].tolist() for lips in reading.lips] == [[1.0] * 6 + [2.0] * 6]
    assert told[-1] == (pytest.approx(0.05 + 0.65 / 2), "Following the speaker")
    assert not read(space_module, [piece(0.0, 1)], {"report": {"modality": "audio"}}, None)[0].mouths


def test_the_chosen_search_is_the_pipelines(space_module):
    calls = []

    def asr(path, on_piece, **settings):
        on_piece(piece(0.0, 1))
        calls.append(settings.get("search"))
        return {"report": {"modality": "audio"}}

    for search in (None, "two_pass"):
        space_module("reading").read_video(asr, "see", "x.mp4", 2.0, None, "auto", lambda share, what: None, search)
    choices = {value for _, value in space_module("read_tab").SEARCHES}
    assert calls == [None, "two_pass"] and choices == {"saved", "joint", "two_pass", "greedy"}


def test_mouths_of_everyone(space_module):
    """Of each person by themselves, apart from those whose lips were not read."""
    pieces = [piece(start, value) for value in (1, 2, 3) for start in (0.0, 1.0)]
    people = [person("Speaker 1"), person("Speaker 2", "audio"), person("Speaker 3")]
    result = {"report": {"modality": "audiovisual"}, "speakers": people}
    reading, told = read(space_module, pieces, result, "everyone")
    assert [(name, set(mouths.flat)) for name, mouths in reading.mouths] == [("Speaker 1", {1}), ("Speaker 3", {3})]
    assert told[-1][1] == "Reading speaker 3"
    shown = space_module("presenting").strips([("Speaker 1", "data:a"), ("<b>", "data:b")])
    assert shown.count("<img ") == 2 and "Speaker 1</figcaption>" in shown and "<b>" not in shown


@pytest.mark.parametrize(
    ("speaker", "followed", "box", "message"),
    [
        ("the elephant", 0.0, None, "No face was found of \u201cthe elephant\u201d"),
        ("the woman", 0.1, [0, 0, 9, 9], None),
        ({"point": (3, 3)}, 0.0, None, "No face was found where you tapped"),
        ({"point": (3, 3)}, 1.0, [40, 40, 60, 60], "No face was found where you tapped"),
        ({"point": (37, 62)}, 1.0, [40, 40, 60, 60], None),
        ({"point": (3, 3)}, 0.5, None, None),
    ],
)
def test_who_is_not_there_is_said(space_module, speaker, followed, box, message):
    """A pipeline always follows the likeliest one, and without a face it gives all that is heard to them."""
    report = {"modality": "audio", "speaker": {"followed": followed, "seconds": [{"second": 0, "box": box}]}}
    if message is None:
        assert read(space_module, [piece(0.0, 1)], {"report": report}, speaker)[0].result["report"] is report
    else:
        with pytest.raises(ValueError, match=message):
            read(space_module, [piece(0.0, 1)], {"report": report}, speaker)


def test_sound_alone_has_no_faces_to_choose_from(space_module):
    with pytest.raises(ValueError, match="chosen by the face"):
        read(space_module, [], {}, {"point": (3, 3)}, "audio")


def test_the_chosen_speaker_stands_out_in_the_video(space_module, clip, tmp_path):
    from lookhear.processing.avsr.media_avsr import read_frames

    reading = space_module("reading")
    second = {"second": 0, "box": [0.0, 0.0, 32.0, 48.0]}
    result = {"text": "", "chunks": [], "report": {"speaker": {"seconds": [second]}}, "confidence": 1.0}
    video, files = reading.write_files(reading.Reading(result, []), str(clip), tmp_path, lambda share, what: None)
    first = next(read_frames(video)).astype(int)  # (480, 640, 3)
    assert first[240, 160].mean() == pytest.approx(128, abs=6) and first[240, 480].mean() < 70
    assert set(files) == {"srt", "vtt", "json"} and all(path.parent == tmp_path for path in files.values())
    plain = {**result, "report": {}}
    video, _ = reading.write_files(reading.Reading(plain, []), str(clip), tmp_path, lambda share, what: None)
    assert next(read_frames(video)).astype(int)[240, 480].mean() == pytest.approx(128, abs=6)


def found(label: str, x: float, y: float, score: float = 0.9, **more) -> dict:
    """An object of 20 x 20 pixels."""
    box = {"xmin": x, "ymin": y, "xmax": x + 20, "ymax": y + 20}
    return {"label": label, "box": box, "score": score, "mask": np.zeros((48, 64), bool), **more}


ASKED = {
    "labels": ["cat", "dog"],
    "expressions": ["the tall one", "the elephant"],
    "points": [[(5, 5)], [(60, 5)]],
    "boxes": [(2, 2, 9, 9)],
}


def test_what_is_not_there_is_not_shown_in_a_picture(space_module, tmp_path):
    """Sentences have one object each and points, too, however unlike: what scores low or is elsewhere is left out."""
    from PIL import Image

    path = tmp_path / "picture.png"
    Image.new("RGB", (64, 48)).save(path)
    results = [found("cat", 0, 0), found("the tall one", 9, 9), found("the elephant", 9, 9, 0.05)]
    results += [found("object", 0, 0, 0.1), found("object", 0, 0), found("object", 10, 10)]
    picture, objects, missed = space_module("seeing").see_picture(lambda *_, **__: results, str(path), ASKED, 0.2)
    assert picture.size == (64, 48)
    assert [one["label"] for one in objects] == ["cat", "the tall one", "point 1", "box 1"]
    assert missed == ["dog", "the elephant", "point 2"]
    said = space_module("presenting").not_found(["<b>", "point 2"])
    assert "Not found: &lt;b&gt;, point 2." in said and space_module("presenting").not_found([]) == ""


class Following:
    """A video of two frames as `object-perception` gives it, with prompts for `ASKED`."""

    size, fps, frames, index, time = (48, 64), 10.0, 2, -1, None
    prompts = {9: "cat, dog", 1: "the tall one", 2: "the elephant", 3: "object", 4: "object", 5: "object"}

    def __enter__(self):
        self.dropped = []
        return self

    def __exit__(self, *error):
        pass

    def __iter__(self):
        for self.index in range(2):
            tracks = {1: ("the tall one", 9), 3: ("object", 0), 4: ("object", 0), 5: ("object", 8), 11: ("cat", 0)}
            yield [
                found(name, x, x, track_id=number)
                for number, (name, x) in tracks.items()
                if number not in self.dropped
            ]

    @property
    def frame(self):
        from PIL import Image

        return Image.new("RGB", (64, 48))

    def drop(self, number: int) -> None:
        self.dropped.append(number)


def test_what_is_not_there_is_not_followed_through_a_video(space_module, tmp_path):
    video = Following()
    tracks, missed = space_module("seeing").see_video(
        lambda *_, **__: video, "x.mp4", ASKED, 0.2, tmp_path / "x.mp4", lambda share, what: None
    )
    assert video.dropped == [4]
    assert {track["track_id"]: (track["label"], track["frames"]) for track in tracks} == {
        1: ("the tall one", 2),
        3: ("point 1", 2),
        5: ("box 1", 2),
        11: ("cat", 2),
    }
    assert missed == ["dog", "the elephant", "point 2"]


@pytest.fixture(scope="module")
def pipelines(tiny_checkpoint, tiny_glee) -> tuple:
    """Both pipelines, of random models."""
    from transformers import pipeline

    from lookhear import ObjectPerceptionPipeline

    model, processor = tiny_glee
    return (
        pipeline("audio-visual-speech-recognition", model=str(tiny_checkpoint)),
        ObjectPerceptionPipeline(model, processor=processor),
    )


@pytest.fixture(scope="module")
def uploads(clip, tmp_path_factory) -> Path:
    """Files that somebody may upload; `grey.mp4` has 3 seconds without a face."""
    import av
    from PIL import Image

    folder = tmp_path_factory.mktemp("uploads")
    Image.new("RGB", (64, 48)).save(folder / "picture.png")
    (folder / "picture.mp4").write_bytes((folder / "picture.png").read_bytes())
    (folder / "grey.mp4").write_bytes(clip.read_bytes())
    (folder / "cut.mp4").write_bytes(clip.read_bytes()[:700])
    (folder / "text.mp4").write_text("hello")
    (folder / "text.png").write_text("hello")
    (folder / "empty.mp4").write_bytes(b"")
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    (folder / "scene.json").write_text('{"objects": [], "expressions": []}')
    return folder


class Asking:
    """
    A pipeline `reasoning-segmentation` that answers each question by its words, and shows the picture's left half.
    """

    def __init__(self):
        self.questions: list[str] = []
        self.messages: list[dict] = []

    def conversation(self, picture):
        self.opened = copy.copy(self)
        self.opened.size, self.opened.messages = (picture.height, picture.width), []
        return self.opened

    def stream(self, question):
        self.questions.append(question)
        for word in question.split():
            yield word + " "
        if "fail" in question:
            raise ValueError("it fails")
        mask = np.zeros(self.size, bool)
        mask[:, : self.size[1] // 2] = "nothing" not in question
        box = {"xmin": 0, "ymin": 0, "xmax": self.size[1] // 2, "ymax": self.size[0]} if mask.any() else None
        self.messages = [*self.messages, {"role": "user", "content": question}]
        return {"text": question, "objects": [{"label": "left", "score": 0.9, "box": box, "mask": mask}]}


@pytest.fixture
def talk(space_module, uploads):
    """A conversation about `picture.png`, which is black."""
    return space_module("asking").Talk(Asking(), str(uploads / "picture.png"))


def test_an_answer_comes_word_by_word_and_then_with_what_it_shows(talk):
    from PIL import Image

    said = list(talk.ask("where <b> is it"))
    assert all(messages[0] == {"role": "user", "content": "where &lt;b&gt; is it"} for messages in said)
    words = [messages[1]["content"] for messages in said[:-1]]
    assert words == ["…", "where ", "where &lt;b&gt; ", "where &lt;b&gt; is ", "where &lt;b&gt; is it "]
    text, image = said[-1][1]["content"]
    assert text == "where &lt;b&gt; is it" and image.alt_text == "Shown: left"
    drawn = np.asarray(Image.open(image.value["path"]))
    assert drawn[24, 10].max() > 60 and drawn[24, 50].max() < 20


def test_a_conversation_grows_by_what_was_answered(talk):
    *_, first = talk.ask("one")
    with pytest.raises(ValueError, match="it fails"):
        list(talk.ask("fail"))
    *_, second = talk.ask("shows nothing")
    assert second[:2] == first and [message["role"] for message in second] == ["user", "assistant"] * 2
    assert second[-1]["content"] == ["shows nothing"]  # an empty mask is not drawn


def test_a_conversation_has_an_end(space_module, talk):
    for number in range(space_module("asking").MOST_QUESTIONS):
        *_, messages = talk.ask(str(number))
    with pytest.raises(ValueError, match="A conversation may have 12 questions: start a new one"):
        next(talk.ask("more"))


def test_only_the_latest_conversations_stay_in_memory(space_module, uploads, monkeypatch):
    """However many visitors there are; one whose picture has gone is opened again where it stopped."""
    asking, pipe, pictures = space_module("asking"), Asking(), []
    read = asking.read_image

    def read_and_note(path):
        picture = read(path)
        pictures.append(weakref.ref(picture))
        return picture

    monkeypatch.setattr(asking, "read_image", read_and_note)
    talks = [asking.Talk(pipe, str(uploads / "picture.png")) for _ in range(asking.AT_HAND + 3)]
    for talk in talks:
        list(talk.ask("one"))
    gc.collect()
    assert sum(picture() is not None for picture in pictures) == asking.AT_HAND
    *_, messages = talks[0].ask("two")
    assert [message["content"] for message in pipe.opened.messages] == ["one", "two"]
    assert [message["content"] for message in messages[::2]] == ["one", "two"]


@pytest.fixture(scope="module")
def tabs(space_module, pipelines, uploads) -> SimpleNamespace:
    """All tabs, which take 4 seconds to read and 2 to see."""
    import gradio

    paths = {"one": uploads / "grey.mp4", "two": uploads / "grey.mp4"}
    paths |= {"scene": uploads / "scene.png", "crowd": uploads / "scene.png", "moving": uploads / "scene.mp4"}
    examples = space_module("examples").Examples(**paths, posters=dict.fromkeys(paths, uploads / "picture.png"))
    limits = space_module("limits").Limits(read_seconds=4, see_seconds=2)
    with gradio.Blocks():
        read = space_module("read_tab").ReadTab(*pipelines, examples, limits)
        see = space_module("see_tab").SeeTab(pipelines[1], examples, limits)
        ask = space_module("ask_tab").AskTab(Asking, examples, limits)
        return SimpleNamespace(read=read, see=see, ask=ask)


POINT = [{"kind": "point", "points": [[3, 3]]}]


@pytest.mark.parametrize(
    ("file", "question", "message"),
    [
        (None, {}, "Choose a video first"),
        ("picture.png", {}, "This kind of file is not accepted as a video"),
        ("picture.mp4", {}, "This kind of file is not accepted as a video"),
        ("text.mp4", {}, "'text.mp4' is not a media file that can be read"),
        ("cut.mp4", {}, "'cut.mp4' is not a media file that can be read"),
        ("empty.mp4", {}, "'empty.mp4' is empty"),
        ("sound.mp4", {}, "sound only, no pictures"),
        ("grey.mp4", {}, "no face was found"),
        ("grey.mp4", {"who": "everyone"}, "no face is in view"),
        ("grey.mp4", {"who": "point"}, "Tap the face"),
        ("grey.mp4", {"who": "point", "shapes": [1]}, "cannot be read: clear"),
        ("grey.mp4", {"who": "point", "shapes": POINT, "modality": "audio"}, "chosen by the face"),
        ("grey.mp4", {"who": "text", "description": " "}, "Describe the speaker"),
    ],
)
def test_what_cannot_be_read_is_a_message(tabs, uploads, file, question, message):
    import gradio

    asked = {"who": "prominent", "shapes": [], "description": "", "modality": "auto", **question}
    with pytest.raises(gradio.Error, match=message) as raised:
        next(tabs.read._read(None if file is None else str(uploads / file), **asked))
    assert str(uploads) not in str(raised.value)


@pytest.mark.parametrize(
    ("file", "question", "message"),
    [
        (None, {}, "Choose a picture or a video first"),
        ("picture.png", {"labels": " , ", "sentences": "\n"}, "Say what to look for"),
        ("picture.png", {"shapes": [{"kind": "point", "points": [[99, 3]]}]}, "is outside of the image"),
        ("text.png", {}, "'text.png' is no picture"),
        ("picture.mp4", {}, "This kind of file is not accepted as a video"),
        ("text.mp4", {}, "'text.mp4' cannot be read as a video"),
        ("empty.mp4", {}, "'empty.mp4' is empty"),
        ("sound.mp4", {}, "sound only, no pictures"),
        ("grey.mp4", {}, "lasts 3 seconds; the limit here is 2"),
    ],
)
def test_what_cannot_be_seen_is_a_message(tabs, uploads, file, question, message):
    import gradio

    asked = {"labels": "cat", "sentences": "", "shapes": [], "threshold": 0.2, **question}
    with pytest.raises(gradio.Error, match=message) as raised:
        next(tabs.see._find(None if file is None else str(uploads / file), **asked))
    assert str(uploads) not in str(raised.value)


def test_what_users_and_models_write_is_escaped(space_module):
    presenting, evil = space_module("presenting"), "<img src=x onerror=alert(1)>"
    chunk = {"text": evil, "timestamp": (0.0, 1.0), "confidence": 0.5}
    box = {"xmin": 0.0, "ymin": 1.0, "xmax": 2.0, "ymax": 3.0}
    found = {"label": evil, "score": 0.5, "box": box, "mask": np.ones((2, 2), bool)}
    track = {"track_id": 1, "label": evil, "score": 0.5, "frames": 2, "first": 0.0, "last": 1.0}
    for shown in (
        presenting.said({"text": evil, "confidence": 0.5}),
        presenting.words_table([chunk]),
        presenting.report({"warnings": [evil], "modality": evil}),
        presenting.objects_table([found]),
        presenting.tracks_table([track]),
    ):
        assert "<img" not in shown and "&lt;img" in shown


def test_report_says_what_is_known(space_module):
    report = space_module("presenting").report
    second = {"second": 0, "box": [0, 0, 1, 1], "sure": 0.75, "face": 0.5}
    shown = report(
        {
            "modality": "audiovisual",
            "frames": 25,
            "frames_with_face": 0.84,
            "yaw": None,
            "warnings": ["the sound is faint"],
            "speaker": {"asked": "the woman", "located": 0.9, "followed": 0.8, "seconds": [second]},
        }
    )
    assert "the sound is faint" in shown and "84 %" in shown and "Turn of the head" not in shown
    assert "seen in 90 % of the frames, face in 80 %" in shown and "second 0: 75 % sure" in shown


def test_nothing_found_is_said(space_module):
    presenting = space_module("presenting")
    assert "nothing was said" in presenting.said({"text": "", "confidence": 1.0})
    assert "Nothing was read" in presenting.words_table([])
    assert "Nothing was found" in presenting.objects_table([]) and "Nothing was found" in presenting.tracks_table([])


def test_messages_do_not_name_folders_of_the_server(space_module):
    import gradio

    messages = space_module("messages")
    error = ValueError(
        "'/tmp/uploads/ab12/my clip.mp4' cannot be read\n(see /srv/app/x.py): use mp4 and/or https://a.b/c"
    )
    said = messages.as_sentence(error, "/tmp/uploads/ab12/my clip.mp4")
    assert said == "'my clip.mp4' cannot be read (see x.py): use mp4 and/or https://a.b/c"
    with pytest.raises(gradio.Error, match="&lt;b&gt;"), messages.errors_as_messages():
        raise ValueError("<b>")
    with pytest.raises(KeyError), messages.errors_as_messages():  # a mistake of ours stays one
        raise KeyError("x")


def test_space_is_ready_to_push(repository):
    """What the Hub reads of a Space's card, and that what it names is there."""
    import yaml

    folder = repository / "spaces" / "lookhear"
    card = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert card["sdk"] == "gradio" and (folder / card["app_file"]).is_file()
    assert card["sdk_version"].split(".")[0] == version("gradio").split(".")[0]
    assert card["license"] == "apache-2.0" and len(card["short_description"]) <= 60
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert float(card["python_version"]) >= float(project["requires-python"].removeprefix(">="))
    (requirement,) = (folder / "requirements.txt").read_text().split()
    name, extras = re.fullmatch(r"(\w+)\[([\w,]+)\]", requirement).groups()
    assert name == project["name"] and set(extras.split(",")) <= set(project["optional-dependencies"])


def test_space_uses_the_public_package_only(repository):
    """No network classes: checkpoints come through `pipeline`."""
    for path in (repository / "spaces" / "lookhear").glob("*.py"):
        assert "lookhear.modeling" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize(
    ("file", "question", "message"),
    [
        (None, "Which?", "Choose a picture first"),
        ("picture.png", "  ", "Type a question"),
        ("picture.png", None, "Type a question"),
        ("picture.png", "x" * 201, "at most 200 letters"),
        ("picture.png", "fail", "it fails"),
        ("text.png", "Which?", "'text.png' is no picture"),
        ("grey.mp4", "Which?", "this file is a video"),
        ("large.png", "Which?", "17 megapixels"),
    ],
)
def test_what_cannot_be_asked_is_a_message(tabs, uploads, file, question, message):
    import gradio
    from PIL import Image

    Image.new("1", (5000, 4000)).save(uploads / "large.png")
    with pytest.raises(gradio.Error, match=message) as raised:
        list(tabs.ask._ask(None if file is None else str(uploads / file), question, None))
    assert str(uploads) not in str(raised.value)


def test_a_question_that_fails_is_there_to_be_asked_again(tabs, uploads):
    import gradio

    picture = str(uploads / "picture.png")
    *_, (first, _, talk) = tabs.ask._ask(picture, "one", None)
    asked = tabs.ask._ask(picture, "fail here", talk)
    yielded = []
    with pytest.raises(gradio.Error, match="it fails"):
        for one in asked:
            yielded.append(one)
    assert len(yielded[0][0]) == 4 and yielded[-1] == (first, "fail here", talk)


def test_a_conversation_continues_about_the_same_picture_only(tabs, uploads):
    picture, other = str(uploads / "picture.png"), str(uploads / "other.png")
    Path(other).write_bytes(Path(picture).read_bytes())
    *_, (messages, typed, talk) = tabs.ask._ask(picture, "one", None)
    assert len(messages) == 2 and typed == ""
    *_, (messages, _, same) = tabs.ask._ask(picture, "two", talk)
    assert len(messages) == 4 and same is talk
    *_, (messages, _, another) = tabs.ask._ask(other, "three", talk)
    assert len(messages) == 2 and another is not talk and another.path == other
