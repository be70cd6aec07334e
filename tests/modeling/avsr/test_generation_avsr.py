"""What `generate` takes from transformers: generation configs, outputs, sampling, processors, criteria, streamers."""

import itertools
import logging
import warnings

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessor
from transformers.generation import GenerateBeamEncoderDecoderOutput, GenerateEncoderDecoderOutput, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from tests.modeling.avsr.conftest import build_model
from tests.modeling.avsr.test_beam_decoding_avsr import encoded_clips
from tests.modeling.avsr.test_joint_search_avsr import Problems, letters

DICT = {"return_dict_in_generate": True, "output_scores": True}


@pytest.fixture(scope="module")
def model():
    return build_model()


@pytest.fixture
def clips(model):
    return encoded_clips(model)


def said(caplog):
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_generation_config_that_is_passed_is_what_counts(model, clips, weight, caplog):
    """As arguments say it, without a word, and it stays as it was."""
    asked = {"num_beams": 4, "num_return_sequences": 3, "max_new_tokens": 5, "length_penalty": 2.0, **DICT}
    by_arguments = model.generate(encoder_outputs=clips, ctc_weight=weight, **asked)
    config = GenerationConfig(**asked)
    with warnings.catch_warnings(action="error"):
        by_config = model.generate(encoder_outputs=clips, ctc_weight=weight, generation_config=config)
    assert torch.equal(by_arguments.sequences, by_config.sequences)
    assert torch.equal(by_arguments.sequences_scores, by_config.sequences_scores)
    assert by_config.sequences.shape[0] == 6 and by_config.sequences.shape[1] <= 6
    assert said(caplog) == []
    assert config.to_diff_dict() == GenerationConfig(**asked).to_diff_dict()


def test_what_a_passed_config_leaves_open_is_the_models(model, clips):
    model.generation_config.ctc_weight = 0.8
    try:
        expected = model.generate(encoder_outputs=clips, num_beams=3, **DICT).sequences_scores
        found = model.generate(encoder_outputs=clips, generation_config=GenerationConfig(num_beams=3, **DICT))
        mixed = model.generate(
            encoder_outputs=clips, generation_config=GenerationConfig(num_beams=2), num_beams=3, **DICT
        )
    finally:
        del model.generation_config.ctc_weight
    assert torch.equal(found.sequences_scores, expected) and torch.equal(mixed.sequences_scores, expected)


@pytest.mark.parametrize("search", [{}, {"num_beams": 1}, {"num_beams": 4}, {"num_beams": 1, "ctc_weight": 1.0}])
def test_nothing_is_said_that_nobody_asked_for(model, clips, search, caplog):
    with warnings.catch_warnings(action="error"):
        model.generate(encoder_outputs=clips, **search)
    assert said(caplog) == []


@pytest.mark.parametrize("penalty", [-1.0, 0.5, 2.0])
def test_a_length_penalty_divides_the_scores_of_all_texts(table_reader, penalty):
    """Against all texts; the search may end early."""
    problems = Problems(count=8, steps=3, vocab=5, seed=int(10 * penalty) + 20)
    model, encoded = table_reader(problems.next_label, problems.ctc, problems.lengths)
    found = model.generate(encoder_outputs=encoded, num_beams=27, ctc_weight=0.3, length_penalty=penalty, **DICT)
    whole = model.generate(
        encoder_outputs=encoded, num_beams=27, ctc_weight=0.3, length_penalty=penalty, early_stopping="never", **DICT
    )
    assert torch.equal(found.sequences_scores, whole.sequences_scores)
    for clip, length in enumerate(problems.lengths.tolist()):
        texts = itertools.chain(*(itertools.product(problems.letters, repeat=size) for size in range(length + 1)))
        score, best = max((problems.score(clip, text, 0.3) / (len(text) + 1) ** penalty, text) for text in texts)
        assert letters(found.sequences[clip], problems.eos) == best
        assert float(found.sequences_scores[clip]) == pytest.approx(score, abs=1e-4)


