"""Two passes: CTC's beam against brute force and plain loops, and the joint score of its texts against all texts."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from lookhear.modeling.avsr.two_pass_avsr import AvsrTextTree, TextDecoder, best_texts, ctc_scores_of
from tests.modeling.avsr.conftest import build_model
from tests.modeling.avsr.test_beam_decoding_avsr import encoded_clips
from tests.modeling.avsr.test_decoding_avsr import BLANK, EOS, SEARCH, all_texts, letters, text_probabilities


def rows(found, clip):
    """Pairs of text and score of one clip, without those that don't exist."""
    ids, sizes, scores = found.ids[clip].tolist(), found.sizes[clip].tolist(), found.scores[clip].tolist()
    return [(tuple(row[:size]), score) for row, size, score in zip(ids, sizes, scores) if score > -math.inf]


def silent(log_probs, eos):
    """EOS's share goes to blank, as a plain formula."""
    probs = log_probs.exp().clone()
    probs[..., BLANK] += probs[..., eos]
    probs[..., eos] = 0.0
    return probs.numpy()


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_of_all_texts_is_brute_force(seed):
    """Five clips of 1 to 5 steps in one batch; some nearly certain, some nearly uniform; repeated labels."""
    generator = np.random.default_rng(seed)
    vocab, lengths = int(generator.integers(3, 5)), generator.permutation(5) + 1
    logits = torch.from_numpy(generator.choice([0.1, 2.0, 9.0]) * generator.normal(size=(5, 5, vocab)))
    log_probs = logits.log_softmax(dim=-1)
    found = best_texts(logits, torch.from_numpy(lengths), 80, 5, BLANK, vocab - 1, certain=1.0)
    for clip, length in enumerate(lengths):
        table = text_probabilities(silent(log_probs[clip, :length], vocab - 1))
        expected = sorted(((p, text) for text, p in table.items() if p > 0), reverse=True)
        texts = rows(found, clip)
        assert {text for text, _ in texts} == {text for _, text in expected} and len(texts) == len(expected)
        for text, score in texts:
            assert score == pytest.approx(math.log(table[text]), abs=1e-9)
        assert [score for _, score in texts] == sorted((score for _, score in texts), reverse=True)


def plain_beam(log_probs, beams):
    """The same search with dictionaries and loops: `(steps, vocab)` -> pairs of text and score."""

    def add(table, prefix, place, value):
        parts = table.setdefault(prefix, [-math.inf, -math.inf])
        parts[place] = np.logaddexp(parts[place], value)

    table = {(): [0.0, -math.inf]}  # ends in blank, ends in the last label
    for row in log_probs:
        new = {}
        for prefix, (in_blank, in_label) in table.items():
            total = np.logaddexp(in_blank, in_label)
            add(new, prefix, 0, total + row[BLANK])
            for label in range(1, len(row)):
                if prefix and label == prefix[-1]:
                    add(new, prefix, 1, in_label + row[label])
                    add(new, (*prefix, label), 1, in_blank + row[label])
                else:
                    add(new, (*prefix, label), 1, total + row[label])
        best = sorted(new.items(), key=lambda entry: -np.logaddexp(*entry[1]))[:beams]
        table = dict(best)
    return [(prefix, float(np.logaddexp(*parts))) for prefix, parts in table.items()]


@pytest.mark.parametrize("beams", [1, 3, 10])
def test_a_narrow_beam_is_the_plain_loop(beams):
    """40 steps, so that prefixes fall out of the beam and come back; alone and in a batch with a longer clip."""
    generator = torch.Generator().manual_seed(beams)
    logits = 2 * torch.randn(4, 40, 6, generator=generator, dtype=torch.float64)
    logits[..., BLANK] += 2
    lengths = torch.tensor([40, 31, 40, 22])
    found = best_texts(logits, lengths, beams, 40, BLANK, 5, certain=1.0)
    for clip, length in enumerate(lengths.tolist()):
        log_probs = np.log(silent(logits[clip, :length].log_softmax(dim=-1), 5)[:, :5])
        expected = plain_beam(log_probs, beams)
        assert [text for text, _ in rows(found, clip)] == [text for text, _ in expected]
        assert [score for _, score in rows(found, clip)] == pytest.approx([score for _, score in expected], abs=1e-9)
        alone = best_texts(logits[clip : clip + 1, :length], lengths[clip : clip + 1], beams, 40, BLANK, 5)
        assert [text for text, _ in rows(alone, 0)] == [text for text, _ in expected]


