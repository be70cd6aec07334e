"""
CLEAR MOT and identity scores of tracking as an `evaluate` metric: `evaluate.load("<this folder>")` works without
network.
"""

import datasets
import evaluate

from lookhear.evaluation.measures import metric_rows
from lookhear.evaluation.measures.clear_mot import count_videos
from lookhear.evaluation.measures.track_frames import read_videos

DESCRIPTION = """
MOTA, MOTP, switches and fragmentations (CLEAR MOT) and IDF1 (identity) of tracked boxes or masks, counted as
py-motmetrics does. Labels do not count.
"""
INPUTS = """
Args:
    predictions: one per frame: {"ids": [int], "boxes": [[x0, y0, x1, y1]], "masks": [run lengths]}, boxes or masks.
    references: one per frame: the same with "video" (str); the frames of a video follow each other.
    kind: "box" (default) or "mask".
    threshold: IoU from which on two boxes may be a pair, 0.5 by default.

Returns:
    {"mota", "motp" (mean IoU of the pairs), "idf1", "idp", "idr", "recall", "precision": fractions; "switches",
    "fragmentations", "misses", "false_positives", "objects", "mostly_tracked", "partly_tracked", "mostly_lost",
    "frames": int; "videos": {video: the same}}
"""
CITATION = """
@article{bernardin2008,
  title = {Evaluating multiple object tracking performance: the {CLEAR} {MOT} metrics},
  author = {Bernardin, Keni and Stiefelhagen, Rainer},
  journal = {EURASIP Journal on Image and Video Processing},
  year = {2008}
}
@inproceedings{ristani2016,
  title = {Performance measures and a data set for multi-target, multi-camera tracking},
  author = {Ristani, Ergys and Solera, Francesco and Zou, Roger and Cucchiara, Rita and Tomasi, Carlo},
  booktitle = {ECCV Workshops},
  year = {2016}
}
"""


class Mot(metric_rows.RowMetric):
    """CLEAR MOT and identity scores of tracking."""

    def _info(self) -> evaluate.MetricInfo:
        numbers, names = metric_rows.NUMBERS, metric_rows.NAMES
        objects = {"ids": numbers, "boxes": [metric_rows.BOX], "masks": [metric_rows.MASK], "labels": names}
        columns = {"predictions": objects, "references": objects | {"video": datasets.Value("string")}}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(columns),
            reference_urls=["https://github.com/cheind/py-motmetrics"],
        )

    def _compute(
        self, predictions: list[dict], references: list[dict], kind: str = "box", threshold: float = 0.5
    ) -> dict:
        total, each = count_videos(read_videos(references, predictions, kind), threshold)
        return total.rates() | {"videos": {name: counts.rates() for name, counts in each.items()}}
