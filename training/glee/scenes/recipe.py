"""Recipes: one YAML file says what is trained, on which scenes, with which tasks, and for how long."""

from dataclasses import dataclass, field
from typing import Any

from lookhear.training.glee.scenes.backgrounds import read_photos
from lookhear.training.glee.scenes.expressions import EVENLY, FORMS
from lookhear.training.glee.scenes.portraits import portrait_cutouts, read_frames
from lookhear.training.glee.scenes.scenes import HELD_OUT_PAIRS, SceneMaterial, SceneRecipe
from lookhear.training.recipe_reading import fill


@dataclass
class SceneDataRecipe:
    """
    Generated scenes, fresh in every step.

    Attributes:
        canvases: (height, width) of the scenes of a batch, drawn evenly; multiples of 32.
        tasks: share of the batches of each task: `labels`, `expressions`, `prompts`.
        images: scenes of a batch of each task.
        expressions: sentences about a scene.
        prompts: prompts of a scene.
        forms: share of the sentences of each form: `attribute`, `place`, `size`, `relation`.
        scenes: fields of `SceneRecipe` that differ from its defaults.
        hold_out_pairs: whether the pairs of colour and kind in `HELD_OUT_PAIRS` are left out.
        photos: COCO folder with `image_licenses.csv` whose free photos lie behind scenes.
        photo_split: which of the COCO folder's images are taken.
        portraits: whether people of scikit-image and matplotlib occur, where these packages are installed.
        frames: videos of talking faces, or folders of such videos, each with a plain backdrop.
        most_frames: most frames that are taken of all these videos.
    """

    canvases: list[tuple[int, int]] = field(default_factory=lambda: [(128, 128)])
    tasks: dict[str, float] = field(default_factory=lambda: {"labels": 0.4, "expressions": 0.4, "prompts": 0.2})
    images: dict[str, int] = field(default_factory=lambda: {"labels": 16, "expressions": 8, "prompts": 8})
    expressions: int = 2
    prompts: int = 2
    forms: dict[str, float] = field(default_factory=lambda: dict(EVENLY))
    scenes: dict[str, Any] = field(default_factory=dict)
    hold_out_pairs: bool = True
    photos: str | None = None
    photo_split: str = "train2017"
    portraits: bool = True
    frames: list[str] = field(default_factory=list)
    most_frames: int = 200

    def __post_init__(self):
        for name, known in (("tasks", ("labels", "expressions", "prompts")), ("forms", FORMS)):
            if unknown := set(getattr(self, name)) - set(known):
                raise ValueError(f"data.{name} has no {sorted(unknown)[0]!r}; it has {', '.join(known)}")
        self.scene_recipe()  # what is wrong in `scenes` is named now

    def scene_recipe(self) -> SceneRecipe:
        """What the scenes are like. Raises ValueError for a field or value that `SceneRecipe` has not."""
        excluded = HELD_OUT_PAIRS if self.hold_out_pairs else frozenset()
        return fill(SceneRecipe, {"excluded": excluded, **self.scenes}, "data.scenes")

    def scene_material(self) -> SceneMaterial:
        """Reads photos and people. Raises ValueError for a folder or video that isn't there."""
        return SceneMaterial(
            read_photos(self.photos, self.photo_split) if self.photos else [],
            portrait_cutouts() if self.portraits else [],
            read_frames(self.frames, self.most_frames),
        )


@dataclass
class GleeModelRecipe:
    """
    What is trained.

    Attributes:
        checkpoint: folder or Hub id to start from; None: a new model of `config` and a new processor.
        config: fields of `GleeConfig`; the size of the vocabulary follows from the tokenizer.
        image_processor: fields of `GleeImageProcessor`.
        merges: merges that the new tokenizer learns.
        max_length: most tokens of a text.
        token_scale: what a new text encoder's token embeddings are multiplied with. CLIP starts them so small that, at a
            small model's learning rate, what all texts have in common soon drowns them.
    """

    checkpoint: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    image_processor: dict[str, Any] = field(default_factory=dict)
    merges: int = 256
    max_length: int = 24
    token_scale: float = 20.0


@dataclass
class GleeRecipe:
    """
    A whole recipe.

    Attributes:
        model: what is trained.
        data: which scenes, and what is asked about them.
        training: fields of `transformers.TrainingArguments`.
    """

    model: GleeModelRecipe = field(default_factory=GleeModelRecipe)
    data: SceneDataRecipe = field(default_factory=SceneDataRecipe)
    training: dict[str, Any] = field(default_factory=dict)
