"""Measurement while training on scenes: labels, sentences and visual prompts on scenes that are never trained on."""

import numpy as np
from transformers import pipeline

from lookhear.modeling.glee import GleeForObjectDetection
from lookhear.processing.glee import GleeProcessor
from lookhear.training.glee.scenes.evaluate_photos import ask_photos, default_thresholds, figures
from lookhear.training.glee.scenes.evaluate_scenes import SceneEvaluation
from lookhear.training.glee.scenes.recipe import GleeRecipe
from lookhear.training.glee.scenes.scenes import SceneMaterial


class SceneValidation:
    """
    Measures a model on a recipe's number of scenes, the same ones each time.

    Args:
        recipe: of the training.
        material: photos and people of the scenes.
    """

    def __init__(self, recipe: GleeRecipe, material: SceneMaterial | None = None):
        self.recipe, self.material = recipe, material
        self.photos = recipe.data.people_photos(held_out=True) if recipe.validation.people else []

    def __call__(self, model: GleeForObjectDetection, processor: GleeProcessor) -> dict[str, float]:
        """
        Returns `labels_box_AP50` and `labels_mask_AP50` of the eight kinds and people, `expressions_P50`, the share of
        the sentences whose box has an IoU above 0.5, and `masks_mIoU` and so on of each kind of visual prompt; without
        those of which the scenes have none. With `validation.people` also the figures of `evaluate_photos`.
        """
        training = model.training
        try:
            found = self._on_scenes(model, processor) if self.recipe.validation.scenes else {}
            if self.photos:
                see = pipeline("object-perception", model=model, processor=processor)  # type: ignore[call-overload]  # lists its own tasks only
                found |= figures(ask_photos(see, self.photos), *default_thresholds(see))
        finally:
            model.train(training)
        return {name: value for name, value in found.items() if value == value}

    def _on_scenes(self, model: GleeForObjectDetection, processor: GleeProcessor) -> dict[str, float]:
        data = self.recipe.data
        evaluation = SceneEvaluation(model, processor, data.canvases[0], material=self.material)
        scenes = evaluation.scenes(self.recipe.validation.scenes, data.scene_recipe())
        precision = evaluation.average_precision(scenes, "kind")
        said = [iou for ious in evaluation.expressions(scenes).values() for iou in ious]
        shown = evaluation.prompts(scenes)
        found = {"labels_box_AP50": precision["bbox"], "labels_mask_AP50": precision["segm"]}
        if said:
            found["expressions_P50"] = float(np.mean(np.array(said) > 0.5))
        return found | {f"{kind}_mIoU": float(np.mean(ious)) for kind, ious in shown.items() if ious}
