"""From the frames of a clip of any length to its mouth crops, block by block, as in Pan et al. (ACL 2022).

Missed frames are interpolated, landmarks are smoothed over 12 frames, a similarity transform fitted on eyes and nose
takes each frame to a mean face (so that a moving mouth never moves the picture), and a square around the mean of the
mouth's points is cut out. All of it is one warp: the crop is a translation of the transform.

Landmarks are interpolated and smoothed only within a scene and for one face: they start again at a cut, or where
another face is followed. Memory is bounded by a few hundred small grey patches, whatever the clip's length.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from .face_tracking_avsr import FLASH, Change, FaceTracker, SceneWatch
from .landmarks_avsr import NUM_POINTS, Box, LandmarkDetector, make_detector

BLOCK = 24  # frames that are warped together
PROMPT_BLOCK = 4  # likewise, where crops are wanted soon
PATIENCE = 250  # frames without a face after which it is given up: crops are black until it is back
UNKNOWN_SIDE = 640  # pixels, longest side of the stored frame while the face's place is not known yet

_NOWHERE = np.full((NUM_POINTS, 2), np.nan, np.float32)

# Points that hold still while one speaks: tip of the nose's base, outer and inner corners of the eyes.
STABLE_POINTS = (33, 36, 39, 42, 45)
MOUTH = slice(48, 68)
LEFT_CORNER, RIGHT_CORNER = 48, 54

# Red, green and blue in grey (ITU-R BT.601), in units of 2**-16: sums of 8-bit values are exact in 32 bits.
LUMA = np.array([19595, 38470, 7471], dtype=np.float32) / 65536

# The mean face, (68, 2): x to the right, y downwards, origin in the mean of the stable points, unit = distance between
# the outer corners of the eyes (points 36 and 45). Made for this project: generalised Procrustes mean of landmarks
# found by dlib in 20 clips of speaker s1 of the GRID corpus (their mean over each clip), in scikit-image's picture of
# Eileen Collins and in matplotlib's of Grace Hopper, each of the three people with the same weight, together with the
# mirror images, rounded to four decimals.
MEAN_FACE = np.array(
    [
        [-0.7842, -0.0615], [-0.7657, 0.1456], [-0.7421, 0.3491], [-0.7133, 0.5524],
        [-0.6435, 0.7393], [-0.5310, 0.8977], [-0.3749, 1.0262], [-0.1998, 1.1244],
        [0.0000, 1.1562], [0.1998, 1.1244], [0.3749, 1.0262], [0.5310, 0.8977],
        [0.6435, 0.7393], [0.7133, 0.5524], [0.7421, 0.3491], [0.7657, 0.1456],
        [0.7842, -0.0615], [-0.6622, -0.2466], [-0.5763, -0.3630], [-0.4372, -0.3958],
        [-0.2909, -0.3787], [-0.1561, -0.3251], [0.1561, -0.3251], [0.2909, -0.3787],
        [0.4372, -0.3958], [0.5763, -0.3630], [0.6622, -0.2466], [0.0000, -0.1397],
        [0.0000, -0.0038], [0.0000, 0.1339], [0.0000, 0.2740], [-0.1741, 0.3732],
        [-0.0887, 0.3946], [0.0000, 0.4172], [0.0887, 0.3946], [0.1741, 0.3732],
        [-0.5000, -0.1160], [-0.4151, -0.1631], [-0.3115, -0.1623], [-0.2176, -0.0926],
        [-0.3167, -0.0773], [-0.4228, -0.0741], [0.2176, -0.0926], [0.3115, -0.1623],
        [0.4151, -0.1631], [0.5000, -0.1160], [0.4228, -0.0741], [0.3167, -0.0773],
        [-0.3335, 0.6130], [-0.2108, 0.5856], [-0.0852, 0.5681], [0.0000, 0.5919],
        [0.0852, 0.5681], [0.2108, 0.5856], [0.3335, 0.6130], [0.2144, 0.7317],
        [0.0942, 0.7829], [0.0000, 0.7932], [-0.0942, 0.7829], [-0.2144, 0.7317],
        [-0.2842, 0.6223], [-0.0880, 0.6330], [0.0000, 0.6431], [0.0880, 0.6330],
        [0.2842, 0.6223], [0.0881, 0.6903], [0.0000, 0.6950], [-0.0881, 0.6903],
    ]
)  # fmt: skip


# The mean face of auto_avsr, VSR-ML and USR 2.0, (68, 2), in pixels of a picture of 256 x 256, out of which they cut
# the mouth: the numbers of `20words_mean_face.npy` (github.com/mpc001/auto_avsr, Apache-2.0), rounded to 0.001.
AUTO_AVSR_FACE = np.array(
    [
        [70.924, 97.138], [72.625, 114.904], [75.989, 131.074], [79.270, 146.212],
        [83.613, 163.260], [91.331, 177.445], [100.272, 187.089], [112.124, 196.004],
        [130.742, 200.530], [149.855, 195.312], [163.102, 186.441], [173.653, 176.573],
        [182.436, 162.280], [187.167, 145.094], [190.229, 129.724], [193.021, 113.459],
        [194.439, 95.580], [81.331, 80.795], [87.759, 75.280], [96.227, 73.839],
        [104.555, 74.740], [112.232, 76.977], [144.496, 76.424], [152.348, 73.833],
        [161.131, 72.636], [170.587, 73.848], [178.214, 79.438], [128.734, 95.360],
        [128.489, 106.925], [128.245, 118.273], [128.266, 127.699], [118.760, 135.194],
        [122.963, 136.146], [128.870, 137.303], [134.943, 135.997], [139.483, 134.878],
        [92.522, 94.369], [97.585, 90.960], [105.414, 90.913], [112.772, 94.944],
        [106.104, 97.085], [98.046, 97.363], [145.525, 94.535], [152.590, 90.215],
        [160.612, 90.199], [166.677, 93.566], [160.560, 96.481], [152.205, 96.473],
        [107.168, 157.196], [114.476, 152.120], [123.849, 148.519], [128.976, 149.416],
        [134.144, 148.426], [144.177, 151.793], [152.193, 156.987], [143.860, 164.003],
        [136.744, 167.943], [129.153, 168.819], [121.795, 168.023], [115.275, 164.152],
        [109.231, 157.002], [122.503, 154.407], [129.029, 154.121], [135.836, 154.312],
        [150.758, 156.795], [135.662, 160.630], [128.952, 161.288], [122.488, 160.509],
    ]
)  # fmt: skip
AUTO_AVSR_STABLE_POINTS = (28, 33, 36, 39, 42, 45, 48, 54)
AUTO_AVSR_SIDE = 256  # pixels of the picture of the whole face

GEOMETRIES = ("lookhear", "auto_avsr")


def eye_distance(geometry: str, mouth_width: float) -> float:
    """
    Returns the distance between the outer corners of the mean face's eyes, in pixels of the mouth region.

    Args:
        geometry: one of `GEOMETRIES`.
        mouth_width: see [`roi_transforms`].
    """
    if geometry == "auto_avsr":
        return float(np.linalg.norm(AUTO_AVSR_FACE[45] - AUTO_AVSR_FACE[36]))
    return mouth_width / float(np.linalg.norm(MEAN_FACE[RIGHT_CORNER] - MEAN_FACE[LEFT_CORNER]))


@dataclass(frozen=True)
class MouthBlock:
    """A run of consecutive mouth crops from `MouthBuilder`.

    Attributes:
        mouths: `(frames, roi_size, roi_size)` uint8 grey crops; black where no face was near in time.
        points: `(frames, 68, 2)` float32 landmarks in pixels of the source picture, gaps interpolated, not smoothed;
            NaN where the crop is black.
        found: `(frames,)` bool, False where there was no face.
        outside: `(frames,)` bool, where part of the mouth is outside of the picture.
        cuts: `(frames,)` bool, the first frame of another scene or of another face.
        lips: `(frames, 20, 2)` float32, the mouth's landmarks (48 to 67) in pixels of the crop, not smoothed but for
            the crop's own place; NaN where the crop is black.
    """

    mouths: np.ndarray
    points: np.ndarray
    found: np.ndarray
    outside: np.ndarray
    cuts: np.ndarray
    lips: np.ndarray

    @classmethod
    def empty(cls, roi_size: int) -> MouthBlock:
        """Returns a block without frames."""
        mouths, points = np.zeros((0, roi_size, roi_size), np.uint8), np.zeros((0, NUM_POINTS, 2), np.float32)
        none = np.zeros(0, dtype=bool)
        return cls(mouths, points, found=none, outside=none, cuts=none, lips=points[:, MOUTH])


# -------------------------------------------------------------------------------------------- where landmarks are from


class LandmarkSource(Protocol):
    """Gives the landmarks of a clip, frame by frame.

    Attributes:
        switches: how often another face of the same scene was taken.
        switched: whether this has just happened.
        passed_over: whether the latest frame's points are those of the frame before, as there was no search in it.
    """

    switches: int
    switched: bool
    passed_over: bool

    @property
    def counts(self) -> Sequence[int]:
        """The number of faces in each search of a whole picture."""
        ...

    def next_points(self, frame: np.ndarray, change: Change) -> np.ndarray | None:
        """Returns `(68, 2)` in pixels of the next `(height, width, 3)` uint8 frame, or None where there is no face."""
        ...

    def warnings(self) -> list[str]:
        """Returns sentences for the report, once all frames were seen."""
        ...


class _GivenLandmarks:
    """Hands out landmarks that are known already, frame by frame."""

    counts: tuple[int, ...] = ()
    switches = 0
    switched = passed_over = False

    def __init__(self, points: np.ndarray):
        self.rows, self.index = points, 0

    def next_points(self, frame: np.ndarray, change: Change) -> np.ndarray | None:
        """Returns the next row, or None where it holds no face or there are no more."""
        index, self.index = self.index, self.index + 1
        if index >= len(self.rows) or not np.isfinite(self.rows[index]).all():
            return None
        return self.rows[index]

    def warnings(self) -> list[str]:
        """Returns a sentence where there are more or fewer rows than frames."""
        if self.index == len(self.rows):
            return []
        return [f"there are landmarks for {len(self.rows)} frames, but {self.index} frames"]


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
        except (OSError, EOFError, LookupError, ValueError, TypeError, RecursionError, zipfile.BadZipFile) as error:
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


def landmark_source(
    landmarks: np.ndarray | PrecomputedLandmarks | LandmarkDetector | str, fps: float, detect_every: int
) -> LandmarkSource:
    """Makes the source of landmarks for `MouthBuilder`.

    Args:
        landmarks: see `MouthRoiImageProcessor.extract`.
        fps: frames per second of the clip.
        detect_every: frames between two searches, where a detector finds the landmarks.

    Raises:
        ValueError: `landmarks` is an array of another shape, or no detector's name.
    """
    if isinstance(landmarks, str):
        return FaceTracker(make_detector(landmarks), detect_every)
    if isinstance(landmarks, PrecomputedLandmarks):
        return _GivenLandmarks(landmarks.at(fps))
    if callable(landmarks):
        return FaceTracker(landmarks, detect_every)
    points = np.asarray(landmarks, dtype=np.float32)
    if points.ndim != 3 or points.shape[1:] != (NUM_POINTS, 2):
        raise ValueError(f"landmarks must be (frames, {NUM_POINTS}, 2), got {points.shape}")
    return _GivenLandmarks(points)


# ------------------------------------------------------------------------------------------------------- the builder


@dataclass
class _Row:
    """What is stored of a frame until it is warped; `patch` is None where the face was given up."""

    points: np.ndarray | None  # (68, 2)
    patch: GreyPatch | None
    outside: bool
    cut: bool  # the first of another scene or face
    found_again: bool  # the first with a face after it was given up
    passed_over: bool  # the face was not looked for: `points` are those of the frame before

    @property
    def begins(self) -> bool:
        """Whether landmarks before this frame have no bearing on it."""
        return self.cut or self.found_again


class MouthBuilder:
    """Takes the frames of one clip one by one and gives their mouth crops as soon as they are final.

    Args:
        processor: `MouthRoiImageProcessor`, for its settings.
        source: the landmarks of each frame, see `landmark_source`.
        prompt: whether crops come a few at a time, as soon as no later frame can change them; else they come in larger
            blocks, which take less work.
    """

    def __init__(self, processor: Any, source: LandmarkSource, prompt: bool = False):
        self.config, self.source = processor, source
        self._unit = eye_distance(processor.geometry, processor.mouth_width)
        self._prompt, self._least = prompt, PROMPT_BLOCK if prompt else BLOCK
        self._watch = SceneWatch()
        self._rows: list[_Row] = []  # not warped yet
        self._context = np.zeros((0, NUM_POINTS, 2), np.float32)  # the scene's last points before them
        self._last: np.ndarray | None = None  # points of the last frame with a face in this scene
        self._missing, self._step = 0, 1

    def build(self, frames: Iterable[np.ndarray]) -> Iterator[MouthBlock]:
        """Yields all blocks of a clip, whose frames are taken one at a time."""
        for frame in frames:
            yield from self.add(frame)
        yield from self.finish()

    @property
    def counts(self) -> Sequence[int]:
        """The number of faces in each search of a whole picture."""
        return self.source.counts

    @property
    def switches(self) -> int:
        """How often another face of the same scene was taken."""
        return self.source.switches

    def warnings(self) -> list[str]:
        """Returns sentences for the report, once all frames were added."""
        return self.source.warnings()

    def add(self, frame: np.ndarray) -> Iterator[MouthBlock]:
        """Adds a `(height, width, 3)` uint8 frame; yields the crops that are final. Must be exhausted."""
        change = self._watch.see(frame)
        points = self.source.next_points(frame, change)
        if change is Change.RETURN:
            self._take_back_cut()
        cut = change is Change.CUT or self.source.switched
        found_again = points is not None and self._missing > PATIENCE
        self._missing = 0 if points is not None else self._missing + 1
        self._last = points if points is not None else None if cut else self._last
        outside = points is not None and _leaves_picture(points[MOUTH], frame)
        if points is None and not cut and self._rows and self._rows[-1].passed_over:
            self._rows[-1].points = None  # where the face was lost is not known: it counts from the first such frame
        self._rows.append(_Row(points, self._patch(frame), outside, cut, found_again, self.source.passed_over))
        yield from self._certain()

    def repeat(self) -> Iterator[MouthBlock]:
        """Adds a frame like the one before, without a look at it; yields the crops that are final."""
        row = self._rows[-1] if self._rows else _Row(None, None, False, False, False, False)
        self._missing += row.points is None
        self._rows.append(replace(row, cut=False, found_again=False))
        yield from self._certain()

    def finish(self) -> Iterator[MouthBlock]:
        """Yields the rest, once all frames were added."""
        while self._rows:
            yield from self._end_of_scene(self._next_beginning() or len(self._rows))

    def _take_back_cut(self) -> None:
        """Unmarks the latest cut, as it was a flash."""
        for row in self._rows[-FLASH - 1 :]:
            row.cut = False

    def _patch(self, frame: np.ndarray) -> GreyPatch | None:
        """Cuts twice the region around the mouth; more while the face is lost; the whole frame before it is found."""
        if self._missing > PATIENCE:
            return None
        published, colour = self.config.geometry != "lookhear", self.config.grey_after_crop
        if self._last is None:
            step = 1 if published else -(-max(frame.shape[:2]) // UNKNOWN_SIDE)
            return grey_patch(frame, None, step, colour)
        eyes = max(1.0, float(np.linalg.norm(self._last[45] - self._last[36])))
        shrink = eyes / self._unit  # frame pixels to one region pixel
        if published:  # that code samples the frame as it is
            self._step = 1
        elif not 0.8 <= shrink / self._step <= 2.2:  # else sharpness would flicker while the face comes nearer
            self._step = max(1, int(shrink))
        half = (1.0 if self._missing == 0 else 2.0) * self.config.roi_size * shrink
        x, y = self._last[MOUTH].mean(axis=0)
        return grey_patch(frame, (x - half, y - half, x + half, y + half), self._step, colour)

    def _certain(self) -> Iterator[MouthBlock]:
        """Yields the crops that no later frame can change."""
        if self._missing >= PATIENCE:
            if self._missing == PATIENCE or len(self._rows) >= BLOCK:
                yield from self.finish()
            return
        settled = len(self._rows) - self._held()
        while 0 < (beginning := self._next_beginning()) < settled:
            yield from self._end_of_scene(beginning)
            settled -= beginning
        if beginning == 0 and settled >= self._least and self._missing == 0:
            yield self._warped(settled)

    def _held(self) -> int:
        """Returns how many of the latest rows later ones may change, as those of frames that were passed over."""
        window = self.config.smoothing_window
        if not self._prompt:
            return max(window, FLASH + 1)
        passed_over = itertools.takewhile(lambda row: row.passed_over, reversed(self._rows))
        return max(window // 2 + 1 + sum(1 for _ in passed_over), FLASH + 1)

    def _next_beginning(self) -> int:
        """Returns the first row but row 0 at which landmarks start again; 0 where there is none."""
        return next((index for index, row in enumerate(self._rows) if index and row.begins), 0)

    def _end_of_scene(self, count: int) -> Iterator[MouthBlock]:
        """Copies the first `count` rows, so that the buffer can be freed."""
        known = np.isfinite(self._context).any() or any(row.points is not None for row in self._rows[:count])
        while count > 0:
            size = min(count, BLOCK)
            yield self._warped(size, count) if known else self._black(size)
            count -= size
        self._context = self._context[:0]

    def _warped(self, count: int, end: int | None = None) -> MouthBlock:
        """Crops the first `count` rows; interpolates and smooths landmarks together with the rows up to `end`."""
        window, before = self.config.smoothing_window, len(self._context)
        patches = [row.patch for row in self._rows[:count] if row.patch is not None]
        raw = [_NOWHERE if row.points is None or row.passed_over else row.points for row in self._rows[:end]]
        points = np.concatenate([self._context, np.stack(raw)]).astype(np.float32)
        filled = interpolate_missing(points)
        geometry = self.config.geometry
        smoothing = smooth if geometry == "lookhear" else smooth_around
        smoothed = smoothing(filled, window)[before : before + count]
        transforms = roi_transforms(smoothed, self.config.roi_size, self.config.mouth_width, geometry)
        mouths = crop_mouths(patches, transforms, self.config.roi_size, geometry != "lookhear")
        first = max(0, before + count - window)
        while first > 0 and not np.isfinite(points[first]).all():
            first -= 1  # so that gaps are filled from the same neighbours in every block
        self._context = points[first : before + count]
        filled = filled[before : before + count]
        return self._block(mouths, filled, apply_transforms(transforms, filled[:, MOUTH]))

    def _black(self, count: int) -> MouthBlock:
        """Makes black crops of the first `count` rows."""
        side = self.config.roi_size
        nowhere = np.stack([_NOWHERE] * count)
        return self._block(np.zeros((count, side, side), np.uint8), nowhere, nowhere[:, MOUTH])

    def _block(self, mouths: np.ndarray, points: np.ndarray, lips: np.ndarray) -> MouthBlock:
        """Makes a block of these crops, whose rows are removed from the buffer."""
        rows, self._rows = self._rows[: len(mouths)], self._rows[len(mouths) :]
        found = np.array([row.points is not None for row in rows])
        outside = np.array([row.outside for row in rows])
        cuts = np.array([row.cut for row in rows])
        return MouthBlock(mouths, points, found, outside, cuts, lips.astype(np.float32))


def _leaves_picture(points: np.ndarray, frame: np.ndarray) -> bool:
    """Returns whether any of the (n, 2) points is outside of the (height, width, 3) frame."""
    return bool((points < 0).any() or (points >= (frame.shape[1], frame.shape[0])).any())


# ------------------------------------------------------------------------------------------------------------ the warp


@dataclass(frozen=True)
class GreyPatch:
    """A part of one frame, possibly reduced: all that is stored of a frame until it is warped.

    Attributes:
        pixels: `(height, width)` uint8 grey, or `(height, width, 3)` where it becomes grey after the warp.
        left: first column of the part, in the frame's pixels.
        top: first row of the part, in the frame's pixels.
        step: frame pixels to one pixel of the patch, each being the mean of `step` x `step`.
    """

    pixels: np.ndarray
    left: int = 0
    top: int = 0
    step: int = 1


def grey_patch(frame: np.ndarray, box: Box | None = None, step: int = 1, colour: bool = False) -> GreyPatch:
    """Cuts the box out of a frame, makes it grey (ITU-R BT.601) and reduces it `step` times by averaging.

    Args:
        frame: `(height, width, 3)` or `(height, width)` uint8.
        box: `(x0, y0, x1, y1)` in pixels, clipped to the frame; None takes the whole frame. At least one pixel
            remains.
        step: whole number of at least 1.
        colour: whether a frame with colours is left as it is.
    """
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = (0, 0, width, height) if box is None else box
    left, top = int(np.clip(np.floor(x0), 0, width - 1)), int(np.clip(np.floor(y0), 0, height - 1))
    right, bottom = int(np.clip(np.ceil(x1), left + 1, width)), int(np.clip(np.ceil(y1), top + 1, height))
    part = frame[top:bottom, left:right]
    grey = part.copy() if colour else _grey(part)
    step = max(1, min(step, *grey.shape[:2]))
    return GreyPatch(np.array(Image.fromarray(grey).reduce(step)) if step > 1 else grey, left, top, step)


def _grey(part: np.ndarray) -> np.ndarray:
    """Converts (..., h, w, 3) or (h, w) uint8 to (..., h, w) uint8, a copy."""
    if part.ndim == 2:
        return part.copy()
    return (part.astype(np.float32) @ LUMA + 0.5).astype(np.uint8)


def interpolate_missing(points: np.ndarray) -> np.ndarray:
    """Fills frames without landmarks linearly in time from their neighbours; the ends repeat the nearest frame.

    Args:
        points: `(frames, 68, 2)`; a frame with any NaN counts as missing.

    Returns:
        a filled copy.

    Raises:
        ValueError: no frame has landmarks.
    """
    known = np.flatnonzero(np.isfinite(points).all(axis=(1, 2)))
    if len(known) == 0:
        raise ValueError("points has no frame with landmarks: there is nothing to interpolate from")
    frames = np.arange(len(points))
    after = np.minimum(np.searchsorted(known, frames), len(known) - 1)  # (T,) the nearest known one from here on
    before = np.where(known[after] > frames, np.maximum(after - 1, 0), after)
    first, last = known[before], known[after]
    weight = np.clip((frames - first) / np.maximum(last - first, 1), 0.0, 1.0)[:, None, None]
    return (points[first] * (1 - weight) + points[last] * weight).astype(points.dtype)


def smooth(points: np.ndarray, window: int = 12) -> np.ndarray:
    """Fits a straight line to the `window` frames around each frame (least squares) and takes it at that frame.

    Inside a clip this is the moving average of the paper; at the ends, where the window is cut off, an average would
    lag behind a moving head. The published code averages each frame with the 11 that follow, which makes the crop lead
    the head by a fifth of a second and needs 12 frames; here the window is centred and a clip of any length will do.
    `scipy.signal.savgol_filter` differs: it takes even windows half a frame off, and refuses clips shorter than the
    window.

    Args:
        points: `(frames, ...)` without NaN.
        window: number of frames; 1 leaves the points as they are.

    Returns:
        an array like `points`.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1 frame, got {window}")
    if len(points) == 0:
        return points.copy()
    flat = points.reshape(len(points), -1).astype(np.float64)  # (T, n)
    origin = flat.mean(axis=0)
    time = np.arange(len(flat), dtype=np.float64)
    first = np.clip(time - (window - 1) // 2, 0, None).astype(int)
    last = np.clip(time + window // 2 + 1, None, len(flat)).astype(int)

    def window_mean(values: np.ndarray) -> np.ndarray:
        # Differences of cumulative sums: the time does not grow with the window.
        sums = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
        return (sums[last] - sums[first]) / (last - first)[:, None]

    mean = window_mean(flat - origin)  # (T, n)
    middle = (first + last - 1)[:, None] / 2  # (T, 1) mean and variance of the times in the window
    spread = ((last - first) ** 2 - 1)[:, None] / 12
    slope = (window_mean(time[:, None] * (flat - origin)) - middle * mean) / np.maximum(spread, 1e-9)
    line = origin + mean + slope * (time[:, None] - middle)
    return line.reshape(points.shape).astype(points.dtype)


def smooth_around(points: np.ndarray, window: int = 12) -> np.ndarray:
    """Averages the shape over the frames around each one, as auto_avsr, VSR-ML and USR 2.0 do.

    Frame t takes the mean over the frames from t - m to t + m, where m is half the window, or less near the ends of
    the clip, moved so that its centroid is the frame's own.

    Args:
        points: `(frames, n, 2)` without NaN.
        window: twice the frames on each side.

    Returns:
        an array like `points`.
    """
    time = np.arange(len(points))
    reach = np.minimum(window // 2, np.minimum(time, time[::-1]))
    sums = np.concatenate([np.zeros_like(points[:1], np.float64), np.cumsum(points, axis=0, dtype=np.float64)])
    mean = (sums[time + reach + 1] - sums[time - reach]) / (2 * reach + 1)[:, None, None]
    moved = mean + (points.mean(axis=1, keepdims=True, dtype=np.float64) - mean.mean(axis=1, keepdims=True))
    return moved.astype(points.dtype)


def similarity_transforms(
    points: np.ndarray, target: np.ndarray, indices: Sequence[int] = STABLE_POINTS
) -> np.ndarray:
    """Fits the rotation, scale and shift that take each frame's stable points to the target's (least squares).

    Args:
        points: `(frames, 68, 2)` in pixels.
        target: `(68, 2)` in the units of the result.
        indices: the points that are fitted.

    Returns:
        `(frames, 2, 3)` float64: a point `(x, y)` goes to `transform @ (x, y, 1)`.
    """
    source = points[:, list(indices)].astype(np.float64)  # (T, n, 2)
    goal = np.asarray(target, dtype=np.float64)[list(indices)]  # (n, 2)
    source_centre, goal_centre = source.mean(axis=1), goal.mean(axis=0)  # (T, 2), (2,)
    offset, aim = source - source_centre[:, None], goal - goal_centre
    size = np.maximum((offset**2).sum(axis=(1, 2)), 1e-12)  # (T,)
    cosine = (offset * aim).sum(axis=(1, 2)) / size
    sine = (offset[..., 0] * aim[:, 1] - offset[..., 1] * aim[:, 0]).sum(axis=1) / size
    linear = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], 1)  # (T, 2, 2)
    shift = goal_centre - np.einsum("tij,tj->ti", linear, source_centre)
    return np.concatenate([linear, shift[..., None]], axis=2)


def roi_transforms(points: np.ndarray, roi_size: int, mouth_width: float, geometry: str = "lookhear") -> np.ndarray:
    """Returns the transforms from frame pixels to the pixels of the mouth region, for smoothed landmarks without gaps.

    The mean of the aligned mouth points is in the middle of the region. In the geometry of auto_avsr the region is cut
    out of a picture of the whole face at whole pixels, and moved into it where the mouth is near its border.

    Args:
        points: `(frames, 68, 2)` pixels.
        roi_size: side of the square region, in its own pixels.
        mouth_width: distance between the mean face's mouth corners in the region, in its own pixels; in the geometry
            of auto_avsr it is 45.
        geometry: one of `GEOMETRIES`.

    Returns:
        `(frames, 2, 3)` float64; pixel centres are at whole numbers.
    """
    if geometry == "auto_avsr":
        transforms = similarity_transforms(points, AUTO_AVSR_FACE, AUTO_AVSR_STABLE_POINTS)
        transforms[:, :, 2] -= window_corners(apply_transforms(transforms, points[:, MOUTH]).mean(axis=1), roi_size)
        return transforms
    scale = mouth_width / np.linalg.norm(MEAN_FACE[RIGHT_CORNER] - MEAN_FACE[LEFT_CORNER])
    target = MEAN_FACE * scale
    transforms = similarity_transforms(points, target)
    centre = apply_transforms(transforms, points[:, MOUTH]).mean(axis=1)  # (T, 2)
    transforms[:, :, 2] += (roi_size - 1) / 2 - centre
    return transforms


def window_corners(centre: np.ndarray, roi_size: int) -> np.ndarray:
    """Returns the first column and row `(frames, 2)` of the mouth region around `centre` in auto_avsr's picture."""
    return np.clip(np.round(centre - roi_size / 2), 0, AUTO_AVSR_SIDE - roi_size)


def apply_transforms(transforms: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Applies `(frames, 2, 3)` transforms to `(frames, n, 2)` points."""
    return np.einsum("tij,tnj->tni", transforms[:, :, :2], points) + transforms[:, None, :, 2]


def invert_transforms(transforms: np.ndarray) -> np.ndarray:
    """Returns the `(frames, 2, 3)` inverses of `(frames, 2, 3)` transforms."""
    linear = np.linalg.inv(transforms[:, :, :2])
    return np.concatenate([linear, -np.einsum("tij,tjk->tik", linear, transforms[:, :, 2:])], axis=2)


def crop_mouths(
    frames: Sequence[np.ndarray] | Sequence[GreyPatch], transforms: np.ndarray, roi_size: int, black: bool = False
) -> np.ndarray:
    """Warps all frames of a clip together, bilinearly; outside of the picture its border is repeated.

    Args:
        frames: `(height, width)` uint8 grey pictures or `GreyPatch`es, of any sizes; patches with colours become grey
            after the warp.
        transforms: `(frames, 2, 3)` from frame pixels to region pixels.
        roi_size: side of the region.
        black: whether it is black outside of the picture instead.

    Returns:
        `(frames, roi_size, roi_size)` uint8.
    """
    patches = [f if isinstance(f, GreyPatch) else grey_patch(f) for f in frames]
    if len(patches) != len(transforms):
        raise ValueError(f"{len(patches)} frames but {len(transforms)} transforms")
    if not patches:
        return np.zeros((0, roi_size, roi_size), dtype=np.uint8)
    height, width = np.max([patch.pixels.shape[:2] for patch in patches], axis=0)
    stack = np.zeros((len(patches), height, width, *patches[0].pixels.shape[2:]), dtype=np.uint8)  # (T, H, W, ...)
    for whole, patch in zip(stack, patches):
        rows, columns = patch.pixels.shape[:2]
        whole[:rows, :columns] = patch.pixels
        if not black:
            whole[rows:, :columns] = patch.pixels[-1]
            whole[:, columns:] = whole[:, columns - 1 : columns]
    # From region pixels to frame pixels to patch pixels: a patch pixel is the mean of step x step frame pixels.
    back = invert_transforms(transforms)
    step = np.array([p.step for p in patches], dtype=np.float64)[:, None]
    corner = np.array([(p.left, p.top) for p in patches], dtype=np.float64)
    back[:, :, 2] -= corner + (step - 1) / 2
    back /= step[:, :, None]
    channels = torch.from_numpy(stack[:, None] if stack.ndim == 3 else stack.transpose(0, 3, 1, 2))
    warped = _bilinear(channels, torch.from_numpy(back), roi_size, black).numpy()  # (T, channels, roi, roi)
    return warped[:, 0] if stack.ndim == 3 else _grey(np.ascontiguousarray(warped.transpose(0, 2, 3, 1)))


def _bilinear(stack: torch.Tensor, back: torch.Tensor, roi_size: int, black: bool) -> torch.Tensor:
    """Samples a (T, C, H, W) uint8 stack by (T, 2, 3) float64 from region to stack pixels: (T, C, roi, roi) uint8."""
    # `affine_grid` counts from -1 to 1 over the region, `grid_sample` over the stack.
    half = (roi_size - 1) / 2
    theta = torch.cat([back[:, :, :2] * half, back[:, :, 2:] + back[:, :, :2].sum(-1, keepdim=True) * half], dim=2)
    size = torch.tensor([[stack.shape[3] - 1], [stack.shape[2] - 1]], dtype=theta.dtype).clamp_min(1.0) / 2  # (2, 1)
    theta = theta / size
    theta[:, :, 2] -= 1.0
    grid = torch.nn.functional.affine_grid(theta.float(), [len(stack), 1, roi_size, roi_size], align_corners=True)
    warped = torch.nn.functional.grid_sample(
        stack.float(), grid, mode="bilinear", padding_mode="zeros" if black else "border", align_corners=True
    )  # (T, C, roi, roi)
    return warped.round().clamp(0, 255).to(torch.uint8)
