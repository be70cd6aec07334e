"""Recipes of training on scenes: one YAML file with the model, the scenes, the tasks, and the length of training."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from lookhear.modeling.glee import GleeConfig
from lookhear.training.glee.scenes.backgrounds import read_photos
from lookhear.training.glee.scenes.expressions import EVENLY, FORMS
from lookhear.training.glee.scenes.person_photos import PersonPhoto, balanced, read_people
from lookhear.training.glee.scenes.portraits import portrait_cutouts, read_frames
from lookhear.training.glee.scenes.scenes import HELD_OUT_PAIRS, SceneMaterial, SceneRecipe
from lookhear.training.recipe_reading import (
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    Range,
    Share,
    check_config,
    fill,
)

# Kinds of lists of labels, and their weights: one word for all, kinds, pairs of colour and kind, kinds and pairs.
LABEL_MODES = {"object": 0.1, "kind": 0.35, "pair": 0.45, "mixed": 0.1}


def scene_recipe(given: dict[str, Any], hold_out_pairs: bool) -> SceneRecipe:
    """
    Reads what scenes are like from a recipe's `data.scenes`.

    Args:
        given: fields of `SceneRecipe` that differ from its defaults.
        hold_out_pairs: whether the pairs of colour and kind in `HELD_OUT_PAIRS` are left out.

    Raises:
        ValueError: a field does not exist, or has a value that it refuses.
    """
    excluded = HELD_OUT_PAIRS if hold_out_pairs else frozenset()
    return fill(SceneRecipe, {"excluded": excluded, **given}, "data.scenes")


def with_people(material: SceneMaterial, people: list[PersonPhoto]) -> SceneMaterial:
    """
    Adds photos of people to material: as scenes, cut out, side by side, and, without their people, as backgrounds.

    Args:
        material: to which they are added.
        people: the photos.
    """
    if not people:
        return material
    grounds = [ground for photo in people if (ground := photo.ground()) is not None]
    cutouts = [cutout for photo in people for cutout in photo.cutouts()]
    panels = [panel for photo in people if (panel := photo.panel()) is not None]
    return SceneMaterial(
        material.photos + grounds,
        balanced(material.portraits, cutouts),
        material.frames + panels,
        material.people + people,
    )


@dataclass
class FixedScenesRecipe:
    """
    A fixed set of scenes, for studies of how much data a training needs. Without stills and videos there is none:
    scenes are fresh in every step.

    Attributes:
        stills: scenes of the set.
        videos: videos of the set, whose frames are used as scenes; half of the scenes are frames where there are both.
        fraction: share of both that is used, in (0, 1]; a larger one contains the smaller.
        seed: of the set; that of the training is another one.
    """

    stills: CountOrZero = 0
    videos: CountOrZero = 0
    fraction: Annotated[float, Range(0, 1, above=True)] = 1.0
    seed: CountOrZero = 0


@dataclass
class SceneDataRecipe:
    """
    Generated scenes, fresh in every step unless they are `fixed`.

    Attributes:
        canvases: sizes (height, width) in pixels of the scenes of a batch, one of which is chosen at random; multiples
            of 32.
        tasks: weight of each task among the batches, at least 0: `labels`, `expressions`, `prompts`.
        labels: weight of each kind of list among the batches of labels, at least 0: `object` (this one word), `kind`
            (the eight kinds and people), `pair` (kinds with their colours), `mixed` (kinds and pairs, and people).
        images: scenes of a batch of each task, at least 1.
        expressions: sentences about a scene, at least 1.
        prompts: visual prompts of a scene, at least 1.
        forms: weight of each form among the sentences, at least 0: `attribute`, `place`, `size`, `relation`.
        absent: share of the sentences, in [0, 1], that are true of nothing in their scene.
        scenes: fields of `SceneRecipe` that differ from its defaults.
        hold_out_pairs: whether the pairs of colour and kind in `HELD_OUT_PAIRS` are left out.
        photos: COCO folder with `image_licenses.csv`, whose freely licensed photos are backgrounds of scenes.
        photo_split: which of the COCO folder's images are used.
        people: COCO folders with `image_licenses.csv`, whose freely licensed photos of people are scenes, are shown
            side by side, and whose people are pasted into scenes; one photo in five is held out.
        skipped: names of photos of these folders that are left out.
        portraits: whether scenes show people from scikit-image and matplotlib, where these packages are installed.
        frames: videos of talking faces, or folders of such videos, each with a plain background.
        most_frames: most frames that are used of all these videos, at least 1.
        fixed: a set of scenes to choose from; by default they are endless.
    """

    canvases: list[tuple[Count, Count]] = field(default_factory=lambda: [(128, 128)])
    tasks: dict[str, NotNegative] = field(default_factory=lambda: {"labels": 0.4, "expressions": 0.4, "prompts": 0.2})
    labels: dict[str, NotNegative] = field(default_factory=lambda: dict(LABEL_MODES))
    images: dict[str, Count] = field(default_factory=lambda: {"labels": 16, "expressions": 8, "prompts": 8})
    expressions: Count = 2
    prompts: Count = 2
    forms: dict[str, NotNegative] = field(default_factory=lambda: dict(EVENLY))
    absent: Share = 0.0
    scenes: dict[str, Any] = field(default_factory=dict)
    hold_out_pairs: bool = True
    photos: str | None = None
    photo_split: str = "train2017"
    people: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    portraits: bool = True
    frames: list[str] = field(default_factory=list)
    most_frames: Count = 200
    fixed: FixedScenesRecipe = field(default_factory=FixedScenesRecipe)

    def __post_init__(self):
        names = {"tasks": ("labels", "expressions", "prompts"), "labels": tuple(LABEL_MODES), "forms": FORMS}
        for name, known in names.items():
            if unknown := set(getattr(self, name)) - set(known):
                raise ValueError(f"data.{name} has no {sorted(unknown)[0]!r}; it has {', '.join(known)}")
        self.scene_recipe()  # an error in `scenes` is raised now, not at the first scene

    def scene_recipe(self) -> SceneRecipe:
        """Returns the recipe of the scenes. Raises ValueError for a field or value that `SceneRecipe` refuses."""
        return scene_recipe(self.scenes, self.hold_out_pairs)

    def scene_material(self) -> SceneMaterial:
        """Reads photos and people. Raises ValueError for a folder or video that isn't there."""
        people = self.people_photos(held_out=False)
        return with_people(
            SceneMaterial(
                read_photos(self.photos, self.photo_split) if self.photos else [],
                portrait_cutouts() if self.portraits else [],
                read_frames(self.frames, self.most_frames),
            ),
            people,
        )

    def people_photos(self, held_out: bool) -> list[PersonPhoto]:
        """Reads the photos of people that are held out, or the others."""
        folders = (read_people(folder, self.photo_split, held_out, self.skipped) for folder in self.people)
        return [photo for photos in folders for photo in photos]


