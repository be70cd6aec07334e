"""The LookHear Space: point at a speaker, or describe them, and read what they say; find whatever is named or shown;
ask about a picture.

`python app.py` serves it; on the Hub the same file runs. Checkpoints are those that come with lookhear, or what
`LOOKHEAR_SPACE_READ_MODEL`, `LOOKHEAR_SPACE_SEE_MODEL` and `LOOKHEAR_SPACE_ASK_MODEL` name (folders or Hub ids).
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio is imported: nothing is counted

import gradio as gr
from transformers import pipeline

import lookhear  # noqa: F401 - registers the pipelines
from ask_tab import AskTab
from examples import Examples, make_examples
from jobs import GPU
from limits import Limits
from live_tab import LiveTab
from log_lines import OneLineErrors
from read_tab import ReadTab
from see_tab import SeeTab

HERE = Path(__file__).parent
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]  # the reader's own: nothing is downloaded
SESSIONS = 64  # visitors whose conversations are remembered
KEPT = 3600  # seconds that uploads and results stay on the server
ABOUT = """
<header><h1>LookHear</h1>
<p>Point at a speaker and read what they say. Find whatever you name, describe or show. Ask about a
picture.</p></header>
"""
SMALL_PRINT = """
<footer><p>The checkpoints here are small ones, for trying it out: English commands of the GRID corpus, the shapes
and people of generated scenes, and questions about them. Uploads and results are deleted after an hour. Read only
people who agree to it.</p></footer>
"""


def build_app(asr: Any, see: Any, load_ask: Callable[[], Any], examples: Examples, limits: Limits) -> gr.Blocks:
    """
    Builds the page.

    Args:
        asr: pipeline of the task `audio-visual-speech-recognition`.
        see: pipeline of the task `object-perception`.
        load_ask: returns the pipeline of the task `reasoning-segmentation`; called when somebody asks.
        examples: what may be tried.
        limits: what is refused.
    """
    with gr.Blocks(title="LookHear", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as app:
        gr.HTML(ABOUT, apply_default_css=False, elem_id="about")
        with gr.Tabs():
            with gr.Tab("Read", id="read"):
                read = ReadTab(asr, see, examples, limits)
            with gr.Tab("See", id="see"):
                look = SeeTab(see, examples, limits)
            with gr.Tab("Ask", id="ask"):
                ask = AskTab(load_ask, examples, limits)
            if GPU is None:  # those that are lent answer one question at a time
                with gr.Tab("Live", id="live"):
                    LiveTab(asr, see, limits)
        for tab in (read, look, ask):
            app.unload(tab.jobs.stop)  # those who leave do not wait for an answer
        gr.HTML(SMALL_PRINT, apply_default_css=False, elem_id="small-print")
    return app.queue(max_size=16, default_concurrency_limit=1)


def theme() -> gr.themes.Base:
    """Returns Gradio's plain theme in blue, with fonts that every reader has."""
    mono = ["ui-monospace", "Consolas", "monospace"]
    return gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=mono)


def checkpoint(variable: str, packaged: str) -> str:
    """Returns what the environment names, or a folder that comes with lookhear."""
    return os.environ.get(variable) or str(files("lookhear") / "model_cards" / packaged)


def main() -> None:
    """Loads the checkpoints, makes missing examples, serves the page until it is stopped."""
    if not os.environ.get("LOOKHEAR_TRACEBACK"):
        sys.stderr = OneLineErrors(sys.stderr)
    limits = Limits.from_environment()
    pixels = round(limits.megapixels * 1e6)
    examples = make_examples(Path(os.environ.get("LOOKHEAR_SPACE_EXAMPLES") or HERE / "examples"))
    read = checkpoint("LOOKHEAR_SPACE_READ_MODEL", "avsr-grid-tiny")
    asr = pipeline("audio-visual-speech-recognition", model=read, max_pixels=pixels)
    look = checkpoint("LOOKHEAR_SPACE_SEE_MODEL", "glee-tiny")
    see = pipeline("object-perception", model=look, max_pixels=pixels)
    ask = checkpoint("LOOKHEAR_SPACE_ASK_MODEL", "lisa-glee-tiny")
    load_ask = functools.cache(functools.partial(pipeline, "reasoning-segmentation", model=ask, max_pixels=pixels))
    build_app(asr, see, load_ask, examples, limits).launch(
        theme=theme(),
        # as it is, not through `css`, which puts every rule below the page's frame
        head=f"<style>{(HERE / 'style.css').read_text(encoding='utf-8')}</style>",
        max_file_size=f"{limits.megabytes:.0f}mb",
        allowed_paths=[str(examples.one.parent)],
        ssr_mode=False,
        footer_links=[],
        state_session_capacity=SESSIONS,
        run_history=False,
    )


if __name__ == "__main__":
    main()
