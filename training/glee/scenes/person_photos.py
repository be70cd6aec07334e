"""Photos of people from COCO folders: their outlines, faces and mouths, and what is without people in them."""

import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lookhear.processing.glee.geometry_glee import fill_polygons
from lookhear.training.glee.scenes.backgrounds import PERSON, free_photos, largest_part
from lookhear.training.glee.scenes.portraits import Cutout

HELD_OUT_SHARE = 5  # one photo in five is never trained on, see `is_held_out`
LONGEST_SIDE = 320  # of a photo in memory, in pixels; scenes are smaller
# A person who is cut out, or shown side by side with others, has at least this share of the photo and this height.
LEAST_SHARE, LEAST_HEIGHT = 0.03, 64
LEAST_GROUND = 120  # pixels of the shorter side of a part without people, from which it is a background
NOSE, EYES, EARS = 0, (1, 2), (3, 4)  # of COCO's keypoints
# Of a face, in distances between the eyes: its half width and height, how far its centre is below the eyes (as a
# share of the way to the nose), and the same of the mouth. Measured on the two portraits, whose outlines are drawn.
FACE, MOUTH = (1.1, 1.35, 0.5), (0.45, 0.2, 1.7)
LEAST_EYES = 5.0  # pixels between the eyes of a face that is annotated


@dataclass(frozen=True)
class PersonPhoto:
    """
    A photo with all of its people.

    Attributes:
        name: of the file.
        picture: `(height, width, 3)` uint8.
        people: for each person the parts that are known (`person`, `face`, `mouth`): `(height, width)` bool.
    """

    name: str
    picture: np.ndarray
    people: tuple[dict[str, np.ndarray], ...]

    def person_box(self, number: int = 0) -> tuple[int, int, int, int]:
        """Returns x0, y0, x1, y1 around a person."""
        return _box(self.people[number]["person"])

    def ground(self) -> np.ndarray | None:
        """Returns the largest part left of, right of, above or below all people; None if it is small."""
        boxes = [_box(parts["person"]) for parts in self.people]
        height, width = self.picture.shape[:2]
        left, top, right, bottom = largest_part(
            (width, height), [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes]
        )
        small = min(right - left, bottom - top) < LEAST_GROUND
        return None if small else self.picture[top:bottom, left:right]

    def cutouts(self) -> Iterator[Cutout]:
        """Yields the boxes around those people who are large enough, and their mirror images."""
        for parts in self.people:
            x0, y0, x1, y1 = _box(parts["person"])
            if parts["person"].mean() >= LEAST_SHARE and y1 - y0 >= LEAST_HEIGHT:
                window = slice(y0, y1), slice(x0, x1)
                cutout = Cutout(self.picture[window], {name: mask[window] for name, mask in parts.items()})
                yield from (cutout, _mirrored(cutout))

    def panel(self) -> Cutout | None:
        """Returns the whole photo of one person who is large enough to be shown beside others, else None."""
        large = len(self.people) == 1 and self.people[0]["person"].mean() >= 2 * LEAST_SHARE
        return Cutout(self.picture, self.people[0], anywhere=True) if large else None


def is_held_out(name: str) -> bool:
    """
    Tells whether a photo is one that is never trained on.

    Args:
        name: of its file; nothing else decides.
    """
    return zlib.crc32(name.encode()) % HELD_OUT_SHARE == 0


def read_people(
    folder: str | Path,
    split: str,
    held_out: bool | None = False,
    skipped: Collection[str] = (),
    longest: int = LONGEST_SIDE,
) -> list[PersonPhoto]:
    """
    Reads the photos of a COCO folder that may be changed and used commercially, and that show people, one by one.

    Args:
        folder: with `image_licenses.csv` (columns `file`, `licence`), and either `annotations.json` and `photos/`, or
            `annotations/instances_<split>.json` and `<split>/`. Faces and mouths are known where people have
            `keypoints`.
        split: such as "train2017"; for the second layout.
        held_out: whether to read the photos that are held out, see [`is_held_out`], or the others; None: all.
        skipped: names of further files that are left out.
        longest: most pixels of a photo's longer side.

    Returns:
        Photos in the order of their ids; without those where people are
        annotated as a crowd, or are smaller than a pixel.

    Raises:
        ValueError: the folder has another layout.
    """
    folder = Path(folder)
    listed = folder / "annotations.json"
    annotations, pictures = (
        (listed, folder / "photos")
        if listed.is_file()
        else (folder / "annotations" / f"instances_{split}.json", folder / split)
    )
    try:
        free = free_photos(folder)
        known = json.loads(annotations.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"data.people: {folder} has no {error.filename}; give a COCO folder with licences") from error
    people: dict[int, list[dict[str, Any]]] = {}
    for entry in known["annotations"]:
        if entry["category_id"] == PERSON:
            people.setdefault(entry["image_id"], []).append(entry)
    photos = []
    for image in sorted(known["images"], key=lambda image: image["id"]):
        name, entries = image["file_name"], people.get(image["id"], [])
        wanted = name in free and name not in skipped and held_out in (None, is_held_out(name))
        if wanted and entries and all(isinstance(entry["segmentation"], list) for entry in entries):
            photos.append(_read_photo(pictures / name, entries, longest))
    return [photo for photo in photos if all(parts["person"].any() for parts in photo.people)]