def test_steps_of_certain_silence_are_passed_over(monkeypatch):
    """Two equal letters with nothing but certain silence between them are two; scores hardly change."""
    path = torch.tensor([[0, 0, 0, 1, 1, 0, 0, 0, 1, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0]] * 2)
    logits = 9.0 * torch.nn.functional.one_hot(path, 6).double()
    logits[:, 9, 3] += 8.5  # the only doubt
    lengths = torch.tensor([20, 14])
    steps = []
    from lookhear.modeling.avsr.two_pass_avsr import CtcPrefixBeam

    advance = CtcPrefixBeam.advance
    monkeypatch.setattr(CtcPrefixBeam, "advance", lambda self, row: (steps.append(1), advance(self, row)))
    whole = best_texts(logits, lengths, 4, 20, BLANK, 5, certain=1.0)
    assert len(steps) == 20
    steps.clear()
    short = best_texts(logits, lengths, 4, 20, BLANK, 5)
    assert len(steps) == 9  # 5 letters and 4 runs of silence
    assert [text for text, _ in rows(short, 0)[:2]] == [(1, 1, 2, 3), (1, 1, 3, 3)]
    assert [text for text, _ in rows(short, 1)[:2]] == [(1, 1, 2), (1, 1, 3)]
    for clip in range(2):
        assert [text for text, _ in rows(whole, clip)[:2]] == [text for text, _ in rows(short, clip)[:2]]
        assert rows(short, clip)[0][1] == pytest.approx(rows(whole, clip)[0][1], abs=0.01)


def test_no_text_is_longer_than_it_may_be():
    """With room for two labels the best texts are those of at most two, and empty places stay empty."""
    logits = 3 * torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(5)).double()
    lengths = torch.tensor([6, 6, 1])
    found = best_texts(logits, lengths, 50, 2, BLANK, 3, certain=1.0)
    for clip, count in enumerate((7, 7, 3)):  # (), 2 texts of one letter, 4 of two
        table = text_probabilities(silent(logits[clip, : lengths[clip]].log_softmax(dim=-1), 3))
        texts = rows(found, clip)
        assert len(texts) == count and all(score <= math.log(table[text]) + 1e-9 for text, score in texts)
    assert not best_texts(logits, lengths, 5, 0, BLANK, 3).sizes.any()


def test_scores_of_whole_texts_are_sums_over_all_alignments():
    logits = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    lengths, texts = torch.tensor([5, 3]), [(1, 2), (), (2, 2)]
    labels = torch.zeros(2, 3, 2, dtype=torch.long)
    for place, text in enumerate(texts):
        labels[:, place, : len(text)] = torch.tensor(text, dtype=torch.long)
    sizes = torch.tensor([[2, 0, 2]] * 2)
    found = ctc_scores_of(logits, lengths, labels, sizes, BLANK)
    for clip, length in enumerate(lengths.tolist()):
        table = text_probabilities(logits[clip, :length].double().softmax(dim=-1).numpy())
        assert found[clip].exp().tolist() == pytest.approx([table[text] for text in texts], rel=1e-5)
    empty = ctc_scores_of(logits, lengths, labels[..., :0], torch.zeros(2, 3, dtype=torch.long), BLANK)
    torch.testing.assert_close(empty, found[:, 1:2].expand(-1, 3))


TEXTS = torch.tensor(
    [[[9, 3, 4, 5, 6], [9, 3, 4, 7, 0], [9, 0, 0, 0, 0]], [[9, 3, 3, 0, 0], [9, 3, 0, 0, 0], [9, 4, 3, 3, 3]]]
)
SIZES = torch.tensor([[5, 4, 1], [3, 2, 5]])


