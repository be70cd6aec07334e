"""What is said in many clips: sound and mouths are read on CPUs, words by the model's actors."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, overload

import pyarrow as pa

from lookhear.processing.avsr import ClipPiece, ClipReport, ClipStream, format_captions

from .stages import (
    CONTENT,
    ERROR,
    ID,
    PATH,
    BatchSummary,
    Pool,
    Reader,
    Task,
    Workers,
    checkpoint_of,
    one_line,
    opened,
    run,
)

if TYPE_CHECKING:
    from ray.data import Dataset

    from lookhear.processing.avsr import AudioVisualSpeechRecognitionPipeline

TASK = "audio-visual-speech-recognition"
MODEL = "avsr-grid-tiny"
LONGEST = 600.0  # seconds of a clip that a reader reads; longer ones are read by the model's actors, piece by piece
UNUSABLE = ("on_piece", "speaker_locator", "num_workers", "batch_size")  # settings that mean nothing on other machines
CLIP = "clip"
READ = pa.schema([(ID, pa.string()), (CLIP, pa.large_binary()), (PATH, pa.string())])
READ = READ.append(pa.field(CONTENT, pa.large_binary())).append(pa.field(ERROR, pa.string()))
WORD = pa.struct([("text", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("confidence", pa.float64())])
SAID = pa.schema(
    [
        (ID, pa.string()),
        ("text", pa.string()),
        ("confidence", pa.float64()),  # 0 to 1
        ("duration", pa.float64()),  # seconds that were read
        ("words", pa.list_(WORD)),  # times in seconds
        ("result", pa.string()),  # all of it, as JSON
        (ERROR, pa.string()),
    ]
)


@overload
def transcribe(dataset: Dataset, output: None = None, **arguments: Any) -> Dataset: ...
@overload
def transcribe(dataset: Dataset, output: str | os.PathLike[str], **arguments: Any) -> BatchSummary: ...
def transcribe(
    dataset: Dataset,
    output: str | os.PathLike[str] | None = None,
    *,
    model: str | None = None,
    id_column: str | None = None,
    readers: Pool | None = None,
    models: Pool = 1,
    num_gpus: float | None = None,
    batch_size: int = 8,
    rows_per_file: int = 100,
    dtype: str = "auto",
    **settings: Any,
) -> Dataset | BatchSummary:
    """
    Reads what is said in many clips, on the machines that Ray has.

    Args:
        dataset: rows with `"path"` (a file that all machines see, a URL, or an object such as `s3://bucket/clip.mp4`)
            or `"bytes"` (the content of a file), as `ray.data.read_binary_files(…, include_paths=True)` gives them.
        output: folder or URI that results are written to. Inputs that have a result there are not read again, so a
            run that was stopped or killed goes on when it is given again.
        model: checkpoint folder that all machines see, or Hub id; None: the packaged `avsr-grid-tiny`.
        id_column: whose values name the inputs, each one its own; None: `"id"`, or `"path"` where there is none.
        readers: actors that decode files and find mouths, on a CPU each, or the least and the most of them; None: as
            many as the cluster has room for.
        models: actors that run the model, likewise. Each loads it once.
        num_gpus: of such an actor; a fraction, such as 0.5, lets two of them share a GPU. 0: it takes a CPU. None: 1
            if the cluster has any, else 0.
        batch_size: clips that go through the model together.
        rows_per_file: results in a Parquet file of `output`: those that a kill loses, at most.
        dtype: what the model computes in, see `lookhear transcribe`.
        settings: of the pipeline, see [`AudioVisualSpeechRecognitionPipeline`]. Where a `speaker` is chosen, the
            model's actors decode, too, as what finds the speaker sees the pictures.

    Returns:
        With `output`, how many results and problems there are now: `output/results/*.parquet` has `id`, `text`,
        `confidence`, `duration`, `words` and `result` (all of it, as the JSON of `lookhear transcribe`), and
        `output/problems/*.parquet` `id` and `error`. Without it, a data set of these columns, `error` among them,
        whose rows are computed when they are asked for.

    Raises:
        ImportError: Ray isn't installed.
        ValueError: an argument cannot be used, a column is missing, or `output` has results of other settings.
    """
    workers = Workers(readers, models, num_gpus, batch_size)
    return run(SPEECH, dataset, output, model, workers, id_column, rows_per_file, dtype, settings)


def _settled(checkpoint: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings with words asked for, where the checkpoint has their times; see [`Task`]."""
    asr = without_weights(checkpoint, settings)
    timed = bool(asr.model.config.ctc_loss_weight or asr.model.config.alignment_loss_weight)
    return {"return_timestamps": "word" if timed else False, **settings}


