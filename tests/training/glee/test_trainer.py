"""Parameter groups, schedule, moving average, and what a step learns however it is divided."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import TrainingArguments

from lookhear.modeling.glee import GleeEvaConfig, GleeForObjectDetection
from lookhear.training.glee.optimiser import MovingAverage, OptimiserRecipe, parameter_groups, step_schedule
from lookhear.training.glee.trainer import GleeTrainer, mean_objects
from lookhear.training.running import BatchSeeds


def rates_of(model, recipe, frozen: str = "-") -> dict[str, tuple[float, float]]:
    """Name -> (learning rate, weight decay) of what learns."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = parameter_groups(model, recipe, 1.0, 0.05)
    found = [(names[id(w)], (group["lr"], group["weight_decay"])) for group in groups for w in group["params"]]
    assert len(found) == len(dict(found)), "each weight is in one group"
    return dict(found)


def test_backbone_and_text_learn_more_slowly(tiny_glee):
    model = tiny_glee[0]
    rates = rates_of(model, OptimiserRecipe())
    assert rates.keys() == {name for name, weight in model.named_parameters() if weight.requires_grad}
    for name, (rate, decay) in rates.items():
        slow = name.startswith(("model.backbone.", "model.text_encoder.clip."))
        assert rate == (0.1 if slow else 1.0) and decay == 0.05, name
    plain = rates_of(model, OptimiserRecipe(decay_all=False))
    assert plain["model.decoder.norm.weight"][1] == 0 and plain["model.proposals.projection.weight"][1] == 0.05


def test_what_is_frozen_is_in_no_group(tiny_glee):
    model = GleeForObjectDetection(tiny_glee[0].config)
    model.model.text_encoder.clip.requires_grad_(False)
    assert not any(".clip." in name for name in rates_of(model, OptimiserRecipe()))


def test_layers_decay_from_the_last_to_the_first(tiny_glee):
    eva = {"image_size": 64, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    backbone = GleeEvaConfig(**eva, window_size=2, window_block_indexes=[0], pyramid_size=32)
    fields = tiny_glee[0].config.to_dict() | {"backbone_config": backbone, "project_features": False}
    model = GleeForObjectDetection(type(tiny_glee[0].config).from_dict(fields))
    rates = rates_of(model, OptimiserRecipe(backbone=1.0, layer_decay=0.8))
    first = {
        name.split(".")[3]: rate for name, (rate, _) in rates.items() if name.startswith("model.backbone.layers.")
    }
    assert first == pytest.approx({"2": 0.8, "1": 0.64, "0": 0.512})
    (lowest,) = {rate for name, (rate, _) in rates.items() if "backbone.embeddings" in name}
    assert lowest == pytest.approx(0.8**4)
    assert {rate for name, (rate, _) in rates.items() if "backbone.pyramid" in name} == {1.0}
    with pytest.raises(ValueError, match="EVA-02"):
        rates_of(tiny_glee[0], OptimiserRecipe(layer_decay=0.8))


def test_the_rate_rises_and_falls_in_steps():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = step_schedule(optimizer, OptimiserRecipe(milestones=[6, 8]), warmup=4)
    rates = []
    for _ in range(10):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 0.2, 0.2, 0.02, 0.02])


def test_the_moving_average_is_kept_and_takes_over(tmp_path):
    model, callback = nn.Linear(2, 1, bias=False), MovingAverage(0.75)
    arguments = SimpleNamespace(output_dir=str(tmp_path), device=torch.device("cpu"))
    state = SimpleNamespace(global_step=0, is_world_process_zero=True)
    callback.on_train_begin(arguments, state, None, model=model)
    values, wanted = [4.0, 8.0, 16.0], None
    for step, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        callback.on_step_end(arguments, state, None, model=model)
        wanted = value if wanted is None else 0.75 * wanted + 0.25 * value
        if step == 1:
            state.global_step = 2
            (tmp_path / "checkpoint-2").mkdir()
            callback.on_save(arguments, state, None)
            resumed = MovingAverage(0.75)
            resumed.on_train_begin(arguments, state, None, model=model)
    resumed.on_step_end(arguments, state, None, model=model)
    for follower in (callback, resumed):
        nn.init.constant_(model.weight, 0.0)
        follower.on_train_end(arguments, state, None, model=model)
        assert model.weight.tolist()[0] == pytest.approx([wanted, wanted])
    with pytest.raises(ValueError, match="between 0 and 1"):
        MovingAverage(1.0)


def seeds(accumulation: int, world: int, process: int) -> list[int]:
    """Of the batches that one process takes in three steps."""
    arguments = {"gradient_accumulation_steps": accumulation, "world_size": world, "process_index": process, "seed": 5}
    taken = BatchSeeds()
    return [taken.take(SimpleNamespace(**arguments), step) for step in range(3) for _ in range(accumulation)]


def test_random_numbers_belong_to_the_batch_not_to_the_process():
    alone, pair = seeds(4, 1, 0), [seeds(2, 2, process) for process in range(2)]
    assert len(set(alone)) == 12
    assert alone == [seed for both in zip(*pair) for seed in both]


def test_a_step_counts_the_objects_of_all_its_batches():
    batches = [{"labels": [{"boxes": torch.zeros(3, 4)}, {"boxes": torch.zeros(0, 4)}]}, {"labels": []}]
    assert mean_objects(batches) == 1.5


def test_a_step_s_objects_reach_the_loss_and_rows_come_in_order(tiny_glee, tmp_path):
    """Two batches of two rows: each loss is divided by the three objects that a batch has on average."""
    seen, model = [], tiny_glee[0]

    class Watched(GleeTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            seen.append((num_items_in_batch.item(), [len(entry["boxes"]) for entry in inputs["labels"]]))
            return sum(weight.sum() for weight in model.parameters()) * 0 + 4.0

    arguments = TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        max_steps=2,
        logging_steps=1,
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
    )
    rows = [{"labels": [{"boxes": torch.zeros(count, 4)}]} for count in (1, 5, 2, 4)]
    recipe = OptimiserRecipe(milestones=[1])
    trainer = Watched(model, arguments, lambda batch: batch[0], rows, optimiser=recipe)
    trainer.train()
    assert seen == [(3.0, [1]), (3.0, [5]), (3.0, [2]), (3.0, [4])]
    assert [entry["loss"] for entry in trainer.state.log_history if "loss" in entry] == [4.0, 4.0]  # means, no sums
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert rates[1] == pytest.approx(rates[0] / 10)
