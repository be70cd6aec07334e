"""
Average precision of video instance segmentation as an `evaluate` metric: `evaluate.load("<this folder>")` works
without network.
"""

import datasets
import evaluate

from lookhear.evaluation.measures import metric_rows
from lookhear.evaluation.measures.average_precision import video_precision

DESCRIPTION = """
Average precision and recall of masks that are followed through videos (YouTube-VIS, OVIS, LV-VIS): COCO's definition
with the IoU of whole tracks, the sum of intersections over the sum of unions.
"""
INPUTS = """
Args:
    predictions: one per video: {"labels": [str], "scores": [float], "masks": [[run lengths or None]]}, each track one
        mask per frame, None where it is not seen; `lookhear.evaluation.measures.mask_runs.encode_mask` makes run
        lengths of a bool array.
    references: one per video: the same without scores; if wanted with "crowd" ([bool]).
    groups: {name: [label]} for averages over some labels, such as base and novel; None leaves it out.

Returns:
    {"AP", "AP50", "AP75", "AP_small" (below 128 x 128 pixels), "AP_medium", "AP_large" (above 256 x 256), "AR_1",
    "AR_10", "AR_100", and "AP_name" of each group: fractions, NaN where there is no such object;
    "labels": {label: AP}}
"""
CITATION = """
@inproceedings{yang2019,
  title = {Video instance segmentation},
  author = {Yang, Linjie and Fan, Yuchen and Xu, Ning},
  booktitle = {ICCV},
  year = {2019}
}
"""


class VisAp(metric_rows.RowMetric):
    """Average precision of tracks of masks."""

    def _info(self) -> evaluate.MetricInfo:
        objects = {"labels": metric_rows.NAMES, "masks": [[metric_rows.MASK]]}
        scores, crowd = {"scores": metric_rows.SCORES}, {"crowd": metric_rows.FLAGS}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": objects | scores, "references": objects | crowd}),
            reference_urls=["https://youtube-vos.org/dataset/vis/"],
        )

    def _compute(
        self, predictions: list[dict], references: list[dict], groups: dict[str, list[str]] | None = None
    ) -> dict:
        table = video_precision(references, predictions)
        return {
            "AP": table.average_precision(),
            "AP50": table.average_precision(0.5),
            "AP75": table.average_precision(0.75),
            **{f"AP_{area}": table.average_precision(area=area) for area in ("small", "medium", "large")},
            **{f"AR_{limit}": table.average_recall(limit) for limit in table.limits},
            **{f"AP_{name}": table.average_precision(labels=labels) for name, labels in (groups or {}).items()},
            "labels": table.by_label(),
        }
