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
"""AVSR: speech read from sound, from lips, or from both (Pan et al., ACL 2022)."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .beam_decoding_avsr import AvsrBeamCache
from .configuration_avsr import AvsrConfig
from .frontends_avsr import AvsrSpectrogramFrontEnd, AvsrVisualFrontEnd, AvsrWaveformFrontEnd
from .generation_avsr import AvsrGenerationMixin
from .layers_avsr import (
    AvsrAttention,
    AvsrConvBlock,
    AvsrCtcHead,
    AvsrDecoderHead,
    AvsrDecoderLayer,
    AvsrEncoderLayer,
    AvsrTransformer,
    select_steps,
    sinusoidal_positions,
)
from .loss_avsr import IGNORED, alignment_objective, attention_objective, ctc_objective
from .transformers_seam_avsr import name_for_task

WORD_CLASSIFIER = "AvsrForVideoClassification"


@dataclass
class AvsrEncoderOutput(ModelOutput):
    r"""
    last_hidden_state (`torch.Tensor` of shape `(batch, frames, hidden_size)`): 25 vectors a second.
    frame_mask (`torch.Tensor` of shape `(batch, frames)`, bool): frames that have sound or lips.
    """

    last_hidden_state: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class AvsrDecoderOutput(ModelOutput):
    r"""
    last_hidden_state (`torch.Tensor` of shape `(batch, length, hidden_size)`): after the final norm.
    cache (`EncoderDecoderCache`, *optional*): keys and values so far; `past_key_values` is its older name.
    """

    last_hidden_state: torch.Tensor | None = None
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
    loss (`torch.Tensor`, scalar, with `labels`): hybrid loss, summed over the views if `modality_loss_weights` is set.
    ctc_loss, attention_loss, alignment_loss (`torch.Tensor`, scalar, with `labels`): its parts.
    logits (`torch.Tensor` of shape `(batch, length, vocab)`): the decoder's character scores.
    ctc_logits (`torch.Tensor` of shape `(batch, frames * ctc_upsampling, vocab)`): CTC's character scores.
    frame_mask (`torch.Tensor` of shape `(batch, frames)`, bool): the valid frames.
    encoder_last_hidden_state (`torch.Tensor` of shape `(batch, frames, hidden_size)`).
    cache (`EncoderDecoderCache`, *optional*): keys and values so far; `past_key_values` is its older name.

    While training with `modality_loss_weights`, batch is the views times the clips.
    """

    loss: torch.Tensor | None = None
    ctc_loss: torch.Tensor | None = None
    attention_loss: torch.Tensor | None = None
    alignment_loss: torch.Tensor | None = None
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

    @property
    def past_key_values(self) -> EncoderDecoderCache | None:
        return self.cache


