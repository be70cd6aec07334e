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
"""GLEE: objects found and segmented by name, sentence, point, box, scribble or mask (Wu et al., CVPR 2024)."""

import math
from dataclasses import replace
from typing import Unpack

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import TransformersKwargs, can_return_tuple

from .attention_glee import GleeSamplingOffsets, GleeZeroLinear, attention_bias, map_shape
from .backbone_glee import GleeFoldedForInference, backbone_channels, make_backbone
from .configuration_glee import PROMPT_LEVELS, GleeConfig, GleeLossSettings, check_denoising_table, sub_config
from .decoder_glee import (
    GleeClassProjection,
    GleeDecoder,
    GleeDecoderLayer,
    GleeEarlyFusion,
    GleeEncoderLayer,
    GleeHeads,
    GleePixelDecoder,
    GleeProposals,
    GleeSelfAttention,
    GleeTextEncoder,
    find_on_maps,
    mean_of_tokens,
    read_masks,
    with_mean,
)
from .loss_glee import (
    GleeDenoising,
    GleeLoss,
    GleeLossDraws,
    GleeSupervision,
    GleeTargets,
    GleeTrainingBatch,
    distillation_loss,
)
from .request_glee import (
    NOTHING_TO_FIND,
    GleeImageFeatures,
    GleeLabelEmbeddings,
    GleeMaps,
    GleeModelOutput,
    GleeObjectDetectionOutput,
    GleeObjectQueries,
    GleePrompts,
    GleeRequest,
    boxes_in_image,
    check_labels,
    check_prompts,
    group_by_padded_size,
    join_layers,
    join_maps,
    merge_groups,
    sizes_of_rows,
)
from .transformers_seam_glee import OutputRecorder, capture_outputs, merge_with_config_defaults, name_for_task
from .transformers_seam_glee import initialization as init
from .visual_prompts_glee import GleePromptTokens, GleeSharedMaps, GleeVisualPrompter, choose_points


