"""
Answers requests with a LookHear checkpoint: the custom handler of Hugging Face Inference Endpoints.

A published checkpoint has this file beside its weights, so it needs neither lookhear nor another file of it. A request
holds a clip or picture (bytes, base64 or an http(s) address) and parameters of the pipeline; the answer is plain JSON.
What comes from strangers is measured before it is decoded, no path of theirs is opened, and one request at a time is
computed. `lookhear serve` uses the same limits, checks and queue.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import io
import ipaddress
import json
import math
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from PIL import Image, ImageOps
from transformers import pipeline

PREFIX = "LOOKHEAR_SERVE_"
PRIVATE = "LOOKHEAR_SERVE_PRIVATE_URLS"  # set: addresses of private networks may be fetched, too
DOWNLOAD_SECONDS = 60.0
SILENT_SECONDS = 15.0  # without a byte of a download
# Containers that hold what they show. Playlists, which name other files and addresses, are none of them.
VIDEO = ("asf", "avi", "flv", "matroska", "mov", "mpeg", "mpegts", "webm")
SOUND = ("aac", "aiff", "amr", "au", "caf", "flac", "mp3", "ogg", "w64", "wav")
PICTURES = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
PARAMETER_LETTERS = 20_000
MEDIA = ("video", "audio", "image")  # keys under which `inputs` may hold the file

# What a request may set, and the largest number or the longest text or list that it may hold. Whatever names a file, a
# model or a function isn't here.
SPEECH, OBJECTS, QUESTIONS = "audio-visual-speech-recognition", "object-perception", "reasoning-segmentation"
TASKS = {"avsr": SPEECH, "glee": OBJECTS, "lisa_glee": QUESTIONS}  # of each model_type
PARAMETERS: dict[str, dict[str, float]] = {
    SPEECH: {
        "modality": 20,
        "return_timestamps": 20,
        "search": 20,
        "num_beams": 20,
        "num_return_sequences": 20,
        "ctc_weight": 1,
        "chunk_length_s": 60,
        "speaker": 500,
        "lip_evidence": 1,
        "speech_confidence": 1,
        "audio_track": 20,
        "video_track": 20,
        "channel": 20,
    },
    OBJECTS: {
        "labels": 200,
        "expressions": 20,
        "points": 20,
        "boxes": 20,
        "threshold": 1,
        "top_k": 300,
        "one_label": 1,
        "tracking": 20,
    },
    QUESTIONS: {"question": 2000},
}


class RequestError(ValueError):
    """
    A request that isn't answered; the message is one line for whoever sent it.

    Args:
        message: the reason.
        status: of HTTP: 400 for what cannot be used, 413 for what is too large, 503 while too many wait.
    """

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """
    How much one request may hold.

    Attributes:
        megabytes: of a file.
        seconds: of a clip.
        megapixels: of a picture or frame.
        gigapixels: of all frames of a video together.
        job_seconds: that an answer may take.
        waiting: requests that may wait while another one is answered.
    """

    megabytes: float = 50.0
    seconds: float = 60.0
    megapixels: float = 17.0
    gigapixels: float = 8.0
    job_seconds: float = 120.0
    waiting: float = 16.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Limits:
        """
        Reads the limits: the defaults, or what `LOOKHEAR_SERVE_MEGABYTES`, `…_SECONDS`, `…_MEGAPIXELS`,
        `…_GIGAPIXELS`, `…_JOB_SECONDS` and `…_WAITING` say.

        Args:
            environment: name -> text.

        Raises:
            ValueError: one of them isn't a positive number.
        """
        return cls(**positive_numbers((one.name for one in fields(cls)), PREFIX, environment))

    def check_bytes(self, count: float) -> None:
        """
        Checks the size of a file.

        Args:
            count: of its bytes.

        Raises:
            RequestError: there are too many.
        """
        if count > self.megabytes * 1e6:
            text = f"The file has {count / 1e6:.0f} megabytes or more; the limit here is {self.megabytes:g}."
            raise RequestError(text, 413)

    def check_picture(self, size: tuple[int, int]) -> None:
        """
        Checks the size of a picture or frame.

        Args:
            size: width and height in pixels.

        Raises:
            RequestError: it is too large.
        """
        if size[0] * size[1] > self.megapixels * 1e6:
            text = f"The pictures have {size[0]} x {size[1]} pixels; the limit here is {self.megapixels:g} megapixels."
            raise RequestError(text, 413)

    def check_clip(self, file: IO[bytes]) -> float:
        """
        Measures a clip by its packets, without decoding any, as headers need not be true.

        Args:
            file: seekable; it is rewound at the end.

        Returns:
            Its length in seconds.

        Raises:
            RequestError: it is too large, too long, its pictures are too large, or it isn't a clip.
        """
        self.check_bytes(file.seek(0, io.SEEK_END))
        file.seek(0)
        most = str(round(2e6 * self.megapixels) + (1 << 20))
        options = {"format_whitelist": ",".join(VIDEO + SOUND), "protocol_whitelist": "file", "max_pixels": most}
        try:
            with av.open(file, mode="r", options=options, metadata_errors="replace") as container:
                streams: list[Any] = [stream for stream in container.streams if stream.type in ("video", "audio")]
                if not streams:
                    raise RequestError("The file holds neither video nor sound.")
                size = max([(s.width, s.height) for s in streams if s.type == "video"] or [(0, 0)], key=math.prod)
                self.check_picture(size)
                seconds, frames = packet_seconds(container, streams)
        except av.error.ArgumentError:  # the whitelist's
            kinds = "mp4, mov, mkv, webm, avi, mpg, wav, flac, mp3, ogg, aac"
            raise RequestError(f"This kind of file is not accepted: send one of {kinds}.", 415) from None
        except RequestError:
            raise
        except (av.error.FFmpegError, OSError, ValueError):
            raise RequestError("The file is not a clip that can be read, or is damaged.") from None
        finally:
            file.seek(0)
        if seconds > self.seconds:
            text = f"The clip lasts {seconds:.0f} seconds; the limit here is {self.seconds:g}."
            raise RequestError(text, 413)
        if frames * math.prod(size) > self.gigapixels * 1e9:
            text = f"The video has {frames} frames of {size[0]} x {size[1]} pixels; the limit here is "
            raise RequestError(f"{text}{self.gigapixels:g} gigapixels in all: make it smaller or shorter.", 413)
        return seconds


def positive_numbers(names: Iterable[str], prefix: str, environment: Mapping[str, str]) -> dict[str, float]:
    """
    Reads numbers from the environment.

    Args:
        names: of the numbers; that of a variable is in capitals, after the prefix.
        prefix: of the variables.
        environment: name -> text.

    Returns:
        Those that are there and not empty.

    Raises:
        ValueError: one of them isn't a positive number.
    """
    variables = {name: prefix + name.upper() for name in names}
    return {name: _positive(key, environment[key]) for name, key in variables.items() if environment.get(key)}


def _positive(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be a positive number, not {text!r}")
    return number


def packet_seconds(container: Any, streams: list[Any]) -> tuple[float, int]:
    """
    Measures a clip by its packets, as headers may lie and browsers' recordings do not say how long they are.

    Args:
        container: of PyAV, open for reading; its packets are read.
        streams: of the container.

    Returns:
        Seconds from the first to the end of the last packet, and the number of the video's packets.
    """
    first, last, frames = math.inf, 0.0, 0
    for packet in container.demux(streams):
        frames += packet.size > 0 and packet.stream.type == "video"
        if packet.pts is not None and packet.time_base is not None:
            begin = float(packet.pts * packet.time_base)
            first = min(first, begin)
            last = max(last, begin + float((packet.duration or 0) * packet.time_base))
    return max(0.0, last - first), frames


# ------------------------------------------------------------------------------------------------------- one at a time


@dataclass
class Job:
    """
    One answer on its way.

    Attributes:
        seconds: how long it may take, from its turn on.
        stopped: whether it isn't wanted any more.
        began: by the monotonic clock; None while it waits.
    """

    seconds: float
    stopped: bool = False
    began: float | None = field(default=None)

    def start(self) -> None:
        """
        Begins to count the time.

        Raises:
            RequestError: the job was stopped while it waited.
        """
        self.began = time.monotonic()
        self.check()

    def check(self, *_: object) -> None:
        """
        Is called between two steps of the work.

        Raises:
            RequestError: the job has to end here.
        """
        if self.stopped:
            raise RequestError("The request was given up.", 499)
        if self.began is not None and time.monotonic() - self.began > self.seconds:
            text = f"This takes longer than {self.seconds:g} seconds, the limit here: send a shorter clip."
            raise RequestError(text, 413)


class Turns:
    """
    Lets one request at a time use the model, and refuses more than can wait.

    Args:
        waiting: requests that may wait while another one is answered.
    """

    def __init__(self, waiting: int):
        self.places = waiting + 1
        self._taken = 0
        self._count = threading.Lock()
        self._model = threading.Lock()

    @property
    def taken(self) -> int:
        """Requests that wait or are answered."""
        return self._taken

    def enter(self) -> None:
        """
        Takes a place, which [`leave`] frees.

        Raises:
            RequestError: there is none.
        """
        with self._count:
            if self._taken >= self.places:
                raise RequestError(f"{self._taken} requests are being answered or wait: try again later.", 503)
            self._taken += 1

    def leave(self) -> None:
        """Frees a place."""
        with self._count:
            self._taken -= 1

    @contextlib.contextmanager
    def turn(self, job: Job) -> Iterator[None]:
        """
        Waits until the model is free; it is this job's until the end of the block.

        Args:
            job: its time begins now.

        Raises:
            RequestError: the job was stopped while it waited.
        """
        while not self._model.acquire(timeout=0.1):
            job.check()
        try:
            job.start()
            yield
        finally:
            self._model.release()


# ------------------------------------------------------------------------------------------------------ what was sent


def fetch(address: str, limits: Limits) -> bytes:
    """
    Downloads a file from a public http(s) address.

    Args:
        address: what a stranger sent. Where it leads is checked of every connection that is made, so neither a
            redirection nor a name that changes leads into a private network.
        limits: how large the file may be.

    Raises:
        RequestError: it cannot be fetched, is too large, or its server is not public.
    """
    opener = urllib.request.OpenerDirector()
    handlers = (_PublicHttp, _PublicHttps, urllib.request.HTTPRedirectHandler, urllib.request.HTTPErrorProcessor)
    for handler in (*handlers, urllib.request.HTTPDefaultErrorHandler, urllib.request.UnknownHandler):
        opener.add_handler(handler())
    began, content = time.monotonic(), bytearray()
    try:
        with opener.open(address, timeout=SILENT_SECONDS) as answer:
            while block := answer.read(1 << 16):
                content += block
                limits.check_bytes(len(content))
                if time.monotonic() - began > DOWNLOAD_SECONDS:
                    raise RequestError(f"The address takes longer than {DOWNLOAD_SECONDS:.0f} seconds to fetch.")
    except RequestError:
        raise
    except urllib.error.HTTPError as error:
        raise RequestError(f"The address cannot be fetched: its server answers {error.code}.") from None
    except (OSError, ValueError, EOFError, http.client.HTTPException):
        raise RequestError("The address cannot be fetched.") from None
    return bytes(content)


def _check_public(connection: http.client.HTTPConnection) -> None:
    """Raises RequestError and hangs up unless the other end is a public machine; nothing was sent to it yet."""
    address = ipaddress.ip_address(connection.sock.getpeername()[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    if not (mapped or address).is_global and not os.environ.get(PRIVATE):
        connection.close()
        raise RequestError("The address is not a public one.")


class _PublicConnection(http.client.HTTPConnection):
    """A connection to public machines only."""

    def connect(self) -> None:
        super().connect()
        _check_public(self)


class _PublicSecureConnection(http.client.HTTPSConnection):
    """A connection to public machines only."""

    def connect(self) -> None:
        super().connect()
        _check_public(self)


class _PublicHttp(urllib.request.HTTPHandler):
    """Opens http addresses of public machines, without a proxy."""

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PublicConnection, req)


class _PublicHttps(urllib.request.HTTPSHandler):
    """Opens https addresses of public machines, without a proxy."""

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PublicSecureConnection, req)


def received(value: Any, limits: Limits) -> bytes:
    """
    Returns the bytes of a file that was sent.

    Args:
        value: bytes; or a text, which is an http(s) address, a `data:` address, or base64. It is never a path.
        limits: how large the file may be.

    Raises:
        RequestError: it is none of these, too large, or cannot be fetched.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        limits.check_bytes(len(value))
        return bytes(value)
    if not isinstance(value, str):
        raise RequestError("`inputs` must be a file's bytes, its base64, or an http(s) address.")
    if value.lower().startswith(("http://", "https://")):
        return fetch(value, limits)
    text = value.partition(",")[2] if value.lower().startswith("data:") else value
    limits.check_bytes(len(text) * 3 / 4 - 3)
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("`inputs` is neither base64 nor an http(s) address; files are sent, not named.") from None


