"""The benchmark of questions about scenes: what its card says, equal bytes for equal settings, and figures by hand."""

import io
import re
import zlib
from collections import Counter

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image

from lookhear.evaluation.measures.mask_runs import decode_mask
from lookhear.evaluation.protocols.layout import LayoutError
from lookhear.evaluation.protocols.run import ProtocolRun
from lookhear.evaluation.protocols.running import run_protocol
from lookhear.evaluation.scene_questions import (
    CARD,
    DATA,
    SETTINGS,
    SceneSettings,
    load_rows,
    main,
    make_rows,
    read_settings,
    to_parquet,
    write_benchmark,
)
from lookhear.training.glee.scenes.questions import FAMILIES, SEGMENT
from lookhear.training.glee.scenes.scenes import HELD_OUT_PAIRS
from lookhear.training.lisa_glee.evaluate_scenes import CONDITIONS, EVALUATION_SEED, SIZE, held_out_questions

FEW = SceneSettings(scenes=4, seed=5)


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return list(make_rows(FEW))


@pytest.fixture(scope="module")
def published() -> list[dict]:
    return list(make_rows(read_settings(CARD / SETTINGS)))


def test_rows_are_the_questions_that_models_of_the_project_are_measured_by(rows):
    asked = held_out_questions(FEW.scenes, FEW.seed)
    assert [row["question"] for row in rows] == [one.text for one in asked]
    for row, one in zip(rows, asked, strict=True):
        assert row["answer"] == one.question.answer and row["form"] == one.question.form and row["seed"] == 5
        assert row["answer"].count(SEGMENT) == len(row["masks"]) == len(one.question.objects)
        for mask, index in zip(row["masks"], one.question.objects):
            assert np.array_equal(decode_mask(mask), one.scene.shapes[index].mask)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))), one.scene.image)
    assert len({row["id"] for row in rows}) == len(rows) and {row["scene"] for row in rows} == {0, 1, 2, 3}


def test_other_questions_are_of_other_pictures(rows):
    for row in rows:
        assert row["other_question"] in [other["question"] for other in rows if other["scene"] != row["scene"]]


def test_equal_settings_give_equal_bytes(rows, tmp_path):
    write_benchmark(tmp_path / "one", FEW)
    write_benchmark(tmp_path / "two", FEW)
    for name in ("README.md", "eval.yaml", SETTINGS, DATA):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert read_settings(tmp_path / "one" / SETTINGS) == FEW
    assert load_rows(tmp_path / "one") == rows
    (tmp_path / "one" / DATA).unlink()
    assert load_rows(tmp_path / "one") == rows  # made again
    assert to_parquet(make_rows(SceneSettings(4, 6))) != to_parquet(rows)


def test_a_picture_takes_up_space_once(rows):
    pictures = {row["scene"]: row["image"]["bytes"] for row in rows}
    assert len(rows) > 5 * len(pictures)
    assert len(to_parquet(rows)) < 1.2 * sum(map(len, pictures.values())) + 20_000


