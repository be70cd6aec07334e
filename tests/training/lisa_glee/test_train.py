"""A random LLaVA over a random GLEE learns from corpora: inputs, adapters, resuming, processes, and the result."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor

import lookhear
from lookhear.modeling.lisa_glee import LisaGleeForReasoningSegmentation
from lookhear.processing.lisa_glee import LisaGleeProcessor
from lookhear.training.glee.initialise import load_for_training
from lookhear.training.lisa_glee.building import build, recipe_config
from lookhear.training.lisa_glee.chat import messages
from lookhear.training.lisa_glee.conversation_collator import ConversationCollator
from lookhear.training.lisa_glee.corpora.opening import open_corpus
from lookhear.training.lisa_glee.corpora.schema import LabelRegion, Turn
from lookhear.training.lisa_glee.dry_run import describe, memory, meta_model
from lookhear.training.lisa_glee.lora import merge_adapters
from lookhear.training.lisa_glee.mixture import UNKNOWN, Conversation, Example
from lookhear.training.lisa_glee.recipe import LisaModelRecipe, LisaRecipe, LoraRecipe
from lookhear.training.lisa_glee.templates import ask
from lookhear.training.lisa_glee.train import main, train
from lookhear.training.lisa_glee.trainer import ConversationTrainer
from lookhear.training.recipe_reading import fill, read_recipe

PACKAGE = Path(lookhear.__file__).parent
TWO_CPU = PACKAGE / "training" / "accelerate" / "two_cpu.yaml"
SEVEN = PACKAGE / "training" / "lisa_glee" / "recipes" / "lisa_glee_plus_7b.yaml"
MODULE = "lookhear.training.lisa_glee.train"
REGION = LabelRegion(np.eye(64, dtype=np.uint8), (1,))

needs_peft = pytest.mark.skipif("not __import__('importlib.util').util.find_spec('peft')", reason="needs peft")


@pytest.fixture(scope="session")
def start(glee_start, llava_start) -> dict:
    """The model section of a recipe, without adapters."""
    names = {"perception": str(glee_start), "language": str(llava_start), "config": {"num_objects": 4}}
    return names | {"lora": {"r": 0}}


@pytest.fixture(scope="session")
def untrained(start) -> tuple[LisaGleeForReasoningSegmentation, LisaGleeProcessor]:
    torch.manual_seed(0)
    model, processor = build(fill(LisaModelRecipe, start))
    return model.eval(), processor


@pytest.fixture
def write(start, write_ade20k, tmp_path):
    """`write(name, field=value)`: a recipe with adapters and these training arguments, whose result goes to `name`."""
    tree = write_ade20k(tmp_path / "ade", 8)
    spoken = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "a square . Here it is"}]
    spoken += [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "in the picture"}]
    pictures = sorted((tree / "images" / "training").iterdir())
    entries = [{"id": path.stem, "image": path.name, "conversations": spoken} for path in pictures]
    (tmp_path / "llava.json").write_text(json.dumps(entries))
    words = {"reader": "llava_instruct", "root": str(tmp_path / "llava.json"), "images": str(pictures[0].parent)}

    def write(name: str, lora: dict | None = None, both: bool = True, **training) -> Path:
        fields = {"output_dir": str(tmp_path / name), "max_steps": 4, "learning_rate": 1e-2, "use_cpu": True}
        fields |= {"logging_steps": 1, "save_strategy": "no", "max_grad_norm": 1.0, "warmup_steps": 1}
        fields |= {"per_device_train_batch_size": 2, **training}
        lora = lora or {"r": 4, "dropout": 0.2}
        sources = [{"reader": "ade20k", "root": str(tree)}, *([words] if both else [])]
        recipe = {"system": "lisa_glee", "model": {**start, "lora": lora}, "data": {"sources": sources}}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**recipe, "training": fields}))
        return path

    return write


def run(recipe: Path) -> ConversationTrainer:
    return train(read_recipe(recipe, [], LisaRecipe, recipe.parent))


def losses(history: list[dict]) -> list[float]:
    return [entry["loss"] for entry in history if "loss" in entry]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same_weights(one: Path, two: Path, tolerance: float) -> None:
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=tolerance, atol=tolerance, msg=name)


def example(*conversations: tuple[tuple[Turn, ...], int], size: tuple[int, int] = (64, 64)) -> Example:
    """A picture with conversations, each with so many masks."""
    mask = np.zeros(size, np.float32)
    mask[: size[0] // 2, : size[1] // 4], mask[-1] = 1, UNKNOWN
    parts = tuple(Conversation(turns, (mask,) * count) for turns, count in conversations)
    return Example(Image.new("RGB", size[::-1], (200, 30, 30)), parts)


def test_what_only_training_of_glee_needs_is_left_out(start, untrained, tmp_path):
    """A GLEE with text teacher and denoising tables makes the model that the same GLEE without them makes."""
    trained = load_for_training(start["perception"], text_teacher=True, denoising_tables={"coco": 80})
    trained.save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(start["perception"]).save_pretrained(tmp_path)
    recipe = fill(LisaModelRecipe, {**start, "perception": str(tmp_path)})
    seeing, expected = build(recipe)[0].perception, untrained[0].perception.state_dict()
    assert any("text_teacher" in name for name in load_file(tmp_path / "model.safetensors"))
    assert seeing.state_dict().keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in seeing.state_dict().items())
    for config in (seeing.config, recipe_config(recipe).perception_config):
        assert not config.text_teacher and config.denoising_tables is None


def test_labels_are_the_answers_and_masks_fit_their_pictures(untrained):
    model, processor = untrained
    shown = Turn("Where is the square ?", "Here it is : [SEG] .", REGION)
    wide = example(((shown,), 1), ((Turn("Where?", "It is this : [SEG] .", REGION), shown), 2), size=(64, 96))
    words = example(((Turn("What is this ?", "the square"),), 0))
    inputs = ConversationCollator(processor)([wide, words])
    assert inputs["picture_indices"].tolist() == [0, 0, 1]
    said = [processor.tokenizer.decode(row[row != -100]).split("</s>")[:-1] for row in inputs["labels"]]
    assert [[part.split() for part in row] for row in said] == [
        [shown.answer.split()],
        ["It is this : [SEG] .".split(), shown.answer.split()],
        ["the square".split()],
    ]
    ids = inputs["input_ids"]
    assert (ids == model.config.object_token_id).sum(dim=1).tolist() == [4, 4, 4]
    assert (ids == model.config.language_config.image_token_id).sum(dim=1).tolist() == [4, 4, 4]
    answered = inputs["labels"] != -100
    assert torch.equal(inputs["labels"][answered], ids[answered])
    assert not answered[inputs["attention_mask"] == 0].any()
    assert inputs["pixel_values"].shape[0] == 3 and torch.equal(*inputs["pixel_values"][:2])
    assert inputs["perception_pixel_values"].shape[0] == 2
    assert inputs["mask_labels"].shape == (3, *inputs["perception_pixel_mask"].shape[1:])
    height, width = 64, 96  # as they are: the shorter side has 64 pixels already
    for mask in inputs["mask_labels"]:
        assert (mask[height:] == UNKNOWN).all() and (mask[:, width:] == UNKNOWN).all()
        seen = mask[:height, :width]
        assert (seen[:32, :24] == 1).all() and int((seen == 1).sum()) == 32 * 24 and (seen[-1] == UNKNOWN).all()
    outputs = model(**inputs)
    assert outputs.mask_rows.tolist() == [0, 1, 1] and torch.isfinite(outputs.loss)
    only_words = model(**ConversationCollator(processor)([words]))
    assert only_words.loss_dict["bce"] == 0 and only_words.loss.item() == pytest.approx(
        only_words.loss_dict["text"].item()
    )


def test_conversations_that_are_too_long_lose_their_end(untrained):
    processor = untrained[1]
    turn = Turn("Where ?", "in the picture")
    whole = ConversationCollator(processor)([example(((turn,), 0))])["input_ids"].shape[1]
    for longest, turns in ((whole, 1), (whole + 3, 1), (10_000, 3)):
        inputs = ConversationCollator(processor, longest)([example(((turn,) * 3, 0))])
        assert int((inputs["labels"] == processor.tokenizer.eos_token_id).sum()) == turns
    cut = ConversationCollator(processor, whole - 2)([example(((turn,), 0))])
    assert cut["input_ids"].shape[1] == whole - 2
    shown = Turn("Where ?", "[SEG]", REGION)
    both = ConversationCollator(processor, whole)([example(((turn, shown), 1))])  # the mask goes with its turn
    assert len(both["mask_labels"]) == 0
    with pytest.raises(ValueError, match="data.longest is 8; raise it"):
        ConversationCollator(processor, 8)([example(((shown,), 1))])


def test_a_chat_template_without_bounds_is_refused(untrained):
    processor = untrained[1]
    template = processor.chat_template
    try:
        processor.chat_template = template.replace("' ASSISTANT:'", "' ASSISTANT:' + ('' if loop.last else '!!')")
        with pytest.raises(ValueError, match="chat template cannot be trained with"):
            ConversationCollator(processor)([example(((Turn("Where ?", "[SEG]", REGION),), 1))])
    finally:
        processor.chat_template = template


@needs_peft
def test_what_is_trained_is_what_the_paper_trains(start):
    model, _ = build(fill(LisaModelRecipe, {**start, "lora": {"r": 4}}))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    adapted = {name for name in trained if ".lora_" in name}
    decoder = "language_model.model.language_model.layers"
    assert adapted == {
        f"{decoder}.{layer}.self_attn.{kind}_proj.lora_{half}.default.weight"
        for layer in (0, 1)
        for kind in "qv"
        for half in "AB"
    }
    others = {"language_model.model.language_model.embed_tokens.weight", "language_model.lm_head.weight"}
    heads = {name for name in trained if name.startswith(("object_encoder.", "segment_head."))}
    assert trained == adapted | others | heads and len(heads) == 8
    model.train()
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == trained
    half, _ = build(fill(LisaModelRecipe, {**start, "lora": {"r": 4}, "dtype": "bfloat16"}))
    for name, weight in half.named_parameters():
        fixed = name.startswith("language_model.") and not weight.requires_grad
        assert weight.dtype == (torch.bfloat16 if fixed else torch.float32), name


def test_without_adapters_the_language_model_is_trained_but_not_its_eyes(untrained):
    frozen = {
        name.split(".")[2]
        for name, weight in untrained[0].language_model.named_parameters(prefix="a")
        if not weight.requires_grad
    }
    assert frozen == {"vision_tower", "multi_modal_projector"}


def test_adapters_merge_to_their_product():
    torch.manual_seed(0)
    weight, first, second = torch.randn(5, 3), torch.randn(2, 3), torch.randn(5, 2)
    names = {"q.base_layer.weight": weight, "q.lora_A.default.weight": first, "q.lora_B.default.weight": second}
    merged = merge_adapters({**names, "q.base_layer.bias": weight[0], "norm.weight": first}, LoraRecipe(2, 6.0))
    assert merged.keys() == {"q.weight", "q.bias", "norm.weight"}
    for row in range(5):
        for column in range(3):
            added = sum(second[row, k].item() * first[k, column].item() for k in range(2))
            assert merged["q.weight"][row, column].item() == pytest.approx(
                weight[row, column].item() + 3 * added, abs=1e-5
            )


@needs_peft
def test_a_run_writes_a_checkpoint_without_adapters(write, tmp_path):
    from peft import PeftModel

    trainer = run(write("run", logging_steps=1))
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 4 and all({"text", "bce", "dice"} <= entry.keys() for entry in logged)
    model = LisaGleeForReasoningSegmentation.from_pretrained(tmp_path / "run").eval()
    processor = LisaGleeProcessor.from_pretrained(tmp_path / "run")
    assert not any("lora" in name or "base_layer" in name for name in model.state_dict())
    inputs = ConversationCollator(processor)([example(((Turn("Where ?", "[SEG] .", REGION),), 1))])
    with torch.no_grad():
        adapted, merged = trainer.model.eval()(**inputs), model(**inputs)
    torch.testing.assert_close(merged.logits, adapted.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(merged.mask_logits, adapted.mask_logits, rtol=1e-4, atol=1e-4)
    alone = PeftModel.from_pretrained(model, tmp_path / "run" / "adapter").base_model.model
    own = trainer.model.state_dict()
    loaded = {name: weight for name, weight in alone.state_dict().items() if ".lora_" in name}
    assert len(loaded) == 8 and any(weight.any() for name, weight in loaded.items() if "lora_B" in name)
    assert all(torch.equal(weight, own[name]) for name, weight in loaded.items())


class Stopped(Exception):
    pass


@needs_peft
@pytest.mark.slow
def test_broken_off_and_resumed(write, tmp_path, monkeypatch):
    settings = {"save_strategy": "steps", "save_steps": 2, "gradient_accumulation_steps": 2, "max_steps": 5}
    whole = run(write("whole", **settings))
    recipe, original = write("halves", **settings), ConversationTrainer.training_step

    def training_step(self, *args, **kwargs):
        if self.state.global_step == 3:
            raise Stopped
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ConversationTrainer, "training_step", training_step)
    with pytest.raises(Stopped):
        run(recipe)
    monkeypatch.undo()
    halves = run(recipe)
    assert losses(halves.state.log_history) == losses(whole.state.log_history)
    same_weights(tmp_path / "whole", tmp_path / "halves", 0)


@needs_peft
@pytest.mark.slow
def test_half_a_checkpoint_is_trained_again_and_an_ended_run_is_not(write, tmp_path, monkeypatch):
    recipe = write("run", save_strategy="steps", save_steps=2, max_steps=4)
    run(recipe)
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    (tmp_path / "run" / "checkpoint-4" / "trainer_state.json").unlink()
    assert len(losses(run(recipe).state.log_history)) == 4
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights
    monkeypatch.setattr(ConversationTrainer, "training_step", None)  # no step
    for name in ("model.safetensors", "trainer_state.json"):
        (tmp_path / "run" / name).unlink()
    assert run(recipe).state.global_step == 4
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights


def launch(recipe: Path, *launcher: str) -> list[str]:
    return [sys.executable, *launcher, "-m", MODULE, str(recipe)]


def environment(threads: int = 1) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}


@needs_peft
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_are_one_with_twice_the_accumulation(write, tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    launcher = ("-m", "accelerate.commands.launch", "--config_file", str(TWO_CPU), "--main_process_port", port)
    plain = {"optim": "sgd", "max_steps": 5}  # Adam's first steps make a full step of a gradient's rounding error
    two = write("two", activation_checkpointing=True, **plain)  # which changes nothing but the memory
    for recipe, launched in ((write("one", gradient_accumulation_steps=2, **plain), ()), (two, launcher)):
        result = subprocess.run(
            launch(recipe, *launched), env=environment(), capture_output=True, text=True, timeout=420
        )
        assert result.returncode == 0, result.stderr[-4000:]
    logs = [json.loads((tmp_path / name / "trainer_state.json").read_text())["log_history"] for name in ("one", "two")]
    one, two = map(losses, logs)
    assert len(one) == 5 and one == pytest.approx(two, rel=1e-4)
    same_weights(tmp_path / "one", tmp_path / "two", 1e-5)


@needs_peft
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_and_run_again(write, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 40}
    run(write("whole", **settings))
    recipe = write("killed", **settings)
    threads = environment(torch.get_num_threads())  # sums of other threads are rounded otherwise
    process = subprocess.Popen(launch(recipe), env=threads, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 300
    while not (tmp_path / "killed" / "checkpoint-2" / "trainer_state.json").is_file():
        assert process.poll() is None and time.monotonic() < end, "the first checkpoint never came"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    again = run(recipe)
    assert len(losses(again.state.log_history)) == 40
    same_weights(tmp_path / "whole", tmp_path / "killed", 0)


def overlap(model: LisaGleeForReasoningSegmentation, processor: LisaGleeProcessor, corpus) -> float:
    """gIoU of the answers to a question about each class of each picture."""
    random, found = np.random.default_rng(5), []
    for picture in corpus:
        for subject in picture.subjects:
            text = processor.apply_chat_template(
                messages([(ask(subject, random).question, "")], ask=True), add_generation_prompt=True, tokenize=False
            )
            inputs = processor(images=[Image.open(picture.image["path"])], text=[text])
            padding, pictures = inputs["perception_pixel_mask"], inputs.pop("picture_indices")
            outputs = model.generate(**inputs, max_new_tokens=16, do_sample=False)
            (answer,) = processor.post_process_answers(outputs, padding, [picture.size], pictures)
            shown, meant = np.zeros(picture.size, bool), subject.region.decode(picture.size)
            for entry in answer["objects"]:
                shown |= entry["mask"]
            found.append((shown & meant).sum() / (shown | meant).sum())
    return float(np.mean(found))


@needs_peft
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_eight_pictures_are_learnt_by_heart(write, tmp_path):
    settings = {"max_steps": 420, "per_device_train_batch_size": 4, "logging_steps": 60, "warmup_steps": 20}
    trainer = run(write("heart", lora={"r": 8}, both=False, adam_beta2=0.95, **settings))
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    for name in ("loss", "text", "bce", "dice"):
        assert logged[-1][name] < 0.5 * logged[0][name]
    model = LisaGleeForReasoningSegmentation.from_pretrained(tmp_path / "heart").eval()
    processor = LisaGleeProcessor.from_pretrained(tmp_path / "heart")
    corpus = open_corpus("ade20k", tmp_path / "ade")
    reached = overlap(model, processor, corpus)
    print(f"gIoU {reached:.3f}")
    assert len(corpus) == 8 and reached >= 0.95


@needs_peft
def test_a_dry_run_counts_what_the_paper_trains():
    """By hand, for LLaVA 1.5 7B: width 4096, 32 layers, 32064 words; two adapters of rank 8 in each layer."""
    recipe = read_recipe(SEVEN, [], LisaRecipe, PACKAGE / "training")
    model = meta_model(recipe)
    trained = {name: weight.numel() for name, weight in model.named_parameters() if weight.requires_grad}
    adapters = 32 * 2 * 2 * 8 * 4096
    embeddings = 32064 * 4096
    objects = (256 + 1 + 104) * 4096 + 4096 + 4096 * 4096 + 4096
    segments = 4096 * 4096 + 4096 + 4096 * 256 + 256
    assert sum(trained.values()) == adapters + 2 * embeddings + objects + segments == 302_956_800
    llama = 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 4096
    clip = sum(
        weight.numel() for name, weight in model.named_parameters() if "vision_tower" in name or "multi_modal" in name
    )
    glee = sum(weight.numel() for weight in model.perception.parameters())
    found = memory(model, 6, 804, torch.bfloat16, half=True, recomputed=True)
    assert found.weights == 4 * (302_956_800 + glee) + 2 * (llama + clip)
    assert (found.gradients, found.optimizer) == (4 * 302_956_800, 8 * 302_956_800)
    positions = 6 * 804
    layer = 2 * positions * (8 * 4096 + 4 * 11008)
    assert found.activations == 2 * positions * 4096 * 32 + layer + positions * 32064 * 10
    assert found.total == found.weights + found.gradients + found.optimizer + found.activations
    kept = memory(model, 6, 804, torch.bfloat16, half=True, recomputed=False)
    assert kept.activations == 32 * layer + positions * 32064 * 10
    text = describe(recipe)
    assert "302,956,800  (4.09%)" in text and "6 rows of 804 tokens" in text
    assert f"{found.total / 2**30:.1f} GiB" in text


@needs_peft
def test_the_larger_model_is_described_as_well():
    recipe = read_recipe(SEVEN.with_name("lisa_glee_plus_13b.yaml"), [], LisaRecipe, PACKAGE / "training")
    assert f"{2 * 2 * 40 * 8 * 5120:14,}" in describe(recipe)  # adapters: two halves of q and v in 40 layers


@needs_peft
@pytest.mark.slow
def test_a_dry_run_needs_neither_data_nor_network(tmp_path):
    """In an empty folder, without connections."""
    code = "import socket, sys; socket.socket.connect = None\n"
    code += "from lookhear_command import main; sys.exit(main(sys.argv[1:]))"
    result = subprocess.run(
        [sys.executable, "-c", code, "train", "lisa_glee_plus_7b.yaml", "--dry-run"],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr
    assert "adapters" in result.stdout and "memory (estimate)" in result.stdout
    assert not list(tmp_path.iterdir())


def test_recipes_that_cannot_be_run_are_refused(write, tmp_path, monkeypatch, start):
    recipe = write("wrong")
    with pytest.raises(ValueError, match="training.max_steps must be given"):
        main(recipe, ["training.max_steps=0"])
    with pytest.raises(ValueError, match="model.dtype bfloat16 needs training.bf16: true"):
        main(recipe, ["model.dtype=bfloat16"])
    with pytest.raises(ValueError, match="data.sources is empty"):
        main(recipe, ["data.sources=[]"])
    with pytest.raises(ValueError, match=r"data.sources\[0\] has no root"):
        main(recipe, ["data.sources=[{reader: ade20k}]"])
    with pytest.raises(ValueError, match="data.shares has no group 'semantics'; the groups are semantic, referring"):
        main(recipe, ["data.shares={semantics: 1}"])
    with pytest.raises(ValueError, match="data.shares has no 'visual_questions', the group of llava_instruct"):
        main(recipe, ["data.shares={semantic: 1}"])
    with pytest.raises(ValueError, match=r"data.sources\[0\].weight must be above 0"):
        main(recipe, [f"data.sources=[{{reader: ade20k, root: {tmp_path / 'ade'}, weight: 0}}]"])
    with pytest.raises(ValueError, match="model.config has no field 'num_object'; did you mean 'num_objects'"):
        main(recipe, ["model.config.num_object=3"])
    with pytest.raises(ValueError, match="model.perception and model.language must name"):
        main(recipe, ["model.language=null"])
    monkeypatch.setattr("lookhear.training.lisa_glee.lora.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"model.lora needs the package peft: pip install 'lookhear\[lora\]'"):
        main(recipe)


@needs_peft
def test_adapters_of_layers_that_do_not_exist_are_refused(start):
    wrong = {**start, "lora": {"r": 2, "modules": ["query"]}}
    with pytest.raises(ValueError, match="there is no layer 'query'; choose from down_proj, gate_proj, k_proj"):
        build(fill(LisaModelRecipe, wrong))
