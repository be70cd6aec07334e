"""Questions to answers: pictures, conversations and streams go through the pipeline as through model and processor."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlamaConfig

from lookhear.modeling.lisa_glee import LisaGleeConfig, LisaGleeForReasoningSegmentation
from lookhear.processing.lisa_glee import LisaGleeProcessor, ReasoningSegmentationPipeline
from lookhear.training.lisa_glee.vocabulary import CHAT_TEMPLATE, OBJECTS, SEGMENT, word_tokenizer

TEXTS = ["Which of the two is red? Show it.", "yes, the red star [SEG] and the moon [SEG]", "none"]
SIZES = [(48, 64), (40, 80)]  # (height, width)


@pytest.fixture
def ask(tiny_glee) -> ReasoningSegmentationPipeline:
    """A pipeline of a random model that answers everything by "the red star [SEG] and the moon [SEG]"."""
    glee, seeing = tiny_glee
    tokenizer = word_tokenizer(TEXTS)
    object_token, segment = tokenizer.convert_tokens_to_ids([OBJECTS, SEGMENT])
    language = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    perception = copy.deepcopy(glee.config)
    perception.padding_mask = True  # as in the packaged checkpoint: a picture looks the same whatever is beside it
    config = LisaGleeConfig(
        perception_config=perception,
        language_config=language,
        object_token_id=object_token,
        segment_token_id=segment,
        object_label_ids=seeing.tokenizer(["object"]).input_ids[0],
        num_objects=5,
    )
    model = LisaGleeForReasoningSegmentation(config).eval()
    teach(model, tokenizer("the red star [SEG] and the moon [SEG] </s>").input_ids)
    processor = LisaGleeProcessor(seeing.image_processor, tokenizer, CHAT_TEMPLATE, num_objects=5)
    return ReasoningSegmentationPipeline(model=model, processor=processor, task="reasoning-segmentation")


def teach(model: LisaGleeForReasoningSegmentation, answer: list[int]) -> None:
    """Lets the language model say one answer whatever it sees, by adding to its logits; its states stay its own."""

    class Said(torch.nn.Module):
        def __init__(self, head: torch.nn.Module):
            super().__init__()
            self.head, self.weight, self.step = head, head.weight, -1

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            logits = self.head(states)
            self.step = (self.step + 1) % len(answer)  # an answer ends with the last of them
            logits[:, -1, answer[self.step]] += 1e4
            return logits

    model.language_model.lm_head = Said(model.language_model.lm_head)


def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in SIZES]


def test_an_answer_has_words_and_a_mask_for_each_object(ask):
    picture = pictures()[0]
    answer = ask(picture, "Which is red?")
    assert answer["text"] == "the red star and the moon"
    assert [found["label"] for found in answer["objects"]] == ["the red star", "the moon"]
    for found in answer["objects"]:
        assert found["mask"].shape == SIZES[0] and found["mask"].dtype == bool and 0 <= found["score"] <= 1
        rows, columns = found["mask"].any(axis=1).nonzero()[0], found["mask"].any(axis=0).nonzero()[0]
        if found["box"] is not None:
            expected = {"xmin": columns[0], "ymin": rows[0], "xmax": columns[-1] + 1, "ymax": rows[-1] + 1}
            assert found["box"] == expected


def same(one: dict, other: dict) -> bool:
    masks = zip(one["objects"], other["objects"], strict=True)
    return one["text"] == other["text"] and all((a["mask"] != b["mask"]).mean() < 0.01 for a, b in masks)


def test_a_batch_is_answered_as_one_by_one(ask):
    """Pictures of different sizes and questions of different lengths: padding of either kind changes nothing."""
    questions = ["Which is red?", "the moon and the red star, which of the two is it"]
    together = ask(pictures(), questions)
    alone = [ask(picture, question) for picture, question in zip(pictures(), questions)]
    halves = ask(pictures(), questions, batch_size=1)
    assert all(map(same, together, halves)) and all(map(same, halves, alone))


def test_forms_of_input_agree(ask, tmp_path):
    picture = pictures()[0]
    picture.save(tmp_path / "picture.png")
    expected = ask(picture, "Which is red?")
    for given in (
        ask(str(tmp_path / "picture.png"), "Which is red?"),
        ask(tmp_path / "picture.png", "Which is red?"),
        ask(np.asarray(picture), "Which is red?"),
        ask({"image": picture, "question": "Which is red?"}),
        ask([{"image": picture, "question": "Which is red?"}])[0],
        ask(picture, [{"role": "user", "content": "Which is red?"}]),
        ask(picture, ["Which is red?", "none"])[0],
    ):
        assert same(given, expected)


def test_several_questions_about_a_picture_look_at_it_once(ask, monkeypatch):
    seen = []
    get_objects = ask.model.get_objects
    monkeypatch.setattr(
        ask.model, "get_objects", lambda pixels, mask: seen.append(len(pixels)) or get_objects(pixels, mask)
    )
    ask(pictures()[0], ["Which is red?", "none", "Show it."])
    talk = ask.conversation(pictures()[0])
    talk.ask("Which is red?")
    talk.ask("Show it.")
    assert seen == [1, 1]


def test_a_conversation_remembers_what_was_said_and_shown(ask):
    talk = ask.conversation(pictures()[0])
    first = talk.ask("Which is red?")
    assert first["text"] == "the red star and the moon"
    assert talk.messages[-1] == {"role": "assistant", "content": "the red star [SEG] and the moon [SEG]"}
    whole = [*talk.messages, {"role": "user", "content": "Show it."}]
    assert same(talk.ask("Show it."), ask(pictures()[0], whole))


def test_words_are_streamed_and_the_answer_comes_last(ask):
    stream, words = ask.stream(pictures()[0], "Which is red?"), []
    while True:
        try:
            words.append(next(stream))
        except StopIteration as end:
            assert same(end.value, ask(pictures()[0], "Which is red?"))
            break
    assert len(words) > 2 and "".join(words).split() == "the red star and the moon".split()


def test_an_error_in_a_stream_is_raised_where_words_are_taken(ask, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(ask.model, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(ask.stream(pictures()[0], "Which is red?"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.png", "Which?"), "`inputs`: not a picture"),
        ((np.zeros((2, 2), dtype=complex), "Which?"), "`inputs`: not a picture"),
        (({"picture": 1}, "Which?"), '`inputs`: a dictionary needs an "image"'),
    ],
)
def test_a_picture_that_cannot_be_read_is_named(ask, arguments, message):
    with pytest.raises(ValueError, match=message):
        ask(*arguments)


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        ("  ", {}, "`question` must be a text"),
        (None, {}, "`question` must be a text"),
        ([{"role": "assistant", "content": "hello"}], {}, "ends with the user"),
        ("Which?", {"max_new_tokens": 0}, "`max_new_tokens` must be a positive integer"),
        ("Which?", {"threshold": 1.5}, "`threshold` must be a number between 0 and 1"),
        ("Which?", {"top_k": 3}, "Unknown argument 'top_k'"),
    ],
)
def test_what_cannot_be_asked_is_named(ask, question, options, message):
    with pytest.raises(ValueError, match=message):
        ask(pictures()[0], question, **options)


def test_questions_and_pictures_have_to_match(ask):
    with pytest.raises(ValueError, match="3 questions for 2 pictures"):
        ask(pictures(), ["one", "two", "three"])


def test_beams_cannot_be_streamed(ask):
    with pytest.raises(ValueError, match="`num_beams` must be 1 to stream"):
        list(ask.stream(pictures()[0], "Which?", num_beams=2))


def test_a_checkpoint_of_another_system_is_refused(ask, tiny_glee):
    with pytest.raises(ValueError, match="must be a checkpoint of LISA-GLEE; the processor of this one is a GleeProc"):
        ReasoningSegmentationPipeline(model=ask.model, processor=tiny_glee[1], task="reasoning-segmentation")


def test_a_stream_that_nobody_reads_any_more_stops_generating(ask):
    import threading
    import time

    before = set(threading.enumerate())
    head = ask.model.language_model.lm_head
    steps, forward = [], head.forward

    def slow(states):
        steps.append(1)
        time.sleep(0.2)
        return forward(states)

    head.forward = slow
    stream = ask.stream(pictures()[0], "Which is red?")
    next(stream)
    stream.close()
    for worker in set(threading.enumerate()) - before:
        worker.join(30)
    assert len(steps) < 8  # of the answer's nine


def test_pictures_that_are_too_large_are_refused(ask, tmp_path):
    """Not those that are in memory already, or that the bound allows."""
    picture = Image.new("RGB", (40, 30))
    picture.save(tmp_path / "photo.png")
    message = "has 40 x 30 pixels; `max_pixels` allows 1199, and 65535 on a side: make it smaller"
    with pytest.raises(ValueError, match=message):
        ask(tmp_path / "photo.png", "Which is red?", max_pixels=1199)
    with pytest.raises(ValueError, match=message):
        ask.conversation(tmp_path / "photo.png", max_pixels=1199)
    ask(tmp_path / "photo.png", "Which is red?", max_pixels=1200, max_new_tokens=1)
    ask(picture, "Which is red?", max_pixels=1, max_new_tokens=1)
    with pytest.raises(ValueError, match="`max_pixels` must be a positive integer, not 0"):
        ask(picture, "Which is red?", max_pixels=0)


def test_no_program_is_started_for_a_picture(ask, tmp_path, monkeypatch):
    """Pillow has EPS drawn by Ghostscript, whatever the file is called."""
    import base64
    import subprocess

    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    (tmp_path / "photo.png").write_bytes(eps)
    for source in (tmp_path / "photo.png", base64.b64encode(eps).decode()):
        with pytest.raises(ValueError, match="`inputs`: not a picture that can be read: cannot identify"):
            ask(source, "Which is red?")
