"""`speaker="everyone"`: the people in a video, each tracked through cuts and absences, and their merged result."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .clip_arrays_avsr import ClipInput, fetch_input, open_input
from .face_tracking_avsr import Change, SceneWatch, inside
from .landmarks_avsr import (
    SAME_PERSON,
    Box,
    Face,
    FaceDescriber,
    FaceFollower,
    LandmarkDetector,
    grown,
    make_detector,
    overlap,
)
from .media_avsr import PICTURE
from .media_source_avsr import DEFAULT_TRACKS, TrackChoice, source_name

MOST = 8  # most people who are read: each of them takes as long as a clip of one person

SAMPLES = 6  # most descriptions of the face in a tracklet: in the first search, the second, the fourth, and so on
NEAR = 1.0  # face widths: without descriptions, a face that comes back within this distance is the same person's
AWAY = 250  # frames: without descriptions, a face that is away for longer counts as another person
SHORTEST = 1.0  # seconds for which a person must be seen
LOOK_AGAIN = 5  # frames between two searches while a face is missing, or there is none
LOST = 25  # frames for which a face that is not found is waited for
SAME_PLACE = 0.4  # intersection over union from which on a face found is the one that is expected there
DRIFTED = 0.7  # below it, the follower's points are no longer those of the face, and the ones found count
JOINED = 1000  # most tracklets that are compared each with each; the shortest of more are assigned afterwards
MARGIN = 0.25  # of a face's width, added on each side: the face is searched for in this box later


def read_everyone(
    source: Any, image_processor: Any, tracks: TrackChoice, read: Callable[[Any, Person], dict[str, Any]]
) -> dict[str, Any]:
    """
    Returns the results of all whose faces are in view: the source is read once for all, then once for each.

    Args:
        source: as `as_input` returns it.
        image_processor: [`MouthRoiImageProcessor`], for its settings.
        tracks: which of several videos is looked at.
        read: takes the source and a person's track, returns the pipeline's result for them.
    """
    source = fetch_input(source)
    name = source.name if isinstance(source, ClipInput) else source_name(source)
    detector = make_detector(image_processor.landmarks, all_sizes=True)
    people, warnings = people_in(source, image_processor, detector, tracks)
    return together([named(read(source, person), number, name) for number, person in enumerate(people, 1)], warnings)


def people_in(
    source: Any, image_processor: Any, detector: LandmarkDetector, tracks: TrackChoice = DEFAULT_TRACKS
) -> tuple[list[Person], list[str]]:
    """
    Finds the people whose faces are long enough in a source, see `FaceTrackCollector.people`; it is read once.

    Args:
        source: path, bytes, seekable binary file object, or arrays; see [`ClipStream`].
        image_processor: [`MouthRoiImageProcessor`], for its settings.
        detector: finds the faces.
        tracks: which of several videos is looked at.

    Returns:
        At most eight people, in the order of their appearance; and sentences for the user.

    Raises:
        ValueError: the source cannot be read, has no pictures, or no face is long enough in them.
    """
    fps = image_processor.fps
    pictures = open_input(source, None, fps, image_processor.roi_size, tracks)
    try:
        if PICTURE not in pictures.kinds:
            raise ValueError(f"{pictures.name}: people cannot be found: there is no video.")
        people = find_people(_pictures(iter(pictures)), detector, image_processor.detect_every, fps)
    finally:
        pictures.close()
    if not people:
        raise ValueError(f"{pictures.name}: no face is in view for long enough to be read.")
    if len(people) <= MOST:
        return people, []
    longest = sorted(people, key=lambda person: -person.frames)[:MOST]
    sentence = f"{len(people)} people are in view: the {MOST} who are in view longest were read"
    return sorted(longest, key=lambda person: person.first), [sentence]


def _pictures(items: Iterator[tuple[str, np.ndarray]]) -> Iterator[np.ndarray]:
    """Yields the pictures among the decoded sound and pictures."""
    return (values for kind, values in items if kind == PICTURE)


@dataclass(frozen=True)
class Tracklet:
    """
    One face, followed without a break.

    Attributes:
        start: its first frame.
        scene: number of the scene.
        boxes: `(frames, 4)` float32, `(x0, y0, x1, y1)` in pixels.
        description: a descriptor of the face; None without a `FaceDescriber`.
    """

    start: int
    scene: int
    boxes: np.ndarray
    description: np.ndarray | None

    @property
    def end(self) -> int:
        """The frame after its last one."""
        return self.start + len(self.boxes)


class Person:
    """
    A person's tracklets. Iterating over it yields `(x0, y0, x1, y1)` around the face or None for each frame, so it is
    a track for the pipeline's `speaker`.
    """

    def __init__(self, tracklets: Sequence[Tracklet] = ()) -> None:
        self._tracklets = sorted(tracklets, key=lambda tracklet: tracklet.start)

    @property
    def frames(self) -> int:
        """The number of frames in which the face is seen."""
        return sum(len(tracklet.boxes) for tracklet in self._tracklets)

    @property
    def first(self) -> tuple[int, float]:
        """The first frame and the left edge in it: the order in which people are counted."""
        return self._tracklets[0].start, float(self._tracklets[0].boxes[0, 0])

    def add(self, tracklet: Tracklet) -> None:
        """Adds a tracklet of this person."""
        self._tracklets = sorted([*self._tracklets, tracklet], key=lambda tracklet: tracklet.start)

    def overlaps(self, tracklet: Tracklet) -> bool:
        """Returns whether the person has another tracklet at that time, so that this one is somebody else's."""
        return any(own.start < tracklet.end and tracklet.start < own.end for own in self._tracklets)

    def distance(self, tracklet: Tracklet) -> float:
        """Returns the distance between tracklet and person; from 1.0 on they are different people."""
        if tracklet.description is not None:
            own = [(one.description, len(one.boxes)) for one in self._tracklets if one.description is not None]
            mean: np.ndarray = np.average([look for look, _ in own], axis=0, weights=[frames for _, frames in own])
            return float(np.linalg.norm(mean - tracklet.description)) / SAME_PERSON
        return min(_apart(*sorted([own, tracklet], key=lambda tracklet: tracklet.start)) for own in self._tracklets)

    def __iter__(self) -> Iterator[Box | None]:
        frame = 0
        for tracklet in self._tracklets:
            yield from (None for _ in range(tracklet.start - frame))
            for box in tracklet.boxes:
                x0, y0, x1, y1 = box.tolist()
                yield grown((x0, y0, x1, y1), MARGIN * (x1 - x0), MARGIN * (y1 - y0))
            frame = tracklet.end


