"""LVIS' average precision as an `evaluate` metric: `evaluate.load("<this folder>")` works without network."""

import datasets
import evaluate

from lookhear.evaluation.measures import metric_rows
from lookhear.evaluation.measures.average_precision import federated_precision

DESCRIPTION = """
Average precision of boxes or masks where not every picture is annotated for every label (LVIS): what is found counts
in pictures that have the label or are known not to have it; at most 300 results per picture over all labels.
"""
INPUTS = """
Args:
    predictions: one per picture: {"labels": [str], "scores": [float], "boxes": [[x0, y0, x1, y1]],
        "masks": [run lengths]}.
    references: one per picture: the same without scores, with "absent" ([str], labels that the picture does not have),
        "not_exhaustive" ([str], labels whose objects are not all marked) and if wanted "areas"
        ([float], square pixels).
    kind: "mask" (default) or "box".
    frequencies: {label: "r", "c" or "f"} for the average over rare, common and frequent labels; None leaves it out.

Returns:
    {"AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR", with frequencies "AP_rare", "AP_common",
    "AP_frequent": fractions, NaN where there is no such object; "labels": {label: AP}}
"""
CITATION = """
@inproceedings{gupta2019,
  title = {{LVIS}: a dataset for large vocabulary instance segmentation},
  author = {Gupta, Agrim and Doll{\\'a}r, Piotr and Girshick, Ross},
  booktitle = {CVPR},
  year = {2019}
}
"""
FREQUENCIES = {"rare": "r", "common": "c", "frequent": "f"}


class LvisAp(metric_rows.RowMetric):
    """LVIS' average precision."""

    def _info(self) -> evaluate.MetricInfo:
        objects = {"labels": metric_rows.NAMES, "boxes": [metric_rows.BOX], "masks": [metric_rows.MASK]}
        marks = {"absent": metric_rows.NAMES, "not_exhaustive": metric_rows.NAMES}
        marks["areas"] = metric_rows.SCORES
        columns = {"predictions": objects | {"scores": metric_rows.SCORES}, "references": objects | marks}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(columns),
            reference_urls=["https://www.lvisdataset.org/challenge_2021"],
        )

    def _compute(
        self,
        predictions: list[dict],
        references: list[dict],
        kind: str = "mask",
        frequencies: dict[str, str] | None = None,
    ) -> dict:
        table = federated_precision(references, predictions, kind)
        result = {
            "AP": table.average_precision(),
            "AP50": table.average_precision(0.5),
            "AP75": table.average_precision(0.75),
            **{f"AP_{area}": table.average_precision(area=area) for area in ("small", "medium", "large")},
            "AR": table.average_recall(),
        }
        if frequencies:
            for name, letter in FREQUENCIES.items():
                labels = [label for label, frequency in frequencies.items() if frequency == letter]
                result[f"AP_{name}"] = table.average_precision(labels=labels)
        return result | {"labels": table.by_label()}
