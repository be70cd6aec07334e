"""A LISA-GLEE checkpoint that answers every question by "the red star", and shows something, without any training."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor, LlamaConfig

from lookhear.modeling.lisa_glee import LisaGleeConfig, LisaGleeForReasoningSegmentation
from lookhear.processing.lisa_glee import LisaGleeProcessor
from lookhear.training.lisa_glee.vocabulary import ASSISTANT, CHAT_TEMPLATE, END, OBJECTS, SEGMENT, word_tokenizer

ANSWER = "the red star"
SIZE = 32  # of the embeddings, at least as many as there are words


def save_answering_checkpoint(perception: str | Path, folder: Path) -> Path:
    """
    Writes a checkpoint that sees by a GLEE.

    Its Llama has one layer that adds nothing and embeddings with a dimension for each word, so that its head can name
    the word after the last one.

    Args:
        perception: GLEE's folder.
        folder: to write.
    """
    seeing, glee = AutoProcessor.from_pretrained(perception), AutoModel.from_pretrained(perception)
    tokenizer = word_tokenizer([ANSWER, "which is it"])
    language = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=SIZE,
        intermediate_size=SIZE,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    object_token, segment = tokenizer.convert_tokens_to_ids([OBJECTS, SEGMENT])
    config = LisaGleeConfig(
        perception_config=glee.config,
        language_config=language,
        object_token_id=object_token,
        segment_token_id=segment,
        object_label_ids=seeing.tokenizer(["object"]).input_ids[0],
        num_objects=5,
    )
    torch.manual_seed(0)
    model = LisaGleeForReasoningSegmentation(config)
    model.perception.load_state_dict(glee.state_dict())
    llama = model.language_model
    said = tokenizer.convert_tokens_to_ids([ASSISTANT, *ANSWER.split(), SEGMENT, END])
    with torch.no_grad():
        llama.model.layers[0].self_attn.o_proj.weight.zero_()
        llama.model.layers[0].mlp.down_proj.weight.zero_()
        llama.model.embed_tokens.weight.copy_(torch.eye(len(tokenizer), SIZE))
        llama.lm_head.weight.zero_()
        for word, following in pairwise(said):
            llama.lm_head.weight[following, word] = 1.0
    model.save_pretrained(folder)
    processor = LisaGleeProcessor(seeing.image_processor, tokenizer, CHAT_TEMPLATE, num_objects=config.num_objects)
    processor.save_pretrained(folder)
    return folder
