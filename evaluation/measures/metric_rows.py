"""What the object metrics share: rows of columns that may be missing, and masks that may be None."""

from typing import Any

import datasets
import evaluate

NUMBERS, NAMES = [datasets.Value("int64")], [datasets.Value("string")]
SCORES, FLAGS = [datasets.Value("float64")], [datasets.Value("bool")]
BOX = [datasets.Value("float64")]  # x0, y0, x1, y1 in pixels
MASK = {"size": [datasets.Value("int32")], "counts": datasets.Value("string")}  # COCO's compressed run lengths


class RowMetric(evaluate.Metric):
    """
    A metric whose predictions and references are rows (dicts), one per picture, video, frame, object or sentence.

    `evaluate` itself wants every column in every row and nothing in place of a struct; here a column that a row
    doesn't have is None, and so is a missing mask. Labels that are numbers become text. The rows stay in this
    process.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.predictions: list[dict] = []
        self.references: list[dict] = []

    def add(self, *, prediction: dict | None = None, reference: dict | None = None, **kwargs: Any) -> None:
        """Adds one row of each; see `add_batch`."""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def add_batch(self, *, predictions: list | None = None, references: list | None = None, **kwargs: Any) -> None:
        """
        Adds rows to those that `compute` will take.

        Raises:
            ValueError: not one prediction per reference, another input, or a value that its column doesn't take.
        """
        rows = {"predictions": list(predictions or ()), "references": list(references or ())}
        if kwargs:
            raise ValueError(f"Unknown argument {', '.join(map(repr, kwargs))}: there are predictions and references.")
        if len(rows["predictions"]) != len(rows["references"]):
            raise ValueError(f"{len(rows['predictions'])} predictions, but {len(rows['references'])} references")
        try:
            table = datasets.Dataset.from_dict(rows, features=self.features)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"the rows don't match the expected format {self.features}: {reason}") from None
        self.predictions += table["predictions"][:]
        self.references += table["references"][:]

    def compute(self, *, predictions: list | None = None, references: list | None = None, **settings: Any) -> dict:
        """
        Computes the metric of the rows that were added and of these.

        Raises:
            ValueError: see `add_batch`; or the metric was loaded for several processes.
        """
        if self.num_process > 1:
            raise ValueError("num_process: gather the rows of all processes, and compute the metric in one of them")
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        rows = {"predictions": self.predictions, "references": self.references}
        self.predictions, self.references = [], []
        return self._compute(**rows, **settings)