def test_datasets_reads_features(rows, tmp_path):
    write_benchmark(tmp_path / "made", FEW)
    loaded = datasets.load_dataset(str(tmp_path / "made"), split="test", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == len(rows) and loaded[0]["image"].size == SIZE[::-1]
    assert loaded[3]["masks"] == rows[3]["masks"] and loaded.features["new_pair"].dtype == "bool"


def test_the_card_tells_what_is_in_it(published):
    """Where this fails after a change of the questions, the card's figures are to be replaced."""
    card = " ".join((CARD / "README.md").read_text().split())
    settings = read_settings(CARD / SETTINGS)
    assert settings == SceneSettings(200, EVALUATION_SEED) == SceneSettings()
    assert f"{settings.scenes} generated pictures" in card and f"{len(published)} questions about them" in card
    counts = Counter(row["family"] for row in published)
    assert dict(re.findall(r"\| `(\w+)` \| (\d+) \|", card)) == {name: str(counts[name]) for name in FAMILIES}
    assert f"{min(counts.values())} to {max(counts.values())} questions of a family" in card
    new = sum(row["new_pair"] for row in published)
    assert new > 50 and f"{new} questions here are about one of them" in card
    assert all(f"{colour} {kind}" in card for colour, kind in HELD_OUT_PAIRS)
    assert all(f"| `{name}`" in card or f"`{name}`," in card or f", `{name}`" in card for name in published[0])


def test_every_question_is_held_out_as_the_card_says(published):
    assert "zlib.crc32(text.encode()) % 8 == 0" in (CARD / "README.md").read_text()
    assert all(zlib.crc32(row["question"].encode()) % 8 == 0 for row in published)


def test_tasks_are_families_in_each_way_of_asking():
    tasks = [task["id"] for task in yaml.safe_load((CARD / "eval.yaml").read_text())["tasks"]]
    assert tasks == [f"{condition}_{family}" for condition in CONDITIONS for family in ("all", *FAMILIES)]


class Knowing:
    """What `ask` is to the protocol: answers a question rightly, or as `wrong` says by its family."""

    def __init__(self, rows, wrong=None):
        self.answers = {(row["image"]["bytes"], row["question"]): row for row in rows}
        self.bytes = {row["image"]["bytes"]: self.pixels(row) for row in rows}
        self.wrong = wrong or {}
        self.calls = 0

    @staticmethod
    def pixels(row) -> bytes:
        return Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").tobytes()

    def __call__(self, inputs, batch_size):
        self.calls += 1
        return [self.answer(item) for item in inputs]

    def answer(self, item) -> dict:
        (encoded,) = (key for key, pixels in self.bytes.items() if pixels == item["image"].tobytes())
        row = self.answers.get((encoded, item["question"]))
        if row is None:  # a question about another picture
            return {"text": "nothing", "objects": []}
        text, masks = row["answer"].replace(f" {SEGMENT}", ""), [decode_mask(mask) for mask in row["masks"]]
        return self.wrong.get(row["family"], lambda *right: {"text": right[0], "objects": right[1]})(
            text, [{"mask": mask} for mask in masks]
        )


def start(folder, ask, **settings) -> ProtocolRun:
    return ProtocolRun("scene-questions", folder, folder.parent / "out", see=print, ask=ask, **settings)


@pytest.fixture
def folder(tmp_path):
    write_benchmark(tmp_path / "scene-questions", FEW)
    return tmp_path / "scene-questions"


def test_right_answers_are_right(folder, rows):
    knowing = Knowing(rows)
    report = run_protocol(start(folder, knowing, batch_size=3))
    assert set(report.metrics.values()) == {1.0} and report.count == len(rows) and knowing.calls == 2
    assert {"gIoU", "words_order", "none_absence", "cIoU_new_pairs"} <= set(report.metrics)
    assert run_protocol(start(folder, None)).metrics == report.metrics  # all are answered


def test_wrong_answers_count_in_their_family(folder, rows):
    """Places: the right words but nothing shown; orders: all of the picture shown, by other words."""
    everything = [{"mask": np.ones(SIZE, bool)}]
    wrong = {
        "place": lambda text, objects: {"text": text, "objects": []},
        "order": lambda text, objects: {"text": "this", "objects": everything},
    }
    figures = run_protocol(start(folder, Knowing(rows, wrong))).metrics
    orders = [decode_mask(row["masks"][0]).mean() for row in rows if row["family"] == "order"]
    places = sum(row["family"] == "place" for row in rows)
    assert figures["gIoU_place"] == figures["cIoU_place"] == figures["words_place"] == figures["words_order"] == 0
    assert figures["gIoU_order"] == pytest.approx(np.mean(orders)) == figures["cIoU_order"]
    assert figures["words"] == 1 - (places + len(orders)) / len(rows) and figures["words_count"] == 1
    assert figures["gIoU"] == pytest.approx(1 - (places + len(orders) - sum(orders)) / len(rows))


def test_other_questions_are_asked_by_their_split(folder, rows):
    figures = run_protocol(start(folder, Knowing(rows), split="others")).metrics
    none = [not row["masks"] for row in rows if row["question"] != row["other_question"]]
    assert figures["words_relation"] == 0 and figures["gIoU"] < 0.5 and sum(none) / len(rows) <= figures["gIoU"]


def test_bad_folders_and_settings_are_named(folder, tmp_path, capsys):
    with pytest.raises(LayoutError, match="has no split 'train'; it has test, others"):
        run_protocol(start(folder, None, split="train"))
    (folder / DATA).write_bytes(b"PAR1 but no more")
    with pytest.raises(ValueError, match="test.parquet is not a Parquet file"):
        load_rows(folder)
    datasets.Dataset.from_dict({"scene": [1]}).to_parquet(str(folder / DATA))
    with pytest.raises(ValueError, match="no column image"):
        load_rows(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="expected test.parquet; download"):
        load_rows(tmp_path / "empty")
    for text, message in (
        ("scenes: 0", "scenes must be at least 1"),
        ("a: [", "not YAML"),
        ("pictures: 3", "has no field 'pictures'"),
    ):
        (tmp_path / SETTINGS).write_text(text)
        with pytest.raises(ValueError, match=message):
            read_settings(tmp_path / SETTINGS)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "new"), "--scenes", "0"])
    assert "scenes must be at least 1" in capsys.readouterr().err and not (tmp_path / "new").exists()
    with pytest.raises(SystemExit):
        main([str(tmp_path / "new"), "--scenes", "1"])
    assert "take at least two (--scenes 2)" in capsys.readouterr().err and not (tmp_path / "new").exists()
    main([str(tmp_path / "new"), "--scenes", "2", "--seed", "3"])
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"README.md", "eval.yaml", SETTINGS, DATA}