def _apart(earlier: Tracklet, later: Tracklet) -> float:
    """Returns the distance by place, in face widths; 2.0 between scenes and after too long an absence."""
    if earlier.scene != later.scene or later.start - earlier.end > AWAY:
        return 2.0
    before, after = earlier.boxes[-1], later.boxes[0]
    x, y = (before[:2] + before[2:]) / 2 - (after[:2] + after[2:]) / 2
    return float(np.hypot(x, y)) / (NEAR * float(before[2] - before[0]))


def join(tracklets: Sequence[Tracklet]) -> list[Person]:
    """
    Returns the people that tracklets with descriptions are of.

    Of all people, at first one for each tracklet, the two who look most alike are joined until no two are less than
    `SAME_PERSON` apart; those who are in view at the same time never are. So it does not matter in which order
    tracklets are compared, and a doubtful one is assigned last.

    Args:
        tracklets: in any order.
    """
    if not tracklets:
        return []
    starts, ends = (np.array([getattr(one, name) for one in tracklets]) for name in ("start", "end"))
    looks = np.array([one.description for one in tracklets], np.float64)
    frames = (ends - starts).astype(np.float64)
    groups = [[one] for one in tracklets]
    never = (starts[:, None] < ends) & (starts < ends[:, None])  # of one person, as of two in view at the same time
    apart = np.stack([np.linalg.norm(looks - look, axis=1) for look in looks])
    apart[never] = np.inf
    while True:
        one, other = divmod(int(apart.argmin()), len(apart))
        if apart[one, other] >= SAME_PERSON:
            return [Person(group) for group in groups if group]
        looks[one] = np.average(looks[[one, other]], axis=0, weights=frames[[one, other]])
        frames[one] += frames[other]
        groups[one], groups[other] = groups[one] + groups[other], []
        never[one] |= never[other]
        never[:, one] = never[one]
        never[other] = never[:, other] = True
        apart[one] = apart[:, one] = np.where(never[one], np.inf, np.linalg.norm(looks - looks[one], axis=1))
        apart[other] = apart[:, other] = np.inf


