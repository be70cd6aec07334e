import evaluate
import jiwer
import numpy as np
import pytest

from lookhear.evaluation.measures.rates import ErrorCounts, character_errors, normalise, position_error, word_errors

REFERENCES = ["bin blue at f two now", "lay red by z nine soon", "", "it's a test"]
HYPOTHESES = ["BIN BLUE AT S TWO NOW", "lay red z nine again soon", "um", "It\u2019s a test."]


def random_texts(generator: np.random.Generator, count: int) -> list[str]:
    return [" ".join(generator.choice(list("abcd"), generator.integers(0, 7))) for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Don\u2019t  STOP, now! ", "DON'T STOP NOW"),
        ("caf\u00e9 \u2014 well-known", "CAFE WELL KNOWN"),
        ("'quoted' words", "QUOTED WORDS"),
        ("\u4f60\u597d", "\u4f60\u597d"),
        ("", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected
    assert normalise(normalise(text)) == expected


def test_counts_per_clip():
    words = word_errors(REFERENCES, HYPOTHESES)
    assert words.errors.tolist() == [1, 2, 1, 0] and words.lengths.tolist() == [6, 6, 0, 3]
    assert words.rate == pytest.approx(4 / 15)
    assert character_errors(["abc d"], ["abd"]).errors.tolist() == [2]


@pytest.mark.parametrize("seed", range(3))
def test_same_figure_as_jiwer(seed):
    generator = np.random.default_rng(seed)
    references, hypotheses = random_texts(generator, 40), random_texts(generator, 40)
    assert word_errors(references, hypotheses).rate == pytest.approx(jiwer.wer(references, hypotheses))
    assert character_errors(references, hypotheses).rate == pytest.approx(jiwer.cer(references, hypotheses))


def test_interval_is_seeded_and_holds_the_rate():
    generator = np.random.default_rng(0)
    counts = ErrorCounts(generator.integers(0, 3, 200), np.full(200, 6))
    low, high = counts.interval()
    assert low < counts.rate < high
    assert counts.interval() == (low, high) != counts.interval(seed=1)
    wide = counts.interval(confidence=0.999)
    assert wide[0] < low and high < wide[1]
    # The textbook interval of a mean: 1.96 standard errors.
    half = 1.96 * (counts.errors / 6).std() / np.sqrt(200)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_interval_does_not_depend_on_the_block_size():
    """Many clips are drawn in several blocks; the spread has to stay that of the clips."""
    counts = ErrorCounts(np.tile([0, 1], 5000), np.full(10000, 1))  # 400 draws a block
    low, high = counts.interval()
    assert (high - low) / 2 == pytest.approx(1.96 * 0.5 / 100, rel=0.15)


def test_extremes():
    perfect = ErrorCounts(np.zeros(5, int), np.full(5, 6))
    assert perfect.rate == 0 and perfect.interval() == (0, 0)
    silent = ErrorCounts(np.ones(2, int), np.zeros(2, int))
    assert np.isnan(silent.rate) and np.isnan(silent.interval()).all()


def test_position_error():
    counts = position_error(REFERENCES, HYPOTHESES, 3)
    assert counts.errors.tolist() == [1, 0, 0, 0] and counts.lengths.tolist() == [1, 1, 0, 0]
    # A word lost before the position does not shift it.
    assert position_error(["bin blue at f two now"], ["bin at f two now"], 3).rate == 0
    assert position_error(["bin blue at f two now"], ["bin blue at two now"], 3).rate == 1
    assert position_error(REFERENCES, HYPOTHESES, -1).errors.tolist() == [0, 0, 0, 0]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="differ in number"):
        word_errors(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="references is empty"):
        word_errors([], [])
    with pytest.raises(ValueError, match="list of texts"):
        word_errors("a b", ["a b"])
    with pytest.raises(ValueError, match="confidence"):
        word_errors(["a"], ["a"]).interval(confidence=95)


@pytest.mark.parametrize(("name", "unit", "count"), [("wer", "words", 15), ("cer", "characters", 54)])
def test_metric_modules_load_from_their_folder(repository, name, unit, count, tmp_path):
    metric = evaluate.load(str(repository / "evaluation" / "metrics" / name), cache_dir=str(tmp_path))
    result = metric.compute(predictions=HYPOTHESES, references=REFERENCES)
    assert result[unit] == count and result[name] == pytest.approx(result["errors"] / count)
    assert result["interval"][0] <= result[name] <= result["interval"][1]
    with pytest.raises(ValueError):
        metric.compute(predictions=["a"], references=["a", "b"])
