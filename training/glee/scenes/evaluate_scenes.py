"""Evaluation of a checkpoint on new scenes: `python -m lookhear.training.glee.scenes.evaluate_scenes CHECKPOINT`.

With `--photos COCO_FOLDER` half of the scenes have a photo as background, with `--frames VIDEOS` they show people of
the videos, too; with `--plain` there are only shapes on plain grounds, larger and of full contrast.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor, BatchFeature
from transformers.utils import ModelOutput

import lookhear  # noqa: F401  (registers the Auto classes)
from lookhear.evaluation.measures.average_precision import picture_precision
from lookhear.evaluation.measures.mask_runs import box_ious, to_runs
from lookhear.modeling.glee import GleeForObjectDetection
from lookhear.processing.glee import GleeProcessor
from lookhear.training.glee.scenes.backgrounds import read_photos
from lookhear.training.glee.scenes.examples import PROMPT_KINDS, SceneBatch, ask_expressions, ask_labels, ask_prompts
from lookhear.training.glee.scenes.expressions import FORMS, SIDES, by_order
from lookhear.training.glee.scenes.portraits import portrait_cutouts, read_frames
from lookhear.training.glee.scenes.scenes import HELD_OUT_PAIRS, Scene, SceneMaterial, SceneRecipe, Shape, make_scene

# Training uses the seeds (seed, batch), evaluation (EVALUATION_SEED, number).
EVALUATION_SEED = 777_777
# Shapes that overlap, small and large ones, low contrast, photos as backgrounds, people.
HARD_SCENES = SceneRecipe(radius=(0.07, 0.24), crowding=0.6, contrast=0.6, photos=0.5, people=0.3)
PLAIN_SCENES = SceneRecipe()
PANELS = SceneRecipe(people=1.0, panels=1.0, objects_beside=(0, 0), photos=0.5)
MOST_FRAMES = 60


class SceneEvaluation:
    """
    Runs a model on scenes in batches.

    Args:
        model: to evaluate.
        processor: of the model.
        size: (height, width) of the scenes in pixels.
        batch: scenes per batch.
        material: photos and people of the scenes.
    """

    def __init__(
        self,
        model: GleeForObjectDetection,
        processor: GleeProcessor,
        size: tuple[int, int] = (128, 160),
        batch: int = 8,
        material: SceneMaterial | None = None,
    ):
        self.model, self.processor, self.size, self.batch = model.eval(), processor, size, batch
        self.material = material or SceneMaterial()

    def scenes(self, count: int, recipe: SceneRecipe | None = None) -> list[Scene]:
        """Generates the held-out scenes, the same in every run."""
        seeds = (np.random.default_rng((EVALUATION_SEED, index)) for index in range(count))
        return [make_scene(random, self.size, recipe, self.material) for random in seeds]

    @torch.no_grad()
    def answer(self, query: SceneBatch) -> tuple[BatchFeature, ModelOutput]:
        """Returns the inputs and outputs of a query."""
        images = [scene.image for scene in query.scenes]
        inputs = self.processor(images=images, **query.prompts, return_tensors="pt").to(self.model.device)
        return inputs, self.model(**inputs)

    def average_precision(self, scenes: list[Scene], mode: str) -> dict[str, float]:
        """
        Computes COCO's AP at an IoU of 0.5, of boxes and of masks (not cut to their boxes), averaged over labels.

        Args:
            scenes: to evaluate on.
            mode: `kind` queries the eight kinds and people, `pair` kinds with their colours.
        """
        references, predictions = self.labelled(scenes, mode)
        tables = {"bbox": picture_precision(references, predictions, "box")}
        tables["segm"] = picture_precision(references, predictions, "mask")
        return {kind: table.average_precision(0.5) for kind, table in tables.items()}

    def labelled(self, scenes: list[Scene], mode: str) -> tuple[list[dict[str, list]], list[dict[str, list]]]:
        """
        Finds the shapes of labels.

        Args:
            scenes: to evaluate on.
            mode: see `average_precision`.

        Returns:
            What is in each scene and what is found there, as `picture_precision` takes them.
        """
        references: list[dict[str, list]] = [{"labels": [], "boxes": [], "masks": []} for _ in scenes]
        predictions: list[dict[str, list]] = [{"labels": [], "boxes": [], "masks": [], "scores": []} for _ in scenes]
        for start in range(0, len(scenes), self.batch):
            some = scenes[start : start + self.batch]
            query = ask_labels(some, np.random.default_rng(start), mode)
            _, outputs = self.answer(query)
            answers = self.processor.post_process_objects(outputs, threshold=0.0, target_sizes=_sizes(some), top_k=100)
            labels = query.prompts["labels"]
            for (number, shapes, classes), answer in zip(query.rows, answers):
                truth = [(labels[name], some[number].shapes[place]) for place, name in zip(shapes, classes)]
                row = references[start + number]
                row["labels"] += [label for label, _ in truth]
                row["boxes"] += [shape.box for _, shape in truth]
                row["masks"] += [to_runs(shape.mask) for _, shape in truth]
                row = predictions[start + number]
                row["labels"] += [labels[name] for name in answer["labels"].tolist()]
                row["scores"] += answer["scores"].tolist()
                row["boxes"] += answer["boxes"].tolist()
                row["masks"] += [to_runs(mask.cpu().numpy()) for mask in answer["masks"]]
        return references, predictions

    def expressions(self, scenes: list[Scene]) -> dict[str, list[float]]:
        """Computes the IoU of the box that is found for each sentence, by form."""
        return {form: [iou for iou, _ in found] for form, found in self.scored_expressions(scenes).items()}

    def scored_expressions(self, scenes: list[Scene], others: bool = False) -> dict[str, list[tuple[float, float]]]:
        """
        Computes the IoU of the box that is found for each sentence, and its score, by form.

        Args:
            scenes: to evaluate on.
            others: whether shapes are queried by other scenes' sentences, to see if the model uses sentences at all.
        """
        found = defaultdict(list)
        for start in range(0, len(scenes), self.batch):
            some = scenes[start : start + self.batch]
            for form in FORMS:
                query = ask_expressions(some, np.random.default_rng(start), 1, {form: 1.0})
                if others:
                    query = exchange_sentences(query)
                if query.rows:
                    for (number, (shape,), _), answer in zip(query.rows, self.grounded(query)):
                        iou = _iou(answer, some[number].shapes[shape])
                        found[form].append((iou, float(answer["scores"][0])))
        return dict(found)

    def grounded(self, query: SceneBatch) -> list[dict]:
        """Finds the object of each sentence; see the processor's `post_process_grounding`."""
        inputs, outputs = self.answer(query)
        return self.processor.post_process_grounding(
            outputs, target_sizes=_sizes(query.scenes), prompt_image_indices=inputs["prompt_image_indices"]
        )

    def prompts(self, scenes: list[Scene]) -> dict[str, list[float]]:
        """Computes the IoU of the mask that is found for each point, box, scribble or mask."""
        ious = defaultdict(list)
        for start in range(0, len(scenes), self.batch):
            some = scenes[start : start + self.batch]
            for kind in PROMPT_KINDS:
                query = ask_prompts(some, np.random.default_rng(start), 1, kind)
                inputs, outputs = self.answer(query)
                answers = self.processor.post_process_interactive(
                    outputs,
                    target_sizes=_sizes(some),
                    prompt_image_indices=inputs["prompt_image_indices"],
                )
                for (number, (shape,), _), answer in zip(query.rows, answers):
                    wanted, mask = some[number].shapes[shape].mask, answer["masks"][0].cpu().numpy()
                    ious[kind].append(float((mask & wanted).sum() / (mask | wanted).sum()))
        return dict(ious)


