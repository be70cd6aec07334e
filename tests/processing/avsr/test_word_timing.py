"""CTC forced alignment: against enumeration, padding, texts that do not fit, words and confidence."""

import itertools
import math

import pytest
import torch

from lookhear.processing.avsr.alignment_avsr import (
    TimedText,
    align_ctc,
    delay_early_starts,
    join_ends,
    mean_confidence,
    merge_into_blank,
    time_characters,
    time_words,
)


def enumerate_best(log_probs: torch.Tensor, labels: list[int]) -> float:
    """The best score over all paths that collapse to the labels."""
    frames, vocab = log_probs.shape
    best = -math.inf
    for path in itertools.product(range(vocab), repeat=frames):
        collapsed = [symbol for symbol, _ in itertools.groupby(path) if symbol]
        if collapsed == labels:
            best = max(best, sum(float(log_probs[t, s]) for t, s in enumerate(path)))
    return best


def score_of_spans(log_probs: torch.Tensor, labels: list[int], starts: list[int], ends: list[int]) -> float:
    """The score of the path that the spans describe."""
    path = [0] * len(log_probs)
    for label, start, end in zip(labels, starts, ends):
        path[start:end] = [label] * (end - start)
    assert [symbol for symbol, _ in itertools.groupby(path) if symbol] == labels
    return sum(float(log_probs[t, s]) for t, s in enumerate(path))


def test_batch_finds_the_best_paths():
    torch.manual_seed(0)
    texts = [[1, 2], [1, 1], [2], [1, 2, 1], []]
    frames = torch.tensor([6, 5, 6, 4, 3])
    log_probs = (3 * torch.randn(5, 6, 3)).log_softmax(-1)
    lengths = torch.tensor([len(text) for text in texts])
    labels = torch.tensor([text + [-100] * (3 - len(text)) for text in texts])
    found = align_ctc(log_probs, frames, labels, lengths)
    assert found.fits.all()
    for row, text in enumerate(texts):
        valid = log_probs[row, : frames[row]]
        starts, ends = found.starts[row, : len(text)].tolist(), found.ends[row, : len(text)].tolist()
        assert score_of_spans(valid, text, starts, ends) == pytest.approx(enumerate_best(valid, text), abs=1e-4)
        for label, start, end, score in zip(text, starts, ends, found.scores[row].tolist()):
            assert score == pytest.approx(float(valid[start:end, label].mean()), abs=1e-4)


def test_a_clip_alone_and_in_a_batch():
    torch.manual_seed(1)
    log_probs = torch.randn(2, 30, 5).log_softmax(-1)
    labels = torch.tensor([[1, 2, 2, 0], [3, 4, 1, 1]])
    together = align_ctc(log_probs, torch.tensor([20, 30]), labels, torch.tensor([3, 4]))
    alone = align_ctc(log_probs[:1, :20], torch.tensor([20]), labels[:1, :3], torch.tensor([3]))
    assert together.starts[0, :3].tolist() == alone.starts[0].tolist()
    assert together.ends[0, :3].tolist() == alone.ends[0].tolist()
    torch.testing.assert_close(together.scores[0, :3], alone.scores[0])
    assert together.scores[0, 3] == 0


@pytest.mark.parametrize(("frames", "fits"), [(3, True), (2, False)])
def test_a_repeated_letter_needs_a_blank(frames, fits):
    log_probs = torch.zeros(1, 3, 2).log_softmax(-1)
    found = align_ctc(log_probs, torch.tensor([frames]), torch.tensor([[1, 1]]), torch.tensor([2]))
    assert found.fits.tolist() == [fits]


