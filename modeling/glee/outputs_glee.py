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
"""What GLEE's networks return."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class GleeLabelEmbeddings(ModelOutput):
    r"""
    class_embeddings (`torch.Tensor` of shape `(labels, hidden_size)`): one vector a label, for the scores.
    class_tokens (`torch.Tensor` of shape `(tokens, hidden_size)`): the tokens of all labels, for the early fusion.
    """

    class_embeddings: torch.Tensor | None = None
    class_tokens: torch.Tensor | None = None


@dataclass
class GleeImageFeatures(ModelOutput):
    r"""
    What the model has seen of images before it knows what is looked for.

    last_hidden_state (`torch.Tensor` of shape `(images, pixels, channels)`): the backbone's coarsest map, row by row.
    pooler_output (`torch.Tensor` of shape `(images, channels)`): its mean over the pixels.
    levels (`tuple` of four `torch.Tensor` of shape `(images, hidden_size, height, width)`): finest first.
    lateral (`torch.Tensor` of shape `(images, hidden_size, height, width)`): the finest map of all, for the masks.

    hidden_states (`tuple` of `torch.Tensor`, with `output_hidden_states=True`): of the backbone.
    attentions (`tuple` of `torch.Tensor`, with `output_attentions=True`): of the backbone.

    With `config.padding_mask` the maps of a smaller canvas are in the upper left corner, and zeros around them;
    so are `hidden_states`, and there are `attentions` only if all images have one canvas.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    levels: tuple[torch.Tensor, ...] | None = None
    lateral: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None

    def of_images(self, images: list[int] | torch.Tensor | slice) -> "GleeImageFeatures":
        """Returns the maps for the forward pass of some images; copies, if they are named by numbers."""
        return GleeImageFeatures(levels=tuple(level[images] for level in self.levels), lateral=self.lateral[images])


@dataclass
class GleeModelOutput(ModelOutput):
    r"""
    A row is an image, or a prompt where there are prompts.

    last_hidden_state (`torch.Tensor` of shape `(rows, queries, hidden_size)`): the queries; also what tracks objects.
    pred_boxes (`torch.Tensor` of shape `(rows, queries, 4)`): cxcywh as shares of the padded canvas.
    mask_features (`torch.Tensor` of shape `(rows, hidden_size, height, width)`): what masks are read from.
    feature_maps (`tuple` of four `torch.Tensor` of shape `(rows, hidden_size, height, width)`): finest first.
    class_embeddings (`torch.Tensor` of shape `(rows or 1, classes, hidden_size)`): what queries are scored against.
    layer_states (`torch.Tensor` of shape `(layers, rows, queries, hidden_size)`): normed queries of each layer.
    layer_boxes (`torch.Tensor` of shape `(layers, rows, queries, 4)`).
    denoising_states, denoising_boxes (`torch.Tensor`, *optional*): the same two of denoising queries.
    proposal_states (`torch.Tensor` of shape `(rows, queries, hidden_size)`): the chosen pixels, the first queries.
    proposal_boxes (`torch.Tensor` of shape `(rows, queries, 4)`).
    proposal_indices (`torch.Tensor` of shape `(rows, queries)`, int64):
        The pixels, counted row by row from the coarsest map to the finest; of the row's own canvas.
    query_mask (`torch.Tensor` of shape `(rows, queries)`, bool, *optional*):
        With `config.padding_mask`: False for the empty queries of an image with fewer pixels than queries.
    hidden_states (`tuple` of `torch.Tensor`, with `output_hidden_states=True`): of the decoder.
    attentions (`tuple` of `torch.Tensor`, with `output_attentions=True`): of the decoder's self-attention.
    encoder_hidden_states (`tuple` of `torch.Tensor`, with `output_encoder_hidden_states=True`):
        Of the pixel decoder: what enters its first layer, then what leaves each.

    With `config.padding_mask` and canvases of several sizes, zeros fill up the rows of smaller ones in these last three.
    """

    last_hidden_state: torch.Tensor | None = None
    pred_boxes: torch.Tensor | None = None
    mask_features: torch.Tensor | None = None
    feature_maps: tuple[torch.Tensor, ...] | None = None
    class_embeddings: torch.Tensor | None = None
    layer_states: torch.Tensor | None = None
    layer_boxes: torch.Tensor | None = None
    denoising_states: torch.Tensor | None = None
    denoising_boxes: torch.Tensor | None = None
    proposal_states: torch.Tensor | None = None
    proposal_boxes: torch.Tensor | None = None
    proposal_indices: torch.Tensor | None = None
    query_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    encoder_hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class GleeObjectDetectionOutput(ModelOutput):
    r"""
    A row is an image, or a prompt where there are prompts.

    loss (`torch.Tensor`, with `labels`): the weighted sum of all losses.
    loss_dict (`dict`, with `labels`): each loss before its weight, see [`GleeLoss`].
    logits (`torch.Tensor` of shape `(rows, queries, classes)`): before the sigmoid; one class for each prompt.
    confidence (`torch.Tensor` of shape `(rows, queries)`): before the sigmoid; trained on visual prompts only.
    pred_boxes (`torch.Tensor` of shape `(rows, queries, 4)`): cxcywh as shares of the padded canvas.
    pred_masks (`torch.Tensor` of shape `(rows, queries, height, width)`): logits at a quarter (Pro: an eighth) of the canvas.
    track_embeddings (`torch.Tensor` of shape `(rows, queries, hidden_size)`): alike for one object in several frames.
    image_sizes (`torch.Tensor` of shape `(rows, 2)`, int64): (height, width) of the image in its canvas, in pixels.
    padded_sizes (`torch.Tensor` of shape `(rows, 2)`, int64): (height, width) of the canvas.
    auxiliary_outputs (`list[dict]`, with `config.auxiliary_outputs`):
        `logits`, `confidence`, `pred_boxes` and `pred_masks` of the first queries, then of each layer but the last.
    proposal_outputs (`dict`, with `config.auxiliary_outputs`): the same of the proposals, with their gradient.
    """

    loss: torch.Tensor | None = None
    loss_dict: dict[str, torch.Tensor] | None = None
    logits: torch.Tensor | None = None
    confidence: torch.Tensor | None = None
    pred_boxes: torch.Tensor | None = None
    pred_masks: torch.Tensor | None = None
    track_embeddings: torch.Tensor | None = None
    image_sizes: torch.Tensor | None = None
    padded_sizes: torch.Tensor | None = None
    auxiliary_outputs: list[dict[str, torch.Tensor]] | None = None
    proposal_outputs: dict[str, torch.Tensor] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    encoder_hidden_states: tuple[torch.Tensor, ...] | None = None
