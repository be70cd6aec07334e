"""From the network's outputs to scores, boxes and masks in pixels of the picture.

`outputs` is what `GleeForObjectDetection` returns, or any mapping with the same names, R rows of Q queries each:
`logits` `(R, Q, K)`, `pred_boxes` `(R, Q, 4)`, `pred_masks` `(R, Q, h, w)`, `image_sizes` and
`padded_sizes` `(R, 2)`. A row is an image with labels, or one prompt.

A score is the class probability times the quality of the mask: the mean probability of the pixels inside it. Masks are
enlarged for the best queries only, each query once; on a CPU one after another. The host chooses queries and results,
for which an accelerator is waited for a few times for all rows together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torchvision.ops import box_iou

from .geometry_glee import Size, boxes_to_picture, fetch_masks, in_parts, masks_to_picture, on_host, store_masks

Keep = Callable[[torch.Tensor], Sequence[Any]]  # what is kept of each of (n, height, width) bool masks

SAME = 0.8  # overlap of boxes and of masks from which two queries are of one object
LARGE = 4_000_000  # pixels of a picture, above which scores alone are computed at the resized image, others in parts
TOP_K = 100  # results of one image before the threshold, as COCO counts them; LVIS counts 300


def post_process_object_detection(
    outputs: Mapping[str, Any],
    threshold: float = 0.1,
    target_sizes: torch.Tensor | Sequence[Size] | None = None,
    top_k: int | None = TOP_K,
    one_label: bool = False,
) -> list[dict[str, torch.Tensor]]:
    """
    Returns the objects of each image, best first.

    Args:
        outputs: see above.
        threshold: the lowest score of a result; 0.0 returns everything.
        target_sizes: `(height, width)` of each picture, `(R, 2)`. Without it boxes are relative to the picture, from 0
            to 1, and masks have the size of the resized image.
        top_k: number of pairs of query and label with the highest class probability that may be results; `None` for
            all.
        one_label: whether an object is a result of its best label only.

    Returns:
        One dict per row: `scores` `(n,)` float32 from 0 to 1, `labels` `(n,)` int64 indices of the labels, `boxes`
        `(n, 4)` float32 (x0, y0, x1, y1), which may reach beyond the picture. One query may be a result of several
        labels, unless `one_label` is set. Of pictures above 4 megapixels, scores may differ by thousandths from those
        that are computed with masks.

    Raises:
        ValueError: `target_sizes` doesn't have one size per row, or `top_k` is less than 1.
    """
    return _on_device(outputs, _post_process(outputs, threshold, target_sizes, top_k, one_label))


def post_process_objects(
    outputs: Mapping[str, Any],
    threshold: float = 0.1,
    target_sizes: torch.Tensor | Sequence[Size] | None = None,
    top_k: int | None = TOP_K,
    one_label: bool = False,
) -> list[dict[str, torch.Tensor]]:
    """Returns the objects of each image as `post_process_object_detection` does, with `masks` `(n, height, width)`
    bool."""
    return _on_device(outputs, _post_process(outputs, threshold, target_sizes, top_k, one_label, _pixels))


def encoded_objects(
    outputs: Mapping[str, Any],
    threshold: float,
    target_sizes: torch.Tensor | Sequence[Size] | None,
    top_k: int | None = TOP_K,
    one_label: bool = False,
    with_masks: bool = True,
) -> list[dict[str, Any]]:
    """Returns the objects of each image as `post_process_objects` does, on the host, with `masks` as a list of
    [`RunLengthMask`], or without them. On a CPU the pixels of one mask are in memory at a time."""
    return _post_process(outputs, threshold, target_sizes, top_k, one_label, store_masks if with_masks else None)


def encoded_grounding(
    outputs: Mapping[str, Any], target_sizes: torch.Tensor | Sequence[Size] | None, threshold: float = 0.0
) -> list[dict[str, Any]]:
    """Returns the object of each expression as `post_process_grounding` does, in the form of `encoded_objects`."""
    _check_one_class(outputs)
    return _post_process(outputs, threshold, target_sizes, top_k=1, keep=store_masks)


def encoded_interactive(
    outputs: Mapping[str, Any], target_sizes: torch.Tensor | Sequence[Size] | None
) -> list[dict[str, Any]]:
    """Returns the object of each prompt as `post_process_interactive` does, in the form of `encoded_objects`."""
    return _post_process_prompts(outputs, target_sizes, store_masks)


def _pixels(masks: torch.Tensor) -> Sequence[torch.Tensor]:
    return list(masks)


def post_process_instance_segmentation(
    outputs: Mapping[str, Any],
    threshold: float = 0.1,
    target_sizes: torch.Tensor | Sequence[Size] | None = None,
    top_k: int | None = TOP_K,
    one_label: bool = False,
    return_binary_maps: bool = False,
) -> list[dict[str, Any]]:
    """
    Returns the objects of each image in the form of transformers' models for segmentation, and in our own.

    Args:
        outputs: see above.
        threshold: the lowest score of a result; 0.0 returns everything.
        target_sizes: see `post_process_object_detection`.
        top_k: see there.
        one_label: see there.
        return_binary_maps: whether `segmentation` is `(n, height, width)`, one map of 0 and 1 for each object.

    Returns:
        One dict per row: `segmentation` `(height, width)` int32, in each pixel the id of the best object there, -1 for
        none; `segments_info`, for each object `{"id", "label_id", "score", "was_fused"}`, best first; and `scores`,
        `labels`, `boxes` and `masks`, see `post_process_objects`, which does not lose hidden parts.

    Raises:
        ValueError: see `post_process_object_detection`.
    """
    results: list[dict[str, Any]] = []
    for found in post_process_objects(outputs, threshold, target_sizes, top_k, one_label):
        masks, pairs = found["masks"], zip(found["labels"].tolist(), found["scores"].tolist())
        segments = [
            {"id": place, "label_id": label, "score": round(score, 6), "was_fused": False}
            for place, (label, score) in enumerate(pairs)
        ]
        if return_binary_maps:
            segmentation = masks.int()
        else:
            segmentation = torch.full(masks.shape[1:], -1, dtype=torch.int32, device=masks.device)
            for place in reversed(range(len(masks))):  # the best last, on top
                segmentation[masks[place]] = place
        results.append({"segmentation": segmentation, "segments_info": segments, **found})
    return results


def post_process_grounded_object_detection(
    outputs: Mapping[str, Any],
    input_ids: torch.Tensor | None = None,
    threshold: float = 0.25,
    text_threshold: float | None = None,
    target_sizes: torch.Tensor | Sequence[Size] | None = None,
    text_labels: Sequence[Any] | None = None,
) -> list[dict[str, Any]]:
    """
    Returns the objects of each image with the names of their labels, as transformers' grounding models do.

    Args:
        outputs: see above.
        input_ids: not needed; other models find names in it.
        threshold: the lowest score of a result.
        text_threshold: not needed, as a label is scored as a whole.
        target_sizes: see `post_process_object_detection`.
        text_labels: the labels that were looked for, one list for all images, or one for each.

    Returns:
        One dict per row, see `post_process_object_detection`, with `text_labels`, the names of its n labels, or None
        without `text_labels`.

    Raises:
        ValueError: `text_labels` are not those of `outputs`, or see `post_process_object_detection`.
    """
    rows, count = len(outputs["logits"]), outputs["logits"].shape[-1]
    names = None
    if text_labels is not None:
        flat = all(isinstance(label, str) for label in text_labels)
        names = [list(text_labels)] * rows if flat else [list(labels) for labels in text_labels]
        if len(names) != rows or any(len(labels) != count for labels in names):
            raise ValueError(
                f"text_labels must be the {count} labels that were looked for, or a list of them for each of {rows} "
                f"images, got {text_labels!r}"
            )
    results: list[dict[str, Any]] = []
    for row, found in enumerate(post_process_object_detection(outputs, threshold, target_sizes)):
        named = None if names is None else [names[row][label] for label in found["labels"].tolist()]
        results.append({**found, "text_labels": named})
    return results


def post_process_open_world(
    outputs: Mapping[str, Any],
    threshold: float = 0.1,
    target_sizes: torch.Tensor | Sequence[Size] | None = None,
    top_k: int | None = TOP_K,
) -> list[dict[str, torch.Tensor]]:
    """
    Returns the objects of each image for the one label "object", which stands for all kinds.

    Args:
        outputs: see above, of the label "object".
        threshold: the lowest score of a result.
        target_sizes: `(height, width)` of each picture, `(R, 2)`.
        top_k: number of queries with the highest class probability that may be results; `None` for all.

    Returns:
        One dict per row, see `post_process_objects`.

    Raises:
        ValueError: `outputs` are those of several labels, or `target_sizes` doesn't have one size per row.
    """
    _check_one_class(outputs)
    return _on_device(outputs, _post_process(outputs, threshold, target_sizes, top_k, keep=_pixels))


def post_process_grounding(
    outputs: Mapping[str, Any],
    target_sizes: torch.Tensor | Sequence[Size] | None = None,
    prompt_image_indices: torch.Tensor | None = None,
    threshold: float = 0.0,
) -> list[dict[str, torch.Tensor]]:
    """
    Returns the one object of each expression.

    Args:
        outputs: see above, one row per expression.
        target_sizes: `(height, width)` of each row's picture; of each image, if `prompt_image_indices` is given.
        prompt_image_indices: `(R,)`, the image of each row, as the processor returns it.
        threshold: the lowest score of a result.

    Returns:
        One dict per expression, see `post_process_objects`, with n = 1, or 0 below the threshold.

    Raises:
        ValueError: `outputs` are those of several labels, or `target_sizes` doesn't have one size per row.
    """
    _check_one_class(outputs)
    target_sizes = _sizes_of_rows(target_sizes, prompt_image_indices)
    return _on_device(outputs, _post_process(outputs, threshold, target_sizes, top_k=1, keep=_pixels))


def post_process_interactive(
    outputs: Mapping[str, Any],
    target_sizes: torch.Tensor | Sequence[Size] | None = None,
    prompt_image_indices: torch.Tensor | None = None,
) -> list[dict[str, torch.Tensor]]:
    """
    Returns the one object of each point, box, scribble or mask.

    Args:
        outputs: see above, one row per prompt.
        target_sizes: `(height, width)` of each row's picture; of each image, if `prompt_image_indices` is given.
        prompt_image_indices: `(R,)`, the image of each row, as the processor returns it.

    Returns:
        One dict per prompt, see `post_process_objects`, with n = 1: the query of the highest probability
        of the class "object", as in the demo of GLEE. That probability is the score.

    Raises:
        ValueError: `outputs` are those of several labels, or `target_sizes` doesn't have one size per row.
    """
    sizes = _sizes_of_rows(target_sizes, prompt_image_indices)
    return _on_device(outputs, _post_process_prompts(outputs, sizes, _pixels))


class _RowSizes(NamedTuple):
    """(height, width) of a row's padded image, of the part of it that is not padding, and of the picture, if known."""

    padded: Size
    image: Size
    target: Size | None


