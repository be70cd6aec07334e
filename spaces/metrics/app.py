"""The page of a metric: rows as JSON in, figures out."""

import json
import math
from pathlib import Path

import evaluate
import gradio as gr

HERE = Path(__file__).parent
EXAMPLE = json.loads((HERE / "example.json").read_text(encoding="utf-8"))
NAME = EXAMPLE["metric"]
METRIC = evaluate.load(str(HERE / f"{NAME}.py"))
MOST_ROWS = 10_000


def compute(predictions: str, references: str, settings: str) -> dict:
    """Computes the metric of rows that are JSON lists; errors in them are shown on the page."""
    rows = {
        "predictions": read_json(predictions, list, "predictions"),
        "references": read_json(references, list, "references"),
    }
    if len(rows["predictions"]) != len(rows["references"]):
        counts = f"{len(rows['predictions'])} predictions and {len(rows['references'])} references"
        raise gr.Error(f"There are {counts}; each prediction needs its reference.")
    if len(rows["predictions"]) > MOST_ROWS:
        raise gr.Error(f"This page takes up to {MOST_ROWS} rows. Load the metric with evaluate for more.")
    try:
        return without_nan(METRIC.compute(**rows, **read_json(settings or "{}", dict, "settings")))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise gr.Error(f"{type(error).__name__}: {error}") from error


def read_json(text: str, kind: type, name: str):
    """Parses a text as a JSON list or object."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise gr.Error(f"The {name} are not JSON: {error}") from error
    if not isinstance(value, kind):
        raise gr.Error(f"The {name} have to be a JSON {'list' if kind is list else 'object'}.")
    return value


def without_nan(value):
    """Replaces NaN by None: JSON has no NaN, so a figure that does not exist is null."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def pretty(value) -> str:
    """Formats one row per line."""
    return "[\n" + ",\n".join("  " + json.dumps(row) for row in value) + "\n]"


with gr.Blocks(title=NAME) as demo:
    gr.Markdown(f"# {NAME}\n\n{METRIC.description.strip()}")
    with gr.Row():
        predictions_box = gr.Code(pretty(EXAMPLE["predictions"]), language="json", label="Predictions")
        references_box = gr.Code(pretty(EXAMPLE["references"]), language="json", label="References")
    settings_box = gr.Code(json.dumps(EXAMPLE.get("settings", {})), language="json", label="Settings")
    button = gr.Button("Compute", variant="primary")
    figures = gr.JSON(label="Figures")
    with gr.Accordion("What goes in, what comes out", open=False):
        gr.Markdown(f"```text\n{METRIC.inputs_description.strip()}\n```")
    button.click(compute, [predictions_box, references_box, settings_box], figures)

if __name__ == "__main__":
    demo.launch()
