"""When the words of GRID begin, as `lookhear evaluate` measures it, with the checkpoint that the project ships."""

import numpy as np
import pytest

from lookhear.evaluation.avsr_conditions import evaluate_avsr

BOUNDS = {"audio": 0.04, "visual": 0.06, "audiovisual": 0.04}  # seconds, of the median; 0.15 of nine in ten


@pytest.mark.shared
@pytest.mark.slow
def test_words_begin_where_the_corpus_says(repository, shared):
    """The first words too, which CTC alone would put up to half a second early."""
    model, data = repository / "model_cards" / "avsr-grid-tiny", shared / "data" / "grid_s1" / "test"
    for result in evaluate_avsr(model, data, limit=10, num_beams=2, device="cpu"):
        assert len(result.word_starts) >= 50  # of 60
        assert np.quantile(result.word_starts, 0.5) < BOUNDS[result.modality]
        assert np.quantile(result.word_starts, 0.9) < 0.15
        assert result.rtfx > 0
