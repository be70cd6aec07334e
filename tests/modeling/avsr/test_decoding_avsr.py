"""Decoding against brute force: all alignments, all texts, plain loops."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch

from lookhear.modeling.avsr.text_scores_avsr import CtcPrefixScorer, best_path

BLANK, EOS = 0, 4


def collapse(path):
    return tuple(int(label) for label, _ in itertools.groupby(path) if label)


@functools.cache
def alignments(steps, vocab):
    """All paths `(vocab ** steps, steps)` and the text of each."""
    paths = np.array(list(itertools.product(range(vocab), repeat=steps))).reshape(-1, steps)
    return paths, [collapse(path) for path in paths]


def text_probabilities(probs):
    """Probability of each text: sums over all paths. probs: `(steps, vocab)`."""
    paths, texts = alignments(*probs.shape)
    weights = probs[np.arange(len(probs)), paths].prod(axis=1)
    table = {}
    for text, weight in zip(texts, weights):
        table[text] = table.get(text, 0.0) + weight
    return table


def follow(scorer, batch, prefix):
    """State and last label of the scorer after a prefix, for `batch` clips with one beam."""
    state, last = scorer.start(1), torch.full((batch, 1), -1)
    for label in prefix:
        label = torch.full((batch, 1), label)
        state, last = scorer.extend(state, last, label), label
    return state, last


@pytest.mark.parametrize("seed", range(60))
def test_prefix_scores_are_sums_over_all_alignments(seed):
    """Five clips of 1 to 5 steps in one batch, padded; some nearly certain, some nearly uniform; repeated labels."""
    generator = np.random.default_rng(seed)
    vocab = int(generator.integers(2, 5))
    lengths = generator.permutation(5) + 1
    logits = generator.choice([0.1, 2.0, 15.0]) * generator.normal(size=(5, 5, vocab))
    log_probs = torch.from_numpy(logits).log_softmax(dim=-1)
    scorer = CtcPrefixScorer(log_probs, torch.from_numpy(lengths), BLANK)
    tables = [text_probabilities(log_probs[row, :length].exp().numpy()) for row, length in enumerate(lengths)]
    prefixes = [tuple(generator.integers(1, vocab, size)) for size in (0, 1, 1, 2, 3)]
    prefixes += [(1, 1), (1, 1, 1), tuple(generator.integers(1, vocab, 5))]
    for prefix in prefixes:
        extended, whole = scorer.score(*follow(scorer, 5, prefix))
        for row, table in enumerate(tables):
            assert float(whole[row, 0].exp()) == pytest.approx(table.get(prefix, 0.0), rel=1e-8, abs=1e-300)
            for label in range(1, vocab):
                begins = (*prefix, label)
                expected = sum(p for text, p in table.items() if text[: len(begins)] == begins)
                assert float(extended[row, 0, label].exp()) == pytest.approx(expected, rel=1e-8, abs=1e-300)
        assert (extended[..., BLANK] == -torch.inf).all()


def test_long_clips_stay_exact():
    """500 steps of small probabilities: no under- or overflow; agrees with PyTorch's CTC."""
    generator = torch.Generator().manual_seed(0)
    log_probs = (5 * torch.randn(1, 500, 6, generator=generator)).double().log_softmax(dim=-1)
    scorer = CtcPrefixScorer(log_probs, torch.tensor([500]), BLANK)
    text = torch.randint(1, 6, (80,), generator=generator)
    _, whole = scorer.score(*follow(scorer, 1, text.tolist()))
    expected = -torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), text[None], torch.tensor([500]), torch.tensor([80]), BLANK, "sum"
    )
    assert float(whole) == pytest.approx(float(expected), rel=1e-9)


def test_greedy_ctc_is_the_plain_loop():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 12, 5, generator=generator)
    lengths = torch.randint(1, 13, (40,), generator=generator)
    found = best_path(logits, lengths, BLANK, EOS)
    for row, length in enumerate(lengths.tolist()):
        text, previous = [], BLANK
        for step in logits[row, :length].softmax(dim=-1).tolist():
            step[BLANK] += step.pop(EOS)  # the last label
            label = step.index(max(step))
            if label not in (BLANK, previous):
                text.append(label)
            previous = label
        assert found[row].tolist() == text


def test_greedy_ctc_takes_the_eos_for_silence():
    """It is never a letter, and two equal letters with only an EOS between them are two."""
    paths = torch.tensor([[EOS, 1, EOS, 1, 1, EOS, EOS, 2], [EOS] * 8, [3, EOS, BLANK, 3, 3, BLANK, EOS, EOS]])
    logits = 5.0 * torch.nn.functional.one_hot(paths, 5)
    found = best_path(logits, torch.tensor([8, 8, 7]), BLANK, EOS)
    assert [row.tolist() for row in found] == [[1, 1, 2], [], [3, 3]]


@pytest.fixture(scope="module")
def reader(make_model):
    """A recogniser of three letters (1, 2, 3) and two short clips of 1 and 3 steps for it."""
    model = make_model(vocab_size=5, eos_token_id=EOS, bos_token_id=EOS, decoder_start_token_id=EOS, modality="visual")
    generator = torch.Generator().manual_seed(3)
    return model, torch.randn(2, 3, 1, 16, 16, generator=generator), torch.tensor([[1, 0, 0], [1, 1, 1]])


