"""Faces: the processor's time to find and follow them, and how well two people are told apart after a cut.

    python benchmarks/faces.py [--clips GRID/speakers GRID/s1/test] [--photos FOLDER] [--landmarks mesh dlib]

A folder of clips has videos of one face each, and perhaps a `metadata.jsonl` that names their `speaker`; without one,
each clip shows another person, and so does each photo. Without folders the two portraits of the package are the
people. Tables:

- time: from a file to mouth crops, a frame; the face is followed, or searched for in every frame. Processor time, the
  least of a few runs; frames a second on the clock with decoding in a thread of its own, as pipelines do it.
- pairs: descriptions of two pictures of one person (other frames, sizes, light, compression), and of two people.
- cuts: two people side by side; after the cut each of them is where they were or in the other's place, at another size
  and in other light. Right: both are followed as the people that they are.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import queue
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lookhear import MouthRoiImageProcessor
from lookhear.processing.avsr import (
    SAME_PERSON,
    FaceTracker,
    MeshLandmarkDetector,
    find_people,
    make_detector,
    read_frames,
    write_video,
)

FPS = 25
SIDE = 320  # pixels of the square in which a person is shown in a generated cut
SCENE = 40  # frames before the cut, and after it
CLIPS_OF_ONE = 4  # most clips of one person
PORTRAITS = ("astronaut", "hopper")


@dataclass
class Person:
    """
    One person.

    Attributes:
        name: of the speaker, the clip or the photo.
        shots: for each clip or photo some frames `(height, width, 3)` uint8, in each of which there is one face.
    """

    name: str
    shots: list[list[np.ndarray]]


# --------------------------------------------------------------------------------------------------------- the people


def clips_by_person(folder: Path) -> dict[str, list[Path]]:
    """Returns person -> clips of a folder, at most `CLIPS_OF_ONE` of each."""
    described = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in described.read_text().splitlines()] if described.is_file() else []
    speakers = {row["file_name"]: row["speaker"] for row in rows if "speaker" in row}
    people: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.mp4")):
        people.setdefault(speakers.get(path.name, path.stem), []).append(path)
    return {name: clips[:CLIPS_OF_ONE] for name, clips in people.items()}


def load_people(options: argparse.Namespace, detector) -> Iterator[Person]:
    """Yields all people whose face is found, one to a picture."""
    for folder in options.clips:
        for name, clips in clips_by_person(folder).items():
            shots = [list(itertools.islice(read_frames(clip, FPS), 2 * SCENE)) for clip in clips]
            yield Person(name, [frames for frames in shots if len(detector(frames[0])) == 1])
    for path in sorted(options.photos.glob("**/*.jpg")) if options.photos else []:
        photo = np.asarray(Image.open(path).convert("RGB"))
        faces = detector(photo)
        if len(faces) == 1 and faces[0].size >= options.smallest:
            yield Person(path.stem, [[photo]])
    if not (options.clips or options.photos):
        from lookhear.training.avsr.synthesis import render_clip

        for name in PORTRAITS:
            yield Person(name, [render_clip("bin blue at f two now", portrait=name)[0][: 2 * SCENE]])


# ---------------------------------------------------------------------------------------------------------------- time


def decoded_ahead(path: Path) -> Iterator[np.ndarray]:
    """Yields a clip's frames, which are decoded in a thread of their own."""
    waiting: queue.Queue = queue.Queue(maxsize=8)

    def decode() -> None:
        for frame in read_frames(path, FPS):
            waiting.put(frame)
        waiting.put(None)

    threading.Thread(target=decode, daemon=True).start()
    while (frame := waiting.get()) is not None:
        yield frame


def spent(call, repeat: int, clock=time.process_time) -> float:
    """Returns the least seconds that a call takes."""
    call()
    seconds = []
    for _ in range(repeat):
        started = clock()
        call()
        seconds.append(clock() - started)
    return min(seconds)