def test_a_tree_holds_each_prefix_once():
    """Texts of one clip share start token and prefixes; a node sees its own prefixes and nothing else."""
    tree = AvsrTextTree(TEXTS, SIZES)
    assert tree.num_beams == 7  # of the second clip: 9, 93, 933, 94, 943, 9433, 94333; the first has 6
    for clip in range(2):
        prefixes = {}
        for text in range(3):
            for place in range(int(SIZES[clip, text])):
                prefixes.setdefault(int(tree.nodes[clip, text, place]), set()).add(
                    tuple(TEXTS[clip, text, : place + 1].tolist())
                )
        assert len(prefixes) == (6, 7)[clip] and all(len(held) == 1 for held in prefixes.values())
        held = {node: next(iter(texts)) for node, texts in prefixes.items()}
        for node, prefix in held.items():
            assert int(tree.labels[clip, node]) == prefix[-1] and int(tree.depths[clip, node]) == len(prefix) - 1
            seen = {held[other] for other in torch.nonzero(tree.seen[clip, node])[:, 0].tolist()}
            assert seen == {prefix[:size] for size in range(1, len(prefix) + 1)}


@pytest.mark.parametrize("variant", ["spectrogram", "grid", "usr2"])
def test_one_pass_is_the_decoders_forward(variant):
    """With shared prefixes and keys, or with one row for each text: the log-probabilities of a plain loop."""
    model = build_model(variant)
    encoded = encoded_clips(model)
    if variant == "usr2":
        encoded["modalities"] = torch.tensor([2, 2])
    labels = torch.nn.functional.pad(TEXTS[..., 1:], (0, 1))
    inside = torch.arange(5) < SIZES[..., None]
    with torch.no_grad():
        shared = TextDecoder(model, encoded, BLANK)(TEXTS, labels, SIZES)
        apart = TextDecoder(model, encoded, BLANK, share_keys=False)(TEXTS, labels, SIZES)
        torch.testing.assert_close(shared[inside], apart[inside], atol=2e-5, rtol=1e-4)
        for clip, text in itertools.product(range(2), range(3)):
            size = int(SIZES[clip, text])
            one = {name: part[clip : clip + 1] for name, part in encoded.items() if part is not None}
            ids = TEXTS[clip, text, None, :size]
            logits = model(decoder_input_ids=ids, encoder_outputs=type(encoded)(**one), use_cache=False).logits[0]
            logits[:, BLANK] = -torch.inf
            expected = logits.log_softmax(dim=-1).gather(1, labels[clip, text, :size, None])[:, 0]
            torch.testing.assert_close(apart[clip, text, :size], expected, atol=2e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def reader(make_model):
    """A recogniser of three letters (1, 2, 3) and two short clips of 1 and 3 steps for it."""
    model = make_model(vocab_size=5, eos_token_id=EOS, bos_token_id=EOS, decoder_start_token_id=EOS, modality="visual")
    generator = torch.Generator().manual_seed(3)
    return model, torch.randn(2, 3, 1, 16, 16, generator=generator), torch.tensor([[1, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("ctc_weight", [0.0, 0.1, 0.9, 1.0])
@pytest.mark.parametrize("frames", [1, 3])
def test_among_all_texts_the_joint_score_chooses(reader, ctc_weight, frames):
    model, videos, _ = reader
    video = videos[1:, :frames]
    expected = [pair for pair in all_texts(model, video, ctc_weight) if pair[0] > -math.inf]
    count = min(12, len(expected))
    options = {"num_beams": 60, "num_return_sequences": count, "ctc_weight": ctc_weight, "search": "two_pass"}
    found = model.generate(pixel_values_videos=video, **options, **SEARCH)
    if ctc_weight == 0.0:  # what CTC rules out isn't found, however good the decoder thinks it
        assert set(map(letters, found.sequences)) <= {text for _, text in expected}
    else:
        assert [letters(row) for row in found.sequences] == [text for _, text in expected[:count]]
        assert found.sequences_scores.tolist() == pytest.approx([score for score, _ in expected[:count]], abs=1e-4)


def test_two_passes_read_a_batch_as_one_by_one(reader):
    model, videos, mask = reader
    options = {"search": "two_pass", "num_beams": 3, "num_return_sequences": 2, **SEARCH}
    together = model.generate(pixel_values_videos=videos, video_attention_mask=mask, **options)
    for row, frames in enumerate((1, 3)):
        alone = model.generate(pixel_values_videos=videos[row : row + 1, :frames], **options)
        part = slice(2 * row, 2 * row + 2)
        assert [letters(ids) for ids in together.sequences[part]] == [letters(ids) for ids in alone.sequences]
        assert together.sequences_scores[part].tolist() == pytest.approx(alone.sequences_scores.tolist(), abs=1e-4)


def test_greedy_is_ctcs_best_path(reader):
    model, videos, mask = reader
    inputs = {"pixel_values_videos": videos, "video_attention_mask": mask}
    expected = model.generate(**inputs, num_beams=1, ctc_weight=1.0)
    assert torch.equal(model.generate(**inputs, search="greedy"), expected)
    assert torch.equal(model.generate(**inputs, search="greedy", num_beams=4), expected)


def test_ten_texts_unless_another_number_is_chosen(reader, monkeypatch):
    model, videos, _ = reader
    from lookhear.modeling.avsr import two_pass_avsr

    numbers, best = [], two_pass_avsr.best_texts
    monkeypatch.setattr(two_pass_avsr, "best_texts", lambda *given: (numbers.append(given[2]), best(*given))[1])
    for options in ({}, {"num_beams": 4}, {"generation_config": GenerationConfig(num_beams=3)}):
        model.generate(pixel_values_videos=videos, search="two_pass", **options)
    saved = copy.deepcopy(model.generation_config)
    saved.num_beams, saved.search = 6, "two_pass"
    monkeypatch.setattr(model, "generation_config", saved)
    model.generate(pixel_values_videos=videos)
    assert numbers == [10, 4, 3, 6]


ALLOWED = [
    {"suppress_tokens": [1, 2]},
    {"min_new_tokens": 3},
    {"prefix_allowed_tokens_fn": lambda clip, ids: [2, EOS] if len(ids) < 3 else [EOS]},
    {"max_new_tokens": 2},
    {"length_penalty": 2.0},
]


@pytest.mark.parametrize("rule", ALLOWED, ids=lambda rule: next(iter(rule)))
def test_forbidden_and_finished_texts_are_those_of_the_joint_search(reader, rule):
    """With all texts as candidates both searches find the same."""
    model, videos, mask = reader
    inputs = {"pixel_values_videos": videos, "video_attention_mask": mask}
    options = {"num_beams": 60, "num_return_sequences": 2, "ctc_weight": 0.3, **rule, **SEARCH}
    found = model.generate(**inputs, search="two_pass", **options)
    expected = model.generate(**inputs, **options)
    assert [row.tolist() for row in found.sequences] == [row.tolist() for row in expected.sequences]
    torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, atol=1e-4, rtol=1e-4)


def test_where_no_candidate_is_allowed_the_joint_search_reads(reader):
    """The only candidate of the second clip begins with what is forbidden there; the first clip keeps its own."""
    model, videos, _ = reader
    plain = model.generate(pixel_values_videos=videos, search="two_pass", num_beams=1)
    banned = int(plain[1, 1])  # EOS of an empty text

    def allowed(clip, ids):
        return [label for label in (1, 2, 3, EOS) if clip == 0 or len(ids) > 1 or label != banned]

    options = {"num_beams": 1, "prefix_allowed_tokens_fn": allowed}
    found = model.generate(pixel_values_videos=videos, search="two_pass", **options)
    joint = model.generate(pixel_values_videos=videos, **options)
    assert letters(found[1]) == letters(joint[1]) and int(found[1, 1]) != banned
    assert letters(found[0]) == letters(plain[0])


def test_a_language_model_takes_part(reader):
    """The score is the joint search's, which finds the same text with beams for all."""
    model, videos, _ = reader
    torch.manual_seed(7)
    sizes = {"vocab_size": 6, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    language_model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=EOS, eos_token_id=EOS)).eval()
    torch.nn.init.normal_(language_model.lm_head.weight, std=1.0)
    options = {"num_beams": 60, "language_model": language_model, "language_model_weight": 1.5, **SEARCH}
    found = model.generate(pixel_values_videos=videos, search="two_pass", **options)
    expected = model.generate(pixel_values_videos=videos, **options)
    assert found.sequences.tolist() == expected.sequences.tolist()
    torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, atol=1e-4, rtol=1e-4)
    without = model.generate(pixel_values_videos=videos, search="two_pass", num_beams=60, **SEARCH)
    assert not torch.allclose(without.sequences_scores, found.sequences_scores)
    small = GPT2LMHeadModel(GPT2Config(**sizes | {"vocab_size": 3}))
    with pytest.raises(ValueError, match="language_model knows 3 tokens"):
        model.generate(pixel_values_videos=videos, search="two_pass", language_model=small)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"search": "fast"}, "search must be one of 'joint', 'two_pass', 'greedy', 'espnet', not 'fast'"),
        ({"search": "two_pass", "do_sample": True}, "`do_sample` is for search='joint'"),
        ({"search": "two_pass", "ctc_prefix": "reference"}, "ctc_prefix must be 'exact' with search='two_pass'"),
        ({"search": "two_pass", "length_bonus": 1.0}, "length_bonus is for search='espnet'"),
        (
            {"search": "greedy", "num_beams": 5, "num_return_sequences": 2},
            "num_return_sequences must be 1 with search='greedy'",
        ),
        ({"search": "greedy", "do_sample": True}, "do_sample is for search='joint'"),
    ],
)
def test_what_makes_no_sense_is_refused(reader, options, named):
    model, videos, _ = reader
    with pytest.raises(ValueError, match=named):
        model.generate(pixel_values_videos=videos, **options)


