"""What the leaderboard makes of what models publish: figures, checks against benchmarks, refusals, tables, plots."""

from __future__ import annotations

import re

import pytest
import yaml

ORG = "org"
BENCHMARKS = ("grid-noise", "grid-two-talkers", "scene-questions")
CARD = "---\nlicense: mit\ntags: [audio-visual-speech-recognition]\n---\n# A model\n"
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\n- dataset: *b\n"
SCRIPT = "<script>alert(1)</script>"


def entry(task: str = "clean_audio", value=4.0, dataset: str = "org/grid-noise", **more) -> dict:
    revision = more.pop("revision", None)
    about = {"id": dataset, "task_id": task} | ({"revision": revision} if revision else {})
    return {"dataset": about, "value": value, **more}


def publish_model(hub, name: str, entries, card: str = CARD, file: str = ".eval_results/grid-noise.yaml") -> None:
    """A model's repository as its author left it; `entries` are written as YAML unless they are text."""
    from loopback_hub import Repository

    text = entries if isinstance(entries, str | bytes) else yaml.safe_dump(entries)
    repository = hub.repositories.setdefault(("model", name), Repository({}))
    repository.commit({"README.md": card.encode(), file: text if isinstance(text, bytes) else text.encode()})


@pytest.fixture
def benchmark(hub, repository):
    """The Hub with the benchmark `grid-noise` alone; `benchmark(files)` changes some of its files: the new commit."""
    from loopback_hub import Repository

    hub.repositories.clear()
    folder = repository / "evaluation" / "dataset_cards" / "grid-noise"
    there = Repository({})
    there.commit({path.name: path.read_bytes() for path in folder.iterdir()})
    hub.repositories["dataset", "org/grid-noise"] = there
    return lambda **files: there.commit(there.files | {f"{name}": text for name, text in files.items()})


@pytest.fixture
def gathered(hub, board_module):
    """`gathered(**bounds)`: what the leaderboard finds on the Hub."""
    gathering, files = board_module("gathering"), board_module("hub_files")
    return lambda **bounds: gathering.gather(files.HubFiles(hub.url, files.Bounds(**bounds)), ORG)


def head(hub) -> str:
    return hub.repositories["dataset", "org/grid-noise"].head


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_task_of_a_benchmark_is_a_column_and_is_shown(repository, board_module, name):
    boards = board_module("boards")
    (board,) = (board for board in boards.BOARDS if board.key == name)
    tasks = yaml.safe_load((repository / "evaluation" / "dataset_cards" / name / "eval.yaml").read_text())["tasks"]
    assert {task["id"] for task in tasks} == {column.task for column in board.columns}
    views = [view for views in boards.TABS.values() for view in views if view.board is board]
    assert {task for view in views for task in view.tasks} == {task["id"] for task in tasks}
    for view in views:
        drawn = {task for panel in view.panels for _, task in panel.points}
        assert len(view.columns) == len(view.tasks) and drawn <= set(view.tasks)


@pytest.mark.parametrize(
    ("checkpoint", "counts"),
    [("avsr-grid-tiny", {"grid-noise": 11, "grid-two-talkers": 21}), ("glee-tiny", {"scenes": 11, "videos": 6})],
)
def test_the_cards_that_are_published_are_understood(repository, board_module, checkpoint, counts):
    """The names that `lookhear publish` writes into a card's model-index are those that the columns know."""
    from lookhear.evaluation.model_results import model_index, read_results

    index = model_index(checkpoint, read_results(repository / "model_cards" / checkpoint))
    found: dict[str, set] = {}
    for board, column, value in board_module("gathering")._card_figures(index):
        assert board_module("gathering").plain_number(value, board) is not None
        found.setdefault(board.key, set()).add(column.task)
    assert {key: len(tasks) for key, tasks in found.items()} == counts


def test_figures_are_checked_against_the_commit_that_they_name(hub, benchmark, gathered):
    first = head(hub)
    publish_model(hub, "a/before", [entry(revision=first)])
    publish_model(hub, "a/unstated", [entry()])
    publish_model(hub, "a/never", [entry(revision="f" * 40)])
    publish_model(hub, "a/branch", [entry(revision="main")])
    benchmark(**{"README.md": b"a better text"})
    publish_model(hub, "a/now", [entry(revision=head(hub))])
    versions = {model: result.version for (model, _, _), result in gathered().results.items()}
    assert versions == {
        "a/before": "this version",  # only the card has changed
        "a/now": "this version",
        "a/unstated": "version not stated",
        "a/branch": "version not stated",
    }
    benchmark(**{"test.json": b"{}"})
    snapshot = gathered()
    versions = {model: result.version for (model, _, _), result in snapshot.results.items()}
    assert versions["a/before"] == versions["a/now"] == "an earlier version"
    assert snapshot.revisions == {"grid-noise": head(hub)}
    assert ("a/never", ".eval_results/grid-noise.yaml: an entry names a commit that the benchmark does not have.") in (
        snapshot.problems
    )


