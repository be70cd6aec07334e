"""Tables from their corpora to their figures, on small made-up corpora of the published layouts."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import yaml

from lookhear import cli
from lookhear.reproduction import Places, read_papers
from lookhear.reproduction.results import fill_table, to_markdown
from lookhear.training.avsr.trainer import AvsrTrainer

from .conftest import LIPS, TINY


@pytest.fixture
def run(capsys):
    """Runs `lookhear reproduce` in this process: (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        try:
            code = cli.main(["reproduce", *(str(argument) for argument in arguments)])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def own_tables(tmp_path) -> Path:
    """A file with a table of two rows, one of others, and one that needs a preparation, two trainings and a figure."""
    (tmp_path / "first.yaml").write_text(
        yaml.safe_dump(
            {
                "extends": "tables/table6_stft.yaml",
                "data": {"train": ["prepared/val"], "validation": ["prepared/val"], "word_window": None},
            }
        )
    )
    copied = {"checkpoint": "runs/first", "modules": ["model.encoder.audio_encoder"]}
    second = {"extends": "first.yaml", "model": {"initialise": [copied]}}
    (tmp_path / "second.yaml").write_text(yaml.safe_dump(second))
    measure = {"kind": "speech", "data": "test", "snr": ["clean", 0]}
    columns = {name: {"measure": "m", "figure": f"wer {name}", "better": "lower"} for name in ("clean", "babble 0")}
    rows = [
        {"name": "others", "published": {"clean": 50.0}, "source": "somewhere"},
        {"name": "first", "model": "first", "published": {"clean": 40.0}},
        {"name": "second", "model": "second", "change": {"clean": 1.5}},
    ]
    content = {
        "title": "A paper",
        "link": "https://example.org",
        "sources": {"lrs2": {"what": "LRS2"}},
        "preparations": {
            "val": {"source": "lrs2", "corpus": "lrs2", "split": "val"},
            "test": {"source": "lrs2", "corpus": "lrs2", "split": "test"},
        },
        "trainings": {name: {"recipe": str(tmp_path / f"{name}.yaml")} for name in ("first", "second")},
        "tables": {"mine": {"title": "Mine", "measures": {"m": measure}, "columns": columns, "rows": rows}},
    }
    path = tmp_path / "tables.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


class Stopped(Exception):
    pass


def test_stages_run_once_in_their_order(own_tables, tmp_path, monkeypatch, capsys):
    """With stages that only say that they ran: a failed one is run again, and a changed one is refused."""
    from lookhear.reproduction import actions, reproduce

    ran: list[tuple[str, str]] = []

    def stand_in(kind):
        def act(stage, *_):
            ran.append((kind, stage.name))
            if ran[-1] == ("train", "second") and ran.count(ran[-1]) == 1:
                raise Stopped
            values = {"wer clean": 0.5 if stage.settings.get("model") == "first" else 0.25, "wer babble 0": math.nan}
            return actions.Figures(values, {"wer clean": [0.2, 0.6], "wer babble 0": [math.nan] * 2}, "2 clips")

        return act

    for kind in ("prepare", "train", "measure"):
        monkeypatch.setattr(actions, kind, stand_in(kind))
    (paper,) = read_papers(own_tables)
    (tmp_path / "corpora" / "lrs2").mkdir(parents=True)
    places = Places(tmp_path / "out", tmp_path / "corpora")
    with pytest.raises(Stopped):
        reproduce("mine", paper, (), places)
    first = [("prepare", "val"), ("prepare", "test"), ("train", "first"), ("train", "second")]
    assert ran == first
    filled, files = reproduce("mine", paper, ("prepare.num_proc=2",), places)
    assert ran[:5] == [*first, ("train", "second")] and [kind for kind, _ in ran[5:]] == ["measure"] * 2
    cells = [row["cells"] for row in filled["rows"]]
    assert [each["clean"]["measured"] for each in cells] == [None, 50.0, 25.0] and cells[2]["clean"]["change"] == 25.0
    assert cells[1]["clean"]["interval"] == [20.0, 60.0] and cells[1]["babble 0"]["interval"] is None
    assert json.loads(files[1].read_text()) == filled and [file.suffix for file in files] == [".md", ".json"]
    assert reproduce("mine", paper, (), places) == (filled, files) and len(ran) == 7
    with pytest.raises(ValueError, match="--out: stage first was finished with other settings"):
        reproduce("mine", paper, ("first:training.seed=1",), places)
    with pytest.raises(ValueError, match="--out: stage test was finished with other settings"):
        reproduce("mine", paper, ("test:prepare.roi_size=24",), places)
    assert len(ran) == 7 and capsys.readouterr().out == ""


@pytest.mark.slow
def test_an_interrupted_table_goes_on_where_it_stopped(run, own_tables, lrs2, upper_left_crops, tmp_path, monkeypatch):
    """Stopped in the second training, after a checkpoint; what is finished stays; the figures are the same."""
    settings = [*TINY, "training.max_steps=3", "training.save_total_limit=1"]
    common = ("mine", "--tables", own_tables, "--data", f"lrs2={lrs2}")
    code, out, err = run(*common, "--out", tmp_path / "straight", *settings)
    assert code == 0, err
    assert out.startswith("## mine: Mine\n\n|  | clean | paper: clean | change | paper: change | babble 0 |\n")
    assert [line.split(" ", 2)[1:] for line in err.splitlines() if line.startswith("[")] == [
        ["prepare", "val"], ["prepare", "test"], ["train", "first"], ["train", "second"],
        *(["measure", path.stem] for path in sorted((tmp_path / "straight" / "steps").glob("*-m-*.json"))),
    ]  # fmt: skip
    steps = []
    original = AvsrTrainer.training_step

    def training_step(self, *args, **kwargs):
        steps.append((Path(self.args.output_dir).name, self.state.global_step))
        if steps == [("first", 0), ("first", 1), ("first", 2), ("second", 0), ("second", 1), ("second", 2)]:
            raise Stopped
        return original(self, *args, **kwargs)

    monkeypatch.setattr(AvsrTrainer, "training_step", training_step)
    code, _, err = run(*common, "--out", tmp_path / "broken", *settings)
    assert code == 1 and "Stopped" in err.splitlines()[-1]
    record = json.loads((tmp_path / "broken" / "steps" / "second.json").read_text())
    assert record["state"] == "begun" and not (tmp_path / "broken" / "tables").exists()
    monkeypatch.setattr("lookhear.training.avsr.prepare.prepare_clip", None)  # whoever prepares again, fails
    code, again, err = run(*common, "--out", tmp_path / "broken", *settings)
    assert code == 0, err
    assert again == out and steps[6:] == [("second", 2)]
    finished = ("[1/6] prepare val", "[2/6] prepare test", "[3/6] train first")
    assert [line for line in err.splitlines() if "(finished)" in line] == [f"{stage} (finished)" for stage in finished]
    table = json.loads((tmp_path / "broken" / "tables" / "mine.json").read_text())
    assert table == json.loads((tmp_path / "straight" / "tables" / "mine.json").read_text())
    assert (tmp_path / "broken" / "tables" / "mine.md").read_text() == out
    others, first, second = (row["cells"] for row in table["rows"])
    assert others["clean"]["measured"] is None and others["clean"]["published"] == 50.0
    assert first["clean"]["measured"] >= 0 and first["clean"]["interval"] and first["clean"]["change"] is None
    assert second["clean"]["change"] == pytest.approx(first["clean"]["measured"] - second["clean"]["measured"])
    assert not list((tmp_path / "broken").rglob("*.part*")) and not list((tmp_path / "broken").rglob("*.tmp"))
    monkeypatch.setattr(AvsrTrainer, "training_step", None)
    assert run(*common, "--out", tmp_path / "broken", *settings)[:2] == (0, out)  # all is there
    code, _, err = run(*common, "--out", tmp_path / "broken", *settings, "first:training.learning_rate=1e-3")
    assert code == 2 and "--out: stage first was finished with other settings" in err and err.count("\n") == 1


def test_what_is_missing_is_named_before_anything_is_done(run, lrs2, tmp_path):
    code, out, err = run("table3", "--data", tmp_path / "corpora", "--data", f"lrs2={lrs2}", "--out", tmp_path / "out")
    assert (code, out) == (2, "") and err.count("\n") == 1 and not (tmp_path / "out").exists()
    assert f"missing: lrw (LRW, as published: lipread_mp4/) at {tmp_path}/corpora/lrw; moco_v2" in err
    assert "--data lrw=PATH" in err and "lrs2 (" not in err
    for arguments, message in (
        ((), "needs the name of a table"),
        (("table99",), "table 'table99' is unknown; choose one of table3"),
        (("table6", "--data", "a", "--data", "b"), "--data names two folders, a and b"),
        (("table6", "--model", "glee-lite"), "--model glee-lite must read STAGE=MODEL"),
        (("table6", "--accelerate", "nowhere.yaml"), "--accelerate nowhere.yaml is not a file"),
        (("table6", "--out", tmp_path, "heat=3"), "setting 'heat=3' must read"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_the_dry_run_needs_no_data(run, tmp_path):
    code, out, err = run("--dry-run", "table6_stft:training.max_steps=36")
    assert code == 2 and "is for none of the stages" in err  # of table 3
    code, out, err = run("table6", "--out", tmp_path / "out", "--dry-run", "training.max_steps=3600")
    assert code == 0 and not (tmp_path / "out").exists()
    assert "table6_stft" in out and "3600 steps on 4 GPUs" in out and "lrs2 (not there: data/lrs2)" in out
    assert "Estimates: " in out


def test_a_figure_that_a_measurement_lacks_is_an_error_and_a_server_is_not(own_tables):
    (paper,) = read_papers(own_tables)
    table = paper.tables["mine"]
    from lookhear.reproduction.stages import measure_stage

    name = measure_stage(table, "m", "first")
    figures = {
        "values": {"wer clean": 0.125, "wer babble 0": None},
        "intervals": {"wer clean": [0.1, 0.2]},
        "note": "8 clips",
    }
    filled = fill_table("mine", paper, table, {name: {"figures": figures}})
    text = to_markdown(filled)
    assert "| first | 12.5 (10.0 to 20.0) | 40.0 | – | – | – |" in text and "Measured: 8 clips." in text
    assert "| others | – | 50.0 | – | – | – |" in text and "- others: somewhere." in text
    del figures["values"]["wer clean"]
    with pytest.raises(ValueError, match="column 'clean': the measurement has no 'wer clean'; it has wer babble 0"):
        fill_table("mine", paper, table, {name: {"figures": figures}})
    figures["values"] = {}  # a server measures
    assert (
        fill_table("mine", paper, table, {name: {"figures": figures}})["rows"][1]["cells"]["clean"]["note"]
        == "8 clips"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table5", "table6", "table7"])
def test_a_table_of_the_speech_paper(name, run, sources, upper_left_crops, tmp_path):
    code, out, err = run(name, *sources, "--out", tmp_path, *TINY, *(LIPS if name != "table6" else ()))
    assert code == 0, err
    table = json.loads((tmp_path / "tables" / f"{name}.json").read_text())
    heading = table["columns"][0]
    assert all(row["cells"][heading]["measured"] is not None for row in table["rows"])
    assert {path.stem for path in (tmp_path / "recipes").glob(f"{name}_*.yaml")} == {
        row["model"] for row in table["rows"]
    }
    assert out == (tmp_path / "tables" / f"{name}.md").read_text()


def fresh_trainings(err: str) -> list[str]:
    """The trainings that a run has run, and not found finished."""
    return re.findall(r"^\[\d+/\d+\] train (\w+)$", err, re.MULTILINE)


@pytest.mark.slow
def test_tables_share_what_they_have_in_common(run, sources, upper_left_crops, tmp_path):
    """Table 3 trains everything; tables 8 and 9 and figure 3 measure it, and train the two models of 28 hours."""
    arguments = (*sources, "--out", tmp_path, *TINY)
    code, out, err = run("table3", *arguments, *LIPS)
    assert code == 0, err
    frozen = json.loads((tmp_path / "runs" / "table3_audiovisual" / "config.json").read_text())
    assert frozen["audio_config"]["encoder_config"]["hidden_size"] == 72  # of the checkpoint that it copies
    assert frozen["visual_config"]["depths"] == [1, 1, 1, 1]
    stored = tmp_path / "cache" / "table3_audiovisual"
    assert {path.parent.name for path in stored.glob("*/*.parquet")} == {"train", "validation"}
    for name in ("table8", "figure3"):
        code, out, err = run(name, *arguments, *LIPS)
        assert code == 0 and fresh_trainings(err) == [], err
        table = json.loads((tmp_path / "tables" / f"{name}.json").read_text())
        assert [len(row["cells"]) for row in table["rows"]] == [len(table["columns"])] * 2
        assert (tmp_path / "tables" / f"{name}.png").stat().st_size > 1000
    code, out, err = run("table9", *arguments, *LIPS)
    assert code == 0 and fresh_trainings(err) == ["table9_audio_28h", "table9_visual_28h"], err
    assert yaml.safe_load((tmp_path / "recipes" / "table9_audio_28h.yaml").read_text())["data"]["train"] == [
        str(tmp_path / "prepared" / "lrs2_train")
    ]


@pytest.mark.slow
def test_a_launcher_trains_and_its_failure_is_one_line(run, own_tables, lrs2, upper_left_crops, tmp_path, repository):
    common = ("mine", "--tables", own_tables, "--data", f"lrs2={lrs2}")
    launcher = repository / "training" / "accelerate" / "one_cpu.yaml"
    arguments = (*common, "--out", tmp_path / "out", "--accelerate", launcher, *TINY)
    code, _, err = run(*arguments, "second:training.output_dirs=x")
    assert code == 2 and "training second ended with exit code" in err.splitlines()[-1]
    (tmp_path / "out" / "steps" / "second.json").unlink()
    code, out, err = run(*arguments)
    assert code == 0 and "| second |" in out, err


def test_places_replace_sources_and_models(tmp_path):
    from lookhear.reproduction.places import located, references

    (paper,) = (paper for paper in read_papers() if "table6" in paper.tables)
    (tmp_path / "wav2vec2-large").mkdir()
    places = Places(Path("out"), tmp_path, {"lrs2": Path("/other/lrs2")}, {"table7_moco": "org/lips"})
    content = {
        "a": ["prepared/lrs2_val", "runs/table7_moco", "runs/table6_stft/sub", "data/lrs2/x", "data/lrw"],
        "b": {"c": "facebook/wav2vec2-large", "d": "facebook/wav2vec2-large-lv60", "e": "runs", "f": 3},
    }
    assert located(content, places, paper) == {
        "a": ["out/prepared/lrs2_val", "org/lips", "out/runs/table6_stft/sub", "/other/lrs2/x", f"{tmp_path}/lrw"],
        "b": {"c": f"{tmp_path}/wav2vec2-large", "d": "facebook/wav2vec2-large-lv60", "e": "runs", "f": 3},
    }
    assert references(content) == [
        ("prepared", "lrs2_val"), ("runs", "table7_moco"), ("runs", "table6_stft"), ("data", "lrs2"), ("data", "lrw"),
    ]  # fmt: skip