class _Followed:
    """A face that is being followed, and its boxes so far."""

    def __init__(self, face: Face, start: int, scene: int):
        self.face, self._start, self._scene = face, start, scene
        self._boxes = array("f", face.box)
        self.descriptions: list[np.ndarray] = []
        self._found = 0  # searches in which it was found
        self.since = 0  # frames since it was found in a search
        self.missing = False  # in the latest search, or lost by the follower since then

    def move(self, face: Face) -> None:
        """Adds its place in the next frame, which was not searched."""
        self.face = face
        self.since += 1
        self._boxes.extend(face.box)

    def wait(self) -> None:
        """Adds the place of the frame before: a search has not found it in the next one."""
        self.missing = True
        self.move(self.face)

    def lose(self) -> None:
        """Adds the place of the frame before, up to which it counts as found: the follower sees it no more."""
        self.since = self.since if self.missing else 0
        self.wait()

    def find(self, face: Face) -> None:
        """Adds its place in the next frame, where a search has found it."""
        self.move(face)
        self.missing, self.since = False, 0

    def take_look(self, describer: FaceDescriber, frame: np.ndarray) -> None:
        """Describes the face, which has just been found: in few of a long tracklet's frames, all over it."""
        self._found += 1
        if len(self.descriptions) < SAMPLES and self._found & (self._found - 1) == 0:
            self.descriptions.append(describer.describe(frame, self.face))

    def tracklet(self) -> Tracklet:
        """Returns the tracklet up to the frame in which it was last found."""
        boxes = np.array(self._boxes, np.float32).reshape(-1, 4)
        description = np.mean(self.descriptions, axis=0) if self.descriptions else None
        return Tracklet(
            self._start, self._scene, boxes[: len(boxes) - self.since] if self.missing else boxes, description
        )


class FaceTrackCollector:
    """
    Follows all faces of a video, frame by frame. It stores a box for each face and frame, and no pictures.

    Args:
        detector: finds the faces. If it is a `FaceFollower`, not every frame is searched; if it is a `FaceDescriber`,
            people are re-identified after cuts and absences by appearance, else by place only.
        detect_every: frames between two searches of the whole picture.
    """

    def __init__(self, detector: LandmarkDetector, detect_every: int = 10):
        self._detector, self._detect_every = detector, detect_every
        self._follower = detector if isinstance(detector, FaceFollower) else None
        self._describer = detector if isinstance(detector, FaceDescriber) else None
        self._watch = SceneWatch()
        self.frames = 0
        self._scene = self._scene_before = self._scenes = 0
        self._open: list[_Followed] = []
        self._done: list[Tracklet] = []

    def add(self, frame: np.ndarray) -> None:
        """Adds a `(height, width, 3)` uint8 frame."""
        change = self._watch.see(frame)
        if change is Change.CUT:
            self._close(self._open)
            self._scenes += 1
            self._scene_before, self._scene = self._scene, self._scenes
        elif change is Change.RETURN:
            self._close(self._open)
            self._scene = self._scene_before
        complete = self._open and not any(one.missing for one in self._open)
        pause = self._detect_every if complete else LOOK_AGAIN
        if self._follower is None or change is not Change.NONE or self.frames % pause == 0:
            self._search(frame)
        else:
            for one in self._open:
                face = self._follower.follow(frame, one.face)
                if inside(face, frame):
                    one.move(face)
                else:
                    one.lose()
        self._close([one for one in self._open if (one.missing and one.since > LOST) or not inside(one.face, frame)])
        self.frames += 1

    def _search(self, frame: np.ndarray) -> None:
        """Finds the faces again that are being followed, and starts to follow all others."""
        faces = self._detector(frame)
        for one in self._open:
            followed = self._follower.follow(frame, one.face) if self._follower else None
            if followed is not None and not inside(followed, frame):
                followed = None
            expected = followed or one.face
            face = max(faces, key=lambda face: overlap(face.box, expected.box), default=None)
            common = 0.0 if face is None else overlap(face.box, expected.box)
            if face is not None and common > SAME_PLACE:
                faces = [other for other in faces if other is not face]
                one.find(followed if followed is not None and common > DRIFTED else face)
            elif followed is not None and self._follower is not None and self._follower.confirm(frame, followed):
                one.find(followed)
            else:
                one.wait()
        self._open += [_Followed(face, self.frames, self._scene) for face in faces]
        for one in self._open:
            if self._describer is not None and not one.missing:
                one.take_look(self._describer, frame)

    def _close(self, some: list[_Followed]) -> None:
        """Ends the tracklets of some of the faces."""
        self._done += [tracklet for one in some if len((tracklet := one.tracklet()).boxes)]
        self._open = [one for one in self._open if one not in some]

    def people(self, fps: float) -> list[Person]:
        """
        Returns the people seen for a second or longer, or for half of a video shorter than two seconds.

        Args:
            fps: frames per second of the video.

        Returns:
            The people in the order of their appearance; those who appear in the same frame from left to right.
        """
        self._close(self._open)
        # The longest first, as they are the most reliable.
        tracklets = sorted(self._done, key=lambda tracklet: -len(tracklet.boxes))
        described = tracklets[:JOINED] if self._describer is not None else []
        people = join(described)
        for tracklet in tracklets[len(described) :]:
            others = [person for person in people if not person.overlaps(tracklet)]
            closest = min(others, key=lambda person: person.distance(tracklet), default=None)
            if closest is None or closest.distance(tracklet) >= 1.0:
                closest = Person()
                people.append(closest)
            closest.add(tracklet)
        shortest = min(SHORTEST * fps, self.frames / 2)
        return sorted((person for person in people if person.frames >= shortest), key=lambda person: person.first)