def test_a_figure_has_its_interval_date_and_source(hub, benchmark, gathered):
    source = f"{hub.url}/a/b/blob/main/results.json"
    good = entry(notes="WER % (95 %), interval 2.3 to 6.0", date="2026-11-22", source={"url": source})
    away = entry("clean_visual", notes="interval 5.0 to 6.0", date="2999-01-01", source={"url": "https://elsewhere/"})
    publish_model(hub, "a/b", [good, away])
    results = {task: result for (_, _, task), result in gathered().results.items()}
    assert results["clean_audio"].interval == (2.3, 6.0) and results["clean_audio"].date == "2026-11-22"
    assert results["clean_audio"].source == source
    # 4.0 is not between 5 and 6; the day is yet to come; the address is not the Hub's
    assert results["clean_visual"].interval is None and results["clean_visual"].date == ""
    assert results["clean_visual"].source == ""


def test_a_checked_figure_comes_before_another_and_the_newer_before_the_older(hub, benchmark, gathered):
    older = entry(value=1.0, date="2026-01-01", revision=head(hub))
    newer = entry(value=2.0, date="2026-02-01", revision=head(hub))
    unstated = entry(value=3.0, date="2026-03-01")
    index = [
        {"type": "wer", "name": "wer, clean, audio", "value": 9.0},
        {"type": "wer", "name": "wer, clean, visual", "value": 8},
    ]
    data = {"task": {"type": "t"}, "dataset": {"type": "grid-noise", "name": "GRID"}, "metrics": index}
    card = yaml.safe_dump({"tags": ["object-perception"], "model-index": [{"name": "m", "results": [data]}]})
    publish_model(hub, "a/b", [unstated, newer, older], f"---\n{card}---\n")
    results = {task: (result.value, result.version) for (_, _, task), result in gathered().results.items()}
    assert results == {"clean_audio": (2.0, "this version"), "clean_visual": (8.0, "from the card")}


