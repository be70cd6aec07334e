"""The tab "Ask": a conversation about a picture, with what the answers mean drawn on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from asking import LONGEST_QUESTION, Talk, as_question
from examples import ASKED, Examples
from jobs import Jobs
from limits import Limits
from media import first_picture, is_video
from messages import errors_as_messages
from tab_parts import answer_with, example_pictures, fill_in

KEPT = 3600  # seconds that a conversation is remembered
WAITING = '<p class="quiet">Answers appear here, with what they mean drawn on the picture.</p>'
# Scrolls the conversation to its end, also when a picture that has no height yet is there.
TO_END = """() => {
  const log = document.querySelector("#ask-chat [role=log]");
  const end = () => log.scrollTo({ top: log.scrollHeight });
  for (const picture of log.querySelectorAll("img")) picture.addEventListener("load", end, { once: true });
  end();
}"""


class AskTab:
    """
    Lays the tab out, inside of `gr.Blocks`.

    Args:
        load: returns the pipeline of the task `reasoning-segmentation`; called when there is a first question.
        examples: what may be tried.
        limits: what is refused.
    """

    def __init__(self, load: Callable[[], Any], examples: Examples, limits: Limits):
        self._load, self._limits = load, limits
        self.jobs = Jobs(limits.job_seconds)
        self.talk = gr.State(None, time_to_live=KEPT)
        with gr.Row(elem_classes="halves"):
            with gr.Column(min_width=320):
                self._lay_out_picture(examples)
            with gr.Column(min_width=320, elem_id="ask-answer"):
                self._lay_out_conversation()
        self._connect(examples)

    def _lay_out_picture(self, examples: Examples) -> None:
        self.file = gr.File(label="Picture", file_types=["image"], height=140, elem_id="ask-file")
        posters = [examples.posters[name] for name in ASKED]
        self.examples = example_pictures("ask-examples", posters)
        self.picture = gr.Image(
            label="The picture", interactive=False, visible=False, buttons=["fullscreen"], elem_id="ask-picture"
        )

    def _lay_out_conversation(self) -> None:
        self.chat = gr.Chatbot(
            label="Conversation",
            placeholder=WAITING,
            height=None,
            min_height=220,
            render_markdown=False,
            buttons=[],
            elem_id="ask-chat",
        )
        self.question = gr.Textbox(
            label="Question",
            placeholder="Which of these would roll? Show it.",
            value="",
            max_length=LONGEST_QUESTION,
            elem_id="ask-question",
        )
        with gr.Row():
            self.again = gr.Button("Start over", variant="secondary", size="lg", elem_id="ask-again")
            self.stop = gr.Button("Stop", variant="secondary", size="lg", elem_id="ask-stop")
            self.button = gr.Button("Ask", variant="primary", size="lg", elem_id="ask-run")

    def _connect(self, examples: Examples) -> None:
        tries = [(str(getattr(examples, name)), question) for name, question in ASKED.items()]
        fill_in(self.examples, tries, [self.file, self.question])
        silent: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
        self.file.change(self._show, self.file, [self.picture, self.talk, self.chat], **silent)
        gr.on([self.again.click, self.chat.clear], lambda: (None, []), None, [self.talk, self.chat], **silent)
        triggers, answer = [self.button.click, self.question.submit], [self.chat, self.question, self.talk]
        asked = [self.file, self.question, self.talk]
        answer_with(self._ask, triggers, asked, answer, "ask", (self.stop, self.jobs), TO_END)

    def _show(self, path: str | None) -> tuple:
        """Shows a new picture, about which nothing has been said."""
        if path is None:
            return gr.update(value=None, visible=False), None, []
        with errors_as_messages(path):
            self._check(path)
            return gr.update(value=first_picture(path), visible=True), None, []

    def _check(self, path: str) -> None:
        if is_video(path):
            raise ValueError("Questions are about pictures, and this file is a video.")
        self._limits.check_picture(path)

    def _ask(
        self, path: str | None, question: str, talk: Talk | None, request: gr.Request | None = None
    ) -> Iterator[tuple]:
        with errors_as_messages(path), self.jobs.start(request) as job:
            if path is None:
                raise ValueError("Choose a picture first.")
            self._check(path)
            question = as_question(question)
            if talk is None or talk.path != path:
                talk = Talk(self._load(), path)
            before = talk.messages
            try:
                for messages in talk.ask(question):
                    job.check()
                    yield messages, "", talk
            except Exception:  # whatever it is, the page is as before the question
                yield before, question, talk
                raise
