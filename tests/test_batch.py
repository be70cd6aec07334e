"""Batches on Ray Data: files of results that are whole or not there, workers that die, the results of one process."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import tempfile
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookhear.batch.objects import OBJECTS
from lookhear.batch.results import DIGEST, ResultFolder, as_digests
from lookhear.batch.speech import SPEECH, ReadClip, without_weights
from lookhear.batch.stages import Reader, Workers, check_columns, opened

FAST = {"num_beams": 1, "ctc_weight": 1.0}


def write_sound(path: Path, seconds: float = 0.4, seed: int = 0) -> Path:
    """A short file with a noise that no silence gate takes for silence."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).normal(0, 3000, int(16000 * seconds)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


# ---------------------------------------------------------------------------------------------------------- results


def table_of(**errors: str | None) -> pa.Table:
    rows = [{"id": name, "text": name.upper(), "error": error} for name, error in errors.items()]
    return pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in ("id", "text", "error")]))


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_results_are_the_record_of_what_is_done(tmp_path, prefix):
    folder = ResultFolder(prefix + str(tmp_path / "out"))
    folder.claim({"model": "a"})
    assert folder.finished().shape == (0,)
    assert folder.write(table_of(a=None, b="it is torn", c=None)).to_pylist() == [{"rows": 3}]
    folder.write(table_of(d=None))
    assert folder.counts() == (3, 1)
    names = sorted(path.name for path in (tmp_path / "out").rglob("*.parquet"))
    folder.write(table_of(a=None, b="it is torn", c=None))
    assert names == sorted(path.name for path in (tmp_path / "out").rglob("*.parquet")), "done twice, there once"
    assert folder.finished().tolist() == sorted(as_digests("abcd").tolist())
    results = pq.read_table(tmp_path / "out" / "results")
    assert results.column_names == ["id", "text"] and sorted(results["text"].to_pylist()) == ["A", "C", "D"]
    assert pq.read_table(tmp_path / "out" / "problems").to_pylist() == [{"id": "b", "error": "it is torn"}]


def test_half_and_torn_files_never_count(tmp_path):
    folder = ResultFolder(tmp_path)
    folder.claim({})
    folder.write(table_of(a=None))
    folder.write(table_of(b=None))
    torn = next(path for path in (tmp_path / "results").iterdir() if pq.read_table(path)["id"].to_pylist() == ["b"])
    torn.write_bytes(torn.read_bytes()[:-20])
    (tmp_path / "results" / ".x.parquet.1.part").write_bytes(b"half")
    assert folder.finished().tolist() == as_digests("a").tolist()
    assert folder.counts() == (1, 0)
    assert pq.read_table(tmp_path / "results")["id"].to_pylist() == ["a"], "readers see whole files only"
    assert {path.name for path in (tmp_path / "results").iterdir() if path.name[0] == "."} == {f".{torn.name}.damaged"}
    folder.write(table_of(b=None))
    assert len(folder.finished()) == 2


def test_results_of_other_settings_are_not_mixed(tmp_path):
    ResultFolder(tmp_path).claim({"model": "a", "beams": 1})
    ResultFolder(tmp_path).claim({"beams": 1, "model": "a"})
    with pytest.raises(ValueError, match=r"has results of other settings \(beams, dtype\): name another folder"):
        ResultFolder(tmp_path).claim({"model": "a", "beams": 2, "dtype": "auto"})
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`output` .* cannot be written"):
        ResultFolder(tmp_path / "file").claim({})


# ----------------------------------------------------------------------------------------------------------- stages


class Lister(Reader):
    schema = pa.schema([("id", pa.string()), ("path", pa.string())])

    def read(self, row):
        return {"path": row["path"]}


