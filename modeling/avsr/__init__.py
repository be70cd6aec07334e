"""The AVSR networks."""

from .configuration_avsr import AvsrAudioConfig, AvsrConfig, AvsrVisualConfig
from .modeling_avsr import AvsrForConditionalGeneration, AvsrModel
from .modeling_avsr_classification import AvsrForVideoClassification

__all__ = [
    "AvsrAudioConfig",
    "AvsrConfig",
    "AvsrForConditionalGeneration",
    "AvsrForVideoClassification",
    "AvsrModel",
    "AvsrVisualConfig",
]
