"""A new model learns eight photos by heart."""

import json
from pathlib import Path

import pytest
import torch

from lookhear.modeling.glee import GleeConfig, GleeForObjectDetection
from lookhear.processing.glee import GleeImageProcessor, GleeProcessor
from lookhear.training.glee.corpora.opening import open_corpus
from lookhear.training.glee.export import save_checkpoint
from lookhear.training.glee.fine_tuning.coco_evaluation import CocoEvaluation
from lookhear.training.glee.mixture.corpus_recipe import CorporaRecipe, CorpusTrainingRecipe, StartRecipe
from lookhear.training.glee.mixture.sources import read_vocabulary
from lookhear.training.glee.mixture.train_corpora import train
from lookhear.training.glee.optimiser import OptimiserRecipe
from lookhear.training.glee.scenes.vocabulary import learn_tokenizer

# Of the photos, longest, and of the canvas: padding is seen as image, so it has to be the same in every batch.
SIDE = 128
STEPS = 300
SMALLEST = 0.01  # of its photo, that an object covers
CONFIG = {
    "backbone_config": {
        "model_type": "resnet",
        "embedding_size": 32,
        "hidden_sizes": [32, 64, 96, 128],
        "depths": [1, 1, 2, 1],
        "layer_type": "basic",
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_groups": 8,
    "intermediate_size": 256,
    "encoder_layers": 2,
    "num_points": 2,
    "decoder_layers": 3,
    "num_queries": 30,
    "fusion_size": 128,
    "fusion_heads": 4,
    "fusion_dropout": 0.0,
    "template_size": 64,
    # what a new model does better without, or with; see training/glee/recipes/scenes_tiny.yaml
    "fusion_attends_padding": False,
    "proposal_scale_from_coarsest": False,
    "double_decoder_norm": False,
    "mask_positions": True,
    "loss_settings": {"mask_points": 768},
}


def eight_photos(coco: Path, folder: Path) -> Path:
    """The first eight photos whose objects each cover a hundredth or more of them, with the classes in them."""
    content = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
    chosen = []
    for image in sorted(content["images"], key=lambda image: image["id"]):
        mine = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]]
        pixels = image["height"] * image["width"]
        if mine and all(entry["area"] >= SMALLEST * pixels and not entry["iscrowd"] for entry in mine):
            chosen.append((image, mine))
    chosen = chosen[:8]
    annotations = [entry for _, mine in chosen for entry in mine]
    used = {entry["category_id"] for entry in annotations}
    categories = [entry for entry in content["categories"] if entry["id"] in used]
    images = [image for image, _ in chosen]
    path = folder / "eight.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def new_checkpoint(classes: list[str], folder: Path) -> Path:
    """Random weights, and a tokenizer that knows the classes."""
    torch.manual_seed(0)
    tokenizer = learn_tokenizer(["object", *classes], 100, 16)
    text = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": 16}
    text |= {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model = GleeForObjectDetection(GleeConfig(**CONFIG, text_config=text))
    with torch.no_grad():  # CLIP's own start is so small that what all texts have in common soon drowns the words
        model.get_input_embeddings().weight.mul_(20)
    images = GleeImageProcessor(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})
    return save_checkpoint(model, GleeProcessor(images, tokenizer), folder)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.timeout(1800)
def test_eight_photos_are_learnt_by_heart(shared, tmp_path):
    coco = shared / "data" / "coco_tiny"
    data = eight_photos(coco, tmp_path)
    classes = read_vocabulary(data)
    source = {"reader": "coco", "root": str(data), "options": {"images": str(coco / "train2017")}, "images": 4}
    source |= {"supervision": {"denoising_table": "own"}, "vocabulary": classes}
    as_it_is = {"flip": 0.0, "crop": 0.0, "shortest_edges": [SIDE], "longest_edge": SIDE}
    training = {"output_dir": str(tmp_path / "run"), "max_steps": STEPS, "learning_rate": 1e-3, "warmup_steps": 30}
    training |= {"lr_scheduler_type": "cosine", "bf16": True, "use_cpu": True, "save_strategy": "no"}
    training |= {"logging_steps": 25, "weight_decay": 1e-4}
    trainer = train(
        CorpusTrainingRecipe(
            StartRecipe(
                checkpoint=str(new_checkpoint(classes, tmp_path / "new")),
                config={"denoising_tables": {"own": len(classes)}},
            ),
            CorporaRecipe([{**source, "augmentation": as_it_is}]),
            OptimiserRecipe(backbone=1.0, text=1.0),
            training,
        )
    )
    rows = open_corpus("coco", data, images=coco / "train2017")
    evaluation = CocoEvaluation(rows, classes)
    model = trainer.model.eval()
    found = evaluation.precision(evaluation.detect(model, trainer.processing_class, range(8)))
    print({name: round(value, 3) for name, value in found.items() if name.endswith(("AP", "AP50", "AP75"))})
    assert len(rows) == 8 and sum(len(row["objects"]) for row in rows) >= 16
    assert found["box_AP50"] >= 0.9
    assert found["mask_AP50"] >= 0.8
