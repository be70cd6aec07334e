"""Images of several sizes in one batch, each computed on its own canvas, as if it were alone."""

import torch
from torch import nn
from transformers.utils import ModelOutput


def sizes_of_images(pixel_mask: torch.Tensor) -> torch.Tensor:
    """(height, width) of the image in each mask `(images, height, width)`, `(images, 2)` int64."""
    mask = pixel_mask.bool()
    return torch.stack((mask.any(dim=2).sum(dim=1), mask.any(dim=1).sum(dim=1)), dim=1)


def canvas_groups(pixel_mask: torch.Tensor, divisor: int) -> list[tuple[tuple[int, int], torch.Tensor]]:
    """
    Images that share a canvas: their sizes, rounded up to a multiple of `divisor`, are equal.

    Args:
        pixel_mask: `(images, height, width)`, 1 for the image, 0 for padding on the right and below.
    Returns:
        (height, width) of each canvas, at most that of the batch, and its images `(some,)` int64.
    """
    sizes = sizes_of_images(pixel_mask)
    limit = torch.tensor(pixel_mask.shape[-2:], device=pixel_mask.device)
    sizes = torch.minimum(-(-sizes // divisor) * divisor, limit)
    canvases, members = sizes.unique(dim=0, return_inverse=True)
    return [
        ((height, width), (members == index).nonzero()[:, 0])
        for index, (height, width) in enumerate(canvases.tolist())
    ]


def map_size(canvas: tuple[int, int], stride: int) -> tuple[int, int]:
    """(height, width) of the feature map of a canvas, (height, width) in pixels."""
    return -(-canvas[0] // stride), -(-canvas[1] // stride)


def join_maps(maps: list[torch.Tensor], order: torch.Tensor) -> torch.Tensor:
    """
    Joins tensors of several canvases, such as feature maps, each at the beginning of every axis, zeros after it.

    Args:
        maps: of each canvas, `(some, …)`, all of as many axes.
        order: `(rows,)` int64, which of their rows comes where.
    Returns:
        `(rows, …)`, each axis as long as the longest.
    """
    sizes = [max(lengths) for lengths in zip(*(part.shape for part in maps))]
    padded = []
    for part in maps:
        missing = [(0, size - length) for size, length in zip(sizes[1:], part.shape[1:])]
        padded.append(nn.functional.pad(part, [side for axis in reversed(missing) for side in axis]))
    return torch.cat(padded)[order]


def join_layers(
    layers: list[tuple[torch.Tensor | None, ...] | None], order: torch.Tensor
) -> tuple[torch.Tensor | None, ...] | None:
    """Joins the layers' tensors of several canvases, see [`join_maps`]; what wasn't collected stays `None`."""
    if layers[0] is None:
        return None
    return tuple(None if parts[0] is None else join_maps(list(parts), order) for parts in zip(*layers))


def merge_canvases(
    outputs: list[ModelOutput],
    rows: list[torch.Tensor],
    canvases: list[tuple[int, int]],
    size: tuple[int, int],
    own_classes: bool,
) -> ModelOutput:
    """
    The outputs of several canvases as one of the batch's canvas.

    Boxes become shares of the batch's canvas, maps repeat their last column and row, so that enlarged masks stay as they
    are up to the image's edge, a canvas with fewer queries gets empty ones (see `query_mask`), rows return to their places.
    So do the layers' hidden states and attentions; an attention's keys are the queries, then the prompt's tokens.

    Args:
        outputs: a `GleeModelOutput` of each canvas; rows: `(some,)` int64, where its rows belong in the batch.
        canvases: (height, width) of each canvas in pixels; size: of the batch's.
        own_classes: whether each row has classes of its own (expressions) or all rows share them (labels).
    """
    order = torch.cat(rows).argsort()
    queries = [len(output.last_hidden_state[0]) for output in outputs]
    most = max(queries)

    def joined(name: str, dim: int = 0) -> torch.Tensor:
        parts = [nn.functional.pad(o[name], (0, 0, 0, most - q)) for o, q in zip(outputs, queries)]
        if name.endswith("boxes"):
            parts = [part * _box_scale(part, canvas, size) for part, canvas in zip(parts, canvases)]
        return torch.cat(parts, dim).index_select(dim, order)

    def indices() -> torch.Tensor:
        parts = [nn.functional.pad(o.proposal_indices, (0, most - q)) for o, q in zip(outputs, queries)]
        return torch.cat(parts)[order]

    def maps(parts: list[torch.Tensor]) -> torch.Tensor:
        cells = [
            [-(-whole * count // part) for whole, count, part in zip(size, feature_map.shape[-2:], canvas)]
            for feature_map, canvas in zip(parts, canvases)
        ]
        height, width = (max(counts) for counts in zip(*cells))
        return torch.cat([_extend(part, height, width) for part in parts])[order]

    classes = [output.class_embeddings for output in outputs]
    present = torch.cat([torch.full_like(part, count) for part, count in zip(rows, queries)])
    return type(outputs[0])(
        last_hidden_state=joined("last_hidden_state"),
        pred_boxes=joined("pred_boxes"),
        mask_features=maps([output.mask_features for output in outputs]),
        feature_maps=tuple(maps(list(level)) for level in zip(*(output.feature_maps for output in outputs))),
        class_embeddings=torch.cat(classes)[order] if own_classes else classes[0],
        layer_states=joined("layer_states", 1),
        layer_boxes=joined("layer_boxes", 1),
        proposal_states=joined("proposal_states"),
        proposal_boxes=joined("proposal_boxes"),
        proposal_indices=indices(),
        query_mask=torch.arange(most, device=order.device)[None] < present[order][:, None],
        hidden_states=join_layers([output.hidden_states for output in outputs], order),
        attentions=join_layers([_attentions(o, q, most) for o, q in zip(outputs, queries)], order),
        encoder_hidden_states=join_layers([output.encoder_hidden_states for output in outputs], order),
    )


def _attentions(output: ModelOutput, queries: int, most: int) -> tuple[torch.Tensor, ...] | None:
    # Each (rows, heads, queries, queries + prompt tokens) -> (rows, heads, queries, most + prompt tokens)
    if output.attentions is None:
        return None
    empty = (0, most - queries)
    return tuple(
        torch.cat((nn.functional.pad(weights[..., :queries], empty), weights[..., queries:]), dim=-1)
        for weights in output.attentions
    )


def _box_scale(boxes: torch.Tensor, canvas: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    # (4,): cxcywh as shares of the canvas -> as shares of the batch's canvas
    return boxes.new_tensor([canvas[1] / size[1], canvas[0] / size[0]] * 2)


def _extend(feature_map: torch.Tensor, height: int, width: int) -> torch.Tensor:
    # (rows, channels, less or equal, less or equal) -> (rows, channels, height, width)
    missing = (0, width - feature_map.shape[-1], 0, height - feature_map.shape[-2])
    return nn.functional.pad(feature_map, missing, mode="replicate")
