"""CLIP's tokenizer gives the ids that GLEE was trained with."""

import json
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from lookhear.processing.glee import GleePromptProcessor
from lookhear.processing.glee.prompt_processing_glee import clean_label

pytestmark = [pytest.mark.parity, pytest.mark.shared]


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> CLIPTokenizer:
    folder = shared / "data" / "clip_tokenizer"
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").strip().splitlines()
    merges = [tuple(line.split()) for line in lines if not line.startswith("#version")]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


@pytest.fixture(scope="module")
def stored(glee_folder: Path) -> dict:
    return json.loads((glee_folder / "tokenizer.json").read_text(encoding="utf-8"))


def test_ids_of_every_string(tokenizer, stored):
    encoded = tokenizer(stored["strings"], padding="max_length", max_length=77, truncation=True)
    assert encoded["input_ids"] == stored["input_ids"]
    assert encoded["attention_mask"] == stored["attention_mask"]


def test_labels_are_the_same_without_the_padding(tokenizer, stored):
    prompts = GleePromptProcessor(tokenizer)
    for text, ids, mask in zip(stored["strings"], stored["input_ids"], stored["attention_mask"], strict=True):
        length = sum(mask)
        if length < 77:  # what was cut off there is refused here
            written = clean_label(text)  # `sports_ball` is looked for as `sports ball`
            expected = ids[:length] if written == text else tokenizer(written)["input_ids"]
            assert prompts(labels=[text])["input_ids"].tolist() == [expected]
            continue
        with pytest.raises(ValueError, match="labels: item 0 has [0-9]+ tokens, 77 fit"):
            prompts(labels=[text])


def test_the_files_load_by_themselves(shared, tokenizer, stored):
    loaded = CLIPTokenizer.from_pretrained(shared / "data" / "clip_tokenizer")
    assert loaded(stored["strings"])["input_ids"] == tokenizer(stored["strings"])["input_ids"]
