"""A photo that moves: lips, jaw and cheeks follow an articulation, the head sways a little."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch.nn.functional import grid_sample

from ..corpora import VIDEO_SUFFIXES
from .mouth import MouthModel, paint_inner_mouth
from .visemes import BITE, JAW

if TYPE_CHECKING:
    from PIL import Image

# Names of the photos that are part of other packages: scikit-image's Eileen Collins, matplotlib's Grace Hopper.
PORTRAITS = ("astronaut", "hopper")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")  # that Pillow decodes itself
PortraitSource: TypeAlias = "str | os.PathLike | Image.Image | np.ndarray | None"  # None: the first of PORTRAITS

_EYES = (36, 45)  # outer eye corners of the 68 points
_STILL = tuple(range(27, 48)) + (17, 19, 21, 22, 24, 26)  # nose, eyes, brows
_JAW_SHARE = np.array([0, 0, 0, 0.1, 0.3, 0.58, 0.84, 0.97, 1.0, 0.97, 0.84, 0.58, 0.3, 0.1, 0, 0, 0])
_JAW_DROP = 0.125  # of the eye distance, chin at full opening
_EYE_DISTANCE = 0.285  # of the frame's height: the size a face has in the frame
_SMALLEST_EYE_DISTANCE = 24.0  # pixels in the photo
_LONGEST_SIDE = 1400  # larger photos are reduced first
_GRID_STEP = 4.5  # pixels between the points where the warp is computed
_REGION = (-1.08, -0.80, 1.08, 1.20)  # u0, v0, u1, v1 of the part of the face that speech moves, in face units
# x and y of the 68 landmarks of the portraits by name, in their own pixels, as dlib found them: clips that are made of
# them are the same whatever finds faces here.
_KNOWN_POINTS = {
    "astronaut": (
        "179 104 179 116 180 127 181 139 185 151 191 160 200 169 209 176 221 178 232 177 243 171 253 164 260 154 "
        "265 144 268 132 270 120 272 108 186 94 192 88 200 87 208 89 216 92 236 93 244 91 252 91 260 92 265 98 225 "
        "103 225 111 225 119 225 127 214 131 219 132 224 134 229 133 234 132 195 101 200 98 207 98 212 104 206 104 "
        "199 104 238 105 244 101 250 101 255 104 250 107 244 106 201 140 209 139 218 139 223 141 229 140 237 140 "
        "245 141 237 151 229 155 222 156 216 155 208 150 204 141 217 143 223 144 229 143 243 142 229 150 223 150 "
        "217 150"
    ),
    "hopper": (
        "181 202 185 225 190 248 195 270 204 290 217 307 234 319 254 328 276 331 299 326 320 316 338 302 353 286 "
        "363 265 366 242 368 217 369 192 186 182 194 165 210 159 228 161 243 169 282 166 297 156 316 153 334 157 "
        "346 171 264 191 265 206 266 222 266 238 245 247 256 250 268 253 279 250 289 246 207 199 216 192 227 191 "
        "239 198 228 201 216 202 294 195 304 187 316 186 327 190 318 195 306 196 233 278 245 274 257 272 266 274 "
        "275 271 291 273 309 272 292 286 278 290 268 291 259 291 246 287 239 278 258 280 267 280 276 279 302 274 "
        "276 279 268 280 258 280"
    ),
}


class PortraitError(ValueError):
    """The picture cannot be used as a portrait; the message says why."""


@dataclass(frozen=True)
class Pose:
    """Head and camera in one frame: pixels, radians, factors. The identity is all zeros."""

    zoom: float = 0.0
    pan_x: float = 0.0
    pan_y: float = 0.0
    roll: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    scale: float = 0.0
    yaw: float = 0.0  # pixels by which the nose moves against the outline
    nod: float = 0.0


class Portrait:
    """A face that can be moved.

    Args:
        image: (H, W, 3) uint8, the cropped frame.
        points: (68, 2) landmarks in its pixels.
    """

    def __init__(self, image: np.ndarray, points: np.ndarray):
        self.height, self.width = image.shape[:2]
        self._picture = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None].contiguous()  # (1, 3, H, W)
        points = points.astype(np.float64)
        axis = points[_EYES[1]] - points[_EYES[0]]
        self.unit = float(np.hypot(*axis))  # pixels of one face unit
        ex = axis / self.unit
        self._axes = np.stack([ex, [-ex[1], ex[0]]])  # rows: u and v axis in pixels
        self._origin = (points[48] + points[54]) / 2
        self._face = self._to_face(points)
        self.mouth = MouthModel(self._face)
        self._tone = self._white(image, points)
        self._prepare_controls()
        self._prepare_pose_fields()

    def _to_face(self, pixels: np.ndarray) -> np.ndarray:
        return (pixels - self._origin) @ self._axes.T / self.unit

    def _to_pixels(self, face: np.ndarray) -> np.ndarray:
        return face @ self._axes * self.unit + self._origin

    def _white(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Returns (3,) white in this photo's light, judged by the bright skin between nose and eyes."""
        spots = ((points[1:16] + points[30]) / 2)[[3, 4, 5, 9, 10, 11]]
        columns = np.clip(spots[:, 0].astype(int), 1, self.width - 2)
        rows = np.clip(spots[:, 1].astype(int), 1, self.height - 2)
        skin = np.median(image[rows, columns].astype(np.float32), 0)
        level = float(np.clip(skin.max() / 215.0, 0.3, 1.0))
        warm = 0.75 + 0.25 * skin / max(float(skin.max()), 1.0)  # white takes a quarter of the skin's tint
        return (255.0 * level * warm).astype(np.float32)

    # -- the warp of the face --------------------------------------------------------------------------------------

    def _prepare_controls(self) -> None:
        """Prepares the points that never move, the grid on which the warp is computed, and the kernel between both."""
        u0, v0, u1, v1 = _REGION
        step = _GRID_STEP / self.unit
        self._grid_u, self._grid_v = np.arange(u0, u1 + step, step), np.arange(v0, v1 + step, step)
        u, v = np.meshgrid(self._grid_u, self._grid_v)
        self._grid = np.stack([u.ravel(), v.ravel()], 1).astype(np.float32)  # (G, 2); float32 for speed
        across, down = np.linspace(u0, u1, 7), np.linspace(v0, v1, 7)[1:-1]
        border = [(x, y) for x in across for y in (v0, v1)] + [(x, y) for y in down for x in (u0, u1)]
        chin = self._face[8]
        neck = [(chin[0] + x, min(chin[1] + 0.42, v1 - 0.05)) for x in (-0.35, 0.0, 0.35)]
        self._fixed = np.concatenate([self._face[list(_STILL)], border, neck])  # (F, 2)
        self._fixed_kernel = _thin_plate(self._grid, self._fixed.astype(np.float32))  # (G, F)
        edge = np.minimum.reduce([u - u0, u1 - u, v - v0, v1 - v])
        fade = np.clip(edge / 0.15, 0.0, 1.0)
        self._window = (fade * fade * (3 - 2 * fade)).ravel()[:, None]  # (G, 1)
        self._jaw = self._face[:17]
        self._chin_middle = (self._face[57] * 0.45 + chin * 0.55)[None]

    def _displacements(self, articulation: np.ndarray, shape) -> torch.Tensor:
        """
        Computes the backward displacement in pixels on the grid, (1, 4, rows, columns): x, y above the lips, x, y
        below.
        """
        jaw = max(float(articulation[JAW]), 0.0) * _JAW_DROP
        jaw_target = self._jaw + np.stack([-0.12 * jaw * np.sign(self._jaw[:, 0]) * _JAW_SHARE, jaw * _JAW_SHARE], 1)
        corner_source, corner_target = self.mouth.corner_controls(shape)
        upper_source, upper_target = self.mouth.upper_controls(shape)
        lower_source, lower_target = self.mouth.lower_controls(shape)
        lift = 0.03 * float(articulation[BITE])
        chin_target = self._chin_middle + [0.0, jaw - lift]
        moved = np.concatenate([corner_target, jaw_target, upper_target, lower_target, chin_target])
        sources = np.concatenate([corner_source, self._jaw, upper_source, lower_source, self._chin_middle])
        targets = np.concatenate([self._fixed, moved])
        offsets = np.concatenate([np.zeros_like(self._fixed), sources - moved])
        kernel = np.concatenate([self._fixed_kernel, _thin_plate(self._grid, moved.astype(np.float32))], 1)  # (G, C)
        between = _thin_plate(targets, targets)  # (C, C)
        common = len(self._fixed) + len(corner_target) + len(jaw_target)
        uppers = np.arange(len(targets))[: common + len(upper_target)]
        lowers = np.r_[np.arange(common), common + len(upper_target) : len(targets)]
        fields = [
            _interpolate(between[np.ix_(part, part)], targets[part], offsets[part], kernel[:, part], self._grid)
            for part in (uppers, lowers)
        ]
        pixels = [field * self._window @ self._axes * self.unit for field in fields]
        stacked = np.concatenate(pixels, 1).astype(np.float32)  # (G, 4)
        return torch.from_numpy(stacked.T.reshape(1, 4, len(self._grid_v), len(self._grid_u)).copy())

    # -- the head --------------------------------------------------------------------------------------------------

    def _prepare_pose_fields(self) -> None:
        """
        Prepares pixel coordinates, the mask of what moves with the head, and the relief of the face, each (H, W).
        """
        y, x = np.mgrid[: self.height, : self.width].astype(np.float32)
        self._x, self._y = x, y
        middle = self._to_pixels(np.array([0.0, -0.35]))
        self._dx, self._dy = x - np.float32(middle[0]), y - np.float32(middle[1])
        across, down = self._dx / self.unit, self._dy / self.unit
        radius = np.sqrt((across / 1.55) ** 2 + (np.where(down > 0, down / 1.45, down / 1.7)) ** 2)
        fade = np.clip((1.0 - radius) / 0.65, 0.0, 1.0)
        self._mask = (fade * fade * (3 - 2 * fade)).astype(np.float32)
        self._relief = np.exp(-((across / 0.62) ** 2) - (down / 0.85) ** 2).astype(np.float32)

    def _neutral_coordinates(self, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        """Returns the place (x, y) of each pixel in the unmoved portrait, each (H, W) float32."""
        dx, dy = self._dx, self._dy
        camera = np.float32(1.0 / (1.0 + pose.zoom) - 1.0)
        shrink, roll = np.float32(-pose.scale), np.float32(pose.roll)
        x = self._x + camera * dx - np.float32(pose.pan_x)
        y = self._y + camera * dy - np.float32(pose.pan_y)
        x += self._mask * (shrink * dx + roll * dy - np.float32(pose.shift_x)) - np.float32(pose.yaw) * self._relief
        y += self._mask * (shrink * dy - roll * dx - np.float32(pose.shift_y)) - np.float32(pose.nod) * self._relief
        return x, y

    # -- the frame -------------------------------------------------------------------------------------------------

    def render(self, articulation: np.ndarray, pose: Pose = Pose()) -> np.ndarray:
        """Returns one frame (H, W, 3) uint8 for one row (9,) of an articulation track."""
        shape = self.mouth.shape(articulation)
        fields = self._displacements(articulation, shape)
        x, y = self._neutral_coordinates(pose)
        rows, columns = self._window_of(_REGION)
        px, py = x[rows, columns], y[rows, columns]
        u, v = self._face_coordinates(px, py)
        grid = self._grid_position(u, v)
        moved = grid_sample(fields, grid, mode="bilinear", padding_mode="zeros", align_corners=True)[0].numpy()
        lower_x, lower_y = px + moved[2], py + moved[3]
        x[rows, columns] += moved[0]
        y[rows, columns] += moved[1]
        frame = self._sample(x, y)  # (3, H, W)
        self._add_lower_face(frame, rows, columns, u, v, shape, lower_x, lower_y)
        self._add_inner_mouth(frame, rows, columns, u, v, shape, articulation)
        frame += 0.5
        return np.ascontiguousarray(np.clip(frame, 0, 255, out=frame).astype(np.uint8).transpose(1, 2, 0))

    def _window_of(self, box: tuple[float, float, float, float]) -> tuple[slice, slice]:
        """Returns the rows and columns of a box in face units, with a margin for the head's movement."""
        u0, v0, u1, v1 = box
        corners = self._to_pixels(np.array([(u0, v0), (u1, v0), (u0, v1), (u1, v1)]))
        x0, y0 = np.maximum(corners.min(0) - 12, 0).astype(int)
        x1, y1 = np.minimum(corners.max(0) + 13, (self.width, self.height)).astype(int)
        return slice(y0, y1), slice(x0, x1)

    def _face_coordinates(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (a, b), (c, d) = (self._axes / self.unit).astype(np.float32)
        dx, dy = x - np.float32(self._origin[0]), y - np.float32(self._origin[1])
        return a * dx + b * dy, c * dx + d * dy

    def _grid_position(self, u: np.ndarray, v: np.ndarray) -> torch.Tensor:
        """Returns (1, h, w, 2) place in the warp's grid, -1 to 1."""
        place = np.empty((*u.shape, 2), np.float32)
        for axis, (values, knots) in enumerate(((u, self._grid_u), (v, self._grid_v))):
            place[..., axis] = (values - np.float32(knots[0])) * np.float32(2 / (knots[-1] - knots[0])) - 1
        return torch.from_numpy(place)[None]

    def _sample(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns (3, h, w) float32 of the photo at pixel coordinates."""
        place = np.empty((*x.shape, 2), np.float32)
        np.multiply(x, np.float32(2 / (self.width - 1)), out=place[..., 0])
        np.multiply(y, np.float32(2 / (self.height - 1)), out=place[..., 1])
        place -= 1
        found = grid_sample(self._picture, torch.from_numpy(place)[None], padding_mode="border", align_corners=True)
        return found[0].numpy()

    def _add_lower_face(self, frame, rows, columns, u, v, shape, x, y) -> None:
        """Samples the photo below the lips' line through the warp of the lower lip and chin."""
        first = int(np.argmax((v > -0.45).any(1)))  # well above any mouth
        u, v, x, y = u[first:], v[first:], x[first:], y[first:]
        outside = np.maximum(np.abs(u) - np.float32(0.9 * shape.half_width), 0.0)
        soft = np.float32(1.2 / self.unit) + np.float32(0.8) * outside
        weight = np.clip((v - shape.middle(u)) / soft + np.float32(0.5), 0.0, 1.0)
        part = frame[:, rows.start + first : rows.stop, columns]
        part += weight * (self._sample(x, y) - part)

    def _add_inner_mouth(self, frame, rows, columns, u, v, shape, articulation) -> None:
        """Adds teeth, tongue and darkness between the lips, and the seam where they meet."""
        near = (np.abs(u) < shape.half_width + 0.03) & (v > -0.14) & (v < 0.34)
        r, c = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
        box = slice(r[0], r[-1] + 1), slice(c[0], c[-1] + 1)
        colour, opening, shade = paint_inner_mouth(u[box], v[box], shape, articulation, self._tone, 1.0 / self.unit)
        part = frame[:, rows, columns][:, box[0], box[1]]
        part *= shade
        part += opening * (colour.transpose(2, 0, 1) - part)


def _thin_plate(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Returns (P, C) kernel r^2 log r between points (P, 2) and centres (C, 2)."""
    dx = points[:, :1] - centres[:, 0]
    dy = points[:, 1:] - centres[:, 1]
    squared = dx * dx
    squared += dy * dy
    squared += points.dtype.type(1e-9)
    return squared * np.log(squared)


def _interpolate(between, centres, values, kernel, points) -> np.ndarray:
    """Evaluates a thin-plate spline through values (C, 2) at centres, a little relaxed, at points: (P, 2)."""
    count = len(centres)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = between
    system[np.arange(count), np.arange(count)] += 1e-5
    system[:count, count] = system[count, :count] = 1.0
    system[:count, count + 1 :] = centres
    system[count + 1 :, :count] = centres.T
    weights = np.linalg.solve(system, np.concatenate([values, np.zeros((3, 2))])).astype(kernel.dtype)
    return kernel @ weights[:count] + weights[count] + points @ weights[count + 1 :]


# -- from a picture to a portrait ------------------------------------------------------------------------------------


def load_portrait(source: PortraitSource = None, size: tuple[int, int] = (360, 288)) -> Portrait:
    """Makes a portrait of a photo.

    Args:
        source: name in `PORTRAITS`, the path of a picture or of a video, whose first picture is taken, a PIL image or
            an array (H, W, 3) uint8; None: the first name.
        size: (width, height) of the frames, each even, 96 to 1080.

    Raises:
        ValueError: the size is out of range.
        PortraitError: unreadable picture, no face in it, or a face that is too small.
        ImportError: a package for it is missing; the message names the extra.
    """
    width, height = size
    if not all(96 <= side <= 1080 and side % 2 == 0 for side in (width, height)):
        raise ValueError(f"size is {size}; give (width, height), even numbers from 96 to 1080")
    if source is None or isinstance(source, (str, os.PathLike)):
        return _load_cached(os.fspath(source or PORTRAITS[0]), width, height)
    return _build(_as_array(source), "the given picture", width, height)


@functools.lru_cache(maxsize=8)
def _load_cached(source: str, width: int, height: int) -> Portrait:
    known = _KNOWN_POINTS.get(source)
    points = None if known is None else np.array(known.split(), np.float32).reshape(68, 2)
    return _build(_read(source), f"the portrait {source}", width, height, points)


def _read(source: str) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        if source == "astronaut":
            import skimage.data

            return skimage.data.astronaut()
        if source == "hopper":
            from matplotlib.cbook import get_sample_data

            with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
                return _as_array(image)
    except ImportError as error:
        raise ImportError(f"the portrait {source!r} needs another package: pip install lookhear[demo]") from error
    try:
        if Path(source).suffix.lower() in VIDEO_SUFFIXES and Path(source).is_file():
            return _first_frame(source)
        with Image.open(source, formats=FORMATS) as image:
            return _as_array(image)
    except FileNotFoundError as error:
        names = ", ".join(PORTRAITS)
        raise PortraitError(f"portrait: no file {source}; give a photo's path or one of {names}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise PortraitError(f"portrait: {source} cannot be read as a picture ({error})") from error


def _first_frame(source: str) -> np.ndarray:
    from lookhear.processing.avsr import MediaError, read_frames

    try:
        return _as_array(next(iter(read_frames(source))))
    except (MediaError, StopIteration) as error:
        raise PortraitError(f"portrait: {source} has no picture that can be read ({error})") from error


def _as_array(image) -> np.ndarray:
    """Returns (H, W, 3) uint8 upright, at most `_LONGEST_SIDE` long, from a PIL image or an array."""
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.ndim == 3 and array.shape[2] not in (3, 4):
            raise PortraitError(f"portrait: an array must be (H, W, 3) uint8, this one is {array.shape} {array.dtype}")
        image = Image.fromarray(array)
    image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB")
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _build(image: np.ndarray, name: str, width: int, height: int, points: np.ndarray | None = None) -> Portrait:
    points = _landmarks(image, name) if points is None else points
    eye_distance = float(np.hypot(*(points[_EYES[1]] - points[_EYES[0]])))
    if eye_distance < _SMALLEST_EYE_DISTANCE:
        raise PortraitError(
            f"{name}: the face is too small ({eye_distance:.0f} pixels from eye to eye, at least "
            f"{_SMALLEST_EYE_DISTANCE:.0f} are needed); give a larger picture or crop it"
        )
    return Portrait(*_crop(image, points, eye_distance, width, height))


def _landmarks(image: np.ndarray, name: str) -> np.ndarray:
    """Returns (68, 2) points of the largest face."""
    from lookhear.processing.avsr.landmarks_avsr import make_detector

    faces = make_detector()(image)
    if not faces:
        raise PortraitError(f"{name}: no face was found in it; give a photo of one face from the front")
    return max(faces, key=lambda face: face.box[2] - face.box[0]).points


def _crop(image, points, eye_distance, width, height) -> tuple[np.ndarray, np.ndarray]:
    """
    Crops head and shoulders to the frame's size, with the points; beyond the photo's edge its border is repeated.
    """
    from PIL import Image

    scale = _EYE_DISTANCE * height / eye_distance
    smallest = max(width / image.shape[1], height / image.shape[0])  # the photo fills the frame if it can
    scale = min(max(scale, smallest), 1.35 * scale)
    crop = np.array([width, height]) / scale
    middle = np.array([points[27:31, 0].mean(), points[30, 1] + 0.02 * crop[1]])
    start = middle - crop / 2
    room = np.array([image.shape[1], image.shape[0]]) - crop
    start = np.where(room > 0, np.clip(start, 0, np.maximum(room, 0)), start)
    pad = int(np.ceil(max(0.0, *(-start), *(start + crop - [image.shape[1], image.shape[0]]))))
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    (x0, y0), (x1, y1) = (start + pad).tolist(), (start + pad + crop).tolist()
    frame = Image.fromarray(padded).resize((width, height), Image.Resampling.BICUBIC, box=(x0, y0, x1, y1))
    return np.asarray(frame), (points - start) * scale
