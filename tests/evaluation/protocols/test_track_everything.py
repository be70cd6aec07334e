"""TAO and BURST on folders of their layout."""

import json

import pytest

from lookhear.evaluation.protocols.layout import LayoutError
from lookhear.evaluation.protocols.running import run_protocol

from .conftest import SIZE, Painter, coco_entry, runs, save_json, save_picture

CAT, DOG = (2, 2, 12, 10), (15, 4, 30, 20)
FRAMES = ({1: CAT, 2: DOG}, {1: CAT}, {1: CAT, 2: DOG})
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 5, "name": "wild_dog"}, {"id": 8, "name": "boat"}]
NAMES = {1: "cat", 2: "wild dog"}


def write_tao(root, annotated: bool = True) -> None:
    images, annotations = [], []
    for frame, objects in enumerate(FRAMES):
        name = f"val/LaSOT/cat-1/{frame:05d}.jpg"
        save_picture(root / "frames" / name, objects)
        sizes = {"height": SIZE[0], "width": SIZE[1]}
        images.append({"id": 100 + frame, "video_id": 4, "file_name": name, "frame_index": 30 * frame, **sizes})
        for number, box in objects.items():
            category = {1: 3, 2: 5}[number]
            entry = coco_entry(len(annotations) + 1, 100 + frame, category, box, video_id=4, track_id=40 + number)
            annotations.append(entry)
    video = {"id": 4, "name": "val/LaSOT/cat-1", "neg_category_ids": [], "not_exhaustive_category_ids": []}
    content = {"videos": [video], "images": images[::-1], "categories": CATEGORIES, "tracks": []}
    save_json(root / "annotations" / "validation.json", content | ({"annotations": annotations} if annotated else {}))


def test_tao(tmp_path, start):
    write_tao(tmp_path / "data")
    see = Painter(NAMES)
    report = run_protocol(start("tao", see))
    assert report.metrics["TETA"] == report.metrics["ClsA"] == pytest.approx(1)
    assert [path[-9:] for path in see.asked[0]["video"]] == ["00000.jpg", "00001.jpg", "00002.jpg"]  # in order
    assert see.asked[0]["labels"] == ["cat", "wild dog", "boat"]
    results = json.loads(report.files[0].read_text())
    assert len(results) == 5 and {"image_id", "category_id", "bbox", "score", "track_id", "video_id"} == set(
        results[0]
    )
    assert results[0]["bbox"] == [2, 2, 10, 8]


def test_wrong_names_cost_a_third(tmp_path, start):
    """Everything is found and followed, the dog as a boat: its ClsA is 0; boats don't occur and don't count."""
    write_tao(tmp_path / "data")
    report = run_protocol(start("tao", Painter({1: "cat", 2: "boat"})))
    assert report.metrics["LocA"] == report.metrics["AssocA"] == pytest.approx(1)
    assert report.metrics["ClsA"] == pytest.approx(0.5) and report.parts["TETA"]["wild dog"] == pytest.approx(2 / 3)


def test_tao_without_annotations(tmp_path, start):
    write_tao(tmp_path / "data", annotated=False)
    report = run_protocol(start("tao", Painter(NAMES)))
    assert not report.metrics and "server" in report.note and report.files[0].is_file()


def write_burst(root, **facts) -> None:
    names = [f"frame{frame:04d}.jpg" for frame in range(len(FRAMES))]
    maps = [save_picture(root / "frames" / "val" / "LaSOT" / "cat-1" / n, o) for n, o in zip(names, FRAMES)]
    frames = [
        {str(number): {"rle": runs(numbers, number)["counts"], "is_gt": True} for number in objects}
        for numbers, objects in zip(maps, FRAMES)
    ]
    sequence = {"id": 1, "seq_name": "cat-1", "dataset": "LaSOT", "height": SIZE[0], "width": SIZE[1], "fps": 30}
    sequence |= {"annotated_image_paths": names, "all_image_paths": names, "segmentations": frames}
    sequence |= {"track_category_ids": {"1": 3, "2": 5}, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    content = {"sequences": [sequence | facts], "categories": CATEGORIES, "split": "val"}
    save_json(root / "annotations" / "val" / "all_classes.json", content)
    content["sequences"] = [sequence | {"track_category_ids": {"1": 3}}]
    save_json(root / "annotations" / "val" / "common_classes.json", content)


def test_burst(tmp_path, start):
    write_burst(tmp_path / "data")
    report = run_protocol(start("burst", Painter(NAMES, extra="boat")))  # nothing is known of boats: they don't count
    groups = ("all", "common", "uncommon")
    assert {f"HOTA_{group}": report.metrics[f"HOTA_{group}"] for group in groups} == {
        f"HOTA_{group}": pytest.approx(1) for group in groups
    }
    assert report.metrics["OWTA"] == pytest.approx(1)  # what is found beside is no miss
    written = json.loads(report.files[0].read_text())
    found = written["sequences"][0]
    assert written["split"] == "val" and sorted(found["track_category_ids"].values()) == [3, 5, 8]
    assert [len(frame) for frame in found["segmentations"]] == [3, 2, 3]


def test_burst_counts_what_is_known_to_be_absent(tmp_path, start):
    """The dog is called a cat: dogs 0; a false cat in two frames beside three right ones: DetA 3/5."""
    write_burst(tmp_path / "data")
    report = run_protocol(start("burst", Painter({1: "cat", 2: "cat"})))
    assert report.metrics["HOTA_uncommon"] == 0 and report.metrics["DetA_common"] == pytest.approx(3 / 5)
    write_burst(tmp_path / "data", not_exhaustive_category_ids=[3])
    report = run_protocol(start("burst", Painter({1: "cat", 2: "cat"})))
    assert report.metrics["DetA_common"] == pytest.approx(1)


def test_what_is_missing_is_named(tmp_path, start):
    write_burst(tmp_path / "data")
    (tmp_path / "data" / "frames" / "val" / "LaSOT" / "cat-1").rename(tmp_path / "elsewhere")
    with pytest.raises(LayoutError, match="cat-1 is missing"):
        run_protocol(start("burst", Painter(NAMES)))
    with pytest.raises(LayoutError, match="test/all_classes.json"):
        run_protocol(start("burst", Painter(NAMES), split="test"))
