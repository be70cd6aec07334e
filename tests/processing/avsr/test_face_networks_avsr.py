"""The face networks beside the runtime that they come from, on faces that are drawn."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from lookhear.processing.avsr.face_networks_avsr import (
    FULL_SIDE,
    MESH_SIDE,
    SHORT_SIDE,
    centres_of,
    has_litert,
    load_litert,
    load_network,
    to_flatbuffer,
    weights_path,
)

HERE = Path(__file__).parent
TOLERANCE = 2e-4  # pixels and logits

drawn = runpy.run_path(str(HERE / "drawn_faces.py"))
drawn_face, ten_faces = drawn["drawn_face"], drawn["ten_faces"]


@pytest.fixture(scope="module")
def original() -> dict[str, np.ndarray]:
    """What LiteRT 2.3 gave for the original files, on one thread; of the detectors the twelve most likely places."""
    return dict(np.load(HERE / "face_networks.npz"))


def pictures(side: int) -> torch.Tensor:
    """(10, 3, side, side) from 0 to 1."""
    return torch.from_numpy(np.stack(ten_faces(side))).permute(0, 3, 1, 2).float() / 255


def test_the_mesh_is_that_of_the_original_runtime(original):
    points, faces = load_network("mesh")(pictures(MESH_SIDE))
    assert points.shape == (10, 468, 3) and faces.shape == (10,)
    assert np.abs(points.numpy() - original["points"]).max() < TOLERANCE
    assert np.abs(faces.numpy() - original["face_logits"]).max() < TOLERANCE
    assert original["face_logits"].min() > 3.0  # all ten are faces


@pytest.mark.parametrize(("name", "side", "places"), [("short", SHORT_SIDE, 896), ("full", FULL_SIDE, 2304)])
def test_a_detector_is_that_of_the_original_runtime(original, name, side, places):
    boxes, scores = (values.numpy() for values in load_network(name)(pictures(side) * 2 - 1))
    assert boxes.shape == (10, places, 16) and scores.shape == (10, places)
    likely = original[f"{name}_places"].astype(int)
    assert np.abs(np.take_along_axis(scores, likely, 1) - original[f"{name}_scores"]).max() < TOLERANCE
    assert np.abs(np.take_along_axis(boxes, likely[..., None], 1) - original[f"{name}_boxes"]).max() < TOLERANCE
    unlikely = np.sort(scores, axis=1)[:, : places - likely.shape[1]]
    assert (unlikely.max(axis=1) <= original[f"{name}_scores"].min(axis=1) + TOLERANCE).all()


@pytest.mark.parametrize(("name", "side"), [("mesh", MESH_SIDE), ("short", SHORT_SIDE), ("full", FULL_SIDE)])
def test_the_networks_run_in_litert(original, name, side):
    """Of files that are written from torch's weights; the numbers are those of the original files."""
    pytest.importorskip("ai_edge_litert", reason="needs LiteRT")
    values = pictures(side) if name == "mesh" else pictures(side) * 2 - 1
    boxes, scores = load_litert(name, side, side)(values.permute(0, 2, 3, 1).contiguous().numpy())
    if name == "mesh":
        assert np.abs(boxes.reshape(10, 468, 3) - original["points"]).max() < 1e-5
        assert np.abs(scores.reshape(10) - original["face_logits"]).max() < 1e-5
        return
    likely = original[f"{name}_places"].astype(int)
    assert np.abs(np.take_along_axis(scores[..., 0], likely, 1) - original[f"{name}_scores"]).max() < 1e-5
    assert np.abs(np.take_along_axis(boxes, likely[..., None], 1) - original[f"{name}_boxes"]).max() < 1e-5


