"""LISA-GLEE: a language model that sees what GLEE sees, and answers with masks."""

from .configuration_lisa_glee import LisaGleeConfig
from .modeling_lisa_glee import LisaGleeForReasoningSegmentation

__all__ = ["LisaGleeConfig", "LisaGleeForReasoningSegmentation"]
