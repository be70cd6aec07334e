"""The shipped video recipes on small trees of the published layouts: two steps, measured before and after."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lookhear
from lookhear.processing.glee.geometry_glee import coco_rle
from lookhear.training.glee.mixture.corpus_recipe import CorpusTrainingRecipe
from lookhear.training.glee.mixture.train_corpora import open_sources, train
from lookhear.training.recipe_reading import read_recipe

RECIPES = Path(lookhear.__file__).parent / "training" / "glee" / "recipes"
SIZE, FRAMES, VIDEOS = 64, 4, ("v0", "v1")
BOXES = {1: (4, 6, 24, 26), 2: (34, 36, 60, 52)}  # of two objects, which move to the right


def numbers(frame: int) -> np.ndarray:
    """`(64, 64)` uint8: the object in each pixel. The second one is not in the first frame."""
    pixels = np.zeros((SIZE, SIZE), np.uint8)
    for number, (x0, y0, x1, y1) in BOXES.items():
        if frame or number == 1:
            pixels[y0:y1, x0 + frame : x1 + frame] = number
    return pixels


def save_frame(path: Path, frame: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([numbers(frame) * 100 + 30] * 3, axis=-1)).save(path)


def save_masks(path: Path, frame: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(numbers(frame))
    picture.putpalette(list(range(256)) * 3)
    picture.save(path)


def save_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def frames_of(root: Path, masks: Path) -> None:
    """Writes JPEGs and PNGs as DAVIS and YouTube-VOS have them."""
    for video in VIDEOS:
        for frame in range(FRAMES):
            save_frame(root / video / f"{frame:05}.jpg", frame)
            save_masks(masks / video / f"{frame:05}.png", frame)


def youtube_vos(root: Path) -> None:
    frames_of(root / "train/JPEGImages", root / "train/Annotations")
    objects = {str(number): {"category": "cat", "frames": ["00000"]} for number in BOXES}
    save_json(root / "train/meta.json", {"videos": {video: {"objects": objects} for video in VIDEOS}})


def refer_youtube_vos(root: Path) -> None:
    youtube_vos(root)
    sentences = {"0": {"exp": "the grey square on top", "obj_id": "1"}, "1": {"exp": "the bright one", "obj_id": "2"}}
    names = [f"{frame:05}" for frame in range(FRAMES)]
    videos = {video: {"expressions": sentences, "frames": names} for video in VIDEOS}
    save_json(root / "meta_expressions/train/meta_expressions.json", {"videos": videos})


def uvo(root: Path) -> None:
    for split in ("train", "val"):
        videos, annotations = [], []
        for place, video in enumerate(VIDEOS, start=1):
            name = f"{split}_{video}"
            files = [f"{name}/{frame}.png" for frame in range(FRAMES)]
            for frame, file in enumerate(files):
                save_frame(root / "uvo_videos_dense_frames" / file, frame)
            videos.append({"id": place, "height": SIZE, "width": SIZE, "file_names": files})
            for number in BOXES:
                masks = [numbers(frame) == number for frame in range(FRAMES)]
                runs = [coco_rle(mask) if mask.any() else None for mask in masks]
                entry = {"id": len(annotations) + 1, "video_id": place, "category_id": 1, "iscrowd": 0}
                annotations.append(entry | {"segmentations": runs, "bboxes": None})
        content = {"videos": videos, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
        save_json(root / f"VideoDenseSet/UVO_video_{split}_dense.json", content)


def davis(root: Path) -> None:
    frames_of(root / "JPEGImages/480p", root / "Annotations/480p")
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("\n".join(VIDEOS) + "\n")


def read(name: str, data: Path, checkpoint: Path, output: Path) -> CorpusTrainingRecipe:
    """The shipped recipe for a small model, two steps, and data below a folder."""
    changes = {
        "model.checkpoint": str(checkpoint),
        "model.config.loss_settings": "{mask_points: 64}",
        "data.common.augmentation": "{shortest_edges: [64], crop: 0.0}",
        "training.output_dir": str(output),
        "training.max_steps": 2,
        "training.logging_steps": 1,
        "training.dataloader_num_workers": 0,
        "training.bf16": "false",
        "training.use_cpu": "true",
        "training.save_strategy": "no",
    }
    recipe = read_recipe(
        RECIPES / f"{name}.yaml", [f"{key}={value}" for key, value in changes.items()], CorpusTrainingRecipe, RECIPES
    )
    for source in recipe.data.sources:
        source["root"] = str(data / Path(source["root"]).name)
    recipe.validation.data = str(data / Path(recipe.validation.data).name)
    return recipe


LEARNT = {
    "video_vos": ("prompts", {"prompts_class", "prompts_confidence", "prompts_mask", "prompts_dice", "prompts_track"}),
    "video_rvos": ("expressions", {"expressions_class", "expressions_mask", "expressions_track"}),
    "video_uvo": ("labels", {"labels_class", "labels_mask", "labels_track", "labels_class_denoising"}),
}


@pytest.mark.parametrize("name", LEARNT)
def test_a_video_recipe_runs_to_its_end(name, glee_checkpoint, tmp_path):
    data = tmp_path / "data"
    {"video_vos": youtube_vos, "video_rvos": refer_youtube_vos, "video_uvo": uvo}[name](
        data / {"video_vos": "youtube_vos", "video_rvos": "refer_youtube_vos", "video_uvo": "uvo"}[name]
    )
    davis(data / "davis")
    recipe = read(name, data, glee_checkpoint, tmp_path / "run")
    if name == "video_rvos":  # RefCOCO, its own protocol, has tests of its own
        recipe.validation.protocol = None
    (source,) = open_sources(recipe.data, 0)
    assert len(source.rows) == FRAMES * len(VIDEOS) and source.frames == 2 and source.reach == 5
    trainer = train(recipe)
    history = trainer.state.log_history
    task, losses = LEARNT[name]
    for step in (1, 2):
        logged = {key: value for entry in history if entry["step"] == step for key, value in entry.items()}
        assert losses <= logged.keys() and all(np.isfinite(logged[loss]) for loss in losses)
        assert not {key for key in logged if key.partition("_")[0] in {"labels", "prompts", "expressions"} - {task}}
    figure = {"video_vos": "eval_J&F", "video_uvo": "eval_AP"}.get(name)
    if figure is not None:
        assert {entry["step"] for entry in history if figure in entry} == {0, 2}
    frozen = {weight.requires_grad for weight in trainer.model.model.text_encoder.clip.parameters()}
    assert frozen == {False} and (tmp_path / "run" / "model.safetensors").is_file()
