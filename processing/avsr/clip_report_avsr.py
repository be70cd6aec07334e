"""Describes a clip in numbers and in words, so that a bad crop is noticed before its odd transcript."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from .alignment_avsr import SpokenWord, TimedText, moved
from .landmarks_avsr import face_sizes

# Limits below or above which a warning is written. Those of face and blur: where reading lips becomes hard.
FEW_FACES = 0.9  # share of frames with a face
LONG_RUN = 0.5  # seconds without a face
SMALL_FACE = 70.0  # pixels, width of the face box
STRONG_YAW = 35.0  # degrees, median
BLURRED = 15.0  # variance of the Laplacian of 8-bit mouth crops at the standard size
STANDARD_MOUTH = 36.0  # pixels, width of the mean face's mouth at which blur is measured
DARK, BRIGHT = 30.0, 235.0  # mean grey value of the mouth crops
OUTSIDE = 0.05  # share of frames
FEW_FPS = 20.0
QUIET_DBFS, SILENT_DBFS = -45.0, -70.0
STILL = 0.06  # of `mouth_motion`, at most that of a photo: with grain .05; GRID's speech has .14 to .28, its rests .11
SHORTEST_MOTION = 20  # frames on which motion is judged: a syllable may be said with lips that hardly move
MOTION_CELLS = 16  # squares on a side of a mouth crop, of which the motion is measured
FLAT = 1.0  # grey levels of contrast below which a crop shows nothing that could move
CLIPPED = 0.001  # share of samples at full scale

SAMPLE = 500  # crops on which blur and brightness are measured, at most
SAMPLE_NUMBERS = 20_000  # frames from which medians are computed, at most
MOST_OTHERS = 1000  # words of other people that a report lists, at most
NEIGHBOURS = 1.0  # seconds between pieces of a long clip that count as one run
MAX_RUNS = 1000  # stretches without a face that are listed, at most; the longest ones

NOSE_TIP, LEFT_EYE, RIGHT_EYE = 30, 36, 45
NOSE_DEPTH = 0.5  # how far the nose stands out before the eyes' outer corners, in units of their distance

LIP_POINTS = 20  # landmarks 48 to 67: twelve of the outer line, from the corner on the left, and eight of the inner
CORNERS = (0, 6)
UPPER, LOWER = (13, 14, 15), (19, 18, 17)  # of the inner line, one above the other

MOTION_AROUND = 1.0  # seconds before and after a frame from which the motion of its lips is measured


@dataclass
class ClipReport:
    """Report on one clip. All times in seconds on the clip's clock, all sizes in pixels of the source picture.

    Attributes:
        frames: number of frames at `fps_out`.
        frames_with_face: share of them (0 to 1) in which the face was found.
        interpolated_runs: `(start, end)` of each stretch without a face, where landmarks are interpolated; at most
            the 1000 longest.
        cuts: how often another scene or another face begins.
        yaw: median angle in degrees by which the head is turned, estimated from the landmarks; positive towards the
            right edge of the picture. None without a face, as for the following ones.
        yaw_max: the largest absolute angle.
        mouth_outside: share of the frames with a face in which part of the mouth is outside of the picture.
        blur: median variance of the Laplacian of the 8-bit mouth crops, reduced so that a mouth is 36 pixels wide;
            small means blurred.
        brightness: median grey value of the crops, 0 to 255.
        face_size: median width of the face's box.
        lip_opening: median height between the inner lines of the lips, in widths of the mean face's mouth.
        lip_width: median width of the mouth in the same unit.
        lip_motion: mean speed at which the lips open and close, in the same unit per second.
        faces_max: most faces seen at once.
        faces_share: share of searches that saw more than one face.
        fps_in, fps_out: stored frame rate (None where unknown) and that of the result.
        audio_level_dbfs: level of the sound, root mean square, 0 being full scale; None without sound.
        speaker: who was followed where one was chosen, see `SpeakerReport.finish`; else None.
        warnings: faults of the input, one sentence each.
    """

    frames: int = 0
    frames_with_face: float = 0.0
    interpolated_runs: list[tuple[float, float]] = field(default_factory=list)
    cuts: int = 0
    yaw: float | None = None
    yaw_max: float | None = None
    mouth_outside: float | None = None
    blur: float | None = None
    brightness: float | None = None
    face_size: float | None = None
    lip_opening: float | None = None
    lip_width: float | None = None
    lip_motion: float | None = None
    faces_max: int = 0
    faces_share: float = 0.0
    fps_in: float | None = None
    fps_out: float = 25.0
    audio_level_dbfs: float | None = None
    speaker: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, lists and strings for `json.dumps`; `"speaker"` only if one was chosen."""
        facts = dataclasses.asdict(self) | {"interpolated_runs": [list(run) for run in self.interpolated_runs]}
        return {name: value for name, value in facts.items() if name != "speaker" or value is not None}

    def warn(self, sentences: Iterable[str]) -> None:
        """Adds sentences that are not there yet."""
        self.warnings += [s for s in dict.fromkeys(sentences) if s not in self.warnings]

    def add_audio(self, audio: np.ndarray | None) -> None:
        """Notes the level of `(samples,)` float sound, and whether it is silent, faint or clipped."""
        level = SoundLevel()
        if audio is not None:
            level.add(np.asarray(audio).reshape(-1))
        level.report(self, there_is_sound=audio is not None)


