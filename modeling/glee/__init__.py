"""The GLEE networks."""

from .configuration_glee import GleeConfig, GleeEvaConfig
from .modeling_glee import GleeForObjectDetection, GleeModel

__all__ = ["GleeConfig", "GleeEvaConfig", "GleeForObjectDetection", "GleeModel"]
