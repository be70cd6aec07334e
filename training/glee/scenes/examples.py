"""Batches of generated scenes with queries about them and the targets; one task per batch."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from lookhear.processing.glee import GleeProcessor
from lookhear.training.glee.mixture.sampling import draw, draw_prompt
from lookhear.training.glee.scenes.absence import absent_sentences
from lookhear.training.glee.scenes.expressions import EVENLY, choose_expressions
from lookhear.training.glee.scenes.fixed_scenes import FixedScenes
from lookhear.training.glee.scenes.recipe import LABEL_MODES, SceneDataRecipe
from lookhear.training.glee.scenes.scenes import PARTS, Scene, SceneMaterial, SceneRecipe, Shape, make_scene
from lookhear.training.glee.scenes.shapes import COLOURS, KINDS

MOST_PAIRS = 24
PROMPT_KINDS = {"points": 0.35, "boxes": 0.25, "scribbles": 0.25, "masks": 0.15}


@dataclass(frozen=True)
class SceneBatch:
    """
    Scenes of one size, a query about them, and the targets.

    Attributes:
        scenes: the pictures.
        prompts: arguments of the processor beside images (`labels`, `expressions`, `points` ...).
        rows: for each row of the model's output its scene, the shapes to be found, and their classes.
    """

    scenes: list[Scene]
    prompts: dict[str, Any]
    rows: list[tuple[int, list[int], list[int]]]


class SceneBatches(Dataset):
    """
    Item i is the i-th batch of a recipe: the same in every run, whatever came before.

    Args:
        recipe: of scenes and tasks.
        length: number of batches.
        seed: other seeds give other scenes.
        material: photos and people. Half of the batches show only people whose faces and mouths are annotated, such
            as portraits: a batch queries these by label only if they are annotated in all of its people.
    """

    def __init__(self, recipe: SceneDataRecipe, length: int, seed: int = 0, material: SceneMaterial | None = None):
        self.recipe, self.length, self.seed = recipe, length, seed
        self.look = recipe.scene_recipe()
        self.material = material or SceneMaterial()
        self.known = self.material.with_known_faces()
        self.fixed: FixedScenes | None = None
        if recipe.fixed.stills or recipe.fixed.videos:
            self.fixed = FixedScenes(recipe.fixed, recipe.canvases, self.look, self.material)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> SceneBatch:
        if not 0 <= index < self.length:
            raise IndexError(index)
        random = np.random.default_rng((self.seed, index))
        task = draw(random, self.recipe.tasks)
        # What is pointed at must be there, so that each picture shows something.
        look = replace(self.look, bare=0.0) if task == "prompts" else self.look
        scenes = self._scenes(random, self.recipe.images[task], look)
        if task == "labels":
            return ask_labels(scenes, random, draw(random, self.recipe.labels))
        if task == "expressions":
            forms, absent = self.recipe.forms, self.recipe.absent
            return ask_expressions(scenes, random, self.recipe.expressions, forms, absent, self.look.excluded)
        return ask_prompts(scenes, random, self.recipe.prompts)

    def _scenes(self, random: np.random.Generator, count: int, look: SceneRecipe) -> list[Scene]:
        canvas = int(random.integers(len(self.recipe.canvases)))
        if self.fixed is not None:
            return [self.fixed.draw(random, canvas) for _ in range(count)]
        material = self.material
        if material.portraits and (material.frames or material.people) and random.random() < 0.5:
            material = self.known
        return [make_scene(random, self.recipe.canvases[canvas], look, material) for _ in range(count)]


def ask_labels(scenes: list[Scene], random: np.random.Generator, mode: str | None = None) -> SceneBatch:
    """
    Queries the objects that a list of labels names; an object has at most one label.

    Args:
        scenes: the pictures.
        random: for all random choices.
        mode: one of `LABEL_MODES`; None: at random. "object" leaves out photos without shapes and photos of people,
            in which other objects are seen that are not annotated; it is "kind" if all are such photos.
    """
    mode = mode or draw(random, LABEL_MODES)
    if mode == "object":
        listed = [scene for scene in scenes if scene.ground != "photographed" and not scene.bare]
        scenes, mode = listed or scenes, "object" if listed else "kind"
    if mode == "object":
        labels = ["object"]
    else:
        kinds = {"kind": len(KINDS), "pair": 0, "mixed": len(KINDS) // 2}[mode]
        order = [str(kind) for kind in random.permutation(list(KINDS))]
        labels = order[:kinds]
        if mode != "kind":
            labels += _pairs(scenes, random, order[kinds:])
        if mode != "pair":
            labels += _people_words(scenes)
        labels = [str(label) for label in random.permutation(labels)]
    index = {label: number for number, label in enumerate(labels)}
    rows = []
    for number, scene in enumerate(scenes):
        names = [_label_of(shape, index) for shape in scene.shapes]
        found = [(shape, name) for shape, name in enumerate(names) if name is not None]
        rows.append((number, [shape for shape, _ in found], [name for _, name in found]))
    return SceneBatch(scenes, {"labels": labels}, rows)


def _label_of(shape: Shape, index: dict[str, int]) -> int | None:
    """Returns a shape's class; "object" does not include faces and mouths, which are parts of one."""
    everything = None if shape.kind in PARTS else index.get("object")
    return index.get(f"{shape.colour} {shape.kind}", index.get(shape.kind, everything))


