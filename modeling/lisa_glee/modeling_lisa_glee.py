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
"""LISA-GLEE: a language model that sees GLEE's objects and answers with masks (Wu et al., CVPR 2024)."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchvision.ops import nms
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
)
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_lisa_glee import LisaGleeConfig, sub_config
from .loss_lisa_glee import best_objects, mask_losses
from .references_lisa_glee import FETCHING, references, stored_weights, with_referenced, without_referenced

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


@dataclass
class LisaGleeOutput(ModelOutput):
    r"""
    Losses, logits, and one mask for each `[SEG]` in `labels`, row by row and from left to right.

    Attributes:
        loss (`torch.Tensor`, with `labels`): the weighted sum of all losses.
        loss_dict (`dict`, with `labels`): each loss before its weight: text, bce, dice, object.
        logits (`torch.Tensor` of shape `(rows, length, vocabulary)`): of the language model.
        mask_logits (`torch.Tensor` of shape `(masks, height, width)`): at the size of GLEE's mask features.
        mask_rows (`torch.Tensor` of shape `(masks,)`, int64): the row of each mask.
        object_logits (`torch.Tensor` of shape `(masks, objects)`, with `config.choose_objects`):
            Similarity to each query.
        objects (`LisaGleeObjects`): what GLEE sees; can be passed with further questions about the pictures.
        hidden_states (`tuple` of `torch.Tensor`, with `output_hidden_states=True`): of the language model.
        attentions (`tuple` of `torch.Tensor`, with `output_attentions=True`): of the language model.
    """

    loss: torch.Tensor | None = None
    loss_dict: dict[str, torch.Tensor] | None = None
    logits: torch.Tensor | None = None
    mask_logits: torch.Tensor | None = None
    mask_rows: torch.Tensor | None = None
    object_logits: torch.Tensor | None = None
    objects: LisaGleeObjects | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class LisaGleeGenerateOutput(ModelOutput):
    r"""
    Answers, and the masks of their `[SEG]` tokens, answer by answer and from left to right.

    Attributes:
        sequences (`torch.Tensor` of shape `(answers, length)`, int64): new tokens only.
        mask_logits (`torch.Tensor` of shape `(masks, height, width)`): at the size of GLEE's mask features.
        mask_rows (`torch.Tensor` of shape `(masks,)`, int64): the answer of each mask.
        mask_positions (`torch.Tensor` of shape `(masks,)`, int64): the index of its `[SEG]` in the answer.
        mask_scores (`torch.Tensor` of shape `(masks,)`): confidence in each mask, in [0, 1].
        objects (`LisaGleeObjects`): see [`LisaGleeOutput`].
    """

    sequences: torch.Tensor | None = None
    mask_logits: torch.Tensor | None = None
    mask_rows: torch.Tensor | None = None
    mask_positions: torch.Tensor | None = None
    mask_scores: torch.Tensor | None = None
    objects: LisaGleeObjects | None = None


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

    Places are those of the boxes' centres, sizes their longer sides. Each object counts as much as it is one, by its
    score. A rank is encoded by half of it, and by how near it is to 0, 1, … `RANKS` - 1: 1 there, 0 from a distance of
    1 on; both times `RANKS_SCALE`.

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
    ranks = torch.einsum("pijk,pj->pik", before, scores.float().sigmoid())  # (pictures, objects, 6)
    near = 1 - (ranks[..., None] - torch.arange(RANKS, device=ranks.device)).abs()
    return RANKS_SCALE * torch.cat((ranks[..., None] / 2, near.clamp(min=0)), dim=-1).flatten(-2)


class LisaGleeSegmentHead(nn.Module):
    """Turns the state that predicts a `[SEG]` into the mask that it stands for."""

    def __init__(self, config: LisaGleeConfig):
        super().__init__()
        hidden_size, object_size = config.text_config.hidden_size, sub_config(config, "perception_config").hidden_size
        self.scale = object_size**-0.5 if config.scaled_products else 1.0
        self.pixels = LisaGleeMLP(hidden_size, hidden_size, object_size, nn.ReLU())
        self.choice = LisaGleeMLP(hidden_size, hidden_size, object_size, nn.ReLU()) if config.choose_objects else None

    def mask_logits(self, states: torch.Tensor, features: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
        """
        Compares states with each pixel of their pictures.

        Args:
            states: `(masks, hidden_size)`.
            features: GLEE's mask features, `(pictures, object_size, height, width)`.
            pictures: `(masks,)` int64, the picture of each state.

        Returns:
            `(masks, height, width)`, before the sigmoid.
        """
        wanted = self.scale * self.pixels(states)  # (masks, object_size)
        # Picture by picture, instead of a copy of the features for each mask.
        by_picture = [wanted[pictures == index] @ picture.flatten(1) for index, picture in enumerate(features)]
        order = pictures.argsort(stable=True)
        logits = torch.cat(by_picture)[order.argsort()] if by_picture else wanted.new_zeros(0)
        return logits.unflatten(-1, features.shape[-2:])

    def object_logits(self, states: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """
        Compares states with the objects of their pictures; needs `config.choose_objects`.

        Args:
            states: `(masks, hidden_size)`.
            keys: of the objects, `(masks, objects, object_size)`.

        Returns:
            `(masks, objects)`, before the softmax.

        Raises:
            ValueError: the model has no weights for it.
        """
        if self.choice is None:
            raise ValueError("choose_objects of the configuration must be True to compare [SEG] with objects.")
        return (keys @ (self.scale * self.choice(states))[..., None])[..., 0]


class LisaGleePreTrainedModel(PreTrainedModel):
    """Declares what transformers needs to know of the model."""

    config: LisaGleeConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ["LisaGleeObjectEncoder"]


class LisaGleeForReasoningSegmentation(LisaGleePreTrainedModel):
    """A frozen GLEE, a language model that is shown its queries, and the masks that `[SEG]` tokens stand for."""

    accepts_loss_kwargs = False  # to a Trainer: the loss of a step is the mean of its batches'

    def __init__(self, config: LisaGleeConfig):
        super().__init__(config)
        self.perception = AutoModel.from_config(config.perception_config).requires_grad_(False)
        self.language_model = language_auto_class(config).from_config(config.language_config)
        self.object_encoder = LisaGleeObjectEncoder(config)
        self.segment_head = LisaGleeSegmentHead(config)
        self.post_init()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        config: LisaGleeConfig | str | os.PathLike | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Loads a checkpoint, and the weights that its `perception_id` and `language_model_id` name from there.

        The latter are frozen, so that they are not stored when the model is saved again.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            model_args: of the model.
            config: instead of the checkpoint's.
            kwargs: of transformers' `from_pretrained`.

        Raises:
            ValueError: a model that is named by id cannot be loaded, or is another one than the checkpoint's.
        """
        name = pretrained_model_name_or_path
        if name is None:
            return super().from_pretrained(None, *model_args, config=config, **kwargs)
        fetching = {key: kwargs[key] for key in FETCHING if key in kwargs}
        own: dict[str, Any] = {**fetching, **{key: kwargs[key] for key in ("revision", "subfolder") if key in kwargs}}
        if config is None or isinstance(config, (str, os.PathLike)):
            settings = LisaGleeConfig.from_pretrained(name if config is None else config, **own)
        else:  # with code from the Hub, it may be another copy of the same class
            settings = config
        if not references(settings):
            return super().from_pretrained(name, *model_args, config=config, **kwargs)
        if settings is not config:  # what transformers does with arguments that are fields of a configuration
            settings.update(
                {key: kwargs.pop(key) for key in list(kwargs) if hasattr(settings, key) and key != "dtype"}
            )
        with torch.device("meta"):
            empty = cls(settings)
            empty.tie_weights()
        load = language_auto_class(settings).from_pretrained
        weights, added = with_referenced(empty, settings, stored_weights(name, **own), load, **fetching)
        kwargs = {key: value for key, value in kwargs.items() if key not in own}
        loaded: Any = super().from_pretrained(None, *model_args, config=settings, state_dict=weights, **kwargs)
        model = loaded[0] if kwargs.get("output_loading_info") else loaded
        model.config.name_or_path = str(name)
        for key, weight in model.named_parameters(remove_duplicate=False):
            if key in added:
                weight.requires_grad_(False)
        return loaded

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: dict | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """
        Saves the model, without frozen weights that it names by id, see [`LisaGleeConfig`].

        Args:
            save_directory: made if missing.
            is_main_process: whether this process writes.
            state_dict: weights to save, by default the model's.
            args: of transformers' `save_pretrained`.
            kwargs: of transformers' `save_pretrained`.
        """
        if named := references(self.config):
            state_dict = without_referenced(self, named, self.state_dict() if state_dict is None else state_dict)
            kwargs["save_original_format"] = False  # the names under which they are looked for
        super().save_pretrained(save_directory, is_main_process, state_dict, *args, **kwargs)

    def train(self, mode: bool = True) -> "LisaGleeForReasoningSegmentation":
        """Sets the mode of training; GLEE stays as it is for inference, without dropout and without gradients."""
        super().train(mode)
        self.perception.eval().requires_grad_(False)  # here as well: loading weights makes new parameters
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    @torch.no_grad()
    def get_objects(
        self, perception_pixel_values: torch.Tensor, perception_pixel_mask: torch.Tensor | None = None
    ) -> LisaGleeObjects:
        """
        Computes what GLEE sees in pictures, for any number of questions about them.

        Args:
            perception_pixel_values: `(pictures, 3, height, width)`, of GLEE's image processor.
            perception_pixel_mask: `(pictures, height, width)`, 1 for the picture, 0 for padding.
        """
        label = torch.tensor([self.config.object_label_ids], device=perception_pixel_values.device)
        overlap, count = self.config.object_overlap, self.config.num_objects
        found = self.perception.get_object_queries(
            perception_pixel_values,
            perception_pixel_mask,
            input_ids=label,
            attention_mask=torch.ones_like(label),
            count=count if overlap == 1 else sub_config(self.config, "perception_config").num_queries,
        )
        objects = LisaGleeObjects(**found)
        return objects if overlap == 1 else _best_distinct(objects, overlap, count)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        perception_pixel_values: torch.Tensor | None = None,
        perception_pixel_mask: torch.Tensor | None = None,
        picture_indices: torch.Tensor | None = None,
        objects: LisaGleeObjects | None = None,
        labels: torch.Tensor | None = None,
        mask_labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> LisaGleeOutput:
        r"""
        Reads conversations with their answers. A row is a question or a conversation about one picture.

        Args:
            input_ids (`torch.Tensor` of shape `(rows, length)`): with one or more runs of `config.num_objects`
                placeholders in each row: each is the objects of the row's picture.
            attention_mask (`torch.Tensor` of shape `(rows, length)`, *optional*):
                1 for text, 0 for padding. Or `(rows, 1, length, length)` bool: which token sees which.
            pixel_values (`torch.Tensor`, *optional*): the pictures, for a language model that reads images itself.
            perception_pixel_values (`torch.Tensor` of shape `(pictures, 3, height, width)`, *optional*):
                GLEE's pictures.
            perception_pixel_mask (`torch.Tensor` of shape `(pictures, height, width)`, *optional*): 0 for padding.
            picture_indices (`torch.Tensor` of shape `(rows,)`, *optional*):
                The picture of each row; by default the i-th.
            objects (`LisaGleeObjects`, *optional*):
                Of [`LisaGleeForReasoningSegmentation.get_objects`], instead of `perception_pixel_values`.
            labels (`torch.Tensor` of shape `(rows, length)`, *optional*): the ids of the answers, -100 elsewhere.
            mask_labels (`torch.Tensor` of shape `(masks, height, width)`, *optional*):
                The mask of each `[SEG]` in `labels`, of GLEE's padded picture and at any size, in [0, 1]; negative
                where it isn't known. Masks are compared at this size.
            kwargs (*optional*):
                `output_hidden_states`, `output_attentions`, and arguments of the language model's `forward`.

        Raises:
            ValueError: neither pictures nor objects are passed, or numbers of placeholders, rows or masks don't match.
        """
        objects, pictures = self._objects(
            len(input_ids), perception_pixel_values, perception_pixel_mask, picture_indices, objects
        )
        embeddings, keys = self._input_embeddings(input_ids, objects, pictures)
        with_states = kwargs.pop("output_hidden_states", self.config.output_hidden_states)
        with_attentions = kwargs.pop("output_attentions", self.config.output_attentions)
        outputs = self.language_model(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            output_hidden_states=True,
            output_attentions=with_attentions,
            use_cache=False,
            **({} if pixel_values is None else {"pixel_values": pixel_values}),
            **kwargs,
        )
        recorded = {
            "hidden_states": outputs.hidden_states if with_states else None,
            "attentions": outputs.attentions,
        }
        if labels is None:
            return LisaGleeOutput(logits=outputs.logits, objects=objects, **recorded)
        found = labels[:, 1:] == self.config.segment_token_id  # the state before a [SEG] is the one that predicts it
        rows = found.nonzero()[:, 0]
        states = outputs.hidden_states[-1][:, :-1][found]  # (masks, hidden_size)
        masks = self.segment_head.mask_logits(states, objects["mask_features"], pictures[rows])
        choice = None if keys is None else self.segment_head.object_logits(states, keys[pictures[rows]])
        losses = self._losses(outputs.logits, labels, masks, mask_labels, choice, objects, pictures[rows])
        return LisaGleeOutput(
            loss=self._weighted(losses),
            loss_dict=losses,
            logits=outputs.logits,
            mask_logits=masks,
            mask_rows=rows,
            object_logits=choice,
            objects=objects,
            **recorded,
        )

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        perception_pixel_values: torch.Tensor | None = None,
        perception_pixel_mask: torch.Tensor | None = None,
        picture_indices: torch.Tensor | None = None,
        objects: LisaGleeObjects | None = None,
        **kwargs: Any,
    ) -> LisaGleeGenerateOutput:
        """
        Answers questions in words and masks, with the language model's own `generate`.

        Args:
            input_ids: `(rows, length)`, see [`LisaGleeForReasoningSegmentation.forward`]; padded on the left.
            attention_mask: `(rows, length)`.
            pixel_values: see `forward`.
            perception_pixel_values: see `forward`.
            perception_pixel_mask: see `forward`.
            picture_indices: see `forward`.
            objects: see `forward`.
            kwargs: of transformers' `generate`, such as `max_new_tokens`, `num_beams`, `do_sample`, `streamer`.

        Raises:
            ValueError: as `forward`.
        """
        objects, pictures = self._objects(
            len(input_ids), perception_pixel_values, perception_pixel_mask, picture_indices, objects
        )
        embeddings, keys = self._input_embeddings(input_ids, objects, pictures)
        generated = self.language_model.generate(
            inputs_embeds=embeddings,
            attention_mask=torch.ones_like(input_ids) if attention_mask is None else attention_mask,
            **({} if pixel_values is None else {"pixel_values": pixel_values}),
            **{"suppress_tokens": self._placeholders(), **kwargs},
            return_dict_in_generate=True,
            output_hidden_states=True,
        )
        answers, positions, states = self._segments(generated)
        per_row = len(generated.sequences) // len(input_ids)
        pictures = pictures[answers // per_row]
        masks, scores = self._answer_masks(states, objects, keys, pictures)
        return LisaGleeGenerateOutput(generated.sequences, masks, answers, positions, scores, objects)

    def _placeholders(self) -> list[int]:
        """Returns the tokens that stand for what is seen: no answer contains them."""
        image = getattr(self.config.language_config, "image_token_id", None)
        return [self.config.object_token_id, *([] if image is None else [image])]

    def _objects(
        self,
        rows: int,
        pixel_values: torch.Tensor | None,
        pixel_mask: torch.Tensor | None,
        picture_indices: torch.Tensor | None,
        objects: LisaGleeObjects | None,
    ) -> tuple[LisaGleeObjects, torch.Tensor]:
        """Returns what GLEE sees, and the picture of each row."""
        if pixel_values is not None and objects is None:
            objects = self.get_objects(pixel_values, pixel_mask)
        elif pixel_values is not None or objects is None:
            raise ValueError("pass either perception_pixel_values or objects.")
        pictures = len(objects["scores"])
        if picture_indices is None:
            if pictures != rows:
                raise ValueError(
                    f"there are {rows} rows of input_ids about {pictures} pictures: pass picture_indices."
                )
            picture_indices = torch.arange(rows, device=objects["scores"].device)
        return objects, picture_indices

    def _input_embeddings(
        self, input_ids: torch.Tensor, objects: LisaGleeObjects, pictures: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Puts the objects of each row's picture wherever its placeholders stand."""
        shown, keys = self.object_encoder(objects)
        embeddings = self.get_input_embeddings()(input_ids)  # (rows, length, hidden_size)
        places = input_ids == self.config.object_token_id
        count, numbers = shown.shape[1], places.sum(dim=1)  # (rows,)
        if bool(((numbers == 0) | (numbers % count != 0)).any()):
            raise ValueError(f"each row of input_ids needs {count} placeholders of objects, or a multiple of {count}.")
        shown = shown[pictures.repeat_interleave(numbers // count)].to(embeddings.dtype)
        return embeddings.masked_scatter(places[..., None], shown), keys

    def _losses(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        masks: torch.Tensor,
        mask_labels: torch.Tensor | None,
        choice: torch.Tensor | None,
        objects: LisaGleeObjects,
        pictures: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Computes each loss before its weight; those of masks with `mask_labels` only."""
        text = nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
        )
        if mask_labels is None:
            return {"text": text}
        if len(mask_labels) != len(masks):
            raise ValueError(f"there are {len(masks)} [SEG] in labels, but {len(mask_labels)} mask_labels.")
        resized = resize(masks, mask_labels.shape[-2:])
        losses = dict(zip(("bce", "dice"), mask_losses(resized, mask_labels)), text=text)
        if choice is not None:
            with torch.no_grad():
                own = torch.einsum("poc,pchw->pohw", objects["mask_embeddings"], objects["mask_features"])
                best = best_objects(own[pictures], resize(mask_labels.to(own), own.shape[-2:]))
            # A mean over nothing is not a number; a sum over nothing is zero.
            losses["object"] = nn.functional.cross_entropy(choice.float(), best, ignore_index=-100, reduction="sum")
            losses["object"] = losses["object"] / max(int((best >= 0).sum()), 1)
        return losses

    def _weighted(self, losses: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns the weighted sum of the losses."""
        loss = self.config.text_loss_weight * losses["text"]
        for name in ("bce", "dice", "object"):
            if name in losses:
                loss = loss + getattr(self.config, f"{name}_loss_weight") * losses[name]
        return loss

    def _segments(self, generated: ModelOutput) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns answer and index of each `[SEG]`, and the state that produced it, `(masks, hidden_size)`."""
        found = generated["sequences"] == self.config.segment_token_id  # (answers, length)
        answers, positions = found.nonzero().unbind(dim=1)
        last = [step[-1][:, -1] for step in generated["hidden_states"]]  # of each step (rows or beams, hidden_size)
        beams = generated.get("beam_indices")  # (answers, length): the beam that each token was added to
        rows = answers if beams is None else beams[answers, positions]
        states = [last[position][row] for position, row in zip(positions.tolist(), rows.tolist())]
        size = self.config.text_config.hidden_size
        return answers, positions, torch.stack(states) if states else last[0].new_zeros(0, size)

    def _answer_masks(
        self, states: torch.Tensor, objects: LisaGleeObjects, keys: torch.Tensor | None, pictures: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns masks `(masks, height, width)` and scores: of the choice, or the mean over the mask's pixels."""
        if keys is None:
            masks = self.segment_head.mask_logits(states, objects["mask_features"], pictures)
            inside = masks > 0
            return masks, (masks.sigmoid() * inside).flatten(1).sum(dim=1) / inside.flatten(1).sum(dim=1).clamp(min=1)
        scores, best = self.segment_head.object_logits(states, keys[pictures]).softmax(dim=-1).max(dim=-1)
        chosen = objects["mask_embeddings"][pictures, best]  # (masks, object_size)
        return torch.einsum("nc,nchw->nhw", chosen, objects["mask_features"][pictures]), scores


def language_auto_class(
    config: LisaGleeConfig,
) -> type[AutoModelForImageTextToText] | type[AutoModelForCausalLM]:
    """Returns the Auto class of the language model, by whether it reads images itself."""
    sees = type(config.language_config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if sees else AutoModelForCausalLM


def _best_distinct(objects: LisaGleeObjects, overlap: float, count: int) -> LisaGleeObjects:
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


def resize(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """
    Resizes maps bilinearly, in float32; averages where they shrink.

    Args:
        maps: `(n, height, width)`.
        size: (height, width) of the result.
    """
    height, width = size
    if tuple(maps.shape[-2:]) == (height, width):
        return maps
    shrinks = maps.shape[-2] > height
    resized = nn.functional.interpolate(
        maps[:, None].float(), (height, width), mode="bilinear", align_corners=False, antialias=shrinks
    )
    return resized[:, 0]