def time_table(path: Path, name: str, repeat: int) -> Iterator[str]:
    """Yields the lines of the first table for one detector."""
    frames = list(read_frames(path, FPS))
    count, images = len(frames), MouthRoiImageProcessor(landmarks=name, roi_size=64, crop_size=48, mouth_width=36.0)
    points = images.extract(frames).landmarks

    def track() -> None:
        follower = MeshLandmarkDetector(follow_every=1) if name == "mesh" else make_detector(name)
        tracker = FaceTracker(follower, images.detect_every)
        for frame in frames:
            tracker.update(frame)

    searcher = make_detector(name)
    parts = {
        "decoding": lambda: sum(1 for _ in read_frames(path, FPS)),
        "faces and landmarks, followed": lambda: images.extract(frames),
        "mouth crops of known landmarks": lambda: images.extract(frames, points),
        "faces and landmarks, followed in every frame": track,
        "a search in every frame": lambda: [searcher(frame) for frame in frames],
    }
    milliseconds = {what: 1000 * spent(call, repeat) / count for what, call in parts.items()}
    milliseconds["faces and landmarks, followed"] -= milliseconds["mouth crops of known landmarks"]
    for what, value in milliseconds.items():
        yield f"| {name} | {what} | {value:.2f} |"
    seconds = spent(lambda: images.extract(decoded_ahead(path)), repeat, time.perf_counter)
    yield f"| {name} | from file to crops: {count / seconds:.0f} frames a second on the clock | |"


# --------------------------------------------------------------------------------------------------------------- pairs


