"""Which faces are found: small, turned and in profile; where there are none; and how much their points jitter.

    python benchmarks/faces_found.py [--clips GRID/speakers GRID/s1/test] [--without COCO] [--landmarks mesh dlib]

Folders of clips have videos of one face each; of `COCO/annotations/instances_NAME.json` those photos in `COCO/NAME`
are taken in which nobody is annotated. Everything is made of frames of the clips, in which a face is where most frames
of the clip have it. It counts as found where the middle of its points is less than half its width from there. Without
folders the two portraits of the package are the clips.

- frames: of 13 clips, as they are and reduced to 126x101 pixels.
- turned: pictures turned by 45 degrees, to the left and to the right.
- small: pictures reduced until the face is 24 pixels wide, in 640x480 pixels of a photo without people.
- in profile: the picture is drawn again as its 468 points see it from the side. Around them, points of the head that
  lie farther back are guessed.
- false faces: photos without people in which one is found.
- jitter: second differences of eyes and nose over the distance of the eyes, where each frame is looked at.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial import ConvexHull, Delaunay

from lookhear.processing.avsr import FaceTracker, MeshLandmarkDetector, make_detector, read_frames

FPS = 25
CLIPS = 13
FRAMES = 75  # of a clip
PORTRAITS = ("astronaut", "hopper")
SMALL = (126, 101)  # pixels of GRID's frames at about a third of their size
CANVAS = (640, 480)
WIDTH = 24  # pixels of a small face
GREY = 110  # where a picture has nothing to show
EYES = (36, 45)  # outer corners
EYES_AND_NOSE = slice(27, 48)


@dataclass
class Clip:
    """
    One clip.

    Attributes:
        frames: `(height, width, 3)` uint8 each.
        middle: `(2,)`, x and y of the middle of the face's points in most frames, in pixels.
        width: of the face in most frames, in pixels.
    """

    frames: list[np.ndarray]
    middle: np.ndarray
    width: float


def videos(folders: list[Path]) -> Iterator[Iterable[np.ndarray]]:
    """Yields the frames of clips, one of each folder in turn; without folders, of the portraits."""
    ordered = itertools.zip_longest(*(sorted(folder.glob("*.mp4")) for folder in folders))
    yield from (read_frames(path, FPS) for row in ordered for path in row if path is not None)
    if not folders:
        from lookhear.training.avsr.synthesis import render_clip

        for name in PORTRAITS:
            yield render_clip("bin blue at f two now", portrait=name)[0]


def load_clips(folders: list[Path], detector, count: int = FRAMES) -> list[Clip]:
    """Returns the first `count` frames of the first `CLIPS` clips."""
    clips = []
    for video in itertools.islice(videos(folders), CLIPS):
        frames = list(itertools.islice(video, count))
        faces = [face for frame in frames[::15] for face in detector(frame)[:1]]
        middle = np.median([face.points.mean(axis=0) for face in faces], axis=0)
        clips.append(Clip(frames, middle, float(np.median([face.size for face in faces]))))
    return clips


def spread(clips: list[Clip], count: int) -> Iterator[tuple[Clip, np.ndarray]]:
    """Yields `count` frames that are spread evenly over all clips."""
    every = [(clip, frame) for clip in clips for frame in clip.frames]
    for index in np.linspace(0, len(every) - 1, count).round().astype(int):
        yield every[index]


def is_found(detector, picture: np.ndarray, middle: np.ndarray, width: float) -> bool:
    """Returns whether one of the faces found has its middle less than half a width from `middle`, in pixels."""
    faces = detector(np.ascontiguousarray(picture))
    return any(float(np.linalg.norm(face.points.mean(axis=0) - middle)) < width / 2 for face in faces)


# --------------------------------------------------------------------------------------------------- what is looked at


def reduced(clip: Clip, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns a frame of `SMALL` pixels, the middle of the face in it, and its width."""
    scale = np.array(SMALL) / (frame.shape[1], frame.shape[0])
    picture = Image.fromarray(frame).resize(SMALL, Image.Resampling.BILINEAR)
    return np.asarray(picture), clip.middle * scale, clip.width * float(scale[0])


