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

import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    Cache,
    DynamicCache,
    PreTrainedModel,
)
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_lisa_glee import LisaGleeConfig, sub_config
from .loss_lisa_glee import best_objects, mask_losses
from .objects_lisa_glee import LisaGleeMLP, LisaGleeObjectEncoder, LisaGleeObjects, best_distinct
from .references_lisa_glee import FETCHING, references, stored_weights, with_referenced, without_referenced


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

    def enable_input_require_grads(self) -> None:
        """Lets gradients pass the language model's input; GLEE and image encoders are not trained."""
        self.language_model.get_decoder().enable_input_require_grads()

    def disable_input_require_grads(self) -> None:
        """Undoes `enable_input_require_grads`."""
        self.language_model.get_decoder().disable_input_require_grads()

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
        return objects if overlap == 1 else best_distinct(objects, overlap, count)

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
        causal = self.config.object_attention == "causal"
        with_states = kwargs.pop("output_hidden_states", self.config.output_hidden_states)
        with_attentions = kwargs.pop("output_attentions", self.config.output_attentions)
        outputs = self.language_model(
            inputs_embeds=embeddings,
            attention_mask=attention_mask if causal else self._visible(input_ids, attention_mask),
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
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        eyes = {} if pixel_values is None else {"pixel_values": pixel_values}
        if self.config.object_attention == "full":
            kwargs |= self._read(input_ids, embeddings, attention_mask, kwargs, eyes)
            eyes = {}  # they have been read
        generated = self.language_model.generate(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            **eyes,
            **{"suppress_tokens": self._placeholders(), **kwargs},
            return_dict_in_generate=True,
            output_hidden_states=True,
        )
        answers, positions, states = self._segments(generated)
        per_row = len(generated.sequences) // len(input_ids)
        pictures = pictures[answers // per_row]
        masks, scores = self._answer_masks(states, objects, keys, pictures)
        return LisaGleeGenerateOutput(generated.sequences, masks, answers, positions, scores, objects)

    def _visible(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Returns which token sees which, `(rows, 1, length, length)` bool; objects see those after them, too."""
        objects = input_ids == self.config.object_token_id  # (rows, length)
        begins = objects & ~nn.functional.pad(objects[:, :-1], (1, 0))
        run = begins.cumsum(dim=1)  # (rows, length): the number of runs of objects so far
        together = objects[:, :, None] & objects[:, None] & (run[:, :, None] == run[:, None])
        if attention_mask is not None and attention_mask.ndim == 4:
            return attention_mask | together[:, None]
        sees = torch.ones_like(together).tril()
        if attention_mask is not None:
            own = torch.eye(sees.shape[-1], dtype=torch.bool, device=sees.device)  # padding, too, has to see something
            sees &= attention_mask[:, None].bool() | own
        return (sees | together)[:, None]

    def _read(
        self,
        input_ids: torch.Tensor,
        embeddings: torch.Tensor,
        attention_mask: torch.Tensor,
        options: dict[str, Any],
        eyes: dict[str, torch.Tensor],
    ) -> dict[str, Cache]:
        """Returns keys and values of all but the last token: `generate` itself knows causal attention only."""
        name = "cache" if "cache" in inspect.signature(self.language_model.forward).parameters else "past_key_values"
        cache = DynamicCache(config=self.config.text_config)
        self.language_model(
            inputs_embeds=embeddings[:, :-1],
            attention_mask=self._visible(input_ids, attention_mask)[..., :-1, :-1],
            position_ids=(attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, :-1],
            use_cache=True,
            **eyes,
            **{name: cache},
        )
        settings = options.get("generation_config") or self.language_model.generation_config
        beams, answers = (
            options.get(key) or getattr(settings, key, None) or 1 for key in ("num_beams", "num_return_sequences")
        )
        if (copies := max(beams, answers)) > 1:
            cache.batch_repeat_interleave(copies)
        return {name: cache}

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
