"""Average precision and recall as COCO defines them: pycocotools' matching and accumulation, one label at a time.

Source: pycocotools.cocoeval, https://cocodataset.org/#detection-eval. A label at a time means that only the pictures
that have that label are looked at; some labels at a time are read from the rows, so that memory does not grow with a
large vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np

from lookhear.evaluation.measures.mask_runs import coco_mask, mask_area, to_runs

try:
    from pycocotools.cocoeval import COCOeval
except ImportError:
    raise ImportError("average precision needs pycocotools: pip install 'lookhear[eval]'") from None

THRESHOLDS = np.linspace(0.5, 0.95, 10)
WHOLE = 1e5**2
PICTURE_AREAS = {"": (0, WHOLE), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, WHOLE)}
VIDEO_AREAS = {"": (0, WHOLE), "small": (0, 128**2), "medium": (128**2, 256**2), "large": (256**2, WHOLE)}
LABELS_AT_ONCE = 150  # that are held in memory; the rows are gone through once for each such group
ObjectsByLabel = dict[str, dict[int, list[dict]]]  # label -> picture -> objects as pycocotools holds them


@dataclass(frozen=True)
class PrecisionTable:
    """
    Curves of all labels that occur in the truth.

    precision `(thresholds, recalls, labels, areas, limits)` and recall `(thresholds, labels, areas, limits)`, float64,
    -1 where nothing is to be found.
    """

    labels: list[str]
    precision: np.ndarray
    recall: np.ndarray
    areas: list[str]
    limits: list[int]

    def average_precision(
        self, threshold: float | None = None, area: str = "", labels: Sequence[str] | None = None
    ) -> float:
        """
        Returns the mean over thresholds (or one), recalls and labels (or some), at the highest limit; NaN without
        truth.
        """
        table = self.precision[_places(threshold)][..., self.areas.index(area), -1]
        return _mean(table[:, :, self._columns(labels)])

    def average_recall(self, limit: int | None = None, area: str = "", labels: Sequence[str] | None = None) -> float:
        """
        Returns the mean over thresholds and labels of the recall with at most `limit` results per picture (the
        highest).
        """
        table = self.recall[:, :, self.areas.index(area), -1 if limit is None else self.limits.index(limit)]
        return _mean(table[:, self._columns(labels)])

    def by_label(self) -> dict[str, float]:
        """Returns the average precision of each label."""
        return {label: self.average_precision(labels=[label]) for label in self.labels}

    def _columns(self, labels: Sequence[str] | None) -> list[int]:
        return [place for place, label in enumerate(self.labels) if labels is None or label in labels]


def picture_precision(
    references: Sequence[Mapping],
    predictions: Sequence[Mapping],
    kind: str = "box",
    limits: Sequence[int] = (1, 10, 100),
) -> PrecisionTable:
    """
    Computes precision and recall of boxes or masks in pictures.

    Args:
        references: of each picture `{"labels": [str], "boxes": [(x0, y0, x1, y1)], "masks": [run lengths]}`, boxes or
            masks as `kind` says, in pixels; if given, `crowd` (bool an object: a region of many, which is never
            missed) and `areas` (pixels, for small, medium and large; the mask's or the box's area).
        predictions: of each picture the same with `scores`, in the order of `references`.
        kind: "box" or "mask".
        limits: how many of the best results of a label count in a picture; the last one for AP.

    Raises:
        ValueError: predictions do not fit the references.
    """
    tables = []
    for labels in _groups(references):
        truth, found = read_pictures(references, predictions, kind, labels)
        tables.append(precision_table(truth, found, kind, limits))
    return _joined(tables)


def federated_precision(
    references: Sequence[Mapping], predictions: Sequence[Mapping], kind: str = "mask", limit: int = 300
) -> PrecisionTable:
    """
    Returns the same as LVIS defines it, where not every picture is annotated for every label.

    Source: Gupta, Dollar, Girshick: LVIS, CVPR 2019, section 2, and its evaluation code. A result counts where its
    label is in the picture or in the picture's `absent` labels; one that matches nothing is no error where the label
    is among `not_exhaustive`. The best `limit` results of a picture are taken over all labels.

    Args:
        references: see `picture_precision`; with `absent` and `not_exhaustive`, lists of labels.
    """
    open_labels = {
        (label, picture) for picture, row in enumerate(references) for label in row.get("not_exhaustive") or ()
    }
    tables = []
    for labels in _groups(references):
        truth, found = read_pictures(references, predictions, kind, labels, federated_limit=limit)
        tables.append(precision_table(truth, found, kind, (limit,), open_labels=open_labels))
    return _joined(tables)


def class_agnostic_precision(
    references: Sequence[Mapping],
    predictions: Sequence[Mapping],
    kind: str = "mask",
    limits: Sequence[int] = (1, 10, 100),
) -> PrecisionTable:
    """
    Computes precision and recall of objects whatever their label (open world): labels are ignored on both sides.

    `known` of the references (bool an object) marks objects that don't count either way, such as those of the classes
    that were trained on, so that the recall is that of the unknown ones.
    """
    references = [{**row, "labels": ["object"] * len(_column(row, kind))} for row in references]
    predictions = [{**row, "labels": ["object"] * len(row["scores"])} for row in predictions]
    return picture_precision(references, predictions, kind, limits)


def video_precision(
    references: Sequence[Mapping], predictions: Sequence[Mapping], limits: Sequence[int] = (1, 10, 100)
) -> PrecisionTable:
    """
    Computes precision and recall of masks that are tracked through videos (YouTube-VIS).

    Source: Yang, Fan, Xu: Video instance segmentation, ICCV 2019, section 4, and its evaluation code: the IoU of two
    tracks is the sum of all frames' intersections over the sum of all frames' unions; a track's area is the mean over
    the frames in which it is seen, small below 128 x 128 pixels, large above 256 x 256.

    Args:
        references: of each video `{"labels": [str], "masks": [track]}`, a track being one mask (run lengths) per frame
            or None; `crowd` if given.
        predictions: of each video the same with `scores`.
    """
    tables = []
    for labels in _groups(references):
        truth, found = read_tracks(references, predictions, labels)
        tables.append(precision_table(truth, found, "track", limits, areas=VIDEO_AREAS))
    return _joined(tables)


def read_tracks(
    references: Sequence[Mapping], predictions: Sequence[Mapping], labels: Sequence[str]
) -> tuple[ObjectsByLabel, ObjectsByLabel]:
    """Converts rows of videos to pycocotools' objects of some labels, by label and video."""
    wanted = set(labels)
    truth: ObjectsByLabel = {}
    found: ObjectsByLabel = {}
    numbers = iter(range(1, 1 << 62))
    for video, (reference, prediction) in enumerate(_pairs(references, predictions)):
        lengths = {len(track) for row in (reference, prediction) for track in row["masks"]}
        if len(lengths) > 1:
            raise ValueError(
                f"video {video}: its tracks have {sorted(lengths)} frames; pass one mask or None per frame"
            )
        for row, objects in ((reference, truth), (prediction, found)):
            for label, entry, track in zip(row["labels"], _entries(row, "masks", video), row["masks"]):
                if label in wanted:
                    runs = [None if mask is None else to_runs(mask) for mask in track]
                    areas = [area for area in (mask_area(mask) for mask in runs if mask) if area]
                    size = float(np.mean(areas)) if areas else 0.0
                    entry |= {"id": next(numbers), "segmentations": runs, "area": size}
                    objects.setdefault(label, {}).setdefault(video, []).append(entry)
    return truth, found