@dataclass
class GleeModelRecipe:
    """
    What is trained.

    Attributes:
        checkpoint: folder or Hub id to start from; None: a new model of `config` and a new processor.
        config: fields of `GleeConfig`, which are checked; the size of the vocabulary follows from the tokenizer.
        image_processor: fields of `GleeImageProcessor`.
        merges: merges that the new tokenizer learns, at least 0.
        max_length: most tokens of a text, at least 1.
        token_scale: factor, above 0, on a new text encoder's token embeddings. CLIP initialises them so small that, at
            a small model's learning rate, what all texts have in common soon outweighs them.
    """

    checkpoint: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    image_processor: dict[str, Any] = field(default_factory=dict)
    merges: CountOrZero = 256
    max_length: Count = 24
    token_scale: Positive = 20.0

    def __post_init__(self) -> None:
        check_config(self.config, GleeConfig, "model.config")


@dataclass
class SceneValidationRecipe:
    """
    What is measured while training, as `training.eval_steps` (by default `save_steps`) says.

    Attributes:
        scenes: number of scenes like those of `data`, of the first of its `canvases`, which are never trained on; 0:
            nothing is measured.
        people: whether photos of `data.people` that are held out are measured, too.
    """

    scenes: CountOrZero = 0
    people: bool = False


@dataclass
class GleeRecipe:
    """
    A whole recipe.

    Attributes:
        model: what is trained.
        data: the scenes and the queries about them.
        validation: what is measured meanwhile.
        training: fields of `transformers.TrainingArguments`.
    """

    model: GleeModelRecipe = field(default_factory=GleeModelRecipe)
    data: SceneDataRecipe = field(default_factory=SceneDataRecipe)
    validation: SceneValidationRecipe = field(default_factory=SceneValidationRecipe)
    training: dict[str, Any] = field(default_factory=dict)
