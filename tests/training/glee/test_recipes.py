"""The shipped recipes: complete, and of names that exist."""

from dataclasses import asdict, fields
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoTokenizer, CLIPTextModel, ResNetBackbone

import lookhear
from lookhear.modeling.glee import GleeConfig, GleeEvaConfig
from lookhear.modeling.glee.configuration_glee import DENOISING_TABLES
from lookhear.modeling.glee.loss_glee import GleeSupervision
from lookhear.training.glee.corpora.opening import READERS, SHARDS, open_corpus
from lookhear.training.glee.initialise import new_model
from lookhear.training.glee.mixture.augmentation import AugmentationRecipe
from lookhear.training.glee.mixture.corpus_recipe import CorporaRecipe, CorpusTrainingRecipe, StartRecipe
from lookhear.training.glee.mixture.mixture import Source
from lookhear.training.glee.mixture.sources import open_source
from lookhear.training.glee.mixture.train_corpora import (
    build,
    check_denoising,
    cut,
    main,
    open_sources,
)
from lookhear.training.glee.scenes.recipe import GleeRecipe
from lookhear.training.glee.validation import KNOWN
from lookhear.training.recipe_reading import merge, read_recipe, read_system
from lookhear.training.running import training_arguments, with_validation

RECIPES = Path(lookhear.__file__).parent / "training" / "glee" / "recipes"
SIZES = ("lite", "plus", "pro")
CORPUS_RECIPES = [f"stage{stage}_{size}" for stage in (1, 2, 3) for size in SIZES]
CORPUS_RECIPES += ["data_scale", "video_ytvis19", "video_ytvis21", "video_ovis"]
CORPUS_RECIPES += ["video_vos", "video_rvos", "video_uvo"]
OPENING = {"reader", "root", "options", "cache", "stream", "buffer", "seed", "vocabulary", "augmentation"}


def shipped(name: str) -> CorpusTrainingRecipe:
    return read_recipe(RECIPES / f"{name}.yaml", [], CorpusTrainingRecipe, RECIPES)


def test_every_recipe_is_looked_at():
    on_scenes = {"scenes_tiny", "data_scale_tiny", "people_tiny"}
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {*CORPUS_RECIPES, *on_scenes}


@pytest.mark.parametrize("name", CORPUS_RECIPES)
def test_a_recipe_names_what_exists(name):
    recipe = shipped(name)
    tables = recipe.model.config["denoising_tables"]
    assert tables.items() <= DENOISING_TABLES.items()
    GleeConfig(**recipe.model.config)
    for given in recipe.data.sources:
        source = {**recipe.data.common, **given}
        assert source["reader"] in READERS and source.keys() <= OPENING | {field.name for field in fields(Source)}
        assert not source.get("stream") or source["reader"] in SHARDS
        supervision = GleeSupervision(**source["supervision"])
        assert supervision.denoising_table in tables
        # A class is a row of its table: no batch may ask for more of them.
        assert source.get("most_labels", 100) <= max(100, tables[supervision.denoising_table])
        AugmentationRecipe(**source.get("augmentation", {}))
    arguments = training_arguments({**recipe.training, "bf16": False, "use_cpu": True})
    assert arguments.max_grad_norm == 0.01 and arguments.learning_rate == 1e-4
    assert max(recipe.optimiser.milestones) < arguments.max_steps
    assert recipe.validation.protocol in KNOWN and recipe.validation.data and recipe.validation.limit
    with_steps = training_arguments({**with_validation(recipe.training, True), "bf16": False, "use_cpu": True})
    assert with_steps.eval_on_start and 0 < with_steps.eval_steps < arguments.max_steps


