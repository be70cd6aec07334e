"""Preparation of utterances: Parquet shards of mouth crops, sound, text, landmarks and reports, and their reading.

```bash
lookhear prepare lrs3 /data/LRS3 prepared/lrs3_trainval --split trainval --num-proc 8 --shard 0/16
```

A row is a clip. Shards have a fixed number of utterances and are written under a temporary name, then renamed: a shard
that exists is complete, and a second run writes only the missing ones. A clip that cannot be read is listed with the
reason in `problems.jsonl` and left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import multiprocessing
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lookhear.evaluation.whole_files import whole_file, write_text
from lookhear.training.avsr.corpora import READERS, Utterance
from lookhear.training.avsr.pixels import GreyValues
from lookhear.training.avsr.shards import ROWS_PER_GROUP, claim_folder

if TYPE_CHECKING:
    from lookhear.processing.avsr import MouthRoiImageProcessor

SAMPLING_RATE = 16000  # Hz
ROI_SETTINGS = (
    "roi_size",
    "mouth_width",
    "smoothing_window",
    "detect_every",
    "fps",
    "landmarks",
)  # what the stored crops depend on
GEOMETRY = ("roi_size", "mouth_width", "fps")  # of them, what a network has to be told
FIRST_LANDMARKS = "dlib"  # of folders that do not say which landmarks their crops were made with: there were no others

PREPARED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("speaker", pa.string()),
        ("split", pa.string()),
        ("duration", pa.float32()),  # seconds
        ("audio", pa.binary()),  # FLAC, 16 bit, 16 kHz, mono; null without sound
        ("mouths", pa.binary()),  # (T, H, W) uint8, C order; null without a face
        ("mouth_shape", pa.list_(pa.int32())),  # [T, H, W]
        ("landmarks", pa.binary()),  # (T, 68, 2) float16, pixels of the frame
        ("words", pa.list_(pa.struct([("word", pa.string()), ("start", pa.float32()), ("end", pa.float32())]))),
        ("report", pa.string()),  # JSON of the clip's report
    ]
)


@dataclass
class PrepareSummary:
    """
    Contents of an output folder.

    Attributes:
        clips: clips in the finished shards.
        seconds: their length.
        with_face: mean share of the frames with a face, in [0, 1], over clips with pictures; None: there are none.
        problems: clips that were left out.
        shards: finished shards.
        shards_in_all: all shards.
        warnings: number of clips for each warning, numbers in its text replaced by `#`.
        pixels: pixels of all mouth crops, those of black frames left out.
        pixel_mean: their mean, in [0, 1], as an image processor's `image_mean`; None without crops.
        pixel_std: their standard deviation, likewise.
    """

    clips: int = 0
    seconds: float = 0.0
    with_face: float | None = None
    problems: int = 0
    shards: int = 0
    shards_in_all: int = 0
    warnings: dict[str, int] = field(default_factory=dict)
    pixels: int = 0
    pixel_mean: float | None = None
    pixel_std: float | None = None

    def __str__(self) -> str:
        face = "" if self.with_face is None else f", a face in {100 * self.with_face:.1f} % of the frames"
        lines = [
            f"{self.shards} of {self.shards_in_all} shards: {self.clips} clips, {self.seconds / 3600:.2f} h{face},"
            f" {self.problems} left out (problems.jsonl)"
        ]
        if self.pixel_mean is not None:
            lines.append(f"  pixels of the crops: mean {self.pixel_mean:.4f}, standard deviation {self.pixel_std:.4f}")
        lines += [f"  {count} x {warning}" for warning, count in self.warnings.items()]
        return "\n".join(lines)


# ------------------------------------------------------------------------------------------------------------ commands


def prepare(
    corpus: str,
    source: str | Path,
    output: str | Path,
    *,
    split: str | None = None,
    num_proc: int = 1,
    shard: str | tuple[int, int] = (0, 1),
    model: str | Path | None = None,
    roi_size: int | None = None,
    crop_size: int | None = None,
    mouth_width: float | None = None,
    landmarks: str | None = None,
    clips_per_shard: int = 200,
    allow_outside: bool = False,
    progress: bool = True,
) -> PrepareSummary:
    """Prepares a corpus for training, as `lookhear prepare` does.

    Args:
        corpus: layout of `source`: `folder` (metadata.jsonl), `grid`, `lrs2`, `lrs3` or `lrw`.
        source: the corpus folder.
        output: folder for the Parquet shards, created if missing.
        split: part of the corpus (see the reader's docstring); None for all.
        num_proc: number of processes.
        shard: part of an array job that this job does, `(i, n)` or `"i/n"` with `0 <= i < n`; all jobs write into one
            `output`.
        model: checkpoint or processor folder, or Hub id, whose image processor is used; None for the paper's settings.
        roi_size: side of the mouth region in pixels, instead of that image processor's.
        crop_size: side of the network's input in pixels, likewise.
        mouth_width: distance between the mouth's corners in pixels, likewise.
        landmarks: what finds the mouths, `"mesh"` or `"dlib"`, likewise.
        clips_per_shard: utterances in one Parquet file.
        allow_outside: whether a metadata.jsonl may name files outside of its folder.
        progress: whether a progress bar is shown on stderr.

    Raises:
        CorpusError, ValueError: wrong layout, unknown corpus, wrong shard, or an output folder with other settings.
    """
    given = {"roi_size": roi_size, "crop_size": crop_size, "mouth_width": mouth_width, "landmarks": landmarks}
    utterances, image_processor = open_corpus(corpus, source, split, model, allow_outside, given)
    return prepare_corpus(
        utterances,
        output,
        image_processor,
        num_proc=num_proc,
        shard=parse_shard(shard),
        clips_per_shard=clips_per_shard,
        progress=progress,
    )


def open_corpus(
    corpus: str,
    source: str | Path,
    split: str | None,
    model: str | Path | None,
    allow_outside: bool,
    crops: Mapping[str, Any],
) -> tuple[list[Utterance], MouthRoiImageProcessor]:
    """
    Returns the utterances of a corpus, and what makes their crops.

    Args:
        corpus: see `prepare`.
        source: see `prepare`.
        split: see `prepare`.
        model: see `prepare`.
        allow_outside: see `prepare`.
        crops: settings of the image processor, instead of the model's; None leaves one as it is.

    Raises:
        CorpusError, ValueError: wrong layout, or unknown corpus.
    """
    if corpus not in READERS:
        raise ValueError(f"corpus '{corpus}' is unknown; choose one of {', '.join(READERS)}")
    from lookhear.processing.avsr.processing_avsr import MouthRoiImageProcessor

    options = {"allow_outside": allow_outside} if corpus == "folder" else {}
    settings: dict[str, Any] = {name: value for name, value in crops.items() if value is not None}
    if model is None:
        image_processor = MouthRoiImageProcessor(**settings)
    else:
        image_processor = MouthRoiImageProcessor.from_pretrained(model, **settings)
    return list(READERS[corpus](source, split, **options)), image_processor


def parse_shard(shard: str | tuple[int, int]) -> tuple[int, int]:
    """Reads `"2/8"` as (2, 8). Raises ValueError unless `0 <= i < n`."""
    if isinstance(shard, str):
        match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", shard)
        if match is None:
            raise ValueError(f"shard '{shard}' must be i/n, for example 0/8 for the first of eight jobs")
        shard = int(match[1]), int(match[2])
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard {index}/{count} does not exist: i/n counts from 0/{count} to {count - 1}/{count}")
    return index, count


def prepare_corpus(
    utterances: Iterable[Utterance],
    output: str | Path,
    image_processor: MouthRoiImageProcessor,
    *,
    num_proc: int = 1,
    shard: tuple[int, int] = (0, 1),
    clips_per_shard: int = 200,
    progress: bool = True,
) -> PrepareSummary:
    """Writes those Parquet shards of `utterances` that this job has to make and that are missing, then `summary.json`.

    Args:
        utterances: from a reader of `corpora`; their order and number must not change between runs.
        output: folder, created if missing.
        image_processor: makes the crops.
        num_proc: see `prepare`.
        shard: see `prepare`.
        clips_per_shard: see `prepare`.
        progress: see `prepare`.

    Raises:
        ValueError: no utterances, an output folder made with other settings, or every clip is unreadable.
    """
    if num_proc < 1 or clips_per_shard < 1:
        raise ValueError(f"num_proc ({num_proc}) and clips_per_shard ({clips_per_shard}) must be at least 1")
    index, jobs = parse_shard(shard)
    utterances, output = list(utterances), Path(output)
    missing = missing_shards(utterances, output, image_processor, clips_per_shard, (index, jobs))
    clips = sum(len(clips_of(utterances, number, clips_per_shard)) for number in missing)
    with _clip_mapper(image_processor, num_proc) as map_clips, _progress_bar(clips, progress) as bar:
        for number in missing:
            part = clips_of(utterances, number, clips_per_shard)
            path = output / shard_name(number, math.ceil(len(utterances) / clips_per_shard))
            _write_shard(path, _counted(map_clips(part), bar))
    return summarize(output)


def missing_shards(
    utterances: Sequence[Utterance],
    output: Path,
    image_processor: MouthRoiImageProcessor,
    clips_per_shard: int,
    job: tuple[int, int] = (0, 1),
) -> list[int]:
    """
    Claims an output folder; returns the numbers of the shards that a job has to make and that are missing.

    Args:
        utterances: see `prepare_corpus`.
        output: see `prepare_corpus`.
        image_processor: see `prepare_corpus`.
        clips_per_shard: see `prepare_corpus`.
        job: which job of how many.

    Raises:
        ValueError: no utterances, or the folder was made with other settings.
    """
    if not utterances:
        raise ValueError("there are no utterances to prepare; check the corpus folder and the split")
    output.mkdir(parents=True, exist_ok=True)
    settings = _settings(utterances, image_processor, clips_per_shard)
    claim_folder(output / "prepare.json", settings, earlier={"landmarks": FIRST_LANDMARKS})
    shards = math.ceil(len(utterances) / clips_per_shard)
    index, jobs = job
    return [number for number in range(index, shards, jobs) if not (output / shard_name(number, shards)).exists()]


def clips_of(utterances: Sequence[Utterance], number: int, clips_per_shard: int) -> Sequence[Utterance]:
    """Returns the utterances of a shard, counted from 0."""
    return utterances[number * clips_per_shard : (number + 1) * clips_per_shard]


def make_shard(
    utterances: Sequence[Utterance],
    output: Path,
    image_processor: MouthRoiImageProcessor,
    number: int,
    clips_per_shard: int,
) -> None:
    """
    Writes one shard, in this process.

    Args:
        utterances: see `prepare_corpus`.
        output: see `prepare_corpus`.
        image_processor: see `prepare_corpus`.
        number: of the shard, from 0.
        clips_per_shard: see `prepare_corpus`.
    """
    rows = (_row_or_problem(clip, image_processor) for clip in clips_of(utterances, number, clips_per_shard))
    _write_shard(output / shard_name(number, math.ceil(len(utterances) / clips_per_shard)), rows)


def shard_name(number: int, shards: int) -> str:
    return f"clips-{number:05d}-of-{shards:05d}.parquet"


# ------------------------------------------------------------------------------------------------------------ one clip


def prepare_clip(utterance: Utterance, image_processor: MouthRoiImageProcessor) -> dict:
    """Returns a row of `PREPARED_SCHEMA`: sound (n,) at 16 kHz and mouth crops (T, roi, roi) at `image_processor.fps`.

    Raises:
        MediaError: the file is missing or unreadable.
        ValueError: neither sound nor a face, or damaged samples.
    """
    from lookhear.processing.avsr.media_avsr import probe_media, read_audio, read_frames

    source, fps = str(utterance.media), image_processor.fps
    start, end = utterance.start or 0.0, utterance.end  # seconds
    info = probe_media(source)
    warnings = list(info.warnings)
    row: dict[str, Any] = dict.fromkeys(PREPARED_SCHEMA.names)
    row |= {"id": utterance.id, "text": utterance.text, "speaker": utterance.speaker, "split": utterance.split}
    row |= {"words": utterance.words, "duration": 0.0}

    frames = read_frames(source, fps=fps, start=start, end=end, on_warning=warnings.append) if info.has_video else []
    clip = image_processor.extract(frames, fps_in=info.fps or None)
    if clip.found.any():
        row |= {"mouths": clip.mouths.tobytes(), "mouth_shape": list(clip.mouths.shape)}  # (T, roi, roi) uint8
        row |= {"landmarks": clip.landmarks.astype(np.float16).tobytes(), "duration": len(clip.mouths) / fps}
    audio = None
    if info.has_audio:
        audio = read_audio(source, SAMPLING_RATE, start=start, end=end, on_warning=warnings.append)  # (n,) float32
    clip.report.add_audio(audio)
    if audio is not None and len(audio):
        row |= {"audio": encode_flac(audio), "duration": max(row["duration"], len(audio) / SAMPLING_RATE)}
    clip.report.warn(warnings)
    row["report"] = json.dumps(clip.report.to_dict())
    if row["audio"] is None and row["mouths"] is None:
        raise ValueError(f"{source}: neither sound nor a face between {start} s and {end or 'the end'}")
    return row


def encode_flac(audio: np.ndarray, sampling_rate: int = SAMPLING_RATE) -> bytes:
    """
    Encodes `(n,)` float samples as FLAC, 16 bit, mono. A clip louder than 1.0 is scaled down as a whole, never
    clipped.
    """
    import soundfile

    audio = np.asarray(audio, dtype=np.float32)
    if audio.ndim != 1 or not np.isfinite(audio).all():
        raise ValueError("audio must be one channel of finite samples; the file holds NaN or infinite values")
    peak = float(np.abs(audio).max(initial=0.0))
    buffer = io.BytesIO()
    soundfile.write(buffer, audio / peak if peak > 1.0 else audio, sampling_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


# ----------------------------------------------------------------------------------------------------------- processes


@dataclass(frozen=True)
class _Preparation:
    """An utterance to be read by a worker of the pipeline's kind."""

    utterance: Utterance
    image_processor: MouthRoiImageProcessor

    @property
    def name(self) -> str:
        return repr(str(self.utterance.media))

    def read(self) -> dict:
        return decode_row(prepare_clip(self.utterance, self.image_processor))


def read_utterances(
    utterances: Sequence[Utterance], image_processor: MouthRoiImageProcessor, num_workers: int | None = None
) -> Iterator[dict | Exception]:
    """
    Reads utterances from their files, several at a time.

    Args:
        utterances: from a reader of `corpora`.
        image_processor: makes the crops.
        num_workers: processes; 0: this one reads; None: one for each processor core, if there are more than four.

    Yields:
        For each utterance its row as `decode_row` returns it, or the exception that says why it cannot be read.
    """
    from lookhear.processing.avsr.reading_workers_avsr import (
        FEW,
        ReadingWorkers,
        outcome_of,
        read_in_order,
        usual_workers,
    )

    count = num_workers
    if count is None:
        count = usual_workers() + 1 if len(utterances) > FEW else 0
    jobs = (_Preparation(utterance, image_processor) for utterance in utterances)
    read = read_in_order(jobs, ReadingWorkers(count).submit, 2 * count) if count else jobs
    for outcome in read:
        yield outcome_of(outcome) if isinstance(outcome, _Preparation) else outcome


_process_image_processor: MouthRoiImageProcessor | None = (
    None  # one per worker process, so that the landmark model is loaded once
)


def _start_worker(image_processor: MouthRoiImageProcessor) -> None:
    global _process_image_processor
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)  # the processes themselves fill the cores
    _process_image_processor = image_processor


