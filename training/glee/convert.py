"""A published GLEE checkpoint -> a folder that `from_pretrained` and `pipeline` read."""

import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from transformers import CLIPTokenizer, PreTrainedTokenizerBase

from lookhear.modeling.glee import GleeConfig, GleeEvaConfig
from lookhear.modeling.glee.convert_glee import load_published_checkpoint
from lookhear.processing.glee import GleeImageProcessor, GleeProcessor
from lookhear.training.checkpoint_files import check_new_folder, load_config, new_folder
from lookhear.training.glee.export import save_checkpoint

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
    Converts one checkpoint; the folder appears when it is complete, or not at all.

    Args:
        path: `.pth`, `.pt`, `.bin` or `.safetensors` of the published code; nothing in it is run.
        output: folder to make; one that holds anything is refused.
        tokenizer: folder or Hub id. By default CLIP's own, which a checkpoint with CLIP's vocabulary belongs to.
        config: folder or `config.json` of a `GleeConfig`, where sizes cannot be read off the weights.
        for_training: keep the text teacher and the denoising tables.

    Returns:
        The folder.

    Raises:
        ValueError: the file is unsafe, damaged or not GLEE's, the output is there already, or the tokenizer does not fit.
    """
    output = check_new_folder(output)
    settings = None if config is None else load_config(config, GleeConfig)
    model = load_published_checkpoint(path, config=settings, for_training=for_training)
    words = load_tokenizer(tokenizer, model.config.text_config.vocab_size)
    processor = GleeProcessor(make_image_processor(model.config), words)
    with new_folder(output) as folder:
        save_checkpoint(model, processor, folder, half=False)
    return output


def load_tokenizer(name: str | os.PathLike | None, vocab_size: int) -> PreTrainedTokenizerBase:
    """
    Loads the tokenizer of a text encoder with a vocabulary of this size.

    Raises:
        ValueError: none is named for another vocabulary than CLIP's, it cannot be loaded, or it has another vocabulary.
    """
    if name is None and vocab_size != CLIP_VOCABULARY:
        raise ValueError(
            f"tokenizer: the checkpoint knows {vocab_size} tokens, CLIP's has {CLIP_VOCABULARY}; name its own"
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
    """Images as the published code gives them to a model of this size: Pro sees one square, the others 800 to 1333."""
    if not isinstance(config.backbone_config, GleeEvaConfig):
        return GleeImageProcessor()
    side = config.backbone_config.image_size
    return GleeImageProcessor.pro(
        size={"shortest_edge": side, "longest_edge": side}, pad_size={"height": side, "width": side}
    )
