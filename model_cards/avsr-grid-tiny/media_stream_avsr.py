"""One pass over a media file: its pictures and its sound, decoded together on one clock."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .media_pictures_avsr import PictureLine
from .media_sound_avsr import SoundLine
from .media_source_avsr import MediaError, MediaSource, StreamDecoder, WarningSink, opened, packets_of, seek, silent
from .media_survey_avsr import MediaSurvey

PICTURE, SOUND = "picture", "sound"


class MediaStream:
    """Reads a source once from its beginning to its end, and decodes each frame once.

    Everything is measured in seconds after the first picture (after the first sound where there is no video). Pictures
    come at a fixed rate, the k-th being that at `start + k / fps`; the pieces of sound follow each other without a
    break from `start` on. Both come in the order in which the file holds them.

    Args:
        source: path, http(s) URL, bytes, or binary file object.
        fps: pictures per second, or None where they are not wanted.
        sampling_rate: samples per second, or None where the sound is not wanted.
        start, end: give only this part; seconds on the clip's clock.
        on_warning: called with one sentence for each thing that is wrong but can be lived with.

    Attributes:
        name: how messages call the source.
        survey: which streams are read and, after the last item, how long they are. Its streams must not be touched
            once this is closed.
        pictures, sound: what makes the pictures and the sound of the decoded frames; None where there are none or they
            are not wanted.
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
    ):
        if fps is not None and not (fps > 0 and math.isfinite(fps)):
            raise ValueError(f"fps must be a positive number, got {fps}")
        if sampling_rate is not None and sampling_rate <= 0:
            raise ValueError(f"sampling_rate must be positive, got {sampling_rate}")
        if start < 0 or (end is not None and end <= start):
            raise ValueError(f"start must be at least 0 and end after it, got start={start}, end={end}")
        self._start, self._end, self._warn = start, end, on_warning or silent
        self.complete = False
        self._open = contextlib.ExitStack()
        self._container, self.name = self._open.enter_context(opened(source))
        with contextlib.ExitStack() as failed:
            failed.push(self._open)
            self.survey = survey = MediaSurvey(self._container, self.name)
            self.pictures = self.sound = None
            if fps is not None and survey.video is not None:
                survey.video.thread_type = "AUTO"
                self.pictures = PictureLine(survey.video, fps, survey.origin, start, end, self._warn)
            if sampling_rate is not None and survey.sound is not None:
                self.sound = SoundLine(survey.sound, sampling_rate, survey.origin, start, self._warn)
            failed.pop_all()

    def __enter__(self) -> MediaStream:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the source; nothing can be read after it."""
        self._open.close()

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Gives `(PICTURE, (height, width, 3) uint8 RGB)` and `(SOUND, (samples,) float32, full scale 1.0)`; once."""
        with self._open:
            yield from self._items()

    def _items(self) -> Iterator[tuple[str, np.ndarray]]:
        if self._start > 1.0:  # sound needs a little to settle
            seek(self._container, self.survey.origin + self._start - (0.5 if self.sound else 0.0))
        decoders = {
            stream.index: StreamDecoder(stream, self._warn)
            for stream, wanted in ((self.survey.video, self.pictures), (self.survey.sound, self.sound))
            if wanted is not None
        }
        for packet in packets_of(self._container, self.survey.streams, self.name, self._warn):
            self.survey.note(packet)
            if packet.stream.index in decoders and packet.size:
                for frame in decoders[packet.stream.index].push(packet):
                    yield from self._taken(packet.stream, frame)
            if self._is_enough(packet):
                break
        else:
            self.complete = True
        for decoder in decoders.values():
            for frame in decoder.finish():
                yield from self._taken(decoder.stream, frame)
        yield from ((PICTURE, picture) for picture in (self.pictures.finish() if self.pictures else ()))
        yield from ((SOUND, samples) for samples in (self.sound.finish() if self.sound else ()))
        if self.pictures is not None and self.pictures.count == 0 and self._start == 0.0:
            self.survey.lose_video(sound_is_read=self.sound is not None)
        if self.sound is not None and not self.sound.begun and self._start == 0.0:
            if self.survey.video is None:
                raise MediaError(f"{self.name} holds sound that cannot be decoded")
            self._warn("the sound cannot be decoded: only the pictures are used")
        self.survey.finish()

    def _taken(self, stream: Any, frame: Any) -> Iterator[tuple[str, np.ndarray]]:
        """What one more decoded frame makes certain."""
        if stream.type == "video":
            for picture in self.pictures.push(frame, self.sound.time if self.sound else 0.0):
                yield PICTURE, picture
        else:
            for samples in self.sound.push(frame, self.pictures.time if self.pictures else 0.0):
                yield SOUND, samples

    def _is_enough(self, packet: Any) -> bool:
        """Whether everything up to `end` has been given."""
        if self._end is None:
            return False
        if self.sound is None:
            return self.pictures is None or self.pictures.full
        time = None if packet.pts is None else float(packet.pts * packet.time_base) - self.survey.origin
        after = packet.stream.type == "audio" and time is not None and time > self._end + 1.0
        return after and (self.pictures is None or self.pictures.full)
