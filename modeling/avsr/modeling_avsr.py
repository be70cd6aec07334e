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
"""AVSR: speech read from sound, from lips, or from both, and words from lips (Pan et al., ACL 2022)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple

from .beam_decoding_avsr import AvsrBeamCache
from .configuration_avsr import AvsrConfig
from .encoder_avsr import ENCODERS, AvsrEncoder, AvsrPreTrainedModel, AvsrTransformer, shared_parameters
from .front_ends_avsr import AvsrVisualFrontEnd
from .generation_avsr import AvsrGenerationMixin
from .layers_avsr import (
    AvsrAttention,
    AvsrConvBlock,
    AvsrCtcHead,
    AvsrDecoderHead,
    AvsrDecoderLayer,
    AvsrEncoderOutput,
    AvsrModalityHeads,
    select_steps,
    sinusoidal_positions,
)
from .text_scores_avsr import (
    IGNORED,
    alignment_objective,
    attention_objective,
    ctc_objective,
    windowed_ctc_objective,
)
from .transformers_seam_avsr import (
    OutputRecorder,
    capture_outputs,
    create_bidirectional_mask,
    create_causal_mask,
    merge_with_config_defaults,
    name_for_task,
)

SHORTEST = 29  # frames of an LRW clip, and the fewest that the convolutional back-end takes


@dataclass
class AvsrDecoderOutput(ModelOutput):
    r"""
    Output of [`AvsrDecoder`].

    Attributes:
        last_hidden_state: `(batch, length, hidden_size)`, after the final norm.
        cache: keys and values so far; `past_key_values` is its older name.
        hidden_states: with `output_hidden_states`, of each layer, `(batch, length, hidden_size)`.
        attentions: with `output_attentions`, of each layer, `(batch, heads, length, length)`.
        cross_attentions: with `output_attentions`, of each layer, `(batch, heads, length, frames)`.
    """

    last_hidden_state: torch.Tensor
    cache: EncoderDecoderCache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None

    @property
    def past_key_values(self) -> EncoderDecoderCache | None:
        return self.cache


@dataclass
class AvsrOutput(ModelOutput):
    r"""
    Output of [`AvsrModel`] and [`AvsrForConditionalGeneration`].

    While training with `modality_loss_weights`, the batch is the views times the clips.

    Attributes:
        loss: with `labels`, the hybrid loss, a scalar; summed over the views if `modality_loss_weights` is set.
        ctc_loss: its CTC part, a scalar.
        attention_loss: its attention part, a scalar.
        alignment_loss: its alignment part, a scalar; with `alignment_labels` or `alignment_windows`.
        clips_without_path: with `alignment_windows`, the number of clips whose windows allow no path, a scalar.
        logits: `(batch, length, vocab)`, the decoder's character scores.
        ctc_logits: `(batch, frames * ctc_upsampling, vocab)`, CTC's character scores.
        last_hidden_state: `(batch, length, hidden_size)`, the decoder's.
        cache: keys and values so far; `past_key_values` is its older name.
        decoder_hidden_states: see [`AvsrDecoderOutput`].
        decoder_attentions: see [`AvsrDecoderOutput`].
        cross_attentions: see [`AvsrDecoderOutput`].
        encoder_last_hidden_state: `(batch, frames, hidden_size)`.
        frame_mask: `(batch, frames)` bool, the valid frames.
        encoder_hidden_states: see [`AvsrEncoderOutput`].
        encoder_attentions: see [`AvsrEncoderOutput`].
        audio_hidden_states: see [`AvsrEncoderOutput`].
        audio_attentions: see [`AvsrEncoderOutput`].
        visual_hidden_states: see [`AvsrEncoderOutput`].
        visual_attentions: see [`AvsrEncoderOutput`].
    """

    loss: torch.Tensor | None = None
    ctc_loss: torch.Tensor | None = None
    attention_loss: torch.Tensor | None = None
    alignment_loss: torch.Tensor | None = None
    clips_without_path: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    ctc_logits: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    cache: EncoderDecoderCache | None = None
    decoder_hidden_states: tuple[torch.Tensor, ...] | None = None
    decoder_attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None
    encoder_last_hidden_state: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    encoder_hidden_states: tuple[torch.Tensor, ...] | None = None
    encoder_attentions: tuple[torch.Tensor, ...] | None = None
    audio_hidden_states: tuple[torch.Tensor, ...] | None = None
    audio_attentions: tuple[torch.Tensor, ...] | None = None
    visual_hidden_states: tuple[torch.Tensor, ...] | None = None
    visual_attentions: tuple[torch.Tensor, ...] | None = None

    @property
    def past_key_values(self) -> EncoderDecoderCache | None:
        return self.cache


class AvsrDecoder(AvsrPreTrainedModel):
    """The character decoder (section 3.4)."""

    _can_record_outputs = {
        "hidden_states": AvsrDecoderLayer,
        "attentions": OutputRecorder(AvsrAttention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(AvsrAttention, index=1, layer_name="encoder_attn"),
    }

    def __init__(self, config: AvsrConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([AvsrDecoderLayer(config, index) for index in range(config.decoder_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.scaling = config.hidden_size**0.5 if config.scale_embeddings else 1.0
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
        use_cache: bool | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AvsrDecoderOutput:
        """
        Computes hidden states of characters.

        Args:
            input_ids: `(batch, length)` int64, the characters; the start token first.
            attention_mask: `(batch, length)`, 1 for characters, 0 for padding.
            encoder_hidden_states: `(batch, frames, hidden_size)`, the encoder's output.
            encoder_attention_mask: `(batch, frames)` bool, the valid frames.
            cache: keys and values of the characters before `input_ids`.
            use_cache: whether to return a cache.
            inputs_embeds: `(batch, length, hidden_size)`, instead of `input_ids`, before they are scaled and positions
                are added.
            past_key_values: older name of `cache`.

        Raises:
            ValueError: neither or both of `input_ids` and `inputs_embeds` are passed.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("The decoder needs either decoder_input_ids or decoder_inputs_embeds.")
        cache = cache if past_key_values is None else past_key_values
        if use_cache and cache is None and not self.training:
            cache = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))
        past = cache.get_seq_length() if cache is not None else 0
        hidden_states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if self.scaling != 1.0:
            hidden_states = hidden_states * self.scaling
        _, length, size = hidden_states.shape
        positions = sinusoidal_positions(length, size, device=hidden_states.device, offset=past)
        hidden_states = hidden_states + positions.to(hidden_states.dtype)
        causal_mask = create_causal_mask(self.config, hidden_states, attention_mask, cache)
        encoder_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=encoder_attention_mask,
            encoder_hidden_states=encoder_hidden_states,
        )
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                causal_mask,
                encoder_hidden_states,
                encoder_mask,
                cache=cache,
                **kwargs,
            )
        return AvsrDecoderOutput(last_hidden_state=self.norm(hidden_states), cache=cache)

    @torch.inference_mode()
    def step(
        self, labels: torch.Tensor, beams: AvsrBeamCache, frames: torch.Tensor, frame_mask: torch.Tensor
    ) -> torch.Tensor:
        """
        Computes what `forward` gives at the newest character of each hypothesis of a beam search.

        Args:
            labels: `(clips, beams)`, the newest characters.
            beams: the keys and values so far; those of the newest characters are added.
            frames: `(clips, frames, hidden_size)`, the encoder's output.
            frame_mask: `(clips, frames)` bool.

        Returns:
            `(clips, beams, hidden_size)`.
        """
        if not beams.layers:
            beams.prefill(self.layers, frames, frame_mask)
        return self.norm(beams.advance(self.embed_tokens(labels) * self.scaling))