class GleePreTrainedModel(GleeFoldedForInference, PreTrainedModel):
    config: GleeConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["GleeEncoderLayer", "GleeDecoderLayer"]
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialises a module as MaskDINO does; backbone and text encoder initialise themselves."""
        if isinstance(module, (GleeSamplingOffsets, GleeZeroLinear)):
            module.init_parameters()
        elif isinstance(module, GleeEarlyFusion):
            init.constant_(module.pixel_scale, 1 / self.config.encoder_layers)
            init.constant_(module.text_scale, 1 / self.config.encoder_layers)
        elif isinstance(module, GleePixelDecoder):
            init.normal_(module.level_embedding)
        elif isinstance(module, GleeHeads):
            prior = self.config.class_prior
            if module.class_bias is not None and prior is not None:
                init.constant_(module.class_bias, math.log(prior / (1 - prior)))
        elif isinstance(module, GleeClassProjection) and not self.config.scaled_products:
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)


class GleeModel(GleePreTrainedModel):
    """Backbone, text encoder, visual prompter, early fusion, pixel decoder, proposals and object decoder."""

    _can_record_outputs = {
        "hidden_states": GleeDecoderLayer,
        "attentions": OutputRecorder(GleeSelfAttention, index=1),
        # what enters the first layer, then what leaves each
        "encoder_hidden_states": [OutputRecorder(GleeEarlyFusion, index=0), OutputRecorder(GleeEncoderLayer, index=0)],
    }

    def __init__(self, config: GleeConfig):
        super().__init__(config)
        self.backbone = make_backbone(
            sub_config(config, "backbone_config", PreTrainedConfig),
            config.num_groups if config.backbone_group_norm else None,
        )
        channels = backbone_channels(self.backbone)
        self.text_encoder = GleeTextEncoder(config)
        if config.text_teacher:
            self.text_teacher = CLIPTextModel(sub_config(config, "text_config", CLIPTextConfig)).requires_grad_(False)
        self.visual_prompter = GleeVisualPrompter(config, channels)
        self.pixel_decoder = GleePixelDecoder(config, channels)
        self.proposals = GleeProposals(config)
        self.decoder = GleeDecoder(config)
        self.heads = GleeHeads(config)
        if config.denoising_tables:
            tables = {name: nn.Embedding(rows, config.hidden_size) for name, rows in config.denoising_tables.items()}
            self.denoising_labels = nn.ModuleDict(tables)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_encoder.clip.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_encoder.clip.set_input_embeddings(value)

    def get_label_embeddings(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> GleeLabelEmbeddings:
        """
        Computes what the model needs to know of a list of labels; it serves any number of images.

        Args:
            input_ids: `(labels, length)`; padding doesn't matter.
            attention_mask: `(labels, length)`, 0 for padding.
        """
        tokens = self.text_encoder(input_ids, attention_mask)
        return GleeLabelEmbeddings(mean_of_tokens(tokens, attention_mask), tokens[attention_mask.bool()])

    def get_expression_tokens(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """
        Computes what the model needs to know of sentences; it serves any number of images.

        Args:
            input_ids: `(texts, length)`, see `expression_input_ids` of [`GleeModel.forward`].
            attention_mask: `(texts, length)`, 0 for padding.

        Returns:
            `(texts, length, hidden_size)`.
        """
        return self.text_encoder(input_ids, attention_mask)

    @can_return_tuple
    def get_image_features(
        self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> GleeImageFeatures:
        """
        Computes what the model needs to know of images; it serves any number of prompts.

        Args:
            pixel_values: `(images, 3, height, width)`, see [`GleeModel.forward`].
            pixel_mask: `(images, height, width)`, see [`GleeModel.forward`].
            kwargs: `output_hidden_states`, `output_attentions` (both of the backbone) and `return_dict`.
        """
        wanted: TransformersKwargs = {}
        if kwargs.get("output_hidden_states", self.config.output_hidden_states):
            wanted["output_hidden_states"] = True
        if kwargs.get("output_attentions", self.config.output_attentions):
            wanted["output_attentions"] = True
        if not self.config.padding_mask or pixel_mask is None:
            return self._image_features(pixel_values, **wanted)
        groups = self._groups(pixel_mask)
        parts = [self._image_features(pixel_values[images, :, :h, :w], **wanted) for (h, w), images in groups]
        order = torch.cat([images for _, images in groups]).argsort()
        return GleeImageFeatures(
            last_hidden_state=join_maps([part["last_hidden_state"] for part in parts], order),
            pooler_output=join_maps([part["pooler_output"] for part in parts], order),
            levels=tuple(join_maps(list(level), order) for level in zip(*(part["levels"] for part in parts))),
            lateral=join_maps([part["lateral"] for part in parts], order),
            hidden_states=join_layers([part.hidden_states for part in parts], order),
            attentions=parts[0].attentions if len(parts) == 1 else None,  # rows of windows can't be put in order
        )

    def _image_features(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> GleeImageFeatures:
        """Computes the features of images that share one padded size."""
        seen = self.backbone(pixel_values, return_dict=True, **kwargs)
        levels, lateral = self.pixel_decoder.project(seen.feature_maps)
        pixels = seen.feature_maps[-1].flatten(2).transpose(1, 2)  # (images, pixels, channels)
        return GleeImageFeatures(
            last_hidden_state=pixels,
            pooler_output=pixels.mean(dim=1),
            levels=tuple(levels),
            lateral=lateral,
            hidden_states=seen.hidden_states,
            attentions=seen.attentions,
        )

    def _groups(self, pixel_mask: torch.Tensor) -> list[tuple[tuple[int, int], torch.Tensor]]:
        """Groups images that `padding_mask` computes together, see [`group_by_padded_size`]."""
        divisor = self.config.canvas_divisor
        if divisor is None:  # the configuration fills it in, but it can be overwritten
            raise ValueError("config.canvas_divisor must be a number of pixels, such as 32, not None.")
        return group_by_padded_size(pixel_mask, divisor)

    def distil(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, kind: str = "mse"
    ) -> tuple[GleeLabelEmbeddings, torch.Tensor]:
        """Computes [`GleeModel.get_label_embeddings`] and [`distillation_loss`] of the text encoder, of this kind."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        student = self.text_encoder.clip(**given).last_hidden_state  # (labels, length, text size)
        with torch.no_grad():
            teacher = self.text_teacher(**given).last_hidden_state
        tokens = self.text_encoder.projection(student)
        embeddings = GleeLabelEmbeddings(mean_of_tokens(tokens, attention_mask), tokens[attention_mask.bool()])
        return embeddings, distillation_loss(student, teacher, attention_mask, kind)

    def get_object_queries(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        count: int = 100,
    ) -> GleeObjectQueries:
        """
        Computes the best queries of images with all that another model needs to refer to them.

        Args:
            pixel_values: `(images, 3, height, width)`, see [`GleeModel.forward`].
            pixel_mask: `(images, height, width)`, see [`GleeModel.forward`].
            input_ids: `(labels, length)`, such as "object" alone; a query's score is that of its best label.
            attention_mask: `(labels, length)`.
            count: queries of each image.
        """
        outputs = self(pixel_values, pixel_mask, input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
        states, boxes = outputs.last_hidden_state, outputs.pred_boxes
        scores, best = self.heads.best_queries(states, outputs.class_embeddings, count, outputs.query_mask)
        states, boxes = (x.gather(1, best[..., None].expand(-1, -1, x.shape[-1])) for x in (states, boxes))
        masks = self.heads.mask_embeddings(states, boxes)
        return GleeObjectQueries(states, scores, boxes_in_image(boxes, pixel_mask), masks, outputs.mask_features)

    def get_shared_maps(
        self, image_features: GleeImageFeatures, class_embeddings: torch.Tensor, class_tokens: torch.Tensor
    ) -> GleeSharedMaps:
        """
        Runs the pixel decoder for one text, such as "object"; the maps serve any number of visual prompts.

        Args:
            image_features: of [`GleeModel.get_image_features`], of images of one size.
            class_embeddings: `(labels, hidden_size)`, of [`GleeModel.get_label_embeddings`].
            class_tokens: `(tokens, hidden_size)`, from there, too.
        """
        maps = image_features.maps()
        mask_features, levels, _ = self.pixel_decoder(maps.levels, maps.lateral, class_tokens[None])
        return GleeSharedMaps(tuple(levels), mask_features, class_embeddings[None])

    def get_prompt_tokens(self, maps: GleeSharedMaps, prompt_masks: torch.Tensor) -> GleePromptTokens:
        """
        Reads what visual prompts mark.

        Args:
            maps: of [`GleeModel.get_shared_maps`], of the one image that the prompts are about.
            prompt_masks: `(prompts, height, width)` bool, on the padded image, each with a pixel at least.
        """
        points = choose_points(prompt_masks, self.config.max_prompt_points)
        levels = [level.expand(len(points), -1, -1, -1) for level in maps["levels"][:PROMPT_LEVELS]]
        return GleePromptTokens(tuple(self.visual_prompter.pixel_tokens(levels, points)), points[:, 0, :, 0] >= 0)

    def find_on_maps(
        self, maps: GleeSharedMaps, prompts: GleePromptTokens, count: int | None = None, decoded: int | None = None
    ) -> GleeObjectDetectionOutput:
        """
        Finds the objects of visual prompts on maps that all of them share.

        `forward` fuses each prompt's crop with the image and runs the pixel decoder for each prompt; here it has run
        once, in `get_shared_maps`, and only the object decoder knows the prompts.

        Args:
            maps: of the images in which the objects are searched for.
            prompts: of `get_prompt_tokens`; they may be about other images.
            count: queries of each row, those of the best scores; None for all.
            decoded: queries that the object decoder computes, the best proposals; None for all.

        Returns:
            `logits`, `confidence`, `pred_boxes`, `pred_masks` and `track_embeddings`; a row is a prompt in an image,
            all prompts of the first image first.
        """
        found = find_on_maps(self.proposals, self.decoder, self.heads, maps, prompts, count, decoded)
        return GleeObjectDetectionOutput(**found)

    def _request(self, prompts: GleePrompts, pixel_values: torch.Tensor) -> GleeRequest:
        """Embeds what is looked for."""
        images = prompts.images(pixel_values.device)
        sentences = prompts.pair("expression_tokens")
        if (ids := prompts.pair("expression_input_ids")) is not None:
            sentences = self.text_encoder(*ids), ids[1]
        if sentences is not None:
            return GleeRequest(*with_mean(*sentences), text_mask=sentences[1].bool(), image_indices=images)
        labels, embeddings = prompts.pair("input_ids"), prompts.pair("class_embeddings")
        if labels is not None and images is None and prompts.own_labels is not None:
            if len(pixel_values) == len(labels[0]) > 1:
                tokens = self.text_encoder(*labels)
                return GleeRequest(*with_mean(tokens, labels[1]), label_mask=labels[1].bool())
        if embeddings is None:
            if labels is None:
                raise ValueError(NOTHING_TO_FIND)
            embeddings = self.get_label_embeddings(*labels).to_tuple()
        classes, tokens = embeddings
        return GleeRequest(classes[None], tokens[None], image_indices=images, visual=prompts.visual())

    @can_return_tuple
    @merge_with_config_defaults
    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        class_embeddings: torch.Tensor | None = None,
        class_tokens: torch.Tensor | None = None,
        expression_input_ids: torch.Tensor | None = None,
        expression_attention_mask: torch.Tensor | None = None,
        expression_tokens: torch.Tensor | None = None,
        prompt_masks: torch.Tensor | None = None,
        prompt_types: torch.Tensor | None = None,
        prompt_points: torch.Tensor | None = None,
        prompt_image_indices: torch.Tensor | None = None,
        prompt_sources: torch.Tensor | None = None,
        own_labels: torch.Tensor | None = None,
        image_features: GleeImageFeatures | None = None,
        denoising: GleeDenoising | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> GleeModelOutput:
        r"""
        Finds the queries of all objects, without what the heads read from them.

        Pass exactly one of labels (the same for all images), expressions, or visual prompts. Visual prompts come with
        the one label they are scored against, "object".

        Args:
            pixel_values (`torch.Tensor` of shape `(images, 3, height, width)`):
                Normalised, padded on the right and below.
            pixel_mask (`torch.Tensor` of shape `(images, height, width)`, *optional*): 1 for the image, 0 for padding.
            input_ids (`torch.Tensor` of shape `(labels, length)`, *optional*): token ids of the labels.
            attention_mask (`torch.Tensor` of shape `(labels, length)`, *optional*): 1 for text, 0 for padding.
            class_embeddings (`torch.Tensor` of shape `(labels, hidden_size)`, *optional*):
                Of [`GleeModel.get_label_embeddings`], instead of `input_ids`.
            class_tokens (`torch.Tensor` of shape `(tokens, hidden_size)`, *optional*): from there, too.
            expression_input_ids (`torch.Tensor` of shape `(prompts, length)`, *optional*):
                Padded to the text encoder's full length: the published weights expect to see the padding, too.
            expression_attention_mask (`torch.Tensor` of shape `(prompts, length)`, *optional*):
                1 for text, 0 for padding.
            expression_tokens (`torch.Tensor` of shape `(prompts, length, hidden_size)`, *optional*):
                Of [`GleeModel.get_expression_tokens`], instead of `expression_input_ids`.
            prompt_masks (`torch.Tensor` of shape `(prompts, height, width)`, bool, *optional*): on the padded image.
            prompt_types (`torch.Tensor` of shape `(prompts,)`, *optional*): 0 mask, 1 box, 2 point, 3 scribble.
            prompt_points (`torch.Tensor` of shape `(prompts, 4 or 1, points, 2)`, *optional*):
                For each level the pixels of the prompt that are read, (row / height, column / width) in the padded
                image; absent ones negative. By default up to `max_prompt_points`, evenly chosen (while training: at
                random).
            prompt_image_indices (`torch.Tensor` of shape `(prompts,)`, *optional*):
                The image of each prompt; by default prompt i belongs to image i.
            prompt_sources (`torch.Tensor` of shape `(prompts,)`, *optional*):
                The prompt that each one is exchanged for, with the image that it was drawn on: in the frames of a clip
                what was shown in its first frame is looked for. By default each prompt stands for itself. With
                `config.padding_mask` all images must have one padded size.
            own_labels (`torch.Tensor` of shape `(images,)`, *optional*):
                Of the image processor, for images that were prepared one by one: if there is one label for each image,
                label i is looked for in image i only. By default all labels are looked for in all images.
            image_features ([`GleeImageFeatures`], *optional*):
                Of [`GleeModel.get_image_features`] for the same images: the backbone doesn't run again.
            denoising ([`GleeDenoising`], *optional*): extra queries for training; not with `config.padding_mask`.

        Raises:
            ValueError: none or several kinds of prompts are passed, or sizes don't match.
        """
        maps = None if image_features is None else image_features.maps()
        prompts = GleePrompts(
            input_ids=input_ids,
            attention_mask=attention_mask,
            class_embeddings=class_embeddings,
            class_tokens=class_tokens,
            expression_input_ids=expression_input_ids,
            expression_attention_mask=expression_attention_mask,
            expression_tokens=expression_tokens,
            prompt_masks=prompt_masks,
            prompt_types=prompt_types,
            prompt_points=prompt_points,
            prompt_image_indices=prompt_image_indices,
            prompt_sources=prompt_sources,
            own_labels=own_labels,
        )
        check_prompts(self.config, pixel_values, prompts, maps)
        request = self._request(prompts, pixel_values)
        if not self.config.padding_mask or pixel_mask is None:
            return self._perceive(pixel_values, request, maps, denoising, return_dict=True, **kwargs)
        return self._perceive_alone(pixel_values, pixel_mask, request, maps, **kwargs)

    def _perceive_alone(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor,
        request: GleeRequest,
        maps: GleeMaps | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> GleeModelOutput:
        """Computes each image as if it were alone in its batch; images of one padded size share a pass."""
        height, width = pixel_mask.shape[-2:]
        padded_sizes, rows, outputs = [], [], []
        groups = self._groups(pixel_mask)
        if request.visual is not None and request.visual.sources is not None and len(groups) > 1:
            raise ValueError("prompt_sources need images of one padded size where the model has padding_mask.")
        for padded, images in groups:
            group_rows, group_request = request.of_images(images, padded, (height, width))
            if len(group_rows):
                alone = pixel_values[images, :, : padded[0], : padded[1]]
                known = None if maps is None else maps.crop(images, padded, self.pixel_decoder.strides)
                outputs.append(self._perceive(alone, group_request, known, return_dict=True, **kwargs))
                padded_sizes.append(padded)
                rows.append(group_rows)
        own_classes = len(request.class_embeddings) > 1
        return merge_groups(outputs, rows, padded_sizes, (height, width), own_classes)

    @capture_outputs  # here and not of `forward`, so that each padded size has its own layers
    def _perceive(
        self,
        pixel_values: torch.Tensor,
        request: GleeRequest,
        maps: GleeMaps | None = None,
        denoising: GleeDenoising | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> GleeModelOutput:
        if maps is None:
            maps = self._image_features(pixel_values).maps()
        if request.image_indices is not None:
            maps = maps.of_images(request.image_indices)
        text = request.text
        if request.visual is not None:
            images = pixel_values[request.image_indices]
            template = self.visual_prompter.template(images, request.visual, self.backbone, self.config.template_size)
            text = torch.cat((text.expand(len(template), -1, -1), template), dim=1)
        bias = request.text_bias(self.config.fusion_attends_padding)
        mask_features, levels, fused_text = self.pixel_decoder(maps.levels, maps.lateral, text, bias, **kwargs)
        prompts, present = self._decoder_prompts(request, levels, fused_text)
        shapes = [map_shape(level) for level in reversed(levels)]
        memory = torch.cat([level.flatten(2).transpose(1, 2) for level in reversed(levels)], dim=1)
        by_confidence = request.visual is not None
        queries, boxes, tokens = self.proposals(memory, shapes, self.heads, request.class_embeddings, by_confidence)
        start, start_boxes, bias, known = queries.detach(), boxes.detach(), None, 0
        if denoising is not None:
            known, bias = denoising.queries.shape[1], denoising.attention_bias(queries.shape[1])
            start = torch.cat((denoising.queries.to(start.dtype), start), dim=1)
            start_boxes = torch.cat((denoising.boxes, start_boxes), dim=1)
        if present is not None:
            seen = torch.cat((present.new_ones(start.shape[:2]), present), dim=1)
            seen = attention_bias(seen, queries.dtype)
            bias = seen if bias is None else seen + nn.functional.pad(bias, (0, present.shape[1]))
        states, refined = self.decoder(start, start_boxes, memory, shapes, self.heads, prompts, bias, **kwargs)
        # (layers, rows, denoising and other queries, …) each
        return GleeModelOutput(
            last_hidden_state=states[-1, :, known:],
            pred_boxes=refined[-1, :, known:],
            mask_features=mask_features,
            feature_maps=tuple(levels),
            class_embeddings=request.class_embeddings,
            layer_states=states[:, :, known:],
            layer_boxes=refined[:, :, known:],
            denoising_states=states[:, :, :known] if known else None,
            denoising_boxes=refined[:, :, :known] if known else None,
            proposal_states=queries,
            proposal_boxes=boxes,
            proposal_indices=tokens,
        )

    def _decoder_prompts(
        self, request: GleeRequest, levels: list[torch.Tensor], fused_text: torch.Tensor | None
    ) -> tuple[list[torch.Tensor] | None, torch.Tensor | None]:
        """Returns prompt tokens for the decoder's layers, `(rows, tokens, hidden_size)`, and which ones are real."""
        if request.text_mask is not None:
            text = request.text if fused_text is None else fused_text
            return [text], request.text_mask
        if request.visual is None:
            return None, None
        points, sources = request.visual.points, request.visual.sources
        if points is None:
            points = choose_points(request.visual.masks, self.config.max_prompt_points, random=self.training)
        tokens = self.visual_prompter.pixel_tokens(levels[:PROMPT_LEVELS], points)
        present = points[:, 0, :, 0] >= 0
        if sources is not None:
            return [level[sources] for level in tokens], present[sources]
        return tokens, present


class GleeForObjectDetection(GleePreTrainedModel):
    """GLEE with what is read from its queries: class scores, confidence, boxes and masks."""

    accepts_loss_kwargs = False  # to a Trainer: the loss of a step is the mean of its batches'

    def __init__(self, config: GleeConfig):
        super().__init__(config)
        self.model = GleeModel(config)
        self.post_init()

    def get_label_embeddings(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> GleeLabelEmbeddings:
        """See [`GleeModel.get_label_embeddings`]."""
        return self.model.get_label_embeddings(input_ids, attention_mask)

    def get_expression_tokens(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """See [`GleeModel.get_expression_tokens`]."""
        return self.model.get_expression_tokens(input_ids, attention_mask)

    def get_image_features(
        self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> GleeImageFeatures:
        """See [`GleeModel.get_image_features`]."""
        return self.model.get_image_features(pixel_values, pixel_mask, **kwargs)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        class_embeddings: torch.Tensor | None = None,
        class_tokens: torch.Tensor | None = None,
        expression_input_ids: torch.Tensor | None = None,
        expression_attention_mask: torch.Tensor | None = None,
        expression_tokens: torch.Tensor | None = None,
        prompt_masks: torch.Tensor | None = None,
        prompt_types: torch.Tensor | None = None,
        prompt_points: torch.Tensor | None = None,
        prompt_image_indices: torch.Tensor | None = None,
        prompt_sources: torch.Tensor | None = None,
        own_labels: torch.Tensor | None = None,
        image_features: GleeImageFeatures | None = None,
        labels: list[dict[str, torch.Tensor]] | None = None,
        supervision: GleeSupervision | None = None,
        loss_draws: GleeLossDraws | None = None,
        loss_objects: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> GleeObjectDetectionOutput:
        r"""
        Finds objects; while training, computes the losses.

        The other arguments are those of [`GleeModel.forward`].

        Args:
            labels (`list[dict]`, one a row, *optional*):
                What is to be found: `class_labels` `(n,)`, `boxes` `(n, 4)` cxcywh as shares of the padded image, and
                where known `masks` `(n, height, width)` on the padded image and `track_ids` `(n,)`, the same in all
                frames of a clip. With `config.text_teacher` the text encoder's distance from it is a loss, too, if
                `input_ids` are given.
            supervision ([`GleeSupervision`], *optional*):
                What can be learnt from the labels; by default everything, and the confidence with visual prompts.
            loss_draws ([`GleeLossDraws`], *optional*): numbers to use in place of random ones.
            loss_objects (`torch.Tensor`, *optional*):
                The number that sums over objects are divided by, where a step has several batches; by default the
                number of objects in the labels, as the mean over the processes that train together.
        """
        prompts = GleePrompts(
            input_ids=input_ids,
            attention_mask=attention_mask,
            class_embeddings=class_embeddings,
            class_tokens=class_tokens,
            expression_input_ids=expression_input_ids,
            expression_attention_mask=expression_attention_mask,
            expression_tokens=expression_tokens,
            prompt_masks=prompt_masks,
            prompt_types=prompt_types,
            prompt_points=prompt_points,
            prompt_image_indices=prompt_image_indices,
            prompt_sources=prompt_sources,
            own_labels=own_labels,
        )
        batch = None
        if labels is not None:
            batch, prompts = self._training_batch(labels, pixel_values, prompts, supervision, loss_draws)
        outputs = self.model(
            pixel_values=pixel_values,
            pixel_mask=pixel_mask,
            image_features=image_features,
            denoising=None if batch is None else batch.denoising,
            return_dict=True,
            **vars(prompts),
            **kwargs,
        )
        auxiliary = proposals = loss = loss_dict = None
        if not self.config.auxiliary_outputs and batch is None:
            states, boxes = outputs["last_hidden_state"][None], outputs["pred_boxes"][None]
            (predictions,) = self._predictions(outputs, self._head_input(states), boxes)
        else:
            predictions, *auxiliary, proposals = self._all_predictions(outputs)
            if batch is not None:
                loss, loss_dict = self._loss(batch, outputs, predictions, auxiliary, proposals, loss_objects)
        image_sizes, padded_sizes = sizes_of_rows(pixel_values, pixel_mask, prompts)
        return GleeObjectDetectionOutput(
            loss=loss,
            loss_dict=loss_dict,
            **predictions,
            track_embeddings=outputs.last_hidden_state,
            image_sizes=image_sizes,
            padded_sizes=padded_sizes,
            auxiliary_outputs=auxiliary,
            proposal_outputs=proposals,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            encoder_hidden_states=outputs.encoder_hidden_states,
        )

    def _training_batch(
        self,
        labels: list[dict[str, torch.Tensor]],
        pixel_values: torch.Tensor,
        prompts: GleePrompts,
        supervision: GleeSupervision | None,
        draws: GleeLossDraws | None,
    ) -> tuple[GleeTrainingBatch, GleePrompts]:
        """Prepares what the losses need; returned with the prompts, in which distilled labels are embedded already."""
        rows = pixel_values if prompts.rows is None else prompts.rows
        supervision = supervision or GleeSupervision(confidence=prompts.prompt_masks is not None)
        criterion = GleeLoss(GleeLossSettings.from_config(self.config.loss_settings), draws)
        check_labels(labels, (pixel_values.shape[-2], pixel_values.shape[-1]), supervision.masks)
        targets = GleeTargets.from_labels(labels, len(rows), supervision.masks, supervision.class_agnostic)
        denoising = distillation = None
        if (name := supervision.denoising_table) is not None:
            check_denoising_table(name, self.config.denoising_tables)
            denoising = criterion.denoising(targets, self.model.denoising_labels[name])
        given = prompts.pair("input_ids")
        if self.config.text_teacher and given is not None and prompts.class_embeddings is None:
            embeddings, distillation = self.model.distil(*given, criterion.settings.distillation_loss)
            prompts = replace(prompts, **embeddings)
        return GleeTrainingBatch(criterion, targets, supervision, denoising, distillation), prompts

    def _loss(
        self,
        batch: GleeTrainingBatch,
        outputs: GleeModelOutput,
        predictions: dict[str, torch.Tensor],
        auxiliary: list[dict[str, torch.Tensor]],
        proposals: dict[str, torch.Tensor],
        objects: torch.Tensor | None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Computes the weighted sum of all losses, and each of them; `objects` as `loss_objects` of `forward`."""
        return batch.criterion(
            predictions,
            auxiliary,
            proposals,
            batch.targets,
            batch.supervision,
            denoising=batch.denoising,
            denoised=[] if batch.denoising is None else self._denoised(outputs, batch.denoising),
            track_embeddings=outputs["last_hidden_state"],
            distillation=batch.distillation,
            objects=objects,
        )

    # Below, what every output has is read by key, which raises a KeyError for a field that is None.

    def _head_input(self, states: torch.Tensor) -> torch.Tensor:
        return self.model.decoder.norm(states) if self.config.double_decoder_norm else states

    def _predictions(
        self, outputs: GleeModelOutput, states: torch.Tensor, boxes: torch.Tensor
    ) -> list[dict[str, torch.Tensor]]:
        """Computes what the heads read from states `(stages, rows, queries, size)` with boxes `(…, 4)`, by stages."""
        heads = self.model.heads
        logits = heads.class_logits(states, outputs["class_embeddings"])
        confidence = heads.confidence(states)[..., 0]
        if outputs.query_mask is not None:
            lowest = torch.finfo(logits.dtype).min
            logits = logits.masked_fill(~outputs.query_mask[..., None], lowest)
            confidence = confidence.masked_fill(~outputs.query_mask, lowest)
        # Masks are the largest tensors of all: each stage has its own, so that gradients needn't exist together.
        masks = [read_masks(part, outputs["mask_features"]) for part in heads.mask_embeddings(states, boxes)]
        names = ("logits", "confidence", "pred_boxes", "pred_masks")
        return [dict(zip(names, stage)) for stage in zip(logits, confidence, boxes, masks)]

    def _all_predictions(self, outputs: GleeModelOutput) -> list[dict[str, torch.Tensor]]:
        """Computes the predictions of the last layer, the first queries, the layers before it, and the proposals."""
        states, boxes = outputs["proposal_states"], outputs["proposal_boxes"]
        first = self.model.decoder.norm(torch.stack((states.detach(), states)))
        layers, refined = self._head_input(outputs["layer_states"]), outputs["layer_boxes"]
        states = torch.cat((layers[-1:], first[:1], layers[:-1], first[1:]))
        boxes = torch.cat((refined[-1:], boxes.detach()[None], refined[:-1], boxes[None]))
        return self._predictions(outputs, states, boxes)

    def _denoised(self, outputs: GleeModelOutput, denoising: GleeDenoising) -> list[dict[str, torch.Tensor]]:
        """Computes class scores and boxes of denoising queries: of the last layer, the start, the layers between."""
        start = self.model.decoder.norm(denoising.queries)[None]
        layers, refined = self._head_input(outputs["denoising_states"]), outputs["denoising_boxes"]
        logits = self.model.heads.class_logits(
            torch.cat((layers[-1:], start.to(layers.dtype), layers[:-1])), outputs["class_embeddings"]
        )
        boxes = (refined[-1], denoising.boxes, *refined[:-1])
        return [{"logits": one, "pred_boxes": other} for one, other in zip(logits, boxes)]


name_for_task("zero-shot-object-detection", GleeForObjectDetection)

__all__ = ["GleeForObjectDetection", "GleeModel", "GleePreTrainedModel"]
