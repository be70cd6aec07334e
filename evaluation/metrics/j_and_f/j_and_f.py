"""J&F as an `evaluate` metric: `evaluate.load("<this folder>")` works without network."""

import datasets
import evaluate

from lookhear.evaluation.measures import metric_rows
from lookhear.evaluation.measures.region_contour import mean_rates, track_quality

DESCRIPTION = """
J (IoU of regions) and F (accuracy of contours) of objects that are followed through videos by their masks, as DAVIS
defines them: means over objects, recall (share of frames above 0.5) and decay (first quarter of the video less the
last one).
"""
INPUTS = """
Args:
    predictions: one per object: {"masks": [run lengths or None]}, one per frame;
        `lookhear.evaluation.measures.mask_runs.encode_mask` makes run lengths of a bool array.
    references: one per object: the same, if wanted with "name" (str).
    whole: count the first and the last frame, too; False (default) leaves them out, as DAVIS does.

Returns:
    {"J&F", "J", "J_recall", "J_decay", "F", "F_recall", "F_decay": fractions; "objects": [{"name", "J&F", "J", ...}]}
"""
CITATION = """
@inproceedings{perazzi2016,
  title = {A benchmark dataset and evaluation methodology for video object segmentation},
  author = {Perazzi, Federico and Pont-Tuset, Jordi and McWilliams, Brian and Van Gool, Luc and Gross, Markus and
            Sorkine-Hornung, Alexander},
  booktitle = {CVPR},
  year = {2016}
}
"""


class JAndF(metric_rows.RowMetric):
    """Region similarity and contour accuracy."""

    def _info(self) -> evaluate.MetricInfo:
        track = {"masks": [metric_rows.MASK]}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {"predictions": track, "references": track | {"name": datasets.Value("string")}}
            ),
            reference_urls=["https://davischallenge.org/"],
        )

    def _compute(self, predictions: list[dict], references: list[dict], whole: bool = False) -> dict:
        objects, names = [], []
        for reference, prediction in zip(references, predictions, strict=True):
            objects.append(track_quality(reference["masks"], prediction["masks"], whole))
            names.append(reference.get("name"))
        rates = [{"name": name, **quality.rates()} for name, quality in zip(names, objects)]
        return mean_rates(objects) | {"objects": rates}