class SoundLevel:
    """Level and clipping of sound that comes in pieces."""

    def __init__(self) -> None:
        self._power, self._count, self._clipped = 0.0, 0, 0

    def add(self, samples: np.ndarray) -> None:
        """Adds `(samples,)` float, full scale 1.0; values that are not finite are left out."""
        samples = samples[np.isfinite(samples)].astype(np.float64)
        self._power += float(np.square(samples).sum())  # no BLAS product: its threads spin on afterwards
        self._count += len(samples)
        self._clipped += int((np.abs(samples) >= 0.999).sum())

    def report(self, report: ClipReport, there_is_sound: bool = True) -> None:
        """Notes the level in a report, and whether the sound is silent, faint or clipped."""
        if not there_is_sound:
            report.warn(["there is no sound"])
            return
        report.audio_level_dbfs = round(10 * math.log10(max(self._power / max(self._count, 1), 1e-12)), 1)
        if report.audio_level_dbfs < SILENT_DBFS:
            report.warn(["the sound is silent"])
        elif report.audio_level_dbfs < QUIET_DBFS:
            report.warn([f"the sound is faint ({report.audio_level_dbfs:.0f} dBFS)"])
        if self._clipped > CLIPPED * self._count:
            report.warn(["the sound is clipped: parts of it are at full scale"])


def is_silent(audio: np.ndarray) -> bool:
    """Whether the level of `(samples,)` float sound is so low that nobody can be heard."""
    return float(np.square(audio, dtype=np.float64).mean()) < 10 ** (SILENT_DBFS / 10) if len(audio) else True


def mouth_motion(mouths: np.ndarray) -> float:
    """Measures how much a mouth changes its shape.

    Shifts, zoom, roll, brightness and contrast are taken out, to first order: landmarks that flicker, a camera or a
    lamp bring those; and so is most of the grain, as squares of the crops are averaged.

    Args:
        mouths: `(frames, size, size)` uint8 crops.

    Returns:
        As a share of the mean picture's contrast (the standard deviation of its grey levels): the 90th percentile over
        the frames of the root mean square of what differs from that picture. Infinite without contrast.
    """
    cells = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(mouths.astype(np.float32))[:, None], MOTION_CELLS)
    pictures = cells[:, 0].double().numpy()  # (T, n, n)
    mean = pictures.mean(axis=0)
    down, across = np.gradient(mean)
    y, x = np.mgrid[:MOTION_CELLS, :MOTION_CELLS] - (MOTION_CELLS - 1) / 2
    rigid = (np.ones_like(mean), mean, across, down, x * across + y * down, x * down - y * across)
    inner = np.s_[..., 1:-1, 1:-1]  # where slopes are known from both sides
    basis, _ = np.linalg.qr(np.stack([part[inner].ravel() for part in rigid], axis=1))
    change = (pictures - mean)[inner].reshape(len(pictures), -1)
    change = change - np.einsum("tk,nk->tn", np.einsum("tn,nk->tk", change, basis), basis)
    contrast, moved = float(mean.std()), float(np.percentile(np.sqrt(np.square(change).mean(axis=1)), 90))
    return moved / contrast if contrast > FLAT else math.inf