def _row_or_problem(utterance: Utterance, image_processor: MouthRoiImageProcessor | None = None) -> dict:
    """
    Returns the row, or `{"problem": reason, "id", "media"}`: one bad clip of a hundred thousand must not end the run.
    """
    image_processor = image_processor or _process_image_processor
    assert image_processor is not None  # a worker process has its own
    try:
        return prepare_clip(utterance, image_processor)
    except ImportError:
        raise  # a missing package concerns every clip
    except Exception as error:  # whatever a damaged file makes the decoders raise
        reason = " ".join(str(error).split()) or type(error).__name__
        return {"problem": reason, "id": utterance.id, "media": str(utterance.media)}


@contextlib.contextmanager
def _clip_mapper(image_processor: MouthRoiImageProcessor, num_proc: int) -> Iterator:
    """Yields a function that maps utterances to an iterator of rows and problems, in order."""
    if num_proc == 1:
        yield lambda part: (_row_or_problem(utterance, image_processor) for utterance in part)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with running torch threads can hang
    pool = ProcessPoolExecutor(num_proc, context, initializer=_start_worker, initargs=(image_processor,))
    try:
        yield lambda part: pool.map(_row_or_problem, part)
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"one of the {num_proc} processes was killed, usually because memory ran out; finished shards remain:"
            " run the same command again, with a smaller num_proc if it happens twice"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _progress_bar(total: int, show: bool):
    from tqdm.auto import tqdm

    return tqdm(total=total, disable=not show, unit="clip", desc="prepare", file=sys.stderr)


