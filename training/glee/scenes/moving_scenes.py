"""Generated videos: shapes and people that move, cross, leave and return, with exact masks, boxes and ids.

Every frame depends only on the scene and its number: `scene.frame(30)` needs none of the frames before it, and a scene
stores none of those that it has drawn.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from lookhear.training.glee.scenes.backgrounds import photo_ground, plain_ground
from lookhear.training.glee.scenes.portraits import Cutout
from lookhear.training.glee.scenes.scenes import LEAST_PIXELS, LEAST_SEEN, Scene, SceneMaterial, SceneRecipe, Shape
from lookhear.training.glee.scenes.shapes import COLOURS, KINDS, coverage, paint

TRIES = 60  # placements that are tried for an object before it is left out


@dataclass(frozen=True)
class MovingRecipe:
    """
    Settings of moving scenes. Lengths are shares of the shorter side, times are in frames.

    Attributes:
        look: backgrounds, grain, contrast and the pairs of colour and kind that don't occur, as in stills; its numbers
            of shapes and people are not used.
        frames: frames of a video.
        objects: fewest and most shapes that move at random, beside those of `crossings` and `returns`.
        crossings: pairs of shapes that pass over each other, one hiding the other in part or wholly.
        returns: shapes that leave the picture and come back.
        away: fewest and most frames for which these shapes are wholly out of the picture.
        people: fewest and most people, if there are portraits; some cross a shape, too.
        radius: smallest and largest radius of a shape.
        speed: lowest and highest speed, per frame.
    """

    look: SceneRecipe = field(default_factory=lambda: SceneRecipe(contrast=0.8))
    frames: int = 48
    objects: tuple[int, int] = (1, 2)
    crossings: int = 1
    returns: int = 1
    away: tuple[int, int] = (5, 12)
    people: tuple[int, int] = (0, 1)
    radius: tuple[float, float] = (0.09, 0.17)
    speed: tuple[float, float] = (0.008, 0.022)


@dataclass(frozen=True)
class MovingObject:
    """
    An object in one frame.

    Attributes:
        track_id: the same in all frames, from 0.
        shape: its colour, kind and place, and box and mask of its visible part.
        seen: share of the object that is visible, in [0, 1]; the rest is hidden or outside the picture.
    """

    track_id: int
    shape: Shape
    seen: float

    @property
    def clear(self) -> bool:
        """Whether enough is visible for it to be a target; the others are ignored by the metric."""
        return self.seen >= LEAST_SEEN and int(self.shape.mask.sum()) >= LEAST_PIXELS


@dataclass(frozen=True)
class MovingFrame:
    """`image` `(height, width, 3)` uint8 and the objects with a visible pixel, back to front."""

    image: np.ndarray
    objects: list[MovingObject]

    def as_still(self) -> tuple[Scene, list[int]]:
        """Returns a still scene of the clearly visible objects, and their ids."""
        clear = [instance for instance in self.objects if instance.clear]
        return Scene(self.image, [instance.shape for instance in clear]), [instance.track_id for instance in clear]


@dataclass(frozen=True)
class Path:
    """Linear motion reflected at borders, through `point` (x, y) at `time`, in pixels and frames."""

    point: tuple[float, float]
    time: float
    velocity: tuple[float, float]
    low: tuple[float, float]
    high: tuple[float, float]

    def at(self, time: float) -> tuple[float, float]:
        """Computes the centre at a time."""
        x, y = (
            _folded(place + speed * (time - self.time), low, high)
            for place, speed, low, high in zip(self.point, self.velocity, self.low, self.high)
        )
        return x, y


NOWHERE = Path((0.0, 0.0), 0.0, (0.0, 0.0), (0.0, 0.0), (1.0, 1.0))  # until a path has been chosen


def _folded(place: float, low: float, high: float) -> float:
    """Reflects a coordinate at both ends of a line."""
    length = max(high - low, 1e-6)
    along = (place - low) % (2 * length)
    return low + min(along, 2 * length - along)


@dataclass(frozen=True)
class Mover:
    """
    A moving object.

    Attributes:
        track_id: its id, from 0.
        colour: its name; of a person that of the clothes, or empty.
        kind: `person` or one of `KINDS`.
        half: half its width and height in pixels.
        path: of its centre.
        angle: rotation in the first frame, in radians.
        spin: rotation per frame, in radians.
        texture: seed of its paint.
        cutout: a person's picture; None: a shape.
        phrases: names in sentences beside the kind.
    """

    track_id: int
    colour: str
    kind: str
    half: tuple[float, float]
    path: Path
    angle: float = 0.0
    spin: float = 0.0
    texture: int = 0
    cutout: Cutout | None = None
    phrases: tuple[str, ...] = ()

    def extent(self, time: float) -> tuple[float, float, float, float]:
        """Returns (x0, y0, x1, y1) of the whole object, hidden and outside parts included, in pixels."""
        (x, y), (width, height) = self.path.at(time), self.half
        return x - width, y - height, x + width, y + height

    def drawn(self, time: float) -> tuple[int, int, np.ndarray, np.ndarray]:
        """Draws the whole object: top, left, cover `(h, w)` from 0 to 1 and colours `(h, w, 3)`."""
        x, y = self.path.at(time)
        if self.cutout is not None:
            rows, columns = self.cutout.picture.shape[:2]
            cover = self.cutout.parts["person"].astype(np.float32)
            return round(y - rows / 2), round(x - columns / 2), cover, self.cutout.picture.astype(np.float32)
        radius = self.half[0]
        reach = 1.15 * radius + 2
        top, left = int(np.floor(y - reach)), int(np.floor(x - reach))
        dx = (np.arange(left, int(x + reach) + 1, dtype=np.float32) + 0.5 - np.float32(x))[None]
        dy = (np.arange(top, int(y + reach) + 1, dtype=np.float32) + 0.5 - np.float32(y))[:, None]
        cover = coverage(self.kind, dx, dy, radius, self.angle + self.spin * time)
        return top, left, cover, paint(self.colour, dx, dy, radius, np.random.default_rng(self.texture))


@dataclass(frozen=True)
class Crossing:
    """Two objects whose extents overlap from frame `first` to frame `last`, and not in the frames around these."""

    one: int
    other: int
    first: int
    last: int


@dataclass(frozen=True)
class MovingScene:
    """
    A video whose frames are drawn on demand.

    Attributes:
        ground: `(height, width, 3)` float32, 0 to 255.
        movers: back to front.
        frames: number of frames.
        noise: standard deviation of the grain, in grey values.
        contrast: factor on the contrast of whole frames.
        seed: of the grain.
    """

    ground: np.ndarray
    movers: list[Mover]
    frames: int
    noise: float
    contrast: float
    seed: int

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[MovingFrame]:
        return (self.frame(index) for index in range(self.frames))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.ground.shape[0], self.ground.shape[1]

    def frame(self, index: int) -> MovingFrame:
        """Draws one frame. Raises IndexError: the scene has no such frame."""
        if not 0 <= index < self.frames:
            raise IndexError(index)
        image = self.ground.copy()
        owner = np.full(self.size, -1, np.int16)  # which mover is visible in a pixel
        areas = [self._draw(image, owner, place, mover, index) for place, mover in enumerate(self.movers)]
        middle = self.ground.mean()
        image = middle + (image - middle) * np.float32(self.contrast)
        grain = np.random.default_rng((self.seed, index)).standard_normal(self.size, np.float32)
        image += grain[..., None] * np.float32(self.noise)
        objects = [
            _object(mover, mover.path.at(index), owner == place, area)
            for place, (mover, area) in enumerate(zip(self.movers, areas))
            if (owner == place).any()
        ]
        return MovingFrame(np.clip(image, 0, 255).astype(np.uint8), objects)

    def _draw(self, image: np.ndarray, owner: np.ndarray, place: int, mover: Mover, time: int) -> int:
        """Paints a mover over the image, and returns its whole area in pixels."""
        top, left, cover, colours = mover.drawn(time)
        height, width = self.size
        rows = slice(max(0, top), max(0, min(height, top + cover.shape[0])))
        columns = slice(max(0, left), max(0, min(width, left + cover.shape[1])))
        whole = int((cover >= 0.5).sum())
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return whole
        inside = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        part, here = cover[inside], image[rows, columns]
        here += (colours[inside] - here) * part[..., None]
        owner[rows, columns][part >= 0.5] = place
        return whole

    def crossings(self, share: float = 0.3) -> list[Crossing]:
        """
        Finds the times in which two objects pass over each other, between times in which they are apart.

        Args:
            share: least share of the smaller extent that lies in the other in some frame, in [0, 1].
        """
        extents = np.array([[mover.extent(time) for mover in self.movers] for time in range(self.frames)])
        found = []
        for one in range(len(self.movers)):
            for other in range(one + 1, len(self.movers)):
                overlap = _overlap(extents[:, one], extents[:, other])
                low, high = sorted((self.movers[one].track_id, self.movers[other].track_id))
                for first, last in _runs(overlap > 0):
                    if first > 0 and last < self.frames - 1 and overlap[first : last + 1].max() >= share:
                        found.append(Crossing(low, high, first, last))
        return found


def _object(mover: Mover, middle: tuple[float, float], mask: np.ndarray, whole: int) -> MovingObject:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    box = float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
    shape = Shape(mover.colour, mover.kind, *middle, mover.half[0], box, mask, mover.phrases)
    return MovingObject(mover.track_id, shape, min(1.0, float(mask.sum()) / max(whole, 1)))


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns `(n,)` shares of the smaller of two boxes (x0, y0, x1, y1) that lie in the other."""
    shared = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    areas = [np.prod(box[:, 2:] - box[:, :2], axis=1) for box in (boxes, others)]
    return np.prod(np.maximum(shared, 0), axis=1) / np.minimum(*areas)


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Returns first and last place of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return [(int(first), int(last) - 1) for first, last in zip(edges[::2], edges[1::2])]


