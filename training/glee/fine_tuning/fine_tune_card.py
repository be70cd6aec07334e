"""The model card of a fine-tuned checkpoint: what it was made of, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from transformers import TrainerState

if TYPE_CHECKING:
    from lookhear.training.glee.fine_tuning.fine_tune import FineTuneOptions

NAMES = {"box_AP": "box AP", "box_AP50": "box AP50", "box_AP75": "box AP75"}
NAMES |= {name.replace("box", "mask"): text.replace("box", "mask") for name, text in NAMES.items()}
# Only the author knows it. `lookhear publish` refuses a licence that is called "other" and has no name.
LICENCE = """\
license: other
# What do you allow, and what do the licences of the data and of the model it was made from? Say it here:
# license_name: cc-by-4.0
# license_link: https://creativecommons.org/licenses/by/4.0/
"""


@dataclass(frozen=True)
class FineTuneFacts:
    """
    What a card says.

    Attributes:
        trained, measured: numbers of pictures; held_out: whether those measured on were kept out of training.
        state: of the training; metrics: of the result, from 0 to 1.
    """

    options: FineTuneOptions
    classes: Sequence[str]
    trained: int
    measured: int
    held_out: bool
    masks: bool
    state: TrainerState
    metrics: dict[str, float]


def write_card(path: Path, facts: FineTuneFacts, threshold: float) -> None:
    """
    Writes `README.md` with its metadata, in which the author has to name the licence before it can be published.

    Args:
        threshold: lowest score of what the contact sheet shows.
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
        else "**No picture was held out: these figures say how well it remembers, nothing else.**\n\n"
    )
    text = f"""\
# {Path(options.output).name}

GLEE, fine-tuned from `{options.model}` on {facts.trained} pictures with {len(facts.classes)} classes: {classes}.

```python
import lookhear
from transformers import pipeline

see = pipeline("object-perception", model="{Path(options.output).name}")
see("picture.jpg", labels=[{shown}])
```

Without lookhear: `pipeline("object-perception", model=..., trust_remote_code=True)`; the code is in the folder.

![found beside annotated](contact_sheet.jpg)

Pairs: what it finds with a score of {threshold} or more, and what is annotated; the first pictures of those measured on, not
chosen by hand.

## Results

{measured_on}: COCO's average precision (pycocotools) in percent, picture by picture, with all classes as labels
for.

{warning}| measure | value |
|---|---|
{chr(10).join(rows)}

{_class_table(facts)}{_epoch_table(facts, found)}## How it was made

- Data: `{Path(options.data).name}`.
- {facts.state.global_step} steps of {options.batch_size} pictures a process, learning rate {options.learning_rate:g}
  (backbone x {options.optimiser.backbone:g}), text encoder {options.text}, {"boxes and masks" if facts.masks else "boxes only: not every object has a mask"}.
{_choice(facts)}
## Limits

It was taught the classes above; what it makes of other words, sentences, points and boxes after this training was not measured.

## Consent and misuse

It finds and outlines what is named or shown to it, people too, and follows them through videos. Use it with the consent of those
who are seen, not to watch or to recognise them, and let no decision about a person rest on it. Whether people are in the pictures
that it was trained on, and agreed to that, was not looked at in training.

## Licence

The weights are under the licence that `license_name` above names. They were made from `{options.model}` and from the pictures of
`{Path(options.data).name}`, and whatever the licences of both ask for holds for them, too. The code in this folder is under
Apache-2.0.
"""
    head = yaml.safe_dump(_metadata(facts, found), sort_keys=False, allow_unicode=True)
    path.write_text(f"---\n{LICENCE}{head}---\n\n{text}", encoding="utf-8")


def _choice(facts: FineTuneFacts) -> str:
    if facts.state.best_metric is None:
        return ""
    return """\
- Of the checkpoints after each epoch this is the one with the best average precision on the pictures above, which flatters
  the figures a little.
"""


def _metadata(facts: FineTuneFacts, found: Sequence[str]) -> dict[str, Any]:
    name = Path(facts.options.output).name
    task = {"type": "zero-shot-object-detection"}
    dataset = {"name": Path(facts.options.validation or facts.options.data).name, "type": "coco-format"}
    metrics = [
        {"type": "mean_average_precision", "name": NAMES[key], "value": round(100 * facts.metrics[key], 2)}
        for key in found
    ]
    head = {"library_name": "transformers", "pipeline_tag": task["type"]}
    head |= {"tags": ["object-detection", "instance-segmentation", "glee", "lookhear"]}
    if not Path(facts.options.model).exists():
        head["base_model"] = facts.options.model
    return head | {
        "model-index": [{"name": name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}]
    }


def _class_table(facts: FineTuneFacts) -> str:
    kinds = ["box", "mask"] if facts.masks else ["box"]
    lines = []
    for label in facts.classes:
        values = [facts.metrics.get(f"{kind}_AP_{label}") for kind in kinds]
        if values[0] is not None:
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
    head = "After each epoch:\n\n| step | " + " | ".join(NAMES[name] for name in found) + " |\n|---|"
    return head + "---|" * len(found) + "\n" + "\n".join(lines) + "\n\n"
