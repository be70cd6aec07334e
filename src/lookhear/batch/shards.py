"""A corpus as Parquet shards of mouth crops, sound and text: `lookhear prepare`, a shard at a time on a cluster."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .stages import Pool, Workers, as_strategy, import_ray, seen_by_actors

if TYPE_CHECKING:
    from lookhear.training.avsr.prepare import PrepareSummary


@dataclasses.dataclass(frozen=True)
class CorpusSource:
    """
    What is prepared, and how.

    Attributes:
        corpus: its layout, see [`prepare`].
        source: its folder, see [`prepare`].
        output: see [`prepare`].
        split: see [`prepare`].
        model: see [`prepare`].
        allow_outside: see [`prepare`].
        crops: see [`prepare`].
        clips_per_shard: see [`prepare`].
    """

    corpus: str
    source: str
    output: str
    split: str | None
    model: str | None
    allow_outside: bool
    crops: dict[str, Any]
    clips_per_shard: int

    def open(self) -> tuple[list[Any], Any]:
        """Returns the utterances and what makes their crops."""
        from lookhear.training.avsr.prepare import open_corpus

        return open_corpus(self.corpus, self.source, self.split, self.model, self.allow_outside, self.crops)


def prepare(
    corpus: str,
    source: str | Path,
    output: str | Path,
    *,
    split: str | None = None,
    model: str | Path | None = None,
    clips_per_shard: int = 200,
    readers: Pool | None = None,
    allow_outside: bool = False,
    **crops: Any,
) -> PrepareSummary:
    """
    Prepares a corpus for training, as `lookhear prepare` does, on the machines that Ray has.

    Args:
        corpus: layout of `source`: `folder`, `grid`, `lrs2`, `lrs3` or `lrw`.
        source: the corpus folder, which all machines see.
        output: folder of the shards, likewise. Existing ones are not made again.
        split: part of the corpus; None: all.
        model: checkpoint or processor folder, or Hub id, whose image processor is used; None: the paper's settings.
        clips_per_shard: utterances in a Parquet file.
        readers: actors, each on a CPU, or the least and the most of them; None: as many as the cluster has room for.
        allow_outside: whether a metadata.jsonl may name files outside of its folder.
        crops: `roi_size`, `crop_size`, `mouth_width`, `landmarks` instead of the image processor's.

    Returns:
        What the folder holds, see `lookhear prepare`.

    Raises:
        ImportError: Ray isn't installed.
        ValueError: wrong layout, unknown corpus, or an output folder with other settings.
    """
    from lookhear.training.avsr.prepare import missing_shards, summarize

    if unknown := sorted(crops.keys() - {"roi_size", "crop_size", "mouth_width", "landmarks"}):
        raise ValueError(
            f"`{unknown[0]}` is no setting of crops: there are roi_size, crop_size, mouth_width, landmarks."
        )
    if isinstance(clips_per_shard, bool) or not isinstance(clips_per_shard, int) or clips_per_shard < 1:
        raise ValueError(f"`clips_per_shard` must be a positive integer, not {clips_per_shard!r}.")
    workers = Workers(readers, 1, 1, 1)
    source, output = os.path.abspath(source), os.path.abspath(output)
    model = seen_by_actors(model)
    what = CorpusSource(corpus, source, output, split, model, allow_outside, crops, clips_per_shard)
    utterances, image_processor = what.open()
    missing = missing_shards(utterances, Path(output), image_processor, clips_per_shard)
    if missing:
        cpus, _ = workers.settle()
        numbers = import_ray().data.from_items([{"shard": number} for number in missing])
        made = numbers.repartition(target_num_rows_per_block=1).map_batches(
            ShardMaker,
            fn_constructor_kwargs={"what": what},
            batch_size=None,
            batch_format="pyarrow",
            compute=as_strategy(readers),
            num_cpus=cpus,
        )
        for _ in made.iter_batches(batch_size=None):
            pass
    return summarize(output)


class ShardMaker:
    """
    Makes shards, on an actor.

    Args:
        what: see [`CorpusSource`].
    """

    def __init__(self, what: CorpusSource):
        import torch

        torch.set_num_threads(1)  # the actors themselves fill the cores
        self._what = what
        self._utterances, self._image_processor = what.open()

    def __call__(self, table: pa.Table) -> pa.Table:
        """Makes the shards of a table."""
        from lookhear.training.avsr.prepare import make_shard

        for number in table["shard"].to_pylist():
            make_shard(
                self._utterances, Path(self._what.output), self._image_processor, number, self._what.clips_per_shard
            )
        return table
