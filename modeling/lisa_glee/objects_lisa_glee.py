# Copyright 2026 The LookHear developers.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""What GLEE sees in pictures, and how it is shown to a language model."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torchvision.ops import nms
from transformers.utils import ModelOutput

from .configuration_lisa_glee import LisaGleeConfig, sub_config

# Octaves of the sines and cosines that a box is encoded with: from half a wave across the picture to 16 waves.
BOX_OCTAVES = 6
# Numbers of an encoded box: centre, size and two corners, each as it is and as a sine and a cosine of each octave.
BOX_SIZE = 8 * (1 + 2 * BOX_OCTAVES)
# Numbers of objects that are told apart when ranks are encoded: 0 to 8.
RANKS = 9
# Numbers of encoded ranks: six ranks, each as it is and by its nearest whole numbers.
RANKS_SIZE = 6 * (1 + RANKS)
# What ranks are multiplied by: beside the hundreds of numbers of a query they would hardly be noticed.
RANKS_SCALE = 4.0


@dataclass
class LisaGleeObjects(ModelOutput):
    r"""
    What GLEE sees in pictures, best objects first; see `GleeModel.get_object_queries`.

    Attributes:
        last_hidden_state (`torch.Tensor` of shape `(pictures, objects, object_size)`): GLEE's queries.
        scores (`torch.Tensor` of shape `(pictures, objects)`): before the sigmoid, for the text "object".
        boxes (`torch.Tensor` of shape `(pictures, objects, 4)`): cxcywh as shares of the picture without padding.
        mask_embeddings (`torch.Tensor` of shape `(pictures, objects, object_size)`):
            Multiplied with `mask_features` they give the objects' own masks.
        mask_features (`torch.Tensor` of shape `(pictures, object_size, height, width)`):
            At a quarter (Pro: an eighth) of the padded picture's height and width.
    """

    last_hidden_state: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    boxes: torch.Tensor | None = None
    mask_embeddings: torch.Tensor | None = None
    mask_features: torch.Tensor | None = None


class LisaGleeMLP(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int, activation: nn.Module):
        super().__init__()
        self.first = nn.Linear(input_size, hidden_size)
        self.activation = activation
        self.last = nn.Linear(hidden_size, output_size)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Maps states `(…, input_size)` to `(…, output_size)`."""
        return self.last(self.activation(self.first(states)))


class LisaGleeObjectEncoder(nn.Module):
    """Shows GLEE's queries to the language model: one input embedding each."""

    def __init__(self, config: LisaGleeConfig):
        super().__init__()
        self.config = config
        hidden_size, object_size = config.text_config.hidden_size, sub_config(config, "perception_config").hidden_size
        input_size = object_size
        if config.object_boxes:
            input_size += 1 + BOX_SIZE  # the score and the box
        if config.object_ranks:
            input_size += RANKS_SIZE
        if config.object_masks:
            input_size += object_size
        self.projection = LisaGleeMLP(input_size, hidden_size, hidden_size, nn.GELU())
        heads = max(1, hidden_size // 32)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden_size, heads, 3 * hidden_size, 0.0, nn.functional.gelu, batch_first=True, norm_first=True
            )
            for _ in range(config.object_layers)
        )
        # Layers make states large. Objects that are much larger than what the language model's layers add to them
        # would stay as they are.
        self.norm = nn.LayerNorm(hidden_size) if config.object_layers else nn.Identity()
        self.keys = LisaGleeMLP(hidden_size, hidden_size, object_size, nn.GELU()) if config.choose_objects else None

    def forward(self, objects: LisaGleeObjects) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Computes what the language model is shown, and what `[SEG]` may choose from.

        Args:
            objects: what GLEE sees, `(pictures, objects)`.

        Returns:
            embeddings `(pictures, objects, hidden_size)` and keys `(pictures, objects, object_size)`, None unless
            `config.choose_objects`.
        """
        queries = objects["last_hidden_state"]
        parts = [queries]
        if self.config.object_boxes:
            parts += [objects["scores"][..., None], box_encoding(objects["boxes"])]
        if self.config.object_ranks:
            parts.append(rank_encoding(objects["boxes"], objects["scores"]))
        if self.config.object_masks:
            parts.append(objects["mask_embeddings"])
        shown = self.projection(torch.cat([part.to(queries.dtype) for part in parts], dim=-1))
        keys = None if self.keys is None else self.keys(shown)  # an object as it is, whatever is beside it
        for layer in self.layers:
            shown = layer(shown)
        return self.norm(shown), keys


def box_encoding(boxes: torch.Tensor) -> torch.Tensor:
    """
    Encodes centre, size and corners of boxes, as they are and as sines and cosines of `BOX_OCTAVES` octaves.

    Args:
        boxes: `(…, 4)`, cxcywh as shares of the image.

    Returns:
        `(…, BOX_SIZE)` float32.
    """
    boxes = boxes.float()
    centre, size = boxes[..., :2], boxes[..., 2:]
    places = torch.cat((boxes, centre - size / 2, centre + size / 2), dim=-1)  # (…, 8)
    octaves = math.pi * 2.0 ** torch.arange(BOX_OCTAVES, device=boxes.device)
    angles = (places[..., None] * octaves).flatten(-2)
    return torch.cat((places, angles.sin(), angles.cos()), dim=-1)


def rank_encoding(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """
    Encodes how many objects of a picture are to the left and right of each, above and below it, smaller and larger.

    Places are those of the boxes' centres, sizes their longer sides. Queries that are no object,
    by their score, are not counted. A rank is encoded by half of it, and by which of 0, 1, … `RANKS` - 1 it is; both
    times `RANKS_SCALE`.

    Args:
        boxes: `(pictures, objects, 4)`, cxcywh as shares of the image.
        scores: `(pictures, objects)`, before the sigmoid.

    Returns:
        `(pictures, objects, RANKS_SIZE)` float32.
    """
    boxes = boxes.float()
    values = torch.cat((boxes[..., :2], boxes[..., 2:].amax(dim=-1, keepdim=True)), dim=-1)
    own, other = values[:, :, None], values[:, None]  # (pictures, objects, 1, 3) and (pictures, 1, objects, 3)
    before = torch.cat((other < own, other > own), dim=-1).float()  # (pictures, objects, objects, 6)
    ranks = torch.einsum("pijk,pj->pik", before, (scores > 0).float())  # (pictures, objects, 6)
    which = ranks[..., None] == torch.arange(RANKS, device=ranks.device)
    return RANKS_SCALE * torch.cat((ranks[..., None] / 2, which), dim=-1).flatten(-2)


def best_distinct(objects: LisaGleeObjects, overlap: float, count: int) -> LisaGleeObjects:
    """
    Takes the best objects that differ from each other, and further ones only if there are too few.

    Args:
        objects: best first.
        overlap: two objects are the same if the intersection over union of their boxes is above this.
        count: number of objects that remain.
    """
    boxes = objects["boxes"].float()
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    corners = torch.cat((centre - half, centre + half), dim=-1)
    places = []
    for some, scores in zip(corners, objects["scores"].float(), strict=True):
        distinct = nms(some, scores, overlap)  # best first
        others = torch.ones_like(scores, dtype=torch.bool).index_fill(0, distinct, False).nonzero()[:, 0]
        places.append(torch.cat((distinct, others))[:count])
    chosen = torch.stack(places)  # (pictures, count)
    rows = torch.arange(len(chosen), device=chosen.device)[:, None]
    kept = {name: value if name == "mask_features" else value[rows, chosen] for name, value in objects.items()}
    return LisaGleeObjects(**kept)
