"""Parts of recognisers that were trained with ESPnet, worked out anew with loops, and its search by enumeration."""

import itertools
import math

import pytest
import torch

from lookhear import AvsrConfig, AvsrForConditionalGeneration
from lookhear.modeling.avsr.beam_decoding_avsr import SearchSettings
from lookhear.modeling.avsr.generation_avsr import EspnetSearch
from lookhear.modeling.avsr.layers_avsr import RelativePositions
from lookhear.modeling.avsr.text_scores_avsr import CtcScores

VOCAB, FRAMES, EOS = 4, 3, 3


def sinusoid(position: int, size: int) -> torch.Tensor:
    angles = [position * 10000 ** (-2 * n / size) for n in range(size // 2)]
    return torch.tensor([part for angle in angles for part in (math.sin(angle), math.cos(angle))])


@pytest.mark.parametrize("kind", ["relative", "legacy_relative"])
def test_relative_positions_are_those_of_the_formula(kind):
    """Clips of 5 and 3 frames in one batch; the queries are random."""
    lengths, size = (5, 3), 8
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 1, 5, size, generator=generator)
    mask = torch.arange(5)[None] < torch.tensor(lengths)[:, None]
    config = AvsrConfig.usr2(hidden_size=size, num_attention_heads=1, position_type=kind)
    positions = RelativePositions.of(config, query[:, 0], mask)
    scores = positions.arrange(query @ positions.encodings.T)
    for clip, length in enumerate(lengths):
        rows = [sinusoid(4999 - k, size) for k in range(length)]
        for i, j in itertools.product(range(length), repeat=2):
            if kind == "relative":
                expected = query[clip, 0, i] @ sinusoid(i - j, size)
            elif j <= i:
                expected = query[clip, 0, i] @ rows[length - 1 - i + j]
            else:  # the next frame's query, as the older code has it
                expected = query[clip, 0, i + 1] @ rows[j - i - 2] if j > i + 1 else torch.tensor(0.0)
            torch.testing.assert_close(scores[clip, 0, i, j], expected, atol=2e-3, rtol=0)


def test_older_positions_end_somewhere():
    config = AvsrConfig.usr2(hidden_size=8, num_attention_heads=1, position_type="legacy_relative")
    with pytest.raises(ValueError, match="5001 frames.*reach 5000"):
        RelativePositions.of(config, torch.zeros(1, 5001, 8), torch.ones(1, 5001, dtype=torch.bool))


class Bigrams:
    """A decoder whose logits depend on the newest label only."""

    def __init__(self, logits: torch.Tensor):
        self.logits = logits

    def __call__(self, labels: torch.Tensor) -> torch.Tensor:
        return self.logits[labels]

    def advance(self, parents: torch.Tensor, labels: torch.Tensor) -> None:
        pass


def ctc_probability(log_probs: torch.Tensor, text: tuple[int, ...]) -> float:
    """The probability of all paths that spell the text, one by one."""
    total = 0.0
    for path in itertools.product(range(VOCAB), repeat=FRAMES):
        spelled = tuple(label for label, _ in itertools.groupby(path) if label != 0)
        if spelled == text:
            total += math.exp(sum(float(log_probs[frame, label]) for frame, label in enumerate(path)))
    return total


@pytest.mark.parametrize("bonus", [0.0, 1.5])
def test_with_room_for_all_texts_the_search_finds_the_best(bonus):
    """All texts of up to three labels, their scores by definition: at the frames' number they end at no cost."""
    generator = torch.Generator().manual_seed(3)
    decoder, ctc = (torch.randn(size, VOCAB, generator=generator) for size in (VOCAB, FRAMES))
    steps, log_probs, weight = decoder.log_softmax(-1), ctc.log_softmax(-1), 0.3
    scored = []
    for length in range(FRAMES + 1):
        for text in itertools.product((1, 2), repeat=length):
            score = sum(float(steps[a, b]) for a, b in itertools.pairwise((EOS, *text)))
            probability = ctc_probability(log_probs, text)
            if not probability:
                continue
            if length < FRAMES - 1:  # ends with a step of its own
                score, labels = score + float(steps[text[-1] if text else EOS, EOS]), length + 1
                scored.append(((1 - weight) * score + weight * math.log(probability) + bonus * labels, text, 1))
            elif length == FRAMES:
                scored.append(((1 - weight) * score + weight * math.log(probability) + bonus * FRAMES, text, 1))
            else:  # in the last step: EOS, and one more at no cost
                score += float(steps[text[-1], EOS])
                scored.append(((1 - weight) * score + weight * math.log(probability) + bonus * FRAMES, text, 2))
    scored.sort(reverse=True)
    settings = SearchSettings(
        start=EOS,
        blank=0,
        eos=EOS,
        ctc_weight=weight,
        beams=40,
        texts=4,
        steps=FRAMES + 1,
        early_stopping="never",
        length_bonus=bonus,
    )
    lengths = torch.tensor([FRAMES])
    search = EspnetSearch(Bigrams(decoder), lengths, settings, CtcScores(ctc[None], lengths, 40, blank=0, eos=EOS))
    search.run()
    texts, scores, _ = search.found()
    for row, found, (wanted, text, ends) in zip(texts.tolist(), scores.tolist(), scored):
        expected = [EOS, *text, *[EOS] * ends]
        assert row[: len(expected)] == expected and not any(row[len(expected) :])
        assert found == pytest.approx(wanted, abs=1e-4)


@torch.no_grad()
def test_each_clip_has_the_heads_of_what_it_has(make_model, make_clips, make_batch):
    """Two clips with both, one with lips, one with sound: each as the heads of its modality score it alone."""
    model = make_model("usr2")
    batch = make_batch(make_clips())
    batch.pop("labels")
    encoded = model.get_encoder()(**batch)
    assert encoded.modalities.tolist() == [2, 2, 1, 0]
    logits = model.compute_ctc_logits(encoded)
    for clip, name in enumerate(("audiovisual", "audiovisual", "visual", "audio")):
        expected = model.ctc_head.heads[name](encoded.last_hidden_state[clip : clip + 1], None)[0]
        torch.testing.assert_close(logits[clip], expected)
    heads = model.ctc_head.heads.values()
    assert len({float(head.output.weight.detach().sum()) for head in heads}) == 3


@torch.no_grad()
def test_sound_and_lips_of_unequal_length(make_model, make_clips, make_batch):
    """The sound is as long as the lips then: longer sound is cut, shorter sound goes on as silence."""
    model, clips = make_model("usr2"), make_clips()
    wave, lips = clips[0]
    exact = make_batch([(wave, lips)], (1,))
    longer = make_batch([(torch.cat((torch.from_numpy(wave), torch.ones(900))).numpy(), lips)], (1,))
    shorter = make_batch([(wave[:3000], lips)], (1,))
    silent = make_batch([(torch.nn.functional.pad(torch.from_numpy(wave[:3000]), (0, 3400)).numpy(), lips)], (1,))
    states = [
        model.get_encoder()(**{k: v for k, v in one.items() if k != "labels"})
        for one in (exact, longer, shorter, silent)
    ]
    exact, longer, shorter, silent = (one.last_hidden_state[one.frame_mask] for one in states)
    torch.testing.assert_close(longer, exact)
    torch.testing.assert_close(shorter, silent)
    assert not torch.allclose(exact, shorter)


def test_presets_have_the_published_sizes():
    with torch.device("meta"):
        model = AvsrForConditionalGeneration(AvsrConfig.usr2("base"))
    assert sum(parameter.numel() for parameter in model.parameters()) == 86_072_534
    with pytest.raises(ValueError, match="size must be one of"):
        AvsrConfig.usr2("small")
    with pytest.raises(ValueError, match="modality must be"):
        AvsrConfig.auto_avsr("audiovisual")


MODEL_JSON = {
    "adim": 8,
    "aheads": 2,
    "eunits": 16,
    "elayers": 1,
    "dunits": 12,
    "dlayers": 1,
    "macaron_style": True,
    "use_cnn_module": True,
    "cnn_module_kernel": 5,
    "transformer_input_layer": "conv3d",
    "transformer_encoder_attn_layer_type": "rel_mha",
    "rel_pos_type": "latest",
    "mtlalpha": 0.1,
    "char_list": ["<blank>", "<unk>", "<space>", "A", "B", "<eos>"],
}


def test_model_json_is_read():
    config = AvsrConfig.vsr_ml([0, 6, MODEL_JSON])
    assert (config.modality, config.position_type, config.vocab_size) == ("visual", "relative", 6)
    assert (config.decoder_ffn_dim, config.eos_token_id, config.encoder_layer_type) == (12, 5, "conformer")
    without = {name: value for name, value in MODEL_JSON.items() if name != "rel_pos_type"}
    assert AvsrConfig.vsr_ml(without).position_type == "legacy_relative"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mtlalpha": 0}, "mtlalpha must be between 0 and 1"),
        ({"relu_type": "prelu"}, "relu_type must be one of"),
        ({"zero_triu": True}, "zero_triu must be one of"),
        ({"aheads": None}, "the field aheads is missing"),
        ({"transformer_input_layer": "linear"}, "transformer_input_layer must be one of"),
    ],
)
def test_a_model_json_that_is_not_known_is_refused(change, message):
    with pytest.raises(ValueError, match=f"^model.json: .*{message}"):
        AvsrConfig.vsr_ml(MODEL_JSON | change)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fusion": "projection"}, "front_end must be 'resnet' or 'spectrogram'"),
        ({"modality_heads": True}, "modality_heads needs fusion='projection'"),
        ({"fusion": "mlp", "modality": "visual"}, "modality must be 'audiovisual'"),
        ({"encoder_layer_type": "conformer"}, "norm_first must be True"),
        ({"position_type": "rotary"}, "position_type must be one of"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        AvsrConfig(**fields)


def test_a_model_of_both_refuses_one_alone(make_batch, make_clips):
    config = AvsrConfig.vsr_ml(
        MODEL_JSON
        | {f"aux_{name}": value for name, value in MODEL_JSON.items() if name in AUX}
        | {"fusion_hdim": 10, "fusion_norm": "batchnorm"},
        visual_config={"crop_size": 16, **TINY_RESNET, "layer_type": "basic"},
        audio_config={"front_end": "resnet", **TINY_RESNET},
    )
    model = AvsrForConditionalGeneration(config).eval()
    batch = make_batch(make_clips()[:2], (1, 1))
    batch.pop("labels")
    assert model(**batch).logits.shape == (2, 1, 6)
    batch["attention_mask"][1] = 0
    with pytest.raises(ValueError, match="input_values: this model reads sound and lips together"):
        model(**batch)


AUX = ("adim", "aheads", "eunits", "elayers", "macaron_style", "use_cnn_module", "cnn_module_kernel")
AUX += ("transformer_encoder_attn_layer_type",)
TINY_RESNET = {"stem_channels": 4, "hidden_sizes": (4, 4, 8, 8), "depths": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"search": "beam"}, "search must be one of"),
        ({"length_bonus": 0.5}, "length_bonus is for search='espnet'"),
        ({"search": "espnet", "do_sample": True}, "`do_sample` is for search='joint'"),
        ({"search": "espnet", "num_beams": 3, "length_penalty": 1.0}, "`length_penalty` is for search='joint'"),
        ({"search": "espnet", "ctc_prefix": "reference"}, "ctc_prefix must be 'exact'"),
    ],
)
def test_arguments_of_the_other_search_are_refused(make_model, make_clips, make_batch, wrong, message):
    model, batch = make_model("conformer"), make_batch(make_clips("visual"))
    batch.pop("labels")
    with pytest.raises(ValueError, match=message):
        model.generate(**batch, **wrong)


@torch.no_grad()
def test_the_published_search_does_not_depend_on_the_batch(make_model, make_clips, make_batch):
    model, clips = make_model("conformer"), make_clips("visual")
    settings = {"search": "espnet", "num_beams": 4, "num_return_sequences": 3, "ctc_weight": 0.3}
    settings |= {"return_dict_in_generate": True}
    together = make_batch(clips)
    together.pop("labels")
    found = model.generate(**together, **settings)
    for clip, pair in enumerate(clips):
        alone = make_batch([pair], (1,))
        alone.pop("labels")
        one = model.generate(**alone, **settings)
        rows = slice(3 * clip, 3 * clip + 3)
        torch.testing.assert_close(one.sequences_scores, found.sequences_scores[rows], atol=1e-4, rtol=1e-4)
        width = one.sequences.shape[1]
        assert torch.equal(one.sequences, found.sequences[rows, :width])
        assert not found.sequences[rows, width:].any()
