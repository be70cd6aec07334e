"""The GLEE networks."""

from .configuration_glee import GleeConfig, GleeEvaConfig
from .loss_glee import GleeSupervision
from .modeling_glee import GleeForObjectDetection, GleeModel

__all__ = ["GleeConfig", "GleeEvaConfig", "GleeForObjectDetection", "GleeModel", "GleeSupervision"]
