"""A random GLEE to start from, and a tree of pictures as ADE20K publishes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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
