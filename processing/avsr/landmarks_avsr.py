"""Sixty-eight facial landmarks of the faces in a picture.

The numbering is the usual one: 0-16 jaw, 17-26 brows, 27-35 nose, 36-47 eyes, 48-67 mouth. Landmarks come from dlib
(a HOG face detector and a regression-tree shape predictor; `pip install lookhear[face]`) or from a file made by any
other tool. The 68-point model was trained on the iBUG 300-W images, which have terms of their own.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import os
import threading
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]  # (x0, y0, x1, y1) in pixels

DETECTORS = ("dlib", "mesh")  # by name; the first is the default

NUM_POINTS = 68
HALF_BOX = 2.09  # of dlib's face boxes, in units of the spread of the steady points
STEADY = slice(17, 48)  # brows, nose, eyes: they say where the head is, however jaw and lips move


@dataclass(frozen=True)
class Face:
    """One face in one frame.

    Attributes:
        box: `(x0, y0, x1, y1)` in pixels.
        points: `(68, 2)` float32, x and y in pixels.
        score: confidence of the detector; the scale is the detector's own, higher is better.
        mesh: `(468, 3)` float32, x, y and depth in pixels of a denser set of points, where the detector finds them.
        seen: False where a follower itself notices that there is no face any more.
    """

    box: Box
    points: np.ndarray
    score: float = 0.0
    mesh: np.ndarray | None = None
    seen: bool = True

    @property
    def size(self) -> float:
        """The width of the box in pixels."""
        return self.box[2] - self.box[0]

    def moved(self, x: float, y: float) -> Face:
        """Returns the face moved by these pixels, from its place in a part of the frame to that in the whole."""
        points = self.points + np.array([x, y], self.points.dtype)
        mesh = None if self.mesh is None else self.mesh + np.array([x, y, 0], self.mesh.dtype)
        return replace(self, box=shifted(self.box, x, y), points=points, mesh=mesh)


class LandmarkDetector(Protocol):
    """Finds all faces of one frame. Any function with this signature will do."""

    def __call__(self, frame: np.ndarray) -> list[Face]:
        """Returns the faces in a `(height, width, 3)` uint8 RGB frame; an empty list where there are none."""
        ...


@runtime_checkable
class FaceFollower(Protocol):
    """A detector that can also carry a face over to the next frame, which is faster than a search."""

    def follow(self, frame: np.ndarray, face: Face) -> Face:
        """Returns the face of the frame before as it is in this frame, without a check that it is still there."""
        ...

    def confirm(self, frame: np.ndarray, face: Face) -> bool:
        """Returns whether there is a face at that place, by a lower threshold than in a search of the frame."""
        ...


@runtime_checkable
class FaceDescriber(Protocol):
    """A detector that can also describe a face, so that a person is re-identified."""

    def describe(self, frame: np.ndarray, face: Face) -> np.ndarray:
        """Returns a vector; those of one person are less than about 0.55 apart, those of two people more."""
        ...


def box_of_points(points: np.ndarray) -> Box:
    """Returns the square in which dlib's face detector would see these landmarks.

    The three numbers are medians over detections in GRID clips: shift of the box's centre against the centre of the
    steady points, and width of the box, all in units of their root mean square distance from that centre.

    Args:
        points: `(68, 2)` pixels.
    """
    (centre,), (spread,) = _centre_and_spread(points[None])
    x, y, half = centre[0] + 0.02 * spread, centre[1] + 0.86 * spread, HALF_BOX * spread
    return float(x - half), float(y - half), float(x + half), float(y + half)


def face_sizes(points: np.ndarray) -> np.ndarray:
    """Returns the `(frames,)` widths of the boxes of `box_of_points` for `(frames, 68, 2)` pixels."""
    return 2 * HALF_BOX * _centre_and_spread(points)[1]


def _centre_and_spread(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the centres of the steady points (T, 2) and their root mean square distances from it (T,)."""
    steady = points[:, STEADY].astype(np.float64)  # (T, n, 2)
    centre = steady.sum(axis=1) / steady.shape[1]
    square = np.einsum("tni,tni->t", steady, steady) / steady.shape[1] - np.einsum("ti,ti->t", centre, centre)
    return centre, np.sqrt(np.maximum(square, 0.0))


@dataclass(frozen=True)
class _Dlib:
    """dlib with its shape predictor and its face detector; only one thread at a time may use the detector."""

    module: Any
    detector: Any
    predictor: Any
    lock: Any


@functools.lru_cache(maxsize=1)
def _load_dlib() -> _Dlib:
    """Loads dlib and the predictor's 100 MB, once per process."""
    try:
        import dlib
    except ImportError:
        raise ImportError("Finding faces needs dlib: pip install lookhear[face]") from None
    predictor = dlib.shape_predictor(_model_path("shape_predictor_68_face_landmarks.dat", "68-point model"))
    return _Dlib(dlib, dlib.get_frontal_face_detector(), predictor, threading.Lock())


