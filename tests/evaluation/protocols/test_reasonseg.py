"""A made-up ReasonSeg tree evaluates to figures that were computed by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from lookhear.evaluation.protocols.layout import LayoutError
from lookhear.evaluation.protocols.reasonseg import IGNORED, MEANT, fill, read_annotations
from lookhear.evaluation.protocols.run import ProtocolRun
from lookhear.evaluation.protocols.running import format_report, run_protocol

WIDTH, HEIGHT = 20, 10


def rectangle(x0: int, y0: int, x1: int, y1: int, label: str = "target") -> dict:
    """A polygon whose outline is part of it: `(x1 - x0 + 1) * (y1 - y0 + 1)` pixels."""
    return {"label": label, "points": [[x0, y0], [x1 + 0.4, y0], [x1, y1], [x0, y1]]}


def mask(*boxes: tuple[int, int, int, int], size=(HEIGHT, WIDTH)) -> np.ndarray:
    pixels = np.zeros(size, bool)
    for x0, y0, x1, y1 in boxes:
        pixels[y0 : y1 + 1, x0 : x1 + 1] = True
    return pixels


def write(folder, name: str, shapes: list, text: list, sentence: bool, encoding="utf-8", turned=False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6  # is shown turned by 90 degrees: 10 wide, 20 high
    Image.new("RGB", (WIDTH, HEIGHT), "grey").save(folder / f"{name}.jpg", exif=exif)
    content = {"shapes": shapes, "text": text, "is_sentence": sentence}
    (folder / f"{name}.json").write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "data" / "ReasonSeg" / "val"
    write(folder, "a", [rectangle(2, 2, 7, 5)], ["What would you drink from?", "Where is the tea"], True)
    ignored = rectangle(0, 0, 9, 9, "Ignore_1")
    write(folder, "b", [ignored, rectangle(0, 0, 19, 9)], ["the warm side."], False)
    flag = rectangle(0, 0, 19, 9, "flag")
    write(folder, "c", [flag], ["the caf\u00e9\u2019s door"], False, encoding="cp1252")
    write(folder, "d", [rectangle(0, 15, 9, 19)], ["Who stands\n below?"], True, turned=True)
    shapes = [rectangle(2, 2, 4, 4), ignored, rectangle(15, 0, 19, 9)]
    write(folder, "e", shapes, ["What are these?"], True)
    return tmp_path / "data"


# Of each question: the masks of its answer.
ANSWERS = {
    "What would you drink from? Show your answer in the picture.": [mask((2, 2, 7, 5))],  # 24 of 24 pixels
    "Where is the tea. Show your answer in the picture.": [mask((2, 2, 7, 3))],  # 12 of 24
    # 50 of 100; the other 50 that are shown are ignored
    "Show me this part of the picture: the warm side.": [mask((10, 0, 14, 9)), mask((0, 0, 4, 9))],
    "Show me this part of the picture: the caf\u00e9\u2019s door.": [],  # nothing is meant
    "Who stands below? Show your answer in the picture.": [mask((0, 10, 9, 19), size=(WIDTH, HEIGHT))],  # 50 of 100
    "What are these? Show your answer in the picture.": [],  # 0 of 9 + 50
}


class Answerer:
    """What `ask` is to a protocol; stops with an error when it has answered `most` questions."""

    def __init__(self, most: int = 100):
        self.most = most
        self.calls: list[list[dict]] = []

    def __call__(self, inputs, batch_size):
        assert batch_size == len(inputs)
        if sum(map(len, self.calls)) + len(inputs) > self.most:
            raise KeyboardInterrupt
        self.calls.append(inputs)
        return [
            {"text": "here", "objects": [{"mask": shown, "box": None, "label": "", "score": 1.0} for shown in some]}
            for some in (ANSWERS[item["question"]] for item in inputs)
        ]


def start(tree, ask, **settings) -> ProtocolRun:
    def see(*inputs):
        raise AssertionError("no object is looked for")

    return ProtocolRun("reasonseg", tree, tree.parent / "out", see=see, ask=ask, **settings)


def test_figures_by_hand(tree):
    report = run_protocol(start(tree, Answerer()))
    assert report.split == "val" and report.count == 6 and report.unit == "queries"
    assert report.metrics == pytest.approx(
        {
            "gIoU": (1 + 0.5 + 0.5 + 1 + 0.5 + 0) / 6,
            "cIoU": (24 + 12 + 50 + 50) / (24 + 24 + 100 + 100 + 59),
            "gIoU_long": (1 + 0.5 + 0.5 + 0) / 4,
            "cIoU_long": (24 + 12 + 50) / (24 + 24 + 100 + 59),
            "gIoU_short": (0.5 + 1) / 2,
            "cIoU_short": 50 / 100,
        }
    )
    first = report.parts["first_query"]
    assert first["gIoU"] == pytest.approx((1 + 0.5 + 1 + 0.5 + 0) / 5)
    assert first["cIoU"] == pytest.approx((24 + 50 + 50) / (24 + 100 + 100 + 59))
    saved = json.loads((tree.parent / "out" / "report.json").read_text())
    assert saved["metrics"] == report.metrics and "first queries" in saved["note"]
    assert "gIoU_short   75.00" in format_report(report)


def test_an_interrupted_run_resumes(tree):
    whole = run_protocol(start(tree, Answerer(), split="val"))
    for file in (tree.parent / "out").iterdir():
        file.unlink()
    with pytest.raises(KeyboardInterrupt):
        run_protocol(start(tree, Answerer(most=4)))
    later = Answerer()
    assert run_protocol(start(tree, later)).metrics == whole.metrics
    assert [item["question"][:3] for call in later.calls for item in call] == ["Who", "Wha"]
    assert run_protocol(start(tree, Answerer(most=0))).metrics == whole.metrics


def test_questions_about_a_picture_share_it(tree):
    """So that the pipeline reads it once."""
    answerer = Answerer()
    run_protocol(start(tree, answerer, batch_size=3, limit=4))
    assert [len(call) for call in answerer.calls] == [4, 1]
    images = [item["image"] for item in answerer.calls[0]]
    assert images[0] is images[1] and images[1] != images[2] and images[0].endswith("a.jpg")


def test_the_folder_may_be_the_tree_itself(tree):
    report = run_protocol(start(tree / "ReasonSeg", Answerer(), limit=1))
    assert report.count == 2 and report.metrics["gIoU"] == 0.75


def test_small_polygons_lie_on_large_ones():
    large, small = np.array([[0, 0], [19, 0], [19, 9], [0, 9]]), np.array([[3, 3], [5, 3], [5, 5], [3, 5]])
    for polygons in ([(MEANT, large), (IGNORED, small)], [(IGNORED, small), (MEANT, large)]):
        values = fill(polygons, (HEIGHT, WIDTH))
        assert (values == IGNORED).sum() == 9 and (values == MEANT).sum() == 191 and values[3, 5] == IGNORED
    line = fill([(MEANT, np.array([[1, 1], [4, 1]])), (IGNORED, np.array([[7, 7]]))], (HEIGHT, WIDTH))
    assert np.argwhere(line == MEANT).tolist() == [[1, x] for x in range(1, 5)]
    assert np.argwhere(line == IGNORED).tolist() == [[7, 7]]
    triangle = fill([(MEANT, np.array([[0, 0], [4, 0], [0, 4], [-9, 2]]))], (HEIGHT, WIDTH))  # partly outside
    assert triangle[0, :5].all() and triangle[4, 0] and not triangle[4, 1]


def test_texts_and_flags_are_read(tmp_path):
    write(tmp_path, "x", [rectangle(1, 1, 2, 2, "flag_old")], "one  query", True)
    found = read_annotations(tmp_path / "x.json")
    assert found.queries == ["one query"] and found.polygons == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[", "x.json is not JSON"),
        (b"\x81\x8d", "x.json is not JSON"),
        (b"[]", "shapes, text, is_sentence is missing"),
        (b'{"shapes": [], "text": ["a"]}', "; is_sentence is missing"),
        (b'{"shapes": [], "text": [" "], "is_sentence": true}', "text holds no query"),
        (b'{"shapes": {}, "text": ["a"], "is_sentence": true}', "text and shapes have to be lists"),
        (b'{"shapes": [{"label": "target"}], "text": ["a"], "is_sentence": true}', "needs a label and points"),
        (
            b'{"shapes": [{"label": "t", "points": [[1]]}], "text": ["a"], "is_sentence": 1}',
            "needs a label and points",
        ),
        (b'{"shapes": [{"label": "t", "points": [[1, NaN]]}], "text": ["a"], "is_sentence": 1}', "finite numbers"),
    ],
)
def test_what_is_no_annotation(tmp_path, content, message):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(LayoutError, match=message):
        read_annotations(tmp_path / "x.json")


def test_missing_files_are_named_before_a_question_is_asked(tree):
    folder = tree / "ReasonSeg" / "val"
    with pytest.raises(LayoutError, match="ReasonSeg/test"):
        run_protocol(start(tree, Answerer(most=0), split="test"))
    (folder / "b.jpg").unlink()
    with pytest.raises(LayoutError, match="b.jpg is missing"):
        run_protocol(start(tree, Answerer(most=0)))
    (folder / "c.json").unlink()
    with pytest.raises(LayoutError, match="c.json is missing"):
        run_protocol(start(tree, Answerer(most=0)))
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(LayoutError, match="expected NAME.jpg and NAME.json"):
        run_protocol(start(tree, Answerer()))
    with pytest.raises(ValueError, match="needs the pipeline reasoning-segmentation"):
        write(folder, "a", [], ["a"], True)
        run_protocol(start(tree, None))
