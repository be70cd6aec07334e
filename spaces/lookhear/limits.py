"""How much the Space takes: file size, seconds, picture size. Files are measured before anything reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import av
from PIL import Image

from lookhear.serving.handler import packet_seconds, positive_numbers

PREFIX = "LOOKHEAR_SPACE_"
# Containers that hold what they show. Playlists, which name other files and addresses, are none of them.
CONTAINERS = {"3gp", "asf", "avi", "flv", "matroska", "mov", "mp4", "mpeg", "mpegts", "ogg", "webm"}


@dataclass(frozen=True)
class Limits:
    """
    What is refused.

    Attributes:
        megabytes: of an uploaded file.
        read_seconds: of a video whose speech is read.
        see_seconds: of a video that is searched for objects, which takes longer.
        megapixels: of a picture or frame.
        gigapixels: of all frames of a video together.
        job_seconds: that a question may take, as others wait.
        live_seconds: that a visitor is read live.
        live_sessions: visitors who are read live at the same time.
    """

    megabytes: float = 50.0
    read_seconds: float = 60.0
    see_seconds: float = 15.0
    megapixels: float = 17.0
    gigapixels: float = 8.0
    job_seconds: float = 120.0
    live_seconds: float = 120.0
    live_sessions: float = 1.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Limits:
        """
        Reads the limits: the defaults, or what `LOOKHEAR_SPACE_MEGABYTES`, `…_READ_SECONDS`, `…_SEE_SECONDS`,
        `…_MEGAPIXELS`, `…_GIGAPIXELS`, `…_JOB_SECONDS`, `…_LIVE_SECONDS`, `…_LIVE_SESSIONS` say.

        Raises:
            ValueError: one of them is no positive number.
        """
        return cls(**positive_numbers((one.name for one in fields(cls)), PREFIX, environment))

    def check_video(self, path: str, seconds: float) -> float:
        """
        Measures a video without decoding it. What cannot be opened passes: the pipeline will say what is wrong.

        Args:
            path: of the file.
            seconds: the longest that is taken.

        Returns:
            How many seconds it has, 0 where it cannot be opened.

        Raises:
            ValueError: it is too large, too long, its pictures are too large, it has none, or it only refers to other
                files.
        """
        self._check_size(path)
        try:
            with av.open(f"file:{Path(path).absolute()}", options=self._open_options()) as container:
                streams = [stream for stream in container.streams if stream.type in ("video", "audio")]
                sizes = [(stream.width, stream.height) for stream in streams if stream.type == "video"]
                if not sizes:
                    raise ValueError("The file has sound only, no pictures.")
                largest = max(sizes, key=lambda size: size[0] * size[1])
                self.check_pixels(largest)
                length, frames = packet_seconds(container, streams)
        except av.error.ArgumentError:  # the whitelist's
            message = "This kind of file is not accepted as a video: use mp4, mov, mkv, webm, avi or mpg."
            raise ValueError(message) from None
        except (av.error.FFmpegError, OSError):
            return 0.0
        if length > seconds:
            raise ValueError(
                f"The video lasts {length:.0f} seconds; the limit here is {seconds:.0f}. "
                "On your own machine, any length can be read."
            )
        if frames * largest[0] * largest[1] > self.gigapixels * 1e9:
            raise ValueError(
                f"The video has {frames} frames of {largest[0]} x {largest[1]} pixels; the limit here is "
                f"{self.gigapixels:.0f} gigapixels in all: make it smaller or shorter."
            )
        return length

    def check_picture(self, path: str) -> None:
        """
        Looks at the size of a picture without decoding it; see `check_video`.

        Raises:
            ValueError: it is too large.
        """
        self._check_size(path)
        try:
            with Image.open(path) as picture:
                size = picture.size
        except Image.DecompressionBombError:
            raise ValueError(
                f"The picture is too large: the limit here is {self.megapixels:.0f} megapixels."
            ) from None
        except OSError:
            return
        self.check_pixels(size)

    def _open_options(self) -> dict[str, str]:
        """Returns FFmpeg's options: these containers, no other file, and no memory for absurd pictures."""
        most = str(round(2e6 * self.megapixels) + (1 << 20))
        return {"protocol_whitelist": "file", "format_whitelist": ",".join(sorted(CONTAINERS)), "max_pixels": most}

    def _check_size(self, path: str) -> None:
        size = Path(path).stat().st_size / 1e6
        if size > self.megabytes:
            raise ValueError(f"The file has {size:.0f} megabytes; the limit here is {self.megabytes:.0f}.")

    def check_pixels(self, size: tuple[int, int]) -> None:
        """Raises ValueError: pictures of this size (width, height) are too large."""
        if size[0] * size[1] > self.megapixels * 1e6:
            raise ValueError(
                f"The pictures have {size[0]} x {size[1]} pixels; the limit here is {self.megapixels:.0f} megapixels."
            )
