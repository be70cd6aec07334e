"""Faces and their 468 points with the networks of `face_networks_avsr`; 68 of the points are the usual landmarks.

Detectors look at the whole picture, or at parts of it where faces are small. The mesh looks at a square around one
face, in which the eyes are level: first the detector's, then, from frame to frame, that of the points found before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from .face_litert_avsr import has_litert, load_litert
from .face_networks_avsr import FULL_SIDE, MESH_SIDE, SHORT_SIDE, load_network
from .landmarks_avsr import Box, Face, box_of_points, eight_bit, overlap

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
PRESENT = 0.5  # probability below which the mesh sees no face
TILE_OVERLAP = 0.25  # of a tile's side


APPEARANCE_SIDE = 96  # pixels of the square, whose middle third is the face
FACE_ROWS = slice(30, 66)  # rows of the face itself; its columns begin one pixel earlier

# Measured on 29 people, of whom 895 pairs of pictures are of one person (other frames, sizes, light, compression) and
# 7233 of two: the distance of each view at which as many of the former are above it as of the latter are below.
BORDERS = {"face": 0.693, "head": 0.447, "colours": 0.245}
BORDER = 0.55  # of the distance between two descriptions; that of the three views together was at 1.12 of their own
TOGETHER = 1.12

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Region:
    """
    A square of a picture, possibly turned.

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
    """
    Resamples a square of a picture, bilinearly; it is black outside of the picture.

    Args:
        frame: `(height, width, 3)` uint8.
        region: the square.
        side: of the result, in pixels.

    Returns:
        `(side, side, 3)` uint8.
    """
    reach = 0.5 * region.side * (abs(math.cos(region.angle)) + abs(math.sin(region.angle))) + 2
    step = max(1, int(region.side / side / 2))  # of the picture's pixels, one in this many is enough
    left, top = max(0, int(region.x - reach)), max(0, int(region.y - reach))
    right, bottom = max(left, int(region.x + reach) + 1), max(top, int(region.y + reach) + 1)
    part = np.ascontiguousarray(frame[top:bottom:step, left:right:step])
    if part.size == 0:
        return np.zeros((side, side, 3), np.uint8)
    scale = region.side / side / step
    cosine, sine = scale * math.cos(region.angle), scale * math.sin(region.angle)
    # PIL's coordinates are those of corners: from those of the result to those of the part.
    x, y = ((region.x + 0.5 - left) / step, (region.y + 0.5 - top) / step)
    x, y = x - (cosine - sine) * side / 2, y - (sine + cosine) * side / 2
    turned = Image.fromarray(part).transform(
        (side, side), Image.Transform.AFFINE, (cosine, -sine, x, sine, cosine, y), Image.Resampling.BILINEAR
    )
    return np.asarray(turned)


@dataclass(frozen=True)
class Detection:
    """
    A face as a detector sees it.

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


def _cells(side: int, cell: int, places: int) -> np.ndarray:
    """Returns the (n, 2) centres of a detector's places, in pixels: `places` to each cell, row by row."""
    ticks = (np.arange(side // cell) + 0.5) * cell
    y, x = np.meshgrid(ticks, ticks, indexing="ij")
    return np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), places, axis=0)


PLACES = {
    "short": np.concatenate([_cells(SHORT_SIDE, 8, 2), _cells(SHORT_SIDE, 16, 6)]),
    "full": _cells(FULL_SIDE, 4, 1),
}
SIDES = {"short": SHORT_SIDE, "full": FULL_SIDE, "mesh": MESH_SIDE}


def detect_faces(
    network: str, parts: Sequence[np.ndarray], threshold: float, device: str = "cpu"
) -> list[list[Detection]]:
    """
    Looks for faces in pictures or parts of them, all of them in one call of the network.

    Args:
        network: "short" or "full".
        parts: `(height, width, 3)` uint8.
        threshold: lowest score, from 0 to 1.
        device: where the network runs.

    Returns:
        For each part its faces, the highest score first, in its own pixels.
    """
    side = SIDES[network]
    squares, scales = zip(*(_letterboxed(part, side) for part in parts))
    boxes, logits = _run(network, np.stack(squares), device, lowest=-1.0)
    scores = 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
    found = []
    for values, score, scale in zip(boxes, scores, scales):
        likely = np.flatnonzero(score >= threshold)
        points = values[likely].reshape(-1, 8, 2) / scale
        points[:, [0, 2, 3, 4, 5, 6, 7]] += PLACES[network][likely, None] / scale - 0.5  # all but the size, number 1
        found.append(_best([_detection(one, float(s)) for one, s in zip(points, score[likely])]))
    return found


