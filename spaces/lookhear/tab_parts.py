"""What the tabs have in common: examples to try, a picture to point at, and a page that goes to the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from drawing_pad import show_picture
from jobs import Jobs, stop_with
from media import first_picture
from messages import errors_as_messages

SHOW = "() => document.getElementById('{}').scrollIntoView({{behavior: 'smooth', block: 'start'}})"


def example_pictures(elem_id: str, posters: Sequence[Path]) -> gr.Dataset:
    """Makes small pictures to click on; a click gives the index of the picture."""
    return gr.Dataset(
        components=[gr.Image(visible=False, type="filepath")],
        samples=[[str(poster)] for poster in posters],
        type="index",
        label="Examples, synthesized",
        elem_id=elem_id,
    )


def fill_in(examples: gr.Dataset, tries: Sequence[tuple], fields: Sequence[gr.components.Component]) -> None:
    """Puts an example's values into the fields when it is clicked."""
    examples.click(lambda index: tries[index], examples, list(fields), show_progress="hidden", api_name=False)


def show_on(pad: gr.HTML, upload: gr.components.Component, check: Callable[[str], object]) -> None:
    """Shows the first picture of an upload on the pad if the upload passes the check."""

    def show(path: str | None) -> dict[str, Any]:
        if path is None:
            return show_picture(None)
        with errors_as_messages(path):
            check(path)
            return show_picture(first_picture(path))

    upload.change(show, upload, pad, show_progress="hidden", api_name=False)


def answer_with(
    function: Callable[..., Iterator[tuple]],
    triggers: Sequence[Callable],
    question: Sequence[gr.components.Component],
    answer: Sequence[gr.components.Component],
    name: str,
    stop: tuple[gr.Button, Jobs],
    then: str = "() => {}",
    waiting: Sequence[gr.components.Component] = (),
) -> None:
    """
    Answers questions one at a time, then scrolls to the element `NAME-answer`.

    Args:
        function: yields values of `answer` from those of `question`.
        triggers: events that ask.
        question: what is asked.
        answer: where answers go.
        name: of the endpoint for programs.
        stop: a button that ends it, and the jobs that it belongs to.
        then: a function in JavaScript that is called at the end.
        waiting: where progress and the place in the queue are shown, if they are visible; none: the first of `answer`.
    """
    show = SHOW.format(f"{name}-answer")
    event = gr.on(
        list(triggers),
        function,
        list(question),
        list(answer),
        show_progress_on=list(waiting) or [answer[0]],
        concurrency_id="model",
        api_name=name,
    )
    stop_with(*stop, event)
    event.success(js=f"() => {{ ({show})(); ({then})(); }}", show_progress="hidden", api_name=False)
