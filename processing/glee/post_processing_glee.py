"""From the network's outputs to scores, boxes and masks in pixels of the picture.

`outputs` is what `GleeForObjectDetection` returns, or any mapping with the same names, R rows of Q queries each:
`logits` `(R, Q, K)`, `pred_boxes` `(R, Q, 4)`, `pred_masks` `(R, Q, h, w)`, `image_sizes` and
`padded_sizes` `(R, 2)`. A row is an image with labels, or one prompt.

A score is the class probability times the quality of the mask: the mean probability of the pixels inside it. Masks are
enlarged for the best queries only, one after another, each query once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .geometry_glee import Size, boxes_to_picture, masks_to_picture

TOP_K = 100  # results of one image before the threshold, as COCO counts them; LVIS counts 300


def post_process_object_detection(
    outputs: Mapping[str, Any],
    threshold: float = 0.1,
    target_sizes: torch.Tensor | Sequence[Size] | None = None,
    top_k: int | None = TOP_K,
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

    Returns:
        One dict per row: `scores` `(n,)` float32 from 0 to 1, `labels` `(n,)` int64 indices of the labels, `boxes`
        `(n, 4)` float32 (x0, y0, x1, y1), which may reach beyond the picture. One query may be a result of several
        labels.

    Raises:
        ValueError: `target_sizes` doesn't have one size per row, or `top_k` is less than 1.
    """
    return _post_process(outputs, threshold, target_sizes, top_k, with_masks=False)


def post_process_instance_segmentation(
    outputs: Mapping[str, Any],
    threshold: float = 0.1,
    target_sizes: torch.Tensor | Sequence[Size] | None = None,
    top_k: int | None = TOP_K,
) -> list[dict[str, torch.Tensor]]:
    """Returns the objects of each image as `post_process_object_detection` does, with `masks` `(n, height, width)`
    bool."""
    return _post_process(outputs, threshold, target_sizes, top_k, with_masks=True)


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
        One dict per row, see `post_process_instance_segmentation`.

    Raises:
        ValueError: `outputs` are those of several labels, or `target_sizes` doesn't have one size per row.
    """
    _check_one_class(outputs)
    return _post_process(outputs, threshold, target_sizes, top_k, with_masks=True)


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
        One dict per expression, see `post_process_instance_segmentation`, with n = 1, or 0 below the threshold.

    Raises:
        ValueError: `outputs` are those of several labels, or `target_sizes` doesn't have one size per row.
    """
    _check_one_class(outputs)
    target_sizes = _sizes_of_rows(target_sizes, prompt_image_indices)
    return _post_process(outputs, threshold, target_sizes, top_k=1, with_masks=True)


@torch.no_grad()
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
        One dict per prompt, see `post_process_instance_segmentation`, with n = 1: the query of the highest probability
        of the class "object", as in the demo of GLEE. That probability is the score.

    Raises:
        ValueError: `outputs` are those of several labels, or `target_sizes` doesn't have one size per row.
    """
    _check_one_class(outputs)
    num_rows = len(outputs["logits"])
    logits, queries = outputs["logits"].float().reshape(num_rows, -1).max(dim=1, keepdim=True)  # (R, 1) of (R, Q)
    results = []
    sizes = _checked_sizes(_sizes_of_rows(target_sizes, prompt_image_indices), num_rows)
    for row, size in enumerate(sizes):
        _, masks = _enlarge(outputs, row, queries[row], size, with_masks=True)
        boxes = _boxes(outputs, row, queries[row], size)
        labels = torch.zeros_like(queries[row])
        results.append({"scores": logits[row].sigmoid(), "labels": labels, "boxes": boxes, "masks": masks})
    return results


@torch.no_grad()
def _post_process(
    outputs: Mapping[str, Any],
    threshold: float,
    target_sizes: torch.Tensor | Sequence[Size] | None,
    top_k: int | None,
    with_masks: bool,
) -> list[dict[str, torch.Tensor]]:
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, or None for all, got {top_k}")
    sizes = _checked_sizes(target_sizes, len(outputs["logits"]))
    return [_detect(outputs, row, threshold, size, top_k, with_masks) for row, size in enumerate(sizes)]


def _detect(
    outputs: Mapping[str, Any],
    row: int,
    threshold: float,
    target_size: Size | None,
    top_k: int | None,
    with_masks: bool,
) -> dict[str, torch.Tensor]:
    """Returns the objects of one row."""
    probabilities = outputs["logits"][row].float().sigmoid()  # (Q, K)
    num_labels = probabilities.shape[1]
    probabilities, index = probabilities.flatten().topk(min(top_k or probabilities.numel(), probabilities.numel()))
    index = index[probabilities >= threshold]  # a mask can only lower a score
    queries, places = (index // num_labels).unique(return_inverse=True)
    qualities, masks = _enlarge(outputs, row, queries, target_size, with_masks)

    scores, order = (probabilities[: len(index)] * qualities[places]).sort(descending=True, stable=True)
    order = order[scores >= threshold]
    results = {
        "scores": scores[: len(order)],
        "labels": (index % num_labels)[order],
        "boxes": _boxes(outputs, row, queries[places[order]], target_size),
    }
    if masks is not None:
        results["masks"] = masks[places[order]]
    return results


def _enlarge(
    outputs: Mapping[str, Any], row: int, queries: torch.Tensor, target_size: Size | None, with_masks: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Computes `(n,)` mean probabilities inside the masks of n queries, 0 for an empty mask, and `(n, height, width)`
    bool masks."""
    padded_size, image_size = _sizes(outputs, row)
    target_size = target_size or image_size
    logits = outputs["pred_masks"][row, queries]  # (n, h, w)
    qualities, masks = logits.new_zeros(len(queries), dtype=torch.float32), None
    if with_masks:
        masks = torch.zeros((len(queries), *target_size), dtype=torch.bool, device=logits.device)
    for index, low in enumerate(logits.float()):
        full = masks_to_picture(low[None], padded_size, image_size, target_size)[0]  # (height, width)
        inside = full > 0
        qualities[index] = full[inside].sigmoid().mean().nan_to_num(0.0)  # of no pixel the mean is NaN
        if masks is not None:
            masks[index] = inside
    return qualities, masks


def _boxes(outputs: Mapping[str, Any], row: int, queries: torch.Tensor, target_size: Size | None) -> torch.Tensor:
    """Computes `(n, 4)` boxes (x0, y0, x1, y1) of n queries, in pixels of the picture, or relative to it."""
    return boxes_to_picture(outputs["pred_boxes"][row, queries].float(), *_sizes(outputs, row), target_size or (1, 1))


def _sizes(outputs: Mapping[str, Any], row: int) -> tuple[Size, Size]:
    """Returns (height, width) of the row's padded image, and of the part of it that is not padding."""
    return tuple(outputs["padded_sizes"][row].tolist()), tuple(outputs["image_sizes"][row].tolist())


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
        raise ValueError(
            f"outputs are those of {num_labels} labels: post-process them with post_process_instance_segmentation"
        )


def _sizes_of_rows(
    target_sizes: torch.Tensor | Sequence[Size] | None, prompt_image_indices: torch.Tensor | None
) -> torch.Tensor | Sequence[Size] | None:
    """Repeats the images' sizes for each prompt."""
    if target_sizes is None or prompt_image_indices is None:
        return target_sizes
    return torch.as_tensor(target_sizes)[torch.as_tensor(prompt_image_indices).cpu()]
