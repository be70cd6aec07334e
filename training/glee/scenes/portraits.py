"""People for generated scenes: two free portraits with drawn outlines, and frames of talking-face corpora."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lookhear.training.glee.scenes.shapes import COLOURS

VIDEO_ENDINGS = (".mp4", ".mpg", ".avi", ".mkv", ".webm", ".mov")
_HEIGHT = 192  # of a cutout, in pixels; it is scaled down in scenes

# x, y in pixels of scikit-image's `astronaut` (512 x 512) and matplotlib's `grace_hopper.jpg` (512 x 606).
_ASTRONAUT = {
    "person": "220,16 190,25 165,45 156,75 160,105 175,128 185,148 150,150 125,165 113,190 115,205 105,212 70,240 "
    "45,280 35,320 25,370 22,440 30,490 45,511 280,511 275,470 285,420 305,380 330,360 360,345 355,300 345,270 "
    "330,250 305,235 304,215 295,200 275,180 255,170 265,140 275,128 290,115 300,90 298,65 285,40 260,22 240,16",
    "face": "178,100 182,80 200,72 240,70 262,82 270,105 268,130 258,155 240,172 222,176 205,168 188,150 180,125",
    "mouth": "203,141 222,140 241,141 236,150 222,154 208,150",
    "clothes": "115,205 105,212 70,240 45,280 35,320 25,370 22,440 30,490 45,511 280,511 275,470 285,420 305,380 "
    "330,360 360,345 355,300 345,270 330,250 305,235 290,265 250,285 200,275 160,250 130,225",
}
_HOPPER = {
    "person": "256,23 215,28 190,48 175,65 172,80 155,95 152,130 165,145 160,175 158,200 160,225 170,250 165,280 "
    "185,300 200,310 205,320 195,345 150,350 100,365 60,380 40,410 25,480 15,560 12,605 511,605 511,450 500,420 "
    "480,390 440,370 380,340 340,315 345,300 362,285 365,260 372,215 372,180 370,150 372,120 370,92 350,85 340,65 "
    "315,45 290,30",
    "face": "180,140 215,135 260,132 320,135 355,145 358,190 352,230 345,270 325,305 295,325 265,330 235,325 205,305 "
    "188,270 180,225 176,180",
    "mouth": "230,280 262,272 302,277 290,290 262,294 240,289",
    "clothes": "195,345 150,350 100,365 60,380 40,410 25,480 15,560 12,605 511,605 511,450 500,420 480,390 440,370 "
    "380,340 340,315 325,360 290,420 265,440 235,420 205,380",
}


@dataclass(frozen=True)
class Cutout:
    """
    A person who is pasted into scenes.

    Attributes:
        picture: `(height, width, 3)` uint8.
        parts: `person` and, if known, `face` and `mouth`: `(height, width)` bool.
        noun: word for sentences, such as "woman"; empty if unknown.
        garment: word for sentences, such as "suit"; empty if unknown.
        clothes: `(height, width)` bool, pixels whose colour is changed; None: their colour cannot be changed.
        colour: of the clothes, or empty.
        anywhere: whether the person may be anywhere in the picture; else the head is in the middle.
    """

    picture: np.ndarray
    parts: dict[str, np.ndarray]
    noun: str = ""
    garment: str = ""
    clothes: np.ndarray | None = None
    colour: str = ""
    anywhere: bool = False
    _scaled: dict = field(default_factory=dict, repr=False, compare=False)

    def scaled(self, height: int) -> "Cutout":
        """Scales it to a height in pixels."""
        if height not in self._scaled:
            size = (max(1, round(self.picture.shape[1] * height / self.picture.shape[0])), height)
            picture = np.asarray(Image.fromarray(self.picture).resize(size, Image.Resampling.BILINEAR))
            parts = {name: _resized(mask, size) for name, mask in self.parts.items()}
            self._scaled[height] = Cutout(picture, parts, self.noun, self.garment, None, self.colour)
        return self._scaled[height]


def portrait_cutouts() -> list[Cutout]:
    """
    Cuts out Eileen Collins (NASA) and Grace Hopper (US Navy), both in the public domain, in clothes of each colour.

    Returns:
        Those whose packages (scikit-image, matplotlib) are installed.
    """
    cutouts = []
    try:
        from skimage import data

        cutouts += _recoloured(_cut(data.astronaut(), _ASTRONAUT, "suit"), "orange", 150.0)
    except ImportError:
        pass
    try:
        from matplotlib.cbook import get_sample_data

        with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
            photo = np.asarray(image.convert("RGB"))
        cutouts += _recoloured(_cut(photo, _HOPPER, "uniform"), "black", 30.0)
    except ImportError:
        pass
    return cutouts


def read_frames(paths: Iterable[str | Path], most: int, spread: int = 7) -> list[Cutout]:
    """
    Reads people before a plain background from videos such as GRID's, the same number from each path.

    Args:
        paths: videos, or folders of videos.
        most: most frames of all paths.
        spread: distance of the frames in a video.

    Returns:
        Whole frames; the person is the part that differs from the background.

    Raises:
        ValueError: a path doesn't exist, or there is no video in it.
    """
    import av

    sources = list(map(Path, paths))
    cutouts = []
    for path in sources:
        videos = sorted(v for v in path.iterdir() if v.suffix in VIDEO_ENDINGS) if path.is_dir() else [path]
        if not videos or not videos[0].exists():
            raise ValueError(f"data.frames: no video in {path}")
        share = max(1, most // len(sources))
        videos = videos[:: max(1, len(videos) // share)][:share]
        for video in videos:
            cutouts += [frame_cutout(frame) for frame in _some_frames(av, video, max(1, share // len(videos)), spread)]
    return cutouts


def _some_frames(av, video: Path, count: int, spread: int) -> Iterator[np.ndarray]:
    with av.open(str(video)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % spread == 0:
                yield frame.to_ndarray(format="rgb24")
            if index >= spread * (count - 1):
                break


def frame_cutout(frame: np.ndarray) -> Cutout:
    """Finds the person in `(height, width, 3)` uint8 by the colour of a blue or green background."""
    from scipy import ndimage

    size = (round(frame.shape[1] * _HEIGHT / frame.shape[0]), _HEIGHT)
    picture = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
    red, green, blue = np.moveaxis(picture.astype(np.float32), -1, 0)
    tint = (np.minimum(green, blue) - red) / (
        picture.max(axis=-1) + 8.0
    )  # high on the background, not on skin, hair, most clothes
    backdrop = np.median(tint[: _HEIGHT // 12])
    person = ndimage.binary_opening(tint < 0.5 * backdrop, iterations=3)
    regions, count = ndimage.label(person)
    if count:
        person = regions == 1 + np.argmax(ndimage.sum_labels(person, regions, range(1, count + 1)))
    return Cutout(picture, {"person": ndimage.binary_fill_holes(person)})


def _cut(photo: np.ndarray, outlines: dict[str, str], garment: str) -> Cutout:
    """Cuts out the box around a person's outline, `_HEIGHT` pixels high."""
    masks = {name: _filled(outline, photo.shape[:2]) for name, outline in outlines.items()}
    rows, columns = (np.flatnonzero(masks["person"].any(axis=axis)) for axis in (1, 0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    size = (round((columns[-1] - columns[0]) * _HEIGHT / (rows[-1] - rows[0])), _HEIGHT)
    picture = np.asarray(Image.fromarray(photo[window]).resize(size, Image.Resampling.BILINEAR))
    masks = {name: _resized(mask[window], size) for name, mask in masks.items()}
    clothes = masks.pop("clothes")
    return Cutout(picture, masks, "woman", garment, clothes)


def _recoloured(cutout: Cutout, own: str, level: float) -> list[Cutout]:
    """Makes copies with clothes of each colour; `own` is the photo's colour, `level` the brightness of its cloth."""
    values = cutout.picture.astype(np.float32)
    cloth = cutout.clothes & _looks(values, own)
    brightness = values.max(axis=-1, keepdims=True) if own != "black" else values.mean(axis=-1, keepdims=True)
    light = np.clip(0.45 + 0.55 * brightness / level, 0.35, 1.25)
    people = []
    for name, colour in COLOURS.items():
        painted = np.where(cloth[..., None], np.array(colour, np.float32) * light, values) if name != own else values
        picture = np.clip(painted, 0, 255).astype(np.uint8)
        people.append(Cutout(picture, cutout.parts, cutout.noun, cutout.garment, None, name))
    return people


def _looks(values: np.ndarray, colour: str) -> np.ndarray:
    """Returns `(height, width)` bool: where a photo is roughly orange, or black."""
    if colour == "black":
        return values.max(axis=-1) < 95
    return values[..., 0] - values[..., 2] > 55


def _filled(outline: str, size: tuple[int, int]) -> np.ndarray:
    drawn = Image.new("1", (size[1], size[0]))
    points = [tuple(int(value) for value in point.split(",")) for point in outline.split()]
    ImageDraw.Draw(drawn).polygon(points, fill=1)
    return np.asarray(drawn)


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    drawn = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(drawn.resize(size, Image.Resampling.BILINEAR)) >= 128
