"""Several corpora as one data set of batches: a batch's number determines its corpus, pictures and query."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from lookhear.processing.glee.prompt_processing_glee import clean_expression
from lookhear.training.glee.corpora.picture import take_picture
from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.glee.corpora.supervision import TASKS
from lookhear.training.glee.mixture.asking import (
    Clip,
    Query,
    ask_expressions,
    ask_labels,
    ask_phrases,
    ask_prompts,
    choose_sentences,
)
from lookhear.training.glee.mixture.augmentation import AugmentationRecipe, augment
from lookhear.training.glee.mixture.row_order import RowOrder, RowStream, Schedule
from lookhear.training.glee.mixture.sampling import PROMPT_KINDS, repeat_factors
from lookhear.training.glee.mixture.video_sampling import VideoIndex
from lookhear.training.recipe_reading import Count, CountOrZero, NotNegative, Positive, Share

logger = logging.getLogger(__name__)
MOST_TRIES = 100


@dataclass
class Source:
    """
    One corpus in a mixture.

    Attributes:
        rows: a `datasets.Dataset` in the schema, or a `RowStream`.
        ratio: weight of its batches among those of all sources, above 0.
        images: pictures, or clips, of a batch, at least 1.
        task: `labels`, `expressions` or `phrases`, see `corpora/supervision.py`.
        supervision: fields of `GleeSupervision`.
        vocabulary: all categories; empty: a batch queries only those in it.
        most_labels: most categories that a batch queries, at least 1.
        expressions: most sentences of a picture, at least 1; a clip has one.
        prompts: share of the batches, in [0, 1], that query by visual prompts instead (0.2 in the published training
            for COCO, SA-1B, UVO and frames of videos); 1: pictures without objects are skipped.
        prompt_kinds: weight of each kind of visual prompt, at least 0.
        frames: frames of a clip, at least 1; 1: single pictures. A still image is repeated for all frames, each
            augmented on its own.
        reach: how many annotated frames apart a clip's frames may be, at least 0.
        repeat_threshold: LVIS' t of repeat-factor sampling, in [0, 1]; 0: each picture appears once per epoch.
        augmentation: None leaves the pictures as they are.
    """

    rows: Any
    ratio: Positive = 1.0
    images: Count = 2
    task: str = "labels"
    supervision: dict[str, Any] = field(default_factory=dict)
    vocabulary: Sequence[str] = ()
    most_labels: Count = 100
    expressions: Count = 1
    prompts: Share = 0.0
    prompt_kinds: dict[str, NotNegative] = field(default_factory=lambda: dict(PROMPT_KINDS))
    frames: Count = 1
    reach: CountOrZero = 5
    repeat_threshold: Share = 0.0
    augmentation: AugmentationRecipe | None = field(default_factory=AugmentationRecipe)

    def __post_init__(self):
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, not {self.task!r}")
        if isinstance(self.rows, RowStream) and (self.frames > 1 or self.repeat_threshold > 0):
            raise ValueError("a stream has neither clips nor repeat factors: open the corpus with random access")


class CorpusBatches(Dataset):
    """
    Item i is batch i of a mixture, a `Query` of one source: the same in every run, whatever came before.

    So training resumes exactly where it was stopped, processes and workers each take their own numbers, and one
    process that accumulates the gradients of two batches sees the same as two processes. The sources' shares hold
    within every block of about a thousand batches. Within a source, every picture appears once per epoch, in an order
    of the epoch, wide and tall pictures in separate batches; streams come in the order of their shards and a shuffled
    buffer.

    Pictures that cannot be decoded are refused, or, if `problems` skips, counted there and replaced by random others
    of the same source (in a stream, skipped).

    Args:
        sources: the corpora.
        length: number of batches.
        seed: other seeds give other batches.
        problems: where pictures that cannot be decoded are reported.
        together: number of successive batches of one source (the number of processes gives one source per step).
    """

    def __init__(
        self,
        sources: Sequence[Source],
        length: int,
        seed: int = 0,
        problems: Problems | None = None,
        together: int = 1,
    ):
        self.sources, self.length, self.seed = list(sources), length, seed
        self.problems = problems or Problems()
        self.schedule = Schedule([source.ratio for source in sources], seed, together)
        self._orders = [_order(source, seed, number) for number, source in enumerate(sources)]
        self._videos = [_video_index(source) for source in sources]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Query:
        if not 0 <= index < self.length:
            raise IndexError(index)
        number, turn = self.schedule[index]
        source = self.sources[number]
        random = np.random.default_rng((self.seed, 1, index))
        clips = list(self._clips(number, turn, random))
        if source.prompts and random.random() < source.prompts and any(len(clip[0]) for clip in clips):
            query = ask_prompts([self._changed(clip, source, random) for clip in clips], random, source.prompt_kinds)
            if query.rows:
                return _supervised(query, source)
        if source.task == "expressions":
            count = source.expressions if source.frames == 1 else 1
            clips = [choose_sentences(clip, random, count) for clip in clips]
        clips = [self._changed(clip, source, random) for clip in clips]
        if source.task == "expressions":
            query = ask_expressions(clips)
        elif source.task == "phrases":
            query = ask_phrases(clips, random, source.most_labels)
        else:
            query = ask_labels(clips, random, source.vocabulary, source.most_labels)
        return _supervised(query, source)

    def _clips(self, number: int, turn: int, random: np.random.Generator) -> Iterator[Clip]:
        """Decodes the pictures of a source's batch; at least one."""
        source, order = self.sources[number], self._orders[number]
        if isinstance(order, RowStream):
            clips = [
                clip for row in order.batch(turn, source.images) if (clip := self._decoded([row], number)) is not None
            ]
            if not clips:
                raise CorpusError(
                    f"none of a batch of {source.images} pictures can be used: {self.problems.summary()}"
                )
            yield from clips
            return
        for row in order.batch(turn):
            for _ in range(MOST_TRIES):
                places = self._videos[number].clip(int(row), source.frames, source.reach, random)
                clip = self._decoded([source.rows[place] for place in places], number)
                if clip is not None:
                    yield clip
                    break
                row = random.integers(len(source.rows))
            else:
                found = self.problems.summary()
                raise CorpusError(
                    f"{MOST_TRIES} pictures in a row cannot be used, or have no annotations for a query; {found}"
                )

    def _decoded(self, rows: list[dict], number: int) -> Clip | None:
        """Decodes a clip; None if a picture is damaged, or the clip lacks what the source's queries need."""
        source = self.sources[number]
        shortest = source.augmentation.largest_needed() if source.augmentation is not None else None
        try:
            clip = [take_picture(row, shortest) for row in rows]
        except CorpusError as error:
            self.problems.add(f"source {number}", str(error))
            self.problems.settle(f"source {number}")
            return None
        named = any(clean_expression(text) for picture in clip for text, _ in picture.expressions)
        wanted = (source.task == "labels" or named) and (source.prompts < 1 or len(clip[0]))
        return clip if wanted else None

    def _changed(self, clip: Clip, source: Source, random: np.random.Generator) -> Clip:
        if source.augmentation is None:
            return clip
        if len({picture.id for picture in clip}) == 1:  # a still: each frame is augmented on its own
            return [changed for picture in clip for changed in augment([picture], source.augmentation, random)]
        return augment(clip, source.augmentation, random)


def _supervised(query: Query, source: Source) -> Query:
    frames = {"track_frames": source.frames} if source.frames > 1 else {}
    return replace(query, supervision={**source.supervision, **query.supervision, **frames})


def _order(source: Source, seed: int, number: int) -> RowOrder | RowStream:
    if isinstance(source.rows, RowStream):
        return source.rows
    wide = np.array(source.rows["width"][:]) >= np.array(source.rows["height"][:])
    factors = repeat_factors(source.rows, source.repeat_threshold) if source.repeat_threshold > 0 else None
    return RowOrder(len(source.rows), source.images, (seed, 2, number), factors, wide)


def _video_index(source: Source) -> VideoIndex:
    if source.frames == 1 or isinstance(source.rows, RowStream):
        return VideoIndex([], [])
    return VideoIndex(source.rows["video"][:], source.rows["frame"][:])