@functools.lru_cache(maxsize=1)
def _load_describer() -> Any:
    """Loads the 22 MB of dlib's network for faces, once per process."""
    path = _model_path("dlib_face_recognition_resnet_model_v1.dat", "face recognition model")
    return _load_dlib().module.face_recognition_model_v1(path)


def _model_path(file: str, name: str) -> str:
    """Returns the path of one of dlib's models; raises ImportError, which calls it `name`, where it is missing."""
    # The package itself cannot be imported where setuptools has no pkg_resources: only its data files are needed.
    spec = importlib.util.find_spec("face_recognition_models")
    for folder in (spec.submodule_search_locations if spec else None) or []:
        path = Path(folder) / "models" / file
        if path.is_file():
            return str(path)
    raise ImportError(f"The {name} is missing: pip install lookhear[face] (package face_recognition_models)")


def require_dlib() -> None:
    """Loads dlib and its models.

    Raises:
        ImportError: they are missing; the message says what to install.
    """
    _load_dlib()


class DlibLandmarkDetector:
    """dlib's HOG detector for frontal faces with the 68-point shape predictor.

    Frames are searched at a longest side of at most `search_side` pixels; where that finds nothing, once more at twice
    and, for larger frames, four times that side. The smallest face it sees is about 80 pixels wide at the size
    searched.

    Args:
        search_side: longest side of the first search, in pixels.
        threshold: lowest score of a face; dlib's own default is 0.
    """

    def __init__(self, search_side: int = 640, threshold: float = 0.0):
        self.search_side = search_side
        self.threshold = threshold

    def __call__(self, frame: np.ndarray) -> list[Face]:
        """Returns all faces of a `(height, width, 3)` uint8 RGB frame, the highest score first."""
        frame = eight_bit(frame)
        side = max(frame.shape[:2])
        scales = [min(1.0, self.search_side / side), min(2.0, 2 * self.search_side / side)]
        if side > 2 * self.search_side:
            scales.append(min(1.0, 4 * self.search_side / side))
        for scale in scales:
            boxes = self._search(frame, scale, self.threshold)
            if boxes:
                return [self._face(frame, box, score) for box, score in boxes]
        return []

    def follow(self, frame: np.ndarray, face: Face) -> Face:
        """Fits the landmarks in this frame, starting from where the face was in the frame before."""
        return self._face(eight_bit(frame), box_of_points(face.points), face.score)

    def confirm(self, frame: np.ndarray, face: Face) -> bool:
        """Looks for a face around the box only, at the size at which the detector works best."""
        frame = eight_bit(frame)
        x0, y0, x1, y1 = face.box
        margin = 0.35 * (x1 - x0)
        left, top = max(0, int(x0 - margin)), max(0, int(y0 - margin))
        patch = frame[top : max(top, int(y1 + margin)), left : max(left, int(x1 + margin))]
        if min(patch.shape[:2]) < 16:
            return False
        found = self._search(patch, min(8.0, 90.0 / max(face.size, 1.0)), self.threshold - 0.4)
        return any(overlap(shifted(box, left, top), face.box) > 0.3 for box, _ in found)

    def describe(self, frame: np.ndarray, face: Face) -> np.ndarray:
        """Returns `(128,)` of dlib's face recognition network; two people are more than about 0.6 apart."""
        dlib, network = _load_dlib(), _load_describer()
        edges = (round(edge) for edge in face.box)
        points = dlib.module.points([dlib.module.point(round(float(x)), round(float(y))) for x, y in face.points])
        shape = dlib.module.full_object_detection(dlib.module.rectangle(*edges), points)
        with dlib.lock:
            return np.array(network.compute_face_descriptor(eight_bit(frame), shape))

    def _search(self, frame: np.ndarray, scale: float, threshold: float) -> list[tuple[Box, float]]:
        """Returns ((x0, y0, x1, y1) in pixels of `frame`, score) of the faces seen in the frame resized by `scale`."""
        height, width = frame.shape[:2]
        resized = frame
        if abs(scale - 1.0) > 1e-3:
            size = max(1, round(width * scale)), max(1, round(height * scale))
            resized = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
        dlib = _load_dlib()
        with dlib.lock:
            boxes, scores, _ = dlib.detector.run(resized, 0, threshold)
        edges = [(b.left() / scale, b.top() / scale, (b.right() + 1) / scale, (b.bottom() + 1) / scale) for b in boxes]
        return list(zip(edges, scores))

    def _face(self, frame: np.ndarray, box: Box, score: float) -> Face:
        """Fits the landmarks of the face in a box `(x0, y0, x1, y1)`."""
        dlib = _load_dlib()
        x0, y0, x1, y1 = (int(round(v)) for v in box)
        rectangle = dlib.module.rectangle(x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        shape = dlib.predictor(frame, rectangle)
        points = np.array([(p.x, p.y) for p in shape.parts()], dtype=np.float32)
        return Face(box_of_points(points), points, float(score))


def check_landmarks(name: str) -> None:
    """Checks the name of a detector.

    Raises:
        ValueError: there is no such detector.
    """
    if name not in DETECTORS:
        raise ValueError(f"landmarks must be one of {', '.join(map(repr, DETECTORS))}, got {name!r}")


def make_detector(name: str = DETECTORS[0]) -> LandmarkDetector:
    """Makes the detector with that name; its models are loaded with the first frame.

    Raises:
        ValueError: there is no such detector.
    """
    check_landmarks(name)
    if name == "dlib":
        return DlibLandmarkDetector()
    from .face_mesh_avsr import MeshLandmarkDetector  # it imports this file

    return MeshLandmarkDetector()


def require_detector(name: str) -> None:
    """Checks that the detector with that name can run.

    Raises:
        ValueError: there is no such detector.
        ImportError: what it needs is missing; the message says what to install.
    """
    check_landmarks(name)
    if name == "dlib":
        require_dlib()
        return
    from .face_networks_avsr import weights_path

    weights_path()


def eight_bit(frame: np.ndarray) -> np.ndarray:
    """Returns the frame as contiguous uint8; raises ValueError where it is no picture."""
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise ValueError(f"a frame must be (height, width, 3) uint8 RGB, got {frame.shape} {frame.dtype}")
    return np.ascontiguousarray(frame)


class PrecomputedLandmarks:
    """Reads the landmarks of one clip, found by another tool, from a file.

    `.npz`: an array `points` `(frames, 68, 2)`, x and y in pixels of the upright picture, rows of NaN where no face
    was found; optionally a number `fps`, the rate of these rows. `.json`: the same as `{"points": [...], "fps": ...}`,
    with `null` for a frame without a face. Without `fps` there is one row for each frame that is processed (25 a
    second).

    Args:
        path: the file.

    Raises:
        ValueError: the file cannot be read or does not hold such points; the message names it.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        try:
            points, fps = self._read(Path(path))
        except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.path!r} holds no landmarks that can be read: {error}") from None
        if points.ndim != 3 or points.shape[1:] != (NUM_POINTS, 2) or len(points) == 0:
            raise ValueError(f"{self.path!r}: points must be (frames, {NUM_POINTS}, 2), got {points.shape}")
        if fps is not None and not (fps > 0 and math.isfinite(fps)):
            raise ValueError(f"{self.path!r}: fps must be a positive number, got {fps}")
        self.points, self.fps = points, fps

    @staticmethod
    def _read(path: Path) -> tuple[np.ndarray, float | None]:
        """Returns the points and their frame rate, neither of them checked."""
        if path.suffix.lower() == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            missing = [[math.nan, math.nan]] * NUM_POINTS
            rows = [missing if row is None else row for row in content["points"]]
            fps = content.get("fps")
            return np.array(rows, dtype=np.float32), None if fps is None else float(fps)
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as content:
                fps = float(content["fps"]) if "fps" in content else None
                return np.array(content["points"], dtype=np.float32), fps
        raise ValueError("the name must end in .npz or .json")

    def at(self, fps: float) -> np.ndarray:
        """Returns `(frames, 68, 2)` float32 at another frame rate, for each time the nearest row."""
        if self.fps is None or abs(self.fps - fps) < 1e-6:
            return self.points
        times = np.arange(max(1, round(len(self.points) / self.fps * fps))) / fps
        return self.points[np.minimum(np.round(times * self.fps).astype(int), len(self.points) - 1)]


def grown(box: Box, x: float, y: float) -> Box:
    """Expands a box `(x0, y0, x1, y1)` by these pixels on the left and right, and at the top and bottom."""
    return box[0] - x, box[1] - y, box[2] + x, box[3] + y


def shifted(box: Box, x: float, y: float) -> Box:
    """Returns a box `(x0, y0, x1, y1)` moved by these pixels to the right and downwards."""
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def meet(first: Box, second: Box) -> bool:
    """Returns whether two boxes `(x0, y0, x1, y1)` have a point in common; one without an area is a point."""
    return first[0] <= second[2] and second[0] <= first[2] and first[1] <= second[3] and second[1] <= first[3]


def overlap(first: Box, second: Box) -> float:
    """Returns the intersection over union of two boxes `(x0, y0, x1, y1)`."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return float(width * height / (area - width * height))
