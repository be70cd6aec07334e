"""COCO, LVIS, UVO's frames and ODinW on folders of their layout."""

import json

import numpy as np
import pytest

from lookhear.evaluation.protocols.layout import LayoutError
from lookhear.evaluation.protocols.running import format_report, run_protocol

from .conftest import SIZE, Painter, coco_entry, save_json, save_picture

CUP, PEN = (2, 2, 12, 10), (15, 4, 30, 20)
NAMES = {1: "tea cup", 2: "pen"}
CATEGORIES = [{"id": 7, "name": "tea_cup", "frequency": "r"}, {"id": 9, "name": "pen", "frequency": "f"}]


def images(*names, **more) -> list[dict]:
    sizes = {"height": SIZE[0], "width": SIZE[1]}
    return [{"id": number, "file_name": name, **sizes, **more} for number, name in enumerate(names, start=1)]


def truth() -> list[dict]:
    """Picture 1 has a cup and a pen, picture 2 a pen."""
    return [coco_entry(1, 1, 7, CUP), coco_entry(2, 1, 9, PEN), coco_entry(3, 2, 9, PEN)]


@pytest.fixture
def coco(tmp_path):
    root = tmp_path / "data"
    save_picture(root / "val2017" / "1.jpg", {1: CUP, 2: PEN})
    save_picture(root / "val2017" / "2.jpg", {2: PEN})
    content = {"images": images("1.jpg", "2.jpg"), "annotations": truth(), "categories": CATEGORIES}
    save_json(root / "annotations" / "instances_val2017.json", content)
    return root


def test_coco(coco, start):
    see = Painter(NAMES)
    report = run_protocol(start("coco", see, batch_size=2))
    assert report.metrics["box_AP"] == report.metrics["mask_AP"] == pytest.approx(1) and report.count == 2
    assert see.asked[0]["labels"] == ["tea cup", "pen"]  # names in words, all of them for every picture
    assert see.settings == {"batch_size": 2, "threshold": 0.0, "top_k": 100}
    boxes, masks = (json.loads(file.read_text()) for file in report.files)
    for results in (boxes, masks):
        assert [(entry["image_id"], entry["category_id"]) for entry in results] == [(1, 7), (1, 9), (2, 9)]
    assert boxes[0]["bbox"] == [2, 2, 10, 8] and masks[0]["segmentation"]["size"] == list(SIZE)
    assert [file.name for file in report.files] == [
        f"detections_val2017_{kind}_results.json" for kind in ("bbox", "segm")
    ]
    saved = json.loads((coco.parent / "out" / "report.json").read_text())
    assert saved["metrics"]["mask_AP50"] == pytest.approx(1) and saved["metrics"]["box_AP_large"] is None
    assert "box_AP " in format_report(report)


def test_results_file_is_what_pycocotools_reads(coco, start):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    report = run_protocol(start("coco", Painter(NAMES, blind=[1], extra="pen")))
    ground = COCO(str(coco / "annotations" / "instances_val2017.json"))
    for kind, name, file in (("box", "bbox", report.files[0]), ("mask", "segm", report.files[1])):
        evaluation = COCOeval(ground, ground.loadRes(str(file)), name)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert 0 < evaluation.stats[0] < 0.5
        for place, figure in enumerate(("AP", "AP50", "AP75", "AP_small")):
            assert report.metrics[f"{kind}_{figure}"] == pytest.approx(evaluation.stats[place])


def test_a_stopped_run_goes_on(coco, start):
    class Stopped(Painter):
        def __call__(self, inputs, **settings):
            if inputs[0]["image"].endswith("2.jpg"):
                raise KeyboardInterrupt
            return super().__call__(inputs, **settings)

    with pytest.raises(KeyboardInterrupt):
        run_protocol(start("coco", Stopped(NAMES)))
    see = Painter(NAMES)
    told = []
    report = run_protocol(start("coco", see, progress=lambda *state: told.append(state)))
    assert report.metrics["box_AP"] == pytest.approx(1) and len(see.asked) == 1
    assert told == [("pictures", 1, 2), ("pictures", 2, 2)]
    with pytest.raises(ValueError, match="another run"):
        run_protocol(start("coco", see, model="other"))