HOSTILE = {
    "no YAML": ("a: [", "is not YAML"),
    "aliases": (BOMB, "has YAML aliases"),
    "depth": ("[" * 60 + "]" * 60, "nested too deeply"),
    "size": ("# " + "x" * 70_000, "larger than 64 kilobytes"),
    "bytes": (b"- \xff\xfe", "not text in UTF-8"),
    "a text": ("only words", None),
    "lists": ([[1, [2]], "x", None, 3], None),
    "no dataset": ([{"value": 3}], "names no dataset"),
    "dataset is a list": ([{"dataset": [1], "value": 3}], "names no dataset"),
    "no value": ([{"dataset": {"id": "org/grid-noise", "task_id": "clean_audio"}}], "no dataset, task or value"),
    "unknown task": ([entry("clean_smell")], "unknown task clean_smell"),
    "task of HTML": ([entry(SCRIPT)], "unknown task (unreadable)"),
    "task is a mapping": ([entry({"a": 1})], "unknown task (unreadable)"),
    "a truth": ([entry(value=True)], "no plain number"),
    "a text as number": ([entry(value="4.0")], "no plain number"),
    "not a number": ([entry(value=float("nan"))], "no plain number"),
    "endless": ([entry(value=float("inf"))], "no plain number"),
    "below nothing": ([entry(value=-1.0)], "no plain number"),
    "beyond belief": ([entry(value=1e9)], "no plain number"),
    "huge": (f"- dataset: {{id: org/grid-noise, task_id: clean_audio}}\n  value: {'9' * 5000}\n", "not YAML"),
    "a source without address": ([entry(source={"name": "x"})], "no dataset, task or value"),
    "a source of text": ([entry(source="x")], "no dataset, task or value"),
    "an error": ([{"error": SCRIPT, **entry()}], None),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_one_bad_repository_hides_no_other(hub, benchmark, gathered, board_module, kind):
    content, message = HOSTILE[kind]
    publish_model(hub, "good/reader", [entry(value=7.0)])
    publish_model(hub, "bad/reader", content)
    snapshot = gathered()
    assert [(key, result.value) for key, result in snapshot.results.items()] == [
        (("good/reader", "grid-noise", "clean_audio"), 7.0)
    ]
    problems = {repo: text for repo, text in snapshot.problems if repo.endswith("reader")}
    assert (message is None and set(problems) <= {"bad/reader"}) or message in problems["bad/reader"]
    page = everything(board_module, snapshot)
    assert "<script" not in page and "reader</a>" in page


@pytest.mark.parametrize(
    "card",
    [
        "no metadata",
        "---\ntags: [audio-visual-speech-recognition]\nlicense: <script>alert(1)</script>\n---\n",
        "---\ntags: [audio-visual-speech-recognition]\nlicense: [mit]\n"
        "model-index: [1, {results: [2, {dataset: 3}]}]\n---\n",
        "---\ntags: [audio-visual-speech-recognition]\nmodel-index: {a: b}\n---\n",
        "---\ntags: [audio-visual-speech-recognition]\nmodel-index: [{results: [{dataset: {type: coco}, metrics: "
        "[{name: box_AP, value: <b>}, {name: [1], value: 1}, 5]}]}]\n---\n",
    ],
)
def test_a_strange_card_hides_neither_its_files_nor_others(hub, benchmark, gathered, board_module, card):
    publish_model(hub, "good/reader", [entry(value=7.0)])
    publish_model(hub, "bad/reader", [entry(value=8.0)], card)
    snapshot = gathered()
    tagged = "audio" in card
    assert {key[0]: result.value for key, result in snapshot.results.items()} == (
        {"good/reader": 7.0} | ({"bad/reader": 8.0} if tagged else {})
    )
    assert "<script" not in everything(board_module, snapshot)


def everything(board_module, snapshot) -> str:
    """The HTML of all views."""
    showing, boards = board_module("showing"), board_module("boards")
    views = [view for views in boards.TABS.values() for view in views]
    parts = [showing.table(view, snapshot, "https://hub") + showing.plots(view, snapshot) for view in views]
    return "".join([*parts, showing.problems(snapshot), showing.state(snapshot)])


def test_how_much_is_read_is_bounded(hub, benchmark, gathered):
    for number in range(6):
        publish_model(hub, f"many/model-{number}", [entry()])
        publish_model(hub, f"owner-{number}/model", [entry()])
    assert len(gathered(models_of_one=2).models) == 2 + 6
    assert len(gathered(models=5).models) == 5
    hub.calls.clear()
    files = hub.repositories["model", "owner-0/model"].files
    more = {f".eval_results/{number:02}.yaml": b"[]" for number in range(40)}
    hub.repositories["model", "owner-0/model"].commit(files | more)
    gathered(files=3)
    assert len([call for call in hub.calls if "owner-0" in call and ".eval_results" in call]) == 3


def test_a_card_longer_than_its_bound_is_read_at_its_beginning(hub, benchmark, gathered):
    publish_model(hub, "a/long", [entry()], CARD + "x" * 300_000)
    publish_model(hub, "a/endless", [entry()], f"---\ntags: [object-perception]\nx: {'y' * 80_000}\n---\n")
    snapshot = gathered()
    assert snapshot.models == {"a/long": "mit", "a/endless": ""} and len(snapshot.results) == 2
    assert [repo for repo, text in snapshot.problems if "metadata of more than 64" in text] == ["a/endless"]


def test_benchmarks_of_others_and_missing_ones_are_left_out(hub, benchmark, gathered):
    publish_model(
        hub, "a/b", [entry(dataset="other/grid-noise"), entry(dataset="org/scene-questions", task="own_all")]
    )
    snapshot = gathered()
    assert not snapshot.results and "a/b" in snapshot.models
    assert ("org/scene-questions", "The benchmark cannot be read: it is not on the Hub.") in snapshot.problems


def test_a_hub_that_does_not_answer_leaves_the_last_snapshot(hub, benchmark, board_module, monkeypatch):
    newest, files = board_module("newest"), board_module("hub_files")
    publish_model(hub, "a/b", [entry()])
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    boards = newest.Boards(files.HubFiles(hub.url), ORG)
    hub.breaks = lambda call: True
    assert boards.current().error
    hub.breaks = None
    assert boards.current().error  # not asked again at once
    monkeypatch.setattr(newest, "LEAST", 0.0)
    good = boards.current()
    assert good.models == {"a/b": "mit"} and boards.current() is good
    hub.breaks = lambda call: True
    assert boards.current(oldest=0.0) is good
    hub.breaks = None
    assert boards.current(oldest=0.0) is not good


@pytest.fixture
def snapshot(board_module):
    """Three models, of which one has not been measured in noise."""
    gathering = board_module("gathering")
    made = gathering.Snapshot(gathering.datetime.datetime(2026, 11, 22, tzinfo=gathering.datetime.UTC))
    for model, values in {"a/One": (4.0, 20.0), "b/two": (3.0, 10.0), "c/quiet": (1.0, None)}.items():
        made.models[model] = "mit" if model != "c/quiet" else ""
        for task, value in zip(("clean_audio", "babble_5_audio"), values, strict=True):
            if value is not None:
                interval = (value - 1, value + 1) if model == "a/One" else None
                made.add(gathering.Result(model, "grid-noise", task, value, interval, "2026-11-22", "this version"))
    return made


def view(board_module, tab: str, label: str):
    return next(view for view in board_module("boards").TABS[tab] if view.label == label)


def test_a_table_shows_the_best_first_and_marks_it(board_module, snapshot):
    text = board_module("showing").table(view(board_module, "Noise", "Sound"), snapshot, "https://hub")
    rows = re.findall(r"<tr>(<th scope=\"row\".*?)</tr>", text)
    assert [re.search(r'href="https://hub/([^"]+)"', row)[1] for row in rows] == ["b/two", "a/One", "c/quiet"]
    assert re.findall(r"<strong>(.*?)</strong>", text) == ["10.0", "1.0"]
    assert "<small>3.0\u20135.0</small>" in rows[1] and "a \u00b7 mit \u00b7 2026-11-22" in rows[1]
    assert "c \u00b7 no licence stated" in rows[2] and rows[2].count('data-value=""') == 4
    assert "In quiet" in text and text.count("<button") == 1 + 5 + 1


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.0"), (0.975, "0.975"), (0.5, "0.5"), (4.0, "4.0"), (47.04, "47.0"), (0.0001, "0.0")]
)
def test_figures(board_module, value, text):
    assert board_module("showing").figure(value) == text


