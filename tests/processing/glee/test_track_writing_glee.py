"""Tracks as JSON lines, in COCO's video layout, and as MOT Challenge's text; whole files only."""

import json

import numpy as np
import pytest

from lookhear.processing.glee.geometry_glee import mask_of_rle
from lookhear.processing.glee.writers_glee import CocoVideoWriter, JsonLinesWriter, MotWriter

SIZE = (20, 30)


def thing(track: int, left: int, label: str = "cat", score: float = 0.5) -> dict:
    mask = np.zeros(SIZE, bool)
    mask[4:9, left : left + 6] = True
    box = {"xmin": float(left), "ymin": 4.0, "xmax": left + 6.0, "ymax": 9.0}
    return {"track_id": track, "score": score, "label": label, "box": box, "mask": mask}


FRAMES = [
    [thing(1, 2), thing(7, 10, "dog", 0.75)],
    [],
    [thing(7, 12, "dog", 0.25)],
    [thing(1, 5, "dog"), thing(7, 14, "dog", 0.5), thing(9, 0)],
    [thing(1, 6)],
]


def write(writer) -> None:
    for index, results in enumerate(FRAMES):
        writer.add(index, index / 4, results)
    writer.close()


def test_json_lines(tmp_path):
    write(JsonLinesWriter(tmp_path / "new" / "tracks.jsonl", SIZE))
    lines = [json.loads(line) for line in (tmp_path / "new" / "tracks.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, 4] and lines[3]["time"] == 0.75
    assert all((line["height"], line["width"]) == SIZE for line in lines)
    for line, results in zip(lines, FRAMES):
        assert len(line["objects"]) == len(results)
        for written, found in zip(line["objects"], results):
            assert {name: written[name] for name in ("track_id", "label", "score", "box")} == {
                name: found[name] for name in ("track_id", "label", "score", "box")
            }
            assert np.array_equal(mask_of_rle(written["mask"]), found["mask"]) and written["area"] == 30
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["tracks.jsonl"]


def test_mot(tmp_path):
    write(MotWriter(tmp_path / "mot.txt"))
    lines = (tmp_path / "mot.txt").read_text().splitlines()
    assert lines[0] == "1,1,2.00,4.00,6.00,5.00,0.5000,-1,-1,-1" and len(lines) == 7
    assert lines[2] == "3,7,12.00,4.00,6.00,5.00,0.2500,-1,-1,-1"


def test_coco_video(tmp_path):
    write(CocoVideoWriter(tmp_path / "vis.json", SIZE, "clip.mp4", ["dog", "bird"]))
    content = json.loads((tmp_path / "vis.json").read_text())
    assert content["videos"] == [{"id": 1, "file_name": "clip.mp4", "height": 20, "width": 30, "length": 5}]
    assert content["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "bird"}, {"id": 3, "name": "cat"}]
    first, second, third = content["annotations"]
    assert [note["id"] for note in content["annotations"]] == [1, 7, 9]
    assert [note["category_id"] for note in content["annotations"]] == [3, 1, 3]  # what they were in most frames
    assert second["score"] == 0.5 and {note["video_id"] for note in content["annotations"]} == {1}
    for note in content["annotations"]:
        assert len(note["segmentations"]) == len(note["bboxes"]) == len(note["areas"]) == 5
        for index, results in enumerate(FRAMES):
            found = next((found for found in results if found["track_id"] == note["id"]), None)
            if found is None:
                assert note["segmentations"][index] is note["bboxes"][index] is note["areas"][index] is None
            else:
                assert np.array_equal(mask_of_rle(note["segmentations"][index]), found["mask"])
                assert note["bboxes"][index] == [found["box"]["xmin"], 4, 6, 5] and note["areas"][index] == 30
    assert [path.name for path in tmp_path.iterdir()] == ["vis.json"]


def test_nobody_followed(tmp_path):
    writer = CocoVideoWriter(tmp_path / "vis.json", SIZE, "clip.mp4")
    writer.add(0, None, [])
    writer.close()
    writer.close()
    assert json.loads((tmp_path / "vis.json").read_text())["annotations"] == []


@pytest.mark.parametrize(
    "make", [MotWriter, lambda p: JsonLinesWriter(p, SIZE), lambda p: CocoVideoWriter(p, SIZE, "")]
)
def test_a_file_is_whole_or_as_it_was(tmp_path, make):
    path = tmp_path / "file"
    path.write_text("before")
    writer = make(path)
    writer.add(0, 0.0, FRAMES[0])
    assert path.read_text() == "before"
    writer.discard()
    assert path.read_text() == "before" and [each.name for each in tmp_path.iterdir()] == ["file"]
    writer = make(path)
    writer.add(0, 0.0, FRAMES[0])
    writer.close()
    assert path.read_text() != "before" and [each.name for each in tmp_path.iterdir()] == ["file"]