def find_people(
    frames: Iterable[np.ndarray], detector: LandmarkDetector, detect_every: int, fps: float
) -> list[Person]:
    """
    Finds the people whose faces are long enough in a video, see `FaceTrackCollector.people`.

    Args:
        frames: `(height, width, 3)` uint8 pictures, taken one at a time.
        detector: finds the faces, see `FaceTrackCollector`.
        detect_every: frames between two searches.
        fps: frames per second.
    """
    collector = FaceTrackCollector(detector, detect_every)
    for frame in frames:
        collector.add(frame)
    return collector.people(fps)


def named(result: dict[str, Any], number: int, source: str) -> dict[str, Any]:
    """
    Returns a copy of one person's result with their name and that of the source.

    Args:
        result: of the pipeline, with the person's track as `speaker`.
        number: of the person, from 1 on.
        source: the source's name.
    """
    name = f"Speaker {number}"
    report = {**result["report"], "source": source, "speaker": {**result["report"]["speaker"], "asked": name}}
    report["warnings"] = [warning.replace("the speaker of the track", name) for warning in report["warnings"]]
    return {"speaker": name, **result, "report": report}


def together(results: Sequence[dict[str, Any]], warnings: Sequence[str] = ()) -> dict[str, Any]:
    """
    Merges the results of several people, each with a `"speaker"`, into one result.

    Args:
        results: of one source, one per person.
        warnings: sentences about all of them.

    Returns:
        The same keys as for one person: `"text"` has a line `Speaker 1: …` for each person who spoke, `"chunks"`
        are in the order of their times, each with its `"speaker"`, the confidence is the geometric mean of theirs,
        weighted by the length of their texts; and `"speakers"`, the results themselves.
    """
    first = results[0]["report"]
    said = [f"{result['speaker']}: {warning}" for result in results for warning in result["report"]["warnings"]]
    modalities = {result["report"]["modality"] for result in results}
    weights = [len(result["text"]) for result in results]
    weights = weights if any(weights) else [1] * len(results)
    logarithm = sum(w * math.log(max(r["confidence"], 1e-9)) for w, r in zip(weights, results)) / sum(weights)
    chunks = [{**chunk, "speaker": result["speaker"]} for result in results for chunk in result["chunks"]]
    return {
        "text": "\n".join(f"{result['speaker']}: {result['text']}" for result in results if result["text"]),
        "confidence": round(math.exp(logarithm), 4),
        "chunks": sorted(chunks, key=lambda chunk: chunk["timestamp"][0]),
        "alternatives": [],
        "report": {
            "source": first["source"],
            "modality": modalities.pop() if len(modalities) == 1 else "audiovisual",
            "duration": first["duration"],
            "people": len(results),
            "warnings": [*warnings, *said],
        },
        "speakers": list(results),
    }
