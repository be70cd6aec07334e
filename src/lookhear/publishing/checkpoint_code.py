"""The code of a checkpoint, written from this package: what loads it where lookhear is not installed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoConfig, AutoProcessor, Pipeline, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from lookhear import (
    AudioVisualSpeechRecognitionPipeline,
    AvsrForConditionalGeneration,
    AvsrForVideoClassification,
    GleeForObjectDetection,
    LisaGleeForReasoningSegmentation,
    ObjectPerceptionPipeline,
    ReasoningSegmentationPipeline,
)
from lookhear.processing.avsr.face_networks_avsr import EXPORTED, FILES, weights_path
from lookhear.processing.avsr.landmarks_avsr import DETECTORS
from lookhear.publishing.publication import PublishedFile

# class of a model -> the class and its pipeline here; None: it is for one of transformers' own
PUBLISHED: dict[str, tuple[type[PreTrainedModel], type[Pipeline] | None]] = {
    "AvsrForConditionalGeneration": (AvsrForConditionalGeneration, AudioVisualSpeechRecognitionPipeline),
    "AvsrForVideoClassification": (AvsrForVideoClassification, None),
    "GleeForObjectDetection": (GleeForObjectDetection, ObjectPerceptionPipeline),
    "LisaGleeForReasoningSegmentation": (LisaGleeForReasoningSegmentation, ReasoningSegmentationPipeline),
}
NAMES_CODE = ("auto_map", "custom_pipelines")  # the keys by which transformers finds code beside a configuration
RUNS_FACE_NETWORKS = "face_networks_avsr.py"  # the code that needs their weights


def with_code(folder: Path, files: dict[str, PublishedFile]) -> dict[str, PublishedFile]:
    """
    Adds the current code to a checkpoint's files, and its names to their configurations.

    Both are what the `save_pretrained` of the pipeline, or of model and processor, writes. Weights are neither read
    nor written, the folder stays as it is, and the configurations stay the same otherwise.

    Args:
        folder: the checkpoint.
        files: path -> file, of the folder.

    Returns:
        The same with the code, which takes the place of older code of the same name.

    Raises:
        ValueError: the folder holds no model of this package, or no processor.
    """
    files = dict(files)
    with tempfile.TemporaryDirectory() as written, _no_progress_bar():
        model, processor, pipeline_class = _without_weights(folder, files)
        if pipeline_class is None:
            model.save_pretrained(written, state_dict={})
            processor.save_pretrained(written)
        else:
            pipeline_class(model, processor=processor, device=torch.device("meta")).save_pretrained(
                written, state_dict={}
            )
        for file in sorted(Path(written).iterdir()):
            if file.suffix == ".py":
                files[file.name] = PublishedFile(file.name, file.read_bytes())
            elif file.suffix == ".json" and file.name in files:
                before = json.loads(files[file.name].read())
                if (named := _with_names(before, json.loads(file.read_bytes()))) != before:
                    text = json.dumps(named, indent=2, ensure_ascii=False) + "\n"
                    files[file.name] = PublishedFile(file.name, text.encode())
    return files


def with_face_networks(files: dict[str, PublishedFile]) -> dict[str, PublishedFile]:
    """
    Adds the networks that find faces to a checkpoint whose processor needs them, with their card, licence and notice.

    Args:
        files: path -> file, with the code. What there is of the networks' files stays as it is.

    Returns:
        The same, or with the networks.

    Raises:
        ImportError: this package lacks them.
    """
    if RUNS_FACE_NETWORKS not in files or _landmarks(files) != "mesh":
        return files
    packaged = weights_path().parent
    networks = {f"{EXPORTED}/{name}": packaged / name for name in FILES}
    return {path: PublishedFile(path, file) for path, file in networks.items()} | files


def _landmarks(files: dict[str, PublishedFile]) -> str:
    """Returns the name of what finds landmarks for a checkpoint: earlier ones do not name it."""
    settings = json.loads(files["processor_config.json"].read()) if "processor_config.json" in files else {}
    return (settings.get("image_processor") or {}).get("landmarks", DETECTORS[0])


def _without_weights(
    folder: Path, files: dict[str, PublishedFile]
) -> tuple[PreTrainedModel, ProcessorMixin, type[Pipeline] | None]:
    """
    Makes the checkpoint's processor and its model without weights, and returns its pipeline's class: saving needs
    classes and settings.
    """
    kind = next(iter(json.loads(files["config.json"].read()).get("architectures") or []), None)
    if kind not in PUBLISHED:
        raise ValueError(
            f"{folder}/config.json: its architecture is {kind}; these can be published: {', '.join(PUBLISHED)}"
        )
    if "processor_config.json" not in files:
        raise ValueError(
            f"{folder} lacks processor_config.json; save the processor beside the model (save_pretrained)"
        )
    model_class, pipeline_class = PUBLISHED[kind]
    with torch.device("meta"):
        model = model_class(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    return model, AutoProcessor.from_pretrained(folder, trust_remote_code=False), pipeline_class


def _with_names(ours: dict, written: dict) -> dict:
    """Copies `auto_map` and `custom_pipelines` from one configuration into another, at any depth."""
    named = dict(ours)
    for key, value in written.items():
        if key in NAMES_CODE:
            named[key] = value
        elif isinstance(value, dict) and isinstance(ours.get(key), dict):
            named[key] = _with_names(ours[key], value)
    return dict(sorted(named.items()))  # as transformers writes configurations


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Hides transformers' progress bar, which would show 0 weights."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