def test_early_stopping_ends_with_as_many_texts_as_beams(table_reader):
    problems = Problems(count=20, steps=12, vocab=6, seed=3)
    problems.lengths[:] = 12
    model, encoded = table_reader(problems.next_label, problems.ctc, problems.lengths)
    search = {"encoder_outputs": encoded, "num_beams": 3, "num_return_sequences": 3, "ctc_weight": 0.2, **DICT}
    soon = model.generate(early_stopping=True, **search)
    assert len(soon.scores) == 2  # one beam ends in the first step, three in the second
    assert (soon.sequences_scores > -torch.inf).all()


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_scores_of_the_steps_add_up_to_those_of_the_texts(attention, num_beams):
    """By transformers' own `compute_transition_scores`."""
    model = build_model(attention=attention)
    found = model.generate(encoder_outputs=encoded_clips(model), num_beams=num_beams, ctc_weight=0.3, **DICT)
    assert type(found) is (GenerateBeamEncoderDecoderOutput if num_beams > 1 else GenerateEncoderDecoderOutput)
    indices = found.get("beam_indices")
    steps = model.compute_transition_scores(found.sequences, found.scores, indices)
    ended = (found.sequences[:, 1:] == model.config.pad_token_id)[:, : steps.shape[1]]
    total = steps.masked_fill(ended, 0.0).sum(dim=1)
    if num_beams > 1:
        torch.testing.assert_close(total, found.sequences_scores, atol=1e-4, rtol=1e-4)
    assert (total < 0).all()


def test_attentions_and_hidden_states_of_both_sides_are_returned(make_clips, make_batch):
    model, batch = build_model(attention="eager"), make_batch(make_clips()[:2])
    del batch["labels"]
    asked = {"output_attentions": True, "output_hidden_states": True, "return_dict_in_generate": True}
    for num_beams in (1, 3):
        found = model.generate(**batch, num_beams=num_beams, ctc_weight=0.3, **asked)
        assert found.encoder_attentions and found.encoder_hidden_states
        steps = len(found.decoder_attentions)
        assert steps == len(found.cross_attentions) == len(found.decoder_hidden_states)
        assert found.decoder_attentions[0][0].shape[0] == 2 * num_beams
        assert len(found.decoder_attentions[0]) == model.config.decoder_layers
    greedy = model.generate(**batch, num_beams=1, ctc_weight=1.0, **asked)
    assert greedy.encoder_attentions and greedy.encoder_hidden_states and greedy.sequences.shape[0] == 2


def test_greedy_ctc_honours_what_is_asked(model, clips):
    plain = model.generate(encoder_outputs=clips, num_beams=1, ctc_weight=1.0)
    found = model.generate(encoder_outputs=clips, num_beams=1, ctc_weight=1.0, return_dict_in_generate=True)
    assert type(found) is GenerateEncoderDecoderOutput and torch.equal(found.sequences, plain)
    short = model.generate(encoder_outputs=clips, num_beams=1, ctc_weight=1.0, max_new_tokens=2)
    assert torch.equal(short, plain[:, :3])


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_samples_follow_the_joint_probabilities(table_reader, weight):
    """3000 draws of the first label beside its probability; logits processors have their say."""
    problems = Problems(count=1, steps=3, vocab=5, seed=2, spread=1.0)
    problems.lengths[:] = 3
    model, encoded = table_reader(problems.next_label, problems.ctc, problems.lengths)
    torch.manual_seed(0)
    found = model.generate(
        encoder_outputs=encoded, do_sample=True, num_return_sequences=3000, ctc_weight=weight, top_k=0, **DICT
    )
    assert found.sequences.shape[0] == 3000
    probabilities = found.scores[0][0].softmax(dim=-1)  # of the first label, after the start token
    counts = torch.bincount(found.sequences[:, 1], minlength=5) / 3000
    assert counts.tolist() == pytest.approx(probabilities.tolist(), abs=0.04)
    assert probabilities.max() < 0.95  # it could fail


@pytest.mark.parametrize("num_beams", [1, 3])
def test_samples_can_be_had_again(model, clips, num_beams):
    asked = {"encoder_outputs": clips, "do_sample": True, "num_beams": num_beams, "ctc_weight": 0.2}
    texts = []
    for seed in (0, 0, 1, 2, 3):
        torch.manual_seed(seed)
        texts.append(model.generate(**asked).tolist())
    assert texts[0] == texts[1] and any(text != texts[0] for text in texts[2:])


@pytest.mark.parametrize("num_beams", [1, 3])
def test_processors_and_prefixes_change_what_is_found(model, clips, num_beams):
    class Forbid(LogitsProcessor):
        def __call__(self, input_ids, scores):
            assert len(input_ids) == len(scores) == 2 * num_beams
            scores = scores.clone()
            scores[:, 7] = -torch.inf
            return scores

    free = model.generate(encoder_outputs=clips, num_beams=num_beams, ctc_weight=0.3, min_new_tokens=6)
    banned = int(free[0, 2])
    without = model.generate(
        encoder_outputs=clips, num_beams=num_beams, ctc_weight=0.3, min_new_tokens=6, suppress_tokens=[banned]
    )
    assert banned in free and banned not in without
    assert 7 not in model.generate(encoder_outputs=clips, num_beams=num_beams, logits_processor=[Forbid()])
    begins = model.generate(
        encoder_outputs=clips,
        num_beams=num_beams,
        prefix_allowed_tokens_fn=lambda clip, ids: [3 + clip] if len(ids) == 1 else list(range(40)),
    )
    assert begins[:, 1].tolist() == [3, 4]


