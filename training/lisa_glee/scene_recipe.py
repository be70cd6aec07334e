"""Recipes of LISA-GLEEs that are trained on questions about generated scenes, one YAML file each."""

from dataclasses import dataclass, field
from typing import Any

from lookhear.training.glee.scenes.questions import EVENLY, FAMILIES, TRAINED
from lookhear.training.glee.scenes.recipe import scene_recipe
from lookhear.training.glee.scenes.scenes import SceneRecipe
from lookhear.training.recipe_reading import NotNegative


@dataclass
class QuestionDataRecipe:
    """
    Generated scenes and questions about them, fresh in every step.

    Attributes:
        canvases: (height, width) of the scenes of a batch, chosen at random; multiples of 32.
        scenes_per_batch: scenes of a batch.
        conversations: number of questions of each conversation about a scene.
        families: relative frequency of each family of questions; there are no questions of families that are left out.
        first_families: as `families`, of the first batches: what is to be learned before all else.
        first_batches: number of batches that `first_families` are for; each process takes its share of them.
        scenes: fields of `SceneRecipe` that differ from its defaults.
        hold_out: whether scenes have no shapes of the pairs of colour and kind that are for evaluation.
    """

    canvases: list[tuple[int, int]] = field(default_factory=lambda: [(128, 160)])
    scenes_per_batch: int = 12
    conversations: list[int] = field(default_factory=lambda: [1, 1, 1, 3])
    families: dict[str, float] = field(default_factory=lambda: dict(EVENLY))
    first_families: dict[str, float] = field(default_factory=dict)
    first_batches: NotNegative = 0
    scenes: dict[str, Any] = field(default_factory=dict)
    hold_out: bool = True

    def __post_init__(self) -> None:
        known = (*FAMILIES, *TRAINED)
        for name in ("families", "first_families"):
            if unknown := set(getattr(self, name)) - set(known):
                raise ValueError(f"data.{name} has no {sorted(unknown)[0]!r}; it has {', '.join(known)}")
        if self.first_batches and not self.first_families:
            raise ValueError("data.first_batches needs data.first_families, whose questions they have")
        if not self.conversations or min(self.conversations) < 1:
            raise ValueError(f"data.conversations must be numbers of questions from 1 on, not {self.conversations}")
        self.scene_recipe()  # raises for fields of `scenes` that are wrong

    def scene_recipe(self) -> SceneRecipe:
        """
        Returns the description of the scenes.

        Raises:
            ValueError: `scenes` has a field that `SceneRecipe` doesn't have, or a value that it refuses.
        """
        return scene_recipe(self.scenes, self.hold_out)


@dataclass
class LisaSceneModelRecipe:
    """
    The model that is trained.

    Attributes:
        perception: folder or Hub id of a GLEE, which isn't trained.
        language: fields of the new language model's `LlamaConfig`; the vocabulary's size follows from the tokenizer.
        config: fields of `LisaGleeConfig`.
    """

    perception: str = "model_cards/glee-tiny"
    language: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class LisaSceneRecipe:
    """
    A whole recipe.

    Attributes:
        model: the model that is trained.
        data: scenes and questions.
        matrix_learning_rate: of Muon, for the language model's matrices; 0 trains all with AdamW, whose rate is
            `training.learning_rate`.
        training: fields of `transformers.TrainingArguments`.
    """

    model: LisaSceneModelRecipe = field(default_factory=LisaSceneModelRecipe)
    data: QuestionDataRecipe = field(default_factory=QuestionDataRecipe)
    matrix_learning_rate: NotNegative = 0.0
    training: dict[str, Any] = field(default_factory=dict)