def test_a_text_that_does_not_fit_is_spread_evenly():
    log_probs = torch.randn(1, 4, 5).log_softmax(-1)
    found = align_ctc(log_probs, torch.tensor([4]), torch.tensor([[1, 2, 3, 4, 1, 2, 3, 4]]), torch.tensor([8]))
    assert found.fits.tolist() == [False]
    assert found.starts[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.all(found.ends <= 4)
    assert torch.all(found.ends > found.starts)
    assert torch.isfinite(found.scores).all()


def test_no_text_and_no_frames():
    none = align_ctc(torch.zeros(1, 4, 3), torch.tensor([4]), torch.zeros(1, 0, dtype=torch.long), torch.tensor([0]))
    assert none.starts.shape == (1, 0)
    assert none.fits.tolist() == [True]
    nothing = align_ctc(torch.zeros(1, 0, 3), torch.tensor([0]), torch.tensor([[1]]), torch.tensor([1]))
    assert nothing.fits.tolist() == [False]


def test_end_of_sentence_counts_as_blank():
    log_probs = torch.tensor([[[0.2, 0.3, 0.5]]]).log()
    merged = merge_into_blank(log_probs, 0, 2).exp()
    torch.testing.assert_close(merged, torch.tensor([[[0.7, 0.3, 0.0]]]))
    assert merge_into_blank(log_probs, 0, None) is log_probs


def test_words_from_characters():
    scores = [math.log(0.5), math.log(0.5), 0.0, math.log(0.81), 0.0]
    characters = time_characters("AN IT", [1, 3, 5, 8, 9], [2, 4, 6, 9, 11], scores, 0.02)
    words = time_words(characters)
    assert [word.text for word in words] == ["AN", "IT"]
    assert [(word.start, word.end) for word in words] == [pytest.approx((0.02, 0.1)), pytest.approx((0.16, 0.22))]
    assert [word.confidence for word in words] == pytest.approx([0.5, 0.9])
    assert mean_confidence(characters) == pytest.approx((0.5 * 0.5 * 0.81) ** 0.2)
    assert time_words([]) == []
    assert time_words([TimedText(" ", 0, 1, 1.0)]) == []


def test_words_meet_between_a_space_and_the_next_letter():
    """But not over a pause, nor at a space without a time of its own; the last letter grows by what the others do."""
    spoken = [("A", 0.1, 0.12), (" ", 0.2, 0.22), ("O", 0.26, 0.28), (" ", 0.4, 0.42), ("I", 0.7, 0.72)]
    characters = [TimedText(*piece, 0.5) for piece in spoken]
    joined = join_ends(characters)
    assert [(c.text, c.start, c.end) for c in joined] == [
        ("A", 0.1, 0.12),
        (" ", pytest.approx(0.23), pytest.approx(0.23)),
        ("O", pytest.approx(0.23), 0.28),
        (" ", 0.4, 0.42),
        ("I", 0.7, pytest.approx(0.72 + 0.11)),
    ]
    assert [(w.start, w.end) for w in time_words(joined)] == [
        (0.1, pytest.approx(0.23)),
        (pytest.approx(0.23), 0.4),
        (0.7, pytest.approx(0.83)),
    ]
    pieces = [TimedText("A", 0.1, 0.12, 1.0), TimedText(" ", 0.12, 0.12, 1.0), TimedText("O", 0.26, 0.28, 1.0)]
    assert join_ends(pieces) == pieces and join_ends([]) == [] and join_ends(characters[:1]) == characters[:1]


def test_a_first_letter_in_the_silence_before_its_word_moves():
    """Only the first letter of a word, only over blanks, and never one that is held or a word of one letter."""
    spoken = [
        ("B", 0.0, 0.02),
        ("I", 0.6, 0.62),
        ("N", 0.64, 0.66),
        (" ", 0.7, 0.72),
        ("A", 1.0, 1.02),
        (" ", 1.4, 1.42),
    ]
    spoken += [("M", 1.5, 1.9), ("E", 1.92, 1.94), ("T", 2.4, 2.42)]
    characters = [TimedText(*piece, 1.0) for piece in spoken]
    moved = delay_early_starts(characters, longest_pause=0.16)
    assert (moved[0].start, moved[0].end) == pytest.approx((0.44, 0.46))
    assert moved[1:] == characters[1:]
    assert delay_early_starts([]) == []
