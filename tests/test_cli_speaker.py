"""`lookhear transcribe --speaker`: whom to read, in words, in pixels, as a track, or everyone."""

import argparse
import json

import pytest

from lookhear_command import main
from lookhear_command.transcribe import _speaker, read_track

FAST = ["--num-beams", "1", "--ctc-weight", "1"]


@pytest.fixture
def run(capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    "text, speaker",
    [
        ("the man, left", "the man, left"),
        ("everyone", "everyone"),
        ("120,80", {"point": (120.0, 80.0)}),
        ("1, 2, 3.5, 4", {"box": (1.0, 2.0, 3.5, 4.0)}),
    ],
)
def test_numbers_are_places_and_all_else_is_words(text, speaker):
    assert _speaker(text) == speaker


@pytest.mark.parametrize("text", ["1,2,3", "7", "nan,1", " ", ""])
def test_what_says_nobody(text):
    with pytest.raises(argparse.ArgumentTypeError):
        _speaker(text)


def perceived(*frames: dict[int, float]) -> str:
    """What `lookhear perceive --json` writes: of each frame, at 50 a second, track ids and left edges."""
    rows = []
    for index, tracks in enumerate(frames):
        objects = [
            {"track_id": number, "box": {"xmin": x, "ymin": 0, "xmax": x + 9, "ymax": 9}, "mask": {"counts": "aa"}}
            for number, x in tracks.items()
        ]
        rows.append(json.dumps({"frame": index, "time": index / 50, "objects": objects}))
    return "\n".join(rows) + "\n"


def test_tracks_from_files(tmp_path):
    path = tmp_path / "track.json"
    path.write_text("[[0, 1, 2, 3], null]")
    assert read_track(path) == ([[0, 1, 2, 3], None], None)
    path.write_text(perceived({3: 5, 4: 50}, {4: 51}, {3: 7}))
    boxes, fps = read_track(path, 3)
    assert boxes == [[5, 0, 14, 9], None, [7, 0, 16, 9]] and fps == pytest.approx(50)
    with pytest.raises(ValueError, match="must say which track; it has 3, 4"):
        read_track(path)
    with pytest.raises(ValueError, match="there is no track 7; it has 3, 4"):
        read_track(path, 7)
    path.write_text(perceived({4: 50}))
    assert read_track(path) == ([[50, 0, 59, 9]], None)
    for nonsense in ("", "{}\n", "what\n", "[1,", '{"time": 0, "objects": 3}\n'):
        path.write_text(nonsense)
        with pytest.raises(ValueError, match="track.json"):
            read_track(path)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["a.mp4", "--speaker", "1,2,3"], "--speaker"),
        (["a.mp4", "--speaker", "he", "--speaker-track", "t.json"], "give one of them"),
        (["a.mp4", "b.mp4", "--speaker-track", "t.json"], "applies to a single video"),
        (["a.mp4", "--speaker-track", "nowhere.json"], "nowhere.json"),
        (["a.mp4", "--speaker-track-id", "2"], "which is missing"),
        (["a.mp4", "--speaker", "he", "--modality", "audio"], "no faces are looked at"),
    ],
)
def test_bad_input_ends_in_one_line(run, monkeypatch, tmp_path, tiny_checkpoint, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("transcribe", *arguments, "--model", tiny_checkpoint)
    assert (code, out) == (2, "") and message in err and "Traceback" not in err


def test_everyone_gets_a_track_of_subtitles(run, tiny_checkpoint, talking_clips, tmp_path):
    arguments = ["--model", tiny_checkpoint, "--speaker", "everyone", "--format", "vtt", "--output", tmp_path, *FAST]
    code, out, err = run("transcribe", talking_clips / "0.mp4", talking_clips / "2.wav", *arguments)
    assert code == 2 and "2.wav" in err and "there is no video" in err
    paths = [tmp_path / "0.vtt", tmp_path / "0.speaker-1.vtt"]
    assert out.splitlines() == list(map(str, paths))
    assert paths[0].read_text().startswith("WEBVTT") and paths[0].read_text() == paths[1].read_text()


def test_a_track_chooses_the_speaker(run, tiny_checkpoint, talking_clips, tmp_path):
    track = tmp_path / "track.json"
    track.write_text(json.dumps([[0, 0, 360, 288]] * 200))
    arguments = [talking_clips / "0.mp4", "--model", tiny_checkpoint, "--format", "json", *FAST]
    code, out, _ = run("transcribe", *arguments, "--speaker-track", track)
    assert code == 0 and json.loads(out)["report"]["speaker"]["located"] == 1.0
    track.write_text("[null, null]")
    code, out, err = run("transcribe", *arguments, "--speaker-track", track)
    assert (code, out) == (2, "") and "was not found in any frame" in err
