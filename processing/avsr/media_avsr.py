"""From a media file to 16 kHz sound and 25 fps pictures that share one clock.

All times are in seconds on the container's clock from where its first stream begins, as players show them, so that
`read_audio` and `read_frames` stay together. `MediaStream` reads both in one pass: it takes the streams that
`StreamSelection` chooses and gives what `FrameResampler` and `AudioResampler` make of their frames.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .feature_extraction_avsr import Channel, ChannelMixer, checked_channel
from .media_source_avsr import (
    DEFAULT_TRACKS,
    LATE,
    MAX_PADDING,
    MAX_PAUSE,
    MediaError,
    MediaSource,
    StreamDecoder,
    StreamSelection,
    Track,
    TrackChoice,
    WarningSink,
    frame_duration,
    import_av,
    opened,
    packets_of,
    reorder_delay,
    seek,
    silent,
    tail_warning,
)

PICTURE, SOUND = "picture", "sound"

MAX_STEP_BACK = 1.0  # seconds by which a clock may go back before it counts as broken

AUDIO_JITTER = 0.04  # seconds: smaller gaps and overlaps between sound packets are rounding, not silence
MAX_WARNINGS = 100  # sentences about one file that are stored


@dataclass(frozen=True)
class MediaInfo:
    """What a source holds, found without decoding more than one picture and one piece of sound.

    Attributes:
        has_audio: whether there is at least one readable sound track.
        has_video: whether there is at least one readable video; cover art is none.
        fps: mean frame rate of the video as stored (0.0 without video).
        width: in pixels as it is shown: after rotation and with square pixels.
        height: as `width`.
        rotation: degrees (0, 90, 180, 270) by which the stored picture is turned clockwise to be shown.
        duration: seconds from time 0 to the end of the last picture; to that of the sound without video.
        video_start: seconds from time 0 to the first picture; more than 0 where the sound starts before it.
        audio_offset: seconds by which the sound starts after the first video frame; negative when it starts before.
        warnings: sentences for the user: cut-off file, several video streams, sound that is longer than the video, ...
    """

    has_audio: bool = False
    has_video: bool = False
    fps: float = 0.0
    width: int = 0
    height: int = 0
    rotation: int = 0
    duration: float = 0.0
    video_start: float = 0.0
    audio_offset: float = 0.0
    warnings: tuple[str, ...] = ()


def read_frames(
    source: MediaSource,
    fps: float = 25.0,
    *,
    start: float = 0.0,
    end: float | None = None,
    video_track: Track | None = None,
    on_warning: WarningSink | None = None,
) -> Iterator[np.ndarray]:
    """Yields the pictures of a video on a regular clock, one at a time.

    The frame shown at time k / fps is the one whose timestamp is nearest, whatever the stored frame rate is (23.976,
    29.97, 60, variable). Where the sound begins before the pictures, black ones come first. Rotation and mirroring of
    the container and non-square pixels are undone.

    Args:
        source: path, http(s) URL, bytes, or binary file object.
        fps: frames per second to yield.
        start: yield only what comes from this time on; seconds.
        end: yield only what comes before this time; None: all.
        video_track: which of several videos: its number, from 0 on, or its language; None: the default one.
        on_warning: called with one sentence for each fault that does not prevent reading.

    Yields:
        `(height, width, 3)` uint8 RGB. Nothing where the source has sound only.

    Raises:
        MediaError: the source cannot be read, or holds a video of which no frame can be decoded.
    """
    with MediaStream(source, fps, None, start, end, on_warning, TrackChoice(video=video_track)) as stream:
        if stream.pictures is None:
            return
        for number, (_, picture) in enumerate(stream):
            if number == 0:
                yield from (np.zeros_like(picture) for _ in range(stream.pictures_late))
            yield picture


def read_audio(
    source: MediaSource,
    sampling_rate: int = 16000,
    *,
    start: float = 0.0,
    end: float | None = None,
    trim_to_video: bool = True,
    audio_track: Track | None = None,
    channel: Channel | None = None,
    on_warning: WarningSink | None = None,
) -> np.ndarray | None:
    """Reads the sound, one channel of it, resampled, on the clock of the pictures.

    Sample 0 is time 0 of the container: sound that begins after the pictures gets zeros in front, holes between
    packets are silent. The padding that encoders such as AAC add after the end of the video is cut; sound that
    continues for longer is speech without a picture and is not cut. Without video the sound starts at its own first
    sample.

    Args:
        source: path, http(s) URL, bytes, or binary file object.
        sampling_rate: samples per second to return.
        start: return only what comes from this time on; seconds.
        end: return only what comes before this time; None: all.
        trim_to_video: whether up to `MAX_PADDING` seconds of sound after the last video frame are cut.
        audio_track: which of several sound tracks: its number, from 0 on, or its language; None: the default one.
        channel: which of several channels: its number, from 0 on, `"left"`, `"right"`, or `"mean"` for the average;
            None: those in which somebody speaks, never an average that cancels out.
        on_warning: called with one sentence for each fault that does not prevent reading.

    Returns:
        `(samples,)` float32, full scale 1.0; `None` where the source has no sound that can be decoded.

    Raises:
        MediaError: the source cannot be read, or has no video and no sound that can be decoded.
    """
    warn = on_warning or silent
    tracks = TrackChoice(audio=audio_track, channel=channel)
    with MediaStream(source, None, sampling_rate, start, end, warn, tracks) as stream:
        if stream.sound is None:
            return None
        trims = trim_to_video and stream.selection.video is not None
        sound = np.concatenate([np.zeros(0, np.float32), *(samples for _, samples in stream)])
    if not stream.sound.begun:
        return None
    length, video_end = len(sound), stream.selection.video_end
    if trims and stream.complete:
        tail = start + length / sampling_rate - video_end
        if tail > MAX_PADDING and video_end > 0:
            warn(tail_warning(tail))
        length = trimmed_length(length, sampling_rate, start, video_end)
    if end is not None:
        length = min(length, round((end - start) * sampling_rate))
    return sound[:length]


def probe_media(
    source: MediaSource, *, audio_track: Track | None = None, video_track: Track | None = None
) -> MediaInfo:
    """Returns what a source holds. Reads all packets, but decodes one picture and a little sound only.

    Args:
        source: path, http(s) URL, bytes, or binary file object.
        audio_track: which of several sound tracks: its number, from 0 on, or its language; None: the default one.
        video_track: as `audio_track`, of the video.

    Raises:
        MediaError: the source cannot be read or holds neither video nor sound.
    """
    av = import_av()
    with opened(source) as (container, name):
        selection, first = StreamSelection(container, name, TrackChoice(audio_track, video_track)), {}
        for packet in packets_of(container, selection.streams, name, selection.warnings.append):
            selection.note(packet)
            if packet.stream.index not in first:
                with contextlib.suppress(av.error.FFmpegError, ValueError):
                    for frame in packet.stream.decode(packet if packet.size else None)[:1]:
                        first[packet.stream.index] = frame
        if selection.video is not None and selection.video.index not in first:
            selection.lose_video(sound_is_read=selection.sound is not None)
        selection.finish()
        video, sound, warnings = selection.video, selection.sound, tuple(selection.warnings)
        if video is None:
            return MediaInfo(has_audio=True, duration=selection.sound_end, warnings=warnings)
        picture, samples = first[video.index], None if sound is None else first.get(sound.index)
        begin = 0.0 if picture.pts is None else float(picture.pts * video.time_base) - selection.origin
        begin, late = begin if LATE < begin <= MAX_PAUSE else 0.0, 0.0
        if sound is not None and samples is not None and samples.pts is not None:
            late = float(samples.pts * sound.time_base) - selection.origin - begin
        width, height = shown_size(picture, video)
        return MediaInfo(
            has_audio=sound is not None,
            has_video=True,
            fps=selection.fps,
            width=width,
            height=height,
            rotation=-90 * orientation(picture)[0] % 360,
            duration=selection.video_end,
            video_start=begin,
            audio_offset=late,
            warnings=warnings,
        )


class MediaStream:
    """Reads a source once from its beginning to its end, and decodes each frame once.

    All times are in seconds on the container's clock from where its first stream begins. Pictures come at a fixed
    rate, the k-th at `start + (pictures_late + k) / fps`; the pieces of sound follow each other without a break from
    `start` on. Both come in the order in which the file holds them.

    Args:
        source: path, http(s) URL, bytes, or binary file object.
        fps: pictures per second, or None where they are not wanted.
        sampling_rate: samples per second, or None where the sound is not wanted.
        start: give only what comes from this time on; seconds on the clip's clock.
        end: give only what comes before this time; None: all.
        on_warning: called with one sentence for each fault that does not prevent reading.
        tracks: which of several tracks and channels are read.

    Attributes:
        name: name used in error messages.
        kinds: of the items that there are: `PICTURE`, `SOUND`.
        duration: seconds that the headers announce, None where they announce nothing.
        selection: which streams are read and, after the last item, how long they are. Its streams must not be touched
            once this is closed.
        pictures: what makes the pictures of the decoded frames; None where there are none or they are not wanted.
        sound: what makes the sound of the decoded frames; None where there is none or it is not wanted.
        complete: whether the source was read to its end, and not only to `end`.

    Raises:
        MediaError: the source cannot be read, or holds neither video nor sound. While it is read: it holds a video,
            and no sound is wanted or there, of which no frame can be decoded; or sound only that cannot be decoded.
    """

    def __init__(
        self,
        source: MediaSource,
        fps: float | None,
        sampling_rate: int | None,
        start: float = 0.0,
        end: float | None = None,
        on_warning: WarningSink | None = None,
        tracks: TrackChoice = DEFAULT_TRACKS,
    ):
        if fps is not None and not (fps > 0 and math.isfinite(fps)):
            raise ValueError(f"fps must be a positive number, got {fps}")
        if sampling_rate is not None and sampling_rate <= 0:
            raise ValueError(f"sampling_rate must be positive, got {sampling_rate}")
        if start < 0 or (end is not None and end <= start):
            raise ValueError(f"start must be at least 0 and end after it, got start={start}, end={end}")
        self._start, self._end = start, end
        self._sentences: list[str] = []
        self._warn = on_warning or _adds_to(self._sentences)
        self.complete = False
        self._open = contextlib.ExitStack()
        self._container, self.name = self._open.enter_context(opened(source))
        with contextlib.ExitStack() as failed:
            failed.push(self._open)
            self.selection = selection = StreamSelection(self._container, self.name, tracks)
            self.duration = selection.announced
            self.pictures: FrameResampler | None = None
            self.sound: AudioResampler | None = None
            if fps is not None and selection.video is not None:
                selection.video.thread_type = "AUTO"
                self.pictures = FrameResampler(selection.video, fps, selection.origin, start, end, self._warn)
            if sampling_rate is not None and selection.sound is not None:
                try:
                    checked_channel(tracks.channel, selection.sound.codec_context.layout.nb_channels)
                except ValueError as error:
                    raise MediaError(f"{error}: {self.name}") from None
                self.sound = AudioResampler(
                    selection.sound, sampling_rate, selection.origin, start, self._warn, tracks.channel
                )
            failed.pop_all()
        both = {PICTURE: self.pictures, SOUND: self.sound}
        self._resamplers = {kind: resampler for kind, resampler in both.items() if resampler is not None}
        self.kinds = frozenset(self._resamplers)

    @property
    def pictures_late(self) -> int:
        """How many pictures are missing at the beginning, known from the first one on."""
        return 0 if self.pictures is None else self.pictures.late

    @property
    def fps_in(self) -> float | None:
        """Stored frame rate, once all was read; None without video."""
        return self.selection.fps or None

    @property
    def warnings(self) -> list[str]:
        """Sentences about the streams, and without `on_warning` those about faults while they are read."""
        return [*self.selection.warnings, *self._sentences]

    def without_padding(self, samples: int) -> int:
        """Returns how many of the samples read from the beginning remain without the padding after the video's end."""
        if self.sound is None or self.selection.video is None:
            return samples
        return trimmed_length(samples, self.sound.rate, 0.0, self.selection.video_end)

    def __enter__(self) -> MediaStream:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the source, after which no items follow."""
        self._open.close()

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields `(PICTURE, (height, width, 3) uint8 RGB)` and `(SOUND, (samples,) float32, full scale 1.0)`; once."""
        with self._open:
            yield from self._items()

    def _items(self) -> Iterator[tuple[str, np.ndarray]]:
        if self._start > 1.0:  # sound needs a little to settle
            seek(self._container, self.selection.origin + self._start - (0.5 if self.sound else 0.0))
        kinds = {resampler.stream.index: kind for kind, resampler in self._resamplers.items()}
        decoders = {
            resampler.stream.index: StreamDecoder(resampler.stream, self._warn)
            for resampler in self._resamplers.values()
        }
        for packet in packets_of(self._container, self.selection.streams, self.name, self._warn):
            self.selection.note(packet)
            if (index := packet.stream.index) in decoders and packet.size:
                for frame in decoders[index].push(packet):
                    yield from self._resampled(kinds[index], frame)
            if self._is_enough(packet):
                break
        else:
            self.complete = True
        for index, decoder in decoders.items():
            for frame in decoder.finish():
                yield from self._resampled(kinds[index], frame)
        for kind, resampler in self._resamplers.items():
            yield from ((kind, values) for values in resampler.finish())
        if self.pictures is not None and self.pictures.count == 0 and self._start == 0.0:
            self.selection.lose_video(sound_is_read=self.sound is not None)
        if self.sound is not None and not self.sound.begun and self._start == 0.0:
            if self.selection.video is None:
                raise MediaError(f"{self.name} holds sound that cannot be decoded")
            self._warn("the sound cannot be decoded: only the pictures are used")
        self.selection.finish(both=len(self._resamplers) == 2)

    def _resampled(self, kind: str, frame: Any) -> Iterator[tuple[str, np.ndarray]]:
        """Yields what is certain with one more decoded frame."""
        other = self._resamplers.get(SOUND if kind == PICTURE else PICTURE)
        for values in self._resamplers[kind].push(frame, 0.0 if other is None else other.time):
            yield kind, values

    def _is_enough(self, packet: Any) -> bool:
        """Whether everything up to `end` has been given."""
        if self._end is None:
            return False
        if self.sound is None:
            return self.pictures is None or self.pictures.full
        time = None if packet.pts is None else float(packet.pts * packet.time_base) - self.selection.origin
        after = packet.stream.type == "audio" and time is not None and time > self._end + 1.0
        return after and (self.pictures is None or self.pictures.full)


