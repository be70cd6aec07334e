"""The leaderboard in a browser: published to a Hub on this machine, which it reads, on a laptop and on a phone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # the first test waits for the server, too

RIVAL = {"clean_audio": 9.0, "babble_5_audio": 12.0, "babble_0_audio": 15.0, "babble_minus_5_audio": 30.0}
NOISE, TALKERS, OBJECTS, QUESTIONS, SUBMIT = (f"button[role=tab]:nth-of-type({number})" for number in range(1, 6))
CARD = "---\nlicense: mit\ntags: [audio-visual-speech-recognition]\n---\n"
TABLE = "#noise-table"


@pytest.fixture(scope="module")
def filled_hub(hub, repository):
    """A Hub with what this project publishes, a rival, a stranger's broken files, and the leaderboard itself."""
    from loopback_hub import TOKEN, Repository

    from lookhear.publishing import gather, push

    benchmarks = ("evaluation/dataset_cards/grid-noise", "evaluation/dataset_cards/grid-two-talkers")
    for path in (*benchmarks, "model_cards/avsr-grid-tiny", "model_cards/glee-tiny", "spaces/leaderboard"):
        push(gather(repository / path, f"org/{Path(path).name}"), endpoint=hub.url, token=TOKEN)
    head = hub.repositories["dataset", "org/grid-noise"].head
    about = {"id": "org/grid-noise", "revision": head}
    rival = [
        {"dataset": {**about, "task_id": task}, "value": value, "notes": f"interval {value - 2} to {value + 2}"}
        for task, value in RIVAL.items()
    ]
    strange = [{"dataset": {**about, "task_id": "<img src=x onerror=alert(1)>"}, "value": 1.0}]
    for name, entries in (
        ("rival/reader", yaml.safe_dump(rival)),
        ("odd/one", yaml.safe_dump(strange)),
        ("bad/one", "["),
    ):
        there = hub.repositories["model", name] = Repository({})
        there.commit({"README.md": CARD.encode(), ".eval_results/a.yaml": entries.encode()})
    return hub


@pytest.fixture(scope="module")
def leaderboard(filled_hub, repository, tmp_path_factory, serve_space):
    """The Space, downloaded from the Hub and served."""
    pytest.importorskip("gradio", reason="needs Gradio: pip install 'lookhear[demo]'")
    folder = tmp_path_factory.mktemp("leaderboard")
    published = folder / "published"
    published.mkdir()
    for path, content in filled_hub.repositories["space", "org/leaderboard"].files.items():
        (published / path).write_bytes(content)
    settings = filled_hub.environment(folder / "home")
    settings = {name: value for name, value in settings.items() if name != "HF_TOKEN"} | {
        "SPACE_ID": "org/leaderboard"
    }
    with serve_space(published, folder, settings) as space:
        yield space


@pytest.fixture
def board(chromium, leaderboard):
    """The page, freshly opened, as large as on a laptop, with its first table."""
    chromium.as_laptop()
    chromium.open(leaderboard.url)
    chromium.text_of(TABLE, "avsr-grid-tiny")
    yield chromium
    assert "Traceback" not in leaderboard.log.read_text(errors="replace")


def models(page, table: str) -> list[str]:
    """The models of a table, from above."""
    script = "return [...document.querySelectorAll(arguments[0] + ' tbody th a')].map(link => link.innerText)"
    return page.run(script, table)


def look(page, name: str) -> None:
    """Writes a picture of the page into the folder that LOOKHEAR_SCREENSHOTS names, for those who look."""
    if folder := os.environ.get("LOOKHEAR_SCREENSHOTS"):
        page.screenshot(Path(folder) / f"leaderboard-{name}.png")


def measured(repository, card, table, *about):
    """The figure of a card's row, as its results.json has it."""
    results = json.loads((repository / "model_cards" / card / "results.json").read_text())["tables"][table]
    return next(row for row in results["rows"] if row[: len(about)] == list(about))[len(about)]


