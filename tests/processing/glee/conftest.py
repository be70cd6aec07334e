"""What the tests of GLEE's processing share."""

import pytest
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode


@pytest.fixture(scope="session")
def tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with a letter a token: 256 bytes, each alone or at the end of a word, and two special tokens."""
    letters = list(bytes_to_unicode().values())
    tokens = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)