def checked_parameters(task: str, given: Any) -> dict[str, Any]:
    """
    Checks the parameters of a request; their values are the pipeline's to check.

    Args:
        task: of the pipeline.
        given: what was sent; None for nothing.

    Raises:
        RequestError: one is unknown, or larger than a request's may be.
    """
    if not isinstance(given or {}, Mapping):
        raise RequestError("`parameters` must be an object of names and values.")
    if len(str(given)) > PARAMETER_LETTERS:
        raise RequestError("`parameters` are too long: choose less at a time.", 413)
    allowed = PARAMETERS[task]
    for name, value in (given or {}).items():
        if name not in allowed:
            raise RequestError(f"`parameters` may hold {', '.join(allowed)}, and {str(name)[:40]!r} is none of these.")
        if _size(value) > allowed[name]:
            raise RequestError(f"`{name}` is too large: the limit here is {allowed[name]:g}.")
    return {name: value for name, value in (given or {}).items() if value is not None}


def _size(value: Any) -> float:
    """Returns a number itself, or the length of a list or text."""
    return value if isinstance(value, (int, float)) else len(value) if isinstance(value, list) else len(str(value))


# ----------------------------------------------------------------------------------------------------- what is sent


def one_line(error: BaseException) -> str:
    """Returns an error's message on one line, without folders of this machine."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"'?<(\d+ bytes|\w*(TemporaryFile|BytesIO)\w*)>'?", "the file", text)
    return re.sub(r"(?<![\w:/])/(?:[\w.-]+/)+", "", text)


def plain(value: Any) -> Any:
    """Converts a result to types of JSON: masks become run lengths as COCO counts them, NaN and infinity null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray) and value.dtype == bool and value.ndim == 2:
        return run_lengths(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """
    Returns a mask as COCO's uncompressed run lengths, which `pycocotools.mask.frPyObjects` reads.

    Args:
        mask: `(height, width)` bool.

    Returns:
        `size`, height and width; `counts`, by columns, of pixels outside and inside in turn.
    """
    flat = np.concatenate([[False], mask.ravel(order="F")])
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


# -------------------------------------------------------------------------------------------------------- the handler


class EndpointHandler:
    """
    Loads a checkpoint and answers requests.

    Args:
        path: folder of the checkpoint, where this file lies.
        limits: how much a request may hold; None: what the environment says.
        settings: of `transformers.pipeline`, such as `device`.
    """

    def __init__(self, path: str = "", limits: Limits | None = None, **settings: Any):
        folder = Path(path or Path(__file__).parent)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.task = TASKS[config["model_type"]]
        self.limits = limits or Limits.from_environment()
        self.turns = Turns(int(self.limits.waiting))
        self.pipe: Any = pipeline(  # type: ignore[call-overload]  # transformers' types list only its own tasks
            self.task, model=str(folder), trust_remote_code=True, **settings
        )

    def __call__(self, data: Mapping[str, Any]) -> Any:
        """
        Answers one request.

        Args:
            data: `inputs`, the file (bytes, base64 or an http(s) address; also an object that holds it as `video`,
                `audio` or `image` beside parameters), and `parameters`, those of the pipeline.

        Returns:
            The pipeline's result as types of JSON; of a video's objects one list a frame.

        Raises:
            RequestError: in one line, why it isn't answered.
        """
        self.turns.enter()
        try:
            return self._answer(data)
        except RequestError:
            raise
        except (ValueError, OSError, ImportError, TypeError) as error:
            raise RequestError(one_line(error)) from None
        except Exception as error:  # of a library, which says nothing to whoever sent the request
            raise RequestError(f"The request cannot be answered: {type(error).__name__}.", 500) from error
        finally:
            self.turns.leave()

    def _answer(self, data: Mapping[str, Any]) -> Any:
        given, parameters = data.get("inputs"), dict(data.get("parameters") or {})
        if isinstance(given, Mapping):
            named = [name for name in MEDIA if name in given]
            if len(named) != 1:
                raise RequestError(f"`inputs` must hold one of {', '.join(MEDIA)}.")
            parameters |= {name: value for name, value in given.items() if name != named[0]}
            given = given[named[0]]
        parameters = checked_parameters(self.task, parameters)
        job = Job(self.limits.job_seconds)
        if self.task == SPEECH:
            return self._speech(received(given, self.limits), parameters, job)
        picture = self._picture(given)
        if self.task == QUESTIONS:
            if not isinstance(picture, Image.Image) or "question" not in parameters:
                raise RequestError("`inputs` must be a picture, and `parameters` hold a `question`.")
            with self.turns.turn(job):
                return plain(self.pipe(picture, parameters["question"]))
        with self.turns.turn(job):
            found = self.pipe(picture, max_pixels=round(self.limits.megapixels * 1e6), **parameters)
            return plain(found) if isinstance(found, list) else list(_frames(found, job))

    def _speech(self, content: bytes, parameters: dict[str, Any], job: Job) -> Any:
        """Returns what is said in a clip."""
        self.limits.check_clip(io.BytesIO(content))
        pixels = round(self.limits.megapixels * 1e6)
        with self.turns.turn(job):
            return plain(self.pipe(content, on_piece=job.check, max_pixels=pixels, **parameters))

    def _picture(self, given: Any) -> Image.Image | bytes:
        """Returns a picture, upright; or the bytes of a video, which has been measured."""
        if not isinstance(given, Image.Image):
            content = received(given, self.limits)
            try:
                given = Image.open(io.BytesIO(content), formats=PICTURES)
            except (OSError, Image.DecompressionBombError):
                self.limits.check_clip(io.BytesIO(content))
                return content
        self.limits.check_picture(given.size)
        try:
            upright: Image.Image = ImageOps.exif_transpose(given).convert("RGB")
        except (OSError, SyntaxError, ValueError):
            raise RequestError("The picture cannot be read, or is damaged.") from None
        return upright


def _frames(found: Any, job: Job) -> Iterator[Any]:
    """Yields the objects of each frame of a video."""
    check: Callable[[], None] = job.check
    with found:
        for objects in found:
            check()
            yield plain(objects)