def stands_still(mouths: np.ndarray, found: np.ndarray | None) -> bool:
    """
    Whether a mouth does not move: it is a photo's, or a picture's that is frozen. Short clips and tiny or flat crops
    are never said to.

    Args:
        mouths: `(frames, size, size)` uint8 crops.
        found: `(frames,)` bool, where the face was seen; None: everywhere.
    """
    seen = mouths if found is None else mouths[found[: len(mouths)]]
    judged = len(seen) >= SHORTEST_MOTION and min(seen.shape[1:]) >= MOTION_CELLS
    return judged and mouth_motion(seen) <= STILL


def estimate_yaw(points: np.ndarray) -> np.ndarray:
    """Estimates by how many degrees heads are turned, from the nose's tip between the eyes; to about 10 degrees.

    Args:
        points: `(frames, 68, 2)` pixels.

    Returns:
        `(frames,)`, positive where the nose points to the right edge of the picture.
    """
    eyes = points[:, RIGHT_EYE] - points[:, LEFT_EYE]  # (T, 2)
    middle = (points[:, RIGHT_EYE] + points[:, LEFT_EYE]) / 2
    distance = np.maximum((eyes**2).sum(axis=1), 1e-6)
    shift = ((points[:, NOSE_TIP] - middle) * eyes).sum(axis=1) / distance  # along the line of the eyes
    return np.degrees(np.arctan(shift / NOSE_DEPTH))


def lip_openings(lips: np.ndarray, mouth_width: float) -> np.ndarray:
    """Returns how far lips are open: the mean height between the inner lines, in widths of the mean mouth.

    Args:
        lips: `(frames, 20, 2)` landmarks 48 to 67 in pixels of the crop.
        mouth_width: of the mean face in the crop, in pixels.

    Returns:
        `(frames,)`, about 0 where lips are closed; NaN where the lips are.
    """
    heights = np.linalg.norm(lips[:, LOWER] - lips[:, UPPER], axis=2)
    return heights.mean(axis=1) / mouth_width


def lip_widths(lips: np.ndarray, mouth_width: float) -> np.ndarray:
    """Returns how wide mouths are, from corner to corner, in widths of the mean mouth.

    Args:
        lips: see `lip_openings`.
        mouth_width: see `lip_openings`.

    Returns:
        `(frames,)`; NaN where the lips are.
    """
    return np.linalg.norm(lips[:, CORNERS[1]] - lips[:, CORNERS[0]], axis=1) / mouth_width


def lip_motion(lips: np.ndarray, mouth_width: float, fps: float) -> np.ndarray:
    """Returns how much lips move around each frame: how far opening or width vary, whichever varies more.

    Those of people who talk vary by 0.02 and more (GRID), those of a still picture by less than 0.005.

    Args:
        lips: see `lip_openings`.
        mouth_width: see `lip_openings`.
        fps: frames per second.

    Returns:
        `(frames,)`, standard deviation from a second before the frame to a second after it, in widths of the mean
        mouth; NaN where the lips are.
    """
    if len(lips) == 0:
        return np.zeros(0)
    shapes = np.stack([lip_openings(lips, mouth_width), lip_widths(lips, mouth_width)], axis=1)  # (T, 2)
    known = np.isfinite(shapes).all(axis=1)
    shapes = np.where(known[:, None], shapes, 0.0).astype(np.float64)
    reach, frames = round(MOTION_AROUND * fps), np.arange(len(shapes))
    first, last = np.maximum(frames - reach, 0), np.minimum(frames + reach + 1, len(shapes))

    def summed(values: np.ndarray) -> np.ndarray:
        sums = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
        return sums[last] - sums[first]

    count = np.maximum(summed(known.astype(np.float64)), 1)[:, None]
    variance = summed(shapes**2) / count - (summed(shapes) / count) ** 2
    return np.where(known, np.sqrt(np.maximum(variance, 0.0)).max(axis=1), np.nan)


