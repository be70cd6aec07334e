"""LISA-GLEE: GLEE gives a language model eyes."""

from .configuration_lisa_glee import LisaGleeConfig
from .modeling_lisa_glee import LisaGleeForReasoningSegmentation

__all__ = ["LisaGleeConfig", "LisaGleeForReasoningSegmentation"]