def make_moving_scene(
    random: np.random.Generator,
    size: tuple[int, int] = (128, 160),
    recipe: MovingRecipe | None = None,
    material: SceneMaterial | None = None,
) -> MovingScene:
    """
    Generates a video; equal generators give equal videos.

    Args:
        random: for all random choices.
        size: (height, width) in pixels.
        recipe: settings of the video.
        material: photos for backgrounds, and portraits; without them there are only shapes on plain grounds.

    Returns:
        A scene in whose first frame the objects are apart. No two of them share both colour and kind.
    """
    recipe, material = recipe or MovingRecipe(), material or SceneMaterial()
    look = recipe.look
    if look.photos and material.photos and random.random() < look.photos:
        ground = photo_ground(random, size, material.photos[random.integers(len(material.photos))])
    else:
        ground = plain_ground(random, size)
    movers = _Cast(random, size, recipe, material.portraits).movers()
    movers = [movers[place] for place in random.permutation(len(movers))]
    contrast = float(random.uniform(look.contrast, 1.0)) if look.contrast < 1 else 1.0
    return MovingScene(
        np.ascontiguousarray(ground, np.float32),
        movers,
        recipe.frames,
        look.noise,
        contrast,
        int(random.integers(2**31)),
    )


class _Cast:
    """Chooses the objects of a scene and their paths, one after the other."""

    def __init__(
        self, random: np.random.Generator, size: tuple[int, int], recipe: MovingRecipe, portraits: list[Cutout]
    ):
        self.random, self.size, self.recipe = random, size, recipe
        self.side = min(size)
        pairs = [(colour, kind) for colour in COLOURS for kind in KINDS if (colour, kind) not in recipe.look.excluded]
        self.pairs = [pairs[place] for place in random.permutation(len(pairs))]
        self.portraits = [portraits[place] for place in random.permutation(len(portraits))]
        self.placed: list[Mover] = []

    def movers(self) -> list[Mover]:
        recipe, random = self.recipe, self.random
        for _ in range(recipe.crossings):
            self._crossing()
        for _ in range(recipe.returns):
            self._add(self._shape(), self._return_path)
        people = int(random.integers(recipe.people[0], recipe.people[1] + 1)) if self.portraits else 0
        for _ in range(people):
            self._add(self._person(), self._walk)
        for _ in range(int(random.integers(recipe.objects[0], recipe.objects[1] + 1))):
            self._add(self._shape(), self._wander)
        return self.placed

    def _shape(self) -> Mover:
        random, (low, high) = self.random, self.recipe.radius
        radius = float(self.side * low * (high / low) ** random.random())
        colour, kind = self._words()
        turned = self.recipe.look.rotation
        return Mover(
            len(self.placed),
            colour,
            kind,
            (radius, radius),
            NOWHERE,
            angle=float(random.uniform(-turned, turned)),
            spin=float(random.uniform(-1, 1)) * 0.6 * turned / self.recipe.frames,
            texture=int(random.integers(2**31)),
        )

    def _words(self) -> tuple[str, str]:
        """Chooses an unused pair; often its kind, sometimes its colour occurs already."""
        chance, others = self.random.random(), [mover for mover in self.placed if mover.cutout is None]
        wanted = self.pairs
        if others and chance < 0.5:
            other = others[self.random.integers(len(others))]
            wanted = [p for p in self.pairs if (p[1] == other.kind if chance < 0.3 else p[0] == other.colour)]
        pair = (wanted or self.pairs)[0]
        self.pairs.remove(pair)
        return pair

    def _person(self) -> Mover:
        cutout = self.portraits.pop()
        tall = 4 * max(5, int(self.random.uniform(0.45, 0.7) * self.size[0] / 4))
        scaled = cutout.scaled(tall)
        half = scaled.picture.shape[1] / 2, scaled.picture.shape[0] / 2
        phrases: tuple[str, ...] = ()
        if cutout.colour:
            clothes = f"in the {cutout.colour} {cutout.garment}"
            phrases = (f"person in {cutout.colour}", f"person {clothes}", f"{cutout.noun} {clothes}")
        return Mover(len(self.placed), cutout.colour, "person", half, NOWHERE, cutout=scaled, phrases=phrases)

    def _crossing(self) -> None:
        """Adds two shapes that meet near the middle of picture and video, on crossing or opposite paths."""
        for _ in range(TRIES):
            before, pairs = list(self.placed), list(self.pairs)
            one = self._shape()
            meeting = float(self.random.uniform(0.3, 0.6)) * self.recipe.frames
            place = self._inside((0.25 * self.size[1], 0.25 * self.size[0]))
            heading = float(self.random.uniform(0, 2 * np.pi))
            one = replace(one, path=self._path(one, place, meeting, heading))
            self.placed.append(one)
            other = self._shape()
            across = heading + np.pi + float(self.random.uniform(-1.2, 1.2))
            beside = 0.5 * float(self.random.uniform(-1, 1)) * (one.half[0] + other.half[0])
            place = place[0] - beside * np.sin(heading), place[1] + beside * np.cos(heading)
            other = replace(other, path=self._path(other, place, meeting, across))
            if self._fits(one, before) and self._fits(other, [*before, one]):
                self.placed.append(other)
                return
            self.placed, self.pairs = before, pairs

    def _add(self, mover: Mover, path: Callable[[Mover], Path]) -> None:
        """Tries paths until the object is apart from the others in the first frame; if it never is, it is left out."""
        for _ in range(TRIES):
            moved = replace(mover, path=path(mover))
            if self._fits(moved, self.placed):
                self.placed.append(moved)
                return

    def _wander(self, mover: Mover) -> Path:
        return self._path(mover, self._inside(mover.half), 0.0, float(self.random.uniform(0, 2 * np.pi)))

    def _walk(self, mover: Mover) -> Path:
        """Moves sideways, mostly at the lower edge."""
        x, y = self._inside(mover.half)
        y = self.size[0] - mover.half[1] if self.random.random() < 0.7 else y
        return self._path(mover, (x, y), 0.0, 0.0 if self.random.random() < 0.5 else np.pi)

    def _return_path(self, mover: Mover) -> Path:
        """Moves out over the left or right border and back."""
        random, width = self.random, self.size[1]
        frames, (radius, _) = self.recipe.frames, mover.half
        away = float(random.uniform(*self.recipe.away))
        # From one passage of the border to the next the way is 2.2 radii, plus the frames away.
        speed = max(self._speed(), 2.2 * radius / max(0.55 * frames - away, 1.0))
        out, beyond = float(random.uniform(0.15, 0.3)) * frames, 1.1 * radius + speed * away / 2
        y = self._inside(mover.half)[1]
        low, high = (0.9 * radius, 0.9 * radius), (width - 0.9 * radius, self.size[0] - 0.9 * radius)
        climb = 0.3 * speed * float(random.uniform(-1, 1))
        if random.random() < 0.5:
            return Path((0.0, y), out, (-speed, climb), (-beyond, low[1]), high)
        return Path((float(width), y), out, (speed, climb), low, (width + beyond, high[1]))

    def _path(self, mover: Mover, point: tuple[float, float], time: float, heading: float) -> Path:
        """Moves inside the picture, with one of the recipe's speeds."""
        speed, (height, width) = self._speed(), self.size
        velocity = float(speed * np.cos(heading)), float(speed * np.sin(heading))
        low = 0.9 * mover.half[0], 0.9 * mover.half[1]
        if mover.cutout is not None:  # people stand on the lower edge
            low = mover.half
        return Path(point, time, velocity, low, (width - low[0], height - low[1]))

    def _speed(self) -> float:
        low, high = self.recipe.speed
        return float(self.side * low * (high / low) ** self.random.random())

    def _inside(self, margin: tuple[float, float]) -> tuple[float, float]:
        (height, width), (across, down) = self.size, margin
        x = float(self.random.uniform(min(across, width / 2), max(width - across, width / 2)))
        return x, float(self.random.uniform(min(down, height / 2), max(height - down, height / 2)))

    @staticmethod
    def _fits(mover: Mover, others: list[Mover]) -> bool:
        """Whether the object hides little of the others in the first frame, and they of it."""
        first = np.array([mover.extent(0.0)])
        return all(_overlap(first, np.array([other.extent(0.0)]))[0] < 0.1 for other in others)
