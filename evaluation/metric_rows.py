"""What the object metrics of this folder share: rows of columns that may be missing, and masks that may be None."""

import datasets
import evaluate

NUMBERS, NAMES = [datasets.Value("int64")], [datasets.Value("string")]
SCORES, FLAGS = [datasets.Value("float64")], [datasets.Value("bool")]
BOX = [datasets.Value("float64")]  # x0, y0, x1, y1 in pixels
MASK = {"size": [datasets.Value("int32")], "counts": datasets.Value("string")}  # COCO's compressed run lengths


class RowMetric(evaluate.Metric):
    """
    A metric whose predictions and references are rows (dicts), one a picture, video, frame, object or sentence.

    `evaluate` itself wants every column in every row and nothing in place of a struct; here a column that a row doesn't have
    is None, and so is a mask that isn't there. Labels that are numbers become text.
    """

    def _enforce_nested_string_type(self, schema, obj) -> None:
        """evaluate's check before it encodes a row: the encoding and the arithmetic check what matters here."""
