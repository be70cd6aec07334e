"""What is asked about the pictures of a batch, and the answers: labels, phrases as labels, sentences, visual prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lookhear.processing.glee.prompt_processing_glee import VISUAL_LABEL, clean_expression
from lookhear.training.glee.corpora.picture import Picture
from lookhear.training.glee.mixture.sampling import PROMPT_KINDS, draw, draw_prompt, sample_categories

Clip = list[Picture]  # frames of a video in the order of time, or one still


@dataclass(frozen=True)
class Query:
    """
    Pictures and one question about them.

    Attributes:
        pictures: stills, or the frames of clips, clip by clip.
        asked: what the processor takes beside images: `labels`, `expressions`, or `points`, `boxes`, `scribbles`, `masks`.
        rows: for each row of the model's answer its picture, the objects to be found in it, and their classes. Where
            there are clips, the frames of one stand in a row.
        sources: for each row the row whose visual prompt is looked for in it (the first frame's); None: its own.
    """

    pictures: list[Picture]
    asked: dict[str, Any]
    rows: list[tuple[int, list[int], list[int]]]
    sources: list[int] | None = None
    supervision: dict[str, Any] = field(default_factory=dict)


def ask_labels(
    clips: Sequence[Clip], random: np.random.Generator, vocabulary: Sequence[str] = (), most: int = 100
) -> Query:
    """
    Builds a label query: the categories in the batch and random others, `most` in all. Without any category the label is
    "object"; in a batch with categories, objects without one are no targets.

    Args:
        vocabulary: all categories of the data set; empty: only those in the batch.
    """
    pictures = [picture for clip in clips for picture in clip]
    known = [name for picture in pictures for name in picture.categories if name is not None]
    if not known and (not vocabulary or any(map(len, pictures))):
        rows = [(number, list(range(len(picture))), [0] * len(picture)) for number, picture in enumerate(pictures)]
        return Query(pictures, {"labels": [VISUAL_LABEL]}, rows)
    excluded = [name for picture in pictures for name in picture.incomplete]
    labels = sample_categories(known, vocabulary, most, random, excluded) or [VISUAL_LABEL]
    index = {label: number for number, label in enumerate(labels)}
    return Query(pictures, {"labels": labels}, [_found(i, p.categories, index) for i, p in enumerate(pictures)])


def ask_phrases(clips: Sequence[Clip], random: np.random.Generator, most: int = 100) -> Query:
    """
    Builds a label query of the pictures' phrases, as GLEE learns from captions: every object that a phrase names. An object
    with several phrases gets a random one.
    """
    pictures = [picture for clip in clips for picture in clip]
    named = []
    for picture in pictures:
        names: list[str | None] = [None] * len(picture)
        for index in random.permutation(len(picture.expressions)):
            text, objects = picture.expressions[index]
            for thing in objects:
                names[thing] = clean_expression(text) or names[thing]
        named.append(names)
    labels = sample_categories([name for names in named for name in names if name is not None], (), most, random)
    index = {label: number for number, label in enumerate(labels or [VISUAL_LABEL])}
    return Query(pictures, {"labels": list(index)}, [_found(i, names, index) for i, names in enumerate(named)])


def _found(number: int, names: Sequence[str | None], index: dict[str, int]) -> tuple[int, list[int], list[int]]:
    found = [(thing, index[name]) for thing, name in enumerate(names) if name in index]
    return number, [thing for thing, _ in found], [name for _, name in found]


def choose_sentences(clip: Clip, random: np.random.Generator, count: int) -> Clip:
    """Chooses `count` random sentences of a clip, the same ones in all frames."""
    texts = list(dict.fromkeys(text for picture in clip for text, _ in picture.expressions if clean_expression(text)))
    chosen = {texts[index] for index in random.permutation(len(texts))[:count]}
    return [replace(p, expressions=tuple(said for said in p.expressions if said[0] in chosen)) for p in clip]


def ask_expressions(clips: Sequence[Clip]) -> Query:
    """
    Builds an expression query: all sentences of stills; for a clip the first one, in every frame, also where its object isn't
    visible. Clips without sentences are skipped.
    """
    clips = [clip for clip in clips if any(picture.expressions for picture in clip)]
    pictures = [picture for clip in clips for picture in clip]
    asked: list[list[str]] = []
    rows: list[tuple[int, list[int], list[int]]] = []
    for clip in clips:
        texts = list(dict.fromkeys(text for picture in clip for text, _ in picture.expressions))
        for picture in clip:
            mine = texts if len(clip) == 1 else texts[:1]
            named = [
                [thing for said, things in picture.expressions if said == text for thing in things] for text in mine
            ]
            rows += [(len(asked), list(dict.fromkeys(things)), [0] * len(set(things))) for things in named]
            asked.append(mine)
    return Query(pictures, {"expressions": asked}, rows)


def ask_prompts(clips: Sequence[Clip], random: np.random.Generator, kinds: dict[str, float] | None = None) -> Query:
    """
    Builds a query of visual prompts: one object of each still; for a clip one object of its first frame, searched for in all
    frames: the prompts of the other frames are replaced by that one (`sources`).

    Clips without objects in their first frame are skipped. Objects without masks get boxes or points.

    Args:
        kinds: share of `masks`, `boxes`, `points`, `scribbles`; by default that of the published training.
    """
    clips = [clip for clip in clips if len(clip[0])]
    pictures = [picture for clip in clips for picture in clip]
    asked: dict[str, list[list]] = {"points": [], "boxes": [], "scribbles": [], "masks": []}
    rows: list[tuple[int, list[int], list[int]]] = []
    sources: list[int] = []
    for clip in clips:
        first = clip[0]
        chosen = int(random.integers(len(first)))
        kind = draw(random, kinds or PROMPT_KINDS)
        if first.masks is None and kind not in ("boxes", "points"):
            kind = "boxes"
        mask = None if first.masks is None else first.masks[chosen].numpy().astype(bool)
        prompt = draw_prompt(kind, first.boxes[chosen].tolist(), mask, random)
        start = len(rows)
        for place, picture in enumerate(clip):
            same = [thing for thing, track in enumerate(picture.track_ids) if track == first.track_ids[chosen]]
            rows.append((len(rows), same, [0] * len(same)))
            sources.append(start)
            drawn = (kind, prompt) if place == 0 else ("boxes", (0, 0, picture.size[1], picture.size[0]))
            for name in asked:
                asked[name].append([drawn[1]] if name == drawn[0] else [])
    used = {name: prompts for name, prompts in asked.items() if any(map(len, prompts))}
    still = all(len(clip) == 1 for clip in clips)
    supervision = {"confidence": True, "class_agnostic": True}
    return Query(pictures, used, rows, None if still else sources, supervision)