def _people_words(scenes: list[Scene]) -> list[str]:
    """Lists "person", and the parts that are annotated in all people of the scenes."""
    counts = [[shape.kind for shape in scene.shapes] for scene in scenes]
    known = [part for part in PARTS if all(kinds.count(part) == kinds.count("person") for kinds in counts)]
    return ["person", *known]


def _pairs(scenes: list[Scene], random: np.random.Generator, kinds: list[str]) -> list[str]:
    """Lists colour and kind of shapes in the scenes, and of some others."""
    there = {f"{shape.colour} {shape.kind}" for scene in scenes for shape in scene.shapes if shape.kind in kinds}
    some = random.permutation(sorted(there))[: MOST_PAIRS * 3 // 4]
    others = random.permutation([f"{colour} {kind}" for colour in COLOURS for kind in kinds])
    return list(dict.fromkeys([*some, *others]))[:MOST_PAIRS]


def ask_expressions(
    scenes: list[Scene],
    random: np.random.Generator,
    count: int,
    forms: Mapping[str, float] = EVENLY,
    absent: float = 0.0,
    excluded: Collection[tuple[str, str]] = frozenset(),
) -> SceneBatch:
    """
    Queries by sentences, each about one shape of its scene or about none.

    Args:
        scenes: the pictures.
        random: for all random choices.
        count: sentences about a scene, or fewer if it has no more.
        forms: weight of each form of sentences.
        absent: share of the sentences, in [0, 1], that are true of nothing in their scene. Above 0 a scene that has
            too few true ones has further ones of these.
        excluded: pairs of colour and kind that these don't name.
    """
    texts: list[list[str]] = []
    rows: list[tuple[int, list[int], list[int]]] = []
    for number, scene in enumerate(scenes):
        untrue = int(random.binomial(count, absent)) if absent else 0
        chosen = choose_expressions(scene, random, count - untrue, forms)
        rows += [(number, [found.shape], [0]) for found in chosen]
        missing = count - len(chosen) if absent else 0
        rows += [(number, [], [])] * missing
        texts.append([found.text for found in chosen] + absent_sentences(scene, random, missing, excluded))
    return SceneBatch(scenes, {"expressions": texts}, rows)


def ask_prompts(scenes: list[Scene], random: np.random.Generator, count: int, kind: str | None = None) -> SceneBatch:
    """Queries by points, boxes, scribbles or masks, each on one shape of its scene."""
    prompts: dict[str, list[list]] = {name: [] for name in PROMPT_KINDS}
    rows = []
    for number, scene in enumerate(scenes):
        shapes = random.permutation(len(scene.shapes))[:count]
        drawn = [(kind or draw(random, PROMPT_KINDS), int(shape)) for shape in shapes]
        for name in prompts:
            mine = [shape for other, shape in drawn if other == name]
            prompts[name].append([show_shape(name, scene.shapes[shape], random) for shape in mine])
            rows += [(number, [shape], [0]) for shape in mine]  # as the processor orders them
    return SceneBatch(scenes, {name: drawn for name, drawn in prompts.items() if any(drawn)}, rows)


def show_shape(kind: str, shape: Shape, random: np.random.Generator) -> Any:
    """Draws a prompt on a shape, as a user might, in pixels of its scene; boxes are not exact."""
    box = shape.box
    if kind == "boxes":
        x0, y0, x1, y1 = box
        box = box + random.uniform(-0.06, 0.06, 4) * np.array([x1 - x0, y1 - y0] * 2)
    return draw_prompt(kind, box, shape.mask, random)


@dataclass
class SceneCollator:
    """
    Makes the model's inputs, `labels` included, from a batch of one `SceneBatch`.

    Attributes:
        processor: must not change the size of the scenes.
    """

    processor: GleeProcessor

    def __call__(self, batches: list[SceneBatch]) -> dict[str, Any]:
        if len(batches) != 1:
            raise ValueError("an item of SceneBatches is a batch already: set per_device_train_batch_size to 1")
        batch = batches[0]
        images = [scene.image for scene in batch.scenes]
        inputs = self.processor(images=images, **batch.prompts, do_resize=False)
        height, width = inputs["pixel_values"].shape[-2:]
        labels = []
        for number, found, classes in batch.rows:
            shapes = [batch.scenes[number].shapes[index] for index in found]
            labels.append(targets(shapes, classes, (height, width)))
        return {**inputs, "labels": labels}


def targets(shapes: list[Shape], classes: list[int], canvas: tuple[int, int]) -> dict[str, torch.Tensor]:
    """
    Makes an entry of `labels` from shapes of a scene.

    Args:
        shapes: of the scene.
        classes: number of each shape's label.
        canvas: (height, width) that the batch is padded to.

    Returns:
        `class_labels` `(n,)`, `boxes` `(n, 4)` cxcywh as shares of the canvas, `masks` `(n, H, W)` bool.
    """
    height, width = canvas
    corners = torch.tensor([shape.box for shape in shapes], dtype=torch.float32).view(-1, 4)
    corners = corners / torch.tensor([width, height, width, height])
    centres, extents = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    masks = torch.zeros(len(shapes), height, width, dtype=torch.bool)
    for row, shape in zip(masks, shapes):
        row[: shape.mask.shape[0], : shape.mask.shape[1]] = torch.from_numpy(shape.mask)
    return {
        "class_labels": torch.tensor(classes, dtype=torch.int64),
        "boxes": torch.cat((centres, extents), dim=1),
        "masks": masks,
    }