def _sizes(scenes: list[Scene]) -> list[tuple[int, int]]:
    """Returns (height, width) of scenes, of which whole photos may be smaller than the others."""
    return [(scene.image.shape[0], scene.image.shape[1]) for scene in scenes]


def exchange_sentences(query: SceneBatch) -> SceneBatch:
    """Replaces each row's sentence by the next row's."""
    texts = [text for of_scene in query.prompts["expressions"] for text in of_scene]
    moved = iter(texts[1:] + texts[:1])
    exchanged = [[next(moved) for _ in of_scene] for of_scene in query.prompts["expressions"]]
    return SceneBatch(query.scenes, {"expressions": exchanged}, query.rows)


def main() -> None:
    """Prints the table of a checkpoint's card."""
    parser = argparse.ArgumentParser(description="evaluate a GLEE checkpoint on generated scenes")
    parser.add_argument("checkpoint")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument(
        "--photos", help="COCO folder with image_licenses.csv; its val2017 is the background of half of the scenes"
    )
    parser.add_argument("--plain", action="store_true", help="only shapes on plain grounds")
    parser.add_argument("--frames", nargs="*", default=[], help="videos of talking faces, or folders of videos")
    options = parser.parse_args()
    model = AutoModelForZeroShotObjectDetection.from_pretrained(options.checkpoint)
    photos = read_photos(options.photos, "val2017") if options.photos else []
    material = SceneMaterial(photos, portrait_cutouts(), read_frames(options.frames, MOST_FRAMES))
    processor = AutoProcessor.from_pretrained(options.checkpoint)
    print("| prompt | measure | value |\n|---|---|---|")
    evaluation = SceneEvaluation(model, processor, material=material)
    for name, measure, value in table(evaluation, options.scenes, PLAIN_SCENES if options.plain else HARD_SCENES):
        print(f"| {name} | {measure} | {value:.3f} |", flush=True)


