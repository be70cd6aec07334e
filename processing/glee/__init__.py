"""GLEE: from images, videos and prompts to tensors, and from the network's answers to boxes, masks and tracks."""

from .image_processing_glee import GleeImageProcessor
from .pipeline_glee import ObjectPerceptionPipeline
from .processing_glee import GleeProcessor
from .prompt_processing_glee import GleePromptProcessor
from .rendering_glee import draw_objects
from .tracking_glee import GleeTracker, ObjectFollower
from .video_perception_glee import VideoPerception

__all__ = [
    "GleeImageProcessor",
    "GleeProcessor",
    "GleePromptProcessor",
    "GleeTracker",
    "ObjectFollower",
    "ObjectPerceptionPipeline",
    "VideoPerception",
    "draw_objects",
]
