"""Questions about scenes become batches, a model and its measures."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from lookhear.evaluation.model_results import benchmarks, read_table, task_id
from lookhear.modeling.lisa_glee import LisaGleeForReasoningSegmentation
from lookhear.processing.lisa_glee import LisaGleeProcessor
from lookhear.training.glee.scenes.questions import SEGMENT, Question, is_held_out
from lookhear.training.glee.scenes.scenes import Scene, Shape
from lookhear.training.lisa_glee.evaluate_scenes import (
    SIZE,
    Answered,
    Asked,
    answer,
    exchange,
    held_out_questions,
    summarise,
)
from lookhear.training.lisa_glee.evaluate_scenes import main as evaluate
from lookhear.training.lisa_glee.optimizers import MuonAndAdamW
from lookhear.training.lisa_glee.scene_data import QuestionBatch, QuestionBatches, QuestionCollator, conversation
from lookhear.training.lisa_glee.scene_recipe import LisaSceneRecipe, QuestionDataRecipe
from lookhear.training.lisa_glee.train_scenes import build, main, train
from lookhear.training.lisa_glee.vocabulary import END
from lookhear.training.recipe_reading import fill

GLEE_TINY = Path(__file__).parents[3] / "model_cards" / "glee-tiny"
LANGUAGE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
CONFIG = {"num_objects": 6, "object_attention": "full"}
RECIPE = {
    "model": {"perception": str(GLEE_TINY), "language": LANGUAGE, "config": CONFIG},
    "data": {"canvases": [[128, 160]], "scenes_per_batch": 2, "conversations": [1, 2]},
    "training": {"max_steps": 3, "logging_steps": 1, "use_cpu": True, "learning_rate": 1.0e-3, "seed": 3},
}
DATA = QuestionDataRecipe(**RECIPE["data"])


@pytest.fixture(scope="module")
def untrained() -> tuple[LisaGleeForReasoningSegmentation, LisaGleeProcessor]:
    torch.manual_seed(0)
    model, processor = build(fill(LisaSceneRecipe, RECIPE).model)
    return model.eval(), processor


def texts(batch: QuestionBatch) -> list[list[str]]:
    return [[turn.text for turn in turns] for _, turns in batch.rows]


def test_a_batch_depends_on_its_seed_and_index_only():
    batches, shorter = QuestionBatches(DATA, 5, seed=1), QuestionBatches(DATA, 3, seed=1)
    first, again = batches[2], shorter[2]
    assert texts(first) == texts(again) and first.rows == again.rows
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first.scenes, again.scenes, strict=True))
    for other in (batches[1], QuestionBatches(DATA, 5, seed=2)[2]):
        assert not np.array_equal(other.scenes[0].image, first.scenes[0].image)
    with pytest.raises(IndexError):
        shorter[3]


def test_first_batches_have_their_own_families():
    data = QuestionDataRecipe(**RECIPE["data"], first_families={"count": 1}, first_batches=2)
    families = [{turn.family for _, turns in QuestionBatches(data, 4)[i].rows for turn in turns} for i in range(4)]
    assert families[:2] == [{"count"}] * 2 and len(families[2] | families[3]) > 1
    with pytest.raises(ValueError, match="first_batches needs data.first_families"):
        QuestionDataRecipe(first_batches=2)


def test_a_scene_has_conversations_of_the_recipes_lengths():
    batch = QuestionBatches(DATA, 1)[0]
    assert [scene for scene, _ in batch.rows] == [0, 0, 1, 1]
    assert [len(turns) for _, turns in batch.rows] == [1, 2, 1, 2]
    assert not any(is_held_out(text) for turns in texts(batch) for text in turns)


def test_labels_are_the_answers_and_masks_follow_their_order(untrained):
    processor = untrained[1]
    batch = QuestionBatches(DATA, 4, seed=5)[1]
    inputs = QuestionCollator(processor)([batch])
    for scene, labels in enumerate(inputs["labels"]):
        said = processor.tokenizer.decode(labels[labels != -100]).split(END)
        expected = [turn.answer.replace(",", "").split() for of, turns in batch.rows if of == scene for turn in turns]
        assert [words.split() for words in said] == [*expected, []]  # each answer ends with </s>, and nothing follows
    assert len(inputs["labels"]) == len(inputs["perception_pixel_values"]) == len(batch.scenes)

    segment = processor.tokenizer.convert_tokens_to_ids(SEGMENT)
    shown = [batch.scenes[scene].shapes[i].mask for scene, turns in batch.rows for turn in turns for i in turn.objects]
    assert len(inputs["mask_labels"]) == len(shown) == int((inputs["labels"] == segment).sum()) > 0
    for found, mask in zip(inputs["mask_labels"], shown):
        rows, columns = mask.shape[0] // 4, mask.shape[1] // 4  # averages of 4 x 4 pixels
        shares = mask.reshape(rows, 4, columns, 4).mean(axis=(1, 3))
        assert np.allclose(found[:rows, :columns], shares) and found.sum().item() == pytest.approx(shares.sum())


def test_conversations_in_one_row_are_as_if_alone(untrained):
    """The logits of every answer are those of its conversation by itself; scenes differ in number and length."""
    model, processor = untrained
    scenes = QuestionBatches(DATA, 4, seed=5)[1]
    batch = QuestionBatch(scenes.scenes, scenes.rows[:3])  # the second scene has one conversation
    inputs = QuestionCollator(processor)([batch])
    alone: list[list[torch.Tensor]] = [[], []]
    with torch.no_grad():
        logits = model(**inputs).logits
        for scene, turns in batch.rows:
            text = processor.apply_chat_template(conversation(turns), tokenize=False)
            plain = processor(images=batch.scenes[scene].image, text=text)
            answers = QuestionCollator(processor)([QuestionBatch([batch.scenes[scene]], [(0, turns)])])["labels"]
            alone[scene].append(model(**plain).logits[0, :-1][answers[0, 1:] != -100])
    for row, labels, others in zip(logits[:, :-1], inputs["labels"][:, 1:], alone, strict=True):
        assert torch.allclose(row[labels != -100], torch.cat(others), atol=1e-4)


def test_a_conversation_alternates_and_may_leave_out_the_last_answer():
    turns = [
        Question("Where?", "there [SEG]", "place", "leftmost", (0,)),
        Question("How many?", "none", "count", "", ()),
    ]
    messages = conversation(turns)
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert messages[0]["content"] == [{"type": "image"}, {"type": "text", "text": "Where?"}]
    assert conversation(turns, ask=True) == messages[:-1]


@pytest.mark.slow
def test_a_run_writes_a_checkpoint_that_answers(tmp_path):
    recipe = fill(LisaSceneRecipe, {**RECIPE, "training": {**RECIPE["training"], "output_dir": str(tmp_path)}})
    trainer = train(recipe)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 3 and all({"text", "bce", "dice"} <= entry.keys() for entry in logged)
    model = LisaGleeForReasoningSegmentation.from_pretrained(tmp_path).eval()
    processor = LisaGleeProcessor.from_pretrained(tmp_path)
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    asked = held_out_questions(1)
    answers = list(answer(model, processor, asked))
    assert [given.family for given in answers] == [item.question.family for item in asked]
    assert len(list(answer(model, processor, asked[:1], blind=True))) == 1


def test_muon_and_adamw_are_one_optimizer_that_resumes_exactly(untrained):
    """Two steps, saved and restored in another optimizer: the third step is the same; rates reach both parts."""

    def made() -> tuple[torch.nn.Module, MuonAndAdamW]:
        torch.manual_seed(0)
        model = torch.nn.ModuleDict(
            {"layers": torch.nn.ModuleList([torch.nn.Linear(4, 4)]), "head": torch.nn.Linear(4, 3)}
        )
        return model, MuonAndAdamW(model, "layers", 0.02, 0.01, (0.9, 0.95), 0.01)

    def step(model: torch.nn.Module, optimizer: MuonAndAdamW, seed: int) -> None:
        inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        model["head"](model["layers"][0](inputs)).square().sum().backward()
        optimizer.step()

    model, optimizer = made()
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1, 2]  # matrix; head; two biases
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.01, 0.0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step(model, optimizer, 0)
    assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # AdamW's first step moves every weight by its rate; Muon's, whose singular values are alike, doesn't.
    moved = {name: (value - before[name]).abs() for name, value in model.state_dict().items()}
    assert moved["head.bias"].tolist() == pytest.approx([0.01] * 3, rel=1e-3)
    assert moved["layers.0.weight"].std() > 0.1 * moved["layers.0.weight"].max()
    step(model, optimizer, 1)

    again, restored = made()
    again.load_state_dict(model.state_dict())
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for pair in ((model, optimizer), (again, restored)):
        for group in pair[1].param_groups:
            group["lr"] *= 0.5
        step(*pair, 2)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_a_recipe_names_the_matrices_of_its_language_model(tmp_path):
    training = {**RECIPE["training"], "output_dir": str(tmp_path), "max_steps": 1}
    recipe = fill(LisaSceneRecipe, {**RECIPE, "matrix_learning_rate": 0.005, "training": training})
    optimizer = train(recipe).optimizer
    optimizer = getattr(optimizer, "optimizer", optimizer)  # inside that of accelerate
    assert isinstance(optimizer, MuonAndAdamW)
    matrices = optimizer.param_groups[0]["params"]
    assert len(matrices) == 7 and all(matrix.ndim == 2 for matrix in matrices)  # of one Llama layer


def test_questions_of_the_evaluation_are_held_out_and_repeatable():
    asked = held_out_questions(3)
    assert asked and all(is_held_out(item.text) and item.text == item.question.text for item in asked)
    assert all(item.scene.image.shape[:2] == SIZE for item in asked)
    assert [item.text for item in held_out_questions(3)] == [item.text for item in asked]
    assert [item.text for item in held_out_questions(3, seed=1)] != [item.text for item in asked]


def test_exchanged_questions_are_about_another_scene():
    asked = held_out_questions(3)
    exchanged = exchange(asked)
    assert [item.question for item in exchanged] == [item.question for item in asked]
    for item in exchanged:
        assert item.text in [other.text for other in asked if other.scene is not item.scene]
    assert len({item.text for item in exchanged}) > len(asked) / 3
    assert [item.text for item in exchange(asked)] == [item.text for item in exchanged]


def test_questions_about_one_scene_cannot_be_exchanged():
    with pytest.raises(ValueError, match="at least two"):
        exchange(held_out_questions(1))


class ScriptedProcessor:
    """Stands for a processor that finds the right answer to the first question and nothing for the second."""

    def __init__(self, mask: np.ndarray):
        self.mask = mask

    def __call__(self, images, text):
        assert text == ["Where is the star?", "Is there a moon?"]
        return dict.fromkeys(("perception_pixel_mask", "picture_indices", "perception_pixel_values"))

    def apply_chat_template(self, messages, add_generation_prompt, tokenize):
        assert add_generation_prompt and not tokenize
        return messages[0]["content"][-1]["text"]

    def post_process_answers(self, outputs, mask, sizes, indices):
        return [{"text": "the red star", "objects": [{"mask": self.mask}]}, {"text": "yes", "objects": []}]


class ScriptedModel:
    """Stands for a model whose outputs are not looked at."""

    def get_objects(self, pixel_values, pixel_mask):
        return None

    def generate(self, **inputs):
        return None


def test_answers_are_compared_by_pixels_and_words():
    """By hand: the star's mask is the left half of the picture, the answer's is its left quarter."""
    meant, shown = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    meant[:, : SIZE[1] // 2], shown[:, : SIZE[1] // 4] = True, True
    scene = Scene(np.zeros((*SIZE, 3), np.uint8), [Shape("red", "star", 40, 64, 20, (0, 0, 80, 128), meant)])
    questions = [
        Question("Where is the star?", "the red star [SEG]", "attribute", "name", (0,)),
        Question("Is there a moon?", "no, there is no moon", "absence", "there is none", ()),
    ]
    asked = [Asked(scene, question, question.text) for question in questions]
    first, second = answer(ScriptedModel(), ScriptedProcessor(shown), asked)
    assert first == Answered("attribute", shown.sum(), meant.sum(), True, False, False, "the red star")
    assert second == Answered("absence", 0, 0, False, True, True, "yes")
    assert (first.overlap, second.overlap) == (0.5, 1.0)


def test_measures_are_those_by_hand():
    answers = [
        Answered("attribute", 10, 20, True, False, False, ""),
        Answered("attribute", 0, 60, False, False, False, ""),
        Answered("absence", 0, 0, True, True, True, ""),
        Answered("absence", 0, 20, False, True, False, ""),
    ]
    whole, attribute, absence = summarise(answers)
    assert whole == {"family": "all", "n": 4, "gIoU": 0.375, "cIoU": 0.1, "words": 0.5, "none": 0.5}
    assert attribute == {"family": "attribute", "n": 2, "gIoU": 0.25, "cIoU": 0.125, "words": 0.5, "none": None}
    assert absence == {"family": "absence", "n": 2, "gIoU": 0.5, "cIoU": 0.0, "words": 0.5, "none": 0.5}


def test_the_printed_table_has_the_tasks_of_the_benchmark(untrained, tmp_path, capsys):
    model, processor = untrained
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    evaluate([str(tmp_path), "--scenes", "2", "--mistakes", "2"])
    printed = capsys.readouterr().out
    columns, rows = read_table(printed)
    assert columns[:3] == ["asked", "family", "gIoU %"] and rows[0][:2] == ["own", "all"]
    assert {task_id(row[:2]) for row in rows} <= set(benchmarks()["scene-questions"])
    assert {row[0] for row in rows} == {"own", "others", "blind"} and all(0 <= float(row[2]) <= 100 for row in rows)
    assert len(printed.split("\n\n")[1].splitlines()) == 2  # mistakes


def test_recipes_that_cannot_run_are_refused(tmp_path):
    with pytest.raises(ValueError, match="training.max_steps must be given"):
        train(fill(LisaSceneRecipe, {**RECIPE, "training": {"output_dir": str(tmp_path), "use_cpu": True}}))
    with pytest.raises(ValueError, match="data.families has no 'colour'"):
        QuestionDataRecipe(families={"colour": 1.0})
    with pytest.raises(ValueError, match="data.conversations must be numbers of questions"):
        QuestionDataRecipe(conversations=[1, 0])
    with pytest.raises(ValueError, match="data.scenes has no field 'shapes'"):
        QuestionDataRecipe(scenes={"shapes": 3})
    recipe = Path(__file__).parents[3] / "training" / "lisa_glee" / "recipes" / "lisa_glee_tiny.yaml"
    with pytest.raises(ValueError, match="data has no field 'image'"):
        main(recipe, ["data.image=3"])
