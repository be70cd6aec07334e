"""The AVSR networks."""

from .configuration_avsr import AvsrAudioConfig, AvsrConfig, AvsrVisualConfig
from .modeling_avsr import AvsrForConditionalGeneration, AvsrModel

__all__ = ["AvsrAudioConfig", "AvsrConfig", "AvsrForConditionalGeneration", "AvsrModel", "AvsrVisualConfig"]