@dataclass(frozen=True)
class _Enlarged:
    """
    Some queries of one row.

    Attributes:
        numbers: `(n, 5)` float32, the qualities of their masks, and their boxes as the network has them.
        masks: what is kept of their masks; empty where masks are left out.
    """

    numbers: torch.Tensor
    masks: list[Any]


@torch.no_grad()
def _post_process(
    outputs: Mapping[str, Any],
    threshold: float,
    target_sizes: torch.Tensor | Sequence[Size] | None,
    top_k: int | None,
    one_label: bool = False,
    keep: Keep | None = None,
) -> list[dict[str, Any]]:
    """Returns the objects of each row, on the host; `keep` converts masks, None leaves masks out."""
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, or None for all, got {top_k}")
    sizes = _sizes(outputs, target_sizes)
    labels = outputs["logits"].shape[-1]
    probabilities, pairs = _best_pairs(outputs["logits"], top_k, one_label)
    chosen = [index[row >= max(threshold, 0.0)] for row, index in zip(probabilities, pairs)]  # a mask lowers a score
    queries = [(index // labels).unique(return_inverse=True) for index in chosen]
    enlarged = [_enlarge(outputs, row, queries[row][0], size, keep) for row, size in enumerate(sizes)]
    results: list[dict[str, Any]] = []
    for row, numbers in enumerate(on_host([each.numbers for each in enlarged])):
        places = queries[row][1]
        scores, order = (probabilities[row, : len(places)] * numbers[places, 0]).sort(descending=True, stable=True)
        above = scores >= threshold
        scores, order, places = scores[above], order[above], places[order[above]]
        boxes = _boxes(numbers[places, 1:], sizes[row])
        if one_label:
            distinct = _distinct(boxes, outputs["pred_masks"][row, _sent(queries[row][0][places], outputs)])
            scores, order, boxes, places = scores[distinct], order[distinct], boxes[distinct], places[distinct]
        results.append({"scores": scores, "labels": (chosen[row] % labels)[order], "boxes": boxes})
        if keep is not None:
            results[row]["masks"] = [enlarged[row].masks[place] for place in places.tolist()]
    return _with_masks(results, sizes, outputs, keep)


@torch.no_grad()
def _post_process_prompts(
    outputs: Mapping[str, Any], target_sizes: torch.Tensor | Sequence[Size] | None, keep: Keep
) -> list[dict[str, Any]]:
    """Returns the most probable query of each row, on the host; `keep` converts masks."""
    _check_one_class(outputs)
    sizes = _sizes(outputs, target_sizes)
    logits, queries = outputs["logits"].float().reshape(len(sizes), -1).max(dim=1, keepdim=True)  # (R, 1) of (R, Q)
    enlarged = [_enlarge(outputs, row, queries[row], size, keep) for row, size in enumerate(sizes)]
    scores, *numbers = on_host([logits.sigmoid(), *(each.numbers for each in enlarged)])
    results: list[dict[str, Any]] = [
        {
            "scores": scores[row],
            "labels": torch.zeros(1, dtype=torch.int64),
            "boxes": _boxes(of_row[:, 1:], sizes[row]),
            "masks": enlarged[row].masks,
        }
        for row, of_row in enumerate(numbers)
    ]
    return _with_masks(results, sizes, outputs, keep)


def _best_pairs(logits: torch.Tensor, top_k: int | None, one_label: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes the highest probabilities of each row and their pairs, query times labels plus label; both on the host,
    `(R, at most top_k)`, best first."""
    probabilities = logits.float().sigmoid()  # (R, Q, K)
    if one_label:
        best = probabilities == probabilities.amax(dim=-1, keepdim=True)
        probabilities = probabilities.where(best & (best.cumsum(dim=-1) == 1), -1.0)  # the first of equal ones
    probabilities = probabilities.flatten(1)
    found = probabilities.topk(min(top_k or probabilities.shape[1], probabilities.shape[1]))
    return found.values.cpu(), found.indices.cpu()


def _distinct(boxes: torch.Tensor, logits: torch.Tensor) -> list[int]:
    """Chooses the best of the results, n `boxes` and masks `(n, h, w)`, best first, that are of one object."""
    masks = (logits > 0).flatten(1).float()
    areas, shared = masks.sum(dim=1), masks @ masks.T
    overlaps = shared / (areas[:, None] + areas - shared).clamp(min=1)
    same = (box_iou(boxes, boxes) > SAME) & (overlaps > SAME).cpu()
    chosen: list[int] = []
    for place in range(len(boxes)):
        if not bool(same[place, chosen].any()):
            chosen.append(place)
    return chosen


def _enlarge(
    outputs: Mapping[str, Any], row: int, queries: torch.Tensor, sizes: _RowSizes, keep: Keep | None
) -> _Enlarged:
    """Measures the masks of n queries `(n,)` at the size of the picture, and keeps them."""
    target = sizes.target or sizes.image
    if keep is None and target[0] * target[1] > LARGE:
        target = sizes.image
    queries = _sent(queries, outputs)
    logits = outputs["pred_masks"][row, queries]  # (n, h, w)
    qualities, kept = [logits.new_zeros(0, dtype=torch.float32)], list[Any]()
    for part in in_parts(logits, sizes.padded, target):
        full = masks_to_picture(logits[part].float(), sizes.padded, sizes.image, target)  # (some, height, width)
        inside = full > 0
        qualities.append(_qualities(full, inside))
        if keep is not None:
            kept += keep(inside)
        del full, inside  # before the next ones are enlarged
    numbers = torch.cat((torch.cat(qualities)[:, None], outputs["pred_boxes"][row, queries].float()), dim=1)
    return _Enlarged(numbers, kept)


def _qualities(logits: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Computes the mean probability inside each of `(n, height, width)` masks, `(n,)`, 0 for an empty one."""
    if logits.device.type == "cpu":  # most pixels are outside
        return torch.stack([_mean_inside(values, mask) for values, mask in zip(logits, inside)])
    return logits.sigmoid().where(inside, 0.0).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)


def _mean_inside(logits: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Computes the mean probability `()` inside a `(height, width)` mask, 0 for an empty one."""
    if logits.numel() <= LARGE:
        return logits[inside].sigmoid().mean().nan_to_num(0.0)  # of no pixel the mean is NaN
    rows = max(1, LARGE // logits.shape[1])  # summed up in parts, as selecting takes 16 bytes for each pixel
    parts = zip(logits.split(rows), inside.split(rows))
    total = sum(float(part.sigmoid().mul_(mask).sum()) for part, mask in parts)
    return logits.new_tensor(total / max(1, int(inside.count_nonzero())))


def _with_masks(
    results: list[dict[str, Any]], sizes: Sequence[_RowSizes], outputs: Mapping[str, Any], keep: Keep | None
) -> list[dict[str, Any]]:
    """Converts what was kept of the results' masks: pixels to one tensor, others to run lengths; each query's once."""
    if keep is None:
        return results
    if keep is _pixels:
        for found, size in zip(results, sizes):
            empty = outputs["pred_masks"].new_zeros((0, *(size.target or size.image)), dtype=torch.bool)
            found["masks"] = torch.stack(found["masks"]) if found["masks"] else empty
        return results
    kept = {id(mask): mask for found in results for mask in found["masks"]}
    fetched = dict(zip(kept, fetch_masks(list(kept.values()))))
    return [{**found, "masks": [fetched[id(mask)] for mask in found["masks"]]} for found in results]


def _on_device(outputs: Mapping[str, Any], results: list[dict[str, Any]]) -> list[dict[str, torch.Tensor]]:
    """Moves results to where the outputs are."""
    device = outputs["logits"].device
    return [{name: value.to(device) for name, value in found.items()} for found in results]


def _sent(queries: torch.Tensor, outputs: Mapping[str, Any]) -> torch.Tensor:
    return queries.to(outputs["pred_masks"].device)


def _boxes(boxes: torch.Tensor, sizes: _RowSizes) -> torch.Tensor:
    """Converts `(n, 4)` boxes of the network to (x0, y0, x1, y1) in pixels of the picture, or relative to it."""
    return boxes_to_picture(boxes, sizes.padded, sizes.image, sizes.target or (1, 1))


def _sizes(outputs: Mapping[str, Any], target_sizes: torch.Tensor | Sequence[Size] | None) -> list[_RowSizes]:
    """Returns the sizes of each row as whole numbers."""
    padded, image = torch.stack((outputs["padded_sizes"], outputs["image_sizes"])).tolist()
    targets = _checked_sizes(target_sizes, len(outputs["logits"]))
    return [_RowSizes((p[0], p[1]), (i[0], i[1]), target) for p, i, target in zip(padded, image, targets)]


def _checked_sizes(target_sizes: torch.Tensor | Sequence[Size] | None, num_rows: int) -> list[Size | None]:
    """Returns (height, width) of each row as whole numbers; without sizes `None` for each."""
    if target_sizes is None:
        return [None] * num_rows
    sizes = torch.as_tensor(target_sizes).tolist()
    if len(sizes) != num_rows or any(len(size) != 2 or min(size) < 1 for size in sizes):
        raise ValueError(
            f"target_sizes must be one (height, width) for each of the {num_rows} rows of outputs, got {sizes}; with "
            "several prompts per image pass prompt_image_indices, too"
        )
    return [(int(height), int(width)) for height, width in sizes]


def _check_one_class(outputs: Mapping[str, Any]) -> None:
    num_labels = outputs["logits"].shape[-1]
    if num_labels != 1:
        raise ValueError(f"outputs are those of {num_labels} labels: post-process them with post_process_objects")


def _sizes_of_rows(
    target_sizes: torch.Tensor | Sequence[Size] | None, prompt_image_indices: torch.Tensor | None
) -> torch.Tensor | Sequence[Size] | None:
    """Repeats the images' sizes for each prompt."""
    if target_sizes is None or prompt_image_indices is None:
        return target_sizes
    return torch.as_tensor(target_sizes)[torch.as_tensor(prompt_image_indices).cpu()]
