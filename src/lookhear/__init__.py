"""LookHear: point at a speaker, or describe them, and read what they say.

Importing the package registers its models, processors and pipelines with transformers' Auto classes and `pipeline`. It
takes milliseconds: torch and transformers are loaded when a name of the package, an Auto class or `pipeline` is used.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING

from lookhear.deferred_registration import defer_registration

if TYPE_CHECKING:
    from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration, AvsrForVideoClassification, AvsrModel
    from lookhear.modeling.glee import GleeConfig, GleeForObjectDetection, GleeModel
    from lookhear.modeling.lisa_glee import LisaGleeConfig, LisaGleeForReasoningSegmentation
    from lookhear.processing.avsr import (
        AudioVisualSpeechRecognitionPipeline,
        AvsrFeatureExtractor,
        AvsrProcessor,
        AvsrTokenizer,
        MouthRoiImageProcessor,
    )
    from lookhear.processing.glee import (
        GleeImageProcessor,
        GleeProcessor,
        GleePromptProcessor,
        GleeTracker,
        ObjectPerceptionPipeline,
        VideoPerception,
    )
    from lookhear.processing.lisa_glee import LisaGleeProcessor, ReasoningSegmentationPipeline

__version__ = version("lookhear")
__all__ = [
    "AudioVisualSpeechRecognitionPipeline",
    "AvsrConfig",
    "AvsrFeatureExtractor",
    "AvsrForConditionalGeneration",
    "AvsrForVideoClassification",
    "AvsrModel",
    "AvsrProcessor",
    "AvsrTokenizer",
    "GleeConfig",
    "GleeForObjectDetection",
    "GleeImageProcessor",
    "GleeModel",
    "GleeProcessor",
    "GleePromptProcessor",
    "GleeTracker",
    "LisaGleeConfig",
    "LisaGleeForReasoningSegmentation",
    "LisaGleeProcessor",
    "MouthRoiImageProcessor",
    "ObjectPerceptionPipeline",
    "ReasoningSegmentationPipeline",
    "VideoPerception",
]
_SYSTEMS = ("avsr", "glee", "lisa_glee")
_FOLDERS = tuple(f"{kind}.{system}" for kind in ("modeling", "processing") for system in _SYSTEMS)


def __getattr__(name: str) -> object:
    """Loads a public name when it is first used; later uses do not call this function."""
    if name in ("modeling", "processing"):
        return importlib.import_module(f"lookhear.{name}")
    if name in __all__:
        for folder in _FOLDERS:
            module = importlib.import_module(f"lookhear.{folder}")
            if name in module.__all__:
                return globals().setdefault(name, getattr(module, name))
    raise AttributeError(f"module 'lookhear' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "modeling", "processing"})


defer_registration()
