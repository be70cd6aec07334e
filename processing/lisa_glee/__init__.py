"""LISA-GLEE: from pictures and questions to tensors, and from answers to words, masks and boxes."""

from .pipeline_lisa_glee import ReasoningSegmentationPipeline
from .processing_lisa_glee import LisaGleeProcessor

__all__ = ["LisaGleeProcessor", "ReasoningSegmentationPipeline"]