def read_pictures(
    references: Sequence[Mapping],
    predictions: Sequence[Mapping],
    kind: str,
    labels: Sequence[str] | None = None,
    federated_limit: int | None = None,
) -> tuple[ObjectsByLabel, ObjectsByLabel]:
    """
    Converts rows to pycocotools' objects, by label and picture.

    Args:
        labels: the only ones that are read.
        federated_limit: keep the best results of a picture over all labels, and of these what the picture is annotated
            for.
    """
    if kind not in ("box", "mask"):
        raise ValueError(f"kind has to be 'box' or 'mask', not {kind!r}")
    wanted = None if labels is None else set(labels)
    truth: ObjectsByLabel = {}
    found: ObjectsByLabel = {}
    numbers = iter(range(1, 1 << 62))  # pycocotools takes an id of 0 for no match
    for picture, (reference, prediction) in enumerate(_pairs(references, predictions)):
        known = None
        if federated_limit is not None:
            prediction = _best(prediction, federated_limit)
            known = {*reference["labels"], *(reference.get("absent") or ())}
        for row, objects, allowed in ((reference, truth, None), (prediction, found, known)):
            for index, entry in enumerate(_entries(row, "boxes" if kind == "box" else "masks", picture)):
                label = row["labels"][index]
                if (wanted is None or label in wanted) and (allowed is None or label in allowed):
                    entry |= _shape(row, kind, index) | {"id": next(numbers)}
                    objects.setdefault(label, {}).setdefault(picture, []).append(entry)
    return truth, found


