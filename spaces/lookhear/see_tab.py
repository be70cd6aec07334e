"""The tab "See": a picture or a video in, what was requested drawn on it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

import presenting
from drawing_pad import as_prompts, drawing_pad
from examples import Examples, questions_about
from jobs import Job, Jobs, on_gpu
from limits import Limits
from media import is_video, private_name
from messages import errors_as_messages
from seeing import as_request, see_picture, see_video
from tab_parts import answer_with, example_pictures, fill_in, show_on

WAITING = '<p class="waiting">The picture with what was found, and a table, appear here.</p>'


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
        self.jobs = Jobs(limits.job_seconds)
        self._finding = on_gpu(limits.job_seconds)(self._finding)  # type: ignore[method-assign]  # where it runs
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
        self._connect(examples)

    def _lay_out_question(self, examples: Examples) -> None:
        self.file = gr.File(
            label=f"Picture, or video of up to {self._limits.see_seconds:.0f} s",
            file_types=["image", "video"],
            height=140,
            elem_id="see-file",
        )
        self.examples = example_pictures("see-examples", [examples.posters["scene"], examples.posters["moving"]])
        self.labels = gr.Textbox(
            label="Find everything called",
            placeholder="person, red circle, star",
            value="",
            max_length=2000,
            elem_id="see-labels",
        )
        self.sentences = gr.Textbox(
            label="Find the one that a sentence means",
            placeholder="the leftmost star",
            info="One sentence a line.",
            value="",
            lines=2,
            max_lines=5,
            max_length=2000,
            elem_id="see-sentences",
        )
        self.pad = drawing_pad(
            "see-pad", "Or point at objects", "The picture, or the first one of the video, appears here."
        )
        self.threshold = gr.Slider(
            0.05,
            0.95,
            value=0.2,
            step=0.05,
            label="Lowest score of what names and sentences find",
            elem_id="see-threshold",
        )
        self.button = gr.Button("Find", variant="primary", size="lg", elem_id="see-run")
        self.stop = gr.Button("Stop", variant="secondary", size="md", elem_id="see-stop")

    def _connect(self, examples: Examples) -> None:
        question = [self.file, self.labels, self.sentences]
        tries = [(str(path), *questions_about(path)) for path in (examples.scene, examples.moving)]
        fill_in(self.examples, tries, question)
        show_on(self.pad, self.file, self._check)
        answer = [self.waiting, self.picture, self.tracked, self.table]
        triggers, question = [self.button.click, self.labels.submit], [*question, self.pad, self.threshold]
        # One of the three is visible.
        answer_with(self._find, triggers, question, answer, "see", (self.stop, self.jobs), waiting=answer[:3])

    def _check(self, path: str) -> None:
        if is_video(path):
            self._limits.check_video(path, self._limits.see_seconds)
        else:
            self._limits.check_picture(path)

    def _find(
        self,
        path: str | None,
        labels: str,
        sentences: str,
        shapes: Any,
        threshold: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio learns that progress is wanted
        request: gr.Request | None = None,
    ) -> Iterator[tuple]:
        with errors_as_messages(path), tempfile.TemporaryDirectory() as folder, self.jobs.start(request) as job:
            if path is None:
                raise ValueError("Choose a picture or a video first.")
            self._check(path)
            wanted = as_request(labels, sentences, as_prompts(shapes))
            # Gradio copies the files before it continues after a yield
            yield self._finding(job, path, wanted, threshold, folder, progress)

    def _finding(
        self, job: Job, path: str, wanted: dict[str, list], threshold: float, folder: str, progress: gr.Progress
    ) -> tuple:
        """Looks at a picture or video; returns the answer, whose files are in the folder."""
        hidden = gr.update(value=None, visible=False)

        def on_progress(share: float, what: str) -> None:
            job.check()
            progress(share, desc=what)

        if is_video(path):
            out = Path(folder) / f"{private_name(path)}-tracked.mp4"
            tracks, missed = see_video(self._see, path, wanted, threshold, out, on_progress)
            table = presenting.tracks_table(tracks) + presenting.not_found(missed)
            return gr.update(visible=False), hidden, gr.update(value=str(out), visible=True), table
        on_progress(0.1, "Looking")
        picture, objects, missed = see_picture(self._see, path, wanted, threshold)
        table = presenting.objects_table(objects) + presenting.not_found(missed)
        return gr.update(visible=False), gr.update(value=picture, visible=True), hidden, table
