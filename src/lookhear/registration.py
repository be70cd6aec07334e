"""
Registers the models, processors and pipelines with transformers' Auto classes and `pipeline` when it is imported.

[`lookhear.deferred_registration`] imports it as soon as an Auto class or `pipeline` is taken from transformers.
"""

from pathlib import Path

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForSpeechSeq2Seq,
    AutoModelForVideoClassification,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    AutoTokenizer,
    CLIPTokenizer,
)
from transformers.pipelines import PIPELINE_REGISTRY

from lookhear.deferred_registration import end_deferral
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
    ObjectPerceptionPipeline,
)
from lookhear.processing.lisa_glee import LisaGleeProcessor, ReasoningSegmentationPipeline

PACKAGED = Path(__file__).parent / "model_cards"  # the tasks' default models

AutoConfig.register(AvsrConfig.model_type, AvsrConfig)
AutoModel.register(AvsrConfig, AvsrModel)
AutoModelForSpeechSeq2Seq.register(AvsrConfig, AvsrForConditionalGeneration)
AutoModelForVideoClassification.register(AvsrConfig, AvsrForVideoClassification)
AutoFeatureExtractor.register(AvsrConfig, AvsrFeatureExtractor)
AutoImageProcessor.register(
    AvsrConfig, image_processor_classes={"pil": MouthRoiImageProcessor, "torchvision": MouthRoiImageProcessor}
)
AutoTokenizer.register(AvsrConfig, AvsrTokenizer)
AutoProcessor.register(AvsrConfig, AvsrProcessor)
PIPELINE_REGISTRY.register_pipeline(
    "audio-visual-speech-recognition",
    pipeline_class=AudioVisualSpeechRecognitionPipeline,
    pt_model=AutoModelForSpeechSeq2Seq,
    default={"model": (str(PACKAGED / "avsr-grid-tiny"), None)},
    type="multimodal",
)
AudioVisualSpeechRecognitionPipeline.default_speaker_model = str(PACKAGED / "glee-tiny")

AutoConfig.register(GleeConfig.model_type, GleeConfig)
AutoModel.register(GleeConfig, GleeModel)
AutoModelForZeroShotObjectDetection.register(GleeConfig, GleeForObjectDetection)
AutoImageProcessor.register(
    GleeConfig, image_processor_classes={"pil": GleeImageProcessor, "torchvision": GleeImageProcessor}
)
AutoTokenizer.register(GleeConfig, CLIPTokenizer)
AutoProcessor.register(GleeConfig, GleeProcessor)
PIPELINE_REGISTRY.register_pipeline(
    "object-perception",
    pipeline_class=ObjectPerceptionPipeline,
    pt_model=AutoModelForZeroShotObjectDetection,
    default={"model": (str(PACKAGED / "glee-tiny"), None)},
    type="multimodal",
)

AutoConfig.register(LisaGleeConfig.model_type, LisaGleeConfig)
AutoModel.register(LisaGleeConfig, LisaGleeForReasoningSegmentation)
AutoProcessor.register(LisaGleeConfig, LisaGleeProcessor)
PIPELINE_REGISTRY.register_pipeline(
    "reasoning-segmentation",
    pipeline_class=ReasoningSegmentationPipeline,
    pt_model=AutoModel,
    default={"model": (str(PACKAGED / "lisa-glee-tiny"), None)},
    type="multimodal",
)

# Saved checkpoints include their code, for use without lookhear (`trust_remote_code=True`).
AvsrConfig.register_for_auto_class()
AvsrModel.register_for_auto_class("AutoModel")
AvsrForConditionalGeneration.register_for_auto_class("AutoModelForSpeechSeq2Seq")
AvsrForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")
AvsrFeatureExtractor.register_for_auto_class()
MouthRoiImageProcessor.register_for_auto_class()
AvsrTokenizer.register_for_auto_class()
AvsrProcessor.register_for_auto_class()
GleeConfig.register_for_auto_class()
GleeModel.register_for_auto_class("AutoModel")
GleeForObjectDetection.register_for_auto_class("AutoModelForZeroShotObjectDetection")
GleeImageProcessor.register_for_auto_class()
GleeProcessor.register_for_auto_class()
LisaGleeConfig.register_for_auto_class()
LisaGleeForReasoningSegmentation.register_for_auto_class("AutoModel")
LisaGleeProcessor.register_for_auto_class()

end_deferral()
