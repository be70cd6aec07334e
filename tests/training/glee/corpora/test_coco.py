"""COCO's JSON and its relatives -> rows; what cannot be used is listed with its id."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from lookhear.training.glee.corpora.coco import picture_finder, read_coco, read_lvis, read_objects365, read_uvo
from lookhear.training.glee.corpora.masks import decode_mask
from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.glee.corpora.schema import crowd_flag, features
from lookhear.training.glee.mixture.sources import read_vocabulary


def test_coco_folder(tree, coco, square):
    rows = list(read_coco(tree.root))
    assert [row["id"] for row in rows] == ["7", "9"]
    first = rows[0]
    assert first["image"]["path"].endswith("train2017/000000000007.jpg") and (first["height"], first["width"]) == (
        30,
        40,
    )
    assert [thing["category"] for thing in first["objects"]] == ["traffic light", "dog"]
    assert [thing["crowd"] for thing in first["objects"]] == [False, True]
    for thing in [thing for row in rows for thing in row["objects"]]:
        assert thing["box"] == [5, 8, 15, 18] and thing["track_id"] is None
        assert np.array_equal(decode_mask(thing["mask"], (30, 40)), square[2])
    features().encode_example(first)


def test_a_json_file_and_a_folder_of_ones_own(tree, coco):
    path = tree.json(
        "mine.json", {**coco, "images": [{**image, "file_name": f"{image['id']}.png"} for image in coco["images"]]}
    )
    for image in coco["images"]:
        tree.picture(f"pictures/{image['id']}.png")
    assert len(list(read_coco(path, images=tree.root / "pictures"))) == 2
    with pytest.raises(CorpusError, match="7.png is missing"):
        list(read_coco(path))


def spoil(content, what):
    """Content with one fault, and what the report says."""
    content = copy.deepcopy(content)
    annotations, images = content["annotations"], content["images"]
    if what == "box outside":
        annotations[0]["bbox"] = [35, 8, 10, 10]
        return content, "annotation 1: its box .* lies outside of its picture of width 40 and height 30"
    if what == "no area":
        annotations[0]["bbox"] = [5, 8, 0, 10]
        return content, "annotation 1: its box .* has no area"
    if what == "no numbers":
        annotations[0]["bbox"] = [5, 8, None, 10]
        return content, "annotation 1: its box is .*, not four numbers"
    if what == "category":
        annotations[0]["category_id"] = 77
        return content, "annotation 1: its category 77 is not among"
    if what == "size of the mask":
        annotations[2]["segmentation"]["size"] = [40, 30]
        return content, "annotation 3: its mask cannot be used: its size is 40 x 30, its picture's 30 x 40"
    if what == "length of the mask":
        annotations[1]["segmentation"]["counts"][-1] += 1
        return content, "annotation 2: its mask cannot be used: its run lengths cover 1201 pixels of 1200"
    if what == "damaged mask":
        annotations[2]["segmentation"]["counts"] = "5o"
        return content, "annotation 3: its mask cannot be used: run lengths are damaged"
    if what == "polygon":
        annotations[0]["segmentation"] = [[5, 8, 15, 8]]
        return content, "annotation 1: its mask cannot be used: a polygon needs three points"
    if what == "crowd":
        annotations[0]["iscrowd"] = "0"
        return content, "annotation 1: its iscrowd is '0', not 0 or 1"
    if what == "box in shares":
        annotations[0]["bbox"] = [0.2, 0.3, 0.6, 0.9]
        return content, "annotation 1: its bbox .*0.9. is in shares of the picture, not in pixels"
    if what == "polygon in shares":
        annotations[0]["segmentation"] = [[0.2, 0.3, 0.6, 0.3, 0.6, 0.9]]
        return content, "annotation 1: its mask cannot be used: its coordinates are shares of the picture"
    if what == "polygon elsewhere":
        annotations[0]["segmentation"] = [[25, 8, 35, 8, 35, 18]]
        return content, "annotation 1: its polygons lie outside of its box"
    if what == "height":
        images[1]["height"] = "high"
        return content, "image 9: its height and width are high and 40"
    if what == "annotation twice":
        annotations[1]["id"] = 1
        return content, "annotation 1: its id occurs twice"
    if what == "image twice":
        images[1]["id"] = 7
        annotations.pop()
        return content, "image 7: its id occurs twice"
    if what == "unknown image":
        annotations[1]["image_id"] = 1234
        return content, "annotation 2: its image 1234 is not among"
    if what == "empty image":
        annotations.pop()
        return content, "image 9: it has no annotated object"
    if what == "size of the image":
        images[1]["height"] = 0
        return content, "image 9: its height and width are 0 and 40"
    images[1]["file_name"] = "elsewhere.jpg"
    return content, "image 9: its file .*elsewhere.jpg is missing"


FAULTS = ["box outside", "no area", "no numbers", "category", "size of the mask", "length of the mask", "damaged mask"]
FAULTS += ["crowd", "box in shares", "polygon in shares", "polygon elsewhere", "height"]
FAULTS += ["polygon", "annotation twice", "image twice", "unknown image", "empty image", "size of the image", "file"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_refused_with_its_id_or_left_out(tree, coco, fault, caplog):
    content, message = spoil(coco, fault)
    tree.json("annotations/instances_train2017.json", content)
    with pytest.raises(CorpusError, match=f"1 problem: {message}") as error:
        list(read_coco(tree.root))
    assert "\n" not in str(error.value)
    problems = Problems(skip=True)
    rows = list(read_coco(tree.root, problems=problems))
    assert len(problems.found) == problems.count == 1 and "left out" in caplog.text
    objects = sum(len(row["objects"]) for row in rows)
    images = fault in ("image twice", "empty image", "size of the image", "height", "file")
    assert (len(rows), objects) == (
        (1, 2) if images else (1 if fault in ("size of the mask", "damaged mask") else 2, 2)
    )


def test_nan_is_no_json_and_no_crowd(tree, coco):
    coco["annotations"][0]["iscrowd"] = float("nan")
    tree.json("annotations/instances_train2017.json", coco)
    with pytest.raises(CorpusError, match="is not JSON: .* JSON has no NaN: write 0 or null"):
        list(read_coco(tree.root))
    problems = Problems()
    assert crowd_flag("annotation 1", {"iscrowd": float("nan")}, problems) is None
    assert problems.found == [("annotation 1", "its iscrowd is nan, not 0 or 1")]
    assert [crowd_flag("", {"iscrowd": flag}, problems) for flag in (0, 1, None, True)] == [False, True, False, True]


def test_all_faults_stand_in_one_list(tree, coco):
    coco["annotations"][0]["bbox"] = [5, 8, 0, 10]
    coco["annotations"][2]["category_id"] = 0
    tree.json("annotations/instances_train2017.json", coco)
    with pytest.raises(CorpusError, match="2 problems: annotation 1: .*; annotation 3: "):
        list(read_coco(tree.root))


def test_a_box_that_sticks_out_by_a_little_is_cut(tree, coco):
    coco["annotations"][0]["bbox"] = [-1.0, 8, 20, 22.5]
    tree.json("annotations/instances_train2017.json", coco)
    assert next(read_coco(tree.root))["objects"][0]["box"] == [0, 8, 19, 30]


def test_pictures_without_objects_are_kept_if_wanted(tree, coco):
    del coco["annotations"][2]
    tree.json("annotations/instances_train2017.json", coco)
    assert [len(row["objects"]) for row in read_coco(tree.root, keep_empty=True)] == [2, 0]


def test_a_box_may_be_left_to_its_mask(tree, coco):
    for entry in coco["annotations"]:
        del entry["bbox"]
    tree.json("annotations/instances_train2017.json", coco)
    assert [thing["box"] for row in read_coco(tree.root) for thing in row["objects"]] == [[5, 8, 15, 18]] * 3


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("missing", None, "expected annotations/instances_train2017.json"),
        ("no json", "{,", "is not JSON"),
        ("a list", "[]", "expected a JSON object"),
        ("no key", '{"images": [{"id": 1}], "annotations": []}', "annotations, categories is missing or empty"),
        ("no objects", '{"images": [3]}', "images holds 3, not an object"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tree, name, content, message):
    if content is not None:
        tree.text("annotations/instances_train2017.json", content)
        (tree.root / "train2017").mkdir()
    with pytest.raises(CorpusError, match=message) as error:
        list(read_coco(tree.root))
    assert "\n" not in str(error.value)


def test_categories_of_one_name_are_one(tree, coco, caplog):
    """As Roboflow exports them: a category above the others that never occurs, and names twice."""
    coco["categories"] = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        *({**category, "supercategory": "animals"} for category in coco["categories"]),
        {"id": 8, "name": "Dog", "supercategory": "animals"},
        {"id": 9, "name": "cat", "supercategory": "animals"},
    ]
    coco["annotations"][2]["category_id"] = 8
    path = tree.json("annotations/instances_train2017.json", coco)
    named = [thing["category"] for row in read_coco(tree.root) for thing in row["objects"]]
    assert named == ["traffic light", "dog", "dog"]
    assert read_vocabulary(path) == ["traffic light", "dog", "cat"], "without what only stands above others"
    assert "categories of one name are one class: dog" in caplog.text
    coco["annotations"][2]["category_id"] = 0
    assert read_vocabulary(tree.json("used.json", coco))[0] == "animals"
    coco["categories"][3]["id"] = 5
    coco["categories"].append({"id": 9, "name": "x"})
    tree.json("annotations/instances_train2017.json", coco)
    with pytest.raises(CorpusError, match="the categories 'cat' and 'x' have one id, 9"):
        list(read_coco(tree.root))


def test_polygons_of_every_form(tree, coco, square):
    corners = [5, 8, 15, 8, 15, 18, 5, 18]
    pairs = [[5, 8], [15, 8], [15, 18], [5, 18]]
    for form in ([corners], corners, pairs, [pairs]):
        for entry in coco["annotations"]:
            entry["segmentation"] = form
        tree.json("annotations/instances_train2017.json", coco)
        for row in read_coco(tree.root):
            for thing in row["objects"]:
                assert np.array_equal(decode_mask(thing["mask"], (30, 40)), square[2])
    coco["annotations"][0]["segmentation"] = [[]]
    tree.json("annotations/instances_train2017.json", coco)
    assert next(read_coco(tree.root))["objects"][0]["mask"] is None


def test_file_names_as_tools_write_them(tree, coco):
    for name in ("pictures/7.png", "pictures/sub/a.jpg", "pictures/images/b.jpg", "pictures/12.jpg"):
        tree.picture(name)
    folder, files = tree.root / "pictures", {}
    for name, file in {
        "sub\\a.jpg": "sub/a.jpg",
        7: "7.png",
        "12": "12.jpg",
        "C:\\data\\7.png": "7.png",
        "/home/other/7.png": "7.png",
        "https://example.org/upload/7.png?size=3": "7.png",
        "../upload/b.jpg": "images/b.jpg",
        "b.jpg": "images/b.jpg",
    }.items():
        files[name] = picture_finder(folder)({"file_name": name})
        assert files[name] == folder / file, name
    assert picture_finder(folder)({"file_name": 7.0}) == folder / "7.png"
    find = picture_finder(folder)
    assert find({"file_name": "x/7.png"}) == folder / "7.png"
    assert find({"file_name": "y/7.png"}) == folder / "y/7.png", "two pictures of one name: which is which?"
    tree.picture("pictures/12.png")
    assert picture_finder(folder)({"file_name": 12}) == folder / "12"
    for wrong in (None, "", float("nan"), ["7.png"]):
        with pytest.raises(ValueError, match="file_name"):
            find({"file_name": wrong})


def test_lvis(tree, coco):
    for image in coco["images"]:
        name = image.pop("file_name")
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{name}"
        image |= {"neg_category_ids": [3], "not_exhaustive_category_ids": [5]}
    coco["annotations"] = coco["annotations"][:1]
    tree.json("lvis_v1_train.json", coco)
    rows = list(read_lvis(tree.root))
    assert [(row["id"], row["incomplete"]) for row in rows] == [("7", ["dog"])]
    assert rows[0]["image"]["path"].endswith("train2017/000000000007.jpg")


@pytest.mark.parametrize(
    "patches", ["train/patch8", "train/images/v1/patch8", "images/train/patch8", "images/v1/patch8"]
)
def test_objects365(tree, coco, patches):
    for image in coco["images"]:
        image["file_name"] = f"images/v1/patch8/objects365_v1_{image['file_name']}"
        tree.picture(f"{patches}/{image['file_name'].split('/')[-1]}")
    for entry in coco["annotations"]:
        del entry["segmentation"]
        entry["isfake"] = 0
    tree.json("zhiyuan_objv2_train.json", coco)
    rows = list(read_objects365(tree.root))
    assert len(rows) == 2 and all(thing["mask"] is None for row in rows for thing in row["objects"])


def test_uvo_frames_have_no_classes(tree, coco):
    coco["categories"] = [{"id": 1, "name": "object"}]
    for entry in coco["annotations"]:
        entry["category_id"] = 1
    for image in coco["images"]:
        image["file_name"] = f"video{image['id']}/30.png"
    tree.json("FrameSet/UVO_frame_train.json", coco)
    tree.picture("uvo_videos_sparse_frames/video7/30.png")
    tree.picture("uvo_videos_sparse_frames/video9/30.jpg")
    rows = list(read_uvo(tree.root))
    assert len(rows) == 2 and {thing["category"] for row in rows for thing in row["objects"]} == {None}


@pytest.mark.shared
def test_coco_tiny(shared):
    for split in ("train", "val"):
        rows = list(read_coco(shared / "data/coco_tiny", split))
        assert len(rows) == 80
        for thing in rows[0]["objects"]:
            mask = decode_mask(thing["mask"], (rows[0]["height"], rows[0]["width"]))
            assert mask.any()
