"""A complete Hub-ready folder: weights, configurations, processor, and the code that reads them without lookhear."""

import os
from pathlib import Path

from transformers import GenerationConfig

from lookhear.modeling.avsr import AvsrAudioConfig, AvsrForConditionalGeneration, AvsrVisualConfig
from lookhear.processing.avsr import AudioVisualSpeechRecognitionPipeline, AvsrProcessor
from lookhear.training.export import check_pairs, save_pipeline


def save_checkpoint(
    model: AvsrForConditionalGeneration, processor: AvsrProcessor, folder: str | os.PathLike, half: bool = True
) -> Path:
    """
    Writes a folder for `AutoModelForSpeechSeq2Seq`, `AutoModel`, `AutoProcessor` and `pipeline`; see `save_pipeline`.

    Args:
        model: its weights are not changed.
        processor: of the model's sampling rate and crop size.
        folder: created if missing.
        half: store matrices and kernels as float16.

    Returns:
        The folder.

    Raises:
        ValueError: model and processor do not belong together, or a weight is not finite or too large for float16.
    """
    config = model.config
    audio, visual = config.audio_config, config.visual_config
    assert isinstance(audio, AvsrAudioConfig) and isinstance(visual, AvsrVisualConfig)  # AvsrConfig makes them
    check_pairs(
        {
            "sampling rate": (audio.sampling_rate, processor.feature_extractor.sampling_rate),
            "mouth crop": (visual.crop_size, processor.image_processor.crop_size),
            "vocabulary": (config.vocab_size, len(processor.tokenizer)),
        }
    )
    # From a generation config that transformers derived from the model's, the pipeline's settings would not be loaded.
    fields = model.generation_config.to_diff_dict()
    model.generation_config = GenerationConfig(**{name: fields[name] for name in fields if not name.startswith("_")})
    asr = AudioVisualSpeechRecognitionPipeline(model, processor=processor, device=model.device)
    return save_pipeline(asr, folder, half)