def _counted(rows: Iterator[dict], bar) -> Iterator[dict]:
    for row in rows:
        bar.update()
        yield row


# --------------------------------------------------------------------------------------------------------------- files


def _write_shard(path: Path, rows: Iterator[dict]) -> None:
    """
    Streams rows into a Parquet file under a temporary name; problems and grey values go into its schema's metadata.
    """
    problems: list[dict] = []
    group: list[dict] = []
    grey = GreyValues.of()
    with whole_file(path) as partial, pq.ParquetWriter(partial, PREPARED_SCHEMA, compression="zstd") as writer:
        for row in rows:
            (problems if "problem" in row else group).append(row)
            if row.get("mouths") is not None:
                grey.add(np.frombuffer(row["mouths"], np.uint8).reshape(row["mouth_shape"]))
            if len(group) == ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(group, PREPARED_SCHEMA))
                group = []
        writer.write_table(pa.Table.from_pylist(group, PREPARED_SCHEMA))
        metadata = {"problems": json.dumps(problems), "grey_values": json.dumps(grey.counts.tolist())}
        writer.add_key_value_metadata(metadata)


def _settings(utterances: Sequence[Utterance], image_processor: MouthRoiImageProcessor, clips_per_shard: int) -> dict:
    digest = hashlib.sha256("\n".join(f"{utterance.id}\t{utterance.text}" for utterance in utterances).encode())
    settings = {name: getattr(image_processor, name) for name in ROI_SETTINGS}
    return settings | {"clips": len(utterances), "clips_per_shard": clips_per_shard, "corpus": digest.hexdigest()[:16]}


