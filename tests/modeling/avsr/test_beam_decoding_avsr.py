"""What the decoder gives in a beam search is what it gives without."""

import pytest
import torch

from lookhear.modeling.avsr.beam_decoding_avsr import (
    FIRST_CAPACITY,
    AvsrBeamCache,
    SharedKeysDecoder,
)
from lookhear.modeling.avsr.generation_avsr import JointSearch
from lookhear.modeling.avsr.layers_avsr import in_blocks
from lookhear.modeling.avsr.modeling_avsr import AvsrEncoderOutput
from lookhear.modeling.avsr.text_scores_avsr import ForwardDecoder, rows_of
from tests.modeling.avsr.conftest import build_model

BEAMS = 3


def encoded_clips(model, lengths=(9, 5)):
    """Two encoded clips of different length."""
    torch.manual_seed(1)
    states = torch.randn(len(lengths), max(lengths), model.config.hidden_size)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return AvsrEncoderOutput(last_hidden_state=states, frame_mask=mask)


@pytest.mark.parametrize("lengths", [(9, 5), (7, 7)], ids=["padded", "equal"])
@pytest.mark.parametrize("variant", ["spectrogram", "grid"])
def test_a_step_is_the_last_place_of_a_whole_pass(variant, lengths):
    """Beams are split and dropped at random for more steps than the first buffers hold."""
    model = build_model(variant)
    encoded = encoded_clips(model, lengths)
    each = {name: part.repeat_interleave(BEAMS, dim=0) for name, part in encoded.items()}
    heard = {"encoder_hidden_states": each["last_hidden_state"], "encoder_attention_mask": each["frame_mask"]}
    rows = 2 * BEAMS
    beams, texts = AvsrBeamCache(BEAMS), torch.zeros(rows, 0, dtype=torch.long)
    for _ in range(FIRST_CAPACITY + 8):
        texts = torch.cat((texts, torch.randint(1, model.config.vocab_size, (rows, 1))), dim=1)
        stepped = model.get_decoder().step(texts[:, -1].view(2, BEAMS), beams, *encoded.values())
        with torch.no_grad():
            whole = model.get_decoder()(texts, **heard)
        torch.testing.assert_close(stepped.flatten(0, 1), whole.last_hidden_state[:, -1], atol=1e-5, rtol=1e-4)
        parents = torch.randint(0, BEAMS, (2, BEAMS))
        texts = texts[rows_of(parents)]
        beams.reorder(parents)
    assert beams.steps == FIRST_CAPACITY + 8


@pytest.fixture
def decoders(monkeypatch) -> list[type]:
    """The decoder that each search ran with."""
    kinds, make = [], JointSearch.__init__

    def noted(self, decoder, *args, **kwargs):
        kinds.append(type(decoder))
        make(self, decoder, *args, **kwargs)

    monkeypatch.setattr(JointSearch, "__init__", noted)
    return kinds


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
def test_the_search_finds_the_same_as_with_the_usual_cache(decoders, attention, ctc_weight):
    model = build_model(attention=attention)
    asked = {"num_beams": 4, "num_return_sequences": 3, "ctc_weight": ctc_weight, "max_new_tokens": 12}
    asked |= {"return_dict_in_generate": True, "output_scores": True}
    ours = model.generate(encoder_outputs=encoded_clips(model), **asked)
    assert decoders == [SharedKeysDecoder]
    usual = model.generate(encoder_outputs=encoded_clips(model), cache_implementation="dynamic", **asked)
    assert decoders == [SharedKeysDecoder, ForwardDecoder]
    assert torch.equal(ours.sequences, usual.sequences)
    torch.testing.assert_close(ours.sequences_scores, usual.sequences_scores, atol=1e-4, rtol=1e-5)


def test_what_it_cannot_give_is_computed_without_it(decoders):
    model = build_model(attention="eager")
    found = model.generate(
        encoder_outputs=encoded_clips(model), num_beams=2, output_attentions=True, return_dict_in_generate=True
    )
    assert found.cross_attentions[0][0].shape[-1] == 9  # frames
    assert decoders == [ForwardDecoder]


def test_what_is_found_is_an_ordinary_tensor():
    model = build_model()
    found = model.generate(
        encoder_outputs=encoded_clips(model), num_beams=2, return_dict_in_generate=True, output_scores=True
    )
    assert not any(tensor.is_inference() for tensor in (found.sequences, found.sequences_scores, *found.scores))


@pytest.mark.parametrize("shape", [(1, 5, 16), (2, 8, 16)])
def test_linear_layers_in_blocks_are_linear_layers(shape):
    layers, rows = [torch.nn.Linear(16, 24), torch.nn.Linear(16, 8)], torch.randn(shape)
    with torch.no_grad():
        expected = [layer(rows) for layer in layers]
        torch.testing.assert_close(in_blocks(shape[0] * shape[1], layers[0])(rows), expected[0])
        joined = in_blocks(shape[0] * shape[1], *layers)(rows)
        torch.testing.assert_close(joined, torch.cat(expected, dim=-1))


def test_blocks_only_where_they_help():
    layer = torch.nn.Linear(16, 24)
    assert in_blocks(1, layer) is None and in_blocks(40, layer) is None
    assert in_blocks(5, torch.nn.Linear(16, 25)) is None and in_blocks(5, torch.nn.Linear(16, 24, bias=False)) is None


def test_layers_that_are_more_than_their_weights_are_called():
    """As adapters make them."""

    class Adapted(torch.nn.Linear):
        def forward(self, rows):
            return super().forward(rows) + 1.0

    model, clips = build_model(), encoded_clips(build_model())
    asked = {"num_beams": 4, "max_new_tokens": 8, "return_dict_in_generate": True, "output_scores": True}
    for layer in model.get_decoder().layers:
        layer.self_attn.v_proj.__class__ = layer.feed_forward.fc2.__class__ = Adapted
    ours = model.generate(encoder_outputs=clips, **asked)
    usual = model.generate(encoder_outputs=clips, cache_implementation="dynamic", **asked)
    assert torch.equal(ours.sequences, usual.sequences)
    torch.testing.assert_close(ours.sequences_scores, usual.sequences_scores, atol=1e-4, rtol=1e-5)