def _adds_to(sentences: list[str]) -> WarningSink:
    """Returns a sink that adds to a list. It refers to no stream, so that no decoder waits for garbage collection."""
    return lambda sentence: sentences.append(sentence) if len(sentences) < MAX_WARNINGS else None


def trimmed_length(samples: int, rate: int, start: float, video_end: float) -> int:
    """Returns how many samples remain without the encoder's padding after the video's end.

    Args:
        samples: their number, the first at `start` seconds.
        rate: samples per second.
        start: in seconds.
        video_end: when the last picture ends, in seconds.
    """
    tail = start + samples / rate - video_end
    return max(0, round((video_end - start) * rate)) if 0 < tail <= MAX_PADDING else samples


@dataclass(frozen=True)
class _Timed:
    """A decoded frame, when it begins, and for how long it is shown (seconds)."""

    frame: Any
    time: float
    duration: float


class FrameResampler:
    """Resamples the decoded frames of one video to pictures at a fixed rate, one at a time.

    Output k is the frame whose timestamp is nearest to `start + (late + k) / fps`. Frames without timestamps
    follow the previous one at the nominal rate; jumps of the clock are removed; rotation, mirroring and non-square
    pixels are undone.

    Args:
        stream: the video's PyAV stream.
        fps: pictures per second to give.
        origin: time 0 on the container's clock, in seconds.
        start: give only what comes from this time on; seconds after `origin`.
        end: give only what comes before this time; None: all.
        warn: called with one sentence for each fault that does not prevent reading.

    Attributes:
        late: pictures that are missing at the beginning, as the first frame comes more than `LATE` after `start`.
        count: pictures given so far, and those missing at the beginning.
        time: seconds after `origin` of the latest frame taken.
    """

    def __init__(self, stream: Any, fps: float, origin: float, start: float, end: float | None, warn: WarningSink):
        self.stream, self.fps, self.start, self.warn = stream, fps, start, warn
        self.late = self.count = 0
        self.time = -math.inf
        self._origin = origin
        self._nominal = frame_duration(stream) or 1.0 / fps
        self._limit = math.inf if end is None else max(1, round((end - start) * fps))
        self._current: _Timed | None = None
        self._reformatter = import_av().video.reformatter.VideoReformatter()  # reuses its tables from frame to frame
        self._orientations: dict[int, tuple[int, bool]] = {}  # of frames with one rotation

    @property
    def full(self) -> bool:
        """Whether all pictures up to `end` have been given."""
        return self.count >= self._limit

    def push(self, frame: Any, other_time: float = 0.0) -> Iterator[np.ndarray]:
        """Takes one more decoded frame; yields the `(height, width, 3)` uint8 RGB pictures that are certain by now.

        Args:
            frame: as decoded.
            other_time: seconds that the sound has reached: a pause of the pictures that it confirms is no jump.
        """
        entry = self._timed(frame, other_time)
        if entry is None:
            return
        if self._current is None and entry.time - self.start > LATE:
            nearest = math.ceil((entry.time - self.start) * self.fps - 0.5 - 1e-6)
            self.late = self.count = int(min(nearest, self._limit))
        elif self._current is not None:
            until = (self._current.time + entry.time) / 2  # where the next frame becomes the nearer one
            wanted = math.ceil((until - 1e-6 - self.start) * self.fps)
            yield from self._repeated(wanted)
        self._current = entry

    def finish(self) -> Iterator[np.ndarray]:
        """Yields the last pictures, once there are no more frames."""
        if self._current is not None:
            total = round((self._current.time + self._current.duration - self.start) * self.fps)
            yield from self._repeated(max(total, self.late + 1) if self.start == 0.0 else total)

    def _timed(self, frame: Any, other_time: float) -> _Timed | None:
        """Returns the frame with its time; None if it comes too late to be shown, as times only grow."""
        first, base = self.time == -math.inf, self.stream.time_base
        duration = float(frame.duration * base) if frame.duration else self._nominal
        before = self.start if first else self.time
        expected = before if first else before + self._nominal
        # In the stream's time base: delayed frames of the decoder have none of their own.
        if first and frame.pts is not None:
            self._origin += reorder_delay(self.stream, float(frame.pts * base))
        time = expected if frame.pts is None else float(frame.pts * base) - self._origin
        earliest = before - (MAX_PAUSE if first else MAX_STEP_BACK)  # a seek may land long before `start`
        if not earliest < time < max(before, other_time) + MAX_PAUSE:
            jump = time - before
            self.warn(f"the video's clock jumps by {jump:.1f} s at {before:.1f} s: the jump was removed")
            self._origin += time - expected
            time = expected
        if time <= self.time:
            return None
        self.time = time
        return _Timed(frame, time, duration)

    def _repeated(self, wanted: int) -> Iterator[np.ndarray]:
        """Yields the current frame until the total of pictures is `wanted`."""
        wanted = int(min(wanted, self._limit))
        if self._current is None or wanted <= self.count:
            return
        picture = self._upright(self._current.frame)
        copies = wanted - self.count > 1
        while self.count < wanted:
            self.count += 1
            yield picture.copy() if copies else picture

    def _upright(self, frame: Any) -> np.ndarray:
        width = square_pixel_width(frame.width, self.stream)
        plain = self._reformatter.reformat(
            frame, width=width, height=frame.height, format="rgb24", interpolation="BILINEAR"
        )
        picture = plain.to_ndarray()  # (h, w, 3)
        if frame.rotation not in self._orientations:
            self._orientations[frame.rotation] = orientation(frame)
        turns, mirrored = self._orientations[frame.rotation]
        if mirrored:
            picture = picture[:, ::-1]
        return np.ascontiguousarray(np.rot90(picture, turns))


