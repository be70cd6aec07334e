"""The leaderboard: what models on the Hub have published for LookHear's benchmarks, as tables and plots.

`python app.py` serves it; on the Hub the same file runs. `LOOKHEAR_BOARD_ORGANISATION` names the owner of the
benchmarks; on the Hub it is the owner of the Space.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio is imported: nothing is counted

import gradio as gr
from boards import TABS, View
from hub_files import Bounds, HubFiles
from newest import FRESH, LEAST, Boards
from showing import plots, problems, ranking, state, table

HERE = Path(__file__).parent
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]  # the reader's own: nothing is downloaded
MOST_DRAWN = 6
ABOUT = """
<header><h1>LookHear leaderboard</h1>
<p>Reading speech from sound and lips, finding what words mean in pictures: figures that models on the Hub have
published, checked against the benchmarks.</p></header>
"""


class BoardTab:
    """
    One tab: a view is chosen, its plot and its table follow.

    Args:
        name: of the tab.
        views: that can be chosen.
        boards: where the figures come from.
    """

    def __init__(self, name: str, views: tuple[View, ...], boards: Boards):
        self.views, self.boards = {view.label: view for view in views}, boards
        key = re.sub(r"\W+", "-", name.lower())
        self.drawn = any(view.panels for view in views)
        labels = list(self.views)
        self.choice = gr.Radio(labels, value=labels[0], show_label=False, container=False, elem_id=f"{key}-view")
        self.models = gr.Dropdown(
            [],
            multiselect=True,
            max_choices=MOST_DRAWN,
            label=f"Models in the plot, up to {MOST_DRAWN}",
            visible=self.drawn,
            elem_id=f"{key}-models",
        )
        self.plot = gr.HTML(apply_default_css=False, elem_id=f"{key}-plot", visible=self.drawn)
        self.table = gr.HTML(apply_default_css=False, elem_id=f"{key}-table")
        self.choice.change(self.show, [self.choice, self.models], [self.plot, self.table], show_progress="hidden")
        if self.drawn:
            self.models.input(self.draw, [self.choice, self.models], self.plot, show_progress="hidden")

    def show(self, label: str, models: list[str] | None) -> tuple[str, str]:
        """Returns the plot and the table of a view."""
        view, snapshot = self._view(label), self.boards.current()
        about = f'<p class="view-about">{view.about}</p>'
        return plots(view, snapshot, models or ()), about + table(view, snapshot, self.boards.hub.endpoint)

    def draw(self, label: str, models: list[str] | None) -> str:
        """Returns the plot of a view."""
        return plots(self._view(label), self.boards.current(), models or ())

    def choices(self) -> gr.Dropdown:
        """Returns the models that can be drawn, the best of the first view chosen."""
        view = next(iter(self.views.values()))
        found = ranking(view, self.boards.current().of(view.board.key))
        return gr.Dropdown(found, value=found[:MOST_DRAWN])

    def _view(self, label: str) -> View:
        return self.views.get(label) or next(iter(self.views.values()))


def build_app(boards: Boards) -> gr.Blocks:
    """Builds the page."""
    with gr.Blocks(title="LookHear leaderboard", analytics_enabled=False) as app:
        gr.HTML(ABOUT, apply_default_css=False, elem_id="about")
        with gr.Row(elem_id="read"):
            read = gr.HTML(apply_default_css=False, elem_id="state")
            again = gr.Button("Read the Hub again", size="sm", scale=0, min_width=180, elem_id="again")
        tabs = []
        with gr.Tabs():
            for name, views in TABS.items():
                with gr.Tab(name):
                    tabs.append(BoardTab(name, views, boards))
            with gr.Tab("Submit"):
                text = (HERE / "submitting.md").read_text(encoding="utf-8")
                text = text.replace("https://huggingface.co", boards.hub.endpoint)
                gr.Markdown(Template(text).safe_substitute(ORG=boards.organisation), elem_id="submit")
        with gr.Accordion("What is not shown, and why", open=False, elem_id="what-is-missing"):
            missing = gr.HTML(apply_default_css=False, elem_id="missing")

        def fill(oldest: float = FRESH) -> list:
            snapshot = boards.current(oldest)
            shown: list = [state(snapshot), problems(snapshot)]
            for tab in tabs:
                first = next(iter(tab.views))
                shown += [first, tab.choices(), *tab.show(first, None)]
            return shown

        outputs = [read, missing]
        for tab in tabs:
            outputs += [tab.choice, tab.models, tab.plot, tab.table]
        app.load(fill, None, outputs)
        again.click(lambda: fill(LEAST), None, outputs)
    return app.queue(max_size=64, default_concurrency_limit=8)


def theme() -> gr.themes.Base:
    """Returns Gradio's plain theme in blue, with fonts that every reader has."""
    mono = ["ui-monospace", "Consolas", "monospace"]
    return gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=mono)


def organisation(environment: Mapping[str, str] = os.environ) -> str:
    """
    Returns the owner of the benchmarks: as the environment names it, or the owner of this Space.

    Raises:
        ValueError: neither is there.
    """
    name = environment.get("LOOKHEAR_BOARD_ORGANISATION") or environment.get("SPACE_ID", "").partition("/")[0]
    if not re.fullmatch(r"[\w.-]{1,96}", name, re.ASCII):
        raise ValueError(
            f"LOOKHEAR_BOARD_ORGANISATION={name!r} is no owner on the Hub: set it to that of the benchmarks, as in "
            "LOOKHEAR_BOARD_ORGANISATION=ORG python app.py"
        )
    return name


def main() -> None:
    """Serves the page until it is stopped."""
    boards = Boards(HubFiles(bounds=Bounds()), organisation())
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "sorting.js"))
    build_app(boards).launch(
        theme=theme(),
        head=f"<style>{style}</style><script>{script}</script>",
        ssr_mode=False,
        footer_links=[],
        run_history=False,
    )


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        raise SystemExit(f"leaderboard: {error}") from None
