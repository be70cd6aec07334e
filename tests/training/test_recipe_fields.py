"""What recipes document is what they have: each field once, in the order of the code."""

import inspect
import re
from dataclasses import fields

import pytest

from lookhear.training.avsr import recipe as avsr
from lookhear.training.glee.fine_tuning.fine_tune import FineTuneOptions
from lookhear.training.glee.mixture import augmentation, corpus_recipe, mixture
from lookhear.training.glee.optimiser import OptimiserRecipe
from lookhear.training.glee.scenes import recipe as scenes
from lookhear.training.glee.scenes.moving_scenes import MovingRecipe
from lookhear.training.glee.scenes.scenes import SceneRecipe
from lookhear.training.lisa_glee import recipe as lisa

RECIPES = [
    avsr.Recipe,
    avsr.ModelRecipe,
    avsr.DataRecipe,
    avsr.AugmentationRecipe,
    avsr.EvaluationRecipe,
    corpus_recipe.CorpusTrainingRecipe,
    corpus_recipe.StartRecipe,
    corpus_recipe.CorporaRecipe,
    corpus_recipe.ValidationRecipe,
    mixture.Source,
    augmentation.AugmentationRecipe,
    OptimiserRecipe,
    FineTuneOptions,
    scenes.GleeRecipe,
    scenes.GleeModelRecipe,
    scenes.SceneDataRecipe,
    scenes.FixedScenesRecipe,
    scenes.SceneValidationRecipe,
    SceneRecipe,
    MovingRecipe,
    lisa.LisaRecipe,
    lisa.LisaModelRecipe,
    lisa.LoraRecipe,
    lisa.ConversationDataRecipe,
]


@pytest.mark.parametrize("kind", RECIPES, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_documented_fields_are_the_fields(kind):
    _, attributes = inspect.getdoc(kind).split("Attributes:\n")
    assert re.findall(r"^ {4}(\S.*?): ", attributes, re.MULTILINE) == [field.name for field in fields(kind)]
