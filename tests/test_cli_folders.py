"""Commands on whole folders: every file once, results where their files lie, problems listed, stopped runs go on."""

import io
import json
import os
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from lookhear import cli
from lookhear_command import found_files
from lookhear_command.found_files import CLIPS, SOUNDS, FoundFile, find_files, in_shard

FAST = ["--num-beams", "1", "--ctc-weight", "1"]


class Killed(BaseException):
    """As a signal that leaves no time for anything."""


@pytest.fixture
def run(capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code
        except Killed:
            code = -9
        return code, *capsys.readouterr()

    return run


def write_sound(path: Path, seconds: float = 0.4, seed: int = 0) -> Path:
    """A short file with a noise that no silence gate takes for silence."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).normal(0, 3000, int(16000 * seconds)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# ----------------------------------------------------------------------------------------------------- which files


def test_files_of_folders_are_found_and_named(tmp_path):
    for name in ("b.wav", "a.mp4", "notes.txt", ".hidden.wav", "x.y.wav", "deep/a.mp4", "deep/er/c.MKV", ".git/d.wav"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    folder = str(tmp_path / "in")

    def found(*arguments, recursive=False, output=None) -> dict[str, str]:
        files = find_files(arguments, CLIPS + SOUNDS, recursive, output)
        return {file.name: os.path.relpath(file.path, folder) for file in files}

    assert found(folder) == {"a": "a.mp4", "b": "b.wav", "x.y": "x.y.wav"}
    assert set(found(folder, recursive=True)) == {"a", "b", "x.y", "deep/a", "deep/er/c"}
    assert set(found(folder, recursive=True, output=tmp_path / "in" / "deep")) == {"a", "b", "x.y"}
    (tmp_path / "in" / "a.wav").touch()
    assert set(found(folder)) == {"a.mp4", "a.wav", "b", "x.y"}, "two of one name keep their endings"
    assert set(found(folder, folder + "/deep", "one.two.mp4")) == {
        *("in/a.mp4", "in/a.wav", "in/b", "in/x.y", "deep/a", "one.two"),
    }
    assert find_files(["a.mp4", "b.mp4"], CLIPS, False, None) is None
    with pytest.raises(ValueError, match=r"holds no file that could be read .*--recursive searches"):
        find_files([str(tmp_path)], CLIPS, False, None)
    with pytest.raises(ValueError, match="two files would both be written to in/a.mp4"):
        find_files([folder, folder], CLIPS + SOUNDS, False, None)


def test_each_file_is_in_one_shard_whatever_the_order_of_the_list():
    files = [FoundFile(f"/there/{number}.mp4", f"b/{number}") for number in range(10)] + [FoundFile("/x.mp4", "a")]
    shuffled = [files[place] for place in np.random.default_rng(0).permutation(len(files))]
    for count in (1, 2, 3, 11, 13):
        parts = [in_shard(files, (index, count)) for index in range(count)]
        assert sorted(file.name for part in parts for file in part) == sorted(file.name for file in files)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert parts == [in_shard(shuffled, (index, count)) for index in range(count)]
    assert [file.name for file in in_shard(shuffled, (0, 4))] == ["a", "b/3", "b/7"]
    assert in_shard(shuffled, None) == shuffled


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard", "0/2"], "--shard needs --output DIR"),
        (["--shard", "2/2"], "argument --shard: '2/2' is not I/N, job I of N jobs, with I from 0 to N - 1"),
        (["--shard", "-1/2"], "--shard"),
        (["--shard", "0/0"], "argument --shard: '0/0' is not I/N"),
        (["--shard", "0/2", "--output", "x", "--overwrite"], "--overwrite doesn't go with --shard"),
        (["--format", "all"], "--format all needs --output DIR"),
        (["--highlight-words"], "--highlight-words applies to srt and vtt, and --format is txt"),
        (["--format", "vtt"], "several files as vtt need --output DIR"),
    ],
)
def test_wrong_arguments_are_one_line(run, tmp_path, arguments, message):
    for name in "ab":
        write_sound(tmp_path / f"{name}.wav")
    code, out, err = run("transcribe", tmp_path, *arguments)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_an_empty_folder_is_one_line(run, tmp_path):
    code, out, err = run("transcribe", tmp_path, "--output", tmp_path / "out")
    assert (code, out) == (2, "") and "holds no file that could be read" in err and err.count("\n") == 1


# ------------------------------------------------------------------------------------------------------------- runs


@pytest.mark.slow
def test_a_folder_that_is_killed_twice_ends_with_every_file_once(run, monkeypatch, tiny_checkpoint, tmp_path):
    """200 clips, ten of them bad: 190 results and ten problems; no file that was done is opened again."""
    from lookhear.processing.avsr import AudioVisualSpeechRecognitionPipeline as Pipeline
    from lookhear.processing.avsr import captions_avsr

    clips, out = tmp_path / "clips", tmp_path / "out"
    for number in range(200):
        path = clips / f"{number % 7}" / f"{number}.wav"
        if number % 20 == 3:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("this is no sound")
        else:
            write_sound(path, 0.3, number)
    command = ["transcribe", clips, "--recursive", "--output", out, "--model", tiny_checkpoint, "--batch-size", "4"]
    command += ["--num-workers", "0"]  # what is opened is counted here
    opened: list[str] = []
    stream, write = Pipeline.stream, captions_avsr.write_captions
    monkeypatch.setattr(
        Pipeline, "stream", lambda self, file, **more: opened.append(file) or stream(self, file, **more)
    )
    written: list[Path] = []

    def killed_at(count: int):
        def write_until(result, path, *arguments, **more):
            if len(written) == count:
                raise Killed
            written.append(path)
            return write(result, path, *arguments, **more)

        return write_until

    import lookhear.processing.avsr as public

    for count in (50, 120):
        with monkeypatch.context() as patch:
            patch.setattr(public, "write_captions", killed_at(count))
            assert run(*command, *FAST)[0] == -9
    code, _, err = run(*command, *FAST)
    assert code == 2 and "120 of 200 results are there" in err
    results = {name for name in names(out) if name.endswith(".txt")}
    assert len(results) == 190 and "3/10.txt" in results
    rows = [json.loads(line) for line in (out / "problems.jsonl").read_text().splitlines()]
    assert len(rows) == 10 and all(row["error"] and row["size"] == 16 for row in rows)
    assert len({row["file"] for row in rows}) == 10
    again = {file for file in opened if opened.count(file) > 1}
    assert len(set(opened)) == 200 and len(again) <= 2 * 4, "only the batch that a kill broke off"
    before = len(opened)
    code, printed, err = run(*command, *FAST)
    assert code == 2 and printed == "" and len(opened) == before, "all is done"
    assert "190 of 200 results are there" in err and "problems.jsonl: 10" in err
    write_sound(Path(rows[0]["file"]), 0.5)  # mended
    assert run(*command, *FAST)[0] == 2 and len(opened) == before + 1
    assert len((out / "problems.jsonl").read_text().splitlines()) == 9


@pytest.mark.slow
def test_shards_give_what_one_process_gives(run, monkeypatch, tiny_checkpoint, tmp_path):
    """Three jobs, one of which is killed and begins again, and then one run without shards, which reads nothing."""
    from lookhear.processing.avsr import AudioVisualSpeechRecognitionPipeline as Pipeline

    clips, whole, out = tmp_path / "clips", tmp_path / "whole", tmp_path / "out"
    for number in range(11):
        write_sound(clips / f"{number % 2}" / f"{number}.wav", 0.3, number)
    for name in ("0/bad.wav", "1/bad.wav"):
        (clips / name).write_text("this is no sound")
    command = ["transcribe", clips, "--recursive", "--model", tiny_checkpoint, "--format", "all", *FAST]
    command += ["--num-workers", "0", "--output"]  # what is opened is counted here
    assert run(*command, whole)[0] == 2
    opened: list[str] = []
    stream, attempt = Pipeline.stream, Pipeline.attempt
    monkeypatch.setattr(
        Pipeline, "stream", lambda self, file, **more: opened.append(file) or stream(self, file, **more)
    )
    with monkeypatch.context() as patch:

        def killed(*arguments, **more):
            raise Killed

        patch.setattr(Pipeline, "attempt", killed)
        assert run(*command, out, "--shard", "1/3")[0] == -9
    assert Pipeline.attempt is attempt
    opened.clear()
    codes = []
    for index in (2, 0, 1):
        (out / ".0.99999999.part.txt").write_text("of another machine's job")
        code, printed, err = run(*command, out, "--shard", f"{index}/3")
        codes.append(code)
        count = (5, 4, 4)[index]
        assert f"lookhear transcribe: files of job {index}-of-3: {count}\n" in err
        assert (out / ".0.99999999.part.txt").exists()
    assert len(opened) == len(set(opened)) == 13 and sorted(codes) in ([0, 2, 2], [0, 0, 2])
    lists = {path.name for path in out.glob("problems*")}
    assert lists <= {f"problems.{index}-of-3.jsonl" for index in range(3)} and lists
    again = [run(*command, out, "--shard", f"{index}/3")[:2] for index in (2, 0, 1)]
    assert again == [(code, "") for code in codes] and len(opened) == 13, "each job knows what it has done"
    code, printed, err = run(*command, out)
    assert (code, printed) == (2, "") and "11 of 13 results are there" in err and len(opened) == 13
    assert names(out) == names(whole) and len(names(out)) == 11 * 5 + 2
    for name in names(whole) - {"problems.jsonl"}:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    problems = [sorted((folder / "problems.jsonl").read_text().splitlines()) for folder in (out, whole)]
    assert problems[0] == problems[1] and len(problems[0]) == 2
    code, _, err = run(*command, out, "--shard", "1/2", "--modality", "audio")
    assert code == 2 and "has results of other options (--modality)" in err


@pytest.mark.slow
def test_all_formats_and_other_options(run, tiny_checkpoint, talking_clips, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[1] / "docs" / "transcript.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    out = tmp_path / "out"
    command = ["transcribe", talking_clips, "--output", out, "--model", tiny_checkpoint, "--format", "all", *FAST]
    code, printed, err = run(*command, "--highlight-words", "--progress")
    assert code == 0 and "3 of 3 files, " in err and "times as fast as they play" in err
    kinds = ("txt", "srt", "vtt", "tsv", "json")
    assert {name for name in names(out) if name[0] != "."} == {f"{n}.{kind}" for n in "012" for kind in kinds}
    assert len(printed.splitlines()) == 15
    assert "<u>" in (out / "0.srt").read_text() and "<u>" in (out / "0.vtt").read_text()
    for number in range(3):
        found = json.loads((out / f"{number}.json").read_text())
        jsonschema.validate(found, schema)
        assert " ".join(one["text"] for one in found["segments"]) == found["text"] != ""
    code, _, err = run(*command, "--modality", "audio", "--highlight-words")
    assert code == 2 and "has results of other options (--modality)" in err and err.count("\n") == 1
    (out / "1.vtt").unlink()
    code, printed, _ = run(*command, "--highlight-words")
    assert code == 0 and [Path(line).name for line in printed.splitlines()] == [f"1.{kind}" for kind in kinds]
    code, printed, _ = run(*command, "--modality", "audio", "--overwrite")
    assert code == 0 and len(printed.splitlines()) == 15 and "<u>" not in (out / "0.srt").read_text()


@pytest.mark.slow
def test_json_has_sentences_and_words(run, tiny_checkpoint, talking_clips):
    code, out, _ = run("transcribe", talking_clips / "0.mp4", "--model", tiny_checkpoint, "--format", "json", *FAST)
    found = json.loads(out)
    assert code == 0 and found["segments"][0]["words"] and found["chunks"]


@pytest.mark.slow
def test_the_standard_input_and_pipes_are_read(run, monkeypatch, tiny_checkpoint, talking_clips, tmp_path):
    content = (talking_clips / "0.mp4").read_bytes()
    command = ["--model", tiny_checkpoint, *FAST]
    _, expected, _ = run("transcribe", talking_clips / "0.mp4", *command)

    monkeypatch.setattr(sys, "stdin", Piped(content))
    assert run("transcribe", "-", *command)[:2] == (0, expected)
    monkeypatch.setattr(sys, "stdin", Piped(content))
    assert run("transcribe", "-", "--output", tmp_path, *command)[0] == 0
    assert (tmp_path / "stdin.txt").read_text() == expected
    monkeypatch.setattr(sys, "stdin", Piped(b"no clip"))
    code, out, err = run("transcribe", "-", *command)
    assert (code, out) == (2, "") and err.splitlines()[-1].startswith("lookhear transcribe: error: 'standard input' ")
    if hasattr(os, "mkfifo"):
        import threading

        os.mkfifo(tmp_path / "pipe.mp4")
        threading.Thread(target=(tmp_path / "pipe.mp4").write_bytes, args=[content], daemon=True).start()
        assert run("transcribe", tmp_path / "pipe.mp4", *command)[:2] == (0, expected)


def test_pipes_have_an_end(monkeypatch, tmp_path):
    monkeypatch.setattr(found_files, "MOST_PIPED", 10)
    with pytest.raises(ValueError, match="pipe holds more than 4 GiB"):
        found_files._stored(io.BytesIO(b"x" * 11), "pipe")
    with found_files._stored(io.BytesIO(b"x" * 10), "pipe") as file:
        assert file.read() == b"x" * 10 and file.name == "pipe"


# -------------------------------------------------------------------------------------------------------- perceive


@pytest.fixture(scope="module")
def seer(tiny_glee, tmp_path_factory) -> Path:
    from lookhear.training.glee.export import save_checkpoint

    return save_checkpoint(*tiny_glee, tmp_path_factory.mktemp("seer"))


def write_picture(path: Path, seed: int) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(path)


def write_walk(path: Path, frames: int = 3) -> None:
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            picture = np.full((48, 64, 3), 60 * number, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        file.mux(stream.encode())


@pytest.mark.slow
def test_perceive_mirrors_a_folder(run, seer, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    write_picture(source / "a.png", 1)
    write_picture(source / "deep" / "a.jpg", 2)
    (source / "deep" / "bad.png").write_bytes(b"no picture")
    write_walk(source / "deep" / "walk.mp4")
    command = [
        "perceive",
        source,
        "--recursive",
        "--model",
        seer,
        "--labels",
        "cat",
        "--threshold",
        "0",
        "--top-k",
        "2",
    ]
    command += ["--output", out, "--format", "all"]
    code, printed, err = run(*command)
    assert code == 2 and "4 of 4 files, " in err
    results = {"a.json", "a.png", "deep/a.json", "deep/a.png", "deep/walk.jsonl", "deep/walk.mp4"}
    assert {name for name in names(out) if name[0] != "."} == results | {"problems.jsonl"}
    assert {str(Path(line).relative_to(out)) for line in printed.splitlines()} == results
    entry = json.loads((out / "deep" / "a.json").read_text())
    assert (entry["image"], entry["height"], entry["width"]) == (str(source / "deep" / "a.jpg"), 48, 64)
    assert 0 < len(entry["objects"]) <= 2 and {"score", "label", "box", "area", "mask"} == set(entry["objects"][0])
    assert len((out / "deep" / "walk.jsonl").read_text().splitlines()) == 3
    (problem,) = map(json.loads, (out / "problems.jsonl").read_text().splitlines())
    assert problem["file"] == str(source / "deep" / "bad.png") and problem["error"]
    alone = [
        *command[:1],
        source / "a.png",
        "--model",
        seer,
        "--labels",
        "cat",
        "--threshold",
        "0",
        "--top-k",
        "2",
        "--json",
    ]
    single = json.loads(run(*alone)[1])["images"][0]
    assert single == json.loads((out / "a.json").read_text())
    shards = [*command[:-3], tmp_path / "shards", "--format", "all", "--shard"]
    assert sorted(run(*shards, f"{index}/2")[0] for index in (1, 0)) == [0, 2]
    for name in results - {"deep/walk.mp4"}:
        assert (tmp_path / "shards" / name).read_bytes() == (out / name).read_bytes(), name
    before = {name: (out / name).stat().st_mtime_ns for name in results}
    (out / "a.png").unlink()
    code, printed, err = run(*command)
    assert code == 2 and "2 of 4 results are there" in err and len(printed.splitlines()) == 2
    assert all((out / name).stat().st_mtime_ns == before[name] for name in results if name[:2] != "a.")
    code, _, err = run(*command[:-2], "--one-label")
    assert code == 2 and "has results of other options (--one-label)" in err


class Piped:
    """A standard input that isn't a terminal."""

    def __init__(self, content: bytes):
        self.buffer = io.BytesIO(content)

    def isatty(self) -> bool:
        return False


@pytest.mark.slow
def test_perceive_reads_the_standard_input(run, monkeypatch, seer, tmp_path):
    write_picture(tmp_path / "a.png", 1)
    write_walk(tmp_path / "walk.mp4")
    asked = ["--model", seer, "--labels", "cat", "--threshold", "0", "--top-k", "2"]

    def perceive(file, *more, content: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", Piped(content))
        return run("perceive", file, *asked, *more)

    picture, video = ((tmp_path / name).read_bytes() for name in ("a.png", "walk.mp4"))
    expected = json.loads(perceive(tmp_path / "a.png", "--json")[1])["images"][0]
    code, out, _ = perceive("-", "--json", "--out", tmp_path / "found", content=picture)
    (entry,) = json.loads(out)["images"]
    assert code == 0 and entry == expected | {"image": "stdin"} and (tmp_path / "found" / "stdin.png").is_file()
    assert perceive("-", "--point", "5,5", content=picture)[0] == 0
    expected = perceive(tmp_path / "walk.mp4", "--json")[1]
    code, out, _ = perceive("-", "--json", "--out", tmp_path / "found", content=video)
    assert (code, out) == (0, expected) and len(out.splitlines()) == 3 and (tmp_path / "found" / "stdin.mp4").is_file()
    for more, content, message in (
        ([], b"no picture", "standard input"),
        (["--each"], video, "--frames each needs a file, and - is a pipe"),
        (["--coco", tmp_path / "x.json"], picture, "--coco names files, and - is none"),
        (["--output", tmp_path / "x"], picture, "- doesn't go with --output"),
    ):
        code, out, err = perceive("-", *more, content=content)
        line = err.splitlines()[-1]  # after the bar of the weights
        assert (code, out) == (2, "") and message in line and line.startswith("lookhear perceive: error: "), err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shard", "0/2"], "--shard needs --output DIR"),
        (["--recursive"], "--recursive and --format go with --output"),
        (["--output", "x", "--out", "y.png"], "--out doesn't go with --output"),
        (["--output", "x", "--point", "1,2"], "--point applies to a single image"),
    ],
)
def test_perceive_says_which_options_go_together(run, tmp_path, more, message):
    write_picture(tmp_path / "a.png", 1)
    code, out, err = run("perceive", tmp_path, "--labels", "cat", *more)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
