"""Reasoning segmentation as an `evaluate` metric: `evaluate.load("<this folder>")` works without network."""

import datasets
import evaluate

from lookhear.evaluation.measures import metric_rows
from lookhear.evaluation.measures.shown_objects import shown_rates

DESCRIPTION = """
How well the masks of an answer show what a question about a picture means: gIoU (mean IoU of the samples, 1 where
neither has pixels) and cIoU (all intersections over all unions), the figures of ReasonSeg; and, where the right
answers are known, the share of answers that are right word for word and of those that rightly show nothing. All masks
of an answer count as one; ignored pixels count nowhere.
"""
INPUTS = """
Args:
    predictions: one per question: {"masks": [run lengths of each object shown], "text": the answer in words};
        `lookhear.evaluation.measures.mask_runs.encode_mask` makes run lengths of a bool array. No masks show nothing.
    references: one per question: {"masks": [run lengths of each object meant]}; if wanted with "ignored" (run lengths
        of pixels that count nowhere), "text" (the right answer) and "group" (a name; figures are also given by group).

Returns:
    {"gIoU", "cIoU", "words", "none": fractions, NaN where no question has such an answer; "samples": int,
    "groups": {name: the same}}. "words" is the share of answers with the right words (case, punctuation and "[SEG]"
    don't count) and the right number of masks; "none" the share that shows nothing where nothing is meant.
"""
CITATION = """
@inproceedings{lai2024,
  title = {{LISA}: reasoning segmentation via large language model},
  author = {Lai, Xin and Tian, Zhuotao and Chen, Yukang and Li, Yanwei and Yuan, Yuhui and Liu, Shu and Jia, Jiaya},
  booktitle = {CVPR},
  year = {2024}
}
"""


class ReasoningSegmentation(metric_rows.RowMetric):
    """gIoU and cIoU of the masks of answers."""

    def _info(self) -> evaluate.MetricInfo:
        answer = {"masks": [metric_rows.MASK], "text": datasets.Value("string")}
        truth = answer | {"ignored": metric_rows.MASK, "group": datasets.Value("string")}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": answer, "references": truth}),
            reference_urls=["https://github.com/dvlab-research/LISA"],
        )

    def _compute(self, predictions: list[dict], references: list[dict]) -> dict:
        return shown_rates(references, predictions)
