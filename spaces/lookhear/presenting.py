"""Results as small pieces of HTML. Whatever comes from a user or a model is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MODALITIES = {"audio": "sound", "visual": "lips", "audiovisual": "sound and lips"}


def remark(text: str) -> str:
    """Formats a line in small print."""
    return f'<p class="quiet">{html.escape(text)}</p>'


def said(result: Mapping[str, Any]) -> str:
    """Formats the text, large, with its confidence; for several people a line each."""
    text = html.escape(str(result["text"])).replace("\n", "<br>")
    if not text:
        return '<p class="said quiet">(nothing was said)</p>'
    return f'<p class="said">{text}</p><p class="quiet">{_percent(result["confidence"])} sure</p>'


def strips(people: Sequence[tuple[str, str]]) -> str:
    """
    Makes one picture of each person's mouths.

    Args:
        people: name ("" for the only one) and address of the picture.
    """
    figures = []
    for name, source in people:
        caption = f"<figcaption>{html.escape(name)}</figcaption>" if name else ""
        alt = html.escape(f"Mouths of {name}" if name else "Mouths")
        figures.append(f'<figure>{caption}<img src="{html.escape(source)}" alt="{alt}"></figure>')
    return "".join(figures)


def words_table(chunks: Sequence[Mapping[str, Any]]) -> str:
    """
    Formats each word with its times in seconds and its confidence as number and bar; for several people also who says
    it.
    """
    if not chunks:
        return remark("Nothing was read.")
    several = any("speaker" in chunk for chunk in chunks)
    rows = []
    for chunk in chunks:
        row = [html.escape(str(chunk["text"])), *(f"{time:.2f} s" for time in chunk["timestamp"])]
        rows.append([*row, _bar(chunk["confidence"]), *([html.escape(str(chunk.get("speaker")))] if several else [])])
    return _table(("Word", "From", "To", "Sure", *(["Who"] if several else [])), rows, "words")


def reports(result: Mapping[str, Any]) -> str:
    """Formats the report on a clip; for several people one each."""
    if "speakers" not in result:
        return report(result["report"])
    return "".join(f"<h4>{html.escape(str(one['speaker']))}</h4>{report(one['report'])}" for one in result["speakers"])


def report(facts: Mapping[str, Any]) -> str:
    """Formats what was measured on a clip: warnings first, then numbers."""
    warnings = "".join(f"<li>{html.escape(str(warning))}</li>" for warning in facts.get("warnings") or ())
    rows = [(name, html.escape(value)) for name, value in _facts(facts)]
    return (f'<ul class="warnings">{warnings}</ul>' if warnings else "") + _table(None, rows, "facts") + _who(facts)


def objects_table(objects: Sequence[Mapping[str, Any]]) -> str:
    """Formats what was found in a picture."""
    if not objects:
        return remark("Nothing was found.")
    rows = []
    for found in objects:
        box = ", ".join(f"{side:.0f}" for side in found["box"].values())
        area = f"{int(found['mask'].sum()):,}".replace(",", "\u202f")
        rows.append((_wrapped(found["label"]), _bar(found["score"]), _wrapped(box), area))
    return _table(("What", "Sure", _wrapped("Box (x0, y0, x1, y1)"), "Pixels"), rows, "found")


def not_found(names: Sequence[str]) -> str:
    """Formats what was not found."""
    return remark(f"Not found: {', '.join(names)}.") if names else ""


def tracks_table(tracks: Iterable[Mapping[str, Any]]) -> str:
    """Formats what was tracked through a video."""
    rows = [
        (
            str(track["track_id"]),
            _wrapped(track["label"]),
            _bar(track["score"]),
            str(track["frames"]),
            f"{track['first']:.2f} s",
            f"{track['last']:.2f} s",
        )
        for track in tracks
    ]
    if not rows:
        return remark("Nothing was found.")
    return _table(("Track", "What", "Sure", "Frames", "From", "To"), rows, "found")


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Yields name and value of each fact that is known."""

    def fact(key: str, name: str, shape: str, factor: float = 1.0) -> list[tuple[str, str]]:
        value = facts.get(key)
        return [] if value is None else [(name, shape.format(factor * value))]

    modality = facts.get("modality")
    rate = facts.get("fps_in")
    lips = facts.get("frames") and modality != "audio"
    return [
        *([("Read from", MODALITIES.get(str(modality), str(modality)))] if modality else []),
        *fact("duration", "Length", "{:.2f} s"),
        *(fact("frames_with_face", "Frames with the face", "{:.0f} %", 100) if lips else []),
        *(fact("faces_max", "Faces in view, at most", "{:.0f}") if lips else []),
        *fact("face_size", "Width of the face", "{:.0f} pixels"),
        *fact("yaw", "Turn of the head", "{:.0f}\u00b0"),
        *fact("lip_opening", "Lips open, typically", "{:.0f} % of a mouth's width", 100),
        *fact("lip_motion", "Lips move", "{:.2f} mouth widths a second"),
        *fact("mouth_outside", "Mouth cut by the edge", "{:.0f} % of the frames", 100),
        *fact("blur", "Sharpness of the mouth", "{:.0f} (below 15 is blurred)"),
        *fact("brightness", "Brightness of the mouth", "{:.0f} of 255"),
        *([("Frame rate", f"{rate:.4g} a second, read at {facts.get('fps_out', 25):.4g}")] if rate else []),
        *(fact("cuts", "Changes of scene", "{:.0f}") if lips else []),
        *fact("audio_level_dbfs", "Level of the sound", "{:.0f} dBFS"),
    ]


def _who(facts: Mapping[str, Any]) -> str:
    """Formats how surely the chosen speaker was followed, one cell per second."""
    speaker = facts.get("speaker")
    if not isinstance(speaker, Mapping):
        return ""
    cells = "".join(
        f'<li style="--share: {second["sure"]:.2f}" '
        f'title="second {second["second"]}: {_percent(second["sure"])} sure, '
        f'face in {_percent(second["face"])} of the frames"></li>'
        for second in speaker["seconds"]
    )
    text = f"Followed: seen in {_percent(speaker['located'])} of the frames, face in {_percent(speaker['followed'])}."
    return f'<p class="followed">{text}</p><ol class="seconds" aria-label="How surely, second by second">{cells}</ol>'


def _wrapped(text: object) -> str:
    """Formats a text that may take several lines of a narrow table."""
    return f'<span class="wraps">{html.escape(str(text))}</span>'


def _bar(share: float) -> str:
    share = min(max(float(share), 0.0), 1.0)
    return f'<span class="bar" style="--share: {share:.3f}"></span> {share:.2f}'


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _table(head: Sequence[str] | None, rows: Iterable[Sequence[str]], kind: str) -> str:
    """Formats a table; `rows` are HTML already, and without a head the first cell of a row is its name."""
    lines = []
    for cells in rows:
        begin = f"<td>{cells[0]}</td>" if head else f'<th scope="row">{cells[0]}</th>'
        lines.append("<tr>" + begin + "".join(f"<td>{cell}</td>" for cell in cells[1:]) + "</tr>")
    top = "<thead><tr>" + "".join(f'<th scope="col">{name}</th>' for name in head) + "</tr></thead>" if head else ""
    return f'<div class="scrolls"><table class="{kind}">{top}<tbody>{"".join(lines)}</tbody></table></div>'