def turned(clip: Clip, frame: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns a frame turned around the middle of its face, which stays where it is."""
    around = (float(clip.middle[0]), float(clip.middle[1]))
    picture = Image.fromarray(frame).rotate(degrees, Image.Resampling.BILINEAR, center=around, fillcolor=(GREY,) * 3)
    return np.asarray(picture), clip.middle, clip.width


def far_away(clip: Clip, frame: np.ndarray, behind: np.ndarray, generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns a photo with a frame in it whose face is `WIDTH` pixels wide, somewhere."""
    scale = WIDTH / clip.width
    size = [round(length * scale) for length in frame.shape[1::-1]]
    x, y = (int(generator.integers(0, whole - part)) for whole, part in zip(CANVAS, size))
    canvas = Image.fromarray(behind).resize(CANVAS, Image.Resampling.BILINEAR)
    canvas.paste(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR), (x, y))
    return np.asarray(canvas), clip.middle * scale + (x, y), float(WIDTH)


def in_profile(frame: np.ndarray, mesh: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray, float]:
    """
    Returns a picture of a face from the side, the middle of its points, and the width that it has from the front.

    Args:
        frame: `(height, width, 3)` uint8.
        mesh: `(468, 3)` points of the face in it; what is farther away has a larger depth.
        degrees: by which the head is turned.
    """
    centre, size = mesh.mean(axis=0), float(np.ptp(mesh[:, 0]))
    hull = mesh[ConvexHull(mesh[:, :2]).vertices]
    rings = [
        centre + (hull - centre) * (grow, grow, 0) + (0, 0, deep * size) for grow, deep in ((1.3, 0.5), (1.7, 0.9))
    ]
    points = np.concatenate([mesh, *rings])
    corners = Delaunay(points[:, :2]).simplices  # (triangles, 3)
    axis = centre + (0, 0, 0.5 * size)  # in the middle of the head
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    seen = (points - axis) @ turn.T + axis
    return drawn(frame, points[:, :2], seen, corners), seen[: len(mesh), :2].mean(axis=0), size