def _read_settings(folder: Path) -> dict[str, Any]:
    """Returns what `prepare.json` says about a folder of shards."""
    return {"landmarks": FIRST_LANDMARKS} | json.loads((folder / "prepare.json").read_text(encoding="utf-8"))


def summarize(output: str | Path) -> PrepareSummary:
    """Summarises the finished shards of a folder; writes `summary.json` and `problems.jsonl` there.

    Raises:
        ValueError: all shards exist and hold no clip at all.
    """
    output = Path(output)
    files = shard_files(output)
    settings = _read_settings(output)
    summary = PrepareSummary(
        shards=len(files), shards_in_all=math.ceil(settings["clips"] / settings["clips_per_shard"])
    )
    shares: list[float] = []
    warnings: Counter[str] = Counter()
    problems: list[dict] = []
    grey = GreyValues.of()
    for path in files:
        with pq.ParquetFile(path) as shard:
            grey.counts += _grey_values(shard).counts
            problems += json.loads((shard.metadata.metadata or {}).get(b"problems", b"[]"))
            columns = shard.read(columns=["duration", "report"]).to_pylist()
        summary.clips += len(columns)
        summary.seconds += sum(row["duration"] for row in columns)
        for report in (json.loads(row["report"]) for row in columns):
            warnings.update({re.sub(r"\d+(\.\d+)?", "#", warning) for warning in report.get("warnings", [])})
            if report.get("frames_with_face") is not None:
                shares.append(report["frames_with_face"])
    if grey.pixels:
        summary.pixels, summary.pixel_mean, summary.pixel_std = grey.pixels, grey.mean, grey.deviation
    summary.with_face = float(np.mean(shares)) if shares else None
    summary.problems, summary.warnings = len(problems), dict(warnings.most_common())
    write_text(output / "problems.jsonl", "".join(json.dumps(problem) + "\n" for problem in problems))
    write_text(output / "summary.json", json.dumps(asdict(summary), indent=1) + "\n")
    if summary.shards == summary.shards_in_all and not summary.clips:
        raise ValueError(f"no clip could be read; the first of {len(problems)} problems: {problems[0]['problem']}")
    return summary


