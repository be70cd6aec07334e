"""The model card of a fine-tuned checkpoint: its data, its training, and its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from transformers import TrainerState, TrainingArguments

if TYPE_CHECKING:
    from lookhear.training.glee.fine_tuning.fine_tune import FineTuneOptions

NAMES = {"box_AP": "box AP", "box_AP50": "box AP50", "box_AP75": "box AP75"}
NAMES |= {name.replace("box", "mask"): text.replace("box", "mask") for name, text in NAMES.items()}
# Only the author knows the licence. `lookhear publish` refuses a licence that is called "other" and has no name.
LICENCE = """\
license: other
# Name a licence that suits you, and that the licences of the data and of the base model allow:
# license_name: cc-by-4.0
# license_link: https://creativecommons.org/licenses/by/4.0/
"""


@dataclass(frozen=True)
class FineTuneFacts:
    """
    Facts for a card.

    Attributes:
        options: of the training.
        classes: names of the classes.
        arguments: of the training, as they were used.
        state: of the training.
        metrics: of the result, in [0, 1].
        held_out: whether the pictures evaluated on were held out of training.
        masks: whether masks were trained and evaluated, too.
        trained: number of pictures trained on.
        measured: number of pictures evaluated on.
        unmasked: number of objects to train on that have no mask.
    """

    options: FineTuneOptions
    classes: Sequence[str]
    arguments: TrainingArguments
    state: TrainerState
    metrics: dict[str, float]
    held_out: bool
    masks: bool
    trained: int
    measured: int
    unmasked: int = 0

    @property
    def batch(self) -> int:
        """Returns the number of pictures of a step, in all processes."""
        per_process = self.options.batch_size * self.arguments.gradient_accumulation_steps
        return per_process * self.arguments.world_size


def write_card(path: Path, facts: FineTuneFacts, threshold: float) -> None:
    """
    Writes `README.md` with its metadata, in which the author has to name the licence before it can be published.

    Args:
        path: of the file.
        facts: about the training.
        threshold: lowest score of the objects on the contact sheet, in [0, 1].
    """
    options, found = facts.options, [name for name in NAMES if name in facts.metrics]
    count = facts.measured
    measured_on = f"{count} held-out pictures" if facts.held_out else f"The {count} pictures that it was trained on"
    classes = ", ".join(facts.classes[:50]) + (" …" if len(facts.classes) > 50 else "")
    rows = [f"| {NAMES[name]} | {100 * facts.metrics[name]:.1f} |" for name in found]
    shown = ", ".join(f'"{name}"' for name in facts.classes[:3])
    warning = (
        ""
        if facts.held_out
        else "**No picture was held out: these figures only show how well the model remembers its training pictures.**"
        "\n\n"
    )
    lacking = f"; {facts.unmasked} objects have no mask" if facts.unmasked else ""
    annotated = f"boxes and masks{lacking}" if facts.masks else f"boxes only{lacking}"
    text = f"""\
# {Path(options.output).name}

GLEE, fine-tuned from `{options.model}` on {facts.trained} pictures with {len(facts.classes)} classes: {classes}.

```python
import lookhear
from transformers import pipeline

see = pipeline("object-perception", model="{Path(options.output).name}")
see("picture.jpg")  # the classes above; others: labels=[{shown}]
```

Without lookhear: `pipeline("object-perception", model=..., trust_remote_code=True)`; the code is in the folder.

![found beside annotated](contact_sheet.jpg)

Pairs of detections with a score of {threshold} or more and annotations: the first pictures of the evaluation, not
chosen by hand.

## Results

{measured_on}: COCO's average precision (pycocotools) in percent, picture by picture, with all classes as labels.

{warning}| measure | value |
|---|---|
{chr(10).join(rows)}

{_class_table(facts)}{_epoch_table(facts, found)}## How it was made

- Data: `{Path(options.data).name}`{_shots(facts)}.
- {facts.state.global_step} steps of {facts.batch} pictures, learning rate {facts.arguments.learning_rate:g}
  (backbone x {options.optimiser.backbone:g}), text encoder {options.text}, {annotated}.{_frozen(facts)}
{_choice(facts)}
## Limits

