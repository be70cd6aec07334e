"""A complete Hub-ready folder: weights, configurations, processor, and the code that reads them without lookhear."""

import os
from pathlib import Path

from transformers import CLIPTextConfig

from lookhear.modeling.glee import GleeForObjectDetection
from lookhear.processing.glee import GleeProcessor, ObjectPerceptionPipeline
from lookhear.training.export import check_pairs, save_pipeline


def save_checkpoint(
    model: GleeForObjectDetection, processor: GleeProcessor, folder: str | os.PathLike, half: bool = True
) -> Path:
    """
    Writes a folder for `AutoModelForZeroShotObjectDetection`, `AutoModel`, `AutoProcessor` and `pipeline`; see
    `save_pipeline`.

    Args:
        model: its weights are not changed.
        processor: with the tokenizer of the model's text encoder.
        folder: created if missing.
        half: store matrices and kernels as float16.

    Returns:
        The folder.

    Raises:
        ValueError: model and processor do not belong together, or a weight is not finite or too large for float16.
    """
    text = model.config.text_config
    assert isinstance(text, CLIPTextConfig)  # GleeConfig makes it
    check_pairs({"vocabulary": (text.vocab_size, len(processor.tokenizer))})
    see = ObjectPerceptionPipeline(model, processor=processor, device=model.device)
    return save_pipeline(see, folder, half)
