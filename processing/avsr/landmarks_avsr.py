"""Sixty-eight facial landmarks of the faces in a picture.

The numbering is the usual one: 0-16 jaw, 17-26 brows, 27-35 nose, 36-47 eyes, 48-67 mouth. Landmarks come from dlib
(a HOG face detector and a regression-tree shape predictor, trained on the iBUG 300-W images, which have terms of their
own; `pip install lookhear[dlib]`), or from the packaged networks of `face_networks_avsr`.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from .face_networks_avsr import MESH_SIDE, detect_faces, run_network, weights_path

Box = tuple[float, float, float, float]  # (x0, y0, x1, y1) in pixels

DETECTORS = ("mesh", "dlib")  # by name; the first is the default

NUM_POINTS = 68
HALF_BOX = 2.09  # of dlib's face boxes, in units of the spread of the steady points
STEADY = slice(17, 48)  # brows, nose, eyes: they say where the head is, however jaw and lips move

# Points of the mesh that are nearest to the 68 usual ones: jaw, brows, nose, eyes, outer and inner lips.
LANDMARKS_OF_MESH = np.array(
    [162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389]
    + [71, 63, 105, 66, 107, 336, 296, 334, 293, 301]
    + [168, 197, 5, 4, 75, 97, 2, 326, 305]
    + [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]
    + [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181]
    + [78, 82, 13, 312, 308, 317, 14, 87]
)
LEFT_EYE, RIGHT_EYE = 33, 263  # outer corners, as they are seen in the picture

AROUND = 1.5  # side of the square that the mesh sees, in units of the longer side of the box around the face
SAME_FACE = 0.3  # intersection over union from which on two boxes of a detector are of one face
CONFIRMING = 0.3  # lowest score of a face where one is expected
CONFIRMING_SIDE = 96  # pixels of the square in which it is looked for
# Of a point's move by m distances of the eyes, (1 + PACE * m) / (2 + PACE * m) counts. On 13 clips of GRID the second
# differences of eyes and nose are 0.0026 of the eyes' distance with this, and 0.0049 without.
PACE = 60.0
PRESENT = 0.5  # probability below which the mesh sees no face
CERTAIN = 0.95  # and below which a face that was found is looked at again
CLOSER = 1.5  # side of the square in which that is done, in units of the one in which the mesh has looked
# Lowest score of what may be a face and is looked at closer. With it 125 of 130 faces of 24 pixels in 640x480 are
# found, 113 without; in 71 photos without people nothing more is, in a fifth more time.
DOUBTFUL = 0.2
TILE_OVERLAP = 0.25  # of a tile's side

SAME_PERSON = 0.55  # distance from which on two descriptions are of two people; dlib's own limit is 0.6
FACE_WIDE, FACE_CELL = 36, 6  # pixels of the square around the face from brows to chin, and of its cells
HEAD_WIDE, HEAD_CELL = 64, 8  # of the square that has hair and the beginning of the shoulders, too
COLOUR_CELL = 9
# The weight of each view, chosen on 35 people, of each up to eight pictures at other sizes, places and light. Of 34
# other people 1.1 % of the pairs of one are SAME_PERSON or more apart, and 0.8 % of the pairs of two less; 10 % of the
# pairs of one are where another picture takes the place of all but head and shoulders.
VIEWS = {"face": 0.443, "head": 0.337, "colours": 1.578}

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


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


# ---------------------------------------------------------------------------------------------------------------- dlib


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
        raise ImportError("Finding faces needs dlib: pip install lookhear[dlib]") from None
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
    raise ImportError(f"The {name} is missing: pip install lookhear[dlib] (package face_recognition_models)")


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


# ----------------------------------------------------------------------------------------------- the packaged networks


@dataclass(frozen=True)
class Region:
    """A square of a picture, possibly turned.

    Attributes:
        x: of its centre, in pixels.
        y: of its centre, in pixels.
        side: in pixels.
        angle: by which it is turned clockwise, in radians.
    """

    x: float
    y: float
    side: float
    angle: float

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Takes `(n, 2 or 3)` points from the square, whose side is 1, to pixels of the picture; depth is scaled."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        x, y = points[:, 0] - 0.5, points[:, 1] - 0.5
        turned = [self.x + self.side * (cosine * x - sine * y), self.y + self.side * (sine * x + cosine * y)]
        return np.stack([*turned, *(self.side * points[:, 2:]).T], axis=1)


def region_of_mesh(points: np.ndarray) -> Region:
    """Returns the square around a face for the next frame, from its `(n, 2 or 3)` points of a mesh in pixels."""
    (x0, y0), (x1, y1) = points[LEFT_EYE, :2], points[RIGHT_EYE, :2]
    return _region_around(points[:, :2], math.atan2(y1 - y0, x1 - x0))


def region_of_landmarks(points: np.ndarray) -> Region:
    """Returns the square around a face of which only the `(68, 2)` landmarks are known, in pixels: no forehead."""
    (x0, y0), (x1, y1) = points[36], points[45]
    angle = math.atan2(y1 - y0, x1 - x0)
    up = points[27] - points[8]  # from the chin to the nose's root; the forehead is as far again above the brows
    return _region_around(np.concatenate([points, points[None, 27] + 0.42 * up]), angle)


def _region_around(points: np.ndarray, angle: float) -> Region:
    """Returns the square, turned by an angle, around (n, 2) points."""
    cosine, sine = math.cos(angle), math.sin(angle)
    level = points @ np.array([[cosine, -sine], [sine, cosine]])  # (n, 2), turned back
    low, high = level.min(axis=0), level.max(axis=0)
    x, y = (low + high) / 2
    side = AROUND * float((high - low).max())
    return Region(float(cosine * x - sine * y), float(sine * x + cosine * y), max(side, 1.0), angle)


def cut_out(frame: np.ndarray, region: Region, side: int) -> np.ndarray:
    """Resamples a square of a picture, bilinearly; it is black outside of the picture.

    Args:
        frame: `(height, width, 3)` uint8.
        region: the square.
        side: of the result, in pixels.

    Returns:
        `(side, side, 3)` float32 from 0 to 255.
    """
    reach = 0.5 * region.side * (abs(math.cos(region.angle)) + abs(math.sin(region.angle))) + 2
    step = max(1, int(region.side / side / 2))  # of the picture's pixels, one in this many is enough
    left, top = max(0, int(region.x - reach)), max(0, int(region.y - reach))
    right, bottom = max(left, int(region.x + reach) + 1), max(top, int(region.y + reach) + 1)
    part = frame[top:bottom:step, left:right:step]
    if part.size == 0:
        return np.zeros((side, side, 3), np.float32)
    height, width = part.shape[:2]
    scale = region.side / side / step
    cosine, sine = scale * math.cos(region.angle), scale * math.sin(region.angle)
    x, y = (region.x - left) / step + 0.5, (region.y - top) / step + 0.5  # of the square's middle, from the corner
    with torch.inference_mode():
        across = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
        down, wide, high = across[:, None], 2 / width, 2 / height
        grid = torch.empty(1, side, side, 2)  # from -1 to 1 over the part
        torch.add(across * (wide * cosine), down * (-wide * sine) + (wide * x - 1), out=grid[0, ..., 0])
        torch.add(across * (high * sine), down * (high * cosine) + (high * y - 1), out=grid[0, ..., 1])
        pixels = torch.from_numpy(part.astype(np.float32)).permute(2, 0, 1)[None]
        square = functional.grid_sample(pixels, grid, mode="bilinear", align_corners=False)
        return square[0].permute(1, 2, 0).contiguous().numpy()


@dataclass(frozen=True)
class Detection:
    """A face as a detector sees it.

    Attributes:
        box: `(x0, y0, x1, y1)` in pixels, from the brows to the chin.
        eyes: `(2, 2)`, x and y of both eyes, the left one in the picture first, in pixels.
        score: from 0 to 1.
    """

    box: Box
    eyes: np.ndarray
    score: float

    @property
    def region(self) -> Region:
        """The square around the face in which the mesh looks for its points."""
        x0, y0, x1, y1 = self.box
        x, y = self.eyes[1] - self.eyes[0]
        side = AROUND * max(x1 - x0, y1 - y0)
        return Region((x0 + x1) / 2, (y0 + y1) / 2, max(side, 1.0), math.atan2(y, x))


def _coloured(frame: np.ndarray) -> np.ndarray:
    """Returns a frame as (height, width, 3) uint8; raises ValueError where it is no picture."""
    frame = eight_bit(frame)
    return frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=2)


def _detection(points: np.ndarray, score: float) -> Detection:
    """Makes a detection of (8, 2): centre, size, eyes, nose, mouth and ears, in pixels."""
    (x, y), (width, height) = points[:2].tolist()
    return Detection((x - width / 2, y - height / 2, x + width / 2, y + height / 2), points[2:4], score)


def _best(detections: list[Detection]) -> list[Detection]:
    """Returns of the detections that overlap only those with the highest score."""
    chosen: list[Detection] = []
    for one in sorted(detections, key=lambda one: -one.score):
        if all(overlap(one.box, other.box) < SAME_FACE for other in chosen):
            chosen.append(one)
    return chosen


class MeshLandmarkDetector:
    """Finds faces with two detectors and their points with a mesh; follows them, confirms them and describes them.

    The first search is for large faces. Where it finds none, a second one is for smaller ones, and where that finds
    none either, parts of the picture are searched one by one. A face that is a few pixels wide in what a detector sees
    has a low score and a rough box, in which the mesh may see nothing or settle badly: it is looked at again, closer.

    Args:
        threshold: lowest score of a face, from 0 to 1, in the search or in a closer look.
        tiles: into how many overlapping parts the longer side is split, which are searched one by one where the whole
            picture shows no face; 1: none.
        device: where the networks run: in torch, but on a CPU in LiteRT where that is installed, which is several
            times as fast for one picture at a time.
        all_sizes: whether the second search is made, too, where the first one has found a face: beside somebody near,
            others may be farther away. It takes twice the time.
        follow_every: a face at rest is looked at in every such frame, one that moves more often; in between its points
            are interpolated.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        tiles: int = 2,
        device: str = "cpu",
        follow_every: int = 5,
        all_sizes: bool = False,
    ):
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
        for name, value in (("tiles", tiles), ("follow_every", follow_every)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive whole number, got {value!r}")
        self.threshold, self.tiles, self.device, self.follow_every = threshold, tiles, device, follow_every
        self.all_sizes = all_sizes

    def __call__(self, frame: np.ndarray) -> list[Face]:
        """Returns all faces of a `(height, width, 3)` uint8 RGB frame, the highest score first."""
        frame = _coloured(frame)
        faces: list[Face] = []
        for search in (self._search_whole, self._search_tiles):
            found = search(frame)
            likely = self._settled(frame, [one for one in found if one.score >= self.threshold])
            faces += likely + self._confirmed(frame, [one for one in found if one.score < self.threshold])
            if likely:  # a face that was doubtful may have others beside it, which only parts show
                break
        return _without_doubles(sorted(faces, key=lambda face: -face.score))

    def follow(self, frame: np.ndarray, face: Face) -> Face:
        """Finds the points in this frame, looking around where the face was in the frame before."""
        mesh = face.mesh
        region = region_of_landmarks(face.points) if mesh is None else region_of_mesh(mesh)
        ((found, _),) = self._faces_within(_coloured(frame), [region], [face.score])
        return found if mesh is None or not found.seen else steadied(found, mesh)

    def confirm(self, frame: np.ndarray, face: Face) -> bool:
        """Looks for a face around the box only, turned level, with a detector and by a lower threshold."""
        region = region_of_landmarks(face.points)
        part = cut_out(_coloured(frame), region, CONFIRMING_SIDE)
        ((points, _),) = detect_faces("short", [part], CONFIRMING, self.device)
        third = CONFIRMING_SIDE / 3  # the face is in the middle of the square
        return any(third < x < 2 * third and third < y < 2 * third for x, y in points[:, 0])

    def describe(self, frame: np.ndarray, face: Face) -> np.ndarray:
        """Returns `(120,)`: what the face and its surroundings look like, to tell the people of one video apart."""
        frame = _coloured(frame)
        region = region_of_landmarks(face.points) if face.mesh is None else region_of_mesh(face.mesh)
        level = replace(region, side=0.75 * region.side)
        upright = replace(region, side=4 / 3 * region.side, angle=0.0)
        return describe_appearance(cut_out(frame, level, FACE_WIDE), cut_out(frame, upright, HEAD_WIDE))

    def _detect(self, network: str, parts: Sequence[np.ndarray]) -> list[list[Detection]]:
        """Returns what may be faces in each part, the highest score first, in its own pixels."""
        found = detect_faces(network, parts, min(DOUBTFUL, self.threshold), self.device)
        return [_best([*map(_detection, points, scores.tolist())]) for points, scores in found]

    def _search_whole(self, frame: np.ndarray) -> list[Detection]:
        """Searches the whole picture for large faces, and for smaller ones where there are none, or by `all_sizes`."""
        large = self._detect("short", [frame])[0]
        if large and large[0].score >= self.threshold and not self.all_sizes:
            return large
        return _best([*large, *self._detect("full", [frame])[0]])

    def _search_tiles(self, frame: np.ndarray) -> list[Detection]:
        """Searches overlapping square parts of the picture for the smallest faces."""
        if self.tiles == 1:
            return []
        height, width = frame.shape[:2]
        side = math.ceil(max(height, width) / (self.tiles - (self.tiles - 1) * TILE_OVERLAP))
        corners = [(top, left) for top in _starts(height, side) for left in _starts(width, side)]
        parts = [np.ascontiguousarray(frame[top : top + side, left : left + side]) for top, left in corners]
        found = self._detect("full", parts)
        moved = [
            Detection((x0 + left, y0 + top, x1 + left, y1 + top), one.eyes + (left, top), one.score)
            for (top, left), of_part in zip(corners, found)
            for one in of_part
            for x0, y0, x1, y1 in [one.box]
        ]
        return _best(moved)

    def _settled(self, frame: np.ndarray, found: list[Detection]) -> list[Face]:
        """Finds the points of faces; of those that the mesh is not certain of, in a closer look."""
        faces = []
        for one, (face, presence) in zip(found, self._faces(frame, found)):
            closer = [] if presence >= CERTAIN else self._faces(frame, self._look_closer(frame, one.region))
            faces += [better for better, _ in closer if better.seen] or [face]
        return [face for face in faces if face.seen]

    def _confirmed(self, frame: np.ndarray, doubtful: list[Detection]) -> list[Face]:
        """Returns the faces of which a closer look, and the mesh there, are certain."""
        closer = [look for one in doubtful for look in self._look_closer(frame, one.region)]
        return [face for face, presence in self._faces(frame, closer) if presence >= CERTAIN]

    def _look_closer(self, frame: np.ndarray, rough: Region) -> list[Detection]:
        """Returns the surest face in and around a square, if any, at the size that the detector sees best."""
        region = replace(rough, side=CLOSER * rough.side)
        part = cut_out(frame, region, CONFIRMING_SIDE)
        ((points, scores),) = detect_faces("short", [part], self.threshold, self.device)
        if not len(scores):
            return []
        best = points[scores.argmax()] / CONFIRMING_SIDE
        placed = region.to_picture(best)
        placed[1] = region.side * best[1]  # of all eight this is no place, but the size
        return [_detection(placed, float(scores.max()))]

    def _faces(self, frame: np.ndarray, found: list[Detection]) -> list[tuple[Face, float]]:
        """Finds the points of detections."""
        return self._faces_within(frame, [one.region for one in found], [one.score for one in found])

    def _faces_within(self, frame: np.ndarray, regions: list[Region], scores: list[float]) -> list[tuple[Face, float]]:
        """Finds the points in squares of the frame, each with the probability that there is a face."""
        if not regions:
            return []
        squares = [cut_out(frame, region, MESH_SIDE) for region in regions]
        meshes, logits = run_network("mesh", squares, self.device, lowest=0.0)
        faces = []
        for region, mesh, (logit,), score in zip(regions, meshes, logits, scores):
            points = region.to_picture(mesh.reshape(-1, 3) / MESH_SIDE).astype(np.float32)
            landmarks, presence = points[LANDMARKS_OF_MESH, :2], 1 / (1 + math.exp(-max(float(logit), -50.0)))
            face = Face(box_of_points(landmarks), landmarks, score, points, seen=presence > PRESENT)
            faces.append((face, presence))
        return faces


def steadied(face: Face, before: np.ndarray) -> Face:
    """Returns a face whose points jitter less: of a small move since the frame before, about half counts.

    Of larger moves more counts, so that the points are not left behind; those of the lips stay as they were found.

    Args:
        face: with a mesh.
        before: `(468, 3)`, the mesh in the frame before, in pixels.
    """
    assert face.mesh is not None
    moves = face.mesh - before
    eyes = float(np.linalg.norm((face.mesh[RIGHT_EYE] - face.mesh[LEFT_EYE])[:2]))
    pace = 1 + PACE * np.linalg.norm(moves[:, :2], axis=1, keepdims=True) / max(eyes, 1e-6)
    share = pace / (1 + pace)
    share[LANDMARKS_OF_MESH[48:]] = 1.0
    mesh = (before + share * moves).astype(np.float32)
    landmarks = mesh[LANDMARKS_OF_MESH, :2]
    return replace(face, box=box_of_points(landmarks), points=landmarks, mesh=mesh)


def _starts(length: int, side: int) -> list[int]:
    """Returns where tiles of that side begin, so that they cover the length evenly, and overlap."""
    if length <= side:
        return [0]
    count = math.ceil((length - side) / (side * (1 - TILE_OVERLAP)) - 1e-6) + 1
    return [round(index * (length - side) / (count - 1)) for index in range(count)]


def _without_doubles(faces: list[Face]) -> list[Face]:
    """Returns the faces without those whose points have settled on a face with a higher score."""
    chosen: list[Face] = []
    for face in faces:
        if all(overlap(face.box, other.box) < SAME_FACE for other in chosen):
            chosen.append(face)
    return chosen


def describe_appearance(face: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Describes a head, to tell the people of one video apart: no network that knows people.

    Three views are compared without their overall brightness: the light and dark of the face itself, which counts
    most, that of head, hair and shoulders, and the colours of the face. They stay the same as long as hair, clothes
    and light do, so within one video, and do not say who a person is.

    Args:
        face: `(36, 36, 3)` from 0 to 255, turned so that the eyes are level, from the brows to the chin.
        head: `(64, 64, 3)` from 0 to 255, upright, the face in the middle half.

    Returns:
        `(120,)` float32; descriptions of one person are mostly less than `SAME_PERSON` apart, those of two people
        more.
    """
    face, head = face.astype(np.float32) / 255, head.astype(np.float32) / 255
    ears, rim = FACE_CELL, (HEAD_WIDE - FACE_WIDE) // 2
    views = {
        "face": _without_brightness(_means(face[:, ears:-ears] @ LUMA, FACE_CELL)),
        "head": _without_brightness(_means(head @ LUMA, HEAD_CELL)),
        "colours": _colours(head[rim:-rim, rim:-rim]),
    }
    return np.concatenate([VIEWS[name] * view for name, view in views.items()]).astype(np.float32)


def _means(picture: np.ndarray, cell: int) -> np.ndarray:
    """Returns the means of a (height, width) or (height, width, channels) picture's square cells, one a row."""
    rows, columns = picture.shape[0] // cell, picture.shape[1] // cell
    cells = picture.reshape(rows, cell, columns, cell, -1)
    return cells.mean(axis=(1, 3)).reshape(rows * columns, -1)


def _without_brightness(cells: np.ndarray) -> np.ndarray:
    """Returns cells as a vector of mean 0 and length 1; of zeros where all of them are the same."""
    vector = cells.reshape(-1) - cells.mean()
    return vector / (np.linalg.norm(vector) + 1e-6)


def _colours(picture: np.ndarray) -> np.ndarray:
    """Returns red and blue against green in 4 x 4 cells, (32,), without the light's own colour."""
    logarithm = np.log(picture + 0.05)
    against_green = np.stack([logarithm[..., 0] - logarithm[..., 1], logarithm[..., 2] - logarithm[..., 1]], axis=-1)
    cells = _means(against_green, COLOUR_CELL)
    return (cells - np.median(cells, axis=0)).reshape(-1) / 4


# ---------------------------------------------------------------------------------------- detectors by name, and files


def check_landmarks(name: str) -> None:
    """Checks the name of a detector.

    Raises:
        ValueError: there is no such detector.
    """
    if name not in DETECTORS:
        raise ValueError(f"landmarks must be one of {', '.join(map(repr, DETECTORS))}, got {name!r}")


def make_detector(name: str = DETECTORS[0], all_sizes: bool = False) -> LandmarkDetector:
    """Makes the detector with that name; its models are loaded with the first frame.

    Args:
        name: `"mesh"` or `"dlib"`.
        all_sizes: see [`MeshLandmarkDetector`]; dlib's finds faces of all sizes that it can find.

    Raises:
        ValueError: there is no such detector.
    """
    check_landmarks(name)
    if name == "dlib":
        return DlibLandmarkDetector()
    return MeshLandmarkDetector(all_sizes=all_sizes)


def require_detector(name: str) -> None:
    """Checks that the detector with that name can run.

    Raises:
        ValueError: there is no such detector.
        ImportError: what it needs is missing; the message says what to install.
    """
    check_landmarks(name)
    if name == "dlib":
        require_dlib()
    else:
        weights_path()


# -------------------------------------------------------------------------------------------------- pictures and boxes


def eight_bit(frame: np.ndarray) -> np.ndarray:
    """Returns the frame as contiguous uint8; raises ValueError where it is no picture."""
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise ValueError(f"a frame must be (height, width, 3) uint8 RGB, got {frame.shape} {frame.dtype}")
    return np.ascontiguousarray(frame)


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