def test_what_is_done_is_passed_over(monkeypatch):
    from lookhear.batch import stages

    names = [f"clip {number}" for number in range(50)]
    monkeypatch.setattr(stages, "import_ray", lambda: pytest)  # whose `get` isn't there: nothing is fetched
    done = np.sort(as_digests(names[::3]))
    reader = Lister(None, None)
    reader._done = done
    rows = pa.table({"path": names, "other": list(range(50))})
    read = [table.to_pylist()[0] for table in reader(rows)]
    assert [row["id"] for row in read] == [name for place, name in enumerate(names) if place % 3]
    assert done.dtype == f"S{DIGEST}" and all(row["id"] == row["path"] for row in read)
    by_id = Lister("number", None)
    assert [table["id"][0].as_py() for table in by_id(pa.table({"number": [7, 8], "path": ["a", "b"]}))] == ["7", "8"]
    with pytest.raises(ValueError, match="A row has no 'path'"):
        list(Lister(None, None)(pa.table({"path": ["a", None]})))


@pytest.mark.parametrize(
    ("columns", "id_column", "message"),
    [
        (["id", "file"], None, "must have a column 'path' or 'bytes'; it has id, file"),
        (["path"], "name", "`id_column` is 'name', and `dataset` has path"),
        (["bytes"], None, "must have a column 'id' or 'path'"),
    ],
)
def test_missing_columns_are_named(columns, id_column, message):
    with pytest.raises(ValueError, match=message):
        check_columns(columns, id_column)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, None, 8), "`readers` must be a number of actors"),
        (((2, 1), 1, None, 8), "`readers` must be a number of actors"),
        ((None, 1.5, None, 8), "`models` must be a number of actors"),
        ((None, 1, 1.5, 8), "`num_gpus` must be a share of a GPU"),
        ((None, 1, -1, 8), "`num_gpus` must be a share of a GPU"),
        ((None, 1, None, 0), "`batch_size` must be a positive integer"),
    ],
)
def test_wrong_workers_are_one_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        Workers(*arguments)
    Workers((1, 4), 2, 0.25, 8)


def test_sources_are_opened_where_they_lie(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"sound")
    assert opened({"path": "a.wav"}) == "a.wav" and opened({"path": "https://host/a.wav"}) == "https://host/a.wav"
    named = opened({"path": "s3://bucket/a.wav", "bytes": b"sound"})
    assert named.read() == b"sound" and named.name == "s3://bucket/a.wav"
    assert isinstance(opened({"bytes": b"sound"}), io.BytesIO)
    for path, place in (("a.wav", "/folder/a.wav"), ("/a.wav", "/a.wav")):
        assert opened({"path": path}, "/folder") == place
    assert opened({"path": "https://host/a.wav"}, "/folder") == "https://host/a.wav"
    with pytest.raises(ValueError, match="unheard://a cannot be opened"):
        opened({"path": "unheard://a"})
    with pytest.raises(ValueError, match="'path' is empty"):
        opened({"path": None})


@pytest.mark.slow
def test_wrong_settings_are_one_line(tiny_checkpoint):
    for settings, message in (
        ({"num_beams": 0}, "`num_beams` must be a positive integer"),
        ({"unheard": 1}, "Unknown argument 'unheard'"),
        ({"on_piece": print}, "`on_piece` doesn't go with lookhear.batch"),
    ):
        with pytest.raises(ValueError, match=message):
            SPEECH.settled(str(tiny_checkpoint), settings)
    for settings, message in (
        ({}, "There is nothing to look for: pass `labels` or `expressions`"),
        ({"labels": ["cat"], "points": [[(1, 2)]]}, "`points` doesn't go with lookhear.batch"),
    ):
        with pytest.raises(ValueError, match=message):
            OBJECTS.settled(None, settings)
    with pytest.raises(ValueError, match="is of the kind 'avsr', and 'glee' is needed"):
        OBJECTS.settled(str(tiny_checkpoint), {"labels": ["cat"]})
    with pytest.raises(ValueError, match="`model` /nowhere/at/all cannot be loaded"):
        SPEECH.settled("/nowhere/at/all", {})


