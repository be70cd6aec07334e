"""The tab "Live": words appear while somebody talks in front of the camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from limits import Limits
from live_reading import LiveSessions

HERE = Path(__file__).parent

TEMPLATE = """
<div class="live">
  <div class="live-picture">
    <div class="live-stage">
      <video class="live-video" muted playsinline aria-label="Your camera; tap a face to read it"></video>
      <p class="live-caption" hidden><span class="live-certain"></span> <span class="live-partial"></span></p>
      <p class="live-empty">Words appear while you talk: press Start.</p>
    </div>
  </div>
  <div class="live-side">
    <label>Read from
      <select class="live-from"><option value="auto">All there is</option><option value="visual">Lips</option>
      <option value="audio">Sound</option></select>
    </label>
    <label>Who, if several people are in view
      <input class="live-who" type="text" maxlength="200" placeholder="the person on the left; or tap them">
    </label>
    <div class="live-buttons">
      <button type="button" class="live-start">Start</button>
      <button type="button" class="live-stop" disabled>Stop</button>
    </div>
    <p class="live-status" role="status">Up to {seconds:.0f} seconds. Nothing is stored.</p>
    <p class="live-said" aria-live="polite"></p>
  </div>
</div>
"""


class LiveTab:
    """
    Lays the tab out, inside of `gr.Blocks`.

    Args:
        asr: pipeline of the task `audio-visual-speech-recognition`.
        see: pipeline of the task `object-perception`.
        limits: what is refused.
    """

    def __init__(self, asr: Any, see: Any, limits: Limits):
        sessions = LiveSessions(asr, see, limits)

        # Functions, as Gradio marks those that the page may call. It calls them outside of the queue.
        def begin(asked: Any) -> dict[str, Any]:
            return sessions.begin(asked)

        def push(sent: Any) -> dict[str, Any]:
            return sessions.push(sent)

        def choose(sent: Any) -> dict[str, Any]:
            return sessions.choose(sent)

        self.camera = gr.HTML(
            label="Live",
            html_template=TEMPLATE.format(seconds=limits.live_seconds),
            css_template=(HERE / "live_camera.css").read_text(encoding="utf-8"),
            js_on_load=(HERE / "live_camera.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            elem_id="live-camera",
            server_functions=[begin, push, choose],
        )
