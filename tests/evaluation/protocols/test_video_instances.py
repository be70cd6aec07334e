"""Files in YouTube-VIS' form, of every data set that has it."""

import json
import zipfile

import pytest

from lookhear.evaluation.protocols.layout import LayoutError
from lookhear.evaluation.protocols.running import run_protocol

from .conftest import SIZE, Painter, runs, save_json, save_picture

CAT, DOG = (2, 2, 12, 10), (15, 4, 30, 20)
FRAMES = ({1: CAT, 2: DOG}, {1: CAT}, {1: CAT, 2: DOG})  # the dog is away in between
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 5, "name": "giant_panda"}]
NAMES = {1: "cat", 2: "giant panda"}

LAYOUTS = {  # protocol -> (annotation file, folder of frames, form of a frame's name)
    "ytvis19": ("valid.json", "valid/JPEGImages", "{:05d}.jpg"),
    "ytvis21": ("valid/instances.json", "valid/JPEGImages", "{:05d}.jpg"),
    "ovis": ("annotations_valid.json", "valid", "img_{:07d}.jpg"),
    "lvvis": ("Annotations/val_instances.json", "JPEGImages/val", "{:05d}.jpg"),
    "uvo-video": ("VideoDenseSet/UVO_video_val_dense.json", "uvo_videos_dense_frames", "{}.png"),
}


def write_videos(root, protocol: str, annotated: bool) -> None:
    file, folder, form = LAYOUTS[protocol]
    videos, annotations = [], []
    for number in (1, 2):
        files = [f"v{number}/{form.format(frame)}" for frame in range(len(FRAMES))]
        maps = [save_picture(root / folder / name, objects) for name, objects in zip(files, FRAMES)]
        sizes = {"height": SIZE[0], "width": SIZE[1], "length": len(FRAMES)}
        videos.append({"id": number, "file_names": files, **sizes})
        for thing, category in ((1, 3), (2, 5)):
            entry = {"id": 10 * number + thing, "video_id": number, "category_id": category, "iscrowd": 0}
            annotations.append(entry | {"segmentations": [runs(numbers, thing) for numbers in maps]})
    content = {"videos": videos, "categories": CATEGORIES, "annotations": annotations if annotated else None}
    save_json(root / file, content)


@pytest.mark.parametrize("protocol", ["ytvis19", "ytvis21", "ovis"])
def test_splits_for_the_server(tmp_path, start, protocol):
    write_videos(tmp_path / "data", protocol, annotated=False)
    see = Painter(NAMES)
    report = run_protocol(start(protocol, see, tracking="minvis"))
    assert not report.metrics and "upload results.zip" in report.note and report.count == 2
    assert see.asked[0]["labels"] == ["cat", "giant panda"] and see.settings["tracking"] == "minvis"
    results = json.loads(zipfile.ZipFile(report.files[1]).read("results.json"))
    assert [(entry["video_id"], entry["category_id"]) for entry in results] == [(1, 3), (1, 5), (2, 3), (2, 5)]
    dog = results[1]
    assert [mask is None for mask in dog["segmentations"]] == [False, True, False]
    assert dog["segmentations"][0]["size"] == list(SIZE) and 0 < dog["score"] < 1


@pytest.mark.parametrize("protocol", ["lvvis", "uvo-video"])
def test_splits_with_public_annotations(tmp_path, start, protocol):
    write_videos(tmp_path / "data", protocol, annotated=True)
    report = run_protocol(start(protocol, Painter(NAMES)))
    assert report.metrics["AP"] == report.metrics["AR_10"] == pytest.approx(1)
    blind = run_protocol(start(protocol, Painter(NAMES, blind=[2]), output=tmp_path / "blind"))
    assert blind.metrics["AR_100"] == pytest.approx(0.5)


def test_a_part_with_annotations_is_measured(tmp_path, start):
    """A track that is lost in one of three frames: IoU 2/3, right at four of ten thresholds."""
    write_videos(tmp_path / "data", "ytvis19", annotated=True)

    class Lossy(Painter):
        def look(self, numbers, prompts):
            return [] if not (numbers == 2).any() else super().look(numbers, prompts)

    report = run_protocol(start("ytvis19", Lossy(NAMES)))
    assert report.parts["AP"]["cat"] == pytest.approx(0.4) and report.parts["AP"]["giant panda"] == pytest.approx(1)
    assert report.metrics["AP"] == pytest.approx(0.7)


def test_a_track_has_one_label_and_one_score(tmp_path, start):
    write_videos(tmp_path / "data", "lvvis", annotated=True)

    class Unsure(Painter):
        """Calls the cat a panda in one frame of three, with half the score."""

        def look(self, numbers, prompts):
            results = super().look(numbers, prompts)
            if not (numbers == 2).any():
                results[0] |= {"label": "giant panda", "score": 0.4}
            return results

    report = run_protocol(start("lvvis", Unsure(NAMES), limit=1))
    tracks = json.loads((tmp_path / "out" / "results.json").read_text())
    cat = next(track for track in tracks if None not in track["segmentations"])
    assert cat["category_id"] == 3 and cat["score"] == pytest.approx(2 * 0.89 / 3)
    assert report.metrics["AP"] == pytest.approx(1)


def test_what_is_missing_is_named(tmp_path, start):
    write_videos(tmp_path / "data", "ovis", annotated=False)
    (tmp_path / "data" / "valid" / "v2" / "img_0000001.jpg").unlink()
    with pytest.raises(LayoutError, match="img_0000001.jpg is missing"):
        run_protocol(start("ovis", Painter(NAMES)))
    with pytest.raises(LayoutError, match="annotations_train.json"):
        run_protocol(start("ovis", Painter(NAMES), split="train"))
