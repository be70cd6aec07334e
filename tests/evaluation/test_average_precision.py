"""COCO's AP against pycocotools' own files, the other ones against cases worked out by hand and pycocotools itself."""

import json
from collections import defaultdict
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lookhear.evaluation.measures.average_precision import (
    class_agnostic_precision,
    federated_precision,
    picture_precision,
    track_iou,
    video_precision,
)
from lookhear.evaluation.measures.mask_runs import decode_mask, encode_mask, to_runs

SQUARE, OTHER, FAR = [0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]


def rows(*pictures, **columns) -> list[dict]:
    """`(label, box)` or `(label, box, score)` of each picture's things."""
    made = []
    for things in pictures:
        row = {"labels": [thing[0] for thing in things], "boxes": [thing[1] for thing in things]}
        if things and len(things[0]) > 2:
            row["scores"] = [thing[2] for thing in things]
        made.append(row)
    for name, values in columns.items():
        for row, value in zip(made, values):
            row[name] = value
    return made


def none_found() -> dict:
    return {"labels": [], "boxes": [], "scores": []}


def figures(table) -> list[float]:
    """In the order of pycocotools' summary."""
    areas = ("small", "medium", "large")
    return [
        table.average_precision(),
        table.average_precision(0.5),
        table.average_precision(0.75),
        *(table.average_precision(area=area) for area in areas),
        *(table.average_recall(limit) for limit in (1, 10, 100)),
        *(table.average_recall(area=area) for area in areas),
    ]


def coco_rows(truth: dict, results: list[dict], kind: str, pictures: list[int]) -> tuple[list[dict], list[dict]]:
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    columns: dict = {picture: (defaultdict(list), defaultdict(list)) for picture in pictures}
    for side, entries in enumerate((truth["annotations"], results)):
        for entry in entries:
            if entry["image_id"] not in columns:
                continue
            row = columns[entry["image_id"]][side]
            row["labels"].append(entry["category_id"])
            if kind == "box":
                x, y, width, height = entry["bbox"]
                row["boxes"].append([x, y, x + width, y + height])
            else:
                row["masks"].append(to_runs(entry["segmentation"], sizes[entry["image_id"]]))
            for name, column in (("score", "scores"), ("area", "areas"), ("iscrowd", "crowd")):
                if name in entry:
                    row[column].append(entry[name])
    things = {"labels": [], "boxes": [], "masks": []}
    pairs = [({**things, **truth}, {**things, "scores": [], **found}) for truth, found in columns.values()]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


@pytest.mark.shared
@pytest.mark.parametrize(("kind", "name"), [("box", "bbox"), ("mask", "segm")])
@pytest.mark.parametrize("part", ["all", "first100sorted"])
def test_coco_figures_of_pycocotools_files(shared, kind, name, part):
    """COCO to 3 decimals, the published files of pycocotools."""
    folder = shared / "data" / "metrics" / "coco"
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / f"instances_val2014_fake{name}100_results.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())[f"{name}/{part}"]
    pictures = {image["id"] for image in truth["images"]}
    if part != "all":
        pictures = {result["image_id"] for result in results}
    table = picture_precision(*coco_rows(truth, results, kind, sorted(pictures)), kind)
    assert figures(table) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("seed", range(4))
def test_random_pictures_against_pycocotools(seed):
    """Also with crowds, areas, equal scores, labels that are only found or only true, pictures without anything."""
    generator = np.random.default_rng(seed)

    def things(picture, scored):
        for _ in range(generator.integers(0, 6)):
            x, y = generator.integers(0, 60, 2).tolist()
            width, height = generator.integers(5, 120, 2).tolist()
            entry = {"image_id": picture, "category_id": int(generator.integers(1, 4 + scored))}
            entry |= {"bbox": [x, y, width, height], "area": width * height, "iscrowd": int(generator.random() < 0.1)}
            yield entry | ({"score": round(float(generator.random()), 1)} if scored else {})

    annotations = [entry for picture in range(1, 13) for entry in things(picture, False)]
    results = [entry for picture in range(1, 13) for entry in things(picture, True)]
    results += [{**entry, "score": 0.55} for entry in annotations[::2]]
    truth = {"images": [{"id": picture, "height": 200, "width": 200} for picture in range(1, 13)], "info": {}}
    truth["categories"] = [{"id": number} for number in range(1, 5)]
    truth["annotations"] = [{**entry, "id": number} for number, entry in enumerate(annotations, start=1)]
    for entry in results:
        entry.pop("iscrowd", None)
        entry.pop("area", None)
    with redirect_stdout(StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(entry) for entry in results]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # pycocotools goes through the pictures' results in the order of the file
    table = picture_precision(*coco_rows(truth, results, "box", list(range(1, 13))))
    assert figures(table) == pytest.approx(np.where(evaluation.stats < 0, np.nan, evaluation.stats), nan_ok=True)