@torch.no_grad()
def all_texts(model, video, ctc_weight):
    """Joint score of every text of at most as many letters as frames, best first: pairs (score, text)."""
    encoded = model.get_encoder()(pixel_values_videos=video)
    frames = video.shape[1]
    ctc = model.compute_ctc_logits(encoded).double().log_softmax(dim=-1)[0, :frames]
    table = text_probabilities(ctc.exp().numpy())
    scored = []
    for size in range(frames + 1):
        for text in itertools.product((1, 2, 3), repeat=size):
            ids = torch.tensor([[EOS, *text]])
            logits = model(encoder_outputs=encoded, decoder_input_ids=ids, use_cache=False).logits[0]
            logits[:, BLANK] = -torch.inf
            steps = logits.double().log_softmax(dim=-1)[torch.arange(size + 1), torch.tensor([*text, EOS])]
            read = math.log(table[text]) if table.get(text) else -math.inf
            joint = (ctc_weight and ctc_weight * read) + (1 - ctc_weight) * float(steps.sum())
            scored.append((joint, text))
    return sorted(scored, reverse=True)


def letters(row):
    """The text between the start token and the EOS; padding behind it is checked."""
    row = row.tolist()
    end = row.index(EOS, 1)
    assert row[0] == EOS and not any(row[end + 1 :])
    return tuple(row[1:end])


SEARCH = {"return_dict_in_generate": True, "output_scores": True}


@pytest.mark.parametrize("ctc_weight", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("frames", [1, 3])
def test_a_wide_beam_finds_the_best_of_all_texts(reader, ctc_weight, frames):
    model, videos, _ = reader
    video = videos[1:, :frames]
    expected = [pair for pair in all_texts(model, video, ctc_weight) if pair[0] > -math.inf]
    count = min(12, len(expected))
    found = model.generate(
        pixel_values_videos=video, num_beams=40, num_return_sequences=count, ctc_weight=ctc_weight, **SEARCH
    )
    assert [letters(row) for row in found.sequences] == [text for _, text in expected[:count]]
    assert found.sequences_scores.tolist() == pytest.approx([score for score, _ in expected[:count]], abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_weights_and_models_vary(make_model, seed):
    """The best text for other weights and models, an empty one among them."""
    model = make_model(vocab_size=5, eos_token_id=EOS, bos_token_id=EOS, decoder_start_token_id=EOS)
    torch.manual_seed(seed)
    for head in (model.ctc_head.output, model.decoder_head.output):
        torch.nn.init.normal_(head.weight, std=1.5)
    with torch.no_grad():  # half of the models would rather say nothing
        model.ctc_head.output.bias[BLANK] += 3 * (seed % 2)
        model.decoder_head.output.bias[EOS] += 3 * (seed % 2)
    video = torch.randn(1, 3, 1, 16, 16)
    ctc_weight = (0.1, 0.4, 0.8)[seed % 3]
    score, text = all_texts(model, video, ctc_weight)[0]
    found = model.generate(pixel_values_videos=video, num_beams=40, ctc_weight=ctc_weight, **SEARCH)
    assert letters(found.sequences[0]) == text
    assert float(found.sequences_scores[0]) == pytest.approx(score, abs=1e-4)


def test_the_empty_text_can_win(make_model):
    model = make_model()
    with torch.no_grad():
        model.ctc_head.output.bias[BLANK] += 50
        model.decoder_head.output.bias[39] += 50
    videos = torch.randn(2, 4, 1, 16, 16)
    for search in ({"num_beams": 1, "ctc_weight": 1.0}, {"num_beams": 4, "ctc_weight": 1.0}, {"num_beams": 4}):
        assert model.generate(pixel_values_videos=videos, **search)[:, :2].tolist() == [[39, 39], [39, 39]]
    found = model.generate(pixel_values_videos=videos, num_beams=4, ctc_weight=0.3, **SEARCH)
    assert found.sequences_scores.tolist() == pytest.approx([0.0, 0.0], abs=1e-4)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.1, 0.5, 1.0])
def test_a_batch_reads_as_one_by_one(reader, ctc_weight):
    model, videos, mask = reader
    search = {"num_beams": 4, "num_return_sequences": 3, "ctc_weight": ctc_weight, **SEARCH}
    together = model.generate(pixel_values_videos=videos, video_attention_mask=mask, **search)
    for row, frames in enumerate((1, 3)):
        alone = model.generate(pixel_values_videos=videos[row : row + 1, :frames], **search)
        rows = slice(3 * row, 3 * row + 3)
        assert [letters(ids) for ids in together.sequences[rows]] == [letters(ids) for ids in alone.sequences]
        assert together.sequences_scores[rows].tolist() == pytest.approx(alone.sequences_scores.tolist(), abs=1e-4)


def test_alternatives_are_different_and_in_order(reader):
    model, videos, mask = reader
    found = model.generate(
        pixel_values_videos=videos, video_attention_mask=mask, num_beams=4, num_return_sequences=4, **SEARCH
    )
    for scores, sequences in zip(found.sequences_scores.view(2, 4), found.sequences.view(2, 4, -1)):
        assert (scores.diff() <= 0).all()
        assert len({letters(row) for row in sequences}) == 4


def test_default_weight_is_the_papers_or_of_the_generation_config(reader):
    model, videos, _ = reader
    video = videos[1:]
    scores = {
        weight: float(
            model.generate(pixel_values_videos=video, num_beams=4, ctc_weight=weight, **SEARCH).sequences_scores
        )
        for weight in (0.1, 0.7)
    }
    assert scores[0.1] != pytest.approx(scores[0.7], abs=1e-3)
    default = model.generate(pixel_values_videos=video, num_beams=4, **SEARCH).sequences_scores
    assert float(default) == pytest.approx(scores[0.1], abs=1e-6)
    model.generation_config.ctc_weight = 0.7
    try:
        configured = model.generate(pixel_values_videos=video, num_beams=4, **SEARCH).sequences_scores
    finally:
        del model.generation_config.ctc_weight
    assert float(configured) == pytest.approx(scores[0.7], abs=1e-6)