def _read_photo(path: Path, entries: Sequence[Mapping[str, Any]], longest: int) -> PersonPhoto:
    with Image.open(path) as image:
        photo = image.convert("RGB")
    full = photo.width
    photo.thumbnail((longest, longest), Image.Resampling.BILINEAR)
    picture, scale = np.asarray(photo), photo.width / full
    return PersonPhoto(path.name, picture, tuple(_parts(entry, picture.shape[:2], scale) for entry in entries))


def _parts(entry: Mapping[str, Any], size: tuple[int, int], scale: float) -> dict[str, np.ndarray]:
    """Draws a person's outline, and the face and the mouth if nose and eyes are visible."""
    polygons = [(np.asarray(polygon, np.float64) * scale).tolist() for polygon in entry["segmentation"]]
    parts = {"person": fill_polygons(polygons, size)}
    points = np.asarray(entry.get("keypoints") or np.zeros(51), np.float64).reshape(-1, 3)
    return parts | face_parts(points * (scale, scale, 1.0), size)


def face_parts(points: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """
    Draws a face and its mouth as ellipses by where nose, eyes and ears are.

    Args:
        points: `(17, 3)`, COCO's keypoints: x and y in pixels, and 2 for a visible one.
        size: (height, width) of the picture.

    Returns:
        `face` and `mouth`, `(height, width)` bool; nothing unless nose and eyes are visible and far enough apart.
    """
    if (points[[NOSE, *EYES], 2] < 2).any():
        return {}
    right, left = points[EYES[1], :2], points[EYES[0], :2]
    middle, nose = (left + right) / 2, points[NOSE, :2]
    across, down = left - right, nose - middle
    # A head that is turned has its eyes close together, one that nods has them close to the nose.
    apart = max(float(np.hypot(*across)), 1.5 * float(np.hypot(*down)), _between_ears(points) / 2.1)
    if apart < LEAST_EYES:
        return {}
    angle = float(np.arctan2(across[1], across[0]))
    angle = angle if abs(angle) <= np.pi / 2 else angle - np.sign(angle) * np.pi  # a back of the head is no face
    return {
        name: _ellipse(middle + share * down, (wide * apart, tall * apart), angle, size)
        for name, (wide, tall, share) in (("face", FACE), ("mouth", MOUTH))
    }


def _between_ears(points: np.ndarray) -> float:
    ears = points[list(EARS)]
    return float(np.hypot(*(ears[0, :2] - ears[1, :2]))) if (ears[:, 2] == 2).all() else 0.0


def _ellipse(centre: np.ndarray, halves: tuple[float, float], angle: float, size: tuple[int, int]) -> np.ndarray:
    """Draws an ellipse with half its width and height, turned clockwise: `(height, width)` bool."""
    x = np.arange(size[1], dtype=np.float64)[None] + 0.5 - centre[0]
    y = np.arange(size[0], dtype=np.float64)[:, None] + 0.5 - centre[1]
    cos, sin = np.cos(angle), np.sin(angle)
    inside: np.ndarray = ((cos * x + sin * y) / halves[0]) ** 2 + ((cos * y - sin * x) / halves[1]) ** 2 <= 1
    return inside


def _mirrored(cutout: Cutout) -> Cutout:
    return replace(
        cutout,
        picture=np.ascontiguousarray(cutout.picture[:, ::-1]),
        parts={name: np.ascontiguousarray(mask[:, ::-1]) for name, mask in cutout.parts.items()},
        _scaled={},
    )


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def balanced(portraits: list[Cutout], cutouts: Iterable[Cutout]) -> list[Cutout]:
    """Returns cutouts from photos with portraits repeated until they are a third, as only portraits have clothes that
    sentences name."""
    others = list(cutouts)
    times = max(1, round(len(others) / (2 * len(portraits)))) if portraits else 0
    return portraits * times + others