def test_precision_by_hand():
    """Two objects; the best result is wrong, the second right, one object missed: precision 1/2 up to recall 1/2."""
    truth = rows([("cup", SQUARE), ("cup", OTHER)])
    found = rows([("cup", FAR, 0.9), ("cup", SQUARE, 0.8)])
    table = picture_precision(truth, found)
    assert table.average_precision() == pytest.approx(0.5 * 51 / 101)  # recalls 0, 0.01, … 0.5
    assert table.average_recall() == 0.5 and table.average_recall(1) == 0
    assert table.by_label() == {"cup": table.average_precision()}
    assert np.isnan(table.average_precision(area="large"))


def test_a_threshold_is_met_from_its_value_on():
    table = picture_precision(rows([("cup", SQUARE)]), rows([("cup", [0, 0, 10, 7.5], 0.5)]))  # IoU 0.75
    assert table.average_precision(0.75) == pytest.approx(1) and table.average_precision(0.8) == 0
    assert table.average_precision() == pytest.approx(6 / 10)


def test_labels_have_the_same_weight_and_only_true_ones_count():
    truth = rows([("cup", SQUARE), ("cup", OTHER), ("pen", FAR)])
    found = rows([("cup", SQUARE, 0.9), ("cup", OTHER, 0.8), ("fork", FAR, 0.7)])
    table = picture_precision(truth, found)
    assert table.labels == ["cup", "pen"] and table.average_precision() == pytest.approx(0.5)
    assert table.average_precision(labels=["cup"]) == pytest.approx(1)


def test_federated_labels_by_hand():
    """Four pictures of one label: there and found; known not to be there; unknown; there but not all marked."""
    truth = rows([("cup", SQUARE)], [], [], [("cup", SQUARE)])
    for row, absent, partly in zip(truth, ([], ["cup"], [], []), ([], [], [], ["cup"])):
        row |= {"absent": absent, "not_exhaustive": partly}
    right, wrong = ("cup", SQUARE, 0.5), ("cup", FAR, 0.9)
    everywhere = rows([right, wrong], [wrong], [wrong], [right, wrong])
    # Wrong ones count in the first two pictures only: 2 before the 2 right ones, so precision 2/4 at every recall.
    assert federated_precision(truth, everywhere, "box").average_precision() == pytest.approx(0.5)
    plain = picture_precision(truth, everywhere).average_precision()
    assert plain == pytest.approx(2 / 6)
    # At most `limit` results a picture, over all labels.
    crowded = rows([("pen", FAR, 0.9), right], [], [], [])
    for row in crowded[1:]:
        row["scores"] = []
    assert federated_precision(truth, crowded, "box", limit=1).average_recall() == 0
    assert federated_precision(truth, crowded, "box", limit=2).average_recall() == 0.5


def test_open_world_leaves_names_and_known_objects_out():
    truth = rows([("cup", SQUARE), ("pen", OTHER)])
    found = rows([("anything", OTHER, 0.9), ("anything", SQUARE, 0.8)])
    assert class_agnostic_precision(truth, found, "box").average_recall() == 1
    assert class_agnostic_precision(truth, found, "box").average_recall(1) == 0.5
    known = [{**truth[0], "known": [True, False]}]
    table = class_agnostic_precision(known, rows([("x", SQUARE, 0.9)]), "box")
    assert table.average_recall() == 0 and table.average_precision() == 0
    assert class_agnostic_precision(known, found, "box").average_precision() == pytest.approx(1)


def test_groups_of_labels_give_the_same_table(monkeypatch):
    """A large vocabulary is read some labels at a time."""
    generator = np.random.default_rng(0)

    def things(scored):
        for label in generator.choice(list("abcdefg"), 12):
            x, y = generator.integers(0, 50, 2).tolist()
            yield (str(label), [x, y, x + 20, y + 20], *([float(generator.random())] if scored else []))

    truth, found = rows(*(list(things(False)) for _ in range(6))), rows(*(list(things(True)) for _ in range(6)))
    for row in truth:
        row |= {"absent": ["a"], "not_exhaustive": ["b"]}
    whole = picture_precision(truth, found), federated_precision(truth, found, "box", 9)
    monkeypatch.setattr("lookhear.evaluation.measures.average_precision.LABELS_AT_ONCE", 3)
    parts = picture_precision(truth, found), federated_precision(truth, found, "box", 9)
    for one, other in zip(whole, parts):
        assert one.labels == other.labels == list("abcdefg")
        assert (one.precision == other.precision).all() and (one.recall == other.recall).all()


def test_groups_of_labels_in_videos(monkeypatch):
    truth = [{"labels": list("abc"), "masks": [track((0, 4)), track((2, 6)), track((4, 8))]}]
    found = [
        {"labels": list("cba"), "masks": [track((4, 7)), track((2, 6)), track((3, 8))], "scores": [0.5, 0.4, 0.3]}
    ]
    whole = video_precision(truth, found)
    monkeypatch.setattr("lookhear.evaluation.measures.average_precision.LABELS_AT_ONCE", 2)
    assert video_precision(truth, found).by_label() == whole.by_label() and 0 < whole.average_precision() < 1


def track(*spans) -> list:
    """A track of 4 x 8 pixels: the columns that are covered in each frame, None where it is not seen."""
    made = []
    for span in spans:
        mask = np.zeros((4, 8), bool)
        if span is not None:
            mask[:, span[0] : span[1]] = True
        made.append(None if span is None else encode_mask(mask))
    return made


