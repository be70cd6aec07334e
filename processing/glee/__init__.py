"""GLEE: from images and prompts to tensors, and from the network's answers to boxes and masks of the picture."""

from .image_processing_glee import GleeImageProcessor
from .processing_glee import GleeProcessor
from .prompt_processing_glee import GleePromptProcessor

__all__ = ["GleeImageProcessor", "GleeProcessor", "GleePromptProcessor"]
