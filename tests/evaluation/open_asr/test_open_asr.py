"""The Open ASR Leaderboard's terms on made-up data sets of its form."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import soundfile

from lookhear.evaluation.open_asr import __main__ as command
from lookhear.evaluation.open_asr.manifests import Reading, manifest_path, read_manifest, score, to_markdown
from lookhear.evaluation.open_asr.running import run_open_asr
from lookhear.evaluation.open_asr.samples import load_normaliser, stream_samples

SAID = [
    "Mr. Brown paid twenty dollars, um.",
    "ignore_time_segment_in_scoring",
    "The colour is grey!",
    " ",
    "It's fine",
]
NORMAL = ["mister brown paid $20", "the color is gray", "it is fine"]
CARD = """---
configs:
- config_name: librispeech
  data_files: [{split: test.clean, path: librispeech/clean.parquet}]
- config_name: spgispeech
  data_files: [{split: test, path: spgispeech/test.parquet}]
- config_name: silent
  data_files: [{split: test, path: silent/test.parquet}]
- config_name: wordless
  data_files: [{split: test, path: wordless/test.parquet}]
---
"""


def sound(seconds: float, rate: int) -> bytes:
    """A FLAC file of noise."""
    wave = 0.1 * np.random.default_rng(0).standard_normal(int(seconds * rate))
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format="FLAC")
    return buffer.getvalue()


def write(path, texts: list[str], column: str = "text", audio=None) -> None:
    from datasets import Audio, Dataset

    path.parent.mkdir(parents=True, exist_ok=True)
    sounds = [{"bytes": sound(1.0 + place / 2, 8000 * (1 + place % 3)), "path": None} for place in range(len(texts))]
    rows = Dataset.from_dict({"audio": audio or sounds, column: texts}).cast_column("audio", Audio(decode=False))
    rows.to_parquet(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A repository of the leaderboard's form: a config for each corpus, Parquet with sound files, texts as spoken."""
    folder = tmp_path_factory.mktemp("esb")
    (folder / "README.md").write_text(CARD)
    write(folder / "librispeech" / "clean.parquet", [text.replace("_", " ") for text in SAID])
    write(folder / "spgispeech" / "test.parquet", SAID[:1] + SAID[2:3], "sentence")
    write(folder / "silent" / "test.parquet", ["one"], audio=[{"bytes": b"no sound", "path": None}])
    write(folder / "wordless" / "test.parquet", ["one"], "words")
    return folder


@pytest.fixture(scope="module")
def normalise(tmp_path_factory):
    spelling = tmp_path_factory.mktemp("spelling") / "normalizer.json"
    spelling.write_text(json.dumps({"colour": "color", "grey": "gray"}))
    return load_normaliser(spelling)


class Asr:
    """A recogniser that answers by the length of the sound, and records what it was given."""

    def __init__(self, answers: dict[float, str]):
        self.answers, self.calls = answers, []

    def __call__(self, inputs, batch_size, modality):
        assert batch_size == len(inputs) and modality == "audio"
        assert all(one["sampling_rate"] == 16000 and one["audio"].dtype == np.float32 for one in inputs)
        lengths = [len(one["audio"]) / 16000 for one in inputs]
        self.calls.append(lengths)
        return [{"text": self.answers[round(length, 2)]} for length in lengths]


def test_samples_have_sound_at_16_khz_and_the_leaderboards_texts(data, normalise):
    samples = list(stream_samples(str(data), "librispeech:test.clean", normalise))
    assert [sample.text for sample in samples] == NORMAL
    # the second and the fourth are not scored; files of 8, 24 and 16 kHz
    assert [sample.seconds for sample in samples] == pytest.approx([1.0, 2.0, 3.0], abs=0.01)
    first = stream_samples(str(data), "librispeech:test.clean", normalise, limit=3)
    assert [sample.text for sample in first] == NORMAL[:2]
    assert [one.text for one in stream_samples(str(data), "spgispeech:test", normalise)] == NORMAL[:2]


