"""Open-world average recall as an `evaluate` metric: `evaluate.load("<this folder>")` works without network."""

import datasets
import evaluate

from lookhear.evaluation.measures import metric_rows
from lookhear.evaluation.measures.average_precision import class_agnostic_precision

DESCRIPTION = """
Average recall (and precision) of objects whatever they are called, over IoU thresholds from 0.5 to 0.95 (COCO's
definition, as UVO uses it); objects of known classes can be left out, so that it is the recall of unknown ones.
"""
INPUTS = """
Args:
    predictions: one per picture: {"scores": [float], "boxes": [[x0, y0, x1, y1]], "masks": [run lengths]}.
    references: one per picture: {"boxes", "masks"}; if wanted with "known" ([bool]: of a class that was trained on,
        counts neither as found nor as missed), "crowd" ([bool]) and "areas" ([float], square pixels).
    kind: "mask" (default) or "box".

Returns:
    {"AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large", "AP", "AP50"}: fractions, NaN where there is no
    such object
"""
CITATION = """
@inproceedings{wang2021,
  title = {Unidentified video objects: a benchmark for dense, open-world segmentation},
  author = {Wang, Weiyao and Feiszli, Matt and Wang, Heng and Tran, Du},
  booktitle = {ICCV},
  year = {2021}
}
"""


class OpenWorldAr(metric_rows.RowMetric):
    """Class-agnostic average recall."""

    def _info(self) -> evaluate.MetricInfo:
        objects = {"boxes": [metric_rows.BOX], "masks": [metric_rows.MASK]}
        marks = {
            "known": metric_rows.FLAGS,
            "crowd": metric_rows.FLAGS,
            "areas": metric_rows.SCORES,
        }
        columns = {"predictions": objects | {"scores": metric_rows.SCORES}, "references": objects | marks}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(columns),
            reference_urls=["https://sites.google.com/view/unidentified-video-object"],
        )

    def _compute(self, predictions: list[dict], references: list[dict], kind: str = "mask") -> dict:
        table = class_agnostic_precision(references, predictions, kind)
        return {
            **{f"AR_{limit}": table.average_recall(limit) for limit in table.limits},
            **{f"AR_{area}": table.average_recall(area=area) for area in ("small", "medium", "large")},
            "AP": table.average_precision(),
            "AP50": table.average_precision(0.5),
        }