def _shape(row: Mapping, kind: str, index: int) -> dict[str, Any]:
    """Returns a box or mask, and its area, by pycocotools' names."""
    if kind == "box":
        x0, y0, x1, y1 = row["boxes"][index]
        shape = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
    else:
        runs = to_runs(row["masks"][index])
        shape = {"segmentation": runs, "area": float(mask_area(runs))}
    return shape | ({"area": row["areas"][index]} if row.get("areas") else {})


def _groups(references: Sequence[Mapping]) -> list[list[str]]:
    """
    Yields labels that occur in the truth, some at a time; one empty group if there are none, so that rows are checked.
    """
    labels = sorted({label for row in references for label in row["labels"]})
    return [labels[first : first + LABELS_AT_ONCE] for first in range(0, max(len(labels), 1), LABELS_AT_ONCE)]


def _joined(tables: Sequence[PrecisionTable]) -> PrecisionTable:
    """Returns one table of several groups of labels."""
    labels = [label for table in tables for label in table.labels]
    precision = np.concatenate([table.precision for table in tables], axis=2)
    recall = np.concatenate([table.recall for table in tables], axis=1)
    return PrecisionTable(labels, precision, recall, tables[0].areas, tables[0].limits)


def precision_table(
    truth: ObjectsByLabel,
    found: ObjectsByLabel,
    kind: str,
    limits: Sequence[int],
    *,
    areas: Mapping[str, tuple[float, float]] = PICTURE_AREAS,
    open_labels: Set[tuple[str, int]] = frozenset(),
) -> PrecisionTable:
    """Computes pycocotools' curves for each label in the truth."""
    labels = sorted(truth)
    shape = (len(THRESHOLDS), 101, len(labels), len(areas), len(limits))
    precision, recall = np.full(shape, -1.0), np.full((shape[0], *shape[2:]), -1.0)
    for column, label in enumerate(labels):
        evaluation = _LabelEvaluation(truth[label], found.get(label, {}), kind, areas, limits)
        evaluation.open_pictures = (
            {picture for name, picture in open_labels if name == label} if open_labels else set()
        )
        with redirect_stdout(StringIO()):
            evaluation.evaluate()
            evaluation.accumulate()
        precision[:, :, column] = evaluation.eval["precision"][:, :, 0]
        recall[:, column] = evaluation.eval["recall"][:, 0]
    return PrecisionTable(labels, precision, recall, list(areas), list(limits))


class _Objects:
    """
    The objects of one label by picture, with the methods of `COCO` that pycocotools calls, without `COCO`'s index.
    """

    def __init__(self, objects: dict[int, list]):
        self.objects = objects

    def getAnnIds(self, imgIds: Sequence[int] = (), catIds: Sequence[int] = ()) -> list[tuple[int, int]]:
        """Returns the places of all objects: their picture, and their index in it."""
        return [(picture, index) for picture, entries in self.objects.items() for index in range(len(entries))]

    def loadAnns(self, ids: Sequence[tuple[int, int]]) -> list[dict]:
        """Returns the objects at these places, which know their picture from then on."""
        for picture, index in ids:
            self.objects[picture][index].update(image_id=picture, category_id=0)
        return [self.objects[picture][index] for picture, index in ids]

    def annToRLE(self, entry: dict) -> dict:
        """Returns the mask of an object, which is run lengths already."""
        return entry["segmentation"]