def shown_size(frame: Any, stream: Any) -> tuple[int, int]:
    """Returns (width, height) in pixels of a decoded frame as it is meant to be seen."""
    width, height = square_pixel_width(frame.width, stream), frame.height
    return (height, width) if orientation(frame)[0] % 2 else (width, height)


def square_pixel_width(width: int, stream: Any) -> int:
    """Returns the width with square pixels of a picture of this stored width."""
    ratio = stream.sample_aspect_ratio
    if not ratio or ratio == 1 or not 0.25 <= ratio <= 4:
        return width
    return max(1, round(width * float(ratio)))


def orientation(frame: Any) -> tuple[int, bool]:
    """
    Reads `(quarter turns counter-clockwise, mirrored left to right before turning)` from the frame's display matrix.

    A frame and its `side_data` refer to each other, so that only a garbage collection would free the picture. A small
    copy has the same side data, and is so new that the cheapest collection frees it.
    """
    small = frame.reformat(width=16, height=16, interpolation="POINT")
    data = small.side_data.get("DISPLAYMATRIX")
    matrix = None if data is None else np.frombuffer(bytes(data), dtype=np.int32)[:5].astype(np.int64)
    del small, data
    gc.collect(0)
    if matrix is None:
        return 0, False
    a, b, _, c, d = matrix
    mirrored = bool(a * d - b * c < 0)
    if mirrored:
        a, b = -a, -b
    if a == 0 and b == 0:
        return 0, False
    # The matrix takes (x, y), y downwards, to (a x + c y, b x + d y): its first row is where the x axis goes.
    return round(-math.degrees(math.atan2(float(b), float(a))) / 90.0) % 4, mirrored


