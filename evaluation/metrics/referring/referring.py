"""Referring expressions as an `evaluate` metric: `evaluate.load("<this folder>")` works without network."""

import datasets
import evaluate

from lookhear.evaluation.measures import metric_rows
from lookhear.evaluation.measures.referring import referring_rates

DESCRIPTION = """
How well sentences about one object are answered: share of sentences with an IoU of at least 0.5 to 0.9 (P@0.5 of boxes
is the figure of referring expression comprehension), overall IoU (all intersections over all unions, the figure of
RefCOCO's segmentation) and mean IoU.
"""
INPUTS = """
Args:
    predictions: one per sentence: {"box": [x0, y0, x1, y1], "mask": run lengths}, either or both, None for no answer;
        `lookhear.evaluation.measures.mask_runs.encode_mask` makes run lengths of a bool array.
    references: one per sentence: the same. A mask of None is a sentence about nothing.

Returns:
    {"box_P@0.5" ... "box_P@0.9", "box_oIoU", "box_mIoU", and the same with "mask_": fractions; "sentences": int}
"""
CITATION = """
@inproceedings{yu2016,
  title = {Modeling context in referring expressions},
  author = {Yu, Licheng and Poirson, Patrick and Yang, Shan and Berg, Alexander C. and Berg, Tamara L.},
  booktitle = {ECCV},
  year = {2016}
}
"""


class Referring(metric_rows.RowMetric):
    """Precision at IoU thresholds, overall and mean IoU of grounded sentences."""

    def _info(self) -> evaluate.MetricInfo:
        answer = {"box": metric_rows.BOX, "mask": metric_rows.MASK}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": answer, "references": answer}),
            reference_urls=["https://github.com/lichengunc/refer"],
        )

    def _compute(self, predictions: list[dict], references: list[dict]) -> dict:
        return referring_rates(references, predictions)