def laplacian_variance(crops: np.ndarray) -> np.ndarray:
    """Returns `(frames,)` float: variance of the 4-neighbour Laplacian of `(frames, height, width)` in 0 ... 255."""
    c = crops.astype(np.float32)
    if min(c.shape[1:]) < 3:
        return np.zeros(len(c), dtype=np.float32)
    middle = c[:, 1:-1, 1:-1]
    laplacian = c[:, :-2, 1:-1] + c[:, 2:, 1:-1] + c[:, 1:-1, :-2] + c[:, 1:-1, 2:] - 4 * middle
    return laplacian.var(axis=(1, 2))


def measure_blur(mouths: np.ndarray, mouth_width: float) -> float:
    """Returns the median variance of the Laplacian of crops at the standard mouth width.

    Args:
        mouths: `(frames, height, width)` uint8.
        mouth_width: of the mean face in the crops, in pixels.
    """
    crops = torch.from_numpy(mouths).float()
    if mouth_width > STANDARD_MOUTH:
        side = max(3, round(mouths.shape[-1] * STANDARD_MOUTH / mouth_width))
        crops = torch.nn.functional.interpolate(
            crops[:, None], size=(side, side), mode="bilinear", antialias=True, align_corners=False
        )[:, 0]  # (T, side, side)
    return float(np.median(laplacian_variance(crops.numpy())))


class ReportBuilder:
    """Measures the crops of one clip, block by block; its memory does not depend on the length.

    Args:
        mouth_width: of the mean face in the crops, in pixels.
        fps: processed frame rate.
    """

    def __init__(self, mouth_width: float, fps: float):
        self._mouth_width, self.fps = mouth_width, fps
        self._frames = self._found = self._outside = self._cuts = self._late = 0
        self._yaw_max = 0.0
        self._missing_since: int | None = None  # frame
        self._runs: list[tuple[float, float]] = []
        self._openings, self._widths = _Sample(SAMPLE_NUMBERS), _Sample(SAMPLE_NUMBERS)
        self._motion = 0.0  # sum of the changes of the opening
        self._steps = 0  # their number
        self._opening = math.nan  # of the frame before
        self._yaws, self._face_sizes, self._crops = _Sample(SAMPLE_NUMBERS), _Sample(SAMPLE_NUMBERS), _Sample(SAMPLE)

    def begin(self, late: int) -> None:
        """Notes that the first frame to be added is preceded by `late` frames of the clip without a picture."""
        self._late = late

    def add(
        self,
        mouths: np.ndarray,
        points: np.ndarray,
        found: np.ndarray,
        outside: np.ndarray,
        cuts: np.ndarray,
        lips: np.ndarray | None = None,
    ) -> None:
        """Adds some more frames.

        Args:
            mouths: `(frames, height, width)` uint8 crops.
            points: `(frames, 68, 2)`; only rows with `found` count.
            found: `(frames,)` bool.
            outside: `(frames,)` bool, where part of the mouth is outside of the picture.
            cuts: `(frames,)` bool, where a new scene or another face begins.
            lips: `(frames, 20, 2)`, landmarks 48 to 67 in pixels of the crops; None where they are not measured.
        """
        for index in np.flatnonzero(np.diff(found, prepend=self._missing_since is None)):
            self._turn(self._frames + int(index))
        self._frames += len(found)
        self._found += int(found.sum())
        self._outside += int(outside[found].sum())
        self._cuts += int(cuts.sum())
        if found.any():
            yaw = estimate_yaw(points[found])
            self._yaw_max = max(self._yaw_max, float(np.abs(yaw).max()))
            self._yaws.add(yaw)
            self._face_sizes.add(face_sizes(points[found]))
            self._crops.add(mouths[found])
        if lips is not None:
            self._add_lips(lips, found, cuts)

    def _add_lips(self, lips: np.ndarray, found: np.ndarray, cuts: np.ndarray) -> None:
        """Measures the lips where the face is seen, and how they move from frame to frame of one scene."""
        openings = np.where(found, lip_openings(lips, self._mouth_width), math.nan)  # (T,)
        self._openings.add(openings[found])
        self._widths.add(lip_widths(lips[found], self._mouth_width))
        changes = np.abs(np.diff(openings, prepend=self._opening))
        changes = changes[~cuts & np.isfinite(changes)]
        self._motion, self._steps = self._motion + float(changes.sum()), self._steps + len(changes)
        self._opening = float(openings[-1]) if len(openings) else self._opening

    def _turn(self, frame: int) -> None:
        """Notes that the face is lost or found at this frame."""
        if self._missing_since is None:
            self._missing_since = frame
            return
        start, end = ((self._late + place) / self.fps for place in (self._missing_since, frame))
        run = round(start, 3), round(end, 3)
        self._runs, self._missing_since = [*self._runs, run], None
        if len(self._runs) > MAX_RUNS:
            self._runs.remove(min(self._runs, key=lambda run: run[1] - run[0]))

    def finish(self, counts: Sequence[int], switches: int, fps_in: float | None) -> ClipReport:
        """Returns the report, once all frames were added.

        Args:
            counts: number of faces in each search.
            switches: how often another face was taken within a scene.
            fps_in: stored frame rate.
        """
        report = ClipReport(frames=self._frames, fps_in=fps_in, fps_out=self.fps, cuts=self._cuts)
        if self._frames == 0:
            report.warn(["there are no pictures"])
            return report
        if self._missing_since is not None:
            self._turn(self._frames)
        report.faces_max = max(counts, default=int(self._found > 0))
        report.faces_share = round(float(np.mean(np.asarray(counts) > 1)), 3) if len(counts) else 0.0
        report.frames_with_face = round(self._found / self._frames, 4)
        report.interpolated_runs = self._runs
        if self._found:
            crops = np.stack(self._crops.items)
            report.yaw, report.yaw_max = round(float(np.median(self._yaws.items)), 1), round(self._yaw_max, 1)
            report.mouth_outside = round(self._outside / self._found, 4)
            report.blur = round(measure_blur(crops, self._mouth_width), 1)
            report.brightness = round(float(np.median(crops)), 1)
            report.face_size = round(float(np.median(self._face_sizes.items)), 1)
        if self._openings.items:
            report.lip_opening = round(float(np.median(self._openings.items)), 3)
            report.lip_width = round(float(np.median(self._widths.items)), 3)
        if self._steps:
            report.lip_motion = round(self._motion / self._steps * self.fps, 3)
        report.warn(_sentences(report, switches))
        return report


