"""The papers' tables: complete, of names that exist, with the figures that the text states; what they take."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import yaml

from lookhear.evaluation.protocols.odinw import ODINW_13
from lookhear.evaluation.protocols.running import PROTOCOLS
from lookhear.reproduction import Places, describe_plan, find_paper, read_papers
from lookhear.reproduction.definitions import Measure
from lookhear.reproduction.estimate import cost, training_steps
from lookhear.reproduction.places import located
from lookhear.reproduction.stages import plan
from lookhear.training.avsr.corpora import READERS
from lookhear.training.glee.fine_tuning.few_shot import ODINW_SEEDS, ODINW_SHOTS

PAPERS = read_papers()
NAMES = [name for paper in PAPERS for name in paper.tables]
PLACES = Places(Path("out"), Path("nowhere"))
SPEECH = {"table3", "table5", "table6", "table7", "table8", "table9", "figure3"}
GLEE = {f"glee-{name}" for name in ("table1", "table2", "table3", "table4", "table5", "figure4", "figure5", "video")}


@functools.cache
def named_plan(name: str):
    return staged(name)


def staged(name: str, *settings: str, places: Places = PLACES):
    paper = find_paper(name, PAPERS)
    return plan(paper, paper.tables[name], settings, places)


def test_every_table_and_figure_of_both_papers_is_there():
    assert set(NAMES) == SPEECH | GLEE | {"odinw-few-shot"} and len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_a_dry_run_lists_stages_data_hours_and_memory(name):
    paper = find_paper(name, PAPERS)
    text = describe_plan(name, paper, (), PLACES)
    stages = named_plan(name)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[2 : 2 + len(stages)]] == [stage.name for stage in stages]
    kinds = [stage.kind for stage in stages]
    assert kinds == sorted(kinds, key=["prepare", "train", "measure"].index)
    for number, stage in enumerate(stages):
        assert set(stage.needs) <= {other.name for other in stages[:number]}
        assert " " not in stage.name and all(f"  data: {source} (" in text for source in stage.sources)
        if stage.kind == "train":
            assert f"{training_steps(stage, paper)} steps on " in lines[2 + number]
    assert any(line.startswith("  measure: ") for line in lines) and "not known" not in text


def test_measurements_name_what_exists():
    for paper in PAPERS:
        assert {preparation.corpus for preparation in paper.preparations.values()} <= set(READERS)
        for table in paper.tables.values():
            for measure in table.measures.values():
                assert measure.protocol is None or measure.protocol in PROTOCOLS
                assert (measure.protocol is None) == (measure.kind in ("speech", "words", "few-shot"))
    few = find_paper("odinw-few-shot", PAPERS).tables["odinw-few-shot"].measures
    shots = [measure.shots for measure in few.values() if measure.kind == "few-shot"]
    assert shots == [*ODINW_SHOTS, None]
    assert all(tuple(one.seeds) == ODINW_SEEDS for one in few.values() if one.kind == "few-shot")
    thirteen = find_paper("glee-table3", PAPERS).tables["glee-table3"].columns
    assert list(thirteen) == ["mean", *ODINW_13]


def test_published_figures_agree_with_the_differences_that_the_text_states():
    """Each figure that follows from another: next row = row before, minus what it is better by."""
    (paper,) = (paper for paper in PAPERS if "table6" in paper.tables)
    for name in ("table6", "table7"):
        rows = paper.tables[name].rows
        for before, row in zip(rows[:-1], rows[1:], strict=True):
            assert row.published["WER"] == pytest.approx(before.published["WER"] - row.change["WER"])
    of_model = {}
    for table in paper.tables.values():
        for row in table.rows:
            if row.model is not None and "WER" in row.published:
                assert of_model.setdefault(row.model, row.published["WER"]) == row.published["WER"]
            assert not (row.published or row.change) or row.source
    stated = {"table6_hybrid": 2.7, "table7_moco": 43.2, "table3_audiovisual": 2.6, "table9_audio_28h": 3.4}
    assert of_model.items() >= stated.items()


def test_the_last_stage_computes_its_frozen_parts_once():
    """By its recipe, below the output folder; the dry run says so, of no other training, and counts it."""
    paper = find_paper("table3", PAPERS)
    lines = describe_plan("table3", paper, (), PLACES).splitlines()
    (line,) = (line for line in lines if "frozen parts computed once" in line)
    assert line.split()[:2] == ["table3_audiovisual", "train"]
    stage = next(stage for stage in named_plan("table3") if stage.name == "table3_audiovisual")
    stored = located(stage.content, PLACES, paper)["data"]["cache_features"]
    assert stored == str(Path("out", "cache", "table3_audiovisual"))
    assert cost(stage, paper).hours == pytest.approx(400000 * 4 * 0.04 / 3600 + 0.4)
    computed = describe_plan("table3", paper, ("table3_*:data.cache_features=null",), PLACES)
    assert "computed once" not in computed


def test_hours_are_steps_times_batches_times_gpus():
    paper = find_paper("table5", PAPERS)
    stages = {stage.name: stage for stage in staged("table5", "table5_moco:training.max_steps=3600")}
    # 488766 clips in batches of 64 on 4 GPUs: 1910 steps an epoch, 40 epochs; 0.29 s each
    assert training_steps(stages["table5_resnet50"], paper) == 40 * 1910
    assert cost(stages["table5_resnet50"], paper).hours == pytest.approx(40 * 1910 * 4 * 0.29 / 3600)
    assert cost(stages["table5_moco"], paper).hours == pytest.approx(4 * 0.29)
    assert cost(stages["lrw_val"], paper).hours == pytest.approx(1)  # eight hours of video
    pro = {stage.name: stage for stage in staged("glee-figure5")}["glee_stage2_pro"]
    # 500000 steps of 8 batches on each of 8 GPUs
    assert cost(pro, find_paper("glee-figure5", PAPERS)).hours == pytest.approx(500000 * 8 * 8 * 1.9 / 3600)


def test_a_given_model_takes_the_place_of_its_training_and_of_what_that_needs():
    stages = staged("table3", places=Places(Path("out"), models={"table7_moco": "mine/lips"}))
    names = [stage.name for stage in stages]
    assert "lrw_train" not in names and "table5_transformer" not in names and "table7_moco" in names
    assert next(stage for stage in stages if stage.name == "table7_moco").needs == ()
    stages = staged(
        "glee-table1", places=Places(Path("out"), models={f"glee_stage2_{s}": s for s in ("lite", "plus", "pro")})
    )
    assert [stage.kind for stage in stages] == ["train"] * 3 + ["measure"] * 18


def test_settings_are_for_the_stages_that_take_them():
    stages = {stage.name: stage for stage in staged(
        "table6", "training.max_steps=3", "table6_stft:training.max_steps=4", "table6_l*:model.config.dropout=0.3",
        "prepare.num_proc=2", "lrs2_val:prepare.clips_per_shard=7", "measure.num_beams=1", "evaluation.num_beams=3",
    )}  # fmt: skip
    steps = [stages[f"table6_{name}"].content["training"]["max_steps"] for name in ("stft", "hybrid")]
    assert steps == [4, 3] and stages["table6_hybrid"].content["evaluation"] == {"num_beams": 3}
    dropout = [stages[f"table6_{name}"].content["model"]["config"].get("dropout") for name in ("librilight", "hybrid")]
    assert dropout == [0.3, None]
    assert stages["lrs2_val"].settings == {"num_proc": 2, "clips_per_shard": 7}
    specs = [stage.spec for stage in stages.values() if isinstance(stage.spec, Measure)]
    assert [spec.num_beams for spec in specs] == [1] * 4
    keys = {name: stage.key([]) for name, stage in stages.items()}
    other = {stage.name: stage.key([]) for stage in staged("table6", "prepare.num_proc=3", "measure.num_beams=1")}
    assert keys["lrs2_test"] == other["lrs2_test"] and keys["lrs2_val"] != other["lrs2_val"]  # speed is no difference
    assert keys["table6_stft"] != other["table6_stft"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["max_steps=3"], "must read section.field=value or STAGE:section.field=value"),
        (["training.max_steps"], "must read section.field=value"),
        ([":training.max_steps=3"], "must read section.field=value"),
        (["table5_moco:training.max_steps=3"], "is for none of the stages lrs2_pretrain"),
        (["oven.heat=3"], "is for none of the stages"),
        (["prepare.heat=3"], "prepare has num_proc"),
        (["measure.beams=3"], "measure has no field 'beams'"),
        (["measure.num_beams=0"], "measure.num_beams must be at least 1, not 0"),
        (["data.max_frames=0"], "table6_stft: data.max_frames must be at least 1, not 0"),
        (["model.config.hidden_sise=8"], "did you mean 'hidden_size'?"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_with_one_line(settings, message):
    with pytest.raises(ValueError) as refused:
        staged("table6", *settings)
    assert message in str(refused.value) and "\n" not in str(refused.value)


WRONG = {
    "tables: {t: {rows: [{model: m}]}}": "tables.t.rows[0].model names 'm'; there are none",
    "tables: {t: {columns: {c: {measure: x}}}}": "tables.t.columns.c.measure names 'x'",
    "tables: {t: {rows: [{published: {c: 1}}]}}": "tables.t.rows[0], column names 'c'",
    "tables: {t: {measures: {x: {data: d}}}}": "tables.t.measures.x.data names 'd'",
    "{sources: {d: {}}, tables: {t: {measures: {x: {kind: objects, data: d}}}}}": "needs a protocol",
    "preparations: {p: {source: s}}": "preparations.p.source names 's'",
    "tables: {t: {row: []}}": "tables.t has no field 'row'",
    "tables: {t: {rows: [{published: {c: high}}]}}": "published.c must be a number, not 'high'",
    "papers: []": "recipe has no field 'papers'",
}


@pytest.mark.parametrize("content", WRONG)
def test_a_file_of_tables_that_is_wrong_is_refused_with_one_line(content, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ValueError) as refused:
        read_papers(path)
    assert (
        WRONG[content] in str(refused.value) and "\n" not in str(refused.value) and "mine.yaml" in str(refused.value)
    )


def test_what_is_unknown_is_named_with_what_is_known(tmp_path):
    with pytest.raises(ValueError, match="table 'table4' is unknown; choose one of table3, table5"):
        find_paper("table4", PAPERS)
    with pytest.raises(ValueError, match="is not a file"):
        read_papers(tmp_path / "nowhere.yaml")
    paper = find_paper("table6", PAPERS)
    with pytest.raises(ValueError, match="--data lrs3=… is unknown; there are lrs2, lrw"):
        Places(tmp_path, sources={"lrs3": tmp_path}).check(paper)
    with pytest.raises(ValueError, match="--model table1=… is unknown"):
        Places(tmp_path, models={"table1": "x"}).check(paper)


def test_a_recipe_that_names_no_source_or_builds_on_itself_is_refused(tmp_path):
    def paper(content) -> dict:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(content))
        tables = {"t": {"rows": [{"model": "m"}]}}
        file = tmp_path / "tables.yaml"
        file.write_text(yaml.safe_dump({"trainings": {"m": {"recipe": str(recipe)}}, "tables": tables}))
        (read,) = read_papers(file)
        return read

    for content, message in (
        ({"data": {"train": ["prepared/x"]}}, "m: prepared/x is not among those of the tables"),
        ({"model": {"checkpoint": "runs/y"}}, "m: runs/y is not among"),
        ({"model": {"checkpoint": "data/z/w"}}, "m: data/z is not among"),
        ({"model": {"checkpoint": "runs/m"}}, "trainings build on each other in a circle: m -> m"),
        ({"system": "radio"}, "system must be one of avsr"),
    ):
        read = paper(content)
        with pytest.raises(ValueError, match=message):
            plan(read, read.tables["t"], (), PLACES)


def test_the_papers_page_names_every_table_its_recipes_and_a_test(repository):
    """Each table and figure has a row with its command, trainings that it has, and a test that exists."""
    text = (repository / "docs" / "papers.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    tables = {cell.strip(" `"): row for row in rows if (cell := row.split(" | ")[1]).strip(" `") in NAMES}
    assert list(tables) == NAMES
    for name, row in tables.items():
        assert set(re.findall(r"`(table\d_\w+)`", row)) <= {stage.name for stage in named_plan(name)}, row
    for row in rows:
        if row.startswith(("| table |", "| section |")):
            continue
        (test,) = re.findall(r"`(tests/[\w/]+\.py)` \|$", row)
        assert (repository / test).is_file(), row