def changed(picture: np.ndarray) -> Iterator[np.ndarray]:
    """Yields a picture as it is, and as it might be later in the same video."""
    yield picture
    image = Image.fromarray(picture)
    yield np.asarray(image.resize((max(1, image.width * 3 // 5), max(1, image.height * 3 // 5))))
    yield (255 * (picture / 255.0) ** 1.5).astype(np.uint8)
    packed = io.BytesIO()
    image.save(packed, "jpeg", quality=25)
    yield np.asarray(Image.open(packed))


def descriptions(person: Person, detector) -> list[np.ndarray]:
    """Describes the person in the first and the last frame of each of their shots, changed in some ways."""
    found = []
    for frames in person.shots:
        for frame in (frames[0], frames[-1])[: min(2, len(frames))]:
            for picture in changed(frame):
                if len(faces := detector(picture)) == 1:
                    found.append(detector.describe(picture, faces[0]))
    return found


def pair_line(people: list[Person], name: str) -> str:
    """Returns the line of the second table for one detector."""
    detector = make_detector(name)
    looks = [descriptions(person, detector) for person in people]
    one = [a - b for own in looks for a, b in itertools.combinations(own, 2)]
    two = [a - b for first, second in itertools.combinations(looks, 2) for a in first for b in second]
    near, far = (np.sort(np.linalg.norm(pairs, axis=1)) for pairs in (np.array(one), np.array(two)))
    borders = np.concatenate([near, far])
    missed = 1 - np.searchsorted(near, borders) / len(near)  # share of the pairs of one person at this border or above
    mixed = np.searchsorted(far, borders) / len(far)
    best = int(np.maximum(missed, mixed).argmin())
    cells = [len(near), len(far), f"{np.median(near):.2f}", f"{np.median(far):.2f}"]
    cells += [f"{(near >= SAME_PERSON).mean():.1%}", f"{(far < SAME_PERSON).mean():.1%}"]
    cells += [f"{max(missed[best], mixed[best]):.1%} at {borders[best]:.2f}"]
    return f"| {name} | {' | '.join(map(str, cells))} |"


# ---------------------------------------------------------------------------------------------------------------- cuts


def head(frame: np.ndarray, face: Any) -> np.ndarray:
    """Returns (SIDE, SIDE, 3) uint8: a face and its surroundings."""
    x0, y0, x1, y1 = face.box
    x, y, half = (x0 + x1) / 2, (y0 + y1) / 2, 1.6 * (x1 - x0)
    part = Image.fromarray(frame).crop(tuple(round(edge) for edge in (x - half, y - half, x + half, y + half)))
    return np.asarray(part.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def heads(person: Person, detector, generator: np.random.Generator) -> list[np.ndarray]:
    """Returns `2 * SCENE` pictures of the person's head: of two shots where there are two, else of one."""
    shots = [person.shots[i] for i in generator.permutation(len(person.shots))[:2]]
    pictures = []
    for index in range(2):
        frames = shots[index % len(shots)]
        frames = frames[SCENE:] if len(shots) == 1 and index and len(frames) >= 2 * SCENE else frames
        face = detector(frames[0])[0]
        pictures += [head(frames[i % len(frames)], face) for i in range(SCENE)]
    return pictures


def shown(pictures: list[np.ndarray], size: float, light: float) -> np.ndarray:
    """Returns `(frames, SIDE, SIDE, 3)` uint8: a head at another size, and in other light."""
    side = round(SIDE * size)
    result = np.full((len(pictures), SIDE, SIDE, 3), 90, np.uint8)
    corner = (SIDE - side) // 2
    for out, picture in zip(result, pictures):
        small = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))
        out[corner : corner + side, corner : corner + side] = small
    return np.clip(result * light, 0, 255).astype(np.uint8)


def cut_is_right(first: Person, second: Person, detector, generator: np.random.Generator) -> bool | None:
    """
    Makes a video of two people with a cut, and returns whether both are the same people after it; None where the
    detector does not find two faces in both scenes, of which there is nothing to tell apart.
    """
    left, right = (heads(person, detector, generator) for person in (first, second))
    swap = bool(generator.integers(2))
    before = np.concatenate([shown(left[:SCENE], 1.0, 1.0), shown(right[:SCENE], 1.0, 1.0)], axis=2)
    after = [shown(one[SCENE:], generator.uniform(0.75, 1.0), generator.uniform(0.7, 1.2)) for one in (left, right)]
    frames = [*before, *np.concatenate(after[::-1] if swap else after, axis=2)]
    if any(len(detector(frame)) != 2 for frame in (frames[0], frames[SCENE])):
        return None
    found = find_people(frames, detector, 10, FPS)
    if len(found) != 2:
        return False
    for person, starts_left in zip(sorted(found, key=first_place), (True, False)):
        boxes = list(person)
        for scene, is_left in ((boxes[:SCENE], starts_left), (boxes[SCENE:], starts_left != swap)):
            sides = [(box[0] + box[2]) / 2 < SIDE for box in scene if box is not None]
            if len(sides) < 0.9 * SCENE or set(sides) != {is_left}:
                return False
    return True


def first_place(person: Iterable[Any]) -> float:
    """Returns where a person is first seen: the left edge of the box, in pixels."""
    return next((box[0] for box in person if box is not None), float(2 * SIDE))


def cut_line(people: list[Person], name: str, count: int, seed: int) -> str:
    """Returns the line of the third table for one detector."""
    detector, generator = make_detector(name, all_sizes=True), np.random.default_rng(seed)
    pairs = [generator.permutation(len(people))[:2] for _ in range(count)]
    outcomes = [cut_is_right(people[a], people[b], detector, generator) for a, b in pairs]
    known = [outcome for outcome in outcomes if outcome is not None]
    return f"| {name} | {len(known)} of {count} | {sum(known) / max(1, len(known)):.1%} |"


# ---------------------------------------------------------------------------------------------------------- the tables


def print_table(heading: str, lines: Iterable[str]) -> None:
    """Prints a table in Markdown, line by line."""
    cells = heading.count("|") - 1
    print(f"\n{heading}\n|{'---|' * cells}", flush=True)
    for line in lines:
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, nargs="+", default=[], help="folders of clips of one face each")
    parser.add_argument("--photos", type=Path, help="folder of photos, of which those with one face are taken")
    parser.add_argument("--smallest", type=float, default=40.0, help="width of a photo's face in pixels (40)")
    parser.add_argument("--landmarks", nargs="+", choices=("mesh", "dlib"), default=["mesh"], help="detectors (mesh)")
    parser.add_argument("--cuts", type=int, default=100, help="videos with a cut (100)")
    parser.add_argument("--repeat", type=int, default=5, help="runs of which the fastest counts (5)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (1)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    people = [person for person in load_people(options, make_detector(options.landmarks[0])) if person.shots]
    with tempfile.TemporaryDirectory() as folder:
        clip = next((path for folder in options.clips for path in sorted(folder.glob("*.mp4"))), None)
        if clip is None:
            clip = Path(folder, "talk.mp4")
            write_video(clip, people[0].shots[0], FPS)
        lines = (line for name in options.landmarks for line in time_table(clip, name, options.repeat))
        print_table("| landmarks | what | processor ms a frame |", lines)
    print(f"\n{len(people)} people")
    heading = "| landmarks | pairs of one person | of two | median distance of one | of two | one taken for two | "
    heading += f"two taken for one (from {SAME_PERSON} on) | as many of both |"
    print_table(heading, (pair_line(people, name) for name in options.landmarks))
    lines = (cut_line(people, name, options.cuts, options.seed) for name in options.landmarks)
    print_table("| landmarks | cuts with two faces found | both followed rightly |", lines)


if __name__ == "__main__":
    main()