def _grey_values(shard: pq.ParquetFile) -> GreyValues:
    """Returns the grey values of a shard; one that was made before they were counted is read for it."""
    counts = (shard.metadata.metadata or {}).get(b"grey_values")
    if counts is not None:
        return GreyValues.of(json.loads(counts))
    grey = GreyValues.of()
    for batch in shard.iter_batches(ROWS_PER_GROUP, columns=["mouths", "mouth_shape"]):
        for row in batch.to_pylist():
            if row["mouths"] is not None:
                grey.add(np.frombuffer(row["mouths"], np.uint8).reshape(row["mouth_shape"]))
    return grey


# -------------------------------------------------------------------------------------------------------- reading back


def shard_files(folder: str | Path) -> list[Path]:
    """Returns the finished shards of a prepared folder, in order."""
    return sorted(Path(folder).glob("clips-*-of-*.parquet"))


def load_prepared(
    folders: str | Path | Sequence[str | Path],
    *,
    streaming: bool = False,
    allow_incomplete: bool = False,
    cache_dir: str | Path | None = None,
):
    """Loads one or more prepared folders as one `datasets.Dataset`; `decode_row` turns a row into arrays.

    Args:
        folders: made by `prepare`, with the same `roi_size`, `mouth_width` and `fps`.
        streaming: return an `IterableDataset` that reads the shards one after another, instead of a memory-mapped
            copy.
        allow_incomplete: accept folders whose preparation has not finished.
        cache_dir: folder for the memory-mapped copy of `datasets`; None for its default.

    Raises:
        ValueError: nothing prepared there, unfinished, or crops of different geometry or landmarks.
    """
    from datasets import load_dataset

    paths = [Path(folder) for folder in ([folders] if isinstance(folders, (str, Path)) else folders)]
    files, geometry = [], {}
    for folder in paths:
        shards = shard_files(folder)
        if not shards or not (folder / "prepare.json").is_file():
            raise ValueError(f"{folder} holds no prepared clips (clips-*.parquet); make them with `lookhear prepare`")
        in_all = int(shards[0].stem.rsplit("-", 1)[-1])
        if len(shards) != in_all and not allow_incomplete:
            raise ValueError(
                f"{folder} has {len(shards)} of {in_all} shards; run `lookhear prepare` again to finish it"
            )
        settings = _read_settings(folder)
        geometry[folder] = {name: settings[name] for name in GEOMETRY}
        if geometry[folder] != geometry[paths[0]]:
            raise ValueError(f"{paths[0]} and {folder} have different crops: {geometry[paths[0]]}, {geometry[folder]}")
        files += [str(path) for path in shards]
    prepared_landmarks(paths)
    cache = None if cache_dir is None else str(cache_dir)
    return load_dataset("parquet", data_files={"train": files}, split="train", streaming=streaming, cache_dir=cache)


