"""Tables and plots as HTML. Whatever comes from a model's repository is escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from boards import Column, Panel, View
from gathering import ORDER, Result, Snapshot

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by colour-blind readers, too
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 300, 46, 14, 28, 44  # of a plot, and its margins
Rows = Mapping[str, Mapping[str, Result]]


def ranking(view: View, rows: Rows) -> list[str]:
    """Orders models: those with all figures of the view first, then by the mean of their figures, best first."""

    def key(model: str) -> tuple[int, float, str]:
        there = [column for column in view.columns if column.task in rows[model]]
        signed = [(1 if column.best == "low" else -1) * rows[model][column.task].value for column in there]
        return len(view.columns) - len(there), sum(signed) / max(len(signed), 1), model.lower()

    shown = (model for model, figures in rows.items() if any(column.task in figures for column in view.columns))
    return sorted(shown, key=key)


def table(view: View, snapshot: Snapshot, endpoint: str) -> str:
    """Formats a view's table; the script beside the page sorts it by the heading that is pressed."""
    rows = snapshot.of(view.board.key)
    models = ranking(view, rows)
    if not models:
        return '<p class="empty">No model has published figures for this yet.</p>'
    columns = view.columns
    best = {column.task: _best(column, [rows[model] for model in models]) for column in columns}
    lines = []
    for model in models:
        figures = rows[model]
        cells = [_figure(figures.get(column.task), best[column.task], endpoint) for column in columns]
        lines.append(f"<tr>{_model(model, snapshot, figures, endpoint)}{''.join(cells)}{_checked(view, figures)}</tr>")
    unit = f"{html.escape(view.board.title)}: {html.escape(view.unit or view.board.unit)}"
    if any(result.interval for figures in rows.values() for result in figures.values()):
        unit += ", below it the 95 % interval"
    label = html.escape(f"{view.board.title}, {view.label}")
    return (
        f'<p class="quiet">{unit}. Press a heading to sort.</p>'
        f'<div class="scrolls" tabindex="0" role="region" aria-label="{label}">'
        f'<table class="board" aria-label="{label}">'
        f"{_head(columns)}<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _head(columns: Sequence[Column]) -> str:
    """Formats the headings: groups above, below them a button for each column."""
    groups: list[tuple[str, int]] = []
    for column in columns:
        if groups and groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    above = ""
    if any(name for name, _ in groups):
        cells = "".join(f'<th scope="colgroup" colspan="{width}">{html.escape(name)}</th>' for name, width in groups)
        above = f'<tr class="groups"><td></td>{cells}<td></td></tr>'
    titles = [("Model", "text"), *((column.title, "number") for column in columns), ("Measured on", "text")]
    buttons = "".join(
        f'<th scope="col" class="{kind}"><button type="button">{html.escape(title)}</button></th>'
        for title, kind in titles
    )
    return f'<thead>{above}<tr class="titles">{buttons}</tr></thead>'


def _best(column: Column, rows: Sequence[Mapping[str, Result]]) -> float | None:
    values = [figures[column.task].value for figures in rows if column.task in figures]
    if not column.best or len(values) < 2:
        return None
    return min(values) if column.best == "low" else max(values)


def _model(model: str, snapshot: Snapshot, figures: Mapping[str, Result], endpoint: str) -> str:
    """Formats the cell of a model: its name as a link, its owner, its licence, when it was measured."""
    owner, _, name = model.partition("/")
    date = max((result.date for result in figures.values()), default="")
    licence = snapshot.models.get(model) or "no licence stated"
    small = " \u00b7 ".join([owner, licence, *([date] if date else [])])
    link = f'<a href="{html.escape(f"{endpoint}/{model}")}" target="_blank" rel="noopener nofollow ugc">'
    text = f"{link}{html.escape(name)}</a><small>{html.escape(small)}</small>"
    return f'<th scope="row" data-value="{html.escape(model.lower())}">{text}</th>'


def _figure(result: Result | None, best: float | None, endpoint: str) -> str:
    """Formats the cell of a figure, with its interval, and a link to its source on the Hub."""
    if result is None:
        return '<td class="number" data-value=""><span class="none" aria-label="not measured">\u2013</span></td>'
    value = figure(result.value)
    if result.source:
        source = html.escape(result.source)
        value = f'<a href="{source}" target="_blank" rel="noopener nofollow ugc">{value}</a>'
    if best is not None and result.value == best:
        value = f"<strong>{value}</strong>"
    interval = ""
    if result.interval is not None:
        interval = f"<small>{figure(result.interval[0])}\u2013{figure(result.interval[1])}</small>"
    return f'<td class="number" data-value="{result.value!r}">{value}{interval}</td>'


def _checked(view: View, figures: Mapping[str, Result]) -> str:
    """Formats the cell that says which version of the benchmark was measured on: the least certain of the row."""
    versions = [figures[column.task].version for column in view.columns if column.task in figures]
    version = max(versions, key=ORDER.index)
    return f'<td class="version" data-value="{ORDER.index(version)}"><small>{html.escape(version)}</small></td>'


def figure(value: float) -> str:
    """Formats a number: one digit behind the point, three below one that is a share."""
    if 0 < value < 1 and round(value, 1) != value:
        return f"{value:.3f}".rstrip("0").rstrip(".") if round(value, 3) else "0.0"
    return f"{value:.1f}"


def plots(view: View, snapshot: Snapshot, chosen: Sequence[str] = ()) -> str:
    """
    Draws word error rates over signal-to-noise ratios, a panel beside another, models by colour.

    Args:
        view: whose panels are drawn.
        snapshot: with the figures.
        chosen: models; the first ones of the table where there are none.
    """
    rows = snapshot.of(view.board.key)
    models = [model for model in chosen if model in rows][: len(COLOURS)] or ranking(view, rows)[: len(COLOURS)]
    if not models or not view.panels:
        return ""
    tasks = [task for panel in view.panels for _, task in panel.points]
    found = [rows[model][task] for model in models for task in tasks if task in rows[model]]
    if not found:
        return ""
    top = _nice(max(result.interval[1] if result.interval else result.value for result in found))
    panels = "".join(_panel(panel, models, rows, top, view.unit or view.board.unit) for panel in view.panels)
    legend = "".join(
        f'<li><span style="background: {colour}"></span>{html.escape(model)}</li>'
        for model, colour in zip(models, COLOURS, strict=False)
    )
    return f'<div class="plots">{panels}</div><ul class="legend">{legend}</ul>'


def _panel(panel: Panel, models: Sequence[str], rows: Rows, top: float, unit: str) -> str:
    """Draws one panel; bars are the intervals, and a point's title says its figures."""
    across = WIDTH - LEFT - RIGHT
    step = across / len(panel.points)
    parts = [_text(panel.title, LEFT, 16, "start", "name"), *_grid(top)]
    parts += [
        _text(ratio, LEFT + (place + 0.5) * step, HEIGHT - BOTTOM + 18)
        for place, (ratio, _) in enumerate(panel.points)
    ]
    parts.append(_text("signal-to-noise ratio, dB", LEFT + across / 2, HEIGHT - 8))
    for number, (model, colour) in enumerate(zip(models, COLOURS, strict=False)):
        shift = (number - (len(models) - 1) / 2) * 7  # beside each other, so that intervals can be seen
        points = [
            (LEFT + (place + 0.5) * step + shift, ratio, rows[model][task])
            for place, (ratio, task) in enumerate(panel.points)
            if task in rows[model]
        ]
        line = " ".join(f"{x:.1f},{_height(result.value, top):.1f}" for x, _, result in points)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{line}"/>')
        parts += [_point(f"{model}, {ratio}", x, result, top, colour) for x, ratio, result in points]
    label = html.escape(f"{panel.title}: {unit}, over the signal-to-noise ratio")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _grid(top: float) -> list[str]:
    """Draws horizontal lines at quarters of the scale, with their figures."""
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _height(share * top, top)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(f"{share * top:g}", LEFT - 6, y + 4, "end"))
    return parts