def test_a_model_without_ctc_is_refused(make_model):
    model = make_model(modality="visual", ctc_loss_weight=0.0)
    with pytest.raises(ValueError, match="search='greedy' needs CTC, which this model was trained without"):
        model.generate(pixel_values_videos=torch.randn(1, 3, 1, 16, 16), search="greedy")


@pytest.mark.slow
@pytest.mark.parametrize("beams", [5, 20])
def test_the_beam_agrees_with_pyctcdecode(beams):
    """
    Scores as a recogniser gives them: 40 letters in 120 steps, a few of them in doubt. pyctcdecode gives a text that
    may end in blank or in its last letter two places of its beam, so that it follows fewer paths of each.
    """
    pyctcdecode = pytest.importorskip("pyctcdecode")
    generator = torch.Generator().manual_seed(0)
    path = torch.zeros(3, 120, dtype=torch.long)
    for row in path:
        steps = torch.randperm(118, generator=generator)[:40].sort().values
        row[steps] = torch.randint(1, 11, (40,), generator=generator)
    logits = 1.5 * torch.randn(3, 120, 12, generator=generator) + 6 * torch.nn.functional.one_hot(path, 12)
    decoder = pyctcdecode.build_ctcdecoder(["", *"abcdefghij"])
    found = best_texts(logits.double(), torch.tensor([120] * 3), beams, 120, BLANK, 11, certain=1.0)
    for clip in range(3):
        log_probs = np.log(silent(logits[clip].double().log_softmax(dim=-1), 11)[:, :11])
        expected = decoder.decode_beams(log_probs, beams, beam_prune_logp=-1e9, token_min_logp=-1e9)
        ours = [("".join("abcdefghij"[label - 1] for label in text), score) for text, score in rows(found, clip)]
        assert ours[0][0] == expected[0][0] and ours[0][1] >= expected[0][3]
        assert len({text for text, _ in ours} & {beam[0] for beam in expected}) >= 0.9 * beams