class _Sample:
    """Evenly spread items of a series of unknown length: all up to `most`, beyond it every second, fourth, ..."""

    def __init__(self, most: int):
        self.items: list[Any] = []
        self._most, self._step, self._seen = most, 1, 0

    def add(self, items: Iterable[Any]) -> None:
        for item in items:
            if self._seen % self._step == 0:
                if len(self.items) == self._most:
                    self.items, self._step = self.items[::2], 2 * self._step
                if self._seen % self._step == 0:
                    self.items.append(item.copy() if isinstance(item, np.ndarray) else item)  # not a view of a block
            self._seen += 1


def _sentences(report: ClipReport, switches: int) -> list[str]:
    """Returns what a user should know about the pictures, in words."""
    return [*_faces_seen(report), *_face_changes(report, switches), *_looks(report)]


def _faces_seen(report: ClipReport) -> Iterator[str]:
    if report.frames_with_face == 0:
        yield "no face was found: lips cannot be read"
    elif report.frames_with_face < FEW_FACES:
        yield f"a face was found in {report.frames_with_face:.0%} of the frames only"
    start, end = max(report.interpolated_runs, key=lambda run: run[1] - run[0], default=(0.0, 0.0))
    if report.frames_with_face and end - start > LONG_RUN:
        yield f"no face from {start:.1f} to {end:.1f} s: the mouth's place is a guess there"
    if report.faces_max > 1:
        yield f"{report.faces_max} faces in view: the largest and most central one was followed"


def _face_changes(report: ClipReport, switches: int) -> Iterator[str]:
    if report.cuts > switches:
        yield f"{report.cuts - switches} changes of scene: the face is detected anew after each"
    if switches:
        yield f"the face was lost and found elsewhere {switches} times: it may be another person's"


