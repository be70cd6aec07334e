"""AVSR: from a file to tensors, and back to text with times."""

from .captions_avsr import format_captions, write_captions
from .feature_extraction_avsr import AvsrFeatureExtractor
from .image_processing_avsr import MouthRoiImageProcessor
from .pipeline_avsr import AudioVisualSpeechRecognitionPipeline
from .processing_avsr import AvsrProcessor
from .tokenization_avsr import AvsrTokenizer, normalise_text

__all__ = [
    "AudioVisualSpeechRecognitionPipeline",
    "AvsrFeatureExtractor",
    "AvsrProcessor",
    "AvsrTokenizer",
    "MouthRoiImageProcessor",
    "format_captions",
    "normalise_text",
    "write_captions",
]
