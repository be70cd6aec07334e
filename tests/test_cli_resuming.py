"""Long commands that were interrupted go on where they were, and end as if they had not been."""

import json
import os
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from lookhear import cli
from lookhear_command.interrupted import FilesDone

FAST = ["--num-beams", "1", "--ctc-weight", "1"]


class Killed(BaseException):
    """As a signal that leaves no time for anything."""


@pytest.fixture
def run(capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except Killed:
            code = -9
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def calls(monkeypatch):
    """`calls(owner, name, after)` counts the calls of a method, and breaks off at the one after so many."""

    def watch(owner, name, after=None) -> list:
        original, made = getattr(owner, name), []

        def counted(self, *arguments, **settings):
            if after is not None and len(made) == after:
                raise Killed
            made.append(arguments)
            return original(self, *arguments, **settings)

        monkeypatch.setattr(owner, name, counted)
        return made

    return watch


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_transcribe_goes_on_behind_the_last_whole_batch(
    run, calls, monkeypatch, tiny_checkpoint, talking_clips, tmp_path
):
    from lookhear.processing.avsr import AudioVisualSpeechRecognitionPipeline as Pipeline

    for number in range(6):
        file = tmp_path / f"{number}.mp4"
        file.write_bytes((talking_clips / f"{number % 2}.mp4").read_bytes())
    files = sorted(tmp_path.glob("*.mp4"))
    command = ["transcribe", *files, "--model", tiny_checkpoint, "--batch-size", 2, "--format", "json", *FAST]
    code, printed, _ = run(*command, "--output", tmp_path / "whole")
    assert code == 0 and len(contents(tmp_path / "whole")) == 6
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        from lookhear.processing.avsr import captions_avsr

        write, written = captions_avsr.format_captions, []

        def killed(*arguments):
            if len(written) == 3:
                raise Killed
            written.append(arguments)
            return write(*arguments)

        patch.setattr(captions_avsr, "format_captions", killed)
        assert run(*command, "--output", output)[0] == -9
    assert sorted(name for name in contents(output) if name[0] != ".") == ["0.json", "1.json", "2.json"]
    (output / f".3.json.{2**22 + 1}.part").write_text("half")  # of a process that cannot be
    batches = calls(Pipeline, "attempt")
    code, again, _ = run(*command, "--output", output)
    assert code == 0 and [len(inputs) for (inputs,) in batches] == [2, 2], "the second pair anew, as it is one batch"
    assert again.replace("/out/", "/whole/") == printed
    assert contents(output) == contents(tmp_path / "whole")

    # A record of other settings, other files or missing results counts for nothing.
    record = output / ".transcribe.done"
    for change in ("settings", "clip", "result", "overwrite"):
        with monkeypatch.context() as patch:
            patch.setattr(FilesDone, "remove", lambda self: None)  # as after a kill
            run(*command, "--output", output)
        assert record.exists()
        more = {"settings": ["--modality", "audio"], "overwrite": ["--overwrite"]}.get(change, [])
        if change == "clip":
            os.utime(files[0], ns=(1, 1))
        elif change == "result":
            (output / "0.json").unlink()
        reads = calls(Pipeline, "attempt")
        assert run(*command, *more, "--output", output)[0] == 0
        assert len(reads) == {"settings": 3, "overwrite": 3}.get(change, 1), change
        assert not record.exists()


def test_the_standard_input_is_never_done(tmp_path, monkeypatch):
    """It is another one each time, as any pipe is: neither of several files, nor beside a folder."""
    from lookhear_command import interrupted
    from lookhear_command.folder_run import FolderRun
    from lookhear_command.found_files import FoundFile

    monkeypatch.setattr(interrupted, "what_counts", lambda *arguments: {})
    monkeypatch.setattr("lookhear_command.folder_run.what_counts", lambda *arguments: {})
    clip, pipe = tmp_path / "other.mp4", tmp_path / "pipe.mp4"
    clip.touch()
    os.mkfifo(pipe)
    for name in ("stdin", "other", "pipe"):
        (tmp_path / f"{name}.txt").touch()
    files = {"-": "stdin", str(clip): "other", str(pipe): "pipe"}
    options = Namespace(overwrite=False, shard=None, command="transcribe", output=tmp_path)
    done = FilesDone(tmp_path / "record", options)
    for file, name in files.items():
        done.add(file, [tmp_path / f"{name}.txt"])
    assert [file for file in files if file in done] == [str(clip)]
    run = FolderRun(options, lambda file: [tmp_path / f"{file.name}.txt"])
    found = [FoundFile(*pair) for pair in files.items()]
    assert [file.path for file in run.pending(found)] == ["-", str(pipe)]
    run.add_problem("-", "it was no clip")
    again = FolderRun(options, lambda file: [tmp_path / f"{file.name}.txt"])
    assert [file.path for file in again.pending(found)] == ["-", str(pipe)] and again.failed == 0


@pytest.mark.slow
def test_evaluate_avsr_goes_on(run, calls, monkeypatch, tiny_checkpoint, talking_clips, tmp_path):
    """The same figures but for the speed, batch by batch; beside --json nothing is left, in --output the readings."""
    from lookhear.processing.avsr import AudioVisualSpeechRecognitionPipeline as Pipeline

    command = ["evaluate", "avsr", "--data", talking_clips, "--model", tiny_checkpoint, "--batch-size", 1, *FAST]
    command += ["--modality", "audio", "--snr", "clean,5", "--noise", "talker"]
    whole, json_file = tmp_path / "whole.json", tmp_path / "out.json"

    def rows(path) -> list[dict]:
        return [
            {name: value for name, value in row.items() if name != "rtfx"}
            for row in json.loads(path.read_text())["results"]
        ]

    made = calls(Pipeline, "__call__")
    assert run(*command, "--json", whole)[0] == 0
    count = len(made)
    for places in (["--json", json_file], ["--output", tmp_path / "folder", "--json", json_file]):
        json_file.unlink(missing_ok=True)
        first = calls(Pipeline, "__call__", after=count // 2)
        assert run(*command, *places)[0] == -9 and len(first) == count // 2
        monkeypatch.undo()
        made = calls(Pipeline, "__call__")
        assert run(*command, *places)[0] == 0
        assert len(made) == count - count // 2 and rows(json_file) == rows(whole)
        assert all(row["rtfx"] > 0 for row in json.loads(json_file.read_text())["results"])
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    made.clear()
    assert run(*command, *places)[0] == 0 and not made, "all is in --output"
    assert run(*command, *places, "--overwrite")[0] == 0 and len(made) == count
    code, _, err = run(*command, *places, "--seed", 1)
    assert code == 2 and "holds the results of another run" in err and err.count("\n") == 1
    code, _, err = run(*command[:3], tmp_path / "missing", *command[4:], "--json", json_file)
    assert code == 2 and [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.fixture(scope="module")
def seer(tiny_glee, tmp_path_factory):
    from lookhear.training.glee.export import save_checkpoint

    return save_checkpoint(*tiny_glee, tmp_path_factory.mktemp("glee"))


@pytest.mark.slow
def test_perceive_of_many_goes_on(run, calls, monkeypatch, seer, tmp_path):
    from lookhear.commands import perceive as module
    from lookhear.processing.glee import ObjectPerceptionPipeline as Pipeline

    album = tmp_path / "album"
    album.mkdir()
    generator = np.random.default_rng(0)
    for number in range(5):
        pixels = generator.integers(0, 255, (40 + number, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(album / f"{number}.png")
    command = ["perceive", *sorted(album.iterdir()), "--model", seer, "--labels", "cat", "--threshold", 0]

    def places(name: str) -> list:
        folder = tmp_path / name
        return ["--out", folder / "drawn", "--json", folder / "found.json", "--coco", folder / "own.json"]

    code, whole, _ = run(*command, *places("whole"))
    assert code == 0
    with monkeypatch.context() as patch:
        row, made = module.to_entry, []

        def killed(*arguments):
            made.append(arguments)
            if len(made) == 4:
                raise Killed
            return row(*arguments)

        patch.setattr(module, "to_entry", killed)
        assert run(*command, *places("out"))[0] == -9
    reads = calls(Pipeline, "__call__")
    code, out, _ = run(*command, *places("out"))
    assert (code, out) == (0, whole) and len(reads) == 2
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    "arguments",
    [
        ["transcribe", "a.mp4", "--output", "file/out"],
        ["perceive", "a.png", "--labels", "cat", "--json", "file/a.json"],
        ["perceive", "a.png", "--labels", "cat", "--out", "file/a.png"],
        ["perceive", "a.mp4", "--labels", "cat", "--mot", "file/a.txt"],
        ["ask", "a.png", "What is it?", "--json", "file/a.json"],
        ["evaluate", "avsr", "--data", ".", "--csv", "file/a.csv"],
        ["evaluate", "avsr", "--data", ".", "--picture", "a.doc"],
        ["evaluate", "glee", "--protocol", "coco", "--data", ".", "--output", "file/out"],
        ["evaluate", "two-talkers", "--data", ".", "--output", "file/out"],
        ["prepare", "folder", ".", "file/out"],
        ["demo", "--output", "file/out"],
        ["convert", "glee", "a.mp4", "file/out"],
        ["synthesize", "--text", "hello", "-o", "file/a.mp4"],
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_loaded(run, monkeypatch, tmp_path, arguments):
    """`file` is a file; nobody loads a checkpoint."""
    from lookhear.commands import loading

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load_pipeline", None)
    (tmp_path / "file").write_text("")
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1, err
    assert ("file is not a folder" in err) or ("the ending must be one of" in err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "a.png", "file"]
