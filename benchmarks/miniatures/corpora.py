"""Corpora of the speech miniatures: sentences cut to their words, clips of one word each, and shares of both."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lookhear.processing.avsr import MouthRoiImageProcessor
from lookhear.training.avsr.corpora import Utterance, read_folder
from lookhear.training.avsr.prepare import (
    PREPARED_SCHEMA,
    decode_row,
    prepare_corpus,
    shard_files,
    shard_name,
    summarize,
)
from lookhear.training.avsr.synthesis import synthesize_corpus

CROPS = {"roi_size": 40, "crop_size": 32, "mouth_width": 24}  # pixels
FPS = 25
MARGIN = 0.12  # seconds of a clip before its first and after its last word
WORD_FRAMES = 15  # of a word's clip, the word in its middle (29 in LRW)


def within_words(utterance: Utterance) -> Utterance:
    """Cuts a clip to its words and `MARGIN` around them: GRID is silent half of the time."""
    if not utterance.words:
        raise ValueError(f"{utterance.media}: the times of its words are needed; give metadata.jsonl 'words'")
    start = max(0.0, utterance.words[0]["start"] - MARGIN)
    words = [
        {"word": word["word"], "start": round(word["start"] - start, 4), "end": round(word["end"] - start, 4)}
        for word in utterance.words
    ]
    return replace(utterance, words=words, start=start, end=utterance.words[-1]["end"] + MARGIN)


def prepare_sentences(source: Path, output: Path, most: int | None = None, clips_per_shard: int = 40) -> Path:
    """
    Prepares a folder with a `metadata.jsonl`, its clips cut to their words; what is there already is not made again.

    Args:
        source: the folder.
        output: of the shards.
        most: the first clips only.
        clips_per_shard: an interrupted run resumes after the last whole shard.
    """
    utterances = [within_words(utterance) for utterance in read_folder(source)][:most]
    prepare_corpus(
        utterances, output, MouthRoiImageProcessor(**CROPS), clips_per_shard=clips_per_shard, progress=False
    )
    return output


def synthesize_portraits(folder: Path, clips: int, seed: int) -> Path:
    """Makes talking portraits that say GRID's sentences; clips that are there already are not made again."""
    return synthesize_corpus(folder, clips, seed).parent


def cut_words(source: Path, output: Path) -> Path:
    """
    Cuts prepared sentences into clips of one word each, `WORD_FRAMES` long with the word in the middle, as in LRW.

    Args:
        source: prepared, with word times.
        output: a prepared folder of lips without sound.
    """
    return _write(output, source, lambda: (word for row in _rows(source) for word in _words_of(row)))


def _words_of(row: dict) -> Iterator[dict]:
    clip = decode_row(row)
    if clip["mouths"] is None:
        return
    mouths, landmarks = clip["mouths"], clip["landmarks"]
    for place, word in enumerate(clip["words"]):
        # at the ends of the sentence its outermost frames are repeated
        first = round(FPS * (word["start"] + word["end"]) / 2 - WORD_FRAMES / 2)
        frames = np.clip(np.arange(first, first + WORD_FRAMES), 0, len(mouths) - 1)
        cut = mouths[frames]
        yield {
            **row,
            "id": f"{row['id']}-{place}",
            "text": word["word"],
            "duration": WORD_FRAMES / FPS,
            "audio": None,
            "mouths": cut.tobytes(),
            "mouth_shape": list(cut.shape),
            "landmarks": landmarks[frames].astype(np.float16).tobytes(),
            "words": None,
        }


def take_share(source: Path, output: Path, share: float, seed: int = 0) -> Path:
    """
    Takes a random share of a prepared folder; with one seed, a larger share contains the smaller.

    Args:
        source: prepared.
        output: a prepared folder.
        share: in (0, 1].
        seed: of the choice.
    """

    def chosen() -> list[dict]:
        rows = list(_rows(source))
        order = np.random.default_rng(seed).permutation(len(rows))
        return [rows[place] for place in order[: max(1, round(share * len(rows)))]]

    return _write(output, source, chosen)


def take_speakers(source: Path, output: Path, speakers: int) -> Path:
    """Takes the clips of a prepared folder's first speakers, in alphabetical order."""

    def chosen() -> list[dict]:
        rows = list(_rows(source))
        known = set(sorted({row["speaker"] for row in rows})[:speakers])
        return [row for row in rows if row["speaker"] in known]

    return _write(output, source, chosen)


def _rows(folder: Path) -> Iterator[dict]:
    for path in shard_files(folder):
        yield from pq.read_table(path).to_pylist()


def _write(output: Path, source: Path, make: Callable[[], Iterable[dict]]) -> Path:
    """Writes rows as one shard with the settings of the folder that they come from, unless it is there already."""
    shard = output / shard_name(0, 1)
    if shard.exists():
        return output
    rows: Sequence[dict] = list(make())
    output.mkdir(parents=True, exist_ok=True)
    settings = json.loads((source / "prepare.json").read_text(encoding="utf-8"))
    settings |= {"clips": len(rows), "clips_per_shard": len(rows), "corpus": f"of {source.name}"}
    (output / "prepare.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    partial = shard.with_name(f".{shard.name}.tmp")
    pq.write_table(pa.Table.from_pylist(rows, PREPARED_SCHEMA), partial, compression="zstd")
    partial.replace(shard)
    summarize(output)
    return output