def _coloured(frame: np.ndarray) -> np.ndarray:
    """Returns a frame as (height, width, 3) uint8; raises ValueError where it is no picture."""
    frame = eight_bit(frame)
    return frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=2)


def _letterboxed(part: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """Returns a picture in the top left corner of a black square, and the square's pixels to one of the picture."""
    height, width = part.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    square = np.zeros((side, side, 3), np.uint8)
    square[: size[1], : size[0]] = Image.fromarray(part).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return square, scale


def _detection(points: np.ndarray, score: float) -> Detection:
    """Makes a detection of (8, 2): centre, size, eyes, nose, mouth and ears, in pixels."""
    (x, y), (width, height) = points[0], points[1]
    box = float(x - width / 2), float(y - height / 2), float(x + width / 2), float(y + height / 2)
    return Detection(box, points[2:4], score)


def _best(detections: list[Detection]) -> list[Detection]:
    """Returns of the detections that overlap only those with the highest score."""
    chosen: list[Detection] = []
    for one in sorted(detections, key=lambda one: -one.score):
        if all(overlap(one.box, other.box) < SAME_FACE for other in chosen):
            chosen.append(one)
    return chosen


def _run(network: str, pictures: np.ndarray, device: str, lowest: float) -> tuple[np.ndarray, np.ndarray]:
    """Runs a network on (n, side, side, 3) uint8, in LiteRT where that can be; black becomes `lowest`, white 1."""
    if device == "cpu" and has_litert():
        scaled = pictures * np.float32((1 - lowest) / 255) + np.float32(lowest)
        first, second = load_litert(network, SIDES[network])(scaled)
        return first.reshape(len(pictures), -1, first.shape[-1]), second.reshape(len(pictures), -1)
    with torch.inference_mode():
        values = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float()
        values = values.mul_((1 - lowest) / 255).add_(lowest)
        first, second = load_network(network, device)(values)
    return first.cpu().numpy(), second.reshape(len(pictures), -1).cpu().numpy()


class MeshLandmarkDetector:
    """
    Finds faces with two detectors and their points with a mesh; follows them, confirms them and describes them.

    The first search is for large faces. Where it finds none, a second one is for smaller ones, and where that finds
    none either, parts of the picture are searched one by one.

    Args:
        threshold: lowest score of a face, from 0 to 1.
        tiles: into how many overlapping parts the longer side is split, which are searched one by one where the whole
            picture shows no face; 1: none.
        device: where the networks run: in torch, but on a CPU in LiteRT where that is installed, which is several
            times as fast for one picture at a time.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, threshold: float = 0.5, tiles: int = 2, device: str = "cpu"):
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
        if isinstance(tiles, bool) or not isinstance(tiles, int) or tiles < 1:
            raise ValueError(f"tiles must be a positive whole number, got {tiles!r}")
        self.threshold, self.tiles, self.device = threshold, tiles, device

    def __call__(self, frame: np.ndarray) -> list[Face]:
        """Returns all faces of a `(height, width, 3)` uint8 RGB frame, the highest score first."""
        frame = _coloured(frame)
        for search in (self._search_large, self._search_small, self._search_tiles):
            found = search(frame)
            faces = self._faces(frame, [one.region for one in found], [one.score for one in found])
            if faces := [face for face in faces if face.seen]:
                return _without_doubles(faces)
        return []

    def follow(self, frame: np.ndarray, face: Face) -> Face:
        """Finds the points in this frame, looking around where the face was in the frame before."""
        mesh = face.mesh
        region = region_of_landmarks(face.points) if mesh is None else region_of_mesh(mesh)
        return self._faces(_coloured(frame), [region], [face.score])[0]

    def confirm(self, frame: np.ndarray, face: Face) -> bool:
        """Looks for a face around the box only, turned level, with a detector and by a lower threshold."""
        region = region_of_landmarks(face.points)
        part = cut_out(_coloured(frame), region, SHORT_SIDE)
        (found,) = detect_faces("short", [part], CONFIRMING, self.device)
        third = SHORT_SIDE / 3  # the face is in the middle of the square
        centres = [((one.box[0] + one.box[2]) / 2, (one.box[1] + one.box[3]) / 2) for one in found]
        return any(third < x < 2 * third and third < y < 2 * third for x, y in centres)

    def describe(self, frame: np.ndarray, face: Face) -> np.ndarray:
        """Returns `(336,)`: what the face and its surroundings look like, to tell the people of one video apart."""
        region = region_of_landmarks(face.points) if face.mesh is None else region_of_mesh(face.mesh)
        square = cut_out(_coloured(frame), replace(region, side=2 * region.side), APPEARANCE_SIDE)
        return describe_appearance(square)

    def _search_large(self, frame: np.ndarray) -> list[Detection]:
        """Searches the whole picture for large faces."""
        return detect_faces("short", [frame], self.threshold, self.device)[0]

    def _search_small(self, frame: np.ndarray) -> list[Detection]:
        """Searches the whole picture for smaller faces."""
        return detect_faces("full", [frame], self.threshold, self.device)[0]

    def _search_tiles(self, frame: np.ndarray) -> list[Detection]:
        """Searches overlapping square parts of the picture for the smallest faces."""
        if self.tiles == 1:
            return []
        height, width = frame.shape[:2]
        side = math.ceil(max(height, width) / (self.tiles - (self.tiles - 1) * TILE_OVERLAP))
        corners = [(top, left) for top in _starts(height, side) for left in _starts(width, side)]
        parts = [np.ascontiguousarray(frame[top : top + side, left : left + side]) for top, left in corners]
        found = detect_faces("full", parts, self.threshold, self.device)
        moved = [
            Detection((x0 + left, y0 + top, x1 + left, y1 + top), one.eyes + (left, top), one.score)
            for (top, left), of_part in zip(corners, found)
            for one in of_part
            for x0, y0, x1, y1 in [one.box]
        ]
        return _best(moved)

    def _faces(self, frame: np.ndarray, regions: list[Region], scores: list[float]) -> list[Face]:
        """Finds the points in squares of the frame, in one call of the mesh."""
        if not regions:
            return []
        squares = np.stack([cut_out(frame, region, MESH_SIDE) for region in regions])
        meshes, logits = _run("mesh", squares, self.device, lowest=0.0)
        faces = []
        for region, mesh, (logit,), score in zip(regions, meshes, logits, scores):
            points = region.to_picture(mesh.reshape(-1, 3) / MESH_SIDE).astype(np.float32)
            landmarks = points[LANDMARKS_OF_MESH, :2]
            seen = bool(logit > math.log(PRESENT / (1 - PRESENT)))
            faces.append(Face(box_of_points(landmarks), landmarks, score, points, seen))
        return faces


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


def describe_appearance(square: np.ndarray) -> np.ndarray:
    """Describes a head, to tell the people of one video apart: no network that knows people.

    Three views are compared without their overall brightness: the face's own light and dark, the light and dark of
    head, hair and shoulders, and their colours. They hold while clothes, hair and light do, so within one video, and
    say nothing about who a person is.

    Args:
        square: `(96, 96, 3)` uint8, upright, the face in the middle third.

    Returns:
        `(336,)` float32; descriptions of one person are mostly less than 0.55 apart, those of two people more.
    """
    colours = square.astype(np.float32) / 255
    grey = (colours @ LUMA)[..., None]
    views = {
        "face": _without_brightness(_means(grey[FACE_ROWS, FACE_ROWS.start - 1 : FACE_ROWS.stop - 1], 12)),
        "head": _without_brightness(_means(grey, 8)),
        "colours": _colours(colours),
    }
    weight = BORDER / (TOGETHER * np.sqrt(len(views)))
    return np.concatenate([view * (weight / BORDERS[name]) for name, view in views.items()]).astype(np.float32)


def _means(picture: np.ndarray, count: int) -> np.ndarray:
    """Returns the (count, count, channels) means of a square (side, side, channels) picture's cells."""
    cell = picture.shape[0] // count
    return picture.reshape(count, cell, count, cell, -1).mean(axis=(1, 3))


def _without_brightness(cells: np.ndarray) -> np.ndarray:
    """Returns cells as a vector of mean 0 and length 1; of zeros where all of them are the same."""
    vector = cells.reshape(-1) - cells.mean()
    return vector / (np.linalg.norm(vector) + 1e-6)


def _colours(picture: np.ndarray) -> np.ndarray:
    """Returns red and blue against green in 8 x 8 cells, (128,), without the light's own colour."""
    logarithm = np.log(picture + 0.05)
    against_green = np.stack([logarithm[..., 0] - logarithm[..., 1], logarithm[..., 2] - logarithm[..., 1]], axis=-1)
    cells = _means(against_green, 8)
    return (cells - np.median(cells.reshape(-1, 2), axis=0)).reshape(-1) / 8
