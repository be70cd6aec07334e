"""What every protocol takes and returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lookhear.evaluation.protocols.stored_results import StoredResults


@dataclass(frozen=True)
class ProtocolRun:
    """
    One run of a protocol.

    Attributes:
        name: of the protocol.
        data: folder of its data set.
        output: folder for predictions, figures and submission files.
        see: the pipeline `object-perception`, or anything that is called like it: with a list of `{"image": path,
            …prompts}` for pictures, which gives a list of results each; with `{"video": [paths], …prompts}` for a
            video, which gives a context manager that iterates over the frames' results.
        ask: the pipeline `reasoning-segmentation`, or anything that is called like it, with a list of `{"image": path
            or picture, "question": text}`; only protocols of questions call it, and these never call `see`.
        model: what `see` or `ask` is called in the record of the run.
        split: part of the data set; None for the protocol's own.
        images: folder of the pictures where it is not the published one.
        limit: the first pictures, videos or data sets only.
        batch_size: pictures in a pass.
        tracking: how videos are tracked, "memory" or "minvis".
        progress: called with (what, done, total).
        overwrite: whether results of an earlier run in the output folder are removed; else it is resumed.
    """

    name: str
    data: Path
    output: Path
    see: Callable[..., Any]
    ask: Callable[..., Any] | None = None
    model: str = ""
    split: str | None = None
    images: Path | None = None
    limit: int | None = None
    batch_size: int = 1
    tracking: str = "memory"
    progress: Callable[[str, int, int], None] = field(default=lambda what, done, total: None)
    overwrite: bool = False

    def stored(self, split: str, part: str = "predictions", **settings: Any) -> StoredResults:
        """Returns the predictions of this run, on disk: `output/part.jsonl`."""
        about = {"protocol": self.name, "split": split, "model": self.model, "data": str(self.data), **settings}
        return StoredResults(self.output / f"{part}.jsonl", about)

    def some(self, entries: Sequence[Any]) -> list[Any]:
        """Returns the entries, or the first of them."""
        return list(entries[: self.limit])


@dataclass(frozen=True)
class ProtocolReport:
    """
    Result of a run.

    Attributes:
        protocol: its name.
        split: part of the data set.
        metrics: name -> fraction; empty where only a server has the annotations.
        count: how many pictures, videos, sentences or objects were measured.
        unit: which of these.
        files: what was written.
        note: one sentence for the reader, such as where a submission file goes.
        parts: figures of labels, sequences or data sets, as far as there are any.
    """

    protocol: str
    split: str
    metrics: dict[str, float]
    count: int
    unit: str
    files: list[Path] = field(default_factory=list)
    note: str = ""
    parts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values; a figure that does not exist (NaN) is None."""
        plain = {"protocol": self.protocol, "split": self.split, self.unit: self.count, "note": self.note}
        plain |= {"files": [str(file) for file in self.files]}
        return plain | {"metrics": _finite(self.metrics), "parts": _finite(self.parts)}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return None if isinstance(value, float) and value != value else value
