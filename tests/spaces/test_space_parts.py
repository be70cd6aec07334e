"""What the Space does apart from its page: limits, prompts, tables, messages, and what it is pushed with."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

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
    limits.check_video(str(clip), 3.5)
    with pytest.raises(ValueError, match="lasts 3 seconds; 2 are the most"):
        limits.check_video(str(clip), 2.0)
    with pytest.raises(ValueError, match="64 x 48 pixels"):
        space_module("limits").Limits(megapixels=0.003).check_video(str(clip), 3.5)
    with pytest.raises(ValueError, match="megabytes; 0"):
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
        assert "not taken here" in str(error)
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
    with pytest.raises(ValueError, match="cannot be understood"):
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
    with pytest.raises(ValueError, match="Describe who"):
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
