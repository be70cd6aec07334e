"""LookHear: point at a speaker, or describe them, and read what they say.

Importing the package registers its models, processors and pipelines with transformers' Auto classes and `pipeline`.
"""

from importlib.metadata import version

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
)
from transformers.pipelines import PIPELINE_REGISTRY

from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration, AvsrModel
from lookhear.processing.avsr import (
    AudioVisualSpeechRecognitionPipeline,
    AvsrFeatureExtractor,
    AvsrProcessor,
    AvsrTokenizer,
    MouthRoiImageProcessor,
)

__version__ = version("lookhear")
__all__ = [
    "AudioVisualSpeechRecognitionPipeline",
    "AvsrConfig",
    "AvsrFeatureExtractor",
    "AvsrForConditionalGeneration",
    "AvsrModel",
    "AvsrProcessor",
    "AvsrTokenizer",
    "MouthRoiImageProcessor",
]

AutoConfig.register(AvsrConfig.model_type, AvsrConfig)
AutoModel.register(AvsrConfig, AvsrModel)
AutoModelForSpeechSeq2Seq.register(AvsrConfig, AvsrForConditionalGeneration)
AutoFeatureExtractor.register(AvsrConfig, AvsrFeatureExtractor)
AutoImageProcessor.register(AvsrConfig, slow_image_processor_class=MouthRoiImageProcessor)
AutoTokenizer.register(AvsrConfig, AvsrTokenizer)
AutoProcessor.register(AvsrConfig, AvsrProcessor)
PIPELINE_REGISTRY.register_pipeline(
    "audio-visual-speech-recognition",
    pipeline_class=AudioVisualSpeechRecognitionPipeline,
    pt_model=AutoModelForSpeechSeq2Seq,
    type="multimodal",
)

# What is saved carries its code along, for those who do not have lookhear (`trust_remote_code=True`).
AvsrConfig.register_for_auto_class()
AvsrModel.register_for_auto_class("AutoModel")
AvsrForConditionalGeneration.register_for_auto_class("AutoModelForSpeechSeq2Seq")
AvsrFeatureExtractor.register_for_auto_class()
MouthRoiImageProcessor.register_for_auto_class()
AvsrTokenizer.register_for_auto_class()
AvsrProcessor.register_for_auto_class()
