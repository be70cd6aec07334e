"""Writes videos, and shows a result: its words burnt in, its speaker outlined, or all of it on a time line."""

from __future__ import annotations

import contextlib
import difflib
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .captions_avsr import MAX_CHARACTERS, Cue, Word, make_cues, words_of
from .clip_arrays_avsr import ClipInput, as_input, fetch_input, is_media, open_input
from .feature_extraction_avsr import Channel
from .media_avsr import SOUND, probe_media, read_audio, read_frames
from .media_source_avsr import DEFAULT_TRACKS, MediaError, MediaSource, Track, TrackChoice, error_reason, import_av

# ---------------------------------------------------------------------------------------------------- captioned video

MIN_HEIGHT = 480  # pixels: a smaller video is enlarged, so that its captions are sharp
MIN_FPS = 1.0  # frames a second that are written, at least; a slower video's are repeated
MAX_FPS = 60.0
CAPTION_RATE = 24000  # Hz, of the sound track
SPOKEN, CURRENT, COMING = (255, 255, 255), (255, 214, 77), (176, 182, 190)  # RGB of words
BACKGROUND = (12, 16, 22, 190)  # RGBA of the box under them


def write_captioned_video(
    source: MediaSource | Mapping[str, Any],
    result: dict,
    path: str | os.PathLike,
    *,
    audio_track: Track | None = None,
    video_track: Track | None = None,
    channel: Channel | None = None,
) -> Path:
    """
    Writes the video again with its words burnt in: white when spoken, yellow while spoken, grey before.

    Frames are read, drawn on and written one by one, so memory does not grow with the length of the video (except for
    the sound, which is read whole). A video lower than 480 pixels is enlarged by a whole number.

    Args:
        source: path, http(s) URL, bytes, or binary file object, with a video; or `{"video", "audio", "audio_offset"}`,
            where `"video"` and `"audio"` are such sources.
        result: `{"text", "chunks"}` of the pipeline, with `return_timestamps`.
        path: mp4 file to write; its folder must exist.
        audio_track: as the pipeline was told.
        video_track: as the pipeline was told.
        channel: as the pipeline was told.

    Returns:
        The path.

    Raises:
        MediaError: the source cannot be read, or the file cannot be written.
        ValueError: there is no video, or there are no times.
    """
    return rewrite_video(source, result, path, tracks=TrackChoice(audio_track, video_track, channel))


def rewrite_video(
    source: MediaSource | Mapping[str, Any],
    result: dict,
    path: str | os.PathLike,
    change: Callable[[Iterator[np.ndarray], float], Iterator[np.ndarray]] | None = None,
    tracks: TrackChoice = DEFAULT_TRACKS,
) -> Path:
    """
    Writes the video again with its words burnt in, and with other changes.

    Args:
        source: see [`write_captioned_video`].
        result: see [`write_captioned_video`].
        path: see [`write_captioned_video`].
        change: draws on the frames before the words are: (frames, frames per second) -> frames.
        tracks: which of several tracks and channels are taken.

    Returns:
        The path.

    Raises:
        MediaError: the source cannot be read, or the file cannot be written.
        ValueError: there is no video, or there are no times.
    """
    given = fetch_input(as_input(source))
    video = given.get("video") if isinstance(given, ClipInput) else given
    if not is_media(video):
        raise ValueError('`source` must be a video file, or a dictionary whose "video" is one')
    info = probe_media(video, video_track=tracks.video, max_pixels=tracks.max_pixels)
    if not info.has_video:
        raise ValueError("there is no video to write captions on: the source holds sound only")
    fps = min(max(info.fps, MIN_FPS), MAX_FPS) if info.fps > 0 else 25.0
    audio = None
    if isinstance(given, ClipInput):
        audio = _sound_beside(given, tracks)
    elif info.has_audio:
        audio = read_audio(video, CAPTION_RATE, audio_track=tracks.audio, channel=tracks.channel)
    frames = read_frames(video, fps=fps, video_track=tracks.video, max_pixels=tracks.max_pixels)
    frames = frames if change is None else change(frames, fps)
    write_video(path, caption_frames(frames, words_of(result), fps), fps, audio, CAPTION_RATE)
    return Path(path)


def _sound_beside(source: ClipInput, tracks: TrackChoice) -> np.ndarray | None:
    """Returns the sound of an input whose pictures and sound are in two places, on the clock of the pictures."""
    sound = open_input(source, CAPTION_RATE, None, 1, tracks)
    try:
        parts = [values for kind, values in sound if kind == SOUND]
    finally:
        sound.close()
    return np.concatenate(parts) if parts else None