def _point(name: str, x: float, result: Result, top: float, colour: str) -> str:
    """Draws a figure as a dot, and its interval as a bar."""
    text, interval = f"{name}: {figure(result.value)}", ""
    if result.interval is not None:
        text += f" ({figure(result.interval[0])} to {figure(result.interval[1])})"
        low, high = (_height(end, top) for end in result.interval)
        place = f'x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"'
        interval = f'<line stroke="{colour}" stroke-width="1.5" {place}/>'
    dot = f'<circle fill="{colour}" r="4" cx="{x:.1f}" cy="{_height(result.value, top):.1f}"/>'
    return f"<g><title>{html.escape(text)}</title>{interval}{dot}</g>"


def _height(value: float, top: float) -> float:
    """Returns the place of a figure in pixels from above."""
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(value, top) / top)


def _text(text: str, x: float, y: float, anchor: str = "middle", kind: str = "tick") -> str:
    return f'<text class="{kind}" text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


def _nice(value: float) -> float:
    """Returns the smallest round number that is not below a value."""
    steps = (1, 2, 4, 8, 12, 20, 40, 60, 80, 100, 120, 160, 200, 400, 600, 1000)
    return float(next((step for step in steps if step >= value), 1000))


def problems(snapshot: Snapshot) -> str:
    """Formats the list of what is not shown, and why."""
    if not snapshot.problems:
        return '<p class="quiet">Everything that was found is shown.</p>'
    lines = (f"<li><b>{html.escape(repo)}</b> {html.escape(text)}</li>" for repo, text in snapshot.problems)
    return f'<ul class="problems">{"".join(lines)}</ul>'


def state(snapshot: Snapshot) -> str:
    """Formats a line on when the Hub was read, and how much was found."""
    if snapshot.error:
        return f'<p class="warning">The Hub was not read: {html.escape(snapshot.error)}. Try again in a minute.</p>'
    with_results = len({model for model, _, _ in snapshot.results})
    models = (
        f"{with_results} of {len(snapshot.models)} tagged models have figures" if snapshot.models else "No model yet"
    )
    when = snapshot.taken.strftime("%Y-%m-%d %H:%M UTC")
    return f'<p class="quiet">{models}. The Hub was read on {when}.</p>'
