"""A contact sheet: detected objects beside the annotated ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lookhear.processing.glee import draw_objects
from lookhear.training.glee.corpora.picture import Picture

MARGIN, HEADING, LETTERS = 8, 24, 12  # pixels on the sheet


def annotated_objects(picture: Picture) -> list[dict[str, Any]]:
    """Returns annotations in the form of the pipeline `object-perception`, without scores."""
    objects = []
    for index, (label, box) in enumerate(zip(picture.categories, picture.boxes.tolist())):
        entry: dict[str, Any] = {"label": label or "object", "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), box))}
        if picture.masks is not None:
            entry["mask"] = picture.masks[index].numpy().astype(bool)
        objects.append(entry)
    return objects


def contact_sheet(
    pictures: Sequence[Picture], found: Sequence[Sequence[Mapping[str, Any]]], width: int = 400, columns: int = 2
) -> Image.Image:
    """
    Draws pairs of a picture with the detected objects (left) and with the annotated ones (right).

    Args:
        pictures: with their annotations.
        found: for each picture the results of the pipeline `object-perception`.
        width: of a picture on the sheet, in pixels.
        columns: pairs side by side.

    Returns:
        The sheet.
    """
    pairs = []
    for picture, objects in zip(pictures, found):
        image = Image.fromarray(picture.image.permute(1, 2, 0).numpy())
        letters = max(1, round(LETTERS * image.width / width))
        drawn = [draw_objects(image, each, text_size=letters) for each in (objects, annotated_objects(picture))]
        height = round(image.height * width / image.width)
        pairs.append([side.resize((width, height), Image.Resampling.LANCZOS) for side in drawn])
    rows = [pairs[first : first + columns] for first in range(0, len(pairs), columns)]
    heights = [max(pair[0].height for pair in row) for row in rows]
    columns = max(map(len, rows), default=0)
    size = (columns * (2 * width + 2 * MARGIN) + MARGIN, HEADING + sum(heights) + MARGIN * (len(rows) + 1))
    sheet = Image.new("RGB", size, "white")
    write, font = ImageDraw.Draw(sheet), ImageFont.load_default(HEADING * 0.6)
    for column in range(columns):
        left = MARGIN + column * (2 * width + 2 * MARGIN)
        write.text((left, MARGIN), "found", "black", font)
        write.text((left + width, MARGIN), "annotated", "black", font)
    top = HEADING + MARGIN
    for row, height in zip(rows, heights):
        for column, pair in enumerate(row):
            left = MARGIN + column * (2 * width + 2 * MARGIN)
            for index, side in enumerate(pair):
                sheet.paste(side, (left + index * width, top))
        top += height + MARGIN
    return sheet


def as_results(found: Sequence[Mapping[str, Any]], classes: Sequence[str], threshold: float) -> list[dict[str, Any]]:
    """Converts COCO results of a picture, down to a threshold, to the pipeline's form, best first."""
    from pycocotools import mask as coco_mask

    results = []
    for entry in sorted(found, key=lambda entry: -entry["score"]):
        if entry["score"] >= threshold:
            x, y, width, height = entry["bbox"]
            box = {"xmin": x, "ymin": y, "xmax": x + width, "ymax": y + height}
            mask = np.asarray(coco_mask.decode(entry["segmentation"])).astype(bool)
            label = classes[entry["category_id"] - 1]
            results.append({"score": entry["score"], "label": label, "box": box, "mask": mask})
    return results