def test_what_only_a_server_can_score(coco, start):
    save_picture(coco / "test2017" / "1.jpg", {2: PEN})
    save_json(
        coco / "annotations" / "image_info_test-dev2017.json",
        {"images": images("1.jpg"), "categories": CATEGORIES},
    )
    report = run_protocol(start("coco", Painter(NAMES), split="test-dev2017"))
    assert not report.metrics and "server" in report.note and len(json.loads(report.files[0].read_text())) == 1


def test_lvis(tmp_path, start):
    """A cup that is found where it is not marked is wrong only where it is known to be absent."""
    root = tmp_path / "data"
    for number, objects in enumerate(({1: CUP, 2: PEN}, {1: CUP, 2: PEN}, {1: CUP, 2: PEN}), start=1):
        save_picture(root / ("train2017" if number == 3 else "val2017") / f"{number}.jpg", objects)
    listed = images("1.jpg", "2.jpg", "3.jpg", neg_category_ids=[], not_exhaustive_category_ids=[])
    for image, split in zip(listed, ("val2017", "val2017", "train2017")):
        image["coco_url"] = f"http://images.cocodataset.org/{split}/{image['id']}.jpg"
        del image["file_name"]
    entries = [coco_entry(1, 1, 7, CUP), coco_entry(2, 1, 9, PEN), coco_entry(3, 2, 9, PEN), coco_entry(4, 3, 9, PEN)]
    path = root / "lvis_v1_val.json"
    save_json(path, {"images": listed, "annotations": entries, "categories": CATEGORIES})
    report = run_protocol(start("lvis", Painter(NAMES)))
    assert report.metrics["mask_AP"] == pytest.approx(1) and report.metrics["box_AP_rare"] == pytest.approx(1)
    listed[1]["neg_category_ids"] = [7]
    save_json(path, {"images": listed, "annotations": entries, "categories": CATEGORIES})
    report = run_protocol(start("lvis", Painter(NAMES)))
    assert report.metrics["mask_AP_rare"] == pytest.approx(1)  # the right one has the same score and comes first
    assert report.metrics["mask_AP_frequent"] == pytest.approx(1) and np.isnan(report.metrics["mask_AP_common"])


def test_uvo(tmp_path, start):
    root = tmp_path / "data"
    save_picture(root / "uvo_videos_sparse_frames" / "v" / "1.jpg", {1: CUP, 2: PEN})
    entries = [coco_entry(1, 1, 1, CUP), coco_entry(2, 1, 1, PEN)]
    content = {"images": images("v/1.png"), "annotations": entries, "categories": [{"id": 1, "name": "object"}]}
    save_json(root / "FrameSet" / "UVO_frame_val.json", content)
    see = Painter(blind=[2])
    report = run_protocol(start("uvo", see))
    assert report.metrics["mask_AR_100"] == report.metrics["box_AR_100"] == pytest.approx(0.5)
    assert see.asked[0]["labels"] == ["object"]


def test_odinw(tmp_path, start):
    """Two layouts, a category 0 above the others; the mean is over data sets."""
    root = tmp_path / "data"
    categories = [{"id": 0, "name": "things"}, *CATEGORIES]
    save_picture(root / "Cups" / "large" / "test" / "1.jpg", {1: CUP, 2: PEN})
    content = {"images": images("1.jpg"), "annotations": truth()[:2], "categories": categories}
    save_json(root / "Cups" / "large" / "test" / "annotations_without_background.json", content)
    save_picture(root / "pens" / "export" / "1.jpg", {2: PEN})
    content = {"images": images("1.jpg"), "annotations": [coco_entry(1, 1, 9, PEN)], "categories": categories[2:]}
    save_json(root / "pens" / "export" / "test_annotations_without_background.json", content)
    see = Painter(NAMES, blind=[1])
    report = run_protocol(start("odinw", see))
    assert report.parts["box_AP"] == {"Cups/large": pytest.approx(0.5), "pens/export": pytest.approx(1)}
    assert report.metrics["box_AP"] == pytest.approx(0.75) and report.count == 2
    assert [asked["labels"] for asked in see.asked] == [["tea cup", "pen"], ["pen"]]
    with pytest.raises(LayoutError, match="valid/annotations_without_background.json"):
        run_protocol(start("odinw", see, split="valid"))