class AvsrModel(AvsrPreTrainedModel):
    """Encoder and decoder without the output heads."""

    def __init__(self, config: AvsrConfig):
        super().__init__(config)
        self.encoder = ENCODERS[config.fusion](config)
        self.decoder = AvsrDecoder(config)
        if config.tie_final_norm:
            self._tied_weights_keys = shared_parameters({"decoder.norm": "encoder.norm"})
        self.post_init()

    def get_encoder(self, *args, **kwargs) -> AvsrEncoder:
        return self.encoder

    def get_decoder(self) -> AvsrDecoder:
        return self.decoder

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.decoder.set_input_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: AvsrEncoderOutput | None = None,
        cache: EncoderDecoderCache | None = None,
        use_cache: bool | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AvsrOutput:
        r"""
        Encodes clips and decodes characters; see [`AvsrForConditionalGeneration`] for the arguments.

        `decoder_input_ids` defaults to the start token alone.

        Raises:
            ValueError: none of the inputs that the model's `modality` reads is passed.
        """
        cache = cache if past_key_values is None else past_key_values
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_values,
                attention_mask,
                pixel_values_videos,
                video_attention_mask,
                return_dict=True,
                **kwargs,
            )
        memory, frame_mask = encoder_outputs.last_hidden_state, encoder_outputs.frame_mask
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            start = self.config.decoder_start_token_id
            decoder_input_ids = torch.full((memory.shape[0], 1), start, device=memory.device)
        decoded = self.decoder(
            decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=memory,
            encoder_attention_mask=frame_mask,
            cache=cache,
            use_cache=use_cache,
            inputs_embeds=decoder_inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        return AvsrOutput(
            last_hidden_state=decoded.last_hidden_state,
            cache=decoded.cache,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=memory,
            frame_mask=frame_mask,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
            audio_hidden_states=encoder_outputs.audio_hidden_states,
            audio_attentions=encoder_outputs.audio_attentions,
            visual_hidden_states=encoder_outputs.visual_hidden_states,
            visual_attentions=encoder_outputs.visual_attentions,
        )


class AvsrForConditionalGeneration(AvsrGenerationMixin, AvsrPreTrainedModel):
    """The recogniser: [`AvsrModel`] with the CTC head and the decoder's head (section 3.4)."""

    config: AvsrConfig
    accepts_loss_kwargs = False  # the loss is a mean over the batch; gradient accumulation averages it

    def __init__(self, config: AvsrConfig):
        super().__init__(config)
        self.model = AvsrModel(config)
        self.ctc_head: AvsrCtcHead | AvsrModalityHeads
        self.decoder_head: AvsrDecoderHead | AvsrModalityHeads
        if config.modality_heads:
            self.ctc_head = AvsrModalityHeads(config, AvsrCtcHead)
            self.decoder_head = AvsrModalityHeads(config, AvsrDecoderHead)
        else:
            self.ctc_head, self.decoder_head = AvsrCtcHead(config), AvsrDecoderHead(config)
        self.post_init()

    def get_encoder(self, *args, **kwargs) -> AvsrEncoder:
        return self.model.encoder

    def get_decoder(self) -> AvsrDecoder:
        return self.model.decoder

    def get_output_embeddings(self) -> nn.Linear:
        return self.decoder_head.output

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.decoder_head.output = value

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Embedding:
        """Resizes the embedding and the decoder's output as transformers does, and the other heads with them."""
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        self.ctc_head.resize(embeddings.num_embeddings)
        self.decoder_head.resize(embeddings.num_embeddings)
        return embeddings

    def compute_ctc_logits(self, encoder_outputs: AvsrEncoderOutput) -> torch.Tensor:
        """Computes CTC's character scores `(batch, frames * ctc_upsampling, vocab)` of encoded clips."""
        heads = self._heads_of(self.ctc_head, encoder_outputs)
        return heads(encoder_outputs.last_hidden_state, encoder_outputs.frame_mask)

    def decoder_head_of(self, encoder_outputs: AvsrEncoderOutput) -> Callable[[torch.Tensor], torch.Tensor]:
        """Returns what computes the decoder's scores of its hidden states, for the modalities of encoded clips."""
        return self._heads_of(self.decoder_head, encoder_outputs)

    def _heads_of(self, head: nn.Module, encoder_outputs: AvsrEncoderOutput) -> Callable[..., torch.Tensor]:
        """Returns the head, or with one for each modality what chooses among them for each clip."""
        modalities = encoder_outputs.get("modalities")
        if not isinstance(head, AvsrModalityHeads):
            return head
        if modalities is None:
            raise ValueError("`encoder_outputs` has no `modalities`: pass what this model's encoder returned.")
        if self.training:  # all heads have a part in it, so that their parameters have gradients
            return partial(head, modalities=modalities)
        return head.of(modalities)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: AvsrEncoderOutput | None = None,
        cache: EncoderDecoderCache | None = None,
        labels: torch.Tensor | None = None,
        alignment_labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        audio_encodings: torch.Tensor | None = None,
        audio_encoding_mask: torch.Tensor | None = None,
        visual_encodings: torch.Tensor | None = None,
        visual_encoding_mask: torch.Tensor | None = None,
        alignment_windows: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AvsrOutput:
        r"""
        Computes character scores and, with `labels`, the hybrid loss.

        Args:
            input_values (`torch.Tensor` of shape `(batch, samples)`, *optional*): normalised 16 kHz waveforms.
            attention_mask (`torch.Tensor` of shape `(batch, samples)`, *optional*): 1 for sound; a row of 0: no sound.
            pixel_values_videos (`torch.Tensor` of shape `(batch, frames, 1, height, width)`, *optional*): mouth crops.
            video_attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*):
                1 for frames; a row of 0: no lips.
            decoder_input_ids (`torch.Tensor` of shape `(batch, length)`, *optional*):
                The characters so far, the start token first; made from `labels` by default.
            decoder_attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*): 1 for characters.
            encoder_outputs (`AvsrEncoderOutput`, *optional*): encoded clips, instead of the first four inputs.
            cache (`EncoderDecoderCache`, *optional*): keys and values of the characters before `decoder_input_ids`.
            labels (`torch.Tensor` of shape `(batch, length)`, *optional*):
                Characters, EOS, then -100 (ignored); a row of -100 only has no loss. While training with
                `modality_loss_weights` there may be a text for each view: rows as many as views times clips.
            alignment_labels (`torch.Tensor` of shape `(batch, steps)`, *optional*):
                For `alignment_loss="steps"`: the character or blank of each CTC step, -100 where it is not known. Rows
                as many as clips, or as `labels`.
            use_cache (`bool`, *optional*): whether to return a cache.
            decoder_inputs_embeds (`torch.Tensor` of shape `(batch, length, hidden_size)`, *optional*):
                Instead of `decoder_input_ids`: what the decoder reads, before positions are added.
            past_key_values (`EncoderDecoderCache`, *optional*): older name of `cache`.
            audio_encodings (`torch.Tensor` of shape `(batch, frames, hidden_size)`, *optional*):
                What the encoder's `encode_modalities` computed of the sound before, instead of the first four inputs.
            audio_encoding_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): their valid frames.
            visual_encodings (`torch.Tensor` of shape `(batch, frames, hidden_size)`, *optional*):
                The same of the lips.
            visual_encoding_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): their valid frames.
            alignment_windows (`torch.Tensor` of shape `(batch, length, 2)`, *optional*):
                For `alignment_loss="windows"`: the first CTC step of each of the `labels`, and the one after its last.

        Raises:
            ValueError: none of the inputs that the model's `modality` reads is passed, or encodings beside the inputs
                that they are of.
        """
        cache = cache if past_key_values is None else past_key_values
        if encoder_outputs is None:
            encoder_outputs = self.model.encoder(
                input_values,
                attention_mask,
                pixel_values_videos,
                video_attention_mask,
                audio_encodings,
                audio_encoding_mask,
                visual_encodings,
                visual_encoding_mask,
                return_dict=True,
                **kwargs,
            )
        if labels is not None:
            views = encoder_outputs.last_hidden_state.shape[0] // labels.shape[0]
            labels = labels.repeat(views, 1)
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self._shift_right(labels)
            if decoder_attention_mask is None and self.config.smooth_padding:
                decoder_attention_mask = labels != IGNORED  # what is scored at padding does not see padding
        outputs = self.model(
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            cache=cache,
            use_cache=use_cache,
            decoder_inputs_embeds=decoder_inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        logits = self.decoder_head_of(encoder_outputs)(outputs.last_hidden_state)  # (batch, length, vocab)
        ctc_logits = None
        losses: dict[str, torch.Tensor] = {}
        if labels is not None:
            ctc_logits = self.compute_ctc_logits(encoder_outputs)
            losses = self._losses(logits, ctc_logits, outputs.frame_mask, labels, alignment_labels, alignment_windows)
        elif cache is None:  # with a past, CTC's scores are known from the first step
            ctc_logits = self.compute_ctc_logits(encoder_outputs)
        return AvsrOutput(
            **losses,
            logits=logits,
            ctc_logits=ctc_logits,
            last_hidden_state=outputs.last_hidden_state,
            cache=outputs.cache,
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            frame_mask=outputs.frame_mask,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
            audio_hidden_states=outputs.audio_hidden_states,
            audio_attentions=outputs.audio_attentions,
            visual_hidden_states=outputs.visual_hidden_states,
            visual_attentions=outputs.visual_attentions,
        )

    def _shift_right(self, labels: torch.Tensor) -> torch.Tensor:
        """Turns targets `(batch, length)` into decoder inputs: the start token first, padding for ignored targets."""
        start = labels.new_full((labels.shape[0], 1), self.config.decoder_start_token_id)
        ended = (labels == IGNORED) | (labels == self.config.eos_token_id)
        return torch.cat((start, labels.masked_fill(ended, self.config.pad_token_id)[:, :-1]), dim=1)

    def _losses(
        self,
        logits: torch.Tensor,
        ctc_logits: torch.Tensor,
        frame_mask: torch.Tensor,
        labels: torch.Tensor,
        alignment_labels: torch.Tensor | None,
        alignment_windows: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """Returns the hybrid loss and its parts; the batch is the views times the clips."""
        config = self.config
        lengths = frame_mask.sum(dim=1) * config.ctc_upsampling  # (batch,)
        weights = list((config.modality_loss_weights or {}).values()) if self.training else []
        weights = weights or [1.0]
        parts = [
            (ctc_objective(*rows[:2], rows[3], config), attention_objective(rows[2], rows[3], config))
            for rows in zip(*(t.chunk(len(weights)) for t in (ctc_logits, lengths, logits, labels)))
        ]
        ctc = sum(weight * part[0] for weight, part in zip(weights, parts))
        attention = sum(weight * part[1] for weight, part in zip(weights, parts))
        loss = config.ctc_loss_weight * ctc + (1 - config.ctc_loss_weight) * attention
        losses = {"loss": loss, "ctc_loss": ctc, "attention_loss": attention}
        targets = alignment_labels if config.alignment_loss == "steps" else alignment_windows
        if targets is None or not config.alignment_loss_weight:
            return losses
        views = len(labels) // len(targets)
        targets = targets.repeat(views, *(1 for _ in targets.shape[1:]))
        if config.alignment_loss == "steps":
            alignment = alignment_objective(ctc_logits, targets)
        else:
            alignment, without = windowed_ctc_objective(ctc_logits, lengths, labels, targets, config)
            losses["clips_without_path"] = without
        losses["alignment_loss"] = len(weights) * alignment
        losses["loss"] = loss + config.alignment_loss_weight * losses["alignment_loss"]
        return losses


class AvsrConvClassifier(nn.Module):
    """Two strided convolutions over time, mean, two linear layers: the published code's back-end."""

    def __init__(self, config: AvsrConfig, feature_size: int, num_labels: int):
        super().__init__()
        size = config.classifier_hidden_size
        self.conv1 = nn.Conv1d(feature_size, size, 5, stride=2, bias=False)
        self.norm1 = nn.BatchNorm1d(size)
        self.pool = nn.MaxPool1d(2)
        self.conv2 = nn.Conv1d(size, size, 5, stride=2, bias=False)
        self.norm2 = nn.BatchNorm1d(size)
        self.hidden = nn.Linear(size, size // 4)
        self.hidden_norm = nn.BatchNorm1d(size // 4)
        self.output = nn.Linear(size // 4, num_labels)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor, **kwargs) -> ImageClassifierOutput:
        # features (batch, frames, size); in a clip shorter than those of LRW, the last frame is repeated
        frames = max(features.shape[1], SHORTEST)
        features = select_steps(features, lengths, torch.zeros_like(lengths), frames).transpose(1, 2)
        lengths = lengths.clamp(min=SHORTEST)
        steps = nn.functional.relu(self.norm1(self.conv1(features)))
        steps = nn.functional.relu(self.norm2(self.conv2(self.pool(steps))))  # (batch, size, steps)
        valid = ((lengths - 5) // 2 + 1) // 2
        mean = _masked_mean(steps.transpose(1, 2), (valid - 5) // 2 + 1)
        return ImageClassifierOutput(logits=self.output(nn.functional.relu(self.hidden_norm(self.hidden(mean)))))


class AvsrTcnLayer(nn.Module):
    """Residual pair of dilated convolutions over time; padding is zeroed so that it doesn't reach valid frames."""

    def __init__(self, in_size: int, size: int, dilation: int, dropout: float):
        super().__init__()
        self.conv1 = nn.Conv1d(in_size, size, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(size, size, 3, padding=dilation, dilation=dilation)
        self.norm1, self.norm2 = nn.BatchNorm1d(size), nn.BatchNorm1d(size)
        self.shortcut = nn.Conv1d(in_size, size, 1) if in_size != size else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        # features (batch, size, frames), mask (batch, 1, frames)
        update = self.dropout(nn.functional.relu(self.norm1(self.conv1(features)))) * mask
        update = self.dropout(nn.functional.relu(self.norm2(self.conv2(update))))
        return nn.functional.relu(update + self.shortcut(features)) * mask


class AvsrTcnClassifier(nn.Module):
    """Temporal convolutional network: four residual layers with dilations 1, 2, 4, 8, mean, linear."""

    def __init__(self, config: AvsrConfig, feature_size: int, num_labels: int):
        super().__init__()
        size = config.classifier_hidden_size
        sizes = (feature_size, size, size, size)
        self.layers = nn.ModuleList(
            [AvsrTcnLayer(in_size, size, 2**depth, config.dropout) for depth, in_size in enumerate(sizes)]
        )
        self.output = nn.Linear(size, num_labels)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor, **kwargs) -> ImageClassifierOutput:
        mask = _length_mask(features, lengths)[:, None].to(features.dtype)
        features = features.transpose(1, 2)
        for layer in self.layers:
            features = layer(features, mask)
        return ImageClassifierOutput(logits=self.output(_masked_mean(features.transpose(1, 2), lengths)))


class AvsrTransformerClassifier(nn.Module):
    """The recogniser's own back-end (Conv1d block and Transformer), mean, linear: the best of table 5."""

    def __init__(self, config: AvsrConfig, feature_size: int, num_labels: int):
        super().__init__()
        self.conv = AvsrConvBlock(config, feature_size)
        self.transformer = AvsrTransformer(config, config.encoder_layers)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.output = nn.Linear(config.hidden_size, num_labels)

    def forward(
        self, features: torch.Tensor, lengths: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> ImageClassifierOutput:
        frame_mask = _length_mask(features, lengths)
        states = self.transformer(self.conv(features, frame_mask), frame_mask, self.norm, return_dict=True, **kwargs)
        logits = self.output(_masked_mean(states.last_hidden_state, lengths))
        return ImageClassifierOutput(logits=logits, hidden_states=states.hidden_states, attentions=states.attentions)


def _length_mask(features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Marks the valid frames, `(batch, frames)` bool, of features `(batch, frames, size)` and lengths `(batch,)`."""
    return torch.arange(features.shape[1], device=features.device)[None] < lengths[:, None]


def _masked_mean(features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Averages features `(batch, frames, size)` over the valid frames, `lengths` `(batch,)`, to `(batch, size)`."""
    mask = _length_mask(features, lengths)[..., None].to(features.dtype)
    return (features * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


# by `config.classifier_back_end`; table 5 of the paper compares the second and the third, its code has the first
CLASSIFIERS = {"conv": AvsrConvClassifier, "tcn": AvsrTcnClassifier, "transformer": AvsrTransformerClassifier}


class AvsrForVideoClassification(AvsrPreTrainedModel):
    """Classifier of words from lips (LRW: 500 words, 29 frames), with the back-end of `config.classifier_back_end`."""

    main_input_name = "pixel_values_videos"
    input_modalities = ["video"]
    accepts_loss_kwargs = False

    def __init__(self, config: AvsrConfig):
        super().__init__(config)
        if config.num_labels is None:
            raise ValueError("num_labels is None: set it, or id2label, to the words.")
        self.visual_front_end = AvsrVisualFrontEnd(config.visual)
        back_end = CLASSIFIERS[config.classifier_back_end]
        self.classifier = back_end(config, config.visual.feature_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        video_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        r"""
        Classifies clips.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(batch, frames, 1, height, width)`): mouth crops.
            video_attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): 1 for frames, 0 for padding.
            labels (`torch.Tensor` of shape `(batch,)`, *optional*): classes.

        Returns:
            `loss` (cross entropy with `config.label_smoothing`), `logits` `(batch, num_labels)` and, from the
            `"transformer"` back-end, the layers' `hidden_states` and `attentions` if requested.
        """
        if video_attention_mask is None:
            video_attention_mask = pixel_values_videos.new_ones(pixel_values_videos.shape[:2])
        features = self.visual_front_end(pixel_values_videos, video_attention_mask.bool())
        output = self.classifier(features, video_attention_mask.long().sum(dim=1), **kwargs)
        loss = None
        if labels is not None:
            smoothing = self.config.label_smoothing
            loss = nn.functional.cross_entropy(output.logits.float(), labels, label_smoothing=smoothing)
        return ImageClassifierOutput(
            loss=loss, logits=output.logits, hidden_states=output.hidden_states, attentions=output.attentions
        )


name_for_task("automatic-speech-recognition", AvsrForConditionalGeneration)
name_for_task("video-classification", AvsrForVideoClassification)

__all__ = ["AvsrForConditionalGeneration", "AvsrForVideoClassification", "AvsrModel", "AvsrPreTrainedModel"]
