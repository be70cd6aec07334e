"""
A speech model behind `/v1/audio/transcriptions`, in the form of OpenAI's API; videos are read from the lips, too.

Requests are bounded before they are read: a place in the queue first, then the size of the body, then the clip itself.
Uploads live in temporary files without a name until their answer is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from lookhear.serving.answers import Question, answer, error_body, event, read_question, usage
from lookhear.serving.handler import Job, Limits, RequestError, Turns, one_line
from lookhear.serving.metrics import Metrics

ALIASES = ("whisper-1",)  # what clients ask for that have no other name to offer
FIELDS, FIELD_BYTES = 40, 1 << 16  # of a form
SPARE_BYTES = 1 << 18  # of a body beside the file
UPLOAD_SECONDS = 120.0
DRAIN_SECONDS = 10.0  # for what a refused client still sends, which reads no answer before it has sent all
RETRY_SECONDS = 5  # after which a client that found no place may come again
POLL_SECONDS = 0.5  # between looks at whether the client is still there
Endpoint = Callable[[Request, "Body"], Awaitable[Response]]


class SpeechServer:
    """
    Answers requests with one pipeline.

    Args:
        asr: pipeline of the task `audio-visual-speech-recognition`.
        name: of the model, for clients.
        limits: how much one request may hold.
        key: that clients send as a bearer token; None: nobody needs one.
    """

    def __init__(self, asr: Any, name: str, limits: Limits, key: str | None = None):
        self._asr, self._name, self._limits, self._key = asr, name, limits, key
        self._turns, self._metrics, self._began = Turns(int(limits.waiting)), Metrics(), int(time.time())
        self._model = asyncio.Lock()

    def to_app(self) -> Starlette:
        """Returns the ASGI application."""
        routes = [
            Route("/health", self._health),
            Route("/metrics", self._guarded(self._show_metrics)),
            Route("/v1/models", self._guarded(self._models)),
            Route("/v1/models/{name:path}", self._guarded(self._one_model)),
            Route("/v1/audio/transcriptions", self._guarded(self._transcribe), methods=["POST"]),
        ]
        errors: dict[Any, Any] = {HTTPException: _on_http_error}
        return Starlette(routes=routes, exception_handlers=errors)

    # ---------------------------------------------------------------------------------------------------- small ones

    async def _health(self, request: Request) -> Response:
        """Says that the model is loaded, and how many requests are there."""
        return JSONResponse({"status": "ok", "model": self._name, "requests": self._turns.taken})

    async def _show_metrics(self, request: Request, body: Body) -> Response:
        text = self._metrics.to_text(self._turns.taken, self._turns.places)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _models(self, request: Request, body: Body) -> Response:
        return JSONResponse({"object": "list", "data": [self._about()]})

    async def _one_model(self, request: Request, body: Body) -> Response:
        self._check_model(request.path_params["name"])
        return JSONResponse(self._about())

    def _about(self) -> dict[str, Any]:
        return {"id": self._name, "object": "model", "created": self._began, "owned_by": "lookhear"}

    def _check_model(self, name: str) -> None:
        if name not in ("", self._name, *ALIASES):
            raise RequestError(f"There is no model {name[:100]!r}; there is {self._name}.", 404)

    def _guarded(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """Returns an endpoint for those with the key, whose errors are JSON."""

        async def checked(request: Request) -> Response:
            body = Body(request, self._limits)
            try:
                self._check_key(request)
                return await endpoint(body.request, body)
            except RequestError as error:
                refused = error
            except Exception as error:
                refused = _fault(error)
            if request.method == "POST":
                await body.drain()
            headers = {503: {"retry-after": str(RETRY_SECONDS)}, 401: {"www-authenticate": "Bearer"}}
            return JSONResponse(error_body(str(refused), refused.status), refused.status, headers.get(refused.status))

        return checked

    def _check_key(self, request: Request) -> None:
        sent = request.headers.get("authorization", "")
        if self._key is not None and not hmac.compare_digest(sent.encode(), f"Bearer {self._key}".encode()):
            raise RequestError("The key is missing or wrong: send it as `Authorization: Bearer KEY`.", 401)

    # ------------------------------------------------------------------------------------------------- transcription

    async def _transcribe(self, request: Request, body: Body) -> Response:
        """Reads a clip; what it takes is freed when the answer is sent."""
        began = time.monotonic()
        async with contextlib.AsyncExitStack() as taken:
            try:
                self._turns.enter()
                taken.callback(self._turns.leave)
                response = await self._answered(request, body, taken, began)
            except RequestError as error:
                self._metrics.add_request(error.status, time.monotonic() - began)
                raise
            if isinstance(response, _Stream):
                response.taken = taken.pop_all()
            else:
                self._metrics.add_request(200, time.monotonic() - began)
            return response

    async def _answered(
        self, request: Request, body: Body, taken: contextlib.AsyncExitStack, began: float
    ) -> Response:
        """
        Returns the answer.

        Args:
            request: for a transcription.
            body: of the request.
            taken: takes what has to be freed when the answer is sent.
            began: when the request came, by the monotonic clock.
        """
        file, question = await self._form(request, body, taken)
        seconds = await run_in_threadpool(self._limits.check_clip, file)
        job = Job(self._limits.job_seconds)
        watch = asyncio.create_task(_stop_if_gone(request, job))
        try:
            await self._take_turn(watch)
            taken.callback(self._model.release)
            job.start()
            if not question.stream:
                return Response(*await run_in_threadpool(self._read, file, question, job))
        finally:
            watch.cancel()
        events = self._events(file, question, job, seconds)
        taken.callback(events.close)
        return _Stream(self._sent(events, began), media_type="text/event-stream")

    async def _form(self, request: Request, body: Body, taken: contextlib.AsyncExitStack) -> tuple[Any, Question]:
        """Reads the form; returns its file and what is asked for."""
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise RequestError("Send the `file` in a form (multipart/form-data).", 415)
        body.limit()
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                form = await request.form(max_files=1, max_fields=FIELDS, max_part_size=FIELD_BYTES)
        except TimeoutError:
            raise RequestError(f"The upload takes longer than {UPLOAD_SECONDS:.0f} seconds.", 408) from None
        except ClientDisconnect:
            raise RequestError("The request was given up.", 499) from None
        except HTTPException as error:  # of a form that cannot be read
            raise RequestError(one_line(Exception(error.detail))) from None
        taken.push_async_callback(form.close)
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise RequestError("The form has no `file`.")
        question = read_question([(name, value) for name, value in form.multi_items() if isinstance(value, str)])
        self._check_model(question.model)
        return file.file, question

    async def _take_turn(self, watch: asyncio.Task[None]) -> None:
        """Waits until the model is free, in the order of the requests, or until `watch` says that nobody waits."""
        waiting = asyncio.ensure_future(self._model.acquire())
        await asyncio.wait({waiting, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            raise RequestError("The request was given up.", 499)

    def _read(self, file: Any, question: Question, job: Job) -> tuple[str, int, None, str]:
        """Returns the arguments of the answer: its text, status, headers and type."""
        try:
            began = time.monotonic()
            result = self._asr(file, on_piece=job.check, **self._settings(question))
            self._metrics.add_reading(float(result["report"]["duration"]), time.monotonic() - began)
            text, kind = answer(result, question)
        except Exception as error:
            raise _refused(error) from None
        return text, 200, None, kind

    def _settings(self, question: Question) -> dict[str, Any]:
        return {**question.settings, "max_pixels": round(self._limits.megapixels * 1e6)}

    def _events(self, file: Any, question: Question, job: Job, seconds: float) -> Generator[str, None, None]:
        """Yields the events of a stream: each word as soon as it is certain, and the whole text."""
        texts: list[str] = []
        began = time.monotonic()
        try:
            with self._asr.stream(file, on_piece=job.check, **self._settings(question)) as speech:
                for word in speech:
                    job.check()
                    yield event("transcript.text.delta", delta=f" {word['text']}" if texts else word["text"])
                    texts.append(word["text"])
        except Exception as error:
            refused = _refused(error)
            yield event("error", **error_body(str(refused), refused.status))
            return
        self._metrics.add_reading(seconds, time.monotonic() - began)
        yield event("transcript.text.done", text=" ".join(texts), usage=usage(seconds))

    async def _sent(self, events: Generator[str, None, None], began: float) -> AsyncIterator[str]:
        """Yields the events, each computed in a thread."""
        while (text := await run_in_threadpool(next, events, None)) is not None:
            yield text
        self._metrics.add_request(200, time.monotonic() - began)


class _Stream(StreamingResponse):
    """An answer that is sent piece by piece; afterwards, or if the client has left, frees what it has taken."""

    taken: contextlib.AsyncExitStack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.taken:
            with contextlib.suppress(ClientDisconnect):
                await super().__call__(scope, receive, send)


class Body:
    """
    The body of a request, counted as it comes.

    Args:
        request: nothing of its body has been read.
        limits: of a file.

    Attributes:
        request: the same, to be used in its place.
    """

    def __init__(self, request: Request, limits: Limits):
        self._receive, self._limits, self._length = request.receive, limits, request.headers.get("content-length", "")
        self._count, self._limited, self._ended = 0, False, False
        self.request = Request(request.scope, self._counted)

    def limit(self) -> None:
        """
        Refuses from here on what is larger than the limits.

        Raises:
            RequestError: the request announces a larger one; while it is read: it is larger.
        """
        self._limited = True
        self._limits.check_bytes((int(self._length) if self._length.isdecimal() else 0) - SPARE_BYTES)

    async def drain(self) -> None:
        """Reads and discards what is still sent, as long as that is reasonable."""
        self._limited, most = False, 4e6 * self._limits.megabytes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._ended and self._count < most:
                    await self._counted()

    async def _counted(self) -> Message:
        message = await self._receive()
        self._count += len(message.get("body", b""))
        self._ended |= not message.get("more_body", False)
        if self._limited:
            self._limits.check_bytes(self._count - SPARE_BYTES)
        return message


def _refused(error: Exception) -> RequestError:
    """Returns what the client is told of an error."""
    if isinstance(error, RequestError):
        return error
    return RequestError(one_line(error)) if isinstance(error, (ValueError, OSError)) else _fault(error)


def _fault(error: Exception) -> RequestError:
    """Logs an error that is no fault of the request; returns what the client is told."""
    if os.environ.get("LOOKHEAR_TRACEBACK"):
        raise error
    print(f"lookhear serve: {type(error).__name__}: {one_line(error)}", file=sys.stderr, flush=True)
    return RequestError(f"The request cannot be answered: {type(error).__name__}.", 500)


async def _stop_if_gone(request: Request, job: Job) -> None:
    """Stops a job when its client hangs up."""
    while not await request.is_disconnected():
        await asyncio.sleep(POLL_SECONDS)
    job.stopped = True


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    return JSONResponse(error_body(str(error.detail), error.status_code), error.status_code, error.headers)
