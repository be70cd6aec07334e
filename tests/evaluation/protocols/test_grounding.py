"""RefCOCO and OmniLabel on folders of their layout."""

import json
import pickle

import pytest

from lookhear.evaluation.protocols.grounding import harmonic
from lookhear.evaluation.protocols.layout import LayoutError
from lookhear.evaluation.protocols.running import run_protocol

from .conftest import SIZE, Painter, coco_entry, save_json, save_picture

CUP, PEN = (2, 2, 12, 10), (15, 4, 30, 20)


def reference(number: int, image: int, object_id: int, split: str, *texts: str) -> dict:
    sentences = [{"sent": text, "raw": text.title(), "tokens": text.split(), "sent_id": 0} for text in texts]
    return {"ref_id": number, "image_id": image, "ann_id": object_id, "split": split, "sentences": sentences}


@pytest.fixture
def refcoco(tmp_path):
    root = tmp_path / "data" / "refcoco"
    sizes = {"height": SIZE[0], "width": SIZE[1]}
    listed = [{"id": number, "file_name": f"COCO_train2014_{number}.jpg", **sizes} for number in (1, 2)]
    for image in listed:
        save_picture(tmp_path / "data" / "train2014" / image["file_name"], {1: CUP, 2: PEN})
    entries = [coco_entry(1, 1, 7, CUP), coco_entry(2, 1, 9, PEN), coco_entry(3, 2, 9, PEN)]
    save_json(root / "instances.json", {"images": listed, "annotations": entries, "categories": []})
    references = [
        reference(1, 1, 1, "val", "the cup", "left thing"),
        reference(2, 1, 2, "val", "the pen"),
        reference(3, 2, 3, "val", "a long pen"),
        reference(4, 2, 3, "testA", "right thing"),
    ]
    (root / "refs(unc).p").write_bytes(pickle.dumps(references, protocol=2))
    return root


SENTENCES = {"the cup": 1, "left thing": 1, "the pen": 2, "a long pen": 2, "right thing": 2}


def test_refcoco(refcoco, start):
    see = Painter(sentences=SENTENCES)
    report = run_protocol(start("refcoco", see))
    assert report.count == 4 and report.metrics["box_P@0.5"] == report.metrics["mask_oIoU"] == pytest.approx(1)
    # All sentences of a picture are asked together.
    assert see.asked[0]["expressions"] == ["the cup", "left thing", "the pen"]
    assert run_protocol(start("refcoco", Painter(sentences=SENTENCES), limit=1)).count == 3


def test_wrong_objects_count(refcoco, start):
    """One of four sentences is answered with the other object: nothing shared, areas of 80 and 240."""
    report = run_protocol(start("refcoco", Painter(sentences=SENTENCES | {"left thing": 2})))
    assert report.metrics["box_P@0.5"] == report.metrics["mask_mIoU"] == pytest.approx(3 / 4)
    assert report.metrics["mask_oIoU"] == pytest.approx((80 + 240 + 240) / (80 + 240 + 240 + 320))


def test_splits_and_folders(refcoco, start):
    report = run_protocol(start("refcoco", Painter(sentences=SENTENCES), data=refcoco, split="testA"))
    assert report.count == 1 and report.split == "testA"
    with pytest.raises(LayoutError, match="it has testA, val"):
        run_protocol(start("refcoco", Painter(), split="testB"))


def test_nothing_in_a_pickle_is_run(refcoco, start):
    class Bad:
        def __reduce__(self):
            return print, ("run",)

    (refcoco / "refs(unc).p").write_bytes(pickle.dumps([Bad()]))
    with pytest.raises(LayoutError, match="plain data"):
        run_protocol(start("refcoco", Painter()))


def omnilabel(root, annotations: bool) -> dict:
    """
    Picture 1: the plain name "cup" fits object 1, "the long one" object 2, "a red hat" nothing. Picture 2: the same
    texts, and the cup is not there.
    """
    save_picture(root / "coco" / "1.jpg", {1: CUP, 2: PEN})
    save_picture(root / "coco" / "2.jpg", {2: PEN})
    content = {"images": [{"id": number, "file_name": f"coco/{number}.jpg"} for number in (1, 2)]}
    texts = [("cup", "category"), ("the long one", "object_description"), ("a red hat", "object_description")]
    content["descriptions"] = [
        {"id": 10 + place, "text": text, "image_ids": [1, 2], "anno_info": {"type": kind}}
        for place, (text, kind) in enumerate(texts)
    ]
    if annotations:
        boxes = [(1, CUP, [10]), (1, PEN, [11]), (2, PEN, [11])]
        content["annotations"] = [
            {**coco_entry(number, image, 0, box), "description_ids": ids}
            for number, (image, box, ids) in enumerate(boxes, start=1)
        ]
    return content


def test_omnilabel(tmp_path, start):
    save_json(tmp_path / "data" / "dataset_all_val_v0.1.4.json", omnilabel(tmp_path / "data", True))
    report = run_protocol(start("omnilabel", Painter({1: "cup", 2: "the long one"})))
    assert report.metrics == {name: pytest.approx(1) for name in ("AP", "AP_categories", "AP_descriptions")}
    results = json.loads(report.files[0].read_text())
    assert results[0]["description_ids"] == [10] and len(results[0]["scores"]) == 1


def test_omnilabel_descriptions_that_fit_nothing_share_the_curve(tmp_path, start):
    """Two confident answers to "a red hat" stand before the two right ones: precision 1/3, then 2/4."""
    save_json(tmp_path / "data" / "dataset_all_val_v0.1.4.json", omnilabel(tmp_path / "data", True))
    report = run_protocol(start("omnilabel", Painter({1: "cup", 2: "the long one"}, extra="a red hat")))
    assert report.metrics["AP_categories"] == pytest.approx(1)
    assert report.metrics["AP_descriptions"] == pytest.approx(0.5)  # the later 2/4 is higher, so it counts throughout
    assert report.metrics["AP"] == pytest.approx(harmonic(1, 0.5)) == pytest.approx(2 / 3)


def test_omnilabel_without_annotations(tmp_path, start):
    save_json(tmp_path / "data" / "dataset_all_test.json", omnilabel(tmp_path / "data", False))
    with pytest.raises(LayoutError, match="dataset_all_val"):
        run_protocol(start("omnilabel", Painter({})))
    report = run_protocol(start("omnilabel", Painter({1: "cup", 2: "the long one"}), split="dataset_all_test"))
    assert not report.metrics and "server" in report.note and len(json.loads(report.files[0].read_text())) == 3
