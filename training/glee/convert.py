"""Conversion of a published GLEE checkpoint to a folder that `from_pretrained` and `pipeline` read."""

import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from transformers import CLIPTextConfig, CLIPTokenizer, PreTrainedTokenizerBase

from lookhear.evaluation.whole_files import whole_folder
from lookhear.modeling.glee import GleeConfig, GleeEvaConfig
from lookhear.modeling.glee.convert_glee import load_published_checkpoint
from lookhear.processing.glee import GleeImageProcessor, GleeProcessor
from lookhear.training.checkpoint_files import check_new_folder, load_config
from lookhear.training.glee.export import save_checkpoint
from lookhear.training.glee.published import HUB_NAMES, TERMS, checkpoint_file
from lookhear.training.named_models import converted_once

CLIP = "openai/clip-vit-base-patch32"
CLIP_VOCABULARY = 49408
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json"]


def convert_checkpoint(
    path: str | os.PathLike,
    output: str | os.PathLike,
    *,
    tokenizer: str | os.PathLike | None = None,
    config: str | os.PathLike | None = None,
    for_training: bool = False,
) -> Path:
    """
    Converts one checkpoint. The folder appears once it is complete, or not at all.

    Args:
        path: `.pth`, `.pt`, `.bin` or `.safetensors` of the published code; nothing in it is executed. Or a name such
            as `"glee-lite"` or `"glee-pro-scaleup"`, or a path on the Hub, `"hf://…"`: then it is fetched.
        output: folder to create; one that is not empty is refused.
        tokenizer: folder or Hub id. None: CLIP's own, for a checkpoint with CLIP's vocabulary.
        config: folder or `config.json` of a `GleeConfig`, if the sizes cannot be read off the weights.
        for_training: whether the text teacher and the denoising tables are converted, too.

    Returns:
        The folder.

    Raises:
        ValueError: the file is unsafe, damaged or not GLEE's, or it cannot be fetched, the output exists already, or
            the tokenizer does not fit.
    """
    output = check_new_folder(output)
    settings = None if config is None else load_config(config, GleeConfig)
    with checkpoint_file(path) as file:
        model = load_published_checkpoint(file, config=settings, for_training=for_training)
        text = model.config.text_config
        assert isinstance(text, CLIPTextConfig)  # GleeConfig makes it
        words = load_tokenizer(tokenizer, text.vocab_size)
        processor = GleeProcessor(make_image_processor(model.config), words)
        with whole_folder(output) as folder:
            save_checkpoint(model, processor, folder, half=False)
    return output


def converted_by_name(name: str) -> Path:
    """
    Returns the folder of a published model that is known by name, which is fetched and converted the first time.

    Args:
        name: in `HUB_NAMES`.

    Raises:
        ValueError: see [`convert_checkpoint`].
    """
    full = HUB_NAMES[name]
    return converted_once(full, TERMS, lambda folder: convert_checkpoint(full, folder))


def load_tokenizer(name: str | os.PathLike | None, vocab_size: int) -> PreTrainedTokenizerBase:
    """
    Loads the tokenizer of a text encoder with a vocabulary of this size.

    Raises:
        ValueError: no name is given for another vocabulary than CLIP's, or the tokenizer cannot be loaded or has
            another vocabulary.
    """
    if name is None and vocab_size != CLIP_VOCABULARY:
        raise ValueError(
            f"tokenizer: the checkpoint has {vocab_size} tokens, CLIP's {CLIP_VOCABULARY}; name the checkpoint's own"
        )
    name = CLIP if name is None else name
    try:
        folder = name if Path(name).is_dir() else snapshot_download(str(name), allow_patterns=TOKENIZER_FILES)
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    except (OSError, ValueError, TypeError, HfHubHTTPError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"tokenizer {str(name)!r} cannot be loaded; name a folder with CLIP's tokenizer.json, or its vocab.json "
            f"and merges.txt ({reason})"
        ) from None
    if len(tokenizer) != vocab_size:
        raise ValueError(f"tokenizer {str(name)!r} has {len(tokenizer)} tokens, the checkpoint {vocab_size}")
    return tokenizer


def make_image_processor(config: GleeConfig) -> GleeImageProcessor:
    """Makes the published image processor of a model: Pro takes a square, the others sides of 800 to 1333 pixels."""
    if not isinstance(config.backbone_config, GleeEvaConfig):
        return GleeImageProcessor()
    side = config.backbone_config.image_size
    return GleeImageProcessor.pro(
        size={"shortest_edge": side, "longest_edge": side}, pad_size={"height": side, "width": side}
    )