@pytest.mark.parametrize(("name", "size"), [("short", (80, 128)), ("short", (128, 96)), ("full", (128, 192))])
def test_a_detector_sees_pictures_that_are_no_squares(name, size):
    """Both runtimes agree, and a face is found where it is in a square that has more black at the edge."""
    side = SHORT_SIDE if name == "short" else FULL_SIDE
    height, width = size
    square = np.zeros((1, side, side, 3), np.float32) - 1
    face = drawn_face(height - 16, width - 16, (width * 0.4, height * 0.4), side * 0.16)
    square[0, : height - 16, : width - 16] = face / 127.5 - 1
    part = np.ascontiguousarray(square[:, :height, :width])
    boxes, scores = (values.numpy() for values in load_network(name)(torch.from_numpy(part).permute(0, 3, 1, 2)))
    whole_boxes, whole_scores = (v.numpy() for v in load_network(name)(torch.from_numpy(square).permute(0, 3, 1, 2)))
    places, whole = centres_of(name, height, width), centres_of(name, side, side)
    assert boxes.shape == (1, len(places), 16) and scores.shape == (1, len(places)) and len(whole) > len(places)
    assert scores.max() > 0
    best, same = int(scores.argmax()), int(whole_scores.argmax())
    there, expected = boxes[0, best].copy(), whole_boxes[0, same].copy()
    for box, place in ((there, places[best]), (expected, whole[same])):
        box[[0, 1, *range(4, 16)]] += np.tile(place, 7)  # all but the size
    assert np.abs(there - expected).max() < 2.0  # pixels
    if has_litert():
        again, its_scores = load_litert(name, height, width)(part)
        likely = scores[0] > 0
        assert np.abs(again[0, likely] - boxes[0, likely]).max() < TOLERANCE
        assert np.abs(its_scores[0, likely, 0] - scores[0, likely]).max() < TOLERANCE


def test_a_flatbuffer_by_hand():
    """A table of a number, a list and a table, byte by byte."""
    written = to_flatbuffer({0: 7, 1: [1, -2], 2: {0: True}})
    table = int.from_bytes(written[:4], "little")
    fields = table - int.from_bytes(written[table : table + 4], "little", signed=True)
    assert written[4:8] == b"TFL3" and table % 4 == 0
    # 10 bytes long, 16 of the table itself, then where each field is in it
    assert written[fields : fields + 10] == bytes.fromhex("0a00 1000 0400 0800 0c00")
    assert written[table + 4 : table + 8] == bytes([7, 0, 0, 0])
    items = table + 8 + int.from_bytes(written[table + 8 : table + 12], "little")
    assert written[items : items + 12] == bytes.fromhex("02000000 01000000 feffffff")
    inner = table + 12 + int.from_bytes(written[table + 12 : table + 16], "little")
    assert written[inner + 4] == 1


@pytest.mark.shared
def test_the_weights_are_converted_from_the_original_files(shared, tmp_path):
    from lookhear.training.avsr.convert_face_mesh import main

    assert main([str(shared / "data" / "face_mesh"), "--output", str(tmp_path)]) == 0
    assert (tmp_path / "model.safetensors").read_bytes() == weights_path().read_bytes()


def test_what_is_no_network_is_not_converted(tmp_path, capsys):
    from lookhear.training.avsr.convert_face_mesh import SOURCES, main

    assert main([str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "face_detection_short_range.tflite is missing" in capsys.readouterr().err
    for content in (b"", b"a text that is none", b"\x20\0\0\0TFL3" + bytes(40)):
        for file in SOURCES.values():
            (tmp_path / file).write_bytes(content)
        assert main([str(tmp_path), "--output", str(tmp_path / "out")]) == 2
        assert "face_detection_short_range.tflite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_comes_with_the_package_is_small_and_names_its_origin():
    folder = weights_path().parent
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2_500_000
    card, licence = ((folder / name).read_text(encoding="utf-8") for name in ("README.md", "LICENSE"))
    assert "license: apache-2.0" in card and "The MediaPipe Authors" in card
    assert "Apache License" in licence and "The MediaPipe Authors" in (folder / "NOTICE").read_text(encoding="utf-8")
