"""The AVSR networks."""

from .configuration_avsr import AvsrAudioConfig, AvsrConfig, AvsrVisualConfig
from .layers_avsr import AvsrEncoderOutput
from .modeling_avsr import AvsrForConditionalGeneration, AvsrForVideoClassification, AvsrModel

__all__ = [
    "AvsrAudioConfig",
    "AvsrConfig",
    "AvsrEncoderOutput",
    "AvsrForConditionalGeneration",
    "AvsrForVideoClassification",
    "AvsrModel",
    "AvsrVisualConfig",
]