def prepared_landmarks(folders: Sequence[str | Path]) -> str | None:
    """
    Returns the name of the landmarks that mouths were found with in prepared folders; None where it doesn't matter.

    Args:
        folders: made by `prepare`; those of sound alone may be mixed with any.

    Raises:
        ValueError: folders with crops were made with different landmarks.
    """
    names = {Path(folder): _read_settings(Path(folder))["landmarks"] for folder in folders}
    if len(set(names.values())) > 1:
        names = {folder: name for folder, name in names.items() if _has_crops(folder)}
    if not names:
        return None
    first = next(iter(names))
    for folder, name in names.items():
        if name != names[first]:
            raise ValueError(
                f"{first} and {folder} were made with different landmarks ({names[first]}, {name}): "
                "prepare one of them again with --landmarks"
            )
    return names[first]


def check_geometry(folders: Sequence[str | Path], image_processor: MouthRoiImageProcessor) -> None:
    """
    Checks that prepared mouth crops are those that an image processor makes, so that a network sees the same mouths in
    training and afterwards. Folders without crops pass.

    Args:
        folders: made by `prepare`.
        image_processor: of the model that is to read them.

    Raises:
        ValueError: size of the region, width of the mouth or frame rate differ.
    """
    needed = {name: getattr(image_processor, name) for name in GEOMETRY}
    for folder in folders:
        settings = _read_settings(Path(folder))
        wrong = [
            f"{name} {settings[name]:g}, not {value:g}" for name, value in needed.items() if settings[name] != value
        ]
        if wrong and _has_crops(Path(folder)):
            raise ValueError(
                f"{folder} was prepared with {', '.join(wrong)} as the model's image processor: prepare it again "
                "with --roi-size, --mouth-width (or --model), or change the image processor's settings"
            )


