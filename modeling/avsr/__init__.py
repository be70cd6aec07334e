"""The AVSR networks."""

from .configuration_avsr import AvsrAudioConfig, AvsrConfig, AvsrVisualConfig
from .encoder_avsr import AvsrEncoderOutput
from .modeling_avsr import AvsrForConditionalGeneration, AvsrModel
from .modeling_avsr_classification import AvsrForVideoClassification

__all__ = [
    "AvsrAudioConfig",
    "AvsrConfig",
    "AvsrEncoderOutput",
    "AvsrForConditionalGeneration",
    "AvsrForVideoClassification",
    "AvsrModel",
    "AvsrVisualConfig",
]
