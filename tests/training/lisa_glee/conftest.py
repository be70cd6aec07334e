"""A random GLEE and a random LLaVA to start from, and a tree of pictures as ADE20K publishes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

WORDS = """USER: ASSISTANT: . , ? ! : " ' Here it is I have marked It this This what you mean Where the in picture Mark
Please outline every part of that shows Which pixels belong to am looking for Can show me Find and mark following
describe Show refers square bar ground answer your red blue dark light"""
COLOURS = {1: (90, 90, 90), 2: (230, 60, 40), 3: (40, 80, 230)}  # of ground, square and bar
SIDE = 64


@pytest.fixture(scope="session")
def glee_start(tmp_path_factory) -> Path:
    """The folder of a random GLEE with wide mask features, in which colours can be told apart."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    from lookhear.modeling.glee import GleeConfig, GleeForObjectDetection
    from lookhear.processing.glee import GleeImageProcessor, GleeProcessor
    from lookhear.training.glee.export import save_checkpoint

    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[])
    text = {"vocab_size": len(tokens), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    backbone = {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 16, 16, 16], "depths": [1, 1, 1, 1]}
    backbone |= {"layer_type": "basic", "out_features": ["stage1", "stage2", "stage3", "stage4"]}
    config = GleeConfig(
        backbone_config=backbone,
        text_config=text,
        hidden_size=64,
        num_attention_heads=4,
        intermediate_size=64,
        encoder_layers=1,
        decoder_layers=1,
        num_queries=8,
        fusion_size=32,
        fusion_heads=2,
        num_groups=8,
        template_size=64,
    )
    torch.manual_seed(0)
    images = GleeImageProcessor(size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE})
    model = GleeForObjectDetection(config).eval()
    return save_checkpoint(model, GleeProcessor(images, tokenizer), tmp_path_factory.mktemp("glee"))


@pytest.fixture(scope="session")
def llava_start(tmp_path_factory) -> Path:
    """The folder of a random LLaVA with a tokenizer of words, which has a place for pictures but no new tokens yet."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        PreTrainedTokenizerFast,
    )

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*special, *WORDS.split()]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"(?<=[a-z])(?=[^\w])|(?<=[\W_])(?=\w)"), "isolated"),
        ]
    )
    tokenizer.add_special_tokens(special)
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(1)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=vocabulary["<image>"], image_seq_length=4
    )
    folder = tmp_path_factory.mktemp("llava")
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    words.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def write_ade20k() -> Callable[[Path, int], Path]:
    """`write_ade20k(folder, count)`: pictures of a square and a bar on the ground, in ADE20K's layout."""
    return _write_ade20k


def _write_ade20k(folder: Path, count: int) -> Path:
    random = np.random.default_rng(0)
    for name in ("images/training", "annotations/training"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        labels = np.ones((SIDE, SIDE), np.uint8)
        x, y = 8 * random.integers(0, 4, 2)
        labels[y : y + 24, x : x + 24] = 2
        labels[48:60, 8 * (index % 3) : 8 * (index % 3) + 40] = 3
        picture = np.array([COLOURS.get(value, (0, 0, 0)) for value in range(4)], np.int64)[labels]
        picture = (picture + random.integers(-6, 7, picture.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"images/training/ADE_train_{index:08}.jpg", quality=100, subsampling=0)
        Image.fromarray(labels).save(folder / f"annotations/training/ADE_train_{index:08}.png")
    table = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    table += [f"{value}\t0.1\t10\t1\t0\t{name}" for value, name in enumerate(("ground", "square, box", "bar"), 1)]
    (folder / "objectInfo150.txt").write_text("\n".join(table) + "\n")
    return folder