@pytest.mark.slow
def test_a_clip_that_was_read_elsewhere_is_read_alike(tiny_checkpoint, talking_clips):
    """Short and long, with lips and without; once pickled it is read as the file itself is."""
    import pickle

    from lookhear.commands.loading import load_pipeline

    asr = load_pipeline("audio-visual-speech-recognition", str(tiny_checkpoint), "cpu")
    clip = str(talking_clips / "0.mp4")
    for settings in ({}, {"chunk_length_s": 2.0}, {"modality": "audio"}):
        settings = {**FAST, **settings, "return_timestamps": "word"}
        with without_weights(str(tiny_checkpoint), settings).stream(clip, return_timestamps=False).source as stream:
            read = pickle.loads(pickle.dumps(ReadClip(stream, list(stream))))
        assert asr.attempt([read], **settings) == asr.attempt([clip], **settings), settings


@pytest.mark.slow
def test_what_the_actors_do_is_what_the_pipeline_does(monkeypatch, tiny_checkpoint, talking_clips, tmp_path):
    """Without Ray: files, content, damage, a clip that is too long for a reader, and an id that comes twice."""
    from lookhear.batch import speech
    from lookhear.commands.loading import load_pipeline
    from lookhear.processing.avsr import format_captions

    bad = tmp_path / "bad.wav"
    bad.write_text("this is no sound")
    paths = [str(talking_clips / "0.mp4"), str(bad), str(talking_clips / "2.wav"), str(talking_clips / "2.wav")]
    checkpoint, asr = str(tiny_checkpoint), load_pipeline("audio-visual-speech-recognition", str(tiny_checkpoint))
    settings = SPEECH.settled(checkpoint, FAST)
    assert settings == {**FAST, "return_timestamps": "word"}
    first, error, last = asr.attempt(paths[:3], **settings)
    expected = {
        paths[0]: (format_captions(first, "json"), None),
        paths[1]: (None, str(error)),
        paths[2]: (format_captions(last, "json"), None),
    }
    model = speech.SpeechModel(checkpoint, settings, "auto")
    content = [Path(path).read_bytes() for path in paths]
    for table in (pa.table({"path": paths}), pa.table({"path": paths, "bytes": content})):
        for longest in (600.0, 0.5):
            monkeypatch.setattr(speech, "LONGEST", longest)
            read = pa.concat_tables(speech.ClipReader(checkpoint, settings, None, None)(table))
            there = [row["clip"] is not None for row in read.to_pylist()]
            assert there == ([True, False, True, True] if longest == 600 else [False] * 4)
            said = model(read)
            assert said.schema.equals(speech.SAID)
            assert {row["id"]: (row["result"], row["error"]) for row in said.to_pylist()} == expected, longest
            assert len(said) == 3
    row = next(row for row in said.to_pylist() if row["id"] == paths[0])
    assert row["text"] == first["text"] and [word["text"] for word in row["words"]] == first["text"].split()


# -------------------------------------------------------------------------------------------------------------- Ray