def test_a_plot_is_drawn_to_scale(board_module, snapshot):
    showing = board_module("showing")
    text = showing.plots(view(board_module, "Noise", "Sound"), snapshot, ["a/One", "z/unknown"])
    # the highest interval ends at 21, so the scale at 40; the plot is 300 - 28 - 44 = 228 pixels high, from 28
    circles = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', text)]
    assert [y for _, y in circles] == [pytest.approx(28 + 228 * (1 - value / 40), abs=0.06) for value in (4, 20)]
    assert [x for x, _ in circles] == [pytest.approx(46 + 400 * (place + 0.5) / 4, abs=0.06) for place in (0, 1)]
    bars = re.findall(r'stroke-width="1.5" x1="[\d.]+" x2="[\d.]+" y1="([\d.]+)" y2="([\d.]+)"', text)
    assert [float(y) for y in bars[0]] == [pytest.approx(28 + 228 * (1 - v / 40), abs=0.06) for v in (3, 5)]
    assert "<title>a/One, 5: 20.0 (19.0 to 21.0)</title>" in text and text.count("<svg") == 1
    assert "z/unknown" not in text
    assert showing.plots(view(board_module, "Noise", "Lips"), snapshot) == ""


def test_no_results_are_said_in_words(board_module):
    gathering, showing = board_module("gathering"), board_module("showing")
    empty = gathering.Snapshot(gathering.datetime.datetime.now(gathering.datetime.UTC))
    text = everything(board_module, empty)
    assert "No model has published figures" in text and "<table" not in text and "<svg" not in text
    empty.error = "the Hub answers 503"
    assert "The Hub was not read: the Hub answers 503." in showing.state(empty)


def test_the_space_is_ready_and_takes_nothing_of_lookhear_along(repository):
    from lookhear.publishing import gather

    folder = repository / "spaces" / "leaderboard"
    publication = gather(folder, "org/leaderboard")
    paths = {file.path for file in publication.files}
    assert paths == {path.name for path in folder.iterdir() if path.is_file()}
    assert all("lookhear" not in line for line in (folder / "requirements.txt").read_text().splitlines())
