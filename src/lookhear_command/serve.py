"""`lookhear serve`: a speech model for programs that speak OpenAI's API."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from typing import Any

from .argument_types import count, positive, rate
from .parsing import Commands, add_command
from .shared_options import add_model, checked_model, result_name

KEY = "LOOKHEAR_API_KEY"
LIMITS = {  # option: (type, placeholder, what it limits)
    "megabytes": (rate, "N", "largest file (50)"),
    "seconds": (rate, "N", "longest clip (60)"),
    "megapixels": (rate, "N", "largest picture (17)"),
    "gigapixels": (rate, "N", "pixels of all frames of a video together (8)"),
    "job-seconds": (rate, "N", "longest time of one answer (120)"),
    "waiting": (positive, "N", "requests that may wait while one is answered (16); others get status 503"),
}


def add(commands: Commands) -> None:
    example = (
        "lookhear serve --port 8000\n  "
        "curl http://127.0.0.1:8000/v1/audio/transcriptions -F model=avsr-grid-tiny -F file=@clip.mp4"
    )
    summary = "answer requests over HTTP in the form of OpenAI's API for transcriptions, of videos, too"
    parser = add_command(commands, "serve", summary, example, run)
    add_model(parser)
    parser.add_argument("--name", help="of the model, for clients (the last part of --model)")
    where = "address that is listened on (127.0.0.1: this machine only; 0.0.0.0: all)"
    parser.add_argument("--host", default="127.0.0.1", help=where)
    parser.add_argument("--port", type=count, default=8000, metavar="N", help="0: any that is free (8000)")
    about = f"by default what LOOKHEAR_SERVE_MEGABYTES, … say; {KEY}: a key that clients have to send"
    limits = parser.add_argument_group("limits of a request", about)
    for name, (kind, shown, text) in LIMITS.items():
        limits.add_argument(f"--{name}", type=kind, metavar=shown, help=text)


def run(options: argparse.Namespace) -> int:
    try:
        import uvicorn
        from starlette.applications import Starlette  # noqa: F401 - says here that it is missing
    except ImportError as error:
        raise ImportError(f"{error.name} is missing: pip install 'lookhear[serve]'") from None
    with _listening(options.host, options.port) as bound:
        from dataclasses import replace

        model = checked_model(options, "avsr")
        from lookhear.commands.loading import load_pipeline
        from lookhear.serving.handler import Limits
        from lookhear.serving.server import SpeechServer

        given: dict[str, Any] = {name.replace("-", "_"): getattr(options, name.replace("-", "_")) for name in LIMITS}
        limits = replace(Limits.from_environment(), **{name: n for name, n in given.items() if n is not None})
        asr = load_pipeline("audio-visual-speech-recognition", model, options.device)
        name, key = options.name or result_name(options.model), os.environ.get(KEY)
        app = SpeechServer(asr, name, limits, key).to_app()
        settings = {"log_level": "warning", "access_log": False, "lifespan": "off", "ws": "none"}
        server = uvicorn.Server(uvicorn.Config(app, server_header=False, **settings))  # type: ignore[arg-type]  # texts
        host, port = bound.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        bound.listen(socket.SOMAXCONN)  # whoever reads the next line may connect, though the server is not up yet
        print(f"lookhear serve: {name} at http://{shown}:{port}/v1", file=sys.stderr, flush=True)
        if key is None and not host.startswith("127.") and host != "::1":
            print(f"lookhear serve: anybody who can reach it may use it; {KEY}=… asks for a key", file=sys.stderr)
        server.run(sockets=[bound])
    return 0


def _listening(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound, before a model is loaded for nothing."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"--host {host} --port {port} cannot be listened on: {reason}; choose another port") from None
    return bound
