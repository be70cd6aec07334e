"""A recogniser on the Open ASR Leaderboard's data sets: read in batches, timed as the leaderboard times."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lookhear.evaluation.open_asr.manifests import Reading, Score, manifest_path, read_manifest, score, write_manifest
from lookhear.evaluation.open_asr.samples import SAMPLING_RATE, Normaliser, Sample, stream_samples


def run_open_asr(
    asr: Callable[..., Any],
    datasets: Sequence[str],
    output: str | Path,
    *,
    model: str,
    repository: str,
    normalise: Normaliser,
    batch_size: int = 16,
    warm_up: int = 1,
    limit: int | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> list[Score]:
    """
    Reads data sets and writes a result file for each; one that is there already is scored as it is.

    Args:
        asr: the pipeline `audio-visual-speech-recognition`, or anything that is called in the same way.
        datasets: "CONFIG:SPLIT" each.
        output: folder of the result files.
        model: "ORG/NAME", by which the files are named.
        repository: of the data sets: a Hub id, or a folder.
        normalise: see `load_normaliser`.
        batch_size: samples that are read at a time.
        warm_up: batches that are read before the clock runs.
        limit: number of samples of each data set to look at, from the first; None for all.
        progress: called with (data set, samples read).

    Raises:
        ValueError: an argument or a data set is unusable.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("warm_up", warm_up, 0), ("limit", limit or 1, 1)):
        if value < least:
            raise ValueError(f"{name} has to be at least {least}, not {value}")
    if not datasets:
        raise ValueError("datasets is empty: name at least one, such as librispeech:test.clean")
    scores = []
    for dataset in datasets:
        path = manifest_path(Path(output), model, repository, dataset)
        if path.is_file():
            scores.append(score(dataset, read_manifest(path)))
            continue
        if warm_up:
            warm = stream_samples(repository, dataset, normalise, limit=limit)
            read_all(asr, islice(warm, warm_up * batch_size), normalise, batch_size)
        samples = stream_samples(repository, dataset, normalise, limit=limit)
        counted = functools.partial(progress, dataset) if progress is not None else None
        readings = read_all(asr, samples, normalise, batch_size, counted)
        scores.append(score(dataset, readings))
        write_manifest(path, readings)
    return scores


def read_all(
    asr: Callable[..., Any],
    samples: Iterable[Sample],
    normalise: Normaliser,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> list[Reading]:
    """Reads samples in batches as they come, one batch in memory at a time; `progress` is called with their number."""
    readings: list[Reading] = []
    for batch in _batches(samples, batch_size):
        readings += read_batch(asr, batch, normalise)
        if progress is not None:
            progress(len(readings))
    return readings


def read_batch(asr: Callable[..., Any], batch: Sequence[Sample], normalise: Normaliser) -> list[Reading]:
    """
    Reads a batch and takes the time from the waves to the texts, of which each sample has an equal part.

    Decoding the sound files is not part of it, nor is normalising.
    """
    inputs = [{"audio": sample.audio, "sampling_rate": SAMPLING_RATE} for sample in batch]
    begin = time.perf_counter()
    results = asr(inputs, batch_size=len(inputs), modality="audio")
    part = (time.perf_counter() - begin) / len(batch)
    return [
        Reading(sample.text, normalise(str(result["text"])).strip(), sample.seconds, part)
        for sample, result in zip(batch, results, strict=True)
    ]


def _batches(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Yields lists of `size` samples, the last one with what is left."""
    iterator = iter(samples)
    while batch := list(islice(iterator, size)):
        yield batch
