"""LISA-GLEE: from pictures and questions to tensors, and from answers to words, masks and boxes."""

from .processing_lisa_glee import LisaGleeProcessor

__all__ = ["LisaGleeProcessor"]
