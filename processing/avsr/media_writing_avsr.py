"""Writes an mp4 with H.264 pictures and AAC sound."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .media_source_avsr import MediaError, error_reason, import_av


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
    av, temporary = import_av(), ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".mp4")
        os.close(handle)
        with av.open(temporary, "w", format="mp4") as container:
            _encode(container, frames, fps, audio, sampling_rate, str(path))
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(f"{str(path)!r} cannot be written: {error_reason(error)}") from None
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
