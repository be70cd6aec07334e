"""The encoder: front-ends, a Transformer for each modality, and their fusion (paper, sections 3.1 to 3.3)."""

import itertools
from os import PathLike
from typing import Self

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .configuration_avsr import MODALITIES, AvsrConfig
from .front_ends_avsr import (
    FRAME_SAMPLES,
    AvsrFilterBankFrontEnd,
    AvsrResNetWaveformFrontEnd,
    AvsrSpectrogramFrontEnd,
    AvsrVisualFrontEnd,
    AvsrWaveformFrontEnd,
    AvsrWhisperFrontEnd,
)
from .layers_avsr import (
    AvsrAttention,
    AvsrConformerLayer,
    AvsrConvBlock,
    AvsrEncoderLayer,
    AvsrEncoderOutput,
    AvsrRelativeAttention,
    AvsrResidual,
    RelativePositions,
    masked_batch_norm,
    select_steps,
    sinusoidal_positions,
)
from .transformers_seam_avsr import OutputRecorder, capture_outputs, create_bidirectional_mask, initialization

WORD_CLASSIFIER = "AvsrForVideoClassification"
Padding = tuple[torch.Tensor, torch.Tensor]  # steps that a clip is to have and how many are put in front, `(batch,)`


class AvsrPreTrainedModel(PreTrainedModel):
    """Base class of all AVSR networks: kinds of attention, initialisation, shared layer norms."""

    config: AvsrConfig
    base_model_prefix = "model"
    main_input_name = "input_values"
    input_modalities = ["audio", "video"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["AvsrEncoderLayer", "AvsrConformerLayer", "AvsrDecoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """
        Loads a checkpoint; see transformers.

        Raises:
            ValueError: the checkpoint classifies words, so that most of a recogniser's weights would be random.
        """
        config = kwargs.get("config")  # the Auto classes pass it; with it, weights needn't be loaded to refuse them
        cls._refuse_words(config if isinstance(config, AvsrConfig) else None, pretrained_model_name_or_path)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with `output_loading_info=True` a pair
        cls._refuse_words(model.config, pretrained_model_name_or_path)
        return loaded

    @classmethod
    def _refuse_words(cls, config: AvsrConfig | None, name: str | PathLike[str] | None) -> None:
        """Raises a ValueError if the checkpoint `name` is a word classifier and this class isn't."""
        if config is not None and WORD_CLASSIFIER in (config.architectures or []) and cls.__name__ != WORD_CLASSIFIER:
            raise ValueError(
                f"{str(name)!r} classifies words, and {cls.__name__} has other weights: load it with "
                "AutoModelForVideoClassification."
            )

    def post_init(self) -> None:
        """Ends the initialisation; see transformers. Layers that a model lacks are not named: FSDP refuses them."""
        super().post_init()
        present = {type(module).__name__ for module in self.modules()}
        self._no_split_modules = sorted(present.intersection(self._no_split_modules or ()))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialises as PyTorch and the published code do; speech encoders of transformers initialise themselves."""
        if isinstance(module, (AvsrFilterBankFrontEnd, AvsrSpectrogramFrontEnd, AvsrWhisperFrontEnd)):
            module.reset_buffers()
        elif isinstance(module, nn.Embedding):
            initialization.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            initialization.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                bound = module.weight[0].numel() ** -0.5
                initialization.uniform_(module.bias, -bound, bound)
        elif isinstance(module, AvsrResidual):
            if module.scale is not None and self.config.layer_scale is not None:
                initialization.constant_(module.scale, self.config.layer_scale)
        elif isinstance(module, AvsrRelativeAttention):
            for bias in (module.content_bias, module.position_bias):
                initialization.xavier_uniform_(bias)
        elif isinstance(module, (nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            super()._init_weights(module)

    def prepare_for_inference(self) -> Self:
        """
        Makes the front-end of the lips faster for calls without gradients, see its method of this name.

        Saved weights stay as they are. Training ends it, and so does loading weights; results differ by rounding.
        """
        for module in self.modules():
            if isinstance(module, AvsrVisualFrontEnd):
                module.prepare_for_inference()
        return self

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Returns the shared layer norms, which the base class would leave out as word embeddings are not shared."""
        return super().get_expanded_tied_weights_keys(True) if all_submodels else dict(self._tied_weights_keys or {})


def shared_parameters(modules: dict[str, str]) -> dict[str, str]:
    """Turns pairs of layer norms that share their parameters, by name, into pairs of parameters."""
    return {f"{a}.{part}": f"{b}.{part}" for a, b in modules.items() for part in ("weight", "bias")}


def frame_padding(
    config: AvsrConfig, audio_lengths: torch.Tensor | None, video_lengths: torch.Tensor | None
) -> tuple[Padding | None, Padding | None]:
    """
    Computes how many steps each modality of each clip is to have, and how many of them are put in front.

    The paper's layout completes sound to whole frames and leaves each modality its own length; the reference layout
    stretches both to one length. Both have at least `min_frames`.

    Args:
        config: of the model.
        audio_lengths: `(batch,)` int64, steps of sound; None without sound.
        video_lengths: `(batch,)` int64, frames; None without lips.

    Returns:
        One for each modality, None without it.
    """
    per_frame = config.audio.steps_per_frame
    minimum = config.min_frames or 0
    audio = video = None
    if audio_lengths is not None:
        audio = audio_lengths + (-audio_lengths) % per_frame
        audio = torch.where(audio <= per_frame * minimum, audio.clamp(min=per_frame * minimum), audio)
    if video_lengths is not None:
        video = video_lengths.clamp(min=minimum)
    if config.centre_padding and audio_lengths is not None and video_lengths is not None:
        surplus = audio_lengths - per_frame * video_lengths  # steps of sound beyond the video's
        more_frames = ((surplus + per_frame - 1) // per_frame).clamp(min=0)
        video = (video_lengths + more_frames).clamp(min=minimum)
        audio = (audio_lengths + per_frame * more_frames - surplus).clamp(min=per_frame * minimum)
    return _split_padding(config, audio, audio_lengths), _split_padding(config, video, video_lengths)


def _split_padding(config: AvsrConfig, steps: torch.Tensor | None, lengths: torch.Tensor | None) -> Padding | None:
    """Divides what is added to each clip between its start and its end."""
    if steps is None or lengths is None:
        return None
    return steps, (steps - lengths) // 2 if config.centre_padding else torch.zeros_like(steps)


class AvsrTransformer(AvsrPreTrainedModel):
    """Position encoding, encoder layers over the valid frames, and the final norm, which the caller passes."""

    _can_record_outputs = {
        "hidden_states": OutputRecorder(AvsrEncoderLayer, num_hidden_layers_key="encoder_layers"),
        "attentions": AvsrAttention,
    }

    def __init__(self, config: AvsrConfig, num_layers: int):
        super().__init__(config)
        layer = AvsrConformerLayer if config.encoder_layer_type == "conformer" else AvsrEncoderLayer
        self.layers = nn.ModuleList([layer(config) for _ in range(num_layers)])
        self.scaling = config.hidden_size**0.5 if config.scale_embeddings else 1.0
        self.post_init()

    @capture_outputs
    def forward(
        self,
        hidden_states: torch.Tensor,
        frame_mask: torch.Tensor,
        norm: nn.LayerNorm,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        # hidden_states (batch, frames, hidden_size), frame_mask (batch, frames) bool
        if self.scaling != 1.0:
            hidden_states = hidden_states * self.scaling
        positions = None
        if self.config.position_type == "absolute":
            _, length, size = hidden_states.shape
            places = sinusoidal_positions(length, size, device=hidden_states.device)
            hidden_states = hidden_states + places.to(hidden_states.dtype)
        else:
            positions = RelativePositions.of(self.config, hidden_states, frame_mask)
        # a sample without this modality attends to its (ignored) padding instead of to nothing, which would be NaN
        keys = frame_mask | ~frame_mask.any(dim=1, keepdim=True)
        attention_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=keys
        )
        for layer in self.layers:
            runs = itertools.count() if layer.gradient_checkpointing else None
            hidden_states = layer(hidden_states, attention_mask, positions, frame_mask, runs, **kwargs)
        return BaseModelOutput(last_hidden_state=norm(hidden_states))


class AvsrFusionTransformer(AvsrTransformer):
    """The layers of the fusion, of which there may be more or fewer than of each modality."""

    _can_record_outputs = {
        "hidden_states": OutputRecorder(AvsrEncoderLayer, num_hidden_layers_key="fusion_layers"),
        "attentions": AvsrAttention,
    }


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
        padding: Padding,
        frames: int,
        norm: nn.LayerNorm,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[BaseModelOutput, torch.Tensor]:
        """Encodes features `(batch, steps, size)` as `(batch, frames, hidden_size)`; returns the frame mask, too."""
        steps, left = padding
        features = select_steps(features, lengths, left, frames * self.stride)
        present = torch.where(lengths > 0, steps // self.stride, 0)  # (batch,) frames
        frame_mask = torch.arange(frames, device=features.device)[None] < present[:, None]
        step_mask = frame_mask.repeat_interleave(self.stride, dim=1)
        features = features.masked_fill(~step_mask[..., None], 0.0)
        hidden_states = self.conv(features, frame_mask)
        return self.transformer(hidden_states, frame_mask, norm, return_dict=True, **kwargs), frame_mask


class AvsrFusion(nn.Module):
    """LayerNorm of each modality, concatenation, Conv1d block, Transformer (section 3.3); zeros for no modality."""

    def __init__(self, config: AvsrConfig):
        super().__init__()
        self.audio_norm = nn.LayerNorm(config.hidden_size)
        self.video_norm = nn.LayerNorm(config.hidden_size)  # the same weights with `tie_modality_norm`: AvsrEncoder
        self.conv = AvsrConvBlock(config, 2 * config.hidden_size)
        self.transformer = AvsrFusionTransformer(config, config.fusion_layers)

    def forward(
        self,
        audio: torch.Tensor,
        audio_mask: torch.Tensor,
        video: torch.Tensor,
        video_mask: torch.Tensor,
        norm: nn.LayerNorm,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        # audio, video (batch, frames, hidden_size); masks (batch, frames) bool
        audio = self.audio_norm(audio).masked_fill((video_mask & ~audio_mask)[..., None], 0.0)
        video = self.video_norm(video).masked_fill((audio_mask & ~video_mask)[..., None], 0.0)
        frame_mask = audio_mask | video_mask
        hidden_states = self.conv(torch.cat((audio, video), dim=-1), frame_mask)
        return self.transformer(hidden_states, frame_mask, norm, return_dict=True, **kwargs)


class AvsrEncoder(AvsrPreTrainedModel):
    """Front-ends, back-ends and fusion: from sound and lips to 25 vectors a second."""

    def __init__(self, config: AvsrConfig):
        super().__init__(config)
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)  # the fusion's, or the only modality's
        if config.modality != "visual":
            self.audio_front_end = AUDIO_FRONT_ENDS[config.audio.front_end](config.audio)
        if config.modality != "audio":
            self.visual_front_end = AvsrVisualFrontEnd(config.visual)
        self._make_layers(config)
        self.post_init()

    def _make_layers(self, config: AvsrConfig) -> None:
        """Makes all after the front-ends but the final norm."""
        audio, visual = config.audio, config.visual
        if config.modality != "visual":
            self.audio_encoder = AvsrModalityEncoder(config, audio.feature_size, audio.steps_per_frame)
        if config.modality != "audio":
            self.visual_encoder = AvsrModalityEncoder(config, visual.feature_size, 1)
        if config.modality == "audiovisual":
            self.audio_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
            self.visual_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
            self.fusion = AvsrFusion(config)
            shared = {"audio_norm": "norm", "visual_norm": "norm"} if config.tie_final_norm else {}
            if config.tie_modality_norm:
                shared["fusion.video_norm"] = "fusion.audio_norm"
            self._tied_weights_keys = shared_parameters(shared)

    def encode_modalities(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> dict[str, tuple[BaseModelOutput, torch.Tensor]]:
        """
        Encodes each modality by its front-end and back-end, without the fusion.

        Args:
            input_values: see `forward`.
            attention_mask: see `forward`.
            pixel_values_videos: see `forward`.
            video_attention_mask: see `forward`.

        Returns:
            Of each present modality, `"audio"` and `"visual"`: the output, whose `last_hidden_state` is `(batch,
            frames, hidden_size)`, and the mask of its valid frames `(batch, frames)` bool. Both have equally many
            frames.

        Raises:
            ValueError: the network has no back-end of its own for each modality.
        """
        self._check_back_ends()
        audio = audio_lengths = video = video_lengths = None
        if input_values is not None:
            if attention_mask is None:
                attention_mask = torch.ones_like(input_values, dtype=torch.long)
            audio, audio_lengths = self.audio_front_end(input_values, attention_mask)
        if pixel_values_videos is not None:
            if video_attention_mask is None:
                video_attention_mask = pixel_values_videos.new_ones(pixel_values_videos.shape[:2])
            video = self._visual_features(pixel_values_videos, video_attention_mask.bool())
            video_lengths = video_attention_mask.long().sum(dim=1)
        audio_padding, video_padding = frame_padding(self.config, audio_lengths, video_lengths)
        per_frame = self.config.audio.steps_per_frame
        frames = max(  # of the batch's longest clip, which fills its tensor
            self.config.min_frames or 0,
            0 if audio is None else (audio.shape[1] + per_frame - 1) // per_frame,
            0 if video is None else video.shape[1],
        )
        norms = (self.norm, self.norm)
        if self.config.modality == "audiovisual":
            norms = (self.audio_norm, self.visual_norm)
        encoded = {}
        if audio is not None:
            encoded["audio"] = self.audio_encoder(audio, audio_lengths, audio_padding, frames, norms[0], **kwargs)
        if video is not None:
            encoded["visual"] = self.visual_encoder(video, video_lengths, video_padding, frames, norms[1], **kwargs)
        return encoded

    def _visual_features(self, lips: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        """Returns the vectors `(batch, frames, size)` of mouth crops, or of the vectors that are passed instead."""
        if lips.ndim == 3:
            return lips.masked_fill(~frame_mask[..., None], 0.0)
        return self.visual_front_end(lips, frame_mask)

    def _check_back_ends(self) -> None:
        """Raises an error unless each modality has its back-end."""
        if self.config.fusion != "transformer":
            raise ValueError(f"fusion={self.config.fusion!r} has no encodings of one modality; 'transformer' has.")

    def _read_encodings(
        self, given: dict[str, tuple[torch.Tensor | None, torch.Tensor | None]]
    ) -> dict[str, tuple[BaseModelOutput, torch.Tensor]]:
        """Returns encodings that were computed before as `encode_modalities` does, in this network's precision."""
        encoded = {}
        for name, (states, mask) in given.items():
            if states is not None and self.config.modality in (name, "audiovisual"):
                self._check_back_ends()
                valid = torch.ones(states.shape[:2], device=states.device) if mask is None else mask
                states = states.to(self.norm.weight.dtype)
                encoded[name] = BaseModelOutput(last_hidden_state=states), valid.bool()
        return encoded

    def _drop_modalities(
        self, audio_mask: torch.Tensor, video_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes, while training, one modality from some of the clips that have both, either with the same chance."""
        if not self.training or not self.config.modality_dropout:
            return audio_mask, video_mask
        chance = torch.rand(audio_mask.shape[0], 1, device=audio_mask.device)
        both = audio_mask.any(dim=1, keepdim=True) & video_mask.any(dim=1, keepdim=True)
        half = self.config.modality_dropout / 2
        return audio_mask & ~(both & (chance < half)), video_mask & ~(both & (chance > 1 - half))

    def _views(
        self, audio_mask: torch.Tensor, video_mask: torch.Tensor
    ) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        """
        Stacks the views' masks along the batch while training with `modality_loss_weights`.

        Returns:
            The views' names, then the masks; no names and the masks as they are without views.
        """
        weights = self.config.modality_loss_weights
        if not self.training or not weights:
            return [], audio_mask, video_mask
        views = list(weights)
        absent = torch.zeros_like(audio_mask)
        audio_masks = [absent if view == "visual" else audio_mask for view in views]
        video_masks = [absent if view == "audio" else video_mask for view in views]
        return views, torch.cat(audio_masks), torch.cat(video_masks)

    def _fuse(
        self, encoded: dict[str, tuple[BaseModelOutput, torch.Tensor]], **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[BaseModelOutput, torch.Tensor]:
        """Fuses both modalities' encodings, or the only one with zeros; returns the output and the frame mask."""
        states: dict[str, tuple[torch.Tensor, torch.Tensor]]
        states = {name: (output["last_hidden_state"], mask) for name, (output, mask) in encoded.items()}
        absent = tuple(torch.zeros_like(tensor) for tensor in next(iter(states.values())))
        audio, audio_mask = states.get("audio", absent)
        video, video_mask = states.get("visual", absent)
        audio_mask, video_mask = self._drop_modalities(audio_mask, video_mask)
        views, audio_mask, video_mask = self._views(audio_mask, video_mask)
        if views:
            audio, video = audio.repeat(len(views), 1, 1), video.repeat(len(views), 1, 1)
        output = self.fusion(audio, audio_mask, video, video_mask, self.norm, **kwargs)
        return output, audio_mask | video_mask

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_attention_mask: torch.Tensor | None = None,
        audio_encodings: torch.Tensor | None = None,
        audio_encoding_mask: torch.Tensor | None = None,
        visual_encodings: torch.Tensor | None = None,
        visual_encoding_mask: torch.Tensor | None = None,
        visual_features: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AvsrEncoderOutput:
        r"""
        Encodes clips.

        Args:
            input_values (`torch.Tensor` of shape `(batch, samples)`, *optional*): normalised 16 kHz waveforms.
            attention_mask (`torch.Tensor` of shape `(batch, samples)`, *optional*): 1 for sound; a row of 0: no sound.
            pixel_values_videos (`torch.Tensor` of shape `(batch, frames, 1, height, width)`, *optional*): mouth crops.
            video_attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*):
                1 for frames; a row of 0: no lips.
            audio_encodings (`torch.Tensor` of shape `(batch, frames, hidden_size)`, *optional*):
                What `encode_modalities` computed of the sound before, instead of the first four inputs.
            audio_encoding_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): their valid frames.
            visual_encodings (`torch.Tensor` of shape `(batch, frames, hidden_size)`, *optional*):
                The same of the lips.
            visual_encoding_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): their valid frames.
            visual_features (`torch.Tensor` of shape `(batch, frames, feature_size)`, *optional*):
                What `visual_front_end` computed of the mouth crops before, instead of `pixel_values_videos`.

        Raises:
            ValueError: none of the inputs that the model's `modality` reads is passed, or encodings or features beside
                the inputs that they are of.
        """
        if visual_features is not None and pixel_values_videos is not None:
            raise ValueError("visual_features take the place of pixel_values_videos: leave one of them out.")
        pixel_values_videos = pixel_values_videos if visual_features is None else visual_features
        given = {
            "audio": (audio_encodings, audio_encoding_mask),
            "visual": (visual_encodings, visual_encoding_mask),
        }
        encoded = self._read_encodings(given)
        if encoded and (input_values is not None or pixel_values_videos is not None):
            raise ValueError("Encodings take the place of input_values and pixel_values_videos: leave these out.")
        if self.config.modality == "visual":
            input_values = None
        if self.config.modality == "audio":
            pixel_values_videos = None
        if not encoded and input_values is None and pixel_values_videos is None:
            raise ValueError(
                f"A model of modality={self.config.modality!r} needs "
                + {"audio": "input_values.", "visual": "pixel_values_videos."}.get(
                    self.config.modality, "input_values, pixel_values_videos or both."
                )
            )
        if encoded:
            return self._combine(encoded, **kwargs)
        return self._encode(input_values, attention_mask, pixel_values_videos, video_attention_mask, **kwargs)

    def _encode(
        self,
        input_values: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        pixel_values_videos: torch.Tensor | None,
        video_attention_mask: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AvsrEncoderOutput:
        """Encodes clips, of which at least one modality is there."""
        encoded = self.encode_modalities(
            input_values, attention_mask, pixel_values_videos, video_attention_mask, **kwargs
        )
        return self._combine(encoded, **kwargs)

    def _combine(
        self, encoded: dict[str, tuple[BaseModelOutput, torch.Tensor]], **kwargs: Unpack[TransformersKwargs]
    ) -> AvsrEncoderOutput:
        """Makes one sequence of what `encode_modalities` returns."""
        layers: dict[str, tuple[torch.Tensor, ...] | None] = {}
        if self.config.modality == "audiovisual":
            output, frame_mask = self._fuse(encoded, **kwargs)
            for name, (modality, _) in encoded.items():
                layers[f"{name}_hidden_states"] = modality.hidden_states
                layers[f"{name}_attentions"] = modality.attentions
        else:
            output, frame_mask = next(iter(encoded.values()))
        return AvsrEncoderOutput(
            last_hidden_state=output["last_hidden_state"],
            frame_mask=frame_mask,
            modalities=None,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            **layers,
        )


class AvsrFrameEncoder(AvsrEncoder):
    """Base of encoders that read one vector a frame of each modality, without padding between them."""

    def _features(
        self,
        input_values: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        pixel_values_videos: torch.Tensor | None,
        video_attention_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Computes both modalities' features over the same frames, and their masks.

        Returns:
            Features of the sound and their mask, of the lips and their mask: `(batch, frames, size)`, zeros where a
            modality is absent, and `(batch, frames)` bool.
        """
        if input_values is not None:
            if attention_mask is None:
                attention_mask = torch.ones_like(input_values, dtype=torch.long)
            input_values = input_values * attention_mask.to(input_values.dtype)  # what comes after is silence
        if pixel_values_videos is not None and video_attention_mask is None:
            video_attention_mask = pixel_values_videos.new_ones(pixel_values_videos.shape[:2])
        if attention_mask is not None and video_attention_mask is not None:
            attention_mask, video_attention_mask = self._equal_lengths(attention_mask, video_attention_mask)
        audio = video = lengths = frame_mask = None
        if input_values is not None and attention_mask is not None:
            missing = attention_mask.shape[1] - input_values.shape[1]
            audio, lengths = self.audio_front_end(nn.functional.pad(input_values, (0, missing)), attention_mask)
        if pixel_values_videos is not None and video_attention_mask is not None:
            frame_mask = video_attention_mask.bool()
            video = self._visual_features(pixel_values_videos, frame_mask)
        some = audio if audio is not None else video
        assert some is not None  # the caller has checked that there is something
        frames = max(part.shape[1] for part in (audio, video) if part is not None)
        clips = some.shape[0]
        if audio is None or lengths is None:
            audio, lengths = some.new_zeros(clips, 1, self.config.audio.feature_size), some.new_zeros(clips)
        if video is None or frame_mask is None:
            video = some.new_zeros(clips, 1, self.config.visual.feature_size)
            frame_mask = torch.zeros_like(video[..., 0], dtype=torch.bool)
        audio_mask = torch.arange(frames, device=some.device)[None] < lengths[:, None]
        audio, video = (nn.functional.pad(part, (0, 0, 0, frames - part.shape[1])) for part in (audio, video))
        video_mask = nn.functional.pad(frame_mask, (0, frames - frame_mask.shape[1]))
        return audio.masked_fill(~audio_mask[..., None], 0.0), audio_mask, video, video_mask

    def _equal_lengths(
        self, attention_mask: torch.Tensor, video_attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Makes the sound of clips that have both modalities as long as their lips: cut, or silent at its end."""
        samples, frames = attention_mask.sum(dim=1), video_attention_mask.long().sum(dim=1)
        samples = torch.where((samples > 0) & (frames > 0), FRAME_SAMPLES * frames, samples)
        width = max(attention_mask.shape[1], FRAME_SAMPLES * video_attention_mask.shape[1])
        places = torch.arange(width, device=samples.device)[None]
        return (places < samples[:, None]).to(attention_mask.dtype), video_attention_mask


class AvsrProjectionEncoder(AvsrFrameEncoder):
    """The features of sound, lips or both, projected for one encoder that all share (USR 2.0, auto_avsr)."""

    def _make_layers(self, config: AvsrConfig) -> None:
        sizes = {"audio": config.audio.feature_size, "visual": config.visual.feature_size}
        sizes["audiovisual"] = sum(sizes.values())
        names = MODALITIES if config.modality == "audiovisual" else (config.modality,)
        self.projections = nn.ModuleDict({name: nn.Linear(sizes[name], config.hidden_size) for name in names})
        self.transformer = AvsrTransformer(config, config.encoder_layers)

    def _encode(
        self,
        input_values: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        pixel_values_videos: torch.Tensor | None,
        video_attention_mask: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AvsrEncoderOutput:
        inputs = input_values, attention_mask, pixel_values_videos, video_attention_mask
        audio, audio_mask, video, video_mask = self._features(*inputs)
        if self.config.modality == "audiovisual":
            audio_mask, video_mask = self._drop_modalities(audio_mask, video_mask)
            views, audio_mask, video_mask = self._views(audio_mask, video_mask)
            if views:
                audio, video = audio.repeat(len(views), 1, 1), video.repeat(len(views), 1, 1)
        heard, seen = audio_mask.any(dim=1), video_mask.any(dim=1)
        modalities = torch.where(heard & seen, 2, torch.where(seen, 1, 0))  # of MODALITIES, `(batch,)`
        features = {"audio": audio, "visual": video, "audiovisual": torch.cat((video, audio), dim=-1)}
        hidden_states = audio.new_zeros(*audio.shape[:2], self.config.hidden_size)
        for name, projection in self.projections.items():
            chosen = (modalities == MODALITIES.index(name))[:, None, None]
            hidden_states = torch.where(chosen, projection(features[name]), hidden_states)
        frame_mask = torch.where(seen[:, None], video_mask, audio_mask)
        output = self.transformer(hidden_states, frame_mask, self.norm, return_dict=True, **kwargs)
        return AvsrEncoderOutput(
            last_hidden_state=output["last_hidden_state"],
            frame_mask=frame_mask,
            modalities=modalities if self.config.modality_heads else None,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


class AvsrMlpEncoder(AvsrFrameEncoder):
    """An encoder for the sound and one for the lips, and a perceptron over both (VSR-ML)."""

    def _make_layers(self, config: AvsrConfig) -> None:
        audio, inner = config.for_audio_encoder(), config.fusion_hidden_size or config.hidden_size
        self.audio_projection = nn.Linear(config.audio.feature_size, audio.hidden_size)
        self.audio_transformer = AvsrTransformer(audio, audio.encoder_layers)
        self.audio_norm = nn.LayerNorm(audio.hidden_size, audio.layer_norm_eps)
        self.visual_projection = nn.Linear(config.visual.feature_size, config.hidden_size)
        self.visual_transformer = AvsrTransformer(config, config.encoder_layers)
        self.fusion_hidden = nn.Linear(config.hidden_size + audio.hidden_size, inner)
        self.fusion_norm = nn.BatchNorm1d(inner) if config.fusion_norm == "batch" else nn.LayerNorm(inner)
        self.fusion_output = nn.Linear(inner, config.hidden_size)

    def _equal_lengths(
        self, attention_mask: torch.Tensor, video_attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cuts the longer modality of each clip, to whole frames."""
        frames = torch.minimum(attention_mask.sum(dim=1) // FRAME_SAMPLES, video_attention_mask.long().sum(dim=1))
        masks = []
        for mask, step in ((attention_mask, FRAME_SAMPLES), (video_attention_mask, 1)):
            places = torch.arange(mask.shape[1], device=mask.device)[None]
            masks.append((places < step * frames[:, None]).to(mask.dtype))
        return masks[0], masks[1]

    def _encode(
        self,
        input_values: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        pixel_values_videos: torch.Tensor | None,
        video_attention_mask: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AvsrEncoderOutput:
        masks = {"input_values": attention_mask, "pixel_values_videos": video_attention_mask}
        for name, values in (("input_values", input_values), ("pixel_values_videos", pixel_values_videos)):
            mask = masks[name]
            if values is None or (mask is not None and not mask.any(dim=1).all()):
                raise ValueError(f"{name}: this model reads sound and lips together, and a clip has only one of them.")
        inputs = input_values, attention_mask, pixel_values_videos, video_attention_mask
        audio, mask, video, _ = self._features(*inputs)
        sound = self.audio_transformer(self.audio_projection(audio), mask, self.audio_norm, return_dict=True, **kwargs)
        lips = self.visual_transformer(self.visual_projection(video), mask, self.norm, return_dict=True, **kwargs)
        hidden = self.fusion_hidden(torch.cat((lips["last_hidden_state"], sound["last_hidden_state"]), dim=-1))
        norm = self.fusion_norm
        hidden = masked_batch_norm(norm, hidden, mask) if isinstance(norm, nn.BatchNorm1d) else norm(hidden)
        return AvsrEncoderOutput(
            last_hidden_state=self.fusion_output(nn.functional.relu(hidden)),
            frame_mask=mask,
            audio_hidden_states=sound.hidden_states,
            audio_attentions=sound.attentions,
            visual_hidden_states=lips.hidden_states,
            visual_attentions=lips.attentions,
        )


AUDIO_FRONT_ENDS = {
    "wav2vec2": AvsrWaveformFrontEnd,
    "whisper": AvsrWhisperFrontEnd,
    "wav2vec2-bert": AvsrFilterBankFrontEnd,
    "spectrogram": AvsrSpectrogramFrontEnd,
    "resnet": AvsrResNetWaveformFrontEnd,
}
ENCODERS = {"transformer": AvsrEncoder, "projection": AvsrProjectionEncoder, "mlp": AvsrMlpEncoder}  # by `fusion`
