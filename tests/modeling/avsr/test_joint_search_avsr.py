"""The joint beam search on problems from tables: against all texts and exhaustive search, with a language model."""

import itertools

import pytest
import torch
from torch.nn.functional import ctc_loss
from transformers import GPT2Config, GPT2LMHeadModel

from lookhear.modeling.avsr import AvsrConfig

SEARCH = {"return_dict_in_generate": True, "output_scores": True}


class Problems:
    """Random recognisers of one clip each: scores after the last label, scores by place, CTC scores, lengths."""

    def __init__(self, count: int, steps: int, vocab: int, seed: int, spread: float = 2.0):
        generator = torch.Generator().manual_seed(seed)
        sharp = spread * torch.rand(count, 1, 1, generator=generator)
        self.after = sharp * torch.randn(count, vocab, vocab, generator=generator)
        self.place = sharp * torch.randn(count, steps + 2, vocab, generator=generator)
        self.ctc = 2 * sharp * torch.randn(count, steps, vocab, generator=generator)
        self.lengths = torch.randint(1, steps + 1, (count,), generator=generator)
        self.eos, self.letters = vocab - 1, range(1, vocab - 1)

    def next_label(self, clips: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.after[clips, ids[:, -1]] + self.place[clips, min(ids.shape[1], self.place.shape[1]) - 1]

    def score(self, clip: int, text: tuple[int, ...], weight: float, target_eos: bool = False) -> float:
        """The joint score of a whole text, from the definitions."""
        ids = torch.tensor([[self.eos, *text]])
        logits = torch.cat([self.next_label(torch.tensor([clip]), ids[:, :size]) for size in range(1, len(text) + 2)])
        logits[:, 0] = -torch.inf
        labels = torch.tensor([*text, self.eos])
        attention = logits.double().log_softmax(dim=-1).gather(1, labels[:, None]).sum()
        if not weight:
            return float(attention)
        target = labels if target_eos else labels[:-1]
        log_probs = self.ctc[clip, : self.lengths[clip]].double().log_softmax(dim=-1)[:, None]
        sizes = self.lengths[clip : clip + 1], torch.tensor([len(target)])
        if len(target):
            ctc = -ctc_loss(log_probs, target[None], *sizes, reduction="sum")
        else:
            ctc = log_probs[:, 0, 0].sum()
        return float((1 - weight) * attention + weight * ctc)


def letters(row: torch.Tensor, eos: int) -> tuple[int, ...]:
    row = row.tolist()
    return tuple(row[1 : row.index(eos, 1)])


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_best_of_all_texts_is_found(table_reader, weight):
    """Clips of 1 to 3 steps in one batch, the four best texts of each."""
    problems = Problems(count=12, steps=3, vocab=5, seed=int(10 * weight))
    model, encoded = table_reader(problems.next_label, problems.ctc, problems.lengths)
    found = model.generate(encoder_outputs=encoded, num_beams=27, num_return_sequences=4, ctc_weight=weight, **SEARCH)
    texts = [letters(row, problems.eos) for row in found.sequences]
    for clip, length in enumerate(problems.lengths.tolist()):
        every = itertools.chain(*(itertools.product(problems.letters, repeat=size) for size in range(length + 1)))
        scored = sorted(((problems.score(clip, text, weight), text) for text in every), reverse=True)
        best = [pair for pair in scored[:4] if pair[0] > -torch.inf]
        rows = slice(4 * clip, 4 * clip + len(best))
        assert texts[rows] == [text for _, text in best]
        assert found.sequences_scores[rows].tolist() == pytest.approx([score for score, _ in best], abs=1e-4)


@pytest.mark.parametrize("texts", [1, 3])
@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 1.0])
def test_ending_early_changes_nothing(table_reader, weight, texts):
    """1000 problems, 8000 in all: the same texts and scores as the search up to the longest text, in fewer steps."""
    problems = Problems(count=1000, steps=10, vocab=8, seed=int(100 * weight) + texts, spread=3.0)
    search = {"num_beams": 4, "num_return_sequences": texts, "ctc_weight": weight, **SEARCH}
    steps = {False: 0, "never": 0}
    for first in (0, 500):
        part = slice(first, first + 500)
        logits, lengths = problems.ctc[part], problems.lengths[part]

        def next_label(clips, ids, first=first):
            return problems.next_label(clips + first, ids)

        model, encoded = table_reader(next_label, logits, lengths)
        found = {stop: model.generate(encoder_outputs=encoded, early_stopping=stop, **search) for stop in steps}
        some = found["never"].sequences_scores > -1e8  # a clip of one step has few texts
        assert torch.allclose(found[False].sequences_scores[some], found["never"].sequences_scores[some], atol=1e-4)
        size = min(result.sequences.shape[1] for result in found.values())
        assert torch.equal(found[False].sequences[some, :size], found["never"].sequences[some, :size])
        assert not any(result.sequences[some, size:].any() for result in found.values())


