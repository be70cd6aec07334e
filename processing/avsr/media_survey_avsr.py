"""What a media file turns out to hold, noted while its packets go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .media_sound_avsr import MAX_PADDING
from .media_source_avsr import MediaError, audio_streams, frame_duration, import_av, stream_start, video_streams


@dataclass
class _Span:
    """What has been seen of one stream: where its last packet ends on the container's clock, how many there are."""

    end: float
    packets: int = 0


class MediaSurvey:
    """Chooses the streams that are read, and notes how long they are.

    Args:
        container: as opened by PyAV.
        name: how messages call it.

    Attributes:
        video, sound: the streams that are read, or None.
        origin: time 0 of the clip on the container's clock: the first picture, or the first sound without video.
        warnings: sentences for the user.
        fps: mean frame rate of the video as stored, once all packets were noted; 0.0 without video.
        video_end, sound_end: seconds from the clip's time 0 to the end of the latest packet; 0.0 where there is none.

    Raises:
        MediaError: there is neither video nor sound.
    """

    def __init__(self, container: Any, name: str):
        videos, sounds = video_streams(container), audio_streams(container)
        if not videos and not sounds:
            raise MediaError(f"{name} holds neither video nor sound")
        self.video, self.sound = videos[0] if videos else None, sounds[0] if sounds else None
        self.warnings = [
            f"the file holds {len(streams)} {what}: the first is used"
            for streams, what in ((videos, "videos"), (sounds, "sound tracks"))
            if len(streams) > 1
        ]
        self._container, self._name = container, name
        self._spans = {stream.index: _Span(stream_start(stream)) for stream in self.streams}
        self.origin = stream_start(self.video or self.sound)
        self.fps = self.video_end = self.sound_end = 0.0

    @property
    def streams(self) -> list[Any]:
        """The chosen streams, video first."""
        return [stream for stream in (self.video, self.sound) if stream is not None]

    def note(self, packet: Any) -> None:
        """One more packet of the chosen streams."""
        span = self._spans.get(packet.stream.index)
        if span is None or packet.size == 0:  # empty: PyAV's own end mark
            return
        span.packets += 1
        if packet.pts is not None:
            lasting = float(packet.duration * packet.time_base) if packet.duration else frame_duration(packet.stream)
            span.end = max(span.end, float(packet.pts * packet.time_base) + lasting)

    @property
    def announced(self) -> float | None:
        """Seconds that the headers announce; None where they announce nothing."""
        return max(self._announced(self.video), self._announced(self.sound), self._whole) or None

    @property
    def _whole(self) -> float:
        """Seconds that the container says it lasts."""
        return self._container.duration / import_av().time_base if self._container.duration else 0.0

    @staticmethod
    def _announced(stream: Any) -> float:
        return float(stream.duration * stream.time_base) if stream is not None and stream.duration else 0.0

    def _length(self, stream: Any) -> float:
        return 0.0 if stream is None else max(0.0, self._spans[stream.index].end - self.origin)

    def lose_video(self, sound_is_read: bool) -> None:
        """The video turned out to have no frame that can be decoded.

        Raises:
            MediaError: there is no sound that could be read instead.
        """
        if not sound_is_read:
            raise MediaError(f"{self._name} holds a video of which no frame can be decoded")
        self.warnings.append("no frame of the video can be decoded: only the sound is used")
        self.video, self.origin = None, stream_start(self.sound)

    def finish(self) -> None:
        """Takes stock once all packets were noted: lengths, a file that is cut off, sound without picture."""
        self.video_end, self.sound_end = self._length(self.video), self._length(self.sound)
        main, there = self.video or self.sound, self.video_end if self.video else self.sound_end
        announced = self._announced(main)
        if there >= announced - 0.2:
            end = max(span.end for span in self._spans.values())
            there = end - (self._container.start_time or 0) / import_av().time_base
            announced = self._whole
        if there < announced - 0.2:
            self.warnings.append(f"the file is cut off: {there:.1f} s of the {announced:.1f} s it announces are there")
        if self.video is None:
            return
        packets = self._spans[self.video.index].packets
        self.fps = packets / self.video_end if self.video_end > 0 else float(self.video.average_rate or 0.0)
        if (tail := self.sound_end - self.video_end) > MAX_PADDING:
            self.warnings.append(tail_warning(tail))


def tail_warning(seconds: float) -> str:
    return f"the sound goes on for {seconds:.1f} s after the last picture: there it is read without lips"


def trimmed_length(samples: int, rate: int, start: float, video_end: float) -> int:
    """How many samples remain once the encoder's padding after the video's end is cut.

    Args:
        samples: how many there are, the first at `start` seconds.
        rate: samples per second.
        start: seconds after the first picture.
        video_end: when the last picture ends, in seconds after the first one.
    """
    tail = start + samples / rate - video_end
    return max(0, round((video_end - start) * rate)) if 0 < tail <= MAX_PADDING else samples
