"""The tab "See": a picture or a video in, what was asked for drawn on it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import presenting
from drawing_pad import as_prompts, drawing_pad, show_picture
from examples import Examples, questions_about
from limits import Limits
from media import first_picture, is_video
from messages import errors_as_messages
from seeing import as_request, see_picture, see_video

WAITING = '<p class="waiting">The picture with what was found, and a table, appear here.</p>'
SHOW = "() => document.getElementById('see-answer').scrollIntoView({behavior: 'smooth', block: 'start'})"


class SeeTab:
    """
    Lays the tab out, inside of `gr.Blocks`.

    Args:
        see: pipeline of the task `object-perception`.
        examples: what may be tried.
        limits: what is refused.
    """

    def __init__(self, see: Any, examples: Examples, limits: Limits):
        self._see, self._limits = see, limits
        self._tries = [(path, *questions_about(path)) for path in (examples.scene, examples.moving)]
        with gr.Row(elem_classes="halves"):
            with gr.Column(min_width=320):
                self._lay_out_question(examples)
            with gr.Column(min_width=320, elem_id="see-answer"):
                self.waiting = gr.HTML(WAITING, apply_default_css=False, elem_id="see-waiting")
                self.picture = gr.Image(
                    label="Found",
                    interactive=False,
                    visible=False,
                    buttons=["fullscreen", "download"],
                    elem_id="see-picture",
                )
                self.tracked = gr.Video(label="Found", interactive=False, visible=False, elem_id="see-tracked")
                self.table = gr.HTML(apply_default_css=False, elem_id="see-table")
        self._connect()

    def _lay_out_question(self, examples: Examples) -> None:
        self.file = gr.File(
            label=f"Picture, or video of up to {self._limits.see_seconds:.0f} s",
            file_types=["image", "video"],
            height=140,
            elem_id="see-file",
        )
        self.examples = gr.Dataset(
            components=[gr.Image(visible=False, type="filepath")],
            samples=[[str(examples.posters["scene"])], [str(examples.posters["moving"])]],
            type="index",
            label="Examples, synthesized",
            elem_id="see-examples",
        )
        self.labels = gr.Textbox(
            label="Find everything called",
            placeholder="person, red circle, star",
            max_length=2000,
            elem_id="see-labels",
        )
        self.sentences = gr.Textbox(
            label="Find the one that a sentence means",
            placeholder="the leftmost star",
            info="One sentence a line.",
            lines=1,
            max_lines=5,
            max_length=2000,
            elem_id="see-sentences",
        )
        self.pad = drawing_pad(
            "see-pad", "Or point at objects", "The picture, or the first one of the video, appears here."
        )
        self.threshold = gr.Slider(
            0.05, 0.95, value=0.2, step=0.05, label="Lowest score of what is found by name", elem_id="see-threshold"
        )
        self.button = gr.Button("Find", variant="primary", size="lg", elem_id="see-run")

    def _connect(self) -> None:
        question = [self.file, self.labels, self.sentences]
        self.examples.click(self._try, self.examples, question, show_progress="hidden", api_name=False)
        self.file.change(self._show_first_picture, self.file, self.pad, show_progress="hidden", api_name=False)
        gr.on(
            [self.button.click, self.labels.submit],
            self._find,
            [*question, self.pad, self.threshold],
            [self.waiting, self.picture, self.tracked, self.table],
            show_progress_on=[self.waiting],
            concurrency_id="model",
            api_name="see",
        ).success(js=SHOW, show_progress="hidden", api_name=False)

    def _try(self, index: int) -> tuple[str, str, str]:
        path, labels, sentences = self._tries[index]
        return str(path), labels, sentences

    def _check(self, path: str) -> None:
        if is_video(path):
            self._limits.check_video(path, self._limits.see_seconds)
        else:
            self._limits.check_picture(path)

    def _show_first_picture(self, path: str | None) -> dict[str, Any]:
        if path is None:
            return show_picture(None)
        with errors_as_messages(path):
            self._check(path)
            return show_picture(first_picture(path))

    def _find(
        self,
        path: str | None,
        labels: str,
        sentences: str,
        shapes: Any,
        threshold: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio is told that progress is wanted
    ) -> Iterator[tuple]:
        with errors_as_messages(path), tempfile.TemporaryDirectory() as folder:
            if path is None:
                raise ValueError("Choose a picture or a video first.")
            self._check(path)
            asked = as_request(labels, sentences, as_prompts(shapes))
            hidden = gr.update(value=None, visible=False)
            if is_video(path):
                out = Path(folder) / f"{Path(path).stem}-tracked.mp4"
                tracks = see_video(
                    self._see, path, asked, threshold, out, lambda share, what: progress(share, desc=what)
                )
                shown = gr.update(value=str(out), visible=True)
                # Gradio keeps a copy of the file before it goes on behind the yield
                yield gr.update(visible=False), hidden, shown, presenting.tracks_table(tracks)
            else:
                progress(0.1, desc="Looking")
                picture, objects = see_picture(self._see, path, asked, threshold)
                shown = gr.update(value=picture, visible=True)
                yield gr.update(visible=False), shown, hidden, presenting.objects_table(objects)