ODINW_13_TESTS = """
AerialMaritimeDrone/large/test/
Aquarium/Aquarium Combined.v2-raw-1024.coco/test/
CottontailRabbits/test/
EgoHands/generic/test/
NorthAmericaMushrooms/North American Mushrooms.v1-416x416.coco/test/
Packages/Raw/test/
PascalVOC/valid/
pistols/export/test_
pothole/test/
Raccoon/Raccoon.v2-raw.coco/test/
ShellfishOpenImages/raw/test/
thermalDogsAndPeople/test/
VehiclesOpenImages/416x416/test/
""".split("\n")[1:-1]
ODINW_13_VALIDS = [place.replace("/test/", "/valid/").replace("test_", "val_") for place in ODINW_13_TESTS]
ODINW_13_VALIDS = [
    place.replace("valid", "mini_val") if place.startswith(("EgoHands", "Vehicles")) else place
    for place in ODINW_13_VALIDS
]


def save_odinw(root, places) -> None:
    """Data sets of a cup and a pen each, that is, half of which a painter without eyes for cups finds; and others."""
    for place in [*places, "EgoHands/specific/test/", "AerialMaritimeDrone/tiled/test/", "boggleBoards/export/test_"]:
        path = root / f"{place}annotations_without_background.json"
        pen = place.startswith("p")  # pistols and pothole: a pen only
        save_picture(path.parent / "1.jpg", {2: PEN} if pen else {1: CUP, 2: PEN})
        annotations = [coco_entry(1, 1, 9, PEN)] if pen else truth()[:2]
        save_json(path, {"images": images("1.jpg"), "annotations": annotations, "categories": CATEGORIES})


@pytest.mark.parametrize(("split", "places"), [(None, ODINW_13_TESTS), ("valid", ODINW_13_VALIDS)])
def test_odinw_13_is_the_mean_over_exactly_thirteen_named_sets(tmp_path, start, split, places):
    assert len(places) == 13
    save_odinw(tmp_path / "data", places)
    report = run_protocol(start("odinw-13", Painter(NAMES, blind=[1]), split=split))
    assert list(report.parts["box_AP"]) == [place.split("/")[0] for place in places]
    assert report.parts["box_AP"]["pistols"] == report.parts["box_AP"]["pothole"] == pytest.approx(1)
    assert report.parts["box_AP"]["Raccoon"] == pytest.approx(0.5)
    assert report.metrics == {"box_AP": pytest.approx((2 * 1 + 11 * 0.5) / 13)} and report.count == 13
    assert not report.note


def test_odinw_13_names_the_sets_that_are_missing(tmp_path, start):
    save_odinw(tmp_path / "data", [place for place in ODINW_13_TESTS if place[0] != "p"])
    see = Painter(NAMES)
    with pytest.raises(LayoutError, match="2 of ODinW-13's data sets have no test/.*: pistols/export, pothole;"):
        run_protocol(start("odinw-13", see))
    assert not see.asked
    with pytest.raises(LayoutError, match="split 'minival' is unknown; odinw-13 has test, valid"):
        run_protocol(start("odinw-13", see, split="minival"))
    report = run_protocol(start("odinw-13", see, limit=3))
    assert report.count == 3 and report.note == "the first 3 of the 13 data sets only"


def test_what_is_missing_is_named(coco, start, tmp_path):
    (coco / "val2017" / "2.jpg").unlink()
    see = Painter(NAMES)
    with pytest.raises(LayoutError, match="2.jpg is missing"):
        run_protocol(start("coco", see))
    assert not see.asked
    assert run_protocol(start("coco", see, limit=1)).count == 1
    with pytest.raises(LayoutError, match="instances_val2014.json"):
        run_protocol(start("coco", see, split="val2014"))
    with pytest.raises(LayoutError, match="is not a folder"):
        run_protocol(start("coco", see, data=tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="choose from coco, lvis"):
        run_protocol(start("imagenet", see))
    with pytest.raises(ValueError, match="limit"):
        run_protocol(start("coco", see, limit=0))
    save_json(coco / "annotations" / "instances_val2017.json", {"images": []})
    with pytest.raises(LayoutError, match="categories is missing"):
        run_protocol(start("coco", see))