def test_one_clip_ends_as_soon_as_its_text_is_certain(table_reader):
    """A recogniser that is sure of three letters needs four steps for them and one to see that nothing follows."""
    after = torch.full((1, 6, 6), -10.0)
    after[0, 5, 1] = after[0, 1, 2] = after[0, 2, 3] = after[0, 3, 5] = 5.0
    ctc = torch.full((1, 40, 6), -5.0)
    ctc[0, :, 0] = 5.0
    ctc[0, (5, 15, 25), 0], ctc[0, 5, 1], ctc[0, 15, 2], ctc[0, 25, 3] = -5.0, 5.0, 5.0, 5.0
    model, encoded = table_reader(lambda clips, ids: after[clips, ids[:, -1]], ctc, [40])
    found = model.generate(encoder_outputs=encoded, num_beams=5, ctc_weight=0.3, **SEARCH)
    assert letters(found.sequences[0], 5) == (1, 2, 3)
    assert len(found.scores) <= 5
    whole = model.generate(encoder_outputs=encoded, num_beams=5, ctc_weight=0.3, early_stopping="never", **SEARCH)
    assert len(whole.scores) == 41


@pytest.mark.parametrize("target_eos", [False, True])
def test_eos_follows_the_rule_of_training(table_reader, monkeypatch, target_eos):
    """The score of a text is that of the label sequence that the CTC loss was given."""
    problems = Problems(count=8, steps=6, vocab=6, seed=4)
    problems.lengths[:] = 6
    model, encoded = table_reader(problems.next_label, problems.ctc, problems.lengths)
    monkeypatch.setattr(AvsrConfig, "ctc_target_eos", target_eos)
    found = model.generate(encoder_outputs=encoded, num_beams=6, ctc_weight=0.6, num_return_sequences=2, **SEARCH)
    for index, (row, score) in enumerate(zip(found.sequences, found.sequences_scores.tolist())):
        text = letters(row, problems.eos)
        assert score == pytest.approx(problems.score(index // 2, text, 0.6, target_eos), abs=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_lengths_can_be_asked_for(table_reader, weight):
    """Texts of exactly three letters score as they do in a search without limits, and are the best of their length."""
    problems = Problems(count=4, steps=4, vocab=5, seed=7)
    problems.lengths[:] = 4
    model, encoded = table_reader(problems.next_label, problems.ctc, problems.lengths)
    found = model.generate(
        encoder_outputs=encoded, num_beams=27, ctc_weight=weight, min_new_tokens=3, max_new_tokens=4, **SEARCH
    )
    for clip, (row, score) in enumerate(zip(found.sequences, found.sequences_scores.tolist())):
        best = max((problems.score(clip, text, weight), text) for text in itertools.product((1, 2, 3), repeat=3))
        assert letters(row, problems.eos) == best[1]
        assert score == pytest.approx(best[0], abs=1e-4)


@torch.no_grad()
def test_a_language_model_takes_part(table_reader):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=5, n_embd=8, n_layer=2, n_head=2, bos_token_id=4, eos_token_id=4)
    language_model = GPT2LMHeadModel(config).eval()
    torch.nn.init.normal_(language_model.transformer.wte.weight, std=2.0)
    problems = Problems(count=5, steps=3, vocab=5, seed=1)
    problems.lengths[:] = 3
    model, encoded = table_reader(problems.next_label, problems.ctc, problems.lengths)
    language = {"language_model": language_model, "language_model_weight": 0.7}
    found = model.generate(encoder_outputs=encoded, num_beams=27, ctc_weight=0.2, **language, **SEARCH)
    alone = model.generate(encoder_outputs=encoded, num_beams=27, ctc_weight=0.2)
    every = [text for size in range(4) for text in itertools.product((1, 2, 3), repeat=size)]
    for clip, (row, score) in enumerate(zip(found.sequences, found.sequences_scores.tolist())):
        scored = []
        for text in every:
            steps = language_model(input_ids=torch.tensor([[4, *text]])).logits[0].log_softmax(dim=-1)
            spoken = steps.gather(1, torch.tensor([*text, 4])[:, None]).sum()
            scored.append((problems.score(clip, text, 0.2) + 0.7 * float(spoken), text))
        assert letters(row, 4) == max(scored)[1]
        assert score == pytest.approx(max(scored)[0], abs=1e-4)
    assert any(letters(a, 4) != letters(b, 4) for a, b in zip(found.sequences, alone))


def test_what_cannot_be_is_refused(table_reader):
    problems = Problems(count=1, steps=2, vocab=5, seed=0)
    model, encoded = table_reader(problems.next_label, problems.ctc, problems.lengths)
    small = GPT2LMHeadModel(GPT2Config(vocab_size=3, n_embd=8, n_layer=1, n_head=1))
    for wrong, named in (
        ({"ctc_weight": 1.5}, "ctc_weight"),
        ({"ctc_prefix": "fast"}, "ctc_prefix"),
        ({"language_model": small}, "language_model"),
        ({"language_model_weight": -1.0}, "language_model_weight"),
    ):
        with pytest.raises(ValueError, match=named):
            model.generate(encoder_outputs=encoded, num_beams=2, **wrong)
