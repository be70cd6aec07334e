"""The card of a checkpoint that has none: what it is, how it was trained, and what was measured on the way."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lookhear.publishing.training_run import RunFacts

LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True)
class Kind:
    """
    What a card says about every model of one class.

    Attributes:
        tag: the Hub's task.
        tags: further tags.
        does: what the model does, a sentence.
        code: lines that use it, with `{model}` for its name.
        consent: what it must not be used for, sentences.
    """

    tag: str
    tags: tuple[str, ...]
    does: str
    code: str
    consent: str


LIPS = (
    "Reading lips can tell what people did not mean to be heard. Use it with the consent of the people in the pictures"
    " and the recording, not for surveillance, and base no decision about a person on what it reads. It always returns"
    " a guess: silent lips, another language or a hidden mouth yield words as well."
)
SIGHT = (
    "It finds and outlines what a prompt names or shows, people included. Use it with the consent of the people in the"
    " pictures, not for surveillance or to recognise them, and base no decision about a person on it."
)
PIPELINE = """\
import lookhear
from transformers import pipeline

"""
KINDS = {
    "AvsrForConditionalGeneration": Kind(
        "automatic-speech-recognition",
        ("audio-visual-speech-recognition", "lip-reading"),
        "Reads speech from sound, from lips, or from both, as far as it was trained to (`modality` in `config.json`).",
        PIPELINE + 'read = pipeline("audio-visual-speech-recognition", model="{model}")\nread("clip.mp4")',
        LIPS,
    ),
    "AvsrForVideoClassification": Kind(
        "video-classification",
        ("lip-reading",),
        "Says which word of its list a short clip of lips shows.",
        """\
import lookhear
from transformers import AutoModelForVideoClassification, AutoProcessor

model = AutoModelForVideoClassification.from_pretrained("{model}")
processor = AutoProcessor.from_pretrained("{model}")
inputs = processor(videos=[frames])  # (frames, height, width, 3) uint8 at 25 frames a second
word = model.config.id2label[model(**inputs).logits.argmax(-1).item()]""",
        LIPS,
    ),
    "GleeForObjectDetection": Kind(
        "zero-shot-object-detection",
        ("object-perception", "instance-segmentation", "referring-expressions"),
        "Finds and segments the objects that a label, a sentence, a point, a box, a scribble or a mask names.",
        PIPELINE + 'see = pipeline("object-perception", model="{model}")\nsee("picture.jpg", labels=["person"])',
        SIGHT,
    ),
    "LisaGleeForReasoningSegmentation": Kind(
        "image-text-to-text",
        ("reasoning-segmentation",),
        "Answers questions about a picture, and segments the objects that the answer is about.",
        PIPELINE
        + 'ask = pipeline("reasoning-segmentation", model="{model}")\nask("picture.jpg", "What could roll away?")',
        SIGHT,
    ),
}


def make_card(folder: Path, architecture: str | None, facts: RunFacts, repo: str, licence: str) -> str:
    """
    Writes the card of a checkpoint.

    Args:
        folder: of the checkpoint; for messages.
        architecture: class of the model, as `config.json` names it.
        facts: about the training.
        repo: "ORG/NAME" on the Hub.
        licence: the Hub's identifier of the weights' licence, such as `cc-by-4.0`.

    Raises:
        ValueError: the licence is no identifier, or no card is known for such a model.
    """
    if licence == "other" or not LICENCE.fullmatch(licence):
        raise ValueError(
            f"--license {licence!r} must be an identifier that the Hub lists, such as cc-by-4.0 or apache-2.0; for "
            f"another licence write {folder}/README.md with license: other, license_name and license_link"
        )
    if architecture not in KINDS:
        raise ValueError(f"{folder} has no README.md, and of a {architecture} none can be made: write one")
    kind, name = KINDS[architecture], repo.split("/")[1]
    head: dict[str, Any] = {"license": licence, "library_name": "transformers", "pipeline_tag": kind.tag}
    head |= {"tags": [*kind.tags, "lookhear"]}
    data = ", ".join(_data(facts.recipe)) or "the data that it was trained on"
    return f"""\
---
{yaml.safe_dump(head, sort_keys=False)}---

# {name}

{kind.does}

```python
{kind.code.replace("{model}", repo)}
```

Without lookhear, pass `trust_remote_code=True`: the code is in the repository.

## Results

{_results(facts)}
## How it was made

{_making(facts)}
## Limits

It was measured on nothing but what is listed above. How well it does on other recordings, speakers, pictures or words
is not known.

## Consent and misuse

{kind.consent}

## Licence

The weights are under the licence that the head of this card names. They derive from {data}, so the terms of those
licences apply to them, too. The code in this repository is under Apache-2.0.
"""


def _results(facts: RunFacts) -> str:
    if not facts.measured:
        return "Nothing was measured while it was trained.\n"
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in facts.measured.items() if _is_number(value))
    validation = ", ".join(_names((facts.recipe.get("data") or {}).get("validation")))
    on = f" on {validation}" if validation else " on its validation data"
    return f"""\
Measured{on} at step {facts.measured_at} of the training; rates are fractions. If these figures chose the checkpoint,
they are slightly optimistic.

| measure | value |
|---|---|
{rows}
"""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _making(facts: RunFacts) -> str:
    model, training = facts.recipe.get("model") or {}, facts.recipe.get("training") or {}
    lines = []
    if data := _data(facts.recipe):
        lines.append(f"Data: {', '.join(data)}.")
    starts = [model.get(name) for name in ("checkpoint", "perception", "language", "backbone", "text")]
    starts += [source.get("checkpoint") for source in model.get("initialise") or [] if isinstance(source, dict)]
    if named := list(dict.fromkeys(f"`{_name(start)}`" for start in starts if isinstance(start, str))):
        lines.append(f"It starts from {', '.join(named)}.")
    if facts.steps is not None:
        lines.append(f"{facts.steps} steps{_settings(training)}.")
    if not lines:
        return "The run did not record its recipe.\n"
    return "".join(f"- {line}\n" for line in lines)


def _settings(training: dict[str, Any]) -> str:
    """Describes the settings that matter most, of those that the recipe has."""
    parts = []
    if (batch := training.get("per_device_train_batch_size")) is not None:
        steps = training.get("gradient_accumulation_steps") or 1
        parts.append(f" of {batch * steps} examples in each process")
    if (rate := training.get("learning_rate")) is not None:
        parts.append(f" at a learning rate of {rate:g}")
    if (seed := training.get("seed")) is not None:
        parts.append(f" with seed {seed}")
    return ",".join(parts)


def _data(recipe: dict[str, Any]) -> list[str]:
    """Names the training data, without the folders that they were in."""
    data = recipe.get("data") or {}
    if "sources" in data:
        sources = [source for source in data["sources"] or [] if isinstance(source, dict)]
        return list(dict.fromkeys(f"`{source.get('reader')}`" for source in sources))
    if "train" in data:
        return _names(data["train"])
    return ["generated scenes"] if data else []


def _names(folders: Any) -> list[str]:
    return [f"`{Path(str(folder)).name}`" for folder in folders or []]


def _name(start: str) -> str:
    """Returns a Hub id whole, and of a path its last part: the rest is about a machine."""
    is_id = start.count("/") == 1 and not start.startswith((".", "/", "~")) and not Path(start).exists()
    return start if is_id else Path(start).name
