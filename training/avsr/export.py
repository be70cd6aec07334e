"""A complete Hub-ready folder: weights, configurations, processor, and the code that reads them without lookhear."""

import os
import tempfile
from pathlib import Path

import torch

from lookhear.modeling.avsr import AvsrForConditionalGeneration
from lookhear.processing.avsr import AudioVisualSpeechRecognitionPipeline, AvsrProcessor


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
    asr = AudioVisualSpeechRecognitionPipeline(model, processor=processor, device=model.device)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as partial:
        model.config.auto_map = {"AutoModel": "modeling_avsr.AvsrModel"}  # saving adds the other classes
        try:
            asr.save_pretrained(partial, state_dict=state_dict)
        finally:
            del model.config.auto_map
        for file in sorted(Path(partial).iterdir()):
            file.chmod(0o644)
            os.replace(file, folder / file.name)
    return folder


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