class _LabelEvaluation(COCOeval):
    """pycocotools' evaluation of one label."""

    def __init__(
        self, truth: dict[int, list], found: dict[int, list], kind: str, areas: Mapping, limits: Sequence[int]
    ):
        super().__init__(iouType="segm" if kind == "mask" else "bbox")
        self.cocoGt, self.cocoDt = _Objects(truth), _Objects(found)
        self.truth, self.found, self.tracks = truth, found, kind == "track"
        self.open_pictures: set[int] = set()
        self.params.imgIds, self.params.catIds = sorted({*truth, *found}), [0]
        self.params.iouThrs, self.params.maxDets = THRESHOLDS, list(limits)
        self.params.areaRng, self.params.areaRngLbl = [list(area) for area in areas.values()], list(areas)

    def computeIoU(self, imgId: int, catId: int) -> Any:
        """Overrides pycocotools' method: IoUs (found, truth) of one picture, the best result first."""
        truth, found = self.truth.get(imgId, []), self.found.get(imgId, [])
        for entry in truth:
            entry["ignore"] = entry["left_out"]  # pycocotools has just set it to `iscrowd`
        if not self.tracks:
            return super().computeIoU(imgId, catId)
        found = sorted(found, key=lambda entry: -entry["score"])[: self.params.maxDets[-1]]
        pairs = [[track_iou(one["segmentations"], other["segmentations"]) for other in truth] for one in found]
        return np.array(pairs) if found and truth else []

    def evaluateImg(self, imgId: int, catId: int, aRng: Sequence[float], maxDet: int) -> Any:
        """
        Overrides pycocotools' method: an unmatched result is no error where the label is not annotated exhaustively.
        """
        result = super().evaluateImg(imgId, catId, aRng, maxDet)
        if result is not None and imgId in self.open_pictures:
            result["dtIgnore"] = np.logical_or(result["dtIgnore"], result["dtMatches"] == 0)
        return result


def track_iou(one: Sequence[dict | None], other: Sequence[dict | None]) -> float:
    """
    Returns the sum of intersections over the sum of unions of two tracks of run lengths; 0 if both are always empty.
    """
    shared = union = 0
    for first, second in zip(one, other, strict=True):
        both = mask_area(coco_mask.merge([first, second], True)) if first and second else 0
        shared += both
        union += sum(mask_area(mask) for mask in (first, second) if mask) - both
    return shared / union if union else 0.0


def _best(row: Mapping, limit: int) -> Mapping:
    """Returns a picture's best results."""
    if len(row["scores"]) <= limit:
        return row
    order = np.argsort(-np.asarray(row["scores"], np.float64), kind="stable")[:limit]
    return {name: [values[place] for place in order] for name, values in row.items() if values is not None}


def _pairs(references: Sequence[Mapping], predictions: Sequence[Mapping]) -> Iterable[tuple[Mapping, Mapping]]:
    if len(references) != len(predictions):
        raise ValueError(f"references ({len(references)}) and predictions ({len(predictions)}) differ in number")
    return zip(references, predictions)


def _entries(row: Mapping, column: str, number: int) -> list[dict[str, Any]]:
    """Returns the beginnings of a row's objects, its columns checked."""
    count = len(row["labels"])
    names = [column, *(name for name in ("scores", "crowd", "known", "areas") if row.get(name))]
    for name in names:
        if len(row.get(name) or ()) != count:
            raise ValueError(f"row {number}: {count} labels, but {len(row.get(name) or ())} {name}")
    if row.get("scores") is not None:
        return [{"score": float(score)} for score in row["scores"]]
    crowd, known = (row.get(name) or [False] * count for name in ("crowd", "known"))
    return [{"iscrowd": int(many), "left_out": int(many or off)} for many, off in zip(crowd, known)]


def _column(row: Mapping, kind: str) -> Sequence:
    return row["boxes" if kind == "box" else "masks"]


def _places(threshold: float | None) -> list[int]:
    if threshold is None:
        return list(range(len(THRESHOLDS)))
    return [int(np.argmin(np.abs(THRESHOLDS - threshold)))]


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")
