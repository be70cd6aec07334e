"""HOTA as an `evaluate` metric: `evaluate.load("<this folder>")` works without network."""

import datasets
import evaluate

from lookhear.evaluation.measures import metric_rows
from lookhear.evaluation.measures.hota import count_labels, count_videos, label_means
from lookhear.evaluation.measures.track_frames import read_videos

DESCRIPTION = """
HOTA, higher order tracking accuracy, with its parts DetA (detection) and AssA (association), and OWTA for open-world
tracking, averaged over IoU thresholds from 0.05 to 0.95. Without labels, or for each label with the mean over labels
(TAO, BURST).
"""
INPUTS = """
Args:
    predictions: one per frame: {"ids": [int], "boxes": [[x0, y0, x1, y1]], "masks": [run lengths], "labels": [str]},
        boxes or masks.
    references: one per frame: the same with "video" (str); the frames of a video follow each other.
        With by_label, if wanted, "absent" and "not_exhaustive" ([str], the same in all frames of a video): labels that
        the video does not have, and labels whose objects are not all marked. What is found of labels about which
        nothing is known is then left out.
    kind: "box" (default) or "mask".
    by_label: False (default) leaves labels aside; True gives the means over labels that occur in the references.

Returns:
    {"HOTA", "DetA", "AssA", "LocA", "DetRe", "DetPr", "AssRe", "AssPr", "OWTA": fractions;
    "videos": {video: the same}, or "labels": {label: the same}}
"""
CITATION = """
@article{luiten2021,
  title = {{HOTA}: a higher order metric for evaluating multi-object tracking},
  author = {Luiten, Jonathon and O\\v{s}ep, Aljo\\v{s}a and Dendorfer, Patrick and Torr, Philip and Geiger, Andreas and
            Leal-Taix{\\'e}, Laura and Leibe, Bastian},
  journal = {International Journal of Computer Vision},
  year = {2021}
}
"""


class Hota(metric_rows.RowMetric):
    """HOTA."""

    def _info(self) -> evaluate.MetricInfo:
        numbers, names = metric_rows.NUMBERS, metric_rows.NAMES
        objects = {"ids": numbers, "boxes": [metric_rows.BOX], "masks": [metric_rows.MASK], "labels": names}
        columns = {
            "predictions": objects,
            "references": objects | {"video": datasets.Value("string"), "absent": names, "not_exhaustive": names},
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(columns),
            reference_urls=["https://github.com/JonathonLuiten/TrackEval"],
        )

    def _compute(
        self, predictions: list[dict], references: list[dict], kind: str = "box", by_label: bool = False
    ) -> dict:
        videos = read_videos(references, predictions, kind)
        if not by_label:
            total, each = count_videos(videos)
            return total.rates() | {"videos": {name: counts.rates() for name, counts in each.items()}}
        each = count_labels(videos)
        return label_means(list(each.values())) | {"labels": {label: counts.rates() for label, counts in each.items()}}