It was fine-tuned on the classes above. How well it does on other words, sentences, points and boxes since then was not
measured.

## Consent and misuse

It finds, outlines and tracks what a prompt names or shows, people included. Use it with the consent of the people in
the pictures, not for surveillance or to recognise them, and base no decision about a person on it. The training did
not check whether its pictures show people, or whether they agreed.

## Licence

The weights are under the licence in `license_name` above. They derive from `{options.model}` and the pictures of
`{Path(options.data).name}`, so the terms of both licences apply to them, too. The code in this folder is under
Apache-2.0.
"""
    head = yaml.safe_dump(_metadata(facts, found), sort_keys=False, allow_unicode=True)
    path.write_text(f"---\n{LICENCE}{head}---\n\n{text}", encoding="utf-8")


def _frozen(facts: FineTuneFacts) -> str:
    """Says which parts did not learn, and whether the training stopped early."""
    parts, said = facts.options.freeze, ""
    if parts:
        said += f"\n  Frozen: {', '.join(parts)}."
    if facts.state.global_step < facts.arguments.max_steps:
        said += f"\n  It stopped after {facts.options.patience} evaluations in a row without a better one."
    return said


def _shots(facts: FineTuneFacts) -> str:
    """Says which of the pictures were used; nothing if all were."""
    options = facts.options
    if options.shots is None:
        return ""
    shots = f"{options.shots} object{'s' if options.shots > 1 else ''} or more of each class"
    return f", {shots}: {facts.trained} of its pictures, chosen by seed {options.seed}"


def _choice(facts: FineTuneFacts) -> str:
    if facts.state.best_metric is None or not facts.arguments.load_best_model_at_end:
        return ""
    return f"""\
- This is the checkpoint, of those {_times(facts)}, with the best average precision on the pictures above, which makes
  the figures slightly optimistic.
"""


def _times(facts: FineTuneFacts) -> str:
    """Says when was evaluated."""
    steps = facts.options.training.get("eval_steps")
    return "after each epoch" if steps is None else f"after every {steps:g} steps"


def _metadata(facts: FineTuneFacts, found: Sequence[str]) -> dict[str, Any]:
    name = Path(facts.options.output).name
    task = {"type": "zero-shot-object-detection"}
    dataset = {"name": Path(facts.options.validation or facts.options.data).name, "type": "coco-format"}
    metrics = [
        {"type": "mean_average_precision", "name": NAMES[key], "value": round(100 * facts.metrics[key], 2)}
        for key in found
    ]
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": task["type"]}
    head |= {"tags": ["object-perception", "object-detection", "instance-segmentation", "glee", "lookhear"]}
    if not Path(facts.options.model).exists():
        head["base_model"] = facts.options.model
    return head | {
        "model-index": [{"name": name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}]
    }


def _class_table(facts: FineTuneFacts) -> str:
    kinds = ["box", "mask"] if facts.masks else ["box"]
    lines = []
    for label in facts.classes:
        values = [facts.metrics[f"{kind}_AP_{label}"] for kind in kinds if f"{kind}_AP_{label}" in facts.metrics]
        if len(values) == len(kinds):
            lines.append(f"| {label} | " + " | ".join(f"{100 * value:.1f}" for value in values) + " |")
    head = "| class | " + " | ".join(f"{kind} AP" for kind in kinds) + " |\n|---|" + "---|" * len(kinds)
    return head + "\n" + "\n".join(lines) + "\n\n" if lines else ""


def _epoch_table(facts: FineTuneFacts, found: Sequence[str]) -> str:
    measured = [entry for entry in facts.state.log_history if "eval_box_AP" in entry]
    if not measured:
        return ""
    lines = [
        f"| {entry['step']} | " + " | ".join(f"{100 * entry[f'eval_{name}']:.1f}" for name in found) + " |"
        for entry in measured
    ]
    head = f"{_times(facts).capitalize()}:\n\n| step | " + " | ".join(NAMES[name] for name in found) + " |\n|---|"
    return head + "---|" * len(found) + "\n" + "\n".join(lines) + "\n\n"
