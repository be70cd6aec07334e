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
"""Words from lips: classification of short clips, the stage that trains the visual front-end (paper, table 5)."""

import torch
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .configuration_avsr import AvsrConfig
from .encoder_avsr import AvsrPreTrainedModel, AvsrTransformer, AvsrVisualFrontEnd
from .layers_avsr import AvsrConvBlock, select_steps
from .transformers_seam_avsr import name_for_task

SHORTEST = 29  # frames of an LRW clip, and the fewest that the convolutional back-end takes


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


name_for_task("video-classification", AvsrForVideoClassification)

__all__ = ["AvsrForVideoClassification"]
