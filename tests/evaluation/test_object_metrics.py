"""The metric folders load by their path without network and give what the arithmetic gives."""

import evaluate
import numpy as np
import pytest

from lookhear.evaluation.measures.mask_runs import encode_mask

NAMES = ("coco_ap", "lvis_ap", "open_world_ar", "vis_ap", "referring", "j_and_f", "mot", "hota", "teta")
NAMES += ("reasoning_segmentation",)
BOX, FAR = [0.0, 0.0, 8.0, 4.0], [20.0, 20.0, 28.0, 24.0]


@pytest.fixture(scope="module")
def load(repository, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return lambda name: evaluate.load(str(repository / "evaluation" / "metrics" / name), cache_dir=str(cache))


def runs() -> dict:
    mask = np.zeros((30, 30), bool)
    mask[:4, :8] = True
    return encode_mask(mask)


@pytest.mark.parametrize("name", NAMES)
def test_folder_describes_itself(load, name):
    info = load(name)
    assert info.description.strip() and "Returns:" in info.inputs_description and "@" in info.citation


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_coco_ap(load, kind):
    truth = {"labels": ["cup"], "boxes": [BOX], "masks": [runs()]}
    found = truth | {"scores": [0.5]}
    result = load("coco_ap").compute(references=[truth], predictions=[found], kind=kind)
    assert result["AP"] == pytest.approx(1) and result["AR_1"] == 1 and result["labels"] == {"cup": result["AP"]}
    assert np.isnan(result["AP_large"])


def test_columns_may_be_missing(load):
    """Boxes alone, and a crowd that is not missed."""
    truth = {"labels": ["cup", "cup"], "boxes": [BOX, FAR], "crowd": [False, True]}
    found = {"labels": ["cup"], "boxes": [BOX], "scores": [0.5]}
    assert load("coco_ap").compute(references=[truth], predictions=[found])["AR_100"] == 1


def test_lvis_ap(load):
    truth = {"labels": ["cup"], "boxes": [BOX], "absent": [], "not_exhaustive": []}
    found = {"labels": ["cup", "pen"], "boxes": [BOX, FAR], "scores": [0.5, 0.9]}
    frequencies = {"cup": "r", "pen": "f"}
    result = load("lvis_ap").compute(references=[truth], predictions=[found], kind="box", frequencies=frequencies)
    assert result["AP"] == result["AP_rare"] == pytest.approx(1) and np.isnan(result["AP_frequent"])


def test_open_world_ar(load):
    truth = {"boxes": [BOX, FAR], "known": [True, False]}
    found = {"boxes": [BOX], "scores": [0.5]}
    assert load("open_world_ar").compute(references=[truth], predictions=[found], kind="box")["AR_100"] == 0


def test_vis_ap(load):
    truth = {"labels": ["cat"], "masks": [[runs(), None, runs()]]}
    found = truth | {"scores": [0.5]}
    result = load("vis_ap").compute(
        references=[truth], predictions=[found], groups={"novel": ["cat"], "base": ["dog"]}
    )
    assert result["AP"] == result["AP_novel"] == pytest.approx(1) and np.isnan(result["AP_base"])


def test_referring(load):
    answer = {"box": BOX, "mask": runs()}
    result = load("referring").compute(references=[answer, answer], predictions=[answer, {"box": None, "mask": None}])
    assert result["box_P@0.5"] == result["mask_mIoU"] == 0.5


def test_reasoning_segmentation(load):
    """One answer is right, one shows what is ignored, one rightly nothing, one nothing where something is meant."""
    group, meant = {"group": "short"}, {"masks": [runs()], "text": "the cup"}
    references = [meant | group, {"masks": [], "ignored": runs()}, group, meant]
    predictions = [{"masks": [runs(), runs()], "text": "The cup."}, {"masks": [runs()]}, {"masks": []}, {}]
    result = load("reasoning_segmentation").compute(references=references, predictions=predictions)
    assert result["gIoU"] == 0.75 and result["cIoU"] == 0.5 and result["none"] == 0.5 and result["samples"] == 4
    assert result["words"] == 0 and result["groups"]["short"]["gIoU"] == 1


def test_j_and_f(load):
    track = {"masks": [runs()] * 4}
    found = {"masks": [None, None, runs(), None]}
    result = load("j_and_f").compute(references=[track | {"name": "dog/1"}], predictions=[found])
    assert result["J"] == 0.5 and result["objects"][0]["name"] == "dog/1"


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_mot_and_hota(load, kind):
    frame = {"ids": [1], "boxes": [BOX], "masks": [runs()]}
    references = [frame | {"video": name} for name in ("a", "a", "b")]
    predictions = [frame, frame | {"ids": [2]}, frame]
    result = load("mot").compute(references=references, predictions=predictions, kind=kind)
    assert result["mota"] == pytest.approx(2 / 3) and result["switches"] == 1 and result["videos"]["b"]["mota"] == 1
    result = load("hota").compute(references=references, predictions=predictions, kind=kind)
    assert result["AssA"] == pytest.approx((0.5 + 0.5 + 1) / 3) and result["videos"]["b"]["HOTA"] == 1


def test_hota_by_label(load):
    """Without notes all is marked throughout; with notes a label about which nothing is known does not count."""
    frame = {"ids": [1], "boxes": [BOX], "labels": ["cat"]}
    references = [frame | {"video": "a"}, {"video": "a", "ids": [], "boxes": [], "labels": []}]
    result = load("hota").compute(references=references, predictions=[frame] * 2, by_label=True)
    assert result["DetA"] == pytest.approx(1 / 2) and list(result["labels"]) == ["cat"]
    noted = [row | {"absent": [], "not_exhaustive": []} for row in references]
    assert load("hota").compute(references=noted, predictions=[frame] * 2, by_label=True)["DetA"] == pytest.approx(1)


def test_teta(load):
    frame = {"ids": [1], "boxes": [BOX], "labels": ["cat"]}
    result = load("teta").compute(references=[frame | {"video": "a"}], predictions=[frame | {"labels": ["dog"]}])
    assert result["LocA"] == 1 and result["ClsA"] == 0 and result["labels"]["cat"]["TETA"] == pytest.approx(2 / 3)
