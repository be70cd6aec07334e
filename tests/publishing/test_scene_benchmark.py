"""From `lookhear publish` to a process without lookhear that loads benchmark and metric and measures answers."""

import json
import shutil

import pytest

CHILD = """
import json
import datasets, evaluate

rows = datasets.load_dataset("org/scene-questions", split="test")
references = [{"masks": row["masks"], "text": row["answer"], "group": row["family"]} for row in rows]
places = [{"masks": [] if row["family"] == "place" else row["masks"], "text": row["answer"]} for row in rows]
metric = evaluate.load("org/reasoning_segmentation")
print("RESULT" + json.dumps({
    "rows": rows.num_rows,
    "families": rows["family"][:],
    "questions": rows["question"][:],
    "size": rows[0]["image"].size,
    "right": metric.compute(predictions=references, references=references),
    "without places": metric.compute(predictions=places, references=references),
}))
"""


@pytest.fixture
def folder(repository, tmp_path):
    """The benchmark with few pictures, so that little is sent."""
    copy = shutil.copytree(
        repository / "evaluation" / "dataset_cards" / "scene-questions", tmp_path / "scene-questions"
    )
    (copy / "scenes.yaml").write_text("scenes: 3\nseed: 11\n")
    return copy


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_published_benchmark_is_loaded_and_evaluated(
    command, shared_hub, child, without_lookhear, repository, folder
):
    from lookhear.evaluation.scene_questions import SceneSettings, make_rows, to_parquet

    assert command(folder, "--repo", "org/scene-questions")[0] == 0
    metric = repository / "evaluation" / "metrics" / "reasoning_segmentation"
    assert command(metric, "--repo", "org/reasoning_segmentation")[0] == 0
    rows = list(make_rows(SceneSettings(3, 11)))
    stored = shared_hub.repositories["dataset", "org/scene-questions"].files
    assert stored["test.parquet"] == to_parquet(rows)

    out, err = child("-c", without_lookhear(CHILD)).communicate(timeout=500)
    assert "RESULT" in out, err[-3000:]
    found = json.loads(out.split("RESULT")[1])
    assert found["questions"] == [row["question"] for row in rows] and found["size"] == [160, 128]
    right = found["right"]
    assert right["gIoU"] == right["cIoU"] == right["words"] == 1 and right["samples"] == len(rows)
    places = [row for row in rows if row["family"] == "place"]
    assert places and list(right["groups"]) == list(dict.fromkeys(found["families"]))
    assert found["without places"]["gIoU"] == pytest.approx(1 - len(places) / len(rows))
    assert found["without places"]["groups"]["place"]["words"] == 0


def test_publishing_the_same_again_changes_nothing(command, folder):
    assert command(folder, "--repo", "org/scene-questions")[0] == 0
    code, _, err = command(folder, "--repo", "org/scene-questions")
    assert code == 0 and "nothing has changed since the last commit" in err