def _has_crops(folder: Path) -> bool:
    shards = (pq.read_table(path, columns=["mouth_shape"]) for path in shard_files(folder))
    return any(shard["mouth_shape"].null_count < len(shard) for shard in shards)


def corpus_statistics(folders: Sequence[str | Path]) -> tuple[float, float]:
    """
    Returns mean and standard deviation of the pixels of all mouth crops in prepared folders, in [0, 1].

    Args:
        folders: made by `prepare`, which counts the pixels; a folder listed twice counts twice.

    Raises:
        ValueError: a folder was prepared before pixels were counted, or is not finished, or there are no crops.
    """
    parts = []
    for folder in folders:
        path = Path(folder) / "summary.json"
        summary = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if "pixels" not in summary or summary["shards"] != summary["shards_in_all"]:
            raise ValueError(
                f"{folder} has no mean of its mouth crops in summary.json: run the same `lookhear prepare` again, "
                "which computes it and makes what is missing"
            )
        if summary["pixels"]:
            parts.append((summary["pixels"], summary["pixel_mean"], summary["pixel_std"]))
    if not parts:
        raise ValueError(f"{', '.join(map(str, folders)) or 'data.train'}: there are no mouth crops to take a mean of")
    pixels, means, deviations = map(np.array, zip(*parts, strict=True))
    mean = np.average(means, weights=pixels)
    return float(mean), float(np.sqrt(np.average(deviations**2 + means**2, weights=pixels) - mean**2))


def decode_row(row: dict) -> dict:
    """Returns a row of a prepared folder as arrays.

    Returns:
        `audio` (n,) float32 or None, `sampling_rate` 16000, `mouths` (T, H, W) uint8 or None, `landmarks` (T, 68, 2)
        float32 or None, `report` dict, and `id`, `text`, `speaker`, `split`, `duration`, `words` as they are.
    """
    out = {name: row.get(name) for name in ("id", "text", "speaker", "split", "duration", "words")}
    mouths = landmarks = None
    if row["mouths"] is not None:
        mouths = np.frombuffer(row["mouths"], dtype=np.uint8).reshape(row["mouth_shape"])  # (T, H, W)
        landmarks = np.frombuffer(row["landmarks"], dtype=np.float16).astype(np.float32).reshape(-1, 68, 2)
    report = json.loads(row["report"])
    return out | {
        "audio": decode_audio(row["audio"]),
        "sampling_rate": SAMPLING_RATE,
        "mouths": mouths,
        "landmarks": landmarks,
        "report": report,
    }


def decode_audio(flac: bytes | None) -> np.ndarray | None:
    """Returns the `audio` column of a row as (n,) float32 at 16 kHz, or None."""
    import soundfile

    return None if flac is None else soundfile.read(io.BytesIO(flac), dtype="float32")[0]
