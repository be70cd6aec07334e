"""Conversion of a published AVSR checkpoint, or one of a front-end, to a folder that `from_pretrained` reads."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from lookhear.evaluation.whole_files import whole_folder
from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration, AvsrForVideoClassification
from lookhear.modeling.avsr.configuration_avsr import speech_front_end
from lookhear.modeling.avsr.convert_avsr import (
    config_from_state_dict,
    convert_state_dict,
    is_classifier,
    is_recogniser,
    is_resnet,
    speech_encoder_config,
)
from lookhear.processing.avsr import AvsrProcessor, AvsrTokenizer, MouthRoiImageProcessor
from lookhear.training.avsr.export import save_checkpoint
from lookhear.training.avsr.initialise import (
    load_resnet,
    load_speech_encoder,
    sound_extractor,
    speech_encoder_config_of,
)
from lookhear.training.checkpoint_files import (
    check_new_folder,
    check_weights,
    load_config,
    read_checkpoint,
)

LRW_MEAN, LRW_STD = 0.413621, 0.1700239  # of the pixels
LRW_WORDS = 500


def convert_checkpoint(
    source: str | os.PathLike, output: str | os.PathLike, *, config: str | os.PathLike | None = None
) -> Path:
    """
    Converts one checkpoint. The folder appears once it is complete, or not at all.

    The reference code's recognisers and word classifiers become the same models here. A front-end's checkpoint becomes
    the model that the paper trains from it: an audio recogniser around a speech encoder, a word classifier around a
    ResNet; the rest of it is untrained.

    Args:
        source: the reference code's checkpoint (Lightning or bare; AO, VO, AV or LRW), a MoCo v2 or torchvision
            ResNet, fairseq's wav2vec 2.0: files, from which nothing is executed; or a folder or Hub id of a wav2vec2,
            wav2vec2-conformer, HuBERT, WavLM, w2v-BERT or Whisper model.
        output: folder to create; one that is not empty is refused.
        config: folder or `config.json` of an `AvsrConfig`, if the sizes cannot be read off the weights or another
            model is to be built around a front-end.

    Returns:
        The folder.

    Raises:
        ValueError: the file is unsafe, damaged or of another kind, the output exists already, or weights are missing,
            unknown or of another shape.
    """
    output = check_new_folder(output)
    model = load_published_model(source, None if config is None else load_config(config, AvsrConfig))
    with whole_folder(output) as folder:
        save_model(model, folder)
    return output


def load_published_model(source: str | os.PathLike, config: AvsrConfig | None = None) -> PreTrainedModel:
    """Returns the model of [`convert_checkpoint`] in float32 and evaluation mode."""
    if not Path(source).is_file():
        encoder = speech_encoder_config_of(source)
        audio = {"front_end": speech_front_end(encoder), "encoder_config": encoder}
        model = _new_model(config, modality="audio", audio_config=audio)
        load_speech_encoder(model.model.encoder.audio_front_end, source)
        return model
    weights = read_checkpoint(source)
    if is_recogniser(weights) or is_classifier(weights):
        return load_published_weights(weights, config)
    if is_resnet(weights):
        classifier = _new_classifier(config)
        load_resnet(classifier.get_submodule("visual_front_end"), source)
        return classifier
    settings = None if config is not None else speech_encoder_config(weights)
    model = _new_model(config, modality="audio", audio_config={"encoder_config": settings})
    load_speech_encoder(model.model.encoder.audio_front_end, source)
    return model


def load_published_weights(weights: Mapping[str, torch.Tensor], config: AvsrConfig | None = None) -> PreTrainedModel:
    """
    Returns the reference code's model in float32 and evaluation mode; no weight of it is left at random.

    Args:
        weights: published names.
        config: used instead of the one that is read off the weights.

    Raises:
        ValueError: the weights are not exactly those of the model.
    """
    kind = AvsrForVideoClassification if is_classifier(weights) else AvsrForConditionalGeneration
    config = config_from_state_dict(weights) if config is None else config
    converted = convert_state_dict(weights)
    with torch.device("meta"):
        empty = kind(config)
    check_weights(converted, empty.state_dict())
    for name, other in empty.get_expanded_tied_weights_keys(all_submodels=True).items():
        if not torch.equal(converted[name], converted[other]):
            raise ValueError(f"checkpoint: {name} and {other} differ, but the configuration ties them")
    converted = {name: value.float() if value.is_floating_point() else value for name, value in converted.items()}
    return kind.from_pretrained(None, config=config, state_dict=converted).eval()


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Writes the model, its processor and, for a recogniser, the code that loads it without lookhear."""
    crop_size = model.config.visual_config.crop_size
    if isinstance(model, AvsrForConditionalGeneration):
        images = MouthRoiImageProcessor(crop_size=crop_size)
    else:
        images = MouthRoiImageProcessor(crop_size=crop_size, image_mean=LRW_MEAN, image_std=LRW_STD)
    processor = AvsrProcessor(sound_extractor(model.config.audio), images, AvsrTokenizer())
    if isinstance(model, AvsrForConditionalGeneration):
        save_checkpoint(model, processor, folder, half=False)
        return
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _new_model(config: AvsrConfig | None, **fields: Any) -> AvsrForConditionalGeneration:
    torch.manual_seed(0)
    return AvsrForConditionalGeneration(AvsrConfig(**fields) if config is None else config).eval()


def _new_classifier(config: AvsrConfig | None) -> AvsrForVideoClassification:
    torch.manual_seed(0)
    if config is None:
        config = AvsrConfig(modality="visual", num_labels=LRW_WORDS)  # type: ignore[call-arg]  # makes id2label of it
    return AvsrForVideoClassification(config).eval()
