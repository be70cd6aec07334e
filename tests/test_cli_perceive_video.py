"""`lookhear perceive` of a video: the table of tracks, its files, what is left after a failure, bad input."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lookhear import cli
from lookhear.processing.glee.geometry_glee import mask_of_rle
from lookhear.processing.glee.video_reading_glee import open_video
from lookhear.training.glee.corpora.picture import decode_image
from lookhear.training.glee.corpora.youtube_vis import read_youtube_vis

EVERYTHING = ["--labels", "cat", "--tracking", "minvis", "--threshold", 0]


@pytest.fixture
def run(capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        try:
            code = cli.main(["perceive", *(str(argument) for argument in arguments)])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def model(tiny_glee, tmp_path_factory):
    from lookhear.training.glee.export import save_checkpoint

    return save_checkpoint(*tiny_glee, tmp_path_factory.mktemp("glee"))


def film(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """clip.mp4 of 6 frames; folder/ with the same as pictures; broken/, whose fourth picture is damaged; a.png."""
    from lookhear.processing.glee.writers_glee import VideoWriter

    folder = tmp_path_factory.mktemp("footage")
    writer = VideoWriter(folder / "clip.mp4", (48, 64), 25)
    for name in ("folder", "broken"):
        (folder / name).mkdir()
    for index, frame in enumerate(film(6)):
        writer.add(index, None, frame)
        for name in ("folder", "broken"):
            Image.fromarray(frame).save(folder / name / f"{index:04}.png")
    writer.close()
    (folder / "broken" / "0003.png").write_bytes(b"nothing")
    Image.fromarray(film(1)[0]).save(folder / "a.png")
    return folder


def test_everything_is_written(run, model, footage, tmp_path):
    out, lines, coco, mot = (tmp_path / "new" / name for name in ("out.mp4", "tracks.jsonl", "vis.json", "mot.txt"))
    written = ["--out", out, "--json", lines, "--coco-vis", coco, "--mot", mot]
    code, table, err = run(footage / "clip.mp4", "--model", model, *EVERYTHING, "--point", "10,20", *written)
    assert code == 0 and "Traceback" not in err and str(out) in err
    rows = table.splitlines()
    assert rows[0].split() == ["track", "label", "score", "frames", "first", "last"] and len(rows) >= 14
    assert rows[2].split() == ["1", "object", *rows[2].split()[2:]]
    assert rows[3].split()[1:2] == ["cat"] and rows[3].split()[3:] == ["6", "0.00", "s", "0.20", "s"]
    entries = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [entry["frame"] for entry in entries] == list(range(6)) and entries[5]["time"] == pytest.approx(0.2)
    assert all(mask_of_rle(thing["mask"]).shape == (48, 64) for entry in entries for thing in entry["objects"])
    vis = json.loads(coco.read_text())
    assert len(vis["annotations"]) == len(rows) - 2 and vis["videos"][0]["length"] == 6
    assert len(mot.read_text().splitlines()) == sum(len(entry["objects"]) for entry in entries)
    frames = list(open_video(out).read(lambda message: None))
    assert len(frames) == 6 and frames[0].image.size == (64, 48)
    assert sorted(path.name for path in out.parent.iterdir()) == ["mot.txt", "out.mp4", "tracks.jsonl", "vis.json"]


def test_tracks_are_read_back_as_youtube_vis(run, model, footage, tmp_path):
    """Of a folder with its pictures, and of a file whose frames are decoded: the same objects in the same frames."""
    for video in ("folder", "clip.mp4"):
        coco, lines = tmp_path / f"{video}.json", tmp_path / f"{video}.jsonl"
        asked = [
            "--model",
            model,
            "--expression",
            "a cat",
            "--expression",
            "a dog",
            "--coco-vis",
            coco,
            "--json",
            lines,
        ]
        code, *_ = run(footage / video, *asked)
        rows = list(read_youtube_vis(coco))
        assert code == 0 and [row["frame"] for row in rows] == list(range(6))
        for row, line in zip(rows, lines.read_text().splitlines(), strict=True):
            found = {one["track_id"]: one["mask"]["counts"] for one in json.loads(line)["objects"] if one["area"]}
            assert {thing["track_id"]: thing["mask"]["counts"] for thing in row["objects"]} == found
            assert decode_image(row, (48, 64)).size == (64, 48)


def test_an_animated_picture(run, model, footage, tmp_path):
    code, _, err = run(footage / "clip.mp4", "--model", model, *EVERYTHING, "--out", tmp_path / "out.webp")
    with Image.open(tmp_path / "out.webp") as picture:
        assert code == 0 and picture.is_animated and picture.n_frames == 6 and picture.size == (64, 48), err


def test_a_folder_on_the_standard_output(run, model, footage):
    code, out, _ = run(footage / "folder", "--model", model, "--expression", "a cat", "--fps", 10, "--json")
    entries = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [entry["time"] for entry in entries] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    code, out, _ = run(footage / "folder", "--model", model, *EVERYTHING, "--batch-size", 2)
    assert code == 0 and out.splitlines()[2].split()[-2:] == ["#0", "#5"]


def test_what_came_before_an_error_is_written(run, model, footage, tmp_path):
    out, lines, coco = (tmp_path / name for name in ("out.mp4", "tracks.jsonl", "vis.json"))
    written = ["--out", out, "--json", lines, "--coco-vis", coco]
    code, table, err = run(footage / "broken", "--model", model, *EVERYTHING, *written)
    assert code == 2 and len(table.splitlines()) >= 14
    (error,) = [line for line in err.splitlines() if line.startswith("lookhear perceive: error")]
    assert "0003.png" in error and "the first 3 frames were searched" in error
    assert len(lines.read_text().splitlines()) == 3 and json.loads(coco.read_text())["videos"][0]["length"] == 3
    assert len(list(open_video(out).read(lambda message: None))) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "tracks.jsonl", "vis.json"]


def test_stopping_keeps_what_is_there(run, model, footage, tmp_path, monkeypatch):
    from lookhear.processing.glee.video_perception_glee import VideoPerception

    going_on = VideoPerception.__next__

    def stopped(self):
        if self.index == 1:
            raise KeyboardInterrupt
        return going_on(self)

    monkeypatch.setattr(VideoPerception, "__next__", stopped)
    code, _, err = run(footage / "folder", "--model", model, *EVERYTHING, "--json", tmp_path / "tracks.jsonl")
    assert code == 130 and "stopped (the first 2 frames" in err
    assert len((tmp_path / "tracks.jsonl").read_text().splitlines()) == 2


def test_an_expression_is_looked_for_by_its_mask_where_asked(run, monkeypatch, model, footage):
    from lookhear.processing.glee.video_queries_glee import ExpressionPrompt

    asked = []
    find = ExpressionPrompt._track
    monkeypatch.setattr(ExpressionPrompt, "_track", lambda self, seen: asked.append(self.reprompt) or find(self, seen))
    looks = [footage / "clip.mp4", "--model", model, "--expression", "a cat", "--threshold", 0]
    assert run(*looks)[0] == run(*looks, "--reprompt")[0] == 0
    assert asked == 6 * [False] + 6 * [True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clip.mp4", "a.png", "--labels", "cat"], "pass one video at a time"),
        (["clip.mp4", "--labels", "cat", "--out", "o.png"], "--out o.png: the ending of a video"),
        (["clip.mp4", "--labels", "cat", "--out", "clip.mp4"], "would be overwritten"),
        (["clip.mp4", "--labels", "cat", "--mot", "x", "--coco-vis", "x"], "would be overwritten"),
        (["a.png", "--labels", "cat", "--mot", "x.txt"], "--mot applies to videos only, and a.png is not one"),
        (["a.png", "--labels", "cat", "--fps", "5"], "--fps applies to videos only"),
        (["folder", "--labels", "cat", "--fps", "0"], "--fps"),
        (["folder", "--labels", "cat", "--tracking", "best"], "--tracking"),
        (["a.png", "--expression", "a cat", "--reprompt"], "--reprompt applies to videos only"),
        (["clip.mp4", "--labels", "cat", "--model", "./nowhere"], "no folder ./nowhere"),
    ],
)
def test_bad_options_end_in_one_line(run, monkeypatch, footage, arguments, message):
    monkeypatch.chdir(footage)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.mp4", "--labels", "cat"], "missing.mp4"),
        (["clip.mp4", "--labels", "cat,cat"], "labels: 'cat' is there twice"),
        (["clip.mp4", "--point", "500,20"], "points: "),
        (["clip.mp4", "--labels", "cat", "--fps", "5"], "`fps` is for pictures"),
    ],
)
def test_bad_input_ends_in_one_line_and_writes_nothing(run, monkeypatch, model, footage, tmp_path, arguments, message):
    monkeypatch.chdir(footage)
    code, out, err = run(*arguments, "--model", model, "--json", tmp_path / "x.jsonl", "--out", tmp_path / "x.mp4")
    assert (code, out) == (2, "") and message in err and "Traceback" not in err
    assert len([line for line in err.splitlines() if "lookhear perceive: error" in line]) == 1
    assert list(tmp_path.iterdir()) == []


MEMORY = """
import resource, sys
import numpy as np
from pathlib import Path
from transformers import pipeline
import lookhear
from lookhear.commands.perceive_video import VideoOutputs, perceive_video

model, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
see = pipeline("object-perception", model=model, device="cpu")
random = np.random.default_rng(0)
ground = random.integers(0, 255, (480, 640, 3), dtype=np.uint8)  # 0.9 MB

class Film:
    def __getitem__(self, index):
        if index == count:
            raise IndexError
        return np.roll(ground, 4 * index, axis=1)

def show(given, **asked):
    return see({"video": Film(), "fps": 25}, **asked)

asked = {"labels": ["cat"], "points": [[(100, 100)]]}
outputs = VideoOutputs(folder / "o.mp4", folder / "o.jsonl", folder / "o.json", folder / "o.txt")
code = perceive_video("film", show, asked, outputs, threshold=0.0, top_k=1, tracking="minvis")
print("PEAK", code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_does_not_depend_on_the_length(model, tmp_path):
    """With all files that can be written; 300 frames of 0.9 MB would be 270 MB."""
    peaks = {}
    for count in (60, 300):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, model, tmp_path, str(count)], capture_output=True, text=True, check=True
        )
        _, code, peak = next(line for line in done.stdout.splitlines() if line.startswith("PEAK")).split()
        assert code == "0" and len((tmp_path / "o.jsonl").read_text().splitlines()) == count
        peaks[count] = int(peak) / 1024
    print({count: f"{peak:.0f} MB" for count, peak in peaks.items()})
    assert peaks[300] <= 1.05 * peaks[60]
