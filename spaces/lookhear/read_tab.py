"""The tab "Read": a talking face in, captions out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

import presenting
from drawing_pad import as_prompts, drawing_pad
from examples import Examples
from jobs import Job, Jobs, on_gpu
from limits import Limits
from media import as_data_url
from messages import errors_as_messages
from reading import FORMATS, Reading, crop_strip, read_video, write_files
from tab_parts import answer_with, example_pictures, fill_in, show_on

WHO = [
    ("The most prominent face", "prominent"),
    ("The one I tap", "point"),
    ("The one I describe", "text"),
    ("Everyone", "everyone"),
]
SEARCHES = [
    ("The checkpoint's", "saved"),
    ("Joint", "joint"),
    ("Two passes: quicker", "two_pass"),
    ("CTC alone", "greedy"),
]
FROM = [("All there is", "auto"), ("Sound and lips", "audiovisual"), ("Lips", "visual"), ("Sound", "audio")]
WEBCAM = {
    "video": {"width": {"ideal": 640}, "height": {"ideal": 480}, "frameRate": {"ideal": 25}}
}  # enough for a mouth
WAITING = '<p class="waiting">Captions, words with their times, and a report on the clip appear here.</p>'


def as_speaker(who: str, shapes: Any, description: str) -> Any:
    """
    Makes the argument `speaker` of the pipeline.

    Args:
        who: one of `WHO`.
        shapes: what was tapped.
        description: what was typed.

    Raises:
        ValueError: what the choice needs is missing.
    """
    if who == "text":
        if not (description or "").strip():
            raise ValueError("Describe the speaker, for example: the woman in the orange suit.")
        return description.strip()
    if who == "point":
        points = as_prompts(shapes).get("points")
        if not points:
            raise ValueError("Tap the face in the picture first.")
        return {"point": points[-1][0]}
    return "everyone" if who == "everyone" else None


class ReadTab:
    """
    Lays the tab out, inside of `gr.Blocks`.

    Args:
        asr: pipeline of the task `audio-visual-speech-recognition`.
        see: pipeline of the task `object-perception`.
        examples: what may be tried.
        limits: what is refused.
    """

    def __init__(self, asr: Any, see: Any, examples: Examples, limits: Limits):
        self._asr, self._see, self._limits = asr, see, limits
        self.jobs = Jobs(limits.job_seconds)
        self._reading = on_gpu(limits.job_seconds)(self._reading)  # type: ignore[method-assign]  # where it runs
        with gr.Row(elem_classes="halves"):
            with gr.Column(min_width=320):
                self._lay_out_question(examples)
            with gr.Column(min_width=320, elem_id="read-answer"):
                self._lay_out_answer()
        self._connect(examples)

    def _lay_out_question(self, examples: Examples) -> None:
        self.video = gr.Video(
            label=f"Talking face (up to {self._limits.read_seconds:.0f} s)",
            sources=["upload", "webcam"],
            include_audio=True,
            webcam_options=gr.WebcamOptions(constraints=WEBCAM),
            elem_id="read-video",
        )
        self.examples = example_pictures("read-examples", [examples.posters["one"], examples.posters["two"]])
        self.who = gr.Radio(WHO, value="prominent", label="Who is read", elem_id="read-who")
        self.pad = drawing_pad(
            "read-pad",
            "Tap the face",
            "The first picture of the video appears here.",
            tools=["point"],
            most=1,
            visible="hidden",  # there from the start: a component that is not loses what it is sent
        )
        self.description = gr.Textbox(
            label="Who",
            placeholder="the woman in the orange suit",
            value="",
            max_length=200,
            visible="hidden",
            elem_id="read-description",
        )
        self.modality = gr.Radio(FROM, value="auto", label="Read from", elem_id="read-from")
        self.search = gr.Radio(SEARCHES, value="saved", label="Search", elem_id="read-search")
        self.button = gr.Button("Read", variant="primary", size="lg", elem_id="read-run")
        self.stop = gr.Button("Stop", variant="secondary", size="md", elem_id="read-stop")

    def _lay_out_answer(self) -> None:
        self.said = gr.HTML(WAITING, apply_default_css=False, elem_id="read-said")
        self.captioned = gr.Video(label="With captions", interactive=False, visible=False, elem_id="read-captioned")
        with gr.Column(visible=False) as self.details:
            with gr.Row(elem_id="read-downloads"):
                self.downloads = [
                    gr.DownloadButton(f"Download .{kind}", size="sm", min_width=100, elem_id=f"read-{kind}")
                    for kind in FORMATS
                ]
            with gr.Accordion("Words", open=True):
                self.words = gr.HTML(apply_default_css=False, elem_id="read-words")
            with gr.Accordion("What the model saw", open=True):
                self.strips = gr.HTML(apply_default_css=False, elem_id="read-strips")
            with gr.Accordion("Report on the clip", open=True):
                self.report = gr.HTML(apply_default_css=False, elem_id="read-report")

    def _connect(self, examples: Examples) -> None:
        tries = [(str(examples.one), "prominent", ""), (str(examples.two), "text", "the person on the left")]
        fill_in(self.examples, tries, [self.video, self.who, self.description])
        show_on(self.pad, self.video, self._check)
        self.who.change(
            lambda who: [gr.update(visible=True if who == kind else "hidden") for kind in ("point", "text")],
            self.who,
            [self.pad, self.description],
            show_progress="hidden",
            queue=False,
            api_name=False,
        )
        answer = [self.said, self.captioned, self.details, *self.downloads, self.words, self.strips, self.report]
        question = [self.video, self.who, self.pad, self.description, self.modality, self.search]
        triggers = [self.button.click, self.description.submit]
        answer_with(self._read, triggers, question, answer, "read", (self.stop, self.jobs))

    def _check(self, video: str) -> float:
        """Its seconds."""
        return self._limits.check_video(video, self._limits.read_seconds)

    def _read(
        self,
        video: str | None,
        who: str,
        shapes: Any,
        description: str,
        modality: str,
        search: str = "saved",
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio learns that progress is wanted
        request: gr.Request | None = None,
    ) -> Iterator[tuple]:
        with errors_as_messages(video), tempfile.TemporaryDirectory() as folder, self.jobs.start(request) as job:
            if video is None:
                raise ValueError("Choose a video first, or record one.")
            seconds = self._check(video)
            speaker = as_speaker(who, shapes, description)
            # Gradio copies the files before it continues here
            how = None if search == "saved" else search
            yield self._reading(job, video, seconds, speaker, modality, how, folder, progress)

    def _reading(
        self,
        job: Job,
        video: str,
        seconds: float,
        speaker: Any,
        modality: str,
        search: str | None,
        folder: str,
        progress: gr.Progress,
    ) -> tuple:
        """Reads a video; returns the answer, whose files are in the folder."""

        def on_progress(share: float, what: str) -> None:
            job.check()
            progress(share, desc=what)

        reading = read_video(self._asr, self._see, video, seconds, speaker, modality, on_progress, search)
        captioned, files = write_files(reading, video, Path(folder), on_progress)
        return self._answer(reading, captioned, files)

    def _answer(self, reading: Reading, captioned: Path, files: dict[str, Path]) -> tuple:
        result = reading.result
        return (
            presenting.said(result),
            gr.update(value=str(captioned), visible=True),
            gr.update(visible=True),
            *(str(files[kind]) for kind in FORMATS),
            presenting.words_table(result["chunks"]),
            self._strips(reading),
            presenting.reports(result),
        )

    def _strips(self, reading: Reading) -> str:
        """Shows the mouths of everyone who was read, with an explanation."""
        if not reading.mouths:
            return presenting.remark("Lips were not read.")
        crop, rows = self._asr.processor.image_processor.crop_size, 2 if len(reading.mouths) == 1 else 1
        people = [
            (name, as_data_url(Image.fromarray(crop_strip(mouths, crop, rows=rows, lips=lips))))
            for (name, mouths), lips in zip(reading.mouths, reading.lips, strict=True)
        ]
        note = f"{crop} x {crop} pixels, spread over the clip; the model sees 25 a second, without the lips' lines."
        return presenting.strips(people) + presenting.remark(note)