def table(
    evaluation: SceneEvaluation, count: int, recipe: SceneRecipe = HARD_SCENES
) -> Iterator[tuple[str, str, float]]:
    """Lists prompt, metric and value over the scenes, row by row."""
    scenes = evaluation.scenes(count, replace(recipe, excluded=HELD_OUT_PAIRS))
    for mode, name in (("kind", "label: 8 kinds and people"), ("pair", "label: 24 pairs of colour and kind")):
        for kind, value in evaluation.average_precision(scenes, mode).items():
            yield name, f"{'box' if kind == 'bbox' else 'mask'} AP50", value
    own = evaluation.scored_expressions(scenes)
    ious = {form: [iou for iou, _ in found] for form, found in own.items()}
    for form in ious:
        yield f"expression: {form}", *_precision(ious[form])
    yield "expression: attribute or place", *_precision(ious.get("attribute", []) + ious.get("place", []))
    yield (
        "expression: a pair never trained on",
        *_precision(held_out_ious(evaluation, evaluation.scenes(2 * count, recipe))),
    )
    others = evaluation.scored_expressions(scenes, others=True)
    yield "another scene's expression", *_precision([iou for found in others.values() for iou, _ in found])
    if (threshold := evaluation.model.config.expression_threshold) is not None:
        for name, asked in (("its own scene's expression", own), ("another scene's expression", others)):
            right = [iou if score >= threshold else 0.0 for found in asked.values() for iou, score in found]
            yield name, f"P@0.5 at scores of {threshold:g} and more ({len(right)})", _precision(right)[1]
    for kind, values in evaluation.prompts(scenes).items():
        yield kind, f"mean mask IoU ({len(values)})", float(np.mean(values))
    if evaluation.material.frames:
        yield "the person on the left, in the middle, on the right", *_precision(side_ious(evaluation, count // 2))


def _precision(ious: list[float]) -> tuple[str, float]:
    return f"P@0.5 ({len(ious)})", float(np.mean(np.array(ious) > 0.5)) if ious else float("nan")


def side_ious(evaluation: SceneEvaluation, count: int) -> list[float]:
    """Computes the IoU of boxes for people in two or three video frames side by side, queried by their places."""
    ious = []
    for scene in evaluation.scenes(count, PANELS):
        people = [found for found in by_order(scene) if found.text.startswith("the person ")]
        if len(people) in SIDES:
            ious += _ious(evaluation, scene, [(found.text, found.shape) for found in people])
    return ious


def held_out_ious(evaluation: SceneEvaluation, scenes: list[Scene]) -> list[float]:
    """Computes the IoU of boxes for "the red heart" and the like, of pairs that training left out."""
    ious = []
    for scene in scenes:
        pairs = [(shape.colour, shape.kind) for shape in scene.shapes]
        held = [i for i, pair in enumerate(pairs) if pair in HELD_OUT_PAIRS and pairs.count(pair) == 1]
        ious += _ious(evaluation, scene, [(f"the {' '.join(pairs[i])}", i) for i in held])
    return ious


def _ious(evaluation: SceneEvaluation, scene: Scene, sentences: list[tuple[str, int]]) -> list[float]:
    """Computes the IoU of the boxes that are found for sentences with those of their objects."""
    if not sentences:
        return []
    query = SceneBatch(
        [scene], {"expressions": [[text for text, _ in sentences]]}, [(0, [i], [0]) for _, i in sentences]
    )
    answers = evaluation.grounded(query)
    return [_iou(answer, scene.shapes[i]) for answer, (_, i) in zip(answers, sentences)]


def _iou(answer: dict, shape: Shape) -> float:
    """Computes the IoU of the box found for a sentence with that of its object."""
    return float(box_ious(answer["boxes"][:1].cpu(), [shape.box])[0, 0])


if __name__ == "__main__":
    main()
