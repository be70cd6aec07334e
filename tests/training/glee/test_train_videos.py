"""The shipped recipe of video training, from a folder in YouTube-VIS' layout to the tracking loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import lookhear
from lookhear.training.glee.mixture.corpus_recipe import CorpusTrainingRecipe
from lookhear.training.glee.mixture.train_corpora import train
from lookhear.training.recipe_reading import read_recipe

RECIPES = Path(lookhear.__file__).parent / "training" / "glee" / "recipes"
HEIGHT, WIDTH, SIDE, FRAMES = 64, 96, 20, 6


@pytest.fixture
def youtube_vis(tmp_path) -> Path:
    """One video: a bright square goes to the right, a dark one to the left; they are of one category."""
    root = tmp_path / "youtube_vis"
    folder = root / "train" / "JPEGImages" / "v0"
    folder.mkdir(parents=True)
    places = {1: [(4 + 8 * frame, 6) for frame in range(FRAMES)], 2: [(70 - 8 * frame, 36) for frame in range(FRAMES)]}
    for frame in range(FRAMES):
        picture = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
        for number, corners in places.items():
            x, y = corners[frame]
            picture[y : y + SIDE, x : x + SIDE] = 250 if number == 1 else 10
        Image.fromarray(picture).save(folder / f"{frame:05d}.jpg")
    annotations = [
        {
            "id": number,
            "video_id": 1,
            "category_id": 3,
            "iscrowd": 0,
            "bboxes": [[x, y, SIDE, SIDE] for x, y in corners],
            "segmentations": [[[x, y, x + SIDE, y, x + SIDE, y + SIDE, x, y + SIDE]] for x, y in corners],
        }
        for number, corners in places.items()
    ]
    names = [f"v0/{frame:05d}.jpg" for frame in range(FRAMES)]
    videos = [{"id": 1, "width": WIDTH, "height": HEIGHT, "length": FRAMES, "file_names": names}]
    content = {"videos": videos, "annotations": annotations, "categories": [{"id": 3, "name": "square"}]}
    (root / "train.json").write_text(json.dumps(content))
    return root


def test_the_video_recipe_learns_to_track(youtube_vis, glee_checkpoint, tmp_path):
    source = f"[{{reader: youtube_vis, root: {youtube_vis}, supervision: {{denoising_table: ytvis19}}}}]"
    overrides = [
        f"model.checkpoint={glee_checkpoint}",
        "model.config.loss_settings={mask_points: 64}",
        f"data.sources={source}",
        "data.common.augmentation={shortest_edges: [64], crop: 0.0}",
        "validation.protocol=null",  # what the recipe measures by isn't here
        f"training.output_dir={tmp_path / 'run'}",
        "training.max_steps=3",
        "training.logging_steps=1",
        "training.use_cpu=true",
        "training.bf16=false",
        "training.dataloader_num_workers=0",
    ]
    trainer = train(read_recipe(RECIPES / "video_ytvis19.yaml", overrides, CorpusTrainingRecipe, RECIPES))
    tracks = [entry["labels_track"] for entry in trainer.state.log_history if "labels_track" in entry]
    assert len(tracks) == 3 and all(np.isfinite(value) and value > 0 for value in tracks)
    before, after = (load_file(folder / "model.safetensors") for folder in (glee_checkpoint, tmp_path / "run"))
    frozen = [name for name in before if name.startswith("model.text_encoder.clip.")]
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(before["model.decoder.norm.weight"], after["model.decoder.norm.weight"])
