"""The joint beam search beside the published code's, on problems whose scores come from tables."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lookhear.modeling.avsr.text_scores_avsr import ReferenceCtcPrefixScorer

pytestmark = pytest.mark.parity

BLANK, EOS = 0, 39
SEPARATE = 1e-3  # two texts whose scores are closer may change places
SEARCH = {"return_dict_in_generate": True, "output_scores": True, "ctc_prefix": "reference"}


@pytest.fixture(scope="module")
def tables(parity_folder) -> dict[str, torch.Tensor]:
    return load_file(parity_folder / "avsr" / "beam_problems.safetensors")


@pytest.fixture(scope="module")
def facts(parity_folder) -> list[dict]:
    return json.loads((parity_folder / "avsr" / "beam_problems.json").read_text())


def decoder_of(bigram: torch.Tensor, position: torch.Tensor):
    """Scores after the last label, `(clips, vocab, vocab)`, plus scores by place, `(clips, places, vocab)`."""
    return lambda clips, ids: bigram[clips, ids[:, -1]] + position[clips, min(ids.shape[1] - 1, position.shape[1] - 1)]


def check(found, ids: torch.Tensor, scores: torch.Tensor) -> None:
    """The same scores, and the same texts wherever scores are apart; ids `(texts, length)`, -1 behind the end."""
    assert found.sequences_scores.tolist() == pytest.approx(scores.tolist(), rel=1e-5, abs=5e-4)
    gaps = torch.cat((torch.tensor([torch.inf]), scores.diff().abs(), torch.tensor([torch.inf])))
    for row, (text, best) in enumerate(zip(ids.tolist(), found.sequences.tolist())):
        if min(gaps[row : row + 2]) > SEPARATE:
            assert best[: len(text)][: best.index(EOS, 1) + 1] == [label for label in text if label >= 0]


def test_each_problem(table_reader, tables, facts):
    problems = [entry for entry in facts if "kind" in entry]
    assert problems
    for entry in problems:
        name = f"p{entry['id']:02d}"
        bigram, position, ctc = (tables[f"{name}.{part}"] for part in ("att_bigram", "att_pos", "ctc_logits"))
        model, encoded = table_reader(decoder_of(bigram[None], position[None]), ctc[None], [entry["T"]])
        ids, scores = tables[f"{name}.nbest_ids"], tables[f"{name}.nbest_scores"]
        search = {"num_beams": entry["beam"], "num_return_sequences": len(ids), "ctc_weight": entry["lam"]}
        check(model.generate(encoder_outputs=encoded, **search, **SEARCH), ids, scores)


def test_a_batch_of_unequal_lengths(table_reader, tables, facts):
    entry = next(entry for entry in facts if "kind" not in entry)
    lengths = tables["batch.lens"]
    decoder = decoder_of(tables["batch.att_bigram"], tables["batch.att_pos"])
    model, encoded = table_reader(decoder, tables["batch.ctc_logits"].transpose(0, 1), lengths)
    texts = len(tables["batch.nbest_ids.0"])
    search = {"num_beams": texts, "num_return_sequences": texts, "ctc_weight": entry["lam"]}
    found = model.generate(encoder_outputs=encoded, **search, **SEARCH)
    for clip in range(len(lengths)):
        rows = slice(clip * texts, (clip + 1) * texts)
        one = type(found)(sequences=found.sequences[rows], sequences_scores=found.sequences_scores[rows])
        check(one, tables[f"batch.nbest_ids.{clip}"], tables[f"batch.nbest_scores.{clip}"])


def test_prefix_scores(tables, facts):
    """Scores of the labels 1 to 38 and of the end, after each prefix of the first three steps."""
    for entry in facts:
        for step in (1, 2, 3):
            name = f"p{entry.get('id', -1):02d}.step{step}"
            if f"{name}.prefixes" not in tables:
                continue
            log_probs = tables[f"p{entry['id']:02d}.ctc_logits"].log_softmax(dim=-1)[None]
            scorer = ReferenceCtcPrefixScorer(log_probs, torch.tensor([entry["T"]]), BLANK)
            prefixes, stored = tables[f"{name}.prefixes"].long(), tables[f"{name}.ctc_prefix_logp"].double()
            state, last = scorer.start(len(prefixes)), torch.full((1, len(prefixes)), -1)
            for label in prefixes[:, 1:].T:
                state, last = scorer.extend(state, last, label[None]), label[None]
            scores, whole = scorer.score(state, last)
            ours = torch.cat((scores[0, :, 1:EOS], whole[0, :, None]), dim=1)
            same = (ours == stored) | torch.isclose(ours, stored, rtol=1e-4, atol=1e-4)
            assert same.all(), f"{name}: {ours[~same][:3]} is not {stored[~same][:3]}"
