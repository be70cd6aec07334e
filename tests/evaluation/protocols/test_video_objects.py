"""DAVIS, YouTube-VOS and Ref-YouTube-VOS on folders of their layout."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from lookhear.evaluation.protocols.layout import LayoutError
from lookhear.evaluation.protocols.running import run_protocol
from lookhear.evaluation.protocols.submission import davis_palette

from .conftest import Painter, paint, save_json, save_numbers, save_picture

ONE, TWO = (2, 2, 12, 10), (15, 4, 30, 20)
FRAMES = ({1: ONE}, {1: ONE}, {1: ONE, 2: TWO}, {2: TWO}, {1: ONE, 2: TWO})


def write_sequence(root, name, frames, annotated=None, folder="480p"):
    """Frames and the masks of some of them (all)."""
    for place, objects in enumerate(frames):
        save_picture(root / "JPEGImages" / folder / name / f"{place:05d}.jpg", objects)
        if annotated is None or place in annotated:
            save_numbers(root / "Annotations" / folder / name / f"{place:05d}.png", paint(objects))


def unzipped(path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        return {name: np.array(Image.open(io.BytesIO(archive.read(name)))) for name in archive.namelist()}


@pytest.fixture
def davis(tmp_path):
    root = tmp_path / "data"
    write_sequence(root, "bear", [{1: ONE, 2: TWO}] * 5)
    write_sequence(root, "cow", [{1: ONE}] * 4)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("bear\ncow\n")
    return root


def test_davis(davis, start):
    see = Painter()
    report = run_protocol(start("davis", see))
    assert report.metrics["J&F"] == 1 and report.count == 3 and sorted(report.parts) == ["bear_1", "bear_2", "cow_1"]
    assert [mask.sum() for mask in see.asked[0]["masks"]] == [80, 240]  # both objects of the first frame, at once
    assert see.settings == {"threshold": 0.0, "following": "exact"}, "what is shown is asked for however low its score"
    drawn = unzipped(report.files[0])
    assert len(drawn) == 9 and (drawn["bear/00003.png"] == paint({1: ONE, 2: TWO})).all()


def test_an_object_that_is_lost(davis, start):
    """Object 2 of the bear is never found again: J and F 0 in the three frames that count, the others 1."""
    report = run_protocol(start("davis", Painter(blind=[2])))
    assert report.metrics["J&F"] == pytest.approx(2 / 3) and report.parts["bear_2"]["J"] == 0


def test_davis_2016_has_one_object(davis, start):
    (davis / "ImageSets" / "2016").mkdir()
    line = "/JPEGImages/480p/bear/{0:05d}.jpg /Annotations/480p/bear/{0:05d}.png\n"
    (davis / "ImageSets" / "2016" / "val.txt").write_text("".join(line.format(place) for place in range(5)))
    see = Painter()
    report = run_protocol(start("davis", see, split="2016/val"))
    assert list(report.parts) == ["bear_1"] and len(see.asked[0]["masks"]) == 1
    assert report.metrics["J"] == pytest.approx(240 / 320)  # the painter follows the larger part


def test_black_and_white_masks_are_one_object(tmp_path, start):
    root = tmp_path / "data"
    for place in range(4):
        numbers = save_picture(root / "JPEGImages" / "dog" / f"{place:05d}.jpg", {3: ONE})
        (root / "Annotations" / "dog").mkdir(parents=True, exist_ok=True)
        Image.fromarray((numbers > 0).astype(np.uint8) * 255).save(root / "Annotations" / "dog" / f"{place:05d}.png")
    report = run_protocol(start("davis", Painter(), split="all"))
    assert report.metrics["J&F"] == 1 and list(report.parts) == ["dog_1"]
    with pytest.raises(LayoutError, match="split 'all'"):
        run_protocol(start("davis", Painter(), split="val"))


def test_first_masks_alone_go_to_the_server(tmp_path, start):
    root = tmp_path / "data"
    write_sequence(root, "bear", [{1: ONE}] * 4, annotated=[0])
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "test-dev.txt").write_text("bear\n")
    report = run_protocol(start("davis", Painter(), split="test-dev"))
    assert not report.metrics and "upload results.zip" in report.note and len(unzipped(report.files[0])) == 4


def test_objects_of_youtube_vos_come_later(tmp_path, start):
    """Object 2 is shown in frame 2 for the first time; what is found of it counts from there on."""
    write_sequence(tmp_path / "data" / "valid", "abc", FRAMES, annotated=[0, 2], folder="")
    see = Painter()
    report = run_protocol(start("ytvos", see))
    assert not report.metrics and "youtube-vos.org" in report.note
    assert len(see.asked[0]["masks"]) == 1
    drawn = unzipped(report.files[0])
    for place, objects in enumerate(FRAMES):
        assert (drawn[f"Annotations/abc/{place:05d}.png"] == paint(objects)).all(), place


def test_a_video_may_begin_before_its_objects(tmp_path, start):
    write_sequence(tmp_path / "data" / "valid", "abc", ({}, *FRAMES), annotated=[1, 3], folder="")
    drawn = unzipped(run_protocol(start("ytvos", Painter())).files[0])
    assert not drawn["Annotations/abc/00000.png"].any()
    assert (drawn["Annotations/abc/00005.png"] == paint(FRAMES[4])).all()


def write_sentences(root, split: str, known: bool) -> None:
    write_sequence(root / split, "abc", FRAMES, annotated=[0, 2, 4] if known else [], folder="")
    write_sequence(root / split, "hidden", FRAMES, annotated=[], folder="")
    expressions = {"0": {"exp": "the small one"}, "1": {"exp": "the large one"}}
    for number, one in zip((1, 2), expressions.values()):
        one |= {"obj_id": str(number)} if known else {}
    names = ["abc"] if known else ["abc", "hidden"]
    frames = [f"{place:05d}" for place in range(len(FRAMES))]
    videos = {name: {"expressions": expressions, "frames": frames} for name in names}
    save_json(root / "meta_expressions" / split / "meta_expressions.json", {"videos": videos})


SENTENCES = {"the small one": 1, "the large one": 2}


def test_sentences_for_the_server(tmp_path, start):
    root = tmp_path / "data"
    write_sentences(root, "valid", known=False)
    save_json(root / "meta_expressions" / "test" / "meta_expressions.json", {"videos": {"hidden": {}}})
    see = Painter(sentences=SENTENCES)
    report = run_protocol(start("refytvos", see))
    assert report.count == 1 and not report.metrics and see.asked[0]["expressions"] == list(SENTENCES)
    drawn = unzipped(report.files[0])
    assert len(drawn) == 10 and set(np.unique(drawn["Annotations/abc/1/00002.png"])) == {0, 255}
    assert (drawn["Annotations/abc/1/00003.png"] > 0).sum() == 240 and not drawn["Annotations/abc/1/00000.png"].any()


def test_sentences_with_public_masks(tmp_path, start):
    write_sentences(tmp_path / "data", "train", known=True)
    report = run_protocol(start("refytvos", Painter(sentences=SENTENCES), split="train"))
    assert report.metrics["J&F"] == 1 and report.count == 2
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["sentences"] == 2


def test_palette_is_that_of_davis():
    """Its first colours as DAVIS' masks have them: black, dark red, dark green, ochre, dark blue."""
    assert davis_palette()[:15] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]
    assert len(davis_palette()) == 768


def test_what_is_missing_is_named(davis, start):
    for file in (davis / "Annotations" / "480p" / "cow").iterdir():
        file.unlink()
    with pytest.raises(LayoutError, match="no mask of the first frame"):
        run_protocol(start("davis", Painter()))
    (davis / "JPEGImages" / "480p" / "bear").rename(davis / "elsewhere")
    with pytest.raises(LayoutError, match="bear is missing"):
        run_protocol(start("davis", Painter(), output=davis.parent / "again", limit=1))
