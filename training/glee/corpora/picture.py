"""Decoded rows of the schema: pixels, boxes and masks as torchvision's tv_tensors, so that transforms fit together."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from lookhear.processing.glee.geometry_glee import resized_size
from lookhear.processing.glee.image_reading_glee import open_picture, read_images
from lookhear.training.glee.corpora.masks import Size, decode_mask
from lookhear.training.glee.corpora.reading import CorpusError


@dataclass(frozen=True)
class Picture:
    """
    A picture and its annotations.

    Attributes:
        id: of its row.
        image: `(3, height, width)` uint8, RGB.
        boxes: `(objects, 4)` float32, x0, y0, x1, y1 in pixels.
        masks: `(objects, height, width)` uint8, 0 or 1; None unless every object has one.
        categories: name of each object, or None if it is unlabelled.
        track_ids: the same for an object in all frames of a video; in stills the index in the row.
        expressions: sentence, and the indices of the objects that it names.
        incomplete: categories that must not be negatives here, as not all of their objects are annotated.
    """

    id: str
    image: tv_tensors.Image
    boxes: tv_tensors.BoundingBoxes
    masks: tv_tensors.Mask | None
    categories: tuple[str | None, ...]
    track_ids: tuple[int, ...]
    expressions: tuple[tuple[str, tuple[int, ...]], ...] = ()
    incomplete: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.categories)

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.image.shape[-2], self.image.shape[-1]

    def keep(self, objects: Sequence[int]) -> Picture:
        """Selects objects, in this order. A sentence stays if all objects that it names do."""
        places = {old: new for new, old in enumerate(objects)}
        expressions = tuple(
            (text, tuple(places[index] for index in named))
            for text, named in self.expressions
            if all(index in places for index in named)
        )
        chosen = torch.tensor(list(objects), dtype=torch.int64)
        return replace(
            self,
            boxes=tv_tensors.wrap(self.boxes[chosen], like=self.boxes),
            masks=None if self.masks is None else tv_tensors.wrap(self.masks[chosen], like=self.masks),
            categories=tuple(self.categories[index] for index in objects),
            track_ids=tuple(self.track_ids[index] for index in objects),
            expressions=expressions,
        )


def take_picture(row: dict, shortest: int | None = None) -> Picture:
    """
    Decodes a row. Crowds, and objects whose mask holds no pixel, are left out.

    Args:
        row: in the schema.
        shortest: a picture whose shorter side is longer is resized to it: a hundred masks of SA-1B would fill 300 MB.

    Raises:
        CorpusError: the file is missing or damaged or has another size than the annotated one, or a mask is damaged.
    """
    annotated = row["height"], row["width"]
    size = annotated if shortest is None or min(annotated) <= shortest else resized_size(annotated, shortest)
    image = decode_image(row, annotated)
    if size != annotated:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    used = [index for index, instance in enumerate(row["objects"]) if not instance["crowd"]]
    objects = [row["objects"][index] for index in used]
    masks = None
    if all(instance["mask"] is not None for instance in objects):
        masks = np.zeros((len(objects), *size), dtype=np.uint8)
        for index, instance in enumerate(objects):
            try:
                masks[index] = resize_masks(decode_mask(instance["mask"], annotated), size)
            except ValueError as error:
                raise CorpusError(f"image {row['id']}, object {used[index]}: {error}") from None
    places = {old: new for new, old in enumerate(used)}
    boxes = torch.tensor([instance["box"] for instance in objects], dtype=torch.float32).view(-1, 4)
    boxes *= torch.tensor([size[1] / annotated[1], size[0] / annotated[0]] * 2)
    picture = Picture(
        id=row["id"],
        image=tv_tensors.Image(torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()),  # (3, height, width)
        boxes=tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        masks=None if masks is None else tv_tensors.Mask(torch.from_numpy(masks)),
        categories=tuple(instance["category"] for instance in objects),
        track_ids=tuple(
            index if instance["track_id"] is None else instance["track_id"] for index, instance in enumerate(objects)
        ),
        expressions=tuple(
            (entry["text"], tuple(places[index] for index in entry["objects"]))
            for entry in row["expressions"]
            if entry["objects"] and all(index in places for index in entry["objects"])
        ),
        incomplete=tuple(row["incomplete"]),
    )
    return drop_vanished(picture)


def drop_vanished(picture: Picture) -> Picture:
    """Removes objects whose box is narrower than a pixel or whose mask is empty, and sentences about them."""
    extents = picture.boxes[:, 2:] - picture.boxes[:, :2]
    seen = (extents >= min(1.0, *picture.size)).all(dim=1)
    if picture.masks is not None:
        seen &= picture.masks.flatten(1).any(dim=1).bool()
    return picture if bool(seen.all()) else picture.keep(torch.nonzero(seen)[:, 0].tolist())


def resize_masks(masks: np.ndarray, size: Size) -> np.ndarray:
    """
    Resizes `(..., height, width)` by the pixels under the centres of the new ones (numpy is several times faster than
    torch).
    """
    if masks.shape[-2:] == size:
        return masks
    rows, columns = ((np.arange(new) + 0.5) * old / new for old, new in zip(masks.shape[-2:], size))
    return masks.take(columns.astype(np.int64), axis=-1).take(rows.astype(np.int64), axis=-2)


def decode_image(row: dict, size: Size | None = None) -> Image.Image:
    """
    Decodes an RGB picture: upright, or as it is stored if only that has the annotated size.

    Args:
        row: in the schema; its `id` and `image` are used.
        size: (height, width) that its annotations are for; None: any.

    Raises:
        CorpusError: the file is missing or damaged, or has another size.
    """
    image = row["image"]
    try:
        with open_picture(io.BytesIO(image["bytes"]) if image["bytes"] is not None else image["path"]) as opened:
            (picture,) = read_images(opened)
            if size is not None and (picture.height, picture.width) != size and (opened.height, opened.width) == size:
                picture = opened.convert("RGB")
    except FileNotFoundError:
        raise CorpusError(f"image {row['id']}: its file {image['path']} is missing") from None
    except (OSError, ValueError) as error:
        place = f" {image['path']}" if image["path"] else ""
        raise CorpusError(f"image {row['id']}: its file{place} cannot be read ({error})") from None
    if size is not None and (picture.height, picture.width) != size:
        raise CorpusError(
            f"image {row['id']}: it has {picture.height} x {picture.width} pixels, "
            f"but its annotations {size[0]} x {size[1]}"
        )
    return picture
