"""Character error rate as an `evaluate` metric: `evaluate.load("<this folder>")` works without network."""

import datasets
import evaluate

from lookhear.evaluation.measures.rates import character_errors

DESCRIPTION = """
Character error rate: substituted, deleted and inserted characters over the characters of the references (jiwer's
alignment), summed over all texts. Case, accents and punctuation do not count. The interval is a bootstrap over the
texts.
"""
INPUTS = """
Args:
    predictions: list of recognised texts.
    references: list of spoken texts.
    confidence: share of the bootstrap draws inside the interval, 0.95 by default.
    resamples: number of bootstrap draws, 2000 by default.
    seed: of the draws, 0 by default.

Returns:
    {"cer": fraction, "interval": [low, high], "errors": int, "characters": int}
"""
CITATION = """
@inproceedings{morris2004,
  title = {From {WER} and {RIL} to {MER} and {WIL}: improved evaluation measures for connected speech recognition},
  author = {Morris, Andrew Cameron and Maier, Viktoria and Green, Phil},
  booktitle = {Interspeech},
  year = {2004}
}
"""


class Cer(evaluate.Metric):
    """Character error rate with a bootstrap interval."""

    def _info(self) -> evaluate.MetricInfo:
        texts = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(texts),
            reference_urls=["https://jitsi.github.io/jiwer/"],
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        confidence: float = 0.95,
        resamples: int = 2000,
        seed: int = 0,
    ) -> dict:
        counts = character_errors(references, predictions)
        return {
            "cer": counts.rate,
            "interval": list(counts.interval(confidence, resamples, seed)),
            "errors": int(counts.errors.sum()),
            "characters": int(counts.lengths.sum()),
        }
