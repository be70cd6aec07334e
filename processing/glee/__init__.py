"""GLEE: from images, videos and prompts to tensors, and from the network's answers to boxes, masks and tracks."""

from .geometry_glee import coco_rle, run_lengths
from .image_processing_glee import GleeImageProcessor
from .image_reading_glee import read_image
from .pipeline_glee import ObjectPerceptionPipeline
from .processing_glee import GleeProcessor
from .prompt_processing_glee import GleePromptProcessor
from .rendering_glee import draw_objects
from .track_state_glee import FrameCandidates
from .tracker_settings_glee import LifetimePolicy, MatchPolicy, ReidentifyPolicy, TrackerSettings
from .tracking_glee import GleeTracker, ObjectFollower
from .video_perception_glee import VideoPerception
from .video_reading_glee import is_video_source
from .writers_glee import CocoVideoWriter, JsonLinesWriter, MotWriter, VideoWriter, json_line

__all__ = [
    "CocoVideoWriter",
    "FrameCandidates",
    "GleeImageProcessor",
    "GleeProcessor",
    "GleePromptProcessor",
    "GleeTracker",
    "JsonLinesWriter",
    "LifetimePolicy",
    "MatchPolicy",
    "MotWriter",
    "ObjectFollower",
    "ObjectPerceptionPipeline",
    "ReidentifyPolicy",
    "TrackerSettings",
    "VideoPerception",
    "VideoWriter",
    "coco_rle",
    "draw_objects",
    "is_video_source",
    "json_line",
    "read_image",
    "run_lengths",
]
