"""What is found in many pictures and videos: pictures are read on CPUs, and looked at by the model's actors."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import pyarrow as pa

from lookhear.processing.glee import is_video_source, json_line

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

    from lookhear.processing.glee import ObjectPerceptionPipeline

TASK = "object-perception"
MODEL = "glee-tiny"
PICTURE_ONLY = ("one_label",)
PLACED = ("points", "boxes", "scribbles", "masks")
UNUSABLE = (*PLACED[:3], "on_error", "frames", "num_workers", "batch_size")
PICTURE = "picture"
READ = pa.schema(
    [
        (ID, pa.string()),
        (PICTURE, pa.large_binary()),  # None: a video, which the model's actors read
        (PATH, pa.string()),
        (CONTENT, pa.large_binary()),
        (ERROR, pa.string()),
    ]
)
FOUND = pa.struct(
    [
        ("frame", pa.int64()),
        ("track_id", pa.int64()),  # of a video; null in a picture
        ("label", pa.string()),
        ("score", pa.float64()),
        ("xmin", pa.float64()),  # pixels
        ("ymin", pa.float64()),
        ("xmax", pa.float64()),
        ("ymax", pa.float64()),
    ]
)
SEEN = pa.schema(
    [
        (ID, pa.string()),
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("frames", pa.int64()),  # 1 of a picture
        ("objects", pa.list_(FOUND)),
        ("result", pa.string()),  # with masks, as JSON
        (ERROR, pa.string()),
    ]
)


@overload
def perceive(dataset: Dataset, output: None = None, **arguments: Any) -> Dataset: ...
@overload
def perceive(dataset: Dataset, output: str | os.PathLike[str], **arguments: Any) -> BatchSummary: ...
def perceive(
    dataset: Dataset,
    output: str | os.PathLike[str] | None = None,
    *,
    labels: Sequence[str] | None = None,
    expressions: Sequence[str] | None = None,
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
    Finds objects in many pictures and videos, on the machines that Ray has.

    Args:
        dataset: rows with `"path"` or `"bytes"`, see [`transcribe`].
        output: folder or URI that results are written to, see [`transcribe`].
        labels: names of categories; None: those that the model was fine-tuned on, if there are no expressions.
        expressions: sentences about one object each.
        model: checkpoint folder that all machines see, a Hub id, or a name such as `"glee-lite"`; None: the packaged
            `glee-tiny`.
        id_column: see [`transcribe`].
        readers: actors that decode and resize pictures, see [`transcribe`].
        models: actors that run the model, see [`transcribe`].
        num_gpus: see [`transcribe`].
        batch_size: pictures that go through the model together.
        rows_per_file: see [`transcribe`].
        dtype: see [`transcribe`].
        settings: of the pipeline, see [`ObjectPerceptionPipeline`].

    Returns:
        As [`transcribe`]: the columns are `id`, `height`, `width`, `frames`, `objects`, `result` (all of it with
        masks, as the JSON of `lookhear perceive`, of a video a line for each frame) and `error`.

    Raises:
        ImportError: Ray isn't installed.
        ValueError: an argument cannot be used, a column is missing, or `output` has results of other settings.
    """
    workers = Workers(readers, models, num_gpus, batch_size)
    settings = {"labels": labels, "expressions": expressions, **settings}
    return run(OBJECTS, dataset, output, model, workers, id_column, rows_per_file, dtype, settings)