class AvsrPreTrainedModel(PreTrainedModel):
    config: AvsrConfig
    base_model_prefix = "model"
    main_input_name = "input_values"
    input_modalities = ("audio", "video")
    supports_gradient_checkpointing = True
    _no_split_modules = ["AvsrEncoderLayer", "AvsrDecoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """
        Loads a checkpoint; see transformers.

        Raises:
            ValueError: the checkpoint classifies words, so that a recogniser of it would be random.
        """
        given = kwargs.get("config")  # from the Auto classes: then nothing is loaded in vain
        cls._refuse_words(given if isinstance(given, AvsrConfig) else None, pretrained_model_name_or_path)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with `output_loading_info=True` a pair
        cls._refuse_words(model.config, pretrained_model_name_or_path)
        return loaded

    @classmethod
    def _refuse_words(cls, config: AvsrConfig | None, name) -> None:
        if config is not None and WORD_CLASSIFIER in (config.architectures or []) and cls.__name__ != WORD_CLASSIFIER:
            raise ValueError(
                f"{str(name)!r} classifies words, and {cls.__name__} has other weights: load it with "
                "AutoModelForVideoClassification."
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own initialisation, as the published code; the front-end of transformers keeps its own."""
        if isinstance(module, AvsrSpectrogramFrontEnd):
            module.reset_buffers()
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            init.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                bound = module.weight[0].numel() ** -0.5
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, (nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            super()._init_weights(module)

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """The shared layer norms; the base class takes weights as shared only where word embeddings are."""
        return super().get_expanded_tied_weights_keys(True) if all_submodels else dict(self._tied_weights_keys or {})


def shared_parameters(modules: dict[str, str]) -> dict[str, str]:
    """Names of layer norms and of those they share their parameters with -> names of the parameters."""
    return {f"{a}.{part}": f"{b}.{part}" for a, b in modules.items() for part in ("weight", "bias")}


def frame_padding(
    config: AvsrConfig, audio_lengths: torch.Tensor | None, video_lengths: torch.Tensor | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """
    How many steps each modality of each clip is to have, and how many of them are put in front.

    Each is `(steps, left)`, both `(batch,)` int64, or `None` without that modality. By default sound is completed to
    whole frames and each modality keeps its own length; `centre_padding` stretches both to one length, at least
    `min_frames`, in the way of the published code.
    """
    per_frame = config.audio_config.steps_per_frame
    minimum = config.min_frames
    audio = video = None
    if audio_lengths is not None:
        audio = audio_lengths + (-audio_lengths) % per_frame
        audio = torch.where(audio <= per_frame * minimum, audio.clamp(min=per_frame * minimum), audio)
    if video_lengths is not None:
        video = video_lengths.clamp(min=minimum)
    if config.centre_padding and audio is not None and video is not None:
        surplus = audio_lengths - per_frame * video_lengths  # steps of sound beyond the video's
        more_frames = ((surplus + per_frame - 1) // per_frame).clamp(min=0)
        video = (video_lengths + more_frames).clamp(min=minimum)
        audio = (audio_lengths + per_frame * more_frames - surplus).clamp(min=per_frame * minimum)
    audio = None if audio is None else (audio, _left(config, audio, audio_lengths))
    video = None if video is None else (video, _left(config, video, video_lengths))
    return audio, video


def _left(config: AvsrConfig, padded: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return (padded - lengths) // 2 if config.centre_padding else torch.zeros_like(padded)


class AvsrModalityEncoder(nn.Module):
    """A back-end (section 3.2): Conv1d block to 25 Hz and `hidden_size`, then a Transformer."""

    def __init__(self, config: AvsrConfig, feature_size: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv = AvsrConvBlock(config, feature_size, stride)
        self.transformer = AvsrTransformer(config, config.encoder_layers)

    def forward(
        self,
        features: torch.Tensor,
        lengths: torch.Tensor,
        padding: tuple[torch.Tensor, torch.Tensor],
        frames: int,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features `(batch, steps, size)` -> `(batch, frames, hidden_size)` before the final norm, and the frame mask."""
        steps, left = padding
        features = select_steps(features, lengths, left, frames * self.stride)
        present = torch.where(lengths > 0, steps // self.stride, 0)  # (batch,) frames
        frame_mask = torch.arange(frames, device=features.device)[None] < present[:, None]
        step_mask = frame_mask.repeat_interleave(self.stride, dim=1)
        features = features.masked_fill(~step_mask[..., None], 0.0)
        hidden_states = self.conv(features, frame_mask)
        return self.transformer(hidden_states, frame_mask, **kwargs), frame_mask


class AvsrFusion(nn.Module):
    """LayerNorm of each modality, concatenation, Conv1d block, Transformer (section 3.3); a missing modality is zero."""

    def __init__(self, config: AvsrConfig):
        super().__init__()
        self.audio_norm = nn.LayerNorm(config.hidden_size)
        self.video_norm = self.audio_norm if config.tie_modality_norm else nn.LayerNorm(config.hidden_size)
        self.conv = AvsrConvBlock(config, 2 * config.hidden_size)
        self.transformer = AvsrTransformer(config, config.fusion_layers)

    def forward(
        self,
        audio: torch.Tensor,
        audio_mask: torch.Tensor,
        video: torch.Tensor,
        video_mask: torch.Tensor,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        # audio, video (batch, frames, hidden_size); masks (batch, frames) bool
        audio = self.audio_norm(audio).masked_fill((video_mask & ~audio_mask)[..., None], 0.0)
        video = self.video_norm(video).masked_fill((audio_mask & ~video_mask)[..., None], 0.0)
        frame_mask = audio_mask | video_mask
        hidden_states = self.conv(torch.cat((audio, video), dim=-1), frame_mask)
        return self.transformer(hidden_states, frame_mask, **kwargs)


class AvsrEncoder(AvsrPreTrainedModel):
    """Front-ends, back-ends and fusion: from sound and lips to 25 vectors a second."""

    _can_record_outputs = {"hidden_states": AvsrEncoderLayer, "attentions": AvsrAttention}

    def __init__(self, config: AvsrConfig):
        super().__init__(config)
        audio, visual = config.audio_config, config.visual_config
        self.norm = nn.LayerNorm(config.hidden_size)  # the fusion's, or the only modality's
        if config.modality != "visual":
            front_end = AvsrWaveformFrontEnd if audio.front_end == "wav2vec2" else AvsrSpectrogramFrontEnd
            self.audio_front_end = front_end(audio)
            self.audio_encoder = AvsrModalityEncoder(config, audio.feature_size, audio.steps_per_frame)
        if config.modality != "audio":
            self.visual_front_end = AvsrVisualFrontEnd(visual)
            self.visual_encoder = AvsrModalityEncoder(config, visual.feature_size, 1)
        if config.modality == "audiovisual":
            tied = config.tie_final_norm
            self.audio_norm = self.norm if tied else nn.LayerNorm(config.hidden_size)
            self.visual_norm = self.norm if tied else nn.LayerNorm(config.hidden_size)
            self.fusion = AvsrFusion(config)
            shared = {"audio_norm": "norm", "visual_norm": "norm"} if tied else {}
            if config.tie_modality_norm:
                shared["fusion.video_norm"] = "fusion.audio_norm"
            self._tied_weights_keys = shared_parameters(shared)
        self.post_init()

    def _encode_modalities(
        self,
        input_values: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        pixel_values_videos: torch.Tensor | None,
        video_attention_mask: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Each present modality's back-end output `(batch, frames, hidden_size)` and frame mask, all of the same frames."""
        audio_lengths = video_lengths = None
        if input_values is not None:
            if attention_mask is None:
                attention_mask = torch.ones_like(input_values, dtype=torch.long)
            audio, audio_lengths = self.audio_front_end(input_values, attention_mask)
        if pixel_values_videos is not None:
            if video_attention_mask is None:
                video_attention_mask = pixel_values_videos.new_ones(pixel_values_videos.shape[:2])
            video = self.visual_front_end(pixel_values_videos, video_attention_mask.bool())
            video_lengths = video_attention_mask.long().sum(dim=1)
        audio_padding, video_padding = frame_padding(self.config, audio_lengths, video_lengths)
        per_frame = self.config.audio_config.steps_per_frame
        frames = max(  # of the batch's longest clip, which fills its tensor
            self.config.min_frames,
            0 if audio_padding is None else (audio.shape[1] + per_frame - 1) // per_frame,
            0 if video_padding is None else video.shape[1],
        )
        encoded = {}
        if audio_padding is not None:
            encoded["audio"] = self.audio_encoder(audio, audio_lengths, audio_padding, frames, **kwargs)
        if video_padding is not None:
            encoded["visual"] = self.visual_encoder(video, video_lengths, video_padding, frames, **kwargs)
        return encoded

    def _drop_modalities(
        self, audio_mask: torch.Tensor, video_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """While training, takes one modality from some of the clips that have both (either with equal chance)."""
        if not self.training or not self.config.modality_dropout:
            return audio_mask, video_mask
        chance = torch.rand(audio_mask.shape[0], 1, device=audio_mask.device)
        both = audio_mask.any(dim=1, keepdim=True) & video_mask.any(dim=1, keepdim=True)
        half = self.config.modality_dropout / 2
        return audio_mask & ~(both & (chance < half)), video_mask & ~(both & (chance > 1 - half))

    def _views(
        self, audio_mask: torch.Tensor, video_mask: torch.Tensor
    ) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        """While training with `modality_loss_weights`, stacks each named view's masks along the batch."""
        weights = self.config.modality_loss_weights
        if not self.training or not weights:
            return [], audio_mask, video_mask
        views = list(weights)
        nothing = torch.zeros_like(audio_mask)
        audio_masks = [nothing if view == "visual" else audio_mask for view in views]
        video_masks = [nothing if view == "audio" else video_mask for view in views]
        return views, torch.cat(audio_masks), torch.cat(video_masks)

    def _fuse(
        self, encoded: dict[str, tuple[torch.Tensor, torch.Tensor]], **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        present = next(iter(encoded.values()))
        absent = (torch.zeros_like(present[0]), torch.zeros_like(present[1]))
        audio, audio_mask = encoded.get("audio", absent)
        video, video_mask = encoded.get("visual", absent)
        audio_mask, video_mask = self._drop_modalities(audio_mask, video_mask)
        views, audio_mask, video_mask = self._views(audio_mask, video_mask)
        audio, video = self.audio_norm(audio), self.visual_norm(video)
        if views:
            audio, video = audio.repeat(len(views), 1, 1), video.repeat(len(views), 1, 1)
        hidden_states = self.fusion(audio, audio_mask, video, video_mask, **kwargs)
        return hidden_states, audio_mask | video_mask

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AvsrEncoderOutput:
        r"""
        input_values (`torch.Tensor` of shape `(batch, samples)`, *optional*): normalised 16 kHz waveforms.
        attention_mask (`torch.Tensor` of shape `(batch, samples)`, *optional*): 1 for sound; a row of 0: no sound.
        pixel_values_videos (`torch.Tensor` of shape `(batch, frames, 1, height, width)`, *optional*): mouth crops.
        video_attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): 1 for frames; 0s: no video.
        """
        if self.config.modality == "visual":
            input_values = None
        if self.config.modality == "audio":
            pixel_values_videos = None
        if input_values is None and pixel_values_videos is None:
            raise ValueError(
                f"A model of modality={self.config.modality!r} needs "
                + {"audio": "input_values.", "visual": "pixel_values_videos."}.get(
                    self.config.modality, "input_values, pixel_values_videos or both."
                )
            )
        encoded = self._encode_modalities(
            input_values, attention_mask, pixel_values_videos, video_attention_mask, **kwargs
        )
        if self.config.modality == "audiovisual":
            hidden_states, frame_mask = self._fuse(encoded, **kwargs)
        else:
            hidden_states, frame_mask = next(iter(encoded.values()))
        return AvsrEncoderOutput(last_hidden_state=self.norm(hidden_states), frame_mask=frame_mask)


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
        self.norm = nn.LayerNorm(config.hidden_size)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AvsrDecoderOutput:
        # input_ids (batch, length), encoder_hidden_states (batch, frames, hidden_size)
        cache = kwargs.pop("past_key_values", cache)
        if use_cache and cache is None and not self.training:
            cache = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))
        past = cache.get_seq_length() if cache is not None else 0
        hidden_states = self.embed_tokens(input_ids)
        positions = sinusoidal_positions(*hidden_states.shape[1:], device=hidden_states.device, offset=past)
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
        return self.norm(beams.advance(self.embed_tokens(labels)))


class AvsrModel(AvsrPreTrainedModel):
    """Encoder and decoder without the output heads."""

    def __init__(self, config: AvsrConfig):
        super().__init__(config)
        self.encoder = AvsrEncoder(config)
        self.decoder = AvsrDecoder(config)
        if config.tie_final_norm:
            self.decoder.norm = self.encoder.norm
            self._tied_weights_keys = shared_parameters({"decoder.norm": "encoder.norm"})
        self.post_init()

    def get_encoder(self, *args, **kwargs) -> AvsrEncoder:
        return self.encoder

    def get_decoder(self) -> AvsrDecoder:
        return self.decoder

    def get_input_embeddings(self) -> nn.Embedding:
        return self.decoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.decoder.embed_tokens = value

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
        **kwargs: Unpack[TransformersKwargs],
    ) -> AvsrOutput:
        r"""
        Inputs as of [`AvsrEncoder`]; `decoder_input_ids (batch, length)` defaults to the start token alone.

        Raises:
            ValueError: neither sound nor lips are given, or not what the model's `modality` reads.
        """
        cache = kwargs.pop("past_key_values", cache)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_values, attention_mask, pixel_values_videos, video_attention_mask, **kwargs
            )
        memory, frame_mask = encoder_outputs.last_hidden_state, encoder_outputs.frame_mask
        if decoder_input_ids is None:
            start = self.config.decoder_start_token_id
            decoder_input_ids = torch.full((memory.shape[0], 1), start, device=memory.device)
        decoded = self.decoder(
            decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=memory,
            encoder_attention_mask=frame_mask,
            cache=cache,
            use_cache=use_cache,
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
        )


class AvsrForConditionalGeneration(AvsrGenerationMixin, AvsrPreTrainedModel):
    """The recogniser: [`AvsrModel`] with the CTC head and the decoder's head (section 3.4)."""

    accepts_loss_kwargs = False  # the loss is a mean over the batch; gradient accumulation averages it

    def __init__(self, config: AvsrConfig):
        super().__init__(config)
        self.model = AvsrModel(config)
        self.ctc_head = AvsrCtcHead(config)
        self.decoder_head = AvsrDecoderHead(config)
        self.post_init()

    def get_encoder(self, *args, **kwargs) -> AvsrEncoder:
        return self.model.encoder

    def get_decoder(self) -> AvsrDecoder:
        return self.model.decoder

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        return self.decoder_head.output

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.decoder_head.output = value

    def _resize_token_embeddings(self, new_num_tokens: int, *args, **kwargs) -> nn.Embedding:
        embeddings = super()._resize_token_embeddings(new_num_tokens, *args, **kwargs)
        self.ctc_head.resize(embeddings.num_embeddings)
        return embeddings

    def compute_ctc_logits(self, encoder_outputs: AvsrEncoderOutput) -> torch.Tensor:
        """CTC's character scores `(batch, frames * ctc_upsampling, vocab)` of an encoded clip."""
        return self.ctc_head(encoder_outputs.last_hidden_state, encoder_outputs.frame_mask)

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
        **kwargs: Unpack[TransformersKwargs],
    ) -> AvsrOutput:
        r"""
        input_values (`torch.Tensor` of shape `(batch, samples)`, *optional*): normalised 16 kHz waveforms.
        attention_mask (`torch.Tensor` of shape `(batch, samples)`, *optional*): 1 for sound; a row of 0: no sound.
        pixel_values_videos (`torch.Tensor` of shape `(batch, frames, 1, height, width)`, *optional*): mouth crops.
        video_attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): 1 for frames; 0s: no video.
        labels (`torch.Tensor` of shape `(batch, length)`, *optional*): characters, EOS, then -100 (ignored).
        alignment_labels (`torch.Tensor` of shape `(batch, steps)`, *optional*):
            For the alignment loss: what each CTC step is to say, -100 where that is not known.

        Raises:
            ValueError: neither sound nor lips are given, or not what the model's `modality` reads.
        """
        cache = kwargs.pop("past_key_values", cache)
        if encoder_outputs is None:
            encoder_outputs = self.model.encoder(
                input_values, attention_mask, pixel_values_videos, video_attention_mask, **kwargs
            )
        if labels is not None:
            views = encoder_outputs.last_hidden_state.shape[0] // labels.shape[0]
            labels = labels.repeat(views, 1)
            if decoder_input_ids is None:
                decoder_input_ids = self._shift_right(labels)
            if decoder_attention_mask is None and self.config.smooth_padding:
                decoder_attention_mask = labels != IGNORED  # what is scored at padding does not see padding
        outputs = self.model(
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            cache=cache,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.decoder_head(outputs.last_hidden_state)  # (batch, length, vocab)
        # with a past, the scores of the sound and lips are known from the first step
        ctc_logits = self.compute_ctc_logits(encoder_outputs) if cache is None else None
        losses = {}
        if labels is not None:
            losses = self._losses(logits, ctc_logits, outputs.frame_mask, labels, alignment_labels)
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
        )

    def _shift_right(self, labels: torch.Tensor) -> torch.Tensor:
        """`(batch, length)` targets -> decoder inputs: the start token in front, padding where the target is ignored."""
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
    ) -> dict[str, torch.Tensor]:
        """The hybrid loss and its parts; the batch is the views times the clips."""
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
        if alignment_labels is not None and config.alignment_loss_weight:
            views = len(labels) // len(alignment_labels)
            losses["alignment_loss"] = views * alignment_objective(ctc_logits, alignment_labels.repeat(views, 1))
            losses["loss"] = loss + config.alignment_loss_weight * losses["alignment_loss"]
        return losses


name_for_task("automatic-speech-recognition", AvsrForConditionalGeneration)

__all__ = ["AvsrForConditionalGeneration", "AvsrModel", "AvsrPreTrainedModel"]