def drawn(frame: np.ndarray, source: np.ndarray, seen: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """
    Draws triangles of a picture where they are seen, the nearest one in each pixel.

    Args:
        frame: `(height, width, 3)` uint8.
        source: `(points, 2)` in the picture.
        seen: `(points, 3)` in the result.
        corners: `(triangles, 3)`, numbers of points.

    Returns:
        `(height, width, 3)` uint8, grey where there is no triangle.
    """
    height, width = frame.shape[:2]
    result, depth = np.full_like(frame, GREY), np.full((height, width), np.inf)
    for three in corners:
        low = np.floor(seen[three, :2].min(axis=0)).astype(int).clip(0)
        high = np.ceil(seen[three, :2].max(axis=0)).astype(int).clip(None, (width - 1, height - 1))
        edges = np.vstack([seen[three, :2].T, np.ones(3)])  # (3, 3): x, y and 1 of each corner
        if (high < low).any() or abs(np.linalg.det(edges)) < 1e-6:
            continue
        x, y = (grid.ravel() for grid in np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(low, high))))
        shares = np.linalg.solve(edges, np.stack([x, y, np.ones(len(x))]))  # (3, pixels) of each corner
        distance = seen[three, 2] @ shares
        inside = (shares >= -1e-6).all(axis=0) & (distance < depth[y, x])
        x, y, shares = x[inside], y[inside], shares[:, inside]
        depth[y, x] = distance[inside]
        columns, rows = np.rint(source[three].T @ shares).astype(int)
        result[y, x] = frame[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return result


def photos_without_people(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields name and picture of the photos of a folder in COCO's format in which nobody is annotated."""
    for file in sorted(folder.glob("annotations/instances_*.json")):
        known = json.loads(file.read_text())
        (person,) = (category["id"] for category in known["categories"] if category["name"] == "person")
        peopled = {one["image_id"] for one in known["annotations"] if one["category_id"] == person}
        for image in known["images"]:
            path = folder / file.stem.removeprefix("instances_") / image["file_name"]
            if image["id"] not in peopled and path.is_file():
                yield path.name, np.asarray(Image.open(path).convert("RGB"))


def jitter(clip: Clip, detector) -> float:
    """Returns the mean second difference of the points of eyes and nose over the distance of the eyes."""
    tracker = FaceTracker(detector)
    faces = [tracker.update(frame) for frame in clip.frames]
    points = np.stack([face.points for face in faces if face is not None])
    eyes = float(np.linalg.norm(points[:, EYES[1]] - points[:, EYES[0]], axis=1).mean())
    return float(np.linalg.norm(np.diff(points[:, EYES_AND_NOSE], 2, axis=0), axis=2).mean()) / eyes


# ----------------------------------------------------------------------------------------------------------- the table


def lines(name: str, clips: list[Clip], behind: list[tuple[str, np.ndarray]], options) -> Iterator[tuple[str, str]]:
    """Yields what was looked at, and how much of it was found."""
    detector, generator = make_detector(name), np.random.default_rng(options.seed)

    def share(pictures) -> str:
        found = [is_found(detector, *picture) for picture in pictures]
        return f"{sum(found)} of {len(found)}"

    every = [(clip, frame) for clip in clips for frame in clip.frames]
    height, width = clips[0].frames[0].shape[:2]
    yield f"frames of {len(clips)} clips, {width}x{height}", share((frame, c.middle, c.width) for c, frame in every)
    yield f"the same at {SMALL[0]}x{SMALL[1]}", share(reduced(clip, frame) for clip, frame in every)
    some = list(spread(clips, options.pictures))
    sides = [1 - 2 * (index % 2) for index in range(len(some))]
    yield "turned by 45 degrees", share(turned(clip, frame, 45.0 * side) for (clip, frame), side in zip(some, sides))
    plain = [("", np.full((CANVAS[1], CANVAS[0], 3), GREY, np.uint8))]
    scenes = itertools.cycle(picture for _, picture in behind or plain)
    far = (far_away(clip, frame, scene, generator) for (clip, frame), scene in zip(some, scenes))
    yield f"{WIDTH} pixels wide in {CANVAS[0]}x{CANVAS[1]}", share(far)
    mesh = MeshLandmarkDetector()
    for degrees in (45, 60):
        meshes = [(frame, mesh(frame), degrees * side) for (_, frame), side in zip(some, sides)]
        profiles = (in_profile(frame, faces[0].mesh, angle) for frame, faces, angle in meshes if faces)
        yield f"seen from {degrees} degrees aside", share(profiles)
    if behind:
        false = [photo for photo, picture in behind if detector(picture)]
        yield "false faces in photos without people", f"{len(false)} of {len(behind)} {' '.join(false)}".strip()
    follower = MeshLandmarkDetector(follow_every=1) if name == "mesh" else detector
    yield "jitter of eyes and nose", f"{np.mean([jitter(clip, follower) for clip in clips]):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, nargs="+", default=[], help="folders of clips of one face each")
    parser.add_argument("--without", type=Path, help="folder in COCO's format, for its photos without people")
    parser.add_argument("--landmarks", nargs="+", choices=("mesh", "dlib"), default=["mesh"], help="detectors (mesh)")
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"of each clip ({FRAMES})")
    parser.add_argument("--pictures", type=int, default=45, help="turned, small, and in profile (45)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = load_clips(options.clips, make_detector(), options.frames)
    behind = list(photos_without_people(options.without)) if options.without else []
    print("| landmarks | what | found |\n|---|---|---:|", flush=True)
    for name in options.landmarks:
        for what, found in lines(name, clips, behind, options):
            print(f"| {name} | {what} | {found} |", flush=True)


if __name__ == "__main__":
    main()
