"""COCO's average precision as an `evaluate` metric: `evaluate.load("<this folder>")` works without network."""

import datasets
import evaluate

from lookhear.evaluation.measures import metric_rows
from lookhear.evaluation.measures.average_precision import picture_precision

DESCRIPTION = """
Average precision and recall of boxes or masks in pictures, as COCO defines them (pycocotools): averaged over IoU
thresholds from 0.5 to 0.95, over recall and over labels.
"""
INPUTS = """
Args:
    predictions: one per picture: {"labels": [str], "scores": [float], "boxes": [[x0, y0, x1, y1]],
        "masks": [run lengths]}, boxes or masks or both; `lookhear.evaluation.measures.mask_runs.encode_mask` makes run
        lengths of a bool array.
    references: one per picture: the same without scores; if wanted with "crowd" ([bool], a region of many objects) and
        "areas" ([float], square pixels, for small, medium and large; else the mask's or the box's).
    kind: "box" (default) or "mask": what is compared.

Returns:
    {"AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium",
    "AR_large": fractions, NaN where there is no such object; "labels": {label: AP}}
"""
CITATION = """
@inproceedings{lin2014,
  title = {Microsoft {COCO}: common objects in context},
  author = {Lin, Tsung-Yi and Maire, Michael and Belongie, Serge and Hays, James and Perona, Pietro and Ramanan, Deva
            and Doll{\\'a}r, Piotr and Zitnick, C. Lawrence},
  booktitle = {ECCV},
  year = {2014}
}
"""


class CocoAp(metric_rows.RowMetric):
    """COCO's average precision and recall."""

    def _info(self) -> evaluate.MetricInfo:
        objects = {"labels": metric_rows.NAMES, "boxes": [metric_rows.BOX], "masks": [metric_rows.MASK]}
        marks = {"crowd": metric_rows.FLAGS, "areas": metric_rows.SCORES}
        columns = {"predictions": objects | {"scores": metric_rows.SCORES}, "references": objects | marks}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(columns),
            reference_urls=["https://cocodataset.org/#detection-eval"],
        )

    def _compute(self, predictions: list[dict], references: list[dict], kind: str = "box") -> dict:
        table = picture_precision(references, predictions, kind)
        areas = ("small", "medium", "large")
        return {
            "AP": table.average_precision(),
            "AP50": table.average_precision(0.5),
            "AP75": table.average_precision(0.75),
            **{f"AP_{area}": table.average_precision(area=area) for area in areas},
            **{f"AR_{limit}": table.average_recall(limit) for limit in table.limits},
            **{f"AR_{area}": table.average_recall(area=area) for area in areas},
            "labels": table.by_label(),
        }
