"""Videos: YouTube-VIS' JSON, folders of numbered PNGs, Ref-YouTube-VOS. A row is a frame."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from lookhear.processing.glee.geometry_glee import run_lengths
from lookhear.training.glee.corpora.masks import decode_mask
from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.glee.corpora.vos import read_refer_youtube_vos, read_vos
from lookhear.training.glee.corpora.youtube_vis import read_uvo_videos, read_youtube_vis


@pytest.fixture
def video(square):
    """YouTube-VIS' JSON of one video of three frames; the object isn't seen in the second."""
    runs = {"size": [30, 40], "counts": run_lengths(square[2])}
    entry = {"id": 21, "video_id": 4, "category_id": 2, "iscrowd": 0, "width": 40, "height": 30}
    entry |= {"segmentations": [runs, None, runs], "bboxes": [square[0], None, square[0]], "areas": [100, None, 100]}
    names = [f"v0/{index:05d}.jpg" for index in range(3)]
    videos = [{"id": 4, "width": 40, "height": 30, "length": 3, "file_names": names}]
    return {"videos": videos, "annotations": [entry], "categories": [{"id": 2, "name": "giant_panda"}]}


LAYOUTS = [
    ("train.json", "train/JPEGImages"),  # 2019
    ("train/instances.json", "train/JPEGImages"),  # 2021
    ("annotations_train.json", "train"),  # OVIS
    ("annotations/instances_train_sub.json", "train"),
]


@pytest.mark.parametrize("file, folder", LAYOUTS)
def test_youtube_vis_and_ovis(tree, video, square, file, folder):
    tree.json(file, video)
    for name in video["videos"][0]["file_names"]:
        tree.picture(f"{folder}/{name}")
    rows = list(read_youtube_vis(tree.root))
    assert [(row["video"], row["frame"], len(row["objects"])) for row in rows] == [
        ("4", 0, 1),
        ("4", 1, 0),
        ("4", 2, 1),
    ]
    for row in rows[::2]:
        (thing,) = row["objects"]
        assert thing["track_id"] == 21 and thing["category"] == "giant panda" and thing["box"] == [5, 8, 15, 18]
        assert np.array_equal(decode_mask(thing["mask"], (30, 40)), square[2])


def test_videos_name_what_is_wrong(tree, video):
    video["annotations"] += [{**video["annotations"][0], "id": 22, "segmentations": [None]}]
    video["annotations"] += [{**video["annotations"][0], "id": 23, "category_id": 0}]
    tree.json("train.json", video)
    for name in video["videos"][0]["file_names"][:2]:
        tree.picture(f"train/JPEGImages/{name}")
    problems = Problems(skip=True)
    assert len(list(read_youtube_vis(tree.root, problems=problems))) == 2
    assert [name for name, _ in problems.found] == ["annotation 23", "annotation 22", "video 4, frame 2"]
    with pytest.raises(CorpusError, match="3 problems"):
        list(read_youtube_vis(tree.root))
    tree.json("train.json", {**video, "annotations": None})
    with pytest.raises(CorpusError, match="reserved for the challenge"):
        list(read_youtube_vis(tree.root))


def test_uvo_videos(tree, video):
    video["videos"][0]["file_names"] = [f"v0/{index}.png" for index in range(3)]
    tree.json("VideoDenseSet/UVO_video_train_dense.json", video)
    for index in range(3):
        tree.picture(f"uvo_videos_dense_frames/v0/{index}.png")
    rows = list(read_uvo_videos(tree.root))
    assert len(rows) == 3 and rows[0]["objects"][0]["category"] is None


@pytest.fixture
def numbers():
    """A PNG's content: objects 1 and 3, and a strip that belongs to nobody."""
    picture = np.zeros((30, 40), dtype=np.uint8)
    picture[8:18, 5:15], picture[20:25, 30:40], picture[:2] = 1, 3, 255
    return picture


def test_davis(tree, numbers):
    for name in ("bear", "bus"):
        for index in range(2):
            tree.picture(f"JPEGImages/480p/{name}/{index:05d}.jpg")
            tree.numbers(f"Annotations/480p/{name}/{index:05d}.png", numbers)
    tree.text("ImageSets/2017/train.txt", "bus\n")
    tree.text("ImageSets/480p/val.txt", "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png \n" * 2)
    rows = list(read_vos(tree.root, "train"))
    assert [(row["id"], row["video"], row["frame"]) for row in rows] == [
        ("bus/00000", "bus", 0),
        ("bus/00001", "bus", 1),
    ]
    assert [thing["track_id"] for thing in rows[0]["objects"]] == [1, 3]
    assert [thing["box"] for thing in rows[0]["objects"]] == [[5, 8, 15, 18], [30, 20, 40, 25]]
    assert {row["video"] for row in read_vos(tree.root, "val")} == {"bear"}
    assert len(list(read_vos(tree.root))) == 4
    with pytest.raises(CorpusError, match="no list test.txt .* there are train, val"):
        list(read_vos(tree.root, "test"))


def test_black_and_white_is_one_object(tree, square):
    tree.picture("JPEGImages/dog/00000.jpg")
    tree.numbers("Annotations/dog/00000.png", square[2] * np.uint8(255), palette=False)
    (row,) = read_vos(tree.root)
    assert [(thing["track_id"], thing["box"]) for thing in row["objects"]] == [(1, [5, 8, 15, 18])]


@pytest.fixture
def youtube_vos(tree, numbers):
    for index in (0, 5):
        tree.picture(f"train/JPEGImages/ab/{index:05d}.jpg")
    tree.numbers("train/Annotations/ab/00000.png", numbers)
    tree.numbers("train/Annotations/ab/00005.png", np.where(numbers == 3, 0, numbers))
    categories = {
        "1": {"category": "giant_panda", "frames": ["00000"]},
        "3": {"category": "person", "frames": ["00000"]},
    }
    tree.json("train/meta.json", {"videos": {"ab": {"objects": categories}}})
    expressions = {"0": {"exp": "a panda on the left", "obj_id": "1"}, "1": {"exp": "a man", "obj_id": "3"}}
    tree.json(
        "meta_expressions/train/meta_expressions.json", {"videos": {"ab": {"expressions": expressions, "frames": []}}}
    )


def test_youtube_vos(tree, youtube_vos):
    rows = list(read_vos(tree.root, "train"))
    assert [[thing["category"] for thing in row["objects"]] for row in rows] == [
        ["giant panda", "person"],
        ["giant panda"],
    ]


def test_refer_youtube_vos(tree, youtube_vos):
    first, second = read_refer_youtube_vos(tree.root)
    assert [entry["text"] for entry in first["expressions"]] == ["a panda on the left", "a man"]
    assert second["expressions"] == [{"text": "a panda on the left", "objects": [0]}]


def test_a_frame_without_picture_or_mask_is_named(tree, youtube_vos):
    (tree.root / "train/JPEGImages/ab/00000.jpg").unlink()
    tree.text("train/Annotations/ab/00005.png", "no picture")
    with pytest.raises(CorpusError, match="2 problems: frame ab/00000: its file .*; frame ab/00005: its mask"):
        list(read_vos(tree.root, "train"))


@pytest.mark.shared
def test_davis2016(shared):
    rows = list(islice(read_vos(shared / "data/davis2016"), 60))
    assert len(rows) == 60 and all(len(row["objects"]) == 1 for row in rows)
