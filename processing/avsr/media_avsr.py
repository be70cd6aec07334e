"""From a media file to 16 kHz sound and 25 fps pictures that share one clock.

Everything is measured in seconds after the first video frame (after the first sound where there is no video), so that
`read_audio` and `read_frames` stay together whatever the container says. Both at once, in one pass: `MediaStream`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .media_pictures_avsr import orientation, shown_size
from .media_sound_avsr import MAX_PADDING
from .media_source_avsr import (
    MediaError,
    MediaSource,
    WarningSink,
    fetch_media,
    import_av,
    opened,
    packets_of,
    silent,
    source_name,
)
from .media_stream_avsr import MediaStream
from .media_survey_avsr import MediaSurvey, tail_warning, trimmed_length
from .media_writing_avsr import write_video

__all__ = [
    "MediaError",
    "MediaInfo",
    "MediaSource",
    "MediaStream",
    "fetch_media",
    "probe_media",
    "read_audio",
    "read_frames",
    "source_name",
    "write_video",
]


@dataclass(frozen=True)
class MediaInfo:
    """What a source holds, found without decoding more than one picture and one piece of sound.

    Attributes:
        has_audio, has_video: whether there is at least one readable stream; cover art is not video.
        fps: mean frame rate of the video as stored (0.0 without video).
        width, height: size in pixels as it is shown: after rotation and with square pixels.
        rotation: degrees (0, 90, 180, 270) by which the stored picture is turned clockwise to be shown.
        duration: seconds from the first video frame to the end of the last one; of the sound without video.
        audio_offset: seconds by which the sound starts after the first video frame; negative when it starts before.
        warnings: sentences for the user: cut-off file, several video streams, sound that outlasts the picture, ...
    """

    has_audio: bool = False
    has_video: bool = False
    fps: float = 0.0
    width: int = 0
    height: int = 0
    rotation: int = 0
    duration: float = 0.0
    audio_offset: float = 0.0
    warnings: tuple[str, ...] = ()


def read_frames(
    source: MediaSource,
    fps: float = 25.0,
    *,
    start: float = 0.0,
    end: float | None = None,
    on_warning: WarningSink | None = None,
) -> Iterator[np.ndarray]:
    """Yields the pictures of a video on a regular clock, one at a time.

    The frame shown at time k / fps is the one whose timestamp is nearest, whatever the stored frame rate is (23.976,
    29.97, 60, variable). Rotation and mirroring of the container and non-square pixels are undone.

    Args:
        source: path, http(s) URL, bytes, or binary file object.
        fps: frames per second to yield.
        start, end: yield only this part; seconds after the first frame.
        on_warning: called with one sentence for each thing that is wrong but can be lived with.

    Yields:
        `(height, width, 3)` uint8 RGB. Nothing where the source has sound only.

    Raises:
        MediaError: the source cannot be read, or holds a video of which no frame can be decoded.
    """
    with MediaStream(source, fps, None, start, end, on_warning) as stream:
        if stream.pictures is not None:
            yield from (picture for _, picture in stream)


def read_audio(
    source: MediaSource,
    sampling_rate: int = 16000,
    *,
    start: float = 0.0,
    end: float | None = None,
    trim_to_video: bool = True,
    on_warning: WarningSink | None = None,
) -> np.ndarray | None:
    """Reads the sound, mixed to one channel and resampled, on the clock of the pictures.

    Sample 0 is the time of the first video frame: late sound gets zeros in front, early sound is cut, holes between
    packets are silent. The padding with which encoders such as AAC outlast the video is cut; sound that goes on for
    longer than that is speech without a picture, and is kept. Without video the sound starts at its own first sample.

    Args:
        source: path, http(s) URL, bytes, or binary file object.
        sampling_rate: samples per second to return.
        start, end: return only this part; seconds after the first video frame.
        trim_to_video: whether up to `MAX_PADDING` seconds of sound after the last video frame are cut.
        on_warning: called with one sentence for each thing that is wrong but can be lived with.

    Returns:
        `(samples,)` float32, full scale 1.0; `None` where the source has no sound that can be decoded.

    Raises:
        MediaError: the source cannot be read, or has no video and no sound that can be decoded.
    """
    warn = on_warning or silent
    with MediaStream(source, None, sampling_rate, start, end, warn) as stream:
        if stream.sound is None:
            return None
        trims = trim_to_video and stream.survey.video is not None
        sound = np.concatenate([np.zeros(0, np.float32), *(samples for _, samples in stream)])
    if not stream.sound.begun:
        return None
    length, video_end = len(sound), stream.survey.video_end
    if trims and stream.complete:
        tail = start + length / sampling_rate - video_end
        if tail > MAX_PADDING and video_end > 0:
            warn(tail_warning(tail))
        length = trimmed_length(length, sampling_rate, start, video_end)
    if end is not None:
        length = min(length, round((end - start) * sampling_rate))
    return sound[:length]


def probe_media(source: MediaSource) -> MediaInfo:
    """Says what a source holds. Reads all packets, but decodes one picture and a little sound only.

    Raises:
        MediaError: the source cannot be read or holds neither video nor sound.
    """
    av = import_av()
    with opened(source) as (container, name):
        survey, first = MediaSurvey(container, name), {}
        for packet in packets_of(container, survey.streams, name, survey.warnings.append):
            survey.note(packet)
            if packet.stream.index not in first:
                with contextlib.suppress(av.error.FFmpegError, ValueError):
                    for frame in packet.stream.decode(packet if packet.size else None)[:1]:
                        first[packet.stream.index] = frame
        if survey.video is not None and survey.video.index not in first:
            survey.lose_video(sound_is_read=survey.sound is not None)
        survey.finish()
        video, sound, warnings = survey.video, survey.sound, tuple(survey.warnings)
        if video is None:
            return MediaInfo(has_audio=True, duration=survey.sound_end, warnings=warnings)
        picture, heard = first[video.index], None if sound is None else first.get(sound.index)
        late = 0.0 if heard is None or heard.pts is None else float(heard.pts * sound.time_base) - survey.origin
        width, height = shown_size(picture, video)
        return MediaInfo(
            has_audio=sound is not None,
            has_video=True,
            fps=survey.fps,
            width=width,
            height=height,
            rotation=-90 * orientation(picture)[0] % 360,
            duration=survey.video_end,
            audio_offset=late,
            warnings=warnings,
        )