def test_published_figures_are_shown_with_their_intervals(board, repository):
    rows = {row[0].split("\n")[0]: row for row in board.rows(TABLE)}
    assert set(rows) == {"avsr-grid-tiny", "reader"}
    shown = [cell.split() for cell in rows["avsr-grid-tiny"][1:4]]  # in quiet: sound, lips, both
    modalities = ("audio", "visual", "audiovisual")
    ours = [measured(repository, "avsr-grid-tiny", "grid-noise", "", "clean", modality) for modality in modalities]
    assert shown == [cell.replace(" to ", "\u2013").replace("(", "").replace(")", "").split() for cell in ours]
    assert rows["avsr-grid-tiny"][-1] == "version not stated" and rows["reader"][-1] == "this version"
    assert rows["reader"][2] == "\u2013" and "mit" in rows["reader"][0] and "cc-by-4.0" in rows["avsr-grid-tiny"][0]
    link = board.run("return document.querySelector(arguments[0] + ' tbody th a').href", TABLE)
    assert link.endswith("/org/avsr-grid-tiny")
    look(board, "laptop")


def test_a_press_on_a_heading_sorts(board):
    assert models(board, TABLE) == ["avsr-grid-tiny", "reader"]
    heading = f"{TABLE} .titles th:nth-child(2)"
    board.click(f"{heading} button")
    assert models(board, TABLE) == ["avsr-grid-tiny", "reader"]
    board.click(f"{heading} button")
    assert models(board, TABLE) == ["reader", "avsr-grid-tiny"]
    assert board.run("return document.querySelector(arguments[0]).ariaSort", heading) == "descending"
    lips = f"{TABLE} .titles th:nth-child(3) button"
    for _ in range(2):  # whoever has no figure is last either way
        board.click(lips)
        assert models(board, TABLE) == ["avsr-grid-tiny", "reader"]


def test_rates_are_drawn_over_the_noise(board, repository):
    titles = "return [...document.querySelectorAll('#noise-plot title')].map(title => title.textContent)"
    shown = board.run(titles)
    ours = measured(repository, "avsr-grid-tiny", "grid-noise", "babble", "-5", "audiovisual")
    assert "rival/reader, 5: 12.0 (10.0 to 14.0)" in shown and f"org/avsr-grid-tiny, \u22125: {ours}" in shown
    board.click('#noise-view input[value="Sound"]')
    board.wait_for("return document.querySelectorAll('#noise-plot svg').length === 1")
    board.wait_for("return document.querySelectorAll(arguments[0] + ' .titles th').length === 7", TABLE)


def test_other_tabs_have_their_boards(board, repository):
    board.click(TALKERS)
    rows = board.wait_for("return document.querySelector('#talkers-table tbody tr')?.innerText")
    ours = measured(repository, "avsr-grid-tiny", "grid-two-talkers", "2", "5", "named")
    assert "avsr-grid-tiny" in rows and ours.split()[0] in rows
    board.click(OBJECTS)
    ours = measured(repository, "glee-tiny", "scenes", "label: 8 kinds and people", "box AP50")
    assert ours in board.text_of("#objects-table tbody", "glee-tiny")
    assert "from the card" in board.text("#objects-table tbody")
    board.click('#objects-view input[value="COCO"]')
    board.text_of("#objects-table", "No model has published figures")
    board.click(SUBMIT)
    text = board.text_of("#submit", "How a model gets here")
    assert "org/grid-noise" in text and "$" not in text
    look(board, "submit")


def test_what_strangers_publish_stays_text(board):
    assert board.run("return document.querySelectorAll('img[src=x]').length") == 0
    board.click("#what-is-missing button")
    text = board.text_of("#missing", "bad/one")
    assert ".eval_results/a.yaml: is not YAML." in text and "unknown task (unreadable)" in text
    assert "org/scene-questions" in text and "not on the Hub" in text
    look(board, "missing")


def test_the_page_fits_a_phone(board, leaderboard):
    board.as_phone()
    board.open(leaderboard.url)
    board.text_of(TABLE, "avsr-grid-tiny")
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert board.run(wide) <= 0
    inside = "const box = document.querySelector(arguments[0] + ' .scrolls'); return box.scrollWidth > box.clientWidth"
    assert board.run(inside, TABLE)  # the table scrolls by itself
    look(board, "phone")
    board.click(OBJECTS)
    board.text_of("#objects-table tbody", "glee-tiny")
    assert board.run(wide) <= 0
    look(board, "phone-objects")
    board.as_laptop()
