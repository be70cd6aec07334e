"""GLEE: from images and prompts to tensors, and from the network's answers to boxes and masks of the picture."""

from .image_processing_glee import GleeImageProcessor
from .pipeline_glee import ObjectPerceptionPipeline
from .processing_glee import GleeProcessor
from .prompt_processing_glee import GleePromptProcessor
from .rendering_glee import draw_objects

__all__ = ["GleeImageProcessor", "GleeProcessor", "GleePromptProcessor", "ObjectPerceptionPipeline", "draw_objects"]