def plain(value):
    """Tuples as lists, as YAML has them."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_recipe_keeps_its_values(path):
    content = yaml.safe_load(path.read_text())
    kind = GleeRecipe if read_system(path, RECIPES) == "glee_scenes" else CorpusTrainingRecipe
    recipe = plain(asdict(read_recipe(path, [], kind, RECIPES)))
    for section in content.keys() - {"system", "extends"}:
        assert merge(recipe[section], content[section]) == recipe[section]


WRONG_CORPORA = {
    "data.fraction=half": "data.fraction must be a number, not 'half'",
    "data.sources={}": "data.sources must be a list",
    "data.skip_bad=maybe": "data.skip_bad must be true or false, not 'maybe'",
    "model.size=mini": "model.size must be 'lite', 'plus' or 'pro', not 'mini'",
    "optimiser.milestones=[1, later]": "optimiser.milestones[1] must be a whole number, not 'later'",
    "optimiser.layer_decay=none": "optimiser.layer_decay must be a number or null, not 'none'",
    "optimiser.gama=0.1": "optimiser has no field 'gama'",
    "data.fraction=0": "data.fraction must be above 0 and at most 1, not 0",
    "optimiser.text=-1": "optimiser.text must be at least 0, not -1",
    "optimiser.layer_decay=1.5": "optimiser.layer_decay must be above 0 and at most 1, not 1.5",
    "optimiser.milestones=[-1]": "optimiser.milestones[0] must be at least 0, not -1",
    "optimiser.moving_average=1": "optimiser.moving_average must be at least 0 and below 1, not 1",
    "model.config.loss_settings={mask_loss: bse}": "config.loss_settings['mask_loss'] must be bce or focal, not 'bse'",
    "validation.limit=0": "validation.limit must be at least 1, not 0",
    "validation.tracking=sort": "validation.tracking must be 'memory' or 'minvis', not 'sort'",
    "model.config.num_querys=3": "model.config has no field 'num_querys'; did you mean 'num_queries'?",
    "model.config.text_config={hidden: 3}": "model.config.text_config has no field 'hidden'",
}
WRONG_SCENES = {
    "data.canvases=[128, 128]": "data.canvases[0] must be a list of 2 (a whole number, a whole number), not 128",
    "data.tasks.labels=most": "data.tasks.labels must be a number, not 'most'",
    "data.images.labels=1.5": "data.images.labels must be a whole number, not 1.5",
    "data.scenes={crowding: some}": "data.scenes.crowding must be a number, not 'some'",
    "data.scenes={peple: 0.5}": "data.scenes has no field 'peple'",
    "model.token_scale=big": "model.token_scale must be a number, not 'big'",
    "model.token_scale=0": "model.token_scale must be above 0, not 0",
    "model.max_length=0": "model.max_length must be at least 1, not 0",
    "data.canvases=[[0, 128]]": "data.canvases[0][0] must be at least 1, not 0",
    "data.tasks.labels=-1": "data.tasks.labels must be at least 0, not -1",
    "data.scenes={objects: [8, 3]}": "data.scenes.objects must have the lower number first, not [8, 3]",
    "data.scenes={people: 2}": "data.scenes.people must be from 0 to 1, not 2",
    "model.config.backbone_config.depth=[1]": (
        "model.config.backbone_config has no field 'depth'; did you mean 'depths'?"
    ),
}


@pytest.mark.parametrize("override", [*WRONG_CORPORA, *WRONG_SCENES])
def test_a_wrong_value_is_refused_with_field_value_and_type(override):
    corpora = override in WRONG_CORPORA
    path = RECIPES / ("stage1_lite.yaml" if corpora else "scenes_tiny.yaml")
    with pytest.raises(ValueError) as refused:
        read_recipe(path, [override], CorpusTrainingRecipe if corpora else GleeRecipe, RECIPES)
    assert str(refused.value).startswith((WRONG_CORPORA | WRONG_SCENES)[override])


def test_a_wrong_value_of_a_source_is_refused(write_coco, tmp_path):
    folder = write_coco(tmp_path / "own", 2)
    with pytest.raises(ValueError, match="source coco.ratio must be a number, not 'much'"):
        open_source("coco", folder, ratio="much")
    with pytest.raises(ValueError, match=r"source coco: augmentation.flip must be a number, not \[1, 2\]"):
        open_source("coco", folder, augmentation={"flip": [1, 2]})
    with pytest.raises(ValueError, match="source coco has no field 'ratoi'.*did you mean 'ratio'"):
        open_source("coco", folder, ratoi=1.0)
    with pytest.raises(ValueError, match="source coco.prompts must be from 0 to 1, not 2"):
        open_source("coco", folder, prompts=2)
    with pytest.raises(ValueError, match="source coco: augmentation.jitter must have the lower number first"):
        open_source("coco", folder, augmentation={"jitter": [2.0, 0.1]})
    with pytest.raises(ValueError, match="source coco: rows come from the corpus"):
        open_source("coco", folder, rows=[])


@pytest.mark.parametrize("size", SIZES)
def test_published_shares(size):
    first, second, third = (shipped(f"stage{stage}_{size}").data.sources for stage in (1, 2, 3))
    assert [(entry["reader"], entry["ratio"]) for entry in first] == [("objects365", 1.0), ("openimages", 1.0)]
    assert sum(entry["ratio"] for entry in second if entry["reader"] == "refcoco") == pytest.approx(2.5)
    assert len(second) - 2 == (15 if size == "pro" else 14), "RefCOCO's three are one source of the paper"
    assert {(entry["reader"], entry["ratio"]) for entry in third[-2:]} == {("grit", 5.0), ("sa1b", 5.0)}
    learning = shipped(f"stage2_{size}")
    pro = {"backbone": 1.0, "layer_decay": 0.8} if size == "pro" else {"backbone": 0.1, "layer_decay": None}
    assert {name: getattr(learning.optimiser, name) for name in pro} == pro
    assert learning.training["weight_decay"] == (0.1 if size == "pro" else 0.05) and learning.optimiser.text == 0.1


def test_a_share_of_the_data_holds_the_smaller_ones(write_coco, tmp_path):
    source = open_source("coco", write_coco(tmp_path / "own", 12))
    parts = [set(cut(source, fraction, seed=3).rows["id"]) for fraction in (0.25, 0.5, 1.0)]
    assert [len(part) for part in parts] == [3, 6, 12] and parts[0] < parts[1] < parts[2]
    with pytest.raises(ValueError, match="fraction"):
        open_sources(CorporaRecipe([{"reader": "coco", "root": "."}], fraction=0.0), 0)


def test_recipes_that_cannot_run_are_refused(glee_checkpoint):
    with pytest.raises(ValueError, match="data.sources is empty"):
        open_sources(CorporaRecipe(), 0)
    with pytest.raises(ValueError, match=r"data.sources\[0\] has no root"):
        open_sources(CorporaRecipe([{"reader": "coco"}]), 0)
    with pytest.raises(ValueError, match="no module 'model.txt'"):
        build(StartRecipe(checkpoint=str(glee_checkpoint), freeze=["model.txt"]))
    with pytest.raises(ValueError, match="model.size"):
        build(StartRecipe(size="mini"))
    with pytest.raises(ValueError, match="max_steps must be given"):
        main(
            str(RECIPES / "stage1_lite.yaml"),
            ["training.max_steps=-1", "training.bf16=false", "training.use_cpu=true"],
        )


@pytest.mark.parametrize("name", CORPUS_RECIPES)
def test_published_corpora_are_read_although_some_of_their_annotations_cannot_be_used(name):
    assert shipped(name).data.skip_bad


def test_unknown_denoising_tables_name_the_known_ones(glee_checkpoint):
    wrong = CorpusTrainingRecipe(
        StartRecipe(config={"denoising_tables": {"coco": 80, "vg": 200}}),
        CorporaRecipe([{"supervision": {"denoising_table": "coco"}}, {"supervision": {"denoising_table": "cocoa"}}]),
    )
    known = (
        r"data.sources\[1\]: supervision.denoising_table 'cocoa' is not in model.config.denoising_tables, which has"
    )
    with pytest.raises(ValueError, match=f"{known} coco, vg; add it there"):
        check_denoising(wrong)
    wrong.data.sources.pop()
    check_denoising(wrong)
    wrong.model = StartRecipe(checkpoint=str(glee_checkpoint))  # which has none
    with pytest.raises(ValueError, match=r"data.sources\[0\]: .*'coco'.* which is empty"):
        check_denoising(wrong)


def test_a_new_model_starts_from_a_backbone_and_a_clip(tiny_glee, tmp_path):
    """Backbone and CLIP as transformers saves them; the teacher is the same CLIP."""
    model, processor = tiny_glee
    config = model.config.to_dict()
    backbone = ResNetBackbone(model.config.backbone_config)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)
    backbone.save_pretrained(tmp_path / "backbone")
    CLIPTextModel(model.config.text_config).save_pretrained(tmp_path / "clip")
    processor.tokenizer.save_pretrained(tmp_path / "clip")
    fields = {name: config[name] for name in ("backbone_config", "text_config", "hidden_size", "num_groups")}
    fields |= {
        "num_attention_heads": 4,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "fusion_size": 32,
        "fusion_heads": 2,
    }
    recipe = StartRecipe(
        "", "lite", fields | {"text_teacher": True}, str(tmp_path / "backbone"), str(tmp_path / "clip")
    )
    recipe.checkpoint = None
    made, made_processor = build(recipe)
    state, saved = made.model.backbone.state_dict(), backbone.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in state.items())
    clip = CLIPTextModel.from_pretrained(tmp_path / "clip").state_dict()
    for part in (made.model.text_encoder.clip, made.model.text_teacher):
        assert all(torch.equal(value, clip[name]) for name, value in part.state_dict().items())
    assert len(made_processor.tokenizer) == len(AutoTokenizer.from_pretrained(tmp_path / "clip"))
    assert not any(weight.requires_grad for weight in made.model.text_teacher.parameters())
    wider = fields["backbone_config"] | {"hidden_sizes": [8, 16, 16, 64]}
    with pytest.raises(ValueError, match="does not fit"):
        new_model("lite", fields | {"backbone_config": wider}, str(tmp_path / "backbone"))


def test_a_new_pro_starts_from_the_file_of_an_eva02(tmp_path):
    """Named as its authors publish it, with what only its own training needs; the pyramid stays random."""
    sizes = {"hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    eva = GleeEvaConfig(image_size=128, window_size=4, window_block_indexes=[0], pyramid_size=32, **sizes)
    fields = {"backbone_config": eva, "hidden_size": 32, "num_attention_heads": 4, "num_groups": 8}
    fields |= {"encoder_layers": 1, "decoder_layers": 1, "fusion_size": 32, "fusion_heads": 2}
    fields["text_config"] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    model = new_model("pro", fields)
    wanted = {
        name: torch.rand_like(value)
        for name, value in model.model.backbone.state_dict().items()
        if not name.startswith("pyramid.")
    }
    names = {"embeddings.position_embeddings": "pos_embed", "embeddings.patch_embeddings": "patch_embed.proj"}
    names |= {"layers.": "blocks.", "layernorm_before": "norm1", "layernorm_after": "norm2", "mlp.norm": "mlp.ffn_ln"}
    names |= {"attention.q_proj.bias": "attn.q_bias", "attention.v_proj.bias": "attn.v_bias"}
    names |= {"attention.o_proj": "attn.proj", "attention.": "attn."}
    names |= {"mlp.gate_proj": "mlp.w1", "mlp.up_proj": "mlp.w2", "mlp.down_proj": "mlp.w3"}
    published = {"cls_token": torch.zeros(1), "norm.weight": torch.zeros(24), "lm_head.bias": torch.zeros(3)}
    for name, value in wanted.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        published[name] = value
    torch.save({"module": published}, tmp_path / "eva.pt")
    state = new_model("pro", fields, str(tmp_path / "eva.pt")).model.backbone.state_dict()
    assert len(wanted) > 30 and all(torch.equal(state[name], value) for name, value in wanted.items())
    torch.save(published | {"pos_embed": torch.zeros(1, 5, 24)}, tmp_path / "eva.pt")
    with pytest.raises(ValueError, match="does not fit: embeddings.position_embeddings"):
        new_model("pro", fields, str(tmp_path / "eva.pt"))
    torch.save(published | {"blocks.0.attn.qkv.weight": torch.zeros(1)}, tmp_path / "eva.pt")
    with pytest.raises(ValueError, match="none of EVA-02's: blocks.0.attn.qkv.weight"):
        new_model("pro", fields, str(tmp_path / "eva.pt"))


def test_open_corpus_keeps_ids(write_coco, tmp_path):
    assert open_corpus("coco", write_coco(tmp_path / "own", 3))["id"][:] == ["0", "1", "2"]
