"""Published layouts, made up file by file, become subjects whose masks are those that were drawn."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookhear.processing.glee.geometry_glee import coco_rle
from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.lisa_glee.corpora.instances import spoken
from lookhear.training.lisa_glee.corpora.opening import NAMES, open_corpus
from lookhear.training.lisa_glee.corpora.reason_seg import read_annotation
from lookhear.training.lisa_glee.corpora.schema import AnnotatedPicture

HEIGHT, WIDTH = 20, 30


def save_picture(path: Path, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (90, 120, 30)).save(path)
    return path


def rectangle(x0: int, y0: int, x1: int, y1: int) -> list[float]:
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def drawn(*rectangles: tuple[int, int, int, int]) -> np.ndarray:
    """A mask of rectangles, pixel by pixel."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            mask[y, x] = any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in rectangles)
    return mask


def masks(picture: AnnotatedPicture) -> dict[str, np.ndarray]:
    return {subject.text: subject.region.decode(picture.size) for subject in picture.subjects}


def same(picture: AnnotatedPicture, expected: dict[str, np.ndarray]) -> None:
    found = masks(picture)
    assert found.keys() == expected.keys()
    for name, mask in expected.items():
        assert np.array_equal(found[name], mask), name


def coco_json(path: Path, file: str, categories: list[str], objects: list[tuple[int, list, int]], **image) -> Path:
    """A file in COCO's form: objects are (category, rectangles, crowd)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    annotations = []
    for index, (category, rectangles, crowd) in enumerate(objects):
        x0, y0, x1, y1 = (f(part) for f, part in zip((min, min, max, max), zip(*rectangles)))
        shape = coco_rle(drawn(*rectangles)) if crowd else [rectangle(*one) for one in rectangles]
        entry = {"id": index + 1, "image_id": 7, "category_id": category, "iscrowd": crowd}
        annotations.append(entry | {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": shape})
    content = {
        "images": [{"id": 7, "file_name": file, "height": HEIGHT, "width": WIDTH, **image}],
        "annotations": annotations,
        "categories": [{"id": index, "name": name} for index, name in enumerate(categories)],
    }
    path.write_text(json.dumps(content))
    return path


def test_coco_asks_for_all_objects_of_a_class_groups_too(tmp_path):
    save_picture(tmp_path / "train2017/000000000007.jpg")
    objects = [(0, [(1, 2, 6, 9)], 0), (1, [(10, 10, 20, 18)], 0), (0, [(22, 3, 29, 7), (22, 12, 26, 15)], 1)]
    coco_json(tmp_path / "annotations/instances_train2017.json", "000000000007.jpg", ["person", "dog"], objects)
    (picture,) = list(open_corpus("coco", tmp_path))
    person = drawn((1, 2, 6, 9), (22, 3, 29, 7), (22, 12, 26, 15))
    same(picture, {"person": person, "dog": drawn((10, 10, 20, 18))})
    assert picture.size == (HEIGHT, WIDTH) and picture.image["path"].endswith("000000000007.jpg")
    assert {subject.kind for subject in picture.subjects} == {"name"} and picture.ignored is None


def test_lvis_does_not_ask_for_classes_that_are_not_annotated_exhaustively(tmp_path):
    save_picture(tmp_path / "coco/val2017/000000000007.jpg")
    objects = [(1, [(1, 2, 6, 9)], 0), (2, [(10, 10, 20, 18)], 0), (0, [(22, 3, 29, 7)], 0)]
    names = ["mouse_(computer_equipment)", "baseball_bat", "ball"]
    url = {"coco_url": "http://images/val2017/000000000007.jpg", "not_exhaustive_category_ids": [2]}
    coco_json(tmp_path / "lvis/lvis_v1_train.json", "", names, objects, **url)
    (picture,) = list(open_corpus("lvis", tmp_path / "lvis", images=tmp_path / "coco"))
    same(picture, {"baseball bat": drawn((1, 2, 6, 9)), "mouse": drawn((22, 3, 29, 7))})


def test_paco_and_pascal_part_ask_for_parts(tmp_path):
    objects = [(0, [(1, 2, 16, 19)], 0), (1, [(1, 2, 6, 9)], 0), (1, [(8, 2, 12, 9)], 0)]
    save_picture(tmp_path / "coco/train2017/000000000007.jpg")
    file = "train2017/000000000007.jpg"
    coco_json(tmp_path / "paco/annotations/paco_lvis_v1_train.json", file, ["trash_can", "trash_can:handle"], objects)
    (picture,) = list(open_corpus("paco", tmp_path / "paco", images=tmp_path / "coco"))
    handles = drawn((1, 2, 6, 9), (8, 2, 12, 9))
    same(picture, {"trash can": drawn((1, 2, 16, 19)), "handle of the trash can": handles})
    save_picture(tmp_path / "parts/VOCdevkit/VOC2010/JPEGImages/2008_000007.jpg")
    coco_json(tmp_path / "parts/train.json", "2008_000007.jpg", ["dog", "dog:left ear"], objects)
    (picture,) = list(open_corpus("pascal_part", tmp_path / "parts", cache=tmp_path / "parts.arrow"))
    same(picture, {"dog": drawn((1, 2, 16, 19)), "left ear of the dog": handles})
    (tmp_path / "parts/train.json").unlink()
    assert len(open_corpus("pascal_part", tmp_path / "parts", cache=tmp_path / "parts.arrow")) == 1


@pytest.mark.parametrize(
    ("category", "said"),
    [("dog:head", "head of the dog"), ("bow_(weapon)", "bow"), ("mouse (computer equipment)", "mouse")]
    + [("traffic_light", "traffic light"), ("car_(automobile):wheel", "wheel of the car"), (":odd", ":odd")],
)
def test_categories_are_written_as_they_are_said(category, said):
    assert spoken(category) == said


def write_refer(folder: Path, name: str, split_by: str, file: str, segmentations: list) -> None:
    """A data set of the refer family with one sentence on each of some objects."""
    annotations = [
        {"id": number, "image_id": 7, "category_id": 1, "bbox": [0, 0, WIDTH, HEIGHT], "segmentation": shape}
        for number, shape in enumerate(segmentations)
    ]
    images = [{"id": 7, "file_name": file, "height": HEIGHT, "width": WIDTH}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "man"}]}
    (folder / name).mkdir(parents=True)
    (folder / name / "instances.json").write_text(json.dumps(content))
    references = [
        {"ref_id": number, "ann_id": number, "image_id": 7, "split": "train", "category_id": 1}
        | {"sentences": [{"sent": f"man number {number}"}]}
        for number in range(len(segmentations))
    ]
    (folder / name / f"refs({split_by}).p").write_bytes(pickle.dumps(references))


@pytest.mark.parametrize("name", ["refcoco", "refcoco+", "refcocog"])
def test_the_refcoco_family_asks_for_its_sentences(tmp_path, name):
    save_picture(tmp_path / "coco/train2014/COCO_train2014_7.jpg")
    split_by = "umd" if name == "refcocog" else "unc"
    shapes = [[rectangle(1, 2, 6, 9)], [rectangle(10, 10, 20, 18), rectangle(3, 12, 5, 14)]]
    write_refer(tmp_path, name, split_by, "COCO_train2014_7.jpg", shapes)
    (picture,) = list(open_corpus("refcoco", tmp_path / name, images=tmp_path / "coco", split_by=split_by))
    expected = {"man number 0": drawn((1, 2, 6, 9)), "man number 1": drawn((10, 10, 20, 18), (3, 12, 5, 14))}
    same(picture, expected)
    assert {subject.kind for subject in picture.subjects} == {"phrase"}


def test_refclef_has_lists_of_run_lengths(tmp_path):
    save_picture(tmp_path / "images/saiapr_tc-12/00/images/25.jpg")
    one, two = coco_rle(drawn((1, 2, 6, 9))), coco_rle(drawn((4, 2, 8, 15)))
    write_refer(tmp_path, "refclef", "unc", "00/images/25.jpg", [[one], [one, two]])
    (picture,) = list(open_corpus("refcoco", tmp_path / "refclef", split_by="unc"))
    same(picture, {"man number 0": drawn((1, 2, 6, 9)), "man number 1": drawn((1, 2, 6, 9), (4, 2, 8, 15))})
    damaged = [[one, {"size": [HEIGHT, WIDTH], "counts": "0"}]]
    write_refer(tmp_path / "bad", "refclef", "unc", "00/images/25.jpg", damaged)
    with pytest.raises(CorpusError, match="annotation 0: its mask cannot be used"):
        open_corpus("refcoco", tmp_path / "bad/refclef", images=tmp_path / "images")


def write_ade(folder: Path, labels: np.ndarray, table: str | None = None) -> Path:
    save_picture(folder / "images/training/ADE_train_00000001.jpg")
    (folder / "annotations/training").mkdir(parents=True)
    Image.fromarray(labels).save(folder / "annotations/training/ADE_train_00000001.png")
    rows = [
        "Idx\tRatio\tTrain\tVal\tStuff\tName",
        "1\t0.15\t11664\t1172\t1\twall",
        "2\t0.1\t9\t9\t1\tbuilding, edifice",
    ]
    (folder / "objectInfo150.txt").write_text(table or "\n".join([*rows, "3\t0.1\t9\t9\t1\tsky"]) + "\n")
    return folder


def test_ade20k_asks_for_the_classes_of_a_label_map(tmp_path):
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:5], labels[10:, 4:9] = 3, 2
    (picture,) = list(open_corpus("ade20k", write_ade(tmp_path, labels)))
    same(picture, {"building": drawn((4, 10, 9, 20)), "sky": drawn((0, 0, 30, 5))})
    assert np.array_equal(picture.ignored.decode(picture.size), ~drawn((4, 10, 9, 20), (0, 0, 30, 5)))


def test_coco_stuff_counts_from_zero_and_does_not_ask_for_double_names(tmp_path):
    labels = np.full((HEIGHT, WIDTH), 255, np.uint8)
    labels[:5], labels[5:8], labels[12:, 20:] = 0, 170, 123
    save_picture(tmp_path / "coco/train2017/000000000007.jpg")
    maps = tmp_path / "stuff/train2017"
    maps.mkdir(parents=True)
    Image.fromarray(labels).save(maps / "000000000007.png")
    (tmp_path / "stuff/labels.txt").write_text("0: unlabeled\n1: person\n124: grass\n171: wall-brick\n")
    (picture,) = list(open_corpus("coco_stuff", tmp_path / "stuff", images=tmp_path / "coco"))
    same(picture, {"person": drawn((0, 0, 30, 5)), "grass": drawn((20, 12, 30, 20))})
    known = drawn((0, 0, 30, 8), (20, 12, 30, 20))  # brick is known not to be grass
    assert np.array_equal(picture.ignored.decode(picture.size), ~known)


def write_reason_seg(root: Path, shapes: list, texts: list[str], sentence: bool, encoding: str = "utf-8") -> Path:
    picture = save_picture(root / "ReasonSeg/train/table.jpg")
    content = {"shapes": shapes, "text": texts, "is_sentence": sentence}
    picture.with_suffix(".json").write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    return root


def shape(label: str, *corners: int) -> dict:
    x0, y0, x1, y1 = corners
    return {"label": label, "points": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]}


def test_reason_seg_fills_the_largest_polygon_first(tmp_path):
    """In the file the small ones stand first: an ignored hole in the target, a part of the target within it."""
    shapes = [shape("target", 8, 8, 10, 10), shape("flag", 0, 0, 30, 20), shape("ignore", 6, 6, 14, 14)]
    shapes += [shape("target", 2, 2, 20, 18), {"label": "target", "points": [[1, 1], [2, 2]]}]
    root = write_reason_seg(tmp_path, shapes, ["the café's table ", "where to\neat"], False, "cp1252")
    (picture,) = list(open_corpus("reason_seg", root))
    target, ignored = np.zeros((HEIGHT, WIDTH), bool), np.zeros((HEIGHT, WIDTH), bool)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            inner = 8 <= x < 10 and 8 <= y < 10
            hole = 6 <= x < 14 and 6 <= y < 14
            target[y, x] = inner or (2 <= x < 20 and 2 <= y < 18 and not hole)
            ignored[y, x] = hole and not inner
    same(picture, {"the café's table": target, "where to eat": target})
    assert np.array_equal(picture.ignored.decode(picture.size), ignored)
    assert {subject.kind for subject in picture.subjects} == {"phrase"}


def test_reason_seg_has_explanations(tmp_path):
    root = write_reason_seg(tmp_path, [shape("target", 2, 2, 20, 18)], ["What rolls?", "What is round?"], True)
    entries = [
        {"image": "table.jpg", "query": "What rolls?", "outputs": "A ball does."},
        {"image": "table.jpg", "query": "What would a child play with?", "outputs": "It likes the ball."},
        {"image": "other.jpg", "query": "What is round?", "outputs": "Nothing."},
    ]
    (root / "ReasonSeg/explanatory").mkdir()
    (root / "ReasonSeg/explanatory/train.json").write_text(json.dumps(entries))
    for place in (root, root / "ReasonSeg"):
        (picture,) = list(open_corpus("reason_seg", place))
        found = {subject.text: subject.reason for subject in picture.subjects}
        expected = {"What rolls?": "A ball does.", "What is round?": ""}
        assert found == expected | {"What would a child play with?": "It likes the ball."}
        assert {subject.kind for subject in picture.subjects} == {"question"}


def test_a_turned_photo_is_annotated_upright(tmp_path):
    root = write_reason_seg(tmp_path, [shape("target", 2, 20, 8, 28)], ["What rolls?"], True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "ReasonSeg/train/table.jpg", exif=exif)
    (picture,) = list(open_corpus("reason_seg", root))
    assert picture.size == (WIDTH, HEIGHT)  # upright it is tall
    assert int(masks(picture)["What rolls?"].sum()) == 6 * 8


def test_llava_instruct_is_a_conversation_in_words(tmp_path):
    save_picture(tmp_path / "train2017/000000000007.jpg")
    said = ["What is this?\n<image>", "A lawn.", "Is it wet?", "No."]
    turns = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(said)]
    entries = [{"id": "000000000007", "image": "000000000007.jpg", "conversations": turns}]
    (tmp_path / "llava_instruct_150k.json").write_text(json.dumps(entries))
    (picture,) = list(open_corpus("llava_instruct", tmp_path, images=tmp_path))
    assert [(turn.question, turn.answer, turn.region) for turn in picture.turns] == [
        ("What is this?", "A lawn.", None),
        ("Is it wet?", "No.", None),
    ]
    assert not picture.subjects and picture.size is None
    entries += [{"id": "9", "image": "9.jpg", "conversations": turns[1:]}, {"id": "10"}]
    (tmp_path / "llava_instruct_150k.json").write_text(json.dumps(entries))
    with pytest.raises(CorpusError, match="2 problems: entry 1: human and gpt don't take turns: gpt, human, gpt; "):
        open_corpus("llava_instruct", tmp_path, images=tmp_path)
    problems = Problems(skip=True)
    assert len(open_corpus("llava_instruct", tmp_path, images=tmp_path, problems=problems)) == 1
    assert problems.count == 2


@pytest.mark.parametrize("reader", NAMES)
def test_a_missing_corpus_is_refused_in_one_line(tmp_path, reader):
    with pytest.raises(CorpusError, match="expected|missing") as raised:
        open_corpus(reader, tmp_path, **({"images": tmp_path} if reader == "llava_instruct" else {}))
    assert "\n" not in str(raised.value)


def test_wrong_names_are_refused(tmp_path):
    with pytest.raises(CorpusError, match="there is no reader 'cocos'; choose one of ade20k, coco"):
        open_corpus("cocos", tmp_path)
    with pytest.raises(CorpusError, match="ade20k: .*imagess"):
        open_corpus("ade20k", tmp_path, imagess=tmp_path)


def test_damaged_files_are_refused_in_one_line(tmp_path):
    labels = np.ones((HEIGHT, WIDTH), np.uint8)
    ade = write_ade(tmp_path / "ade", labels)
    path = ade / "annotations/training/ADE_train_00000001.png"
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    with pytest.raises(CorpusError, match="'RGB', not one number"):
        open_corpus("ade20k", ade)[0]
    path.write_bytes(b"\x89PNG damaged")
    with pytest.raises(CorpusError, match="cannot be read"):
        open_corpus("ade20k", ade)[0]
    path.unlink()
    with pytest.raises(CorpusError, match=r"ADE_train_00000001.jpg: its label map .* is missing"):
        open_corpus("ade20k", ade)
    with pytest.raises(CorpusError, match="a class's number first and its name last"):
        open_corpus("ade20k", write_ade(tmp_path / "names", labels, "1,wall\n"))
    for content, message in (
        ("{", "is not JSON"),
        ("[]", "a JSON object"),
        ('{"text": "a", "is_sentence": true}', "shapes is missing"),
        ('{"text": "a", "is_sentence": true, "shapes": [{"label": "target", "points": [[1]]}]}', "pairs of numbers"),
    ):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(CorpusError, match=message):
            read_annotation(tmp_path / "bad.json")