def _settled(checkpoint: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that are given, if there is something to look for; see [`Task`]."""
    settings = {name: value for name, value in settings.items() if value is not None}
    see = without_weights(checkpoint, settings)
    if not any(see.settings.prompts(see.model.config).values()):
        raise ValueError("There is nothing to look for: pass `labels` or `expressions`.")
    return settings


def without_weights(checkpoint: str, settings: Mapping[str, Any]) -> ObjectPerceptionPipeline:
    """
    Returns a pipeline that reads pictures as that of the checkpoint does, and has no weights to find anything with.

    Args:
        checkpoint: folder or Hub id.
        settings: of the pipeline.

    Raises:
        ValueError: a setting cannot be used.
    """
    import torch
    from transformers import AutoConfig, AutoModelForZeroShotObjectDetection, AutoProcessor

    import lookhear

    nowhere = torch.device("meta")
    with nowhere:
        model = AutoModelForZeroShotObjectDetection.from_config(AutoConfig.from_pretrained(checkpoint))
    processor = AutoProcessor.from_pretrained(checkpoint)
    return lookhear.ObjectPerceptionPipeline(model=model, processor=processor, device=nowhere, **settings)


class PictureReader(Reader):
    """
    Decodes and resizes pictures, on an actor.

    Args:
        model: see [`perceive`].
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
        self._see = without_weights(checkpoint_of(model, MODEL), settings)

    def read(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the picture, or where a video is, or what is wrong."""
        try:
            source = opened(row, self._folder)
            content = source if isinstance(source, str) else source.read()
        except (ValueError, OSError) as error:
            return {ERROR: one_line(error)}
        if is_video_source(content):
            return {PATH: row.get(PATH), CONTENT: row.get(CONTENT)}
        (picture,) = self._see.read_pictures([content], 0)
        if isinstance(picture, ValueError):
            return {ERROR: one_line(picture)}
        return {PICTURE: pickle.dumps(picture, 5), PATH: row.get(PATH)}


class ObjectModel:
    """
    Finds objects, on an actor.

    Args:
        model: see [`perceive`].
        settings: of the pipeline.
        dtype: what the model computes in.
        folder: that relative paths start from.
    """

    def __init__(self, model: str | None, settings: Mapping[str, Any], dtype: str, folder: str = ""):
        from lookhear.commands.loading import load_pipeline

        self._see = load_pipeline(TASK, checkpoint_of(model, MODEL), None, dtype)
        self._settings, self._folder = dict(settings), folder

    def __call__(self, table: pa.Table) -> pa.Table:
        """Returns the results of a table of [`PictureReader`]."""
        rows = {row[ID]: row for row in table.to_pylist()}  # an id that comes twice has one result
        pictures = {name: pickle.loads(row[PICTURE]) for name, row in rows.items() if row[PICTURE] is not None}
        looked = (
            self._see(list(pictures.values()), **self._settings, batch_size=max(1, len(pictures)), on_error="return")
            if pictures
            else []
        )
        found = dict(zip(pictures, looked))
        seen = []
        for name, row in rows.items():
            if row[ERROR] is not None:
                seen.append({ID: name, ERROR: row[ERROR]})
            elif name in pictures:
                seen.append({ID: name, **_of_picture(row[PATH] or name, pictures[name], found[name])})
            else:
                seen.append({ID: name, **self._follow(row)})
        return pa.Table.from_pylist(seen, SEEN)

    def _follow(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the result of a video."""
        settings = {name: value for name, value in self._settings.items() if name not in PICTURE_ONLY}
        objects: list[dict[str, Any]] = []
        lines = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of damaged frames, which are passed over
                with self._see({"video": opened(row, self._folder)}, **settings) as video:
                    for found in video:
                        lines.append(json_line(video.index, video.time, video.size, found))
                        objects += [_as_found(video.index, one) for one in found]
                    height, width = video.size
        except (ValueError, OSError) as error:
            return {ERROR: one_line(error)}
        about = {"height": height, "width": width, "frames": len(lines)}
        return {**about, "objects": objects, "result": "\n".join(lines) + "\n"}


def _of_picture(name: str, picture: Any, found: list[dict[str, Any]] | ValueError) -> dict[str, Any]:
    """Returns the result of a picture."""
    from lookhear.commands.perceive import to_entry

    if isinstance(found, ValueError):
        return {ERROR: one_line(found)}
    about = {"height": picture.height, "width": picture.width, "frames": 1}
    objects = [_as_found(0, one) for one in found]
    return {**about, "objects": objects, "result": json.dumps(to_entry(name, picture, found), ensure_ascii=False)}


def _as_found(frame: int, found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an object as a value of [`FOUND`]."""
    about = {"frame": frame, "track_id": found.get("track_id"), "label": found["label"], "score": found["score"]}
    return {**about, **found["box"]}


OBJECTS = Task(
    name=TASK, packaged=MODEL, kind="glee", unusable=UNUSABLE, settle=_settled, reader=PictureReader, model=ObjectModel
)
