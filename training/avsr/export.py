"""A complete Hub-ready folder: weights, configurations, processor, and the code that reads them without lookhear."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers.dynamic_module_utils import custom_object_save

from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration
from lookhear.processing.avsr import AudioVisualSpeechRecognitionPipeline, AvsrProcessor

TASK = "audio-visual-speech-recognition"


def save_checkpoint(
    model: AvsrForConditionalGeneration, processor: AvsrProcessor, folder: str | os.PathLike, half: bool = True
) -> Path:
    """
    Writes all that `AutoModelForSpeechSeq2Seq`, `AutoModel`, `AutoProcessor` and `pipeline` need, with lookhear
    installed (no flag) or without it (`trust_remote_code=True`).

    The folder is put together beside its final place and moved file by file, so that a reader never sees half a file;
    other files there (a card) stay.

    Args:
        model: its weights are not changed.
        processor: of the model's sampling rate and crop size.
        folder: made if missing.
        half: store matrices and kernels as float16, at half the size. `config.json` says float32, so they load as
            float32; biases, norms and running statistics are stored as float32 anyway.

    Returns:
        The folder.

    Raises:
        ValueError: model and processor do not belong together, or a weight is not finite or too large for float16.
    """
    _check_pair(model, processor)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state_dict = half_matrices(model.state_dict()) if half else model.state_dict()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as partial:
        with _published(model.config):
            model.save_pretrained(partial, state_dict=state_dict)
        processor.save_pretrained(partial)
        custom_object_save(
            AudioVisualSpeechRecognitionPipeline(model, processor=processor, device=model.device), partial
        )
        for file in sorted(Path(partial).iterdir()):
            file.chmod(0o644)
            os.replace(file, folder / file.name)
    return folder


@contextlib.contextmanager
def _published(config: AvsrConfig) -> Iterator[None]:
    """While saving, the configuration says where the code of the Auto classes and of the pipeline is."""
    entries = {
        "auto_map": {"AutoModel": "modeling_avsr.AvsrModel"},  # saving adds the model's and the configuration's own
        "custom_pipelines": {
            TASK: {
                "impl": f"pipeline_avsr.{AudioVisualSpeechRecognitionPipeline.__name__}",
                "pt": ["AutoModelForSpeechSeq2Seq"],
                "type": "multimodal",
            }
        },
    }
    for name, value in entries.items():
        setattr(config, name, value)
    try:
        yield
    finally:
        for name in entries:
            delattr(config, name)


def half_matrices(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Weights of two and more dimensions as float16; all else as it is.

    Raises:
        ValueError: a weight is not finite in float16.
    """
    halved = {}
    for name, weight in state_dict.items():
        if weight.ndim >= 2 and weight.is_floating_point():
            weight = weight.half()
            if not torch.isfinite(weight).all():
                raise ValueError(f"{name} is not finite in float16: save with half=False, or look at the training.")
        halved[name] = weight
    return halved


def _check_pair(model: AvsrForConditionalGeneration, processor: AvsrProcessor) -> None:
    """The processor makes what the model reads."""
    config = model.config
    pairs = {
        "sampling rate": (config.audio_config.sampling_rate, processor.feature_extractor.sampling_rate),
        "mouth crop": (config.visual_config.crop_size, processor.image_processor.crop_size),
        "vocabulary": (config.vocab_size, len(processor.tokenizer)),
    }
    for name, (wanted, given) in pairs.items():
        if wanted != given:
            raise ValueError(f"The model's {name} is {wanted}, the processor's is {given}.")