def enlarged(frame: np.ndarray) -> np.ndarray:
    """Returns a `(height, width, 3)` uint8 frame, enlarged by a whole number where it is lower than 480 pixels."""
    factor = math.ceil(MIN_HEIGHT / frame.shape[0])
    if factor <= 1:
        return frame
    size = frame.shape[1] * factor, frame.shape[0] * factor
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def caption_frames(frames: Iterator[np.ndarray], words: Sequence[Word], fps: float) -> Iterator[np.ndarray]:
    """
    Draws words on frames, each at its time; the words of several speakers one below the other, with their names.

    Args:
        frames: `(height, width, 3)` uint8 RGB; frame k is shown at k / fps.
        words: text and times in seconds.
        fps: frames per second.

    Yields:
        Frames of the same type, enlarged by a whole number where they are lower than 480 pixels.
    """
    speakers = list(dict.fromkeys(word.speaker for word in words))
    captioners: list[_Captioner] | None = None  # until the size of the frames is known
    for index, frame in enumerate(frames):
        picture = Image.fromarray(enlarged(frame))
        size = picture.size
        if captioners is None:
            captioners = [
                _Captioner([word for word in words if word.speaker == name], *size, name if len(speakers) > 1 else "")
                for name in speakers
            ]
        bottom = size[1] - round(0.05 * size[1])
        for captioner in reversed(captioners):
            overlay = captioner.overlay((index + 0.5) / fps)
            if overlay is not None:
                bottom -= overlay.height
                picture.paste(overlay, ((size[0] - overlay.width) // 2, bottom), overlay)
                bottom -= round(0.01 * size[1])
        yield np.asarray(picture)


class _Captioner:
    """
    Lays out the cues of one speaker for one size of picture.

    Args:
        words: of the speaker, in any order.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        name: of the speaker, in front of each cue; "" for none.
    """

    def __init__(self, words: Sequence[Word], width: int, height: int, name: str = ""):
        self.name = f"{name}: " if name else ""
        self._drawn_for: tuple[Cue, int] | None = None
        self._overlay: Image.Image | None = None
        self.words = sorted(words, key=lambda word: word.start)
        self.size = max(12, round(min(height / 15, width / 18)))
        width_of = ImageFont.load_default(self.size).getlength
        longest = width_of(self.name) + max((width_of(word.text) for word in words), default=0.0)
        self.size = max(
            6, int(self.size * min(1.0, 0.95 * width / (longest + self.size)))
        )  # a very long word fits, too
        self.font = ImageFont.load_default(self.size)
        fitting = int(0.86 * width / (0.62 * self.size))  # upper-case letters are about 0.62 of the height wide
        self.cues = make_cues(self.words, max_characters=max(8, min(MAX_CHARACTERS, fitting) - len(self.name)))

    def overlay(self, time: float) -> Image.Image | None:
        """Returns the caption at a time in seconds as an RGBA picture; None between cues."""
        moment = self.moment(time)
        if moment != self._drawn_for:
            self._drawn_for, self._overlay = moment, self.draw(*moment) if moment else None
        return self._overlay

    def moment(self, time: float) -> tuple[Cue, int] | None:
        """Returns the cue at a time in seconds and how many of its words have begun; None between cues."""
        cue = next((cue for cue in self.cues if cue.start <= time < cue.end), None)
        if cue is None:
            return None
        inside = [word for word in self.words if cue.start <= word.start < cue.end]
        begun = sum(word.start <= time for word in inside)
        over = begun == len(inside) and time >= inside[-1].end
        return cue, begun + over

    def draw(self, cue: Cue, begun: int) -> Image.Image:
        """Draws the caption as an RGBA picture; word `begun - 1` is the current one."""
        space = self.font.getlength(" ")
        rows = [[(word, self.font.getlength(word)) for word in line.split()] for line in cue.lines]
        widths = [sum(length for _, length in row) + space * (len(row) - 1) for row in rows]
        name_width = self.font.getlength(self.name)
        widths[0] += name_width
        pad, leading = round(0.45 * self.size), round(1.3 * self.size)
        box = round(max(widths)) + 2 * pad, leading * len(rows) + round(1.2 * pad)
        overlay = Image.new("RGBA", box)
        pen = ImageDraw.Draw(overlay)
        pen.rounded_rectangle((0, 0, box[0] - 1, box[1] - 1), radius=pad, fill=BACKGROUND)
        number = 0
        for row, (line, width) in enumerate(zip(rows, widths)):
            left = (box[0] - width) / 2
            if row == 0 and name_width:
                pen.text((left, 0.6 * pad + 0.5 * leading), self.name, COMING, self.font, anchor="lm")
                left += name_width
            for word, length in line:
                colour = CURRENT if number == begun - 1 else SPOKEN if number < begun else COMING
                pen.text((left, 0.6 * pad + (row + 0.5) * leading), word, colour, self.font, anchor="lm")
                left += length + space
                number += 1
        return overlay


# ------------------------------------------------------------------------------------------------------ chosen speaker

OUTLINE = (255, 214, 77)  # RGB
DARKER = 0.45  # factor of the brightness outside of the speaker's box
WIDTH = 1 / 160  # of the outline, in units of the picture's height


def write_speaker_video(
    source: MediaSource | Mapping[str, Any],
    result: dict[str, Any],
    path: str | os.PathLike,
    *,
    audio_track: Track | None = None,
    video_track: Track | None = None,
    channel: Channel | None = None,
) -> Path:
    """
    Writes the video again with an outline around the chosen speaker and their words below.

    Frames are read, drawn on and written one by one (the sound is read whole). A video lower than 480 pixels is
    enlarged by a whole number.

    Args:
        source: see [`write_captioned_video`].
        result: `{"text", "chunks", "report"}` of the pipeline with `speaker` and `return_timestamps`.
        path: mp4 file to write; its folder must exist.
        audio_track: as the pipeline was told.
        video_track: as the pipeline was told.
        channel: as the pipeline was told.

    Returns:
        The path.

    Raises:
        MediaError: the source cannot be read, or the file cannot be written.
        ValueError: there is no video, or there are no times, or no speaker.
    """
    report = result.get("report") or {}
    if "speaker" not in report:
        raise ValueError("the result has no speaker: call the pipeline with `speaker=`")
    seconds = report["speaker"]["seconds"]
    tracks = TrackChoice(audio_track, video_track, channel)
    return rewrite_video(source, result, path, lambda frames, fps: outline_speaker(frames, seconds, fps), tracks)


def outline_speaker(frames: Iterator[np.ndarray], seconds: Sequence[dict], fps: float) -> Iterator[np.ndarray]:
    """
    Draws a line around the speaker and darkens everything else.

    Args:
        frames: `(height, width, 3)` uint8 RGB; frame k is shown at k / fps.
        seconds: `{"second", "box": [x0, y0, x1, y1] or None}` of the report, in pixels.
        fps: frames per second.

    Yields:
        Frames of the same type, enlarged by a whole number where they are lower than 480 pixels; nothing is drawn
        while the speaker isn't in view.
    """
    boxes = {row["second"]: np.array(row["box"], float) for row in seconds if row["box"] is not None}
    for index, frame in enumerate(frames):
        large, box = enlarged(frame), box_at(boxes, index / fps)
        yield _drawn(large, None if box is None else len(large) // len(frame) * box)


def box_at(boxes: dict[int, np.ndarray], time: float) -> np.ndarray | None:
    """
    Interpolates the speaker's box at a time.

    Args:
        boxes: second -> mean `(4,)` box in it, for the seconds in which the speaker is in view.
        time: in seconds.

    Returns:
        `(4,)` float64 between the boxes of this second and of the nearer neighbour; None in a second without one.
    """
    second = int(time)
    if second not in boxes:
        return None
    share = time - second - 0.5  # from the middle of this second
    neighbour = boxes.get(second + (1 if share > 0 else -1), boxes[second])
    return (1 - abs(share)) * boxes[second] + abs(share) * neighbour


def _drawn(frame: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """Returns a frame with an outline around a `(4,)` box in pixels, darker outside; unchanged without a box."""
    if box is None:
        return frame
    height, width = frame.shape[:2]
    line = max(2, round(WIDTH * height))
    x0, y0, x1, y1 = (int(round(edge)) for edge in np.clip(box, 0, (width, height, width, height)))
    drawn = (frame * np.float32(DARKER)).astype(np.uint8)
    drawn[y0:y1, x0:x1] = OUTLINE
    inside = slice(y0 + line, max(y0 + line, y1 - line)), slice(x0 + line, max(x0 + line, x1 - line))
    drawn[inside] = frame[inside]
    return drawn


# --------------------------------------------------------------------------------------------------------- one picture

SECONDS_A_LINE = 4.0  # a longer clip continues below
MAX_LINES = 10  # the picture ends after this many lines
MARGIN, AXIS, ROW = 0.15, 0.5, 0.36  # inches: around the picture, below each line for its clock, a row of words
INK, MUTED, WAVE, SPOKEN_SPAN, PAPER = "#1d2530", "#77808c", "#3b7dd8", "#f0f4f9", "#ffffff"
RIGHT, WRONG, PLAIN = ("#dff1e6", "#1c6b3f"), ("#fbe0dd", "#b3261e"), ("#e4eefb", "#1c4f93")  # box, letters


def draw_reading(
    path: str | os.PathLike,
    readings: Mapping[str, dict],
    mouths: np.ndarray | None = None,
    audio: np.ndarray | None = None,
    *,
    reference: str | None = None,
    title: str | None = None,
    fps: float = 25.0,
    sampling_rate: int = 16000,
) -> Path:
    """
    Draws mouth crops, the waveform, and a row of words for each reading on one time line.

    Args:
        path: picture to write; its suffix gives the format (png, svg, pdf).
        readings: the label of each row -> `{"text", "chunks"}` of the pipeline, with `return_timestamps`.
        mouths: `(frames, height, width)` uint8, the crops that the network sees; None where there are no pictures.
        audio: `(samples,)` float32; None where there is no sound.
        reference: the true text, where known: wrong words stand out.
        title: above the picture.
        fps: crops per second of `mouths`.
        sampling_rate: samples per second of `audio`.

    Returns:
        The path.

    Raises:
        ValueError: there is nothing to draw.
        ImportError: matplotlib is missing.
    """
    Figure, FigureCanvasAgg = _matplotlib()
    line = _Line(readings, mouths, audio, reference, fps, sampling_rate)
    duration = line.duration
    if duration <= 0:
        raise ValueError("there is nothing to draw: pass mouths, audio, or readings with times")
    count = min(MAX_LINES, math.ceil(round(duration / SECONDS_A_LINE, 3)))
    length = duration if count == 1 else SECONDS_A_LINE
    band = sum(height for height, _ in line.panels()) + AXIS  # inches
    head = MARGIN + 0.4 * bool(title) + 0.27 * bool(reference)
    height = head + count * band
    figure = Figure(figsize=(12, height), dpi=130, facecolor=PAPER)
    FigureCanvasAgg(figure)
    if title:
        shown = f" (the first {count * length:.0f} s)" if duration > count * length + 1e-6 else ""
        figure.text(0.105, 1 - 0.3 / height, title + shown, fontsize=15, color=INK, weight="bold", va="center")
    if reference:
        said = f"said: {reference}"
        figure.text(0.105, 1 - (head - 0.13) / height, said, fontsize=11, color=MUTED, va="center")
    for number in range(count):
        top = height - head - number * band
        line.draw(figure, top / height, height, number * length, (number + 1) * length)
    return _save(figure, Path(path))


@dataclass(frozen=True)
class _Line:
    """The contents of the time line; `draw` draws a part of it. The attributes are the arguments of `draw_reading`."""

    readings: Mapping[str, dict]
    mouths: np.ndarray | None
    audio: np.ndarray | None
    reference: str | None
    fps: float
    sampling_rate: int

    @property
    def duration(self) -> float:
        """The seconds up to the end of the longest row."""
        ends = [word.end for result in self.readings.values() for word in words_of(result)]
        ends.append(len(self.mouths) / self.fps if self.mouths is not None else 0.0)
        ends.append(len(self.audio) / self.sampling_rate if self.audio is not None else 0.0)
        return max(ends)

    def panels(self) -> list[tuple[float, Callable[..., None]]]:
        """Returns the height in inches of each panel, from the top, and what draws it: (axes, start, end, aspect)."""
        panels: list[tuple[float, Callable[..., None]]] = []
        if self.mouths is not None:
            panels.append((0.66, functools.partial(self._draw_mouths, self.mouths)))
        if self.audio is not None:
            panels.append((0.9, functools.partial(self._draw_sound, self.audio)))
        if self.readings:
            panels.append((ROW * len(self.readings), self._draw_words))
        return panels

    def draw(self, figure, top: float, inches: float, start: float, end: float) -> None:
        """Draws `start` to `end` seconds, from `top` (fraction of the figure) downwards."""
        left, width = 0.105, 0.88
        for height, paint in self.panels():
            axes = figure.add_axes((left, top - height / inches, width, height / inches))
            axes.set_xlim(start, end)
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0, labelleft=False, labelbottom=False)
            axes.set_facecolor("none")
            paint(axes, start, end, width * 12 / height)
            top -= height / inches
        axes.tick_params(labelbottom=True, labelsize=9, labelcolor=MUTED)
        step = next(s for s in (0.1, 0.2, 0.5, 1.0) if (end - start) / s <= 16 or s == 1.0)
        axes.set_xticks(np.arange(math.ceil(start / step - 1e-6), math.floor(end / step + 1e-6) + 1) * step)
        axes.xaxis.set_major_formatter("{x:g} s")

    def _draw_mouths(self, mouths: np.ndarray, axes, start: float, end: float, aspect: float) -> None:
        """Draws crops side by side, each at its time; `aspect` is the number of squares that fit."""
        count = max(1, round(aspect))
        width = (end - start) / count
        axes.set_ylim(0, 1)
        _label(axes, "lips", 0.5)
        for slot in range(count):
            index = int((start + (slot + 0.5) * width) * self.fps)
            if index < len(mouths):
                extent = (start + (slot + 0.02) * width, start + (slot + 0.98) * width, 0.04, 1)
                axes.imshow(mouths[index], cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto")
        axes.set_xlim(start, end)
        axes.set_ylim(0, 1)

    def _draw_sound(self, audio: np.ndarray, axes, start: float, end: float, aspect: float) -> None:
        """Draws the envelope of the wave: the lowest and the highest sample of each 1/1200 of the line."""
        _label(axes, "sound", 0.0)
        axes.set_ylim(-1.05, 1.05)
        axes.axhline(0, color="#dfe4ea", linewidth=0.8, zorder=0)
        last = list(self.readings.values())[-1:]  # its words are marked behind the wave
        for word in words_of(last[0]) if last else ():
            axes.axvspan(word.start, word.end, ymin=0.02, ymax=0.98, color=SPOKEN_SPAN, linewidth=0, zorder=0)
        peak = float(np.abs(audio).max(initial=0.0)) or 1.0
        edges = (np.linspace(start, end, 1201) * self.sampling_rate).astype(int)
        stretch = np.asarray(audio[: int(end * self.sampling_rate)], np.float32) / peak
        edges = edges[edges < len(stretch)]
        if not len(edges):
            return
        low, high = np.minimum.reduceat(stretch, edges), np.maximum.reduceat(stretch, edges)
        axes.fill_between(edges / self.sampling_rate, low, high, color=WAVE, linewidth=0.4, step="post")

    def _draw_words(self, axes, start: float, end: float, aspect: float) -> None:
        """Draws a row of boxes for each reading; wrong words are red where the reference is known."""
        rows = len(self.readings)
        axes.set_ylim(rows, 0)
        inches = aspect * ROW * rows / (end - start)  # inches per second
        for row, (label, result) in enumerate(self.readings.items()):
            _label(axes, label, row + 0.5)
            axes.axhline(row + 0.5, color="#e6eaef", linewidth=0.8, zorder=0)
            words = words_of(result)
            colours = self._colours(words)
            for word, (face, ink) in zip(words, colours):
                if word.start < end and word.end > start:
                    _box(axes, replace(word, end=max(word.end, word.start + 0.02)), row, face, ink, inches)
            if not words:
                axes.text(start, row + 0.5, " nothing", color=MUTED, fontsize=10, va="center", style="italic")

    def _colours(self, words: Sequence[Word]) -> list[tuple[str, str]]:
        """Returns the colours of box and letters for each word."""
        if self.reference is None:
            return [PLAIN] * len(words)
        said, read = self.reference.upper().split(), [word.text.upper() for word in words]
        blocks = difflib.SequenceMatcher(None, said, read, autojunk=False).get_matching_blocks()
        right = {block.b + offset for block in blocks for offset in range(block.size)}
        return [RIGHT if index in right else WRONG for index in range(len(words))]


def _box(axes, word: Word, row: int, face: str, ink: str, inches: float) -> None:
    """Draws a word in its rounded box; the letters shrink until they fit."""
    from matplotlib.patches import FancyBboxPatch

    width = word.end - word.start
    gap = min(0.006, 0.1 * width)
    box = FancyBboxPatch(
        (word.start + gap, row + 0.14),
        width - 2 * gap,
        0.72,
        boxstyle=f"round,pad=0,rounding_size={min(0.08 / inches, width / 4):.5f}",
        mutation_aspect=inches / ROW,
        facecolor=face,
        edgecolor="none",
        clip_on=True,
    )
    axes.add_patch(box)
    size = min(11.0, 72 * inches * width / (0.35 + 0.76 * len(word.text)))
    if size >= 4:
        middle = word.start + width / 2
        axes.text(middle, row + 0.51, word.text, color=ink, fontsize=size, ha="center", va="center", clip_on=True)


def _label(axes, text: str, y: float) -> None:
    """Writes a row's name to the left of the time line."""
    axes.text(-0.008, y, text, transform=axes.get_yaxis_transform(), color=INK, fontsize=10, ha="right", va="center")


def _matplotlib():
    """Returns matplotlib's classes for figures that need no display; raises ImportError with what to install."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("Pictures need matplotlib: pip install 'lookhear[demo]'") from None
    return Figure, FigureCanvasAgg


def _save(figure, path: Path) -> Path:
    """Writes the figure to a temporary file first, so that an interrupted run leaves no broken picture."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(partial)
        os.replace(partial, path)
    except OSError as error:  # that of a full disk names no file
        raise OSError(f"{str(path)!r} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return path


# ------------------------------------------------------------------------------------------------------ writing videos


def write_video(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray],
    fps: float,
    audio: np.ndarray | None = None,
    sampling_rate: int = 16000,
) -> None:
    """Writes an mp4 (H.264, AAC). The file appears under its name only when it is complete.

    Args:
        path: the file to write; its folder must exist.
        frames: `(height, width, 3)` uint8 RGB pictures of one size; odd sizes are padded by one pixel.
        fps: frames per second.
        audio: `(samples,)` float32 in -1 ... 1, or None for a silent film.
        sampling_rate: of the sound.

    Raises:
        MediaError: no frames, frames of changing size, or the file cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise MediaError(f"{str(path)!r} cannot be written: its folder does not exist")
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part.mp4")
    av = import_av()
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            _encode(container, frames, fps, audio, sampling_rate, str(path))
        os.replace(partial, path)
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(f"{str(path)!r} cannot be written: {error_reason(error)}") from None
    finally:
        partial.unlink(missing_ok=True)


def _encode(
    container: Any, frames: Iterable[np.ndarray], fps: float, audio: np.ndarray | None, sampling_rate: int, name: str
) -> None:
    """Encodes pictures and sound side by side, so that a player never has to wait for either."""
    av = import_av()
    video = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "18"})
    video.pix_fmt = "yuv420p"
    sound = None if audio is None else _SoundWriter(container, audio, sampling_rate)
    shape: tuple[int, ...] | None = None
    for index, picture in enumerate(frames):
        picture = np.asarray(picture)
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise MediaError(f"{name!r}: frames must be (height, width, 3) uint8, got {picture.shape} {picture.dtype}")
        if shape is None:
            shape = picture.shape
            video.height, video.width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        if picture.shape != shape:
            raise MediaError(f"{name!r}: frame {index} is {picture.shape}, the first was {shape}")
        padded = np.pad(picture, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")
        container.mux(video.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))
        if sound is not None:
            sound.write(round((index + 1) / fps * sampling_rate))
    if shape is None:
        raise MediaError(f"{name!r} cannot be written: there are no frames")
    container.mux(video.encode(None))
    if sound is not None:
        sound.finish()


class _SoundWriter:
    """Encodes `(samples,)` sound step by step."""

    def __init__(self, container: Any, audio: np.ndarray, rate: int):
        self._container, self._rate, self._written = container, rate, 0
        self._stream = container.add_stream("aac", rate=rate, layout="mono")
        self._audio = np.clip(np.nan_to_num(np.asarray(audio, dtype=np.float32).reshape(-1)), -1.0, 1.0)

    def write(self, until: int) -> None:
        """Encodes what is not written yet up to a sample."""
        part = self._audio[None, self._written : until]
        if part.shape[1]:
            frame = import_av().AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = self._rate, self._written, Fraction(1, self._rate)
            self._container.mux(self._stream.encode(frame))
            self._written += part.shape[1]

    def finish(self) -> None:
        """Encodes the rest and ends the stream."""
        self.write(len(self._audio))
        self._container.mux(self._stream.encode(None))