def _looks(report: ClipReport) -> Iterator[str]:
    if report.yaw is not None and abs(report.yaw) > STRONG_YAW:
        yield f"the head is turned by about {abs(report.yaw):.0f} degrees: lips are hard to read from the side"
    if report.face_size is not None and report.face_size < SMALL_FACE:
        yield f"the face is small ({report.face_size:.0f} pixels wide)"
    if report.mouth_outside is not None and report.mouth_outside > OUTSIDE:
        yield f"the mouth is partly outside of the picture in {report.mouth_outside:.0%} of the frames"
    if report.brightness is not None and not DARK <= report.brightness <= BRIGHT:
        yield f"the mouth is very {'dark' if report.brightness < DARK else 'bright'}"
    elif report.blur is not None and report.blur < BLURRED:
        yield f"the mouth is blurred (Laplacian variance {report.blur:.0f})"
    if report.fps_in and report.fps_in < FEW_FPS:
        yield f"the video has only {report.fps_in:.1f} frames a second"


# ------------------------------------------------------------------------------------------------------- a long clip


class PieceText(Protocol):
    """What counts of the text of a piece; see `ChunkResult`."""

    fits: bool
    silence: float
    others: list[TimedText]
    left_out: Any


class RunningStatistics:
    """
    Statistics of a long clip, updated while it is read.

    Attributes:
        seconds: read from `"audio"`, `"visual"` and `"audiovisual"`.
        sound_only: `[start, end]` in seconds of each stretch that was read without lips.
        changes: how many pieces were read without their lips because the scene changed in them.
        fits: whether each text had room in its piece.
        others: the first words that are not the chosen speaker's.
        others_count: their total number.
        left_out: stretches whose words are too unsure to be speech.
        still: seconds read without lips because the picture stands still there.
        stood_still: whether it does anywhere.
    """

    def __init__(self) -> None:
        self.seconds = {"audio": 0.0, "visual": 0.0, "audiovisual": 0.0}
        self.sound_only: list[list[float]] = []
        self.changes = 0
        self.fits = True
        self.others: list[TimedText] = []
        self.others_count, self._others_until = 0, 0.0
        self.left_out: list[Any] = []
        self.still, self.stood_still = 0.0, False
        self._text, self._silence = _Mean(), _Mean()

    @property
    def confidence(self) -> float:
        """Returns the geometric mean of the characters' confidences; without any, the probability of silence."""
        return math.exp((self._text if self._text.count else self._silence).value)

    def add_piece(self, modality: str, start: float, end: float, reading: PieceText) -> None:
        """Notes one piece (seconds)."""
        self.seconds[modality] += end - start
        self.fits &= reading.fits
        self._silence.add([reading.silence])
        self._add_others([moved(word, start) for word in reading.others])
        if reading.left_out is not None and len(self.left_out) < MOST_OTHERS:
            self.left_out.append(reading.left_out.moved(start))
        if modality == "audio" and self.sound_only and start - self.sound_only[-1][1] < NEIGHBOURS:
            self.sound_only[-1][1] = end
        elif modality == "audio":
            self.sound_only.append([start, end])

    def _add_others(self, words: Sequence[TimedText]) -> None:
        """Adds words of other people; words that overlapping pieces share are added once."""
        new = [word for word in words if word.start >= self._others_until]
        self._others_until = max([self._others_until, *(word.end for word in new)])
        self.others_count += len(new)
        self.others += new[: MOST_OTHERS - len(self.others)]

    def add_window(self, nonblank_probability: np.ndarray) -> None:
        """Notes the probabilities `(steps,)` of a window's letters."""
        self._silence.add(np.log1p(-nonblank_probability.clip(max=1 - 1e-6)).tolist())

    @property
    def words(self) -> bool:
        """Whether any word was read."""
        return self._text.count > 0

    def add_word(self, word: SpokenWord) -> None:
        """Notes a finished word."""
        self._text.add([math.log(max(character.confidence, 1e-30)) for character in word.characters])


@dataclass
class _Mean:
    """A running mean, which does not store the numbers."""

    total: float = 0.0
    count: int = 0

    def add(self, values: Sequence[float]) -> None:
        self.total, self.count = self.total + sum(values), self.count + len(values)

    @property
    def value(self) -> float:
        return self.total / max(self.count, 1)
