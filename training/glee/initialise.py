"""Models to start training from, with the parts that only training needs, and their removal."""

from typing import Any

from transformers import AutoTokenizer, CLIPTextModel, ResNetBackbone, ResNetConfig, SwinBackbone, SwinConfig

from lookhear.modeling.glee import GleeConfig, GleeForObjectDetection
from lookhear.modeling.glee.convert_glee import convert_eva_state_dict
from lookhear.processing.glee import GleeImageProcessor, GleeProcessor
from lookhear.training.checkpoint_files import read_checkpoint

# The norms after a Swin's stages and EVA-02's pyramid belong to detectors: a backbone trained alone has none.
DETECTOR_PARTS = ("hidden_states_norms.", "pyramid.")
SIZES = {"lite": GleeConfig.lite, "plus": GleeConfig.plus, "pro": GleeConfig.pro}


def check_glee(checkpoint: str) -> None:
    """
    Checks that a checkpoint is one of GLEE, by its configuration.

    Args:
        checkpoint: folder or Hub id.

    Raises:
        ValueError: there is none, or it is of another model.
    """
    try:
        fields, _ = GleeConfig.get_config_dict(checkpoint)
    except (OSError, ValueError, TypeError):
        fields = {}
    if not fields.get("model_type"):
        raise ValueError(
            f"model {checkpoint!r} is no checkpoint: there is no such folder with a config.json, and the Hub has none "
            "or cannot be reached; convert a published .pth by `lookhear convert glee`"
        )
    if (kind := fields["model_type"]) != GleeConfig.model_type:
        raise ValueError(f"model {checkpoint!r} is a checkpoint of {kind}, not of GLEE: name another one")


def load_for_training(checkpoint: str, **config: Any) -> GleeForObjectDetection:
    """
    Loads a checkpoint's model, with other fields of its configuration.

    A text teacher (`text_teacher=True`) that the checkpoint doesn't hold becomes a copy of its text encoder; missing
    denoising tables (`denoising_tables={name: rows}`) start at random.
    """
    # transformers annotates the model alone, without what `output_loading_info` adds.
    loaded: Any = GleeForObjectDetection.from_pretrained(checkpoint, output_loading_info=True, **config)
    model, found = loaded
    if any(".text_teacher." in name for name in found["missing_keys"]):
        model.model.text_teacher.load_state_dict(model.model.text_encoder.clip.state_dict())
    return model


def new_model(
    size: str, config: dict[str, Any], backbone: str | None = None, text: str | None = None
) -> GleeForObjectDetection:
    """
    Makes a new model with a pretrained backbone and text encoder, if given; the rest is random.

    Args:
        size: `lite`, `plus` or `pro`.
        config: fields of `GleeConfig` that differ.
        backbone: folder or Hub id of a ResNet or Swin of the same sizes, or an EVA-02 file.
        text: folder or Hub id of a CLIP.

    Raises:
        ValueError: no such size, or weights that don't fit.
    """
    if size not in SIZES:
        raise ValueError(f"model.size must be one of {', '.join(SIZES)}, not {size!r}")
    model = GleeForObjectDetection(SIZES[size](**config))
    if text is not None:
        weights = CLIPTextModel.from_pretrained(text).state_dict()
        model.model.text_encoder.clip.load_state_dict(weights)
    if model.config.text_teacher:
        model.model.text_teacher.load_state_dict(model.model.text_encoder.clip.state_dict())
    if backbone is not None:
        load_backbone(model, backbone)
    return model


def load_backbone(model: GleeForObjectDetection, backbone: str) -> None:
    """
    Loads one of transformers' backbones, or an EVA-02 as its authors publish it (a file, patches of 16 pixels).

    Raises:
        ValueError: some that the model needs are missing or of another shape.
    """
    config = model.config.backbone_config
    if isinstance(config, ResNetConfig):
        weights = ResNetBackbone.from_pretrained(backbone, out_features=config.out_features).state_dict()
    elif isinstance(config, SwinConfig):
        weights = SwinBackbone.from_pretrained(backbone, out_features=config.out_features).state_dict()
    else:
        weights = convert_eva_state_dict(read_checkpoint(backbone))
    needed = model.model.backbone.state_dict()
    wrong = [name for name, value in needed.items() if name in weights and weights[name].shape != value.shape]
    missing = [name for name in needed if name not in weights and not name.startswith(DETECTOR_PARTS)]
    if wrong or missing:
        raise ValueError(f"model.backbone {backbone!r} does not fit: {', '.join((wrong + missing)[:5])}")
    model.model.backbone.load_state_dict({name: weights[name] for name in needed if name in weights}, strict=False)


def new_processor(size: str, text: str | None) -> GleeProcessor:
    """
    Makes the published image processor of a size, with CLIP's tokenizer. Raises ValueError if `text` is not given.
    """
    if text is None:
        raise ValueError(
            "model.text must name a CLIP, whose tokenizer a new model uses (openai/clip-vit-base-patch32)"
        )
    images = GleeImageProcessor.pro() if size == "pro" else GleeImageProcessor()
    return GleeProcessor(images, AutoTokenizer.from_pretrained(text))


def drop_training_parts(model: GleeForObjectDetection) -> None:
    """Removes text teacher and denoising tables from a model, in place."""
    if model.config.text_teacher:
        del model.model.text_teacher
    if model.config.denoising_tables:
        del model.model.denoising_labels
    model.config.text_teacher, model.config.denoising_tables = False, None
