"""Pictures with boxes, phrases or sentences: OpenImages, Visual Genome, RefCOCO, BDD100K."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from lookhear.processing.glee.geometry_glee import coco_rle
from lookhear.training.glee.corpora.bdd100k import read_bdd100k
from lookhear.training.glee.corpora.masks import decode_mask
from lookhear.training.glee.corpora.openimages import read_openimages
from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.glee.corpora.refcoco import read_refcoco
from lookhear.training.glee.corpora.visual_genome import read_visual_genome

HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)


@pytest.fixture
def openimages(tree):
    lines = [
        "aa,xclick,/m/01,1,0.25,0.5,0.1,0.4,0,0,0,0,0",
        "aa,xclick,/m/02,1,0,1,0,1,0,0,1,0,0",
        "bb,xclick,/m/02,1,0.5,0.75,0,1,0,0,0,0,0",
    ]
    tree.text("oidv6-train-annotations-bbox.csv", "\n".join([HEADER, *lines]) + "\n")
    tree.text("class-descriptions-boxable.csv", "/m/01,Tortoise\n/m/02,Traffic sign\n/m/03,Cat\n")
    labels = ["ImageID,Source,LabelName,Confidence", "bb,verification,/m/03,1", "bb,verification,/m/01,0"]
    tree.text("train-annotations-human-imagelabels-boxable.csv", "\n".join(labels))
    tree.picture("train/aa.jpg")
    tree.picture("train/bb.jpg", (60, 80))
    return lines


def test_openimages(tree, openimages):
    first, second = read_openimages(tree.root)
    assert first["objects"][0]["box"] == pytest.approx([10, 3, 20, 12])
    assert [thing["category"] for thing in first["objects"]] == ["Tortoise", "Traffic sign"]
    assert [thing["crowd"] for thing in first["objects"]] == [False, True]
    assert second["objects"][0]["box"] == [40, 0, 60, 60] and (second["height"], second["width"]) == (60, 80)
    assert second["incomplete"] == ["Cat"] and first["incomplete"] == []


def test_openimages_names_what_is_wrong(tree, openimages):
    lines = [
        openimages[0],
        openimages[2],
        openimages[1],
        "cc,x,/m/01,1,0,1,0,1,0,0,0,0,0",
        "bb,x,/m/9,1,0,1,0,1,0,0,0,0,0",
    ]
    tree.text("oidv6-train-annotations-bbox.csv", "\n".join([HEADER, *lines]))
    tree.text("train/cc.jpg", "no picture")
    problems = Problems(skip=True)
    assert [row["id"] for row in read_openimages(tree.root, problems=problems)] == ["aa", "bb"]
    found = dict(problems.found)
    assert "are not consecutive" in found["image aa"] and "no picture" in found["image cc"]
    with pytest.raises(CorpusError, match="image aa: its lines are not consecutive"):
        list(read_openimages(tree.root))
    tree.text("oidv6-train-annotations-bbox.csv", "ImageID,XMin\n")
    with pytest.raises(CorpusError, match="LabelName, XMax, YMin, YMax is missing"):
        list(read_openimages(tree.root))


@pytest.fixture
def genome(tree):
    tree.json("image_data.json", [{"image_id": n, "width": 40, "height": 30, "url": ""} for n in (1, 2)])
    tree.picture("VG_100K/1.jpg")
    tree.picture("VG_100K_2/2.jpg")
    things = [{"object_id": 11, "x": 5, "y": 8, "w": 10, "h": 10, "names": ["Clock tower"], "synsets": ["clock.n.01"]}]
    tree.json("objects.json", [{"image_id": 1, "objects": things}, {"image_id": 2, "objects": []}])
    regions = [
        {"region_id": 1, "image_id": 2, "phrase": "the clock is\ngreen", "x": 0, "y": 0, "width": 20, "height": 10},
        {"region_id": 2, "image_id": 2, "phrase": "a wall", "x": 5, "y": 8, "width": 10, "height": 10},
    ]
    tree.json("region_descriptions.json", [{"id": 2, "regions": regions}])


def test_visual_genome(tree, genome):
    (row,) = read_visual_genome(tree.root)
    assert (
        row["id"] == "1"
        and row["objects"][0]["category"] == "clock tower"
        and row["objects"][0]["box"] == [5, 8, 15, 18]
    )
    (row,) = read_visual_genome(tree.root, kind="regions")
    assert row["image"]["path"].endswith("VG_100K_2/2.jpg")
    assert row["expressions"] == [{"text": "the clock is green", "objects": [0]}, {"text": "a wall", "objects": [1]}]
    assert row["objects"][0]["category"] is None
    with pytest.raises(CorpusError, match="kind must be one of objects, regions"):
        list(read_visual_genome(tree.root, kind="relations"))


@pytest.fixture
def refcoco(tree, coco):
    for image in coco["images"]:
        image["file_name"] = f"COCO_train2014_{image['file_name']}"
        tree.picture(f"train2014/{image['file_name']}")
    tree.json("refcoco/instances.json", coco)
    references = [
        {"ref_id": 0, "ann_id": 1, "image_id": 7, "category_id": 3, "split": "train", "file_name": "COCO_7_0.jpg"}
        | {
            "sent_ids": [0, 1],
            "sentences": [{"sent": "the left light", "sent_id": 0}, {"sent": "lamp", "sent_id": 1}],
        },
        {"ref_id": 1, "ann_id": 3, "image_id": 9, "category_id": 5, "split": "testA", "file_name": "COCO_9_1.jpg"}
        | {"sent_ids": [2], "sentences": [{"sent": "dog", "sent_id": 2}]},
    ]
    tree.file("refcoco/refs(unc).p").write_bytes(pickle.dumps(references, protocol=2))
    return references


def test_refcoco(tree, refcoco):
    (row,) = read_refcoco(tree.root / "refcoco", "train")
    assert row["id"] == "7" and [thing["category"] for thing in row["objects"]] == ["traffic light"]
    assert row["expressions"] == [{"text": "the left light", "objects": [0]}, {"text": "lamp", "objects": [0]}]
    assert [row["id"] for row in read_refcoco(tree.root / "refcoco", "testA")] == ["9"]
    for folder in (tree.root, tree.root / "train2014"):
        assert len(list(read_refcoco(tree.root / "refcoco", images=folder))) == 1
    with pytest.raises(CorpusError, match="no sentences of split 'val'; it has testA, train"):
        list(read_refcoco(tree.root / "refcoco", "val"))


def test_a_pickle_that_would_run_something_is_refused(tree, refcoco):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    tree.file("refcoco/refs(unc).p").write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(CorpusError, match="builtins.print, where only plain data is expected"):
        list(read_refcoco(tree.root / "refcoco"))


def test_bdd100k(tree, square):
    box = {"x1": 5, "y1": 8, "x2": 15, "y2": 18}
    labels = [{"id": "1", "category": "traffic light", "box2d": box}, {"id": "2", "category": "lane", "poly2d": None}]
    frames = [{"name": "a.jpg", "attributes": {}, "labels": labels}, {"name": "b.jpg", "labels": None}]
    tree.json("labels/det_20/det_train.json", frames)
    for name in ("100k/train/a", "100k/train/b", "10k/train/a"):
        tree.picture(f"images/{name}.jpg")
    (row,) = read_bdd100k(tree.root)
    assert row["id"] == "a.jpg" and row["objects"][0]["box"] == [5, 8, 15, 18] and row["objects"][0]["mask"] is None

    corners = [[100, 100], [200, 100], [200, 150], [200, 250], [100, 250], [100, 200]]
    polygon = {"vertices": corners, "types": "LLCCCL", "closed": True}
    tree.json(
        "labels/ins_seg/polygons/ins_seg_train.json",
        [{"name": "a.jpg", "labels": [labels[0] | {"poly2d": [polygon]}]}],
    )
    (row,) = read_bdd100k(tree.root, kind="ins")
    mask = decode_mask(row["objects"][0]["mask"], (720, 1280))
    assert mask[110, 110] and mask[150, 180] and not mask[240, 190]  # the corner is rounded off

    mask = np.zeros((720, 1280), dtype=bool)
    mask[10:20, 30:50] = True
    runs = coco_rle(mask)
    label = {"id": "3", "category": "car", "rle": runs, "attributes": {"crowd": True}}
    tree.json(
        "labels/ins_seg/rles/ins_seg_train.json", {"frames": [{"name": "a.jpg", "labels": [label]}], "config": {}}
    )
    (row,) = read_bdd100k(tree.root, kind="ins")
    assert row["objects"][0]["box"] == [30, 10, 50, 20] and row["objects"][0]["crowd"]
