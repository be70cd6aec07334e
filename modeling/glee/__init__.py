"""The GLEE networks."""

from .configuration_eva_glee import GleeEvaConfig
from .configuration_glee import GleeConfig
from .modeling_glee import GleeForObjectDetection, GleeModel

__all__ = ["GleeConfig", "GleeEvaConfig", "GleeForObjectDetection", "GleeModel"]