@pytest.mark.parametrize("search", [{}, {"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2}])
def test_outputs_are_those_of_transformers_generation_tests(model, clips, search):
    """Three labels, no more and no less; invalid scores made valid; a cache that holds all but the last label."""
    eager = build_model(attention="eager")
    asked = {"max_new_tokens": 3, "min_new_tokens": 3, "remove_invalid_values": True, "repetition_penalty": 1.2}
    asked |= {
        "output_attentions": True,
        "output_hidden_states": True,
        "output_logits": True,
        "use_cache": True,
        **DICT,
    }
    found = eager.generate(encoder_outputs=clips, bad_words_ids=[[1, 0]], **asked, **search)
    rows = 2 * max(search.get("num_beams", 1), search.get("num_return_sequences", 1))
    assert found.sequences.shape == (4 if "num_return_sequences" in search else 2, 4)
    assert not (found.sequences[:, 1:] == model.config.eos_token_id).any()
    assert [part.shape for part in (*found.scores, *found.logits)] == [(rows, model.config.vocab_size)] * 6
    cache = found.get("cache") or found.get("past_key_values")
    assert cache.self_attention_cache.get_seq_length() == 3
    for step, layers in enumerate(found.decoder_attentions):
        heads = model.config.num_attention_heads
        assert [layer.shape for layer in layers] == [(rows, heads, 1, step + 1)] * model.config.decoder_layers


@pytest.mark.parametrize("num_beams", [1, 3])
def test_criteria_end_texts_as_they_are(model, clips, num_beams):
    class ThreeLabels(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.full((len(input_ids),), input_ids.shape[1] >= 4)

    asked = {"num_beams": num_beams, "ctc_weight": 0.3, "min_new_tokens": 5}
    found = model.generate(encoder_outputs=clips, stopping_criteria=[ThreeLabels()], **asked)
    assert found.shape == (2, 4) and not (found[:, 1:] == model.config.eos_token_id).any()


def test_a_streamer_is_given_each_label(model):
    class Collect(BaseStreamer):
        def __init__(self):
            self.ids, self.ended = [], False

        def put(self, value):
            self.ids += value.tolist()

        def end(self):
            self.ended = True

    clip, streamer = encoded_clips(model, lengths=(9,)), Collect()
    found = model.generate(encoder_outputs=clip, num_beams=1, ctc_weight=0.3, streamer=streamer)
    assert streamer.ids == found[0].tolist() and streamer.ended
    with pytest.raises(ValueError, match="streamer"):
        model.generate(encoder_outputs=clip, num_beams=2, streamer=streamer)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("assistant_model", "model"),
        ("prompt_lookup_num_tokens", 3),
        ("guidance_scale", 2.0),
        ("penalty_alpha", 0.6),
        ("num_beam_groups", 2),
        ("decoder_input_ids", torch.ones(2, 2, dtype=torch.long)),
        ("cache", object()),
        ("past_key_values", object()),
        ("cache_implementation", "static"),
        ("synced_gpus", True),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(model, clips, name, value):
    value = model if value == "model" else value
    with pytest.raises(ValueError, match=f"`{name}`") as refused:
        model.generate(encoder_outputs=clips, **{name: value})
    assert "\n" not in str(refused.value)


def test_a_typing_error_is_named(model, clips):
    with pytest.raises(ValueError, match="numbeams"):
        model.generate(encoder_outputs=clips, numbeams=3)


def test_inputs_is_another_name_of_the_sound(make_clips, make_batch):
    model, batch = build_model(), make_batch(make_clips()[:2])
    sound = {"attention_mask": batch["attention_mask"]}
    named = model.generate(input_values=batch["input_values"], **sound)
    assert torch.equal(model.generate(inputs=batch["input_values"], **sound), named)


def test_a_text_that_cannot_be_found_is_empty(table_reader):
    """Of one CTC step and three labels there are four texts."""
    problems = Problems(count=1, steps=1, vocab=5, seed=0)
    model, encoded = table_reader(problems.next_label, problems.ctc, [1])
    found = model.generate(encoder_outputs=encoded, num_beams=6, num_return_sequences=6, ctc_weight=0.5, **DICT)
    assert (found.sequences_scores > -torch.inf).tolist() == [True] * 4 + [False] * 2
    assert [letters(row, 4) for row in found.sequences[4:]] == [(), ()]