class AudioResampler:
    """Resamples the decoded frames of one sound track to samples without a break, from `start` on.

    Gaps between frames become silence, samples before `start` or given already are dropped, jumps of the clock are
    removed, and `ChannelMixer` makes one channel of several.

    Args:
        stream: the sound's PyAV stream.
        rate: samples per second to give.
        origin: time 0 on the container's clock, in seconds.
        start: the first sample's time, in seconds after `origin`.
        warn: called with one sentence for each fault that does not prevent reading.
        channel: see `ChannelMixer`.

    Attributes:
        count: samples taken so far.
        time: seconds after `origin` that the sound has reached.
    """

    def __init__(
        self,
        stream: Any,
        rate: int,
        origin: float,
        start: float,
        warn: WarningSink,
        channel: Channel | None = None,
    ):
        self.stream, self.rate, self.start, self.warn = stream, rate, start, warn
        self.count, self.time = 0, 0.0
        self._origin = origin
        self._format: tuple[Any, ...] | None = None  # of the frames that the resampler takes now
        self._resampler: Any = None
        self._channel, self._mixer = channel, ChannelMixer(1, rate)
        self._place = 0  # where the resampler's next sample goes
        self._bad = 0

    @property
    def begun(self) -> bool:
        """Whether any sound could be decoded."""
        return self._format is not None

    def push(self, frame: Any, other_time: float = 0.0) -> Iterator[np.ndarray]:
        """Takes one more decoded frame; yields `(samples,)` float32 arrays, full scale 1.0, that follow each other.

        Args:
            frame: as decoded.
            other_time: seconds that the pictures have reached: a pause of the sound that they confirm is no jump.
        """
        frame, bad = _finite(frame)
        self._bad += bad
        time = self._timed(frame, other_time)
        new_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if new_format != self._format or abs(time - self.time) > AUDIO_JITTER:
            yield from self._resampled(None)
            self._resampler = import_av().AudioResampler(format="fltp", layout=frame.layout, rate=self.rate)
            self._format, self.time = new_format, time
            self._place = round((time - self.start) * self.rate)
        self.time += frame.samples / frame.sample_rate
        frame.pts = None
        yield from self._resampled(frame)

    def finish(self) -> Iterator[np.ndarray]:
        """Yields the last samples, once there are no more frames."""
        yield from self._resampled(None)
        yield from self._mixer.finish()
        if self._bad:
            self.warn(
                f"{self._bad} samples of the sound are not numbers (NaN or infinite): they were replaced by silence"
            )

    def _timed(self, frame: Any, other_time: float) -> float:
        """Returns the seconds after the origin at which a frame begins."""
        if frame.pts is None:
            return self.time
        time = float(frame.pts * self.stream.time_base) - self._origin
        # A seek may land long before `start`, and sound may begin long before or after the pictures.
        earliest = self.time - MAX_STEP_BACK if self.begun else min(0.0, self.start) - MAX_PAUSE
        if not earliest < time < max(self.time, self.start, other_time) + MAX_PAUSE:
            jump, expected = time - self.time, self.time if self.begun else self.start
            self.warn(f"the sound's clock jumps by {jump:.1f} s at {self.time:.1f} s: the jump was removed")
            self._origin += time - expected
            time = expected
        return time

    def _resampled(self, frame: Any) -> Iterator[np.ndarray]:
        """Yields the samples of one more frame (None: the rest), with silence where some are missing before them."""
        for piece in [] if self._resampler is None else self._resampler.resample(frame):
            samples = piece.to_ndarray().astype(np.float32, copy=False)  # (channels, n)
            if len(samples) != self._mixer.channels:
                yield from self._mixer.finish()
                self._mixer = ChannelMixer(len(samples), self.rate, self._channel, self.warn)
            place, self._place = self._place, self._place + samples.shape[1]
            while self.count < place:  # a gap
                silence = min(place - self.count, self.rate)
                self.count += silence
                yield from self._mixer.push(np.zeros((len(samples), silence), dtype=np.float32))
            if (samples := samples[:, self.count - place :]).shape[1]:
                self.count += samples.shape[1]
                yield from self._mixer.push(samples)


def _finite(frame: Any) -> tuple[Any, int]:
    """Returns the frame with NaN and infinity replaced by zero, and their number."""
    if not frame.format.name.startswith(("flt", "dbl")):
        return frame, 0
    samples = frame.to_ndarray()
    good = np.isfinite(samples)
    if good.all():
        return frame, 0
    clean = import_av().AudioFrame.from_ndarray(np.where(good, samples, 0), frame.format.name, frame.layout)
    clean.sample_rate, clean.pts, clean.time_base = frame.sample_rate, frame.pts, frame.time_base
    return clean, int(samples.size - good.sum())