def test_track_iou_by_hand():
    """Frame 1: 8 of 24 pixels shared; 2: only found, 8; 3: only true, 16: IoU 8 / (24 + 8 + 16)."""
    true, found = track((0, 4), None, (0, 4)), track((2, 6), (0, 2), None)
    runs = [[to_runs(mask) if mask else None for mask in one] for one in (true, found)]
    assert track_iou(*runs) == pytest.approx(8 / 48)
    assert track_iou([None], [None]) == 0


@pytest.mark.parametrize("seed", range(3))
def test_track_iou_against_pixels(seed):
    masks = np.random.default_rng(seed).random((2, 5, 9, 7)) < 0.4
    pair = [[to_runs(mask) for mask in one] for one in masks]
    assert track_iou(*pair) == pytest.approx((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())
    assert (decode_mask(pair[0][0]) == masks[0, 0]).all()


def test_video_precision_by_hand():
    """
    Two videos of one label: a track with an IoU of 0.625 (right at 0.5, 0.55, 0.6), one that is right throughout with
    a lower score, and one more that is wrong in between: at the first three thresholds precision 1 up to recall 1/2
    and 2/3 beyond it; above, 1/3 up to recall 1/2.
    """
    whole = track((0, 4), (0, 4))  # 32 pixels
    part = track((0, 4), (0, 1))  # 20 of them
    wrong = track((6, 8), None)
    truth = [{"labels": ["cat"], "masks": [whole]}, {"labels": ["cat"], "masks": [whole]}]
    found = [
        {"labels": ["cat"], "masks": [part], "scores": [0.9]},
        {"labels": ["cat", "cat"], "masks": [wrong, whole], "scores": [0.8, 0.7]},
    ]
    table = video_precision(truth, found)
    low, high = (51 + 50 * 2 / 3) / 101, 51 / 3 / 101
    assert table.average_precision() == pytest.approx((3 * low + 7 * high) / 10)
    assert table.average_precision(0.5) == pytest.approx(low)
    assert table.average_recall(1) == pytest.approx(3 / 10 * 0.5)  # the wrong one is the second video's best
    assert table.average_recall(10) == pytest.approx(0.3 * 1 + 0.7 * 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_a_video_of_one_frame_is_a_picture(seed):
    """The same precision and recall as of pictures, whose figures are pycocotools'."""
    generator = np.random.default_rng(seed)

    def blocks(scored):
        row = {"labels": [], "masks": []} | ({"scores": []} if scored else {})
        for _ in range(generator.integers(0, 7)):
            mask, (y, x) = np.zeros((20, 20), bool), generator.integers(0, 4, 2)
            mask[y : y + 14, x : x + 14] = True
            row["labels"].append(str(generator.choice(["cat", "dog"])))
            row["masks"].append(encode_mask(mask))
            if scored:
                row["scores"].append(float(generator.random()))
        return row

    truth, found = [blocks(False) for _ in range(8)], [blocks(True) for _ in range(8)]
    videos = [[{**row, "masks": [[mask] for mask in row["masks"]]} for row in side] for side in (truth, found)]
    pictures, tracks = picture_precision(truth, found, "mask"), video_precision(*videos)
    assert tracks.labels == pictures.labels and 0 < pictures.average_precision() < 1
    assert (tracks.precision[:, :, :, 0] == pictures.precision[:, :, :, 0]).all()
    assert (tracks.recall[:, :, 0] == pictures.recall[:, :, 0]).all()


def test_area_of_a_track_is_the_mean_over_the_frames_in_which_it_is_seen():
    mask = np.zeros((200, 200), bool)
    mask[:130, :130] = True  # 16900 pixels: medium where only one of two frames counts
    seen = [encode_mask(mask), None]
    table = video_precision(
        [{"labels": ["cat"], "masks": [seen]}], [{"labels": ["cat"], "masks": [seen], "scores": [1.0]}]
    )
    assert table.average_precision(area="medium") == pytest.approx(1) and np.isnan(
        table.average_precision(area="small")
    )


def test_bad_rows_are_named():
    with pytest.raises(ValueError, match="differ in number"):
        picture_precision(rows([]), [])
    with pytest.raises(ValueError, match="kind"):
        picture_precision(rows([]), [none_found()], "boxes")
    with pytest.raises(ValueError, match="row 0: 1 labels, but 0 boxes"):
        picture_precision([{"labels": ["cup"], "boxes": []}], [none_found()])
    with pytest.raises(ValueError, match="one mask or None per frame"):
        tracks = [{"labels": ["cat"], "masks": [track((0, 1))]}]
        video_precision(tracks, [{"labels": ["cat"], "masks": [track((0, 1), None)], "scores": [1.0]}])


def test_nothing_is_found():
    table = picture_precision(rows([("cup", SQUARE)]), [none_found()])
    assert table.average_precision() == 0 and table.average_recall() == 0
    assert np.isnan(picture_precision(rows([]), [none_found()]).average_precision())
