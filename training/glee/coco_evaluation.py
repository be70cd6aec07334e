"""COCO's average precision of boxes and masks (pycocotools) on rows of the corpora's schema."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import torch

from lookhear.modeling.glee import GleeForObjectDetection
from lookhear.processing.glee import GleeProcessor
from lookhear.training.glee.corpora.picture import take_picture

KINDS = {"box": "bbox", "mask": "segm"}
TOP_K = 100


class CocoEvaluation:
    """
    Asks a model for all classes in each picture, one picture at a time.

    Args:
        rows: of the corpora's schema; classes: what is asked for, in this order.
        masks: whether masks are measured besides boxes.
    """

    def __init__(self, rows: Sequence[dict], classes: Sequence[str], masks: bool = True):
        self.rows, self.classes = rows, list(classes)
        self.kinds = {name: kind for name, kind in KINDS.items() if masks or name == "box"}

    @torch.no_grad()
    def detect(self, model: GleeForObjectDetection, processor: GleeProcessor, places: Sequence[int]) -> list[dict]:
        """What the model finds in the rows at some places: COCO's results, `image_id` counted from 1 as rows are from 0."""
        device = model.device
        tokens = processor(labels=self.classes).to(device)
        labels = model.get_label_embeddings(tokens["input_ids"], tokens["attention_mask"])
        found = []
        for place in places:
            picture = take_picture(self.rows[place])
            inputs = processor(images=[picture.image.permute(1, 2, 0).numpy()]).to(device)
            outputs = model(**inputs, **labels)
            (answer,) = processor.post_process_instance_segmentation(outputs, 0.0, [picture.size], TOP_K)
            boxes, scores = answer["boxes"].tolist(), answer["scores"].tolist()
            for score, label, (x0, y0, x1, y1), mask in zip(
                scores, answer["labels"].tolist(), boxes, answer["masks"].cpu()
            ):
                entry = {"image_id": place + 1, "category_id": label + 1, "score": score}
                found.append(entry | {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": encode_mask(mask.numpy())})
        return found

    def precision(self, found: Sequence[dict]) -> dict[str, float]:
        """
        Args:
            found: of [`CocoEvaluation.detect`], of all rows.
        Returns:
            `box_AP`, `box_AP50`, `box_AP75`, and the same of `mask`, from 0 to 1; `box_AP_NAME` of each class that occurs.
        """
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        metrics = {}
        with redirect_stdout(StringIO()):
            truth = COCO()
            truth.dataset = self._truth()
            truth.createIndex()
            for name, kind in self.kinds.items():
                if not found:
                    metrics |= {f"{name}_AP": 0.0, f"{name}_AP50": 0.0, f"{name}_AP75": 0.0}
                    continue
                evaluation = COCOeval(truth, truth.loadRes([dict(entry) for entry in found]), kind)
                evaluation.evaluate()
                evaluation.accumulate()
                table = evaluation.eval["precision"][:, :, :, 0, -1]  # (IoU thresholds, recalls, classes)
                metrics |= {f"{name}_AP{at}": _mean(table[part]) for at, part in PARTS.items()}
                for index, label in enumerate(self.classes):
                    if (table[..., index] > -1).any():
                        metrics[f"{name}_AP_{label}"] = _mean(table[..., index])
        return metrics

    def _truth(self) -> dict[str, Any]:
        annotations, images = [], []
        for place in range(len(self.rows)):
            row = self.rows[place]
            images.append({"id": place + 1, "height": row["height"], "width": row["width"]})
            for thing in row["objects"]:
                if thing["category"] in self.classes:
                    entry = {"id": len(annotations) + 1, "image_id": place + 1}
                    entry["category_id"] = self.classes.index(thing["category"]) + 1
                    annotations.append(entry | _annotation(thing, row))
        categories = [{"id": index + 1, "name": name} for index, name in enumerate(self.classes)]
        return {"info": {}, "images": images, "categories": categories, "annotations": annotations}


PARTS = {"": slice(None), "50": slice(0, 1), "75": slice(5, 6)}  # thresholds 0.5, 0.55, …


def _annotation(thing: dict, row: dict) -> dict[str, Any]:
    from pycocotools import mask as coco_mask

    x0, y0, x1, y1 = thing["box"]
    entry = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": int(thing["crowd"])}
    mask, size = thing["mask"], [row["height"], row["width"]]
    if mask is not None:
        if mask["polygons"] is not None:
            runs = coco_mask.merge(coco_mask.frPyObjects([list(polygon) for polygon in mask["polygons"]], *size))
        else:
            runs = {"size": size, "counts": mask["counts"].encode("ascii")}
        entry |= {"segmentation": runs, "area": float(coco_mask.area(runs))}
    return entry


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """`(height, width)` bool as pycocotools' run lengths."""
    from pycocotools import mask as coco_mask

    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if len(known) else 0.0
