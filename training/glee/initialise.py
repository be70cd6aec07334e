"""A checkpoint with what only training needs, and without it again."""

from typing import Any

from lookhear.modeling.glee import GleeForObjectDetection


def load_for_training(checkpoint: str, **config: Any) -> GleeForObjectDetection:
    """
    The checkpoint's model, with other fields of its configuration.

    A text teacher (`text_teacher=True`) that the checkpoint doesn't hold becomes a copy of its text encoder; missing
    denoising tables (`denoising_tables={name: rows}`) start at random.
    """
    model, found = GleeForObjectDetection.from_pretrained(checkpoint, output_loading_info=True, **config)
    if any(".text_teacher." in name for name in found["missing_keys"]):
        model.model.text_teacher.load_state_dict(model.model.text_encoder.clip.state_dict())
    return model


def drop_training_parts(model: GleeForObjectDetection) -> None:
    """Takes text teacher and denoising tables out of a model, in place."""
    if model.config.text_teacher:
        del model.model.text_teacher
    if model.config.denoising_tables:
        del model.model.denoising_labels
    model.config.text_teacher, model.config.denoising_tables = False, None