def without_weights(checkpoint: str, settings: Mapping[str, Any]) -> AudioVisualSpeechRecognitionPipeline:
    """
    Returns a pipeline that reads clips as that of the checkpoint does, and has no weights to recognise anything with.

    Args:
        checkpoint: folder or Hub id.
        settings: of the pipeline.

    Raises:
        ValueError: a setting cannot be used.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSpeechSeq2Seq, AutoProcessor, GenerationConfig

    import lookhear

    nowhere = torch.device("meta")
    with nowhere:
        model = AutoModelForSpeechSeq2Seq.from_config(AutoConfig.from_pretrained(checkpoint))
    model.generation_config = GenerationConfig.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    return lookhear.AudioVisualSpeechRecognitionPipeline(model=model, processor=processor, device=nowhere, **settings)


class ReadClip(ClipStream):
    """
    A clip that was read by another process, as a stream that is read from memory.

    Args:
        stream: of the clip, at its end.
        pieces: that it gave.
    """

    def __init__(self, stream: ClipStream, pieces: list[ClipPiece]):  # nothing is opened, so not that of the class
        self.name, self.duration = stream.name, stream.duration
        self.modality, self.chosen = stream.modality, stream.chosen
        self._read, self._report, self._why = pieces, stream.report, stream.trouble
        self._next = 0

    @property
    def report(self) -> ClipReport:
        """Numbers and warnings about picture and sound."""
        return self._report

    @property
    def trouble(self) -> str | None:
        """Why lips cannot be read; None if they can."""
        return self._why

    def __next__(self) -> ClipPiece:
        if self._next >= len(self._read):
            raise StopIteration
        self._next += 1
        return self._read[self._next - 1]

    def close(self) -> None:
        """Ends the iteration."""
        self._next = len(self._read)


class ClipReader(Reader):
    """
    Decodes clips and crops mouths, on an actor.

    Args:
        model: see [`transcribe`].
        settings: of the pipeline.
        id_column: see [`Reader`].
        done: see [`Reader`].
        folder: see [`Reader`].
    """

    schema = READ

    def __init__(
        self, model: str | None, settings: Mapping[str, Any], id_column: str | None, done: Any, folder: str = ""
    ):
        super().__init__(id_column, done, folder)
        followed = settings.get("speaker") is not None
        self._asr = None if followed else without_weights(checkpoint_of(model, MODEL), settings)

    def read(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the clip, or where it is if the model's actors have to read it, or what is wrong with it."""
        try:
            clip = None if self._asr is None else self._clip(self._asr, opened(row, self._folder))
        except (ValueError, OSError) as error:
            return {ERROR: one_line(error)}
        return {PATH: row.get(PATH), CONTENT: row.get(CONTENT)} if clip is None else {CLIP: pickle.dumps(clip, 5)}

    @staticmethod
    def _clip(asr: AudioVisualSpeechRecognitionPipeline, source: str | IO[bytes]) -> ReadClip | None:
        """Returns a clip; None where it is too long, whatever it announces."""
        pieces: list[ClipPiece] = []
        with asr.stream(source, return_timestamps=False).source as stream:
            if stream.duration is None or stream.duration > LONGEST:
                return None
            for piece in stream:
                pieces.append(piece)
                if piece.start > LONGEST:
                    return None
            return ReadClip(stream, pieces)


class SpeechModel:
    """
    Reads the words of clips, on an actor.

    Args:
        model: see [`transcribe`].
        settings: of the pipeline.
        dtype: what the model computes in.
        folder: that relative paths start from.
    """

    def __init__(self, model: str | None, settings: Mapping[str, Any], dtype: str, folder: str = ""):
        from lookhear.commands.loading import load_pipeline

        self._asr = load_pipeline(TASK, checkpoint_of(model, MODEL), None, dtype)
        self._settings, self._folder = dict(settings), folder

    def __call__(self, table: pa.Table) -> pa.Table:
        """Returns the results of a table of [`ClipReader`]."""
        rows = table.to_pylist()
        errors: dict[str, str] = {row[ID]: row[ERROR] for row in rows if row[ERROR] is not None}
        sources: dict[str, Any] = {}
        for row in rows:
            try:
                if row[ID] not in errors:
                    sources[row[ID]] = opened(row, self._folder) if row[CLIP] is None else pickle.loads(row[CLIP])
            except (ValueError, OSError) as error:
                errors[row[ID]] = one_line(error)
        results = self._asr.attempt(list(sources.values()), **self._settings) if sources else []
        said = [_as_row(name, result) for name, result in zip(sources, results)]
        return pa.Table.from_pylist([*said, *({ID: name, ERROR: error} for name, error in errors.items())], SAID)


def _as_row(name: str, result: dict[str, Any] | ValueError | OSError) -> dict[str, Any]:
    """Returns a row of [`SAID`]."""
    if isinstance(result, (ValueError, OSError)):
        return {ID: name, ERROR: one_line(result)}
    words = [
        {
            "text": one["text"],
            "start": one["timestamp"][0],
            "end": one["timestamp"][1],
            "confidence": one["confidence"],
        }
        for one in result["chunks"]
    ]
    return {
        ID: name,
        "text": result["text"],
        "confidence": result["confidence"],
        "duration": result["report"]["duration"],
        "words": words,
        "result": format_captions(result, "json"),
    }


SPEECH = Task(
    name=TASK, packaged=MODEL, kind="avsr", unusable=UNUSABLE, settle=_settled, reader=ClipReader, model=SpeechModel
)
