"""COCO's average precision of boxes and masks (pycocotools) on rows of the corpora's schema."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from lookhear.evaluation.measures.average_precision import picture_precision
from lookhear.evaluation.measures.mask_runs import mask_area, to_runs
from lookhear.modeling.glee import GleeForObjectDetection
from lookhear.processing.glee import GleeProcessor
from lookhear.processing.glee.prompt_processing_glee import clean_label
from lookhear.training.glee.corpora.picture import take_picture

THRESHOLDS = {"": None, "50": 0.5, "75": 0.75}
TOP_K = 100


class CocoEvaluation:
    """
    Runs a model with all classes as labels on each picture, one by one.

    Args:
        rows: in the corpora's schema. Their categories may be written differently from `classes`, see [`clean_label`];
            objects of other categories are left out.
        classes: the labels, in this order.
        masks: whether masks are evaluated besides boxes.
    """

    def __init__(self, rows: Sequence[dict], classes: Sequence[str], masks: bool = True):
        self.rows, self.classes = rows, list(classes)
        self._names = {clean_label(name): name for name in classes}
        self.kinds = ("box", "mask") if masks else ("box",)

    @torch.no_grad()
    def detect(
        self,
        model: GleeForObjectDetection,
        processor: GleeProcessor,
        places: Sequence[int],
        progress: bool = False,
    ) -> list[dict]:
        """
        Detects objects in the rows at some places: COCO's results, with the row's number plus 1 as `image_id`.

        Args:
            model: in the mode for evaluation.
            processor: of the model.
            places: of rows.
            progress: whether a bar is shown.
        """
        device = model.device
        tokens = processor(labels=self.classes).to(device)
        labels = model.get_label_embeddings(tokens["input_ids"], tokens["attention_mask"])
        found = []
        for place in tqdm(places, "evaluation", file=sys.stderr, leave=False, disable=not progress):
            picture = take_picture(self.rows[place])
            inputs = processor(images=[picture.image.permute(1, 2, 0).numpy()]).to(device)
            outputs = model(**inputs, **labels)
            (answer,) = processor.post_process_objects(outputs, 0.0, [picture.size], TOP_K)
            boxes, scores = answer["boxes"].tolist(), answer["scores"].tolist()
            for score, label, (x0, y0, x1, y1), mask in zip(
                scores, answer["labels"].tolist(), boxes, answer["masks"].cpu()
            ):
                entry = {"image_id": place + 1, "category_id": label + 1, "score": score}
                found.append(entry | {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": to_runs(mask.numpy())})
        return found

    def precision(self, found: Sequence[dict]) -> dict[str, float]:
        """
        Computes average precisions.

        Args:
            found: results of [`CocoEvaluation.detect`] for all rows.

        Returns:
            `box_AP`, `box_AP50`, `box_AP75`, and the same of `mask`, in [0, 1]; `box_AP_NAME` of each class that
            occurs.
        """
        predictions = self._predictions(found)
        metrics: dict[str, float] = {}
        for kind in self.kinds:
            table = picture_precision(self._references(kind), predictions, kind)
            metrics |= {f"{kind}_AP{at}": _known(table.average_precision(value)) for at, value in THRESHOLDS.items()}
            of_class = table.by_label()
            metrics |= {f"{kind}_AP_{label}": of_class[label] for label in self.classes if label in of_class}
        return metrics

    def _references(self, kind: str = "box") -> list[dict[str, list]]:
        """Returns each row's annotations in the form of `picture_precision`. For the kind "mask", an object without
        one counts as a crowd that fills its box: whatever is found there is neither right nor wrong."""
        references = []
        for place in range(len(self.rows)):
            row = self.rows[place]
            size = row["height"], row["width"]
            columns: dict[str, list] = {"labels": [], "boxes": [], "masks": [], "areas": [], "crowd": []}
            for instance in row["objects"]:
                name = self._names.get(clean_label(str(instance["category"])))
                if name is None:
                    continue
                mask, ignored = _runs(instance["mask"], size), bool(instance["crowd"])
                if mask is None and kind == "mask":
                    mask, ignored = to_runs(box_pixels(instance["box"], size)), True
                values = (name, instance["box"], mask, _area(instance["box"], mask), ignored)
                for column, value in zip(columns.values(), values):
                    column.append(value)
            references.append(columns)
        return references

    def _predictions(self, found: Sequence[dict]) -> list[dict[str, list]]:
        """Returns COCO's results in the form of `picture_precision`."""
        rows: list[dict[str, list]] = [
            {"labels": [], "scores": [], "boxes": [], "masks": []} for _ in range(len(self.rows))
        ]
        for entry in found:
            row, (x, y, width, height) = rows[entry["image_id"] - 1], entry["bbox"]
            row["labels"].append(self.classes[entry["category_id"] - 1])
            row["scores"].append(entry["score"])
            row["boxes"].append([x, y, x + width, y + height])
            row["masks"].append(entry["segmentation"])
        return rows


def box_pixels(box: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """Returns `(height, width)` bool, True in the pixels that a box (x0, y0, x1, y1) touches."""
    x0, y0, x1, y1 = box
    pixels = np.zeros(size, dtype=bool)
    pixels[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)] = True
    return pixels


def _runs(mask: dict | None, size: tuple[int, int]) -> dict[str, Any] | None:
    """Converts a row's mask to pycocotools' run lengths."""
    if mask is None:
        return None
    return to_runs(mask["polygons"], size) if mask["polygons"] else to_runs({"size": size, "counts": mask["counts"]})


def _area(box: Sequence[float], mask: dict | None) -> float:
    x0, y0, x1, y1 = box
    return (x1 - x0) * (y1 - y0) if mask is None else float(mask_area(mask))


def _known(value: float) -> float:
    """Replaces NaN, if no class occurs, by 0."""
    return 0.0 if np.isnan(value) else value