@pytest.fixture(scope="module")
def ray():
    """Ray on this machine, with four CPUs to give away and little memory."""
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'lookhear[ray]'")
    folder = tempfile.mkdtemp(prefix="ray")  # a short path: sockets lie in it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        quiet = {"include_dashboard": False, "log_to_driver": False}
        ray.init(num_cpus=4, object_store_memory=200 << 20, _temp_dir=folder, **quiet)
        try:
            yield ray
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def dies_once(kind: type, output: Path, note: Path) -> type:
    """A class of actors, one of which is killed with its second table in hand; notes how many files there were."""

    class Mortal(kind):  # of this function, not of this file, which the actors don't have
        calls = 0

        def __call__(self, table):
            self.calls += 1
            if self.calls == 2:
                with contextlib.suppress(FileExistsError), note.open("x") as file:  # the others live
                    file.write(str(len(list(output.glob("results/*.parquet")))))
                    file.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(table)

    return Mortal


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_workers_one_of_which_dies_give_what_one_process_gives(
    ray, monkeypatch, tiny_checkpoint, talking_clips, tmp_path
):
    """As two shards do; and a run that is given again reads only what is missing, torn or damaged."""
    from lookhear import batch, cli
    from lookhear.batch import speech

    clips = tmp_path / "clips"
    for number in range(40):
        write_sound(clips / f"{number}.wav", 0.3 + 0.05 * (number % 5), number)
    for name in ("0.mp4", "1.mp4"):
        shutil.copy(talking_clips / name, clips / f"face{name}")
    for name in ("bad.wav", "worse.mp4"):
        (clips / name).write_text("this is no sound")
    command = ["transcribe", str(clips), "--model", str(tiny_checkpoint), "--format", "json", "--batch-size", "3"]
    command += ["--num-beams", "1", "--ctc-weight", "1", "--output"]
    assert cli.main([*command, str(tmp_path / "whole")]) == 2
    for shard in ("0/2", "1/2"):
        cli.main([*command, str(tmp_path / "shards"), "--shard", shard])

    paths = sorted(str(path) for path in clips.iterdir())
    dataset = ray.data.from_items([{"path": path} for path in paths])
    output = tmp_path / "ray"
    arguments = {"model": str(tiny_checkpoint), "readers": 2, "models": 2, "batch_size": 3, "rows_per_file": 3, **FAST}
    killed = [tmp_path / "reader", tmp_path / "model"]
    reader, model = (dies_once(kind, output, note) for kind, note in zip((SPEECH.reader, SPEECH.model), killed))
    with monkeypatch.context() as patch:
        patch.setattr(speech, "SPEECH", replace(SPEECH, reader=reader, model=model))
        summary = batch.transcribe(dataset, output, **arguments)
    assert all(note.exists() and int(note.read_text()) < 14 for note in killed), "in the middle"
    assert (summary.results, summary.problems) == (42, 2)

    def results() -> dict[str, str]:
        rows = pq.read_table(output / "results").to_pylist()
        assert len({row["id"] for row in rows}) == len(rows)
        for row in rows:
            whole = json.loads(row["result"])
            assert row["text"] == whole["text"] and len(row["words"]) == len(whole["chunks"])
        return {Path(row["id"]).stem: row["result"] for row in rows}

    of_ray = results()
    for folder in (tmp_path / "whole", tmp_path / "shards"):
        expected = {
            path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.json") if path.name[0] != "."
        }
        assert of_ray == expected, folder
    problems = {Path(row["id"]).name: row["error"] for row in pq.read_table(output / "problems").to_pylist()}
    listed = map(json.loads, (tmp_path / "whole" / "problems.jsonl").read_text().splitlines())
    assert problems == {Path(row["file"]).name: row["error"] for row in listed}

    files = sorted((output / "results").glob("*.parquet"))
    before = {path.name: path.stat().st_mtime_ns for path in files[2:]}
    missing = pq.read_table(files[0]).num_rows + pq.read_table(files[1]).num_rows
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:200])
    again = batch.transcribe(dataset, output, **arguments)
    assert again.new == missing and (again.results, again.problems) == (42, 2) and results() == of_ray
    assert {name: (output / "results" / name).stat().st_mtime_ns for name in before} == before
    with pytest.raises(ValueError, match=r"has results of other settings \(num_beams\)"):
        batch.transcribe(dataset, output, **{**arguments, "num_beams": 2})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_results_are_a_data_set_where_no_folder_is_named(ray, monkeypatch, tiny_checkpoint, tmp_path):
    """Files may come with their content, and paths may be relative."""
    from lookhear import batch

    for number in range(3):
        write_sound(tmp_path / f"{number}.wav", 0.4, number)
    content = ray.data.read_binary_files(str(tmp_path), include_paths=True)
    settings = {"model": str(tiny_checkpoint), "readers": 1, "batch_size": 2, **FAST}
    rows = batch.transcribe(content, **settings).take_all()
    assert len(rows) == 3 and all(row["error"] is None and row["duration"] == 0.4 for row in rows)
    assert {Path(row["id"]).name for row in rows} == {"0.wav", "1.wav", "2.wav"}
    lips = batch.transcribe(content, **settings, modality="visual").take_all()
    assert all(row["text"] is None and "there is no video" in row["error"] for row in lips)
    with pytest.raises(ValueError, match="must have a column 'path' or 'bytes'"):
        batch.transcribe(ray.data.from_items([{"file": "a.wav"}]), **settings)

    monkeypatch.chdir(tmp_path)  # the actors have another working directory
    settings["model"] = os.path.relpath(tiny_checkpoint)
    named = batch.transcribe(ray.data.from_items([{"path": "0.wav"}, {"path": "none.wav"}]), **settings).take_all()
    whole = {Path(row["id"]).name: row for row in rows}
    assert {row["id"]: row["text"] for row in named} == {"0.wav": whole["0.wav"]["text"], "none.wav": None}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pictures_and_videos_are_searched_as_in_one_process(ray, tiny_glee, tmp_path):
    import av
    from PIL import Image

    from lookhear import batch, cli
    from lookhear.training.glee.export import save_checkpoint

    seer = save_checkpoint(*tiny_glee, tmp_path / "seer")
    folder = tmp_path / "in"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(5):
        size = (48 + number, 64, 3)
        Image.fromarray(generator.integers(0, 255, size, dtype=np.uint8)).save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    with av.open(str(folder / "walk.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 60 * number, np.uint8))))
        file.mux(stream.encode())
    out = tmp_path / "out"
    command = ["perceive", str(folder), "--model", str(seer), "--labels", "cat", "--threshold", "0", "--top-k", "2"]
    command += ["--tracking", "minvis"]  # "memory" starts a track at 0.35 or more, which random weights may not give
    assert cli.main([*command, "--output", str(out)]) == 2
    dataset = ray.data.from_items([{"path": str(path)} for path in sorted(folder.iterdir())])
    settings = {"labels": ["cat"], "threshold": 0.0, "top_k": 2, "model": str(seer), "models": 2, "batch_size": 2}
    settings["tracking"] = "minvis"
    summary = batch.perceive(dataset, tmp_path / "ray", readers=1, **settings)
    assert (summary.results, summary.problems) == (6, 1)
    for row in pq.read_table(tmp_path / "ray" / "results").to_pylist():
        path = Path(row["id"])
        expected = (out / path.name).with_suffix(".jsonl" if path.suffix == ".mp4" else ".json").read_text()
        assert [json.loads(line) for line in row["result"].splitlines()] == [
            json.loads(line) for line in expected.splitlines()
        ]
        assert row["frames"] == (3 if path.suffix == ".mp4" else 1) and row["objects"]
        assert all((one["track_id"] is None) == (path.suffix == ".png") for one in row["objects"])
    assert batch.perceive(dataset, tmp_path / "ray", readers=1, **settings).new == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_corpus_is_prepared_as_by_one_process(ray, monkeypatch, talking_clips, tmp_path):
    from lookhear import batch
    from lookhear.training.avsr.prepare import prepare

    whole = prepare("folder", talking_clips, tmp_path / "whole", clips_per_shard=1, progress=False)
    monkeypatch.chdir(tmp_path)  # the actors have another working directory
    summary = batch.prepare("folder", os.path.relpath(talking_clips), "ray", clips_per_shard=1, readers=2)
    assert summary == whole and summary.shards == 3
    names = sorted(path.name for path in (tmp_path / "whole").glob("*.parquet"))
    for name in names:
        assert pq.read_table(tmp_path / "ray" / name).equals(pq.read_table(tmp_path / "whole" / name)), name
    (tmp_path / "ray" / names[0]).unlink()
    before = (tmp_path / "ray" / names[1]).stat().st_mtime_ns
    assert batch.prepare("folder", talking_clips, tmp_path / "ray", clips_per_shard=1, readers=2) == whole
    assert (tmp_path / "ray" / names[1]).stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_guide(ray, repository, talking_clips, tmp_path, monkeypatch, capsys):
    """Its Python as it stands, and the same again, which finds all done."""
    text = (repository / "docs" / "guides" / "captions.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S) if "import batch" in block]
    shutil.copytree(talking_clips, tmp_path / "my_videos")
    (tmp_path / "model_cards").symlink_to(repository / "model_cards")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray, "init", lambda: None)  # it runs already
    exec(code, {})
    assert "2 results, 0 problems; 2 of them new" in capsys.readouterr().out
    exec(code, {})
    assert "2 results, 0 problems; 0 of them new" in capsys.readouterr().out
