"""TETA as an `evaluate` metric: `evaluate.load("<this folder>")` works without network."""

import datasets
import evaluate

from lookhear.evaluation.measures import metric_rows
from lookhear.evaluation.measures.teta import teta
from lookhear.evaluation.measures.track_frames import read_videos

DESCRIPTION = """
TETA, track every thing accuracy: the mean of localisation (LocA), association (AssocA) and classification (ClsA),
averaged over labels, for data whose objects are not all marked (TAO): what is found away from every true object counts
neither way.
"""
INPUTS = """
Args:
    predictions: one per frame: {"ids": [int], "boxes": [[x0, y0, x1, y1]], "masks": [run lengths], "labels": [str]},
        boxes or masks.
    references: one per frame: the same with "video" (str); the frames of a video follow each other.
    kind: "box" (default) or "mask".
    margin: IoU with a true object from which on something found can be a false positive, 0.5 by default, or 0.75.

Returns:
    {"TETA", "LocA", "LocRe", "LocPr", "AssocA", "AssocRe", "AssocPr", "ClsA", "ClsRe", "ClsPr": fractions;
    "labels": {label: the same}}
"""
CITATION = """
@inproceedings{li2022,
  title = {Tracking every thing in the wild},
  author = {Li, Siyuan and Danelljan, Martin and Ding, Henghui and Huang, Thomas E. and Yu, Fisher},
  booktitle = {ECCV},
  year = {2022}
}
"""


class Teta(metric_rows.RowMetric):
    """TETA."""

    def _info(self) -> evaluate.MetricInfo:
        numbers, names = metric_rows.NUMBERS, metric_rows.NAMES
        objects = {"ids": numbers, "boxes": [metric_rows.BOX], "masks": [metric_rows.MASK], "labels": names}
        columns = {"predictions": objects, "references": objects | {"video": datasets.Value("string")}}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(columns),
            reference_urls=["https://github.com/SysCV/tet"],
        )

    def _compute(
        self, predictions: list[dict], references: list[dict], kind: str = "box", margin: float = 0.5
    ) -> dict:
        rates, each = teta(read_videos(references, predictions, kind), margin)
        return rates | {"labels": each}
