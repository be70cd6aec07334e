"""Queries about the pictures of a batch and their targets: labels, phrases as labels, sentences, visual prompts."""

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
    Pictures, a query about them, and the targets.

    Attributes:
        pictures: stills, or the frames of clips, clip by clip.
        prompts: arguments of the processor beside images: `labels`, `expressions`, or `points`, `boxes`, `scribbles`,
            `masks`.
        rows: for each row of the model's output its picture, the objects to be found in it, and their classes. The
            frames of a clip are adjacent rows.
        sources: for each row the row whose visual prompt is searched for in it (the first frame's); None: its own.
        supervision: fields of `GleeSupervision`.
    """

    pictures: list[Picture]
    prompts: dict[str, Any]
    rows: list[tuple[int, list[int], list[int]]]
    sources: list[int] | None = None
    supervision: dict[str, Any] = field(default_factory=dict)


def ask_labels(
    clips: Sequence[Clip], random: np.random.Generator, vocabulary: Sequence[str] = (), most: int = 100
) -> Query:
    """
    Builds a label query: the categories in the batch and random others, at most `most`. Without any category the label
    is "object"; in a batch with categories, objects without one are not targets.

    Args:
        clips: of the batch.
        random: for all random choices.
        vocabulary: all categories of the data set; empty: only those in the batch.
        most: most labels.
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
    Builds a label query from the pictures' phrases, as GLEE is trained on captions: targets are the objects that a
    phrase names; of an object's phrases, one is chosen at random.
    """
    pictures = [picture for clip in clips for picture in clip]
    named = []
    for picture in pictures:
        names: list[str | None] = [None] * len(picture)
        for index in random.permutation(len(picture.expressions)):
            text, objects = picture.expressions[index]
            for instance in objects:
                names[instance] = clean_expression(text) or names[instance]
        named.append(names)
    labels = sample_categories([name for names in named for name in names if name is not None], (), most, random)
    index = {label: number for number, label in enumerate(labels or [VISUAL_LABEL])}
    return Query(pictures, {"labels": list(index)}, [_found(i, names, index) for i, names in enumerate(named)])


def _found(number: int, names: Sequence[str | None], index: dict[str, int]) -> tuple[int, list[int], list[int]]:
    found = [(instance, index[name]) for instance, name in enumerate(names) if name in index]
    return number, [instance for instance, _ in found], [name for _, name in found]


def choose_sentences(clip: Clip, random: np.random.Generator, count: int) -> Clip:
    """Chooses `count` random sentences of a clip, the same ones in all frames."""
    texts = list(dict.fromkeys(text for picture in clip for text, _ in picture.expressions if clean_expression(text)))
    chosen = {texts[index] for index in random.permutation(len(texts))[:count]}
    return [replace(p, expressions=tuple(said for said in p.expressions if said[0] in chosen)) for p in clip]


def ask_expressions(clips: Sequence[Clip]) -> Query:
    """
    Builds an expression query: all sentences of stills; of a clip the first one, in every frame, even if its object
    isn't visible there. Clips without sentences are skipped.
    """
    clips = [clip for clip in clips if any(picture.expressions for picture in clip)]
    pictures = [picture for clip in clips for picture in clip]
    sentences: list[list[str]] = []
    rows: list[tuple[int, list[int], list[int]]] = []
    for clip in clips:
        texts = list(dict.fromkeys(text for picture in clip for text, _ in picture.expressions))
        for picture in clip:
            mine = texts if len(clip) == 1 else texts[:1]
            named = [
                [instance for said, instances in picture.expressions if said == text for instance in instances]
                for text in mine
            ]
            rows += [
                (len(sentences), list(dict.fromkeys(instances)), [0] * len(set(instances))) for instances in named
            ]
            sentences.append(mine)
    return Query(pictures, {"expressions": sentences}, rows)


def ask_prompts(clips: Sequence[Clip], random: np.random.Generator, kinds: dict[str, float] | None = None) -> Query:
    """
    Builds a query of visual prompts: one object of each still; of a clip one object of its first frame, searched for
    in all frames: its prompt replaces those of the other frames (`sources`).

    Clips without objects in their first frame are skipped. Objects without masks get boxes or points.

    Args:
        clips: of the batch.
        random: for all random choices.
        kinds: shares of `masks`, `boxes`, `points`, `scribbles`; None: those of the published training.
    """
    clips = [clip for clip in clips if len(clip[0])]
    pictures = [picture for clip in clips for picture in clip]
    prompts: dict[str, list[list]] = {"points": [], "boxes": [], "scribbles": [], "masks": []}
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
            same = [instance for instance, track in enumerate(picture.track_ids) if track == first.track_ids[chosen]]
            rows.append((len(rows), same, [0] * len(same)))
            sources.append(start)
            drawn = (kind, prompt) if place == 0 else ("boxes", (0, 0, picture.size[1], picture.size[0]))
            for name in prompts:
                prompts[name].append([drawn[1]] if name == drawn[0] else [])
    used = {name: given for name, given in prompts.items() if any(map(len, given))}
    still = all(len(clip) == 1 for clip in clips)
    supervision = {"confidence": True, "class_agnostic": True}
    return Query(pictures, used, rows, None if still else sources, supervision)