def test_a_run_is_timed_scored_and_written_as_the_leaderboard_does(data, normalise, tmp_path, monkeypatch):
    asr = Asr({1.0: "Mister Brown paid $20", 2.0: "the color was grey", 3.0: "it is very fine"})
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("lookhear.evaluation.open_asr.running.time.perf_counter", lambda: next(clock))
    settings = {"model": "org/model", "repository": str(data), "normalise": normalise, "batch_size": 2}
    (one,) = run_open_asr(asr, ["librispeech:test.clean"], tmp_path, warm_up=1, **settings)
    assert [len(call) for call in asr.calls] == [2, 2, 1]  # the first one to warm up
    # 4 + 4 + 3 words; "was" for "is", and "very" too many; two batches of 4 seconds for 6 seconds of sound
    assert one.words.errors.tolist() == [0, 1, 1] and one.words.lengths.tolist() == [4, 4, 3]
    assert one.words.rate == pytest.approx(2 / 11) and one.rtfx == pytest.approx(6 / 8, rel=0.01)
    path = manifest_path(tmp_path, "org/model", str(data), "librispeech:test.clean")
    flat = str(data).strip("/").replace("/", "-")
    assert path.name == f"MODEL_org-model_DATASET_{flat}_librispeech_test.clean.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [list(line) for line in lines] == [["audio_filepath", "duration", "time", "text", "pred_text"]] * 3
    assert lines[1]["pred_text"] == "the color was gray" and [line["time"] for line in lines] == [2.0, 2.0, 4.0]
    assert [line["audio_filepath"] for line in lines] == ["sample_0", "sample_1", "sample_2"]
    (again,) = run_open_asr(asr, ["librispeech:test.clean"], tmp_path, **settings)
    assert len(asr.calls) == 3 and again.words.errors.tolist() == [0, 1, 1]  # what is there is not read again


def test_the_table_has_the_leaderboards_means():
    short = score("a:test", [Reading("one two", "one", 2.0, 1.0)])
    long = score("b:test", [Reading("one", "one", 8.0, 1.0), Reading("two", "", 2.0, 4.0)])
    lines = to_markdown([short, long]).splitlines()
    assert lines[2].startswith("| a:test | 50.00 (50.00 to 50.00) | 2.00 | 1 |")
    assert lines[3].startswith("| b:test | 50.00 (0.00 to 100.00) | 2.00 | 2 |")
    assert lines[4] == "| mean | 50.00 | 2.00 | 3 | 0.00 |"
    assert math.isnan(score("c:test", [Reading("one", "one", 1.0, 0.0)]).rtfx)
    with pytest.raises(ValueError, match="nothing to score"):
        score("d:test", [])


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("librispeech", "has to be CONFIG:SPLIT"),
        ("nowhere:test", "--dataset nowhere:test of .* cannot be read"),
        ("librispeech:test.noisy", "--dataset librispeech:test.noisy of .* cannot be read"),
        ("silent:test", "sample 0 of silent:test cannot be read"),
        ("wordless:test", "no column of texts"),
    ],
)
def test_bad_data_are_one_line(data, normalise, dataset, message):
    with pytest.raises(ValueError, match=message) as raised:
        list(stream_samples(str(data), dataset, normalise))
    assert "\n" not in str(raised.value)


def test_a_broken_result_file_says_what_to_do(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ValueError, match="line 1 is no result; remove the file"):
        read_manifest(tmp_path / "a.jsonl")


def test_bad_arguments_are_one_line(data, normalise, tmp_path, capsys):
    settings = {"model": "m", "repository": str(data), "normalise": normalise}
    with pytest.raises(ValueError, match="batch_size has to be at least 1, not 0"):
        run_open_asr(Asr({}), ["librispeech:test.clean"], tmp_path, batch_size=0, **settings)
    with pytest.raises(ValueError, match="datasets is empty"):
        run_open_asr(Asr({}), [], tmp_path, **settings)
    (tmp_path / "list.json").write_text("[1]")
    assert command.main(["--model", "m", "--spelling", str(tmp_path / "list.json")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "has to map words to words" in error


def test_the_command_measures_a_checkpoint(data, tiny_checkpoint, tmp_path, capsys):
    arguments = ["--model", str(tiny_checkpoint), "--name", "org/tiny", "--repository", str(data), "--device", "cpu"]
    arguments += ["--dataset", "spgispeech:test", "--spelling", "none", "--output", str(tmp_path)]
    assert command.main(arguments) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("| data set | WER %") and out[2].startswith("| spgispeech:test | ")
    assert [path.name[:20] for path in tmp_path.iterdir()] == ["MODEL_org-tiny_DATAS"]
