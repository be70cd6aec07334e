"""Training LISA-GLEE on questions about generated scenes: `lookhear train lisa_glee_tiny.yaml`.

accelerate launch --config_file training/accelerate/two_cpu.yaml \
  -m lookhear.training.lisa_glee.train_scenes RECIPE.yaml [section.field=value ...]
"""

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, AutoProcessor, LlamaConfig, Trainer, set_seed

import lookhear  # noqa: F401  (registers the Auto classes)
from lookhear.modeling.lisa_glee import LisaGleeConfig, LisaGleeForReasoningSegmentation
from lookhear.processing.lisa_glee import LisaGleeProcessor
from lookhear.training.glee.scenes.questions import FAMILIES, TRAINED, all_questions
from lookhear.training.glee.scenes.scenes import make_scene
from lookhear.training.lisa_glee.optimizers import MuonAndAdamW
from lookhear.training.lisa_glee.scene_data import QuestionBatches, QuestionCollator
from lookhear.training.lisa_glee.scene_recipe import LisaSceneModelRecipe, LisaSceneRecipe
from lookhear.training.lisa_glee.vocabulary import CHAT_TEMPLATE, OBJECTS, SEGMENT, word_tokenizer
from lookhear.training.recipe_reading import read_recipe
from lookhear.training.running import run_to_end, training_arguments

VOCABULARY_SCENES = 300  # scenes whose questions give the vocabulary: enough that every word occurs


class LisaGleeTrainer(Trainer):
    """
    Logs the mean of each loss since the last log, beside their weighted sum.

    Args:
        args: of `Trainer`.
        matrix_learning_rate: see [`LisaSceneRecipe`].
        kwargs: of `Trainer`.
    """

    def __init__(self, *args: Any, matrix_learning_rate: float = 0.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.matrix_learning_rate = matrix_learning_rate
        # Batches are random already; in order, a run resumes exactly.
        self.args.train_sampling_strategy = "sequential"
        self._losses: dict[str, list[torch.Tensor]] = defaultdict(list)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Returns AdamW, or Muon beside it; see `Trainer.create_optimizer`."""
        trained = self.model if model is None else model
        if not self.matrix_learning_rate or trained is None:
            return super().create_optimizer(model)
        if self.optimizer is None:
            self.optimizer = MuonAndAdamW(
                trained,
                "layers",  # of objects and of the language model; GLEE's are not trained
                self.matrix_learning_rate,
                self.args.learning_rate,
                (self.args.adam_beta1, self.args.adam_beta2),
                self.args.weight_decay,
            )
        return self.optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Computes the loss of a step, see `Trainer.compute_loss`, and collects its parts for the log."""
        outputs = model(**inputs)
        for name, loss in outputs.loss_dict.items():
            self._losses[name].append(loss.detach())
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs as `Trainer.log` does, with each loss."""
        if "loss" in logs:
            logs |= {name: round(float(torch.stack(values).mean()), 4) for name, values in self._losses.items()}
            self._losses.clear()
        super().log(logs, start_time)


def train(recipe: LisaSceneRecipe) -> Trainer:
    """
    Runs a recipe to its end, resuming from the last checkpoint in its `output_dir`, where the result is saved.

    Args:
        recipe: what is trained, on what and for how long.

    Raises:
        ValueError: the recipe names training arguments that do not exist, or has no `max_steps`.
    """
    arguments = training_arguments({"per_device_train_batch_size": 1, **recipe.training})
    if arguments.max_steps <= 0:
        raise ValueError("training.max_steps must be given: generated scenes have no end")
    set_seed(arguments.seed)
    model, processor = build(recipe.model)
    batches = arguments.max_steps * arguments.gradient_accumulation_steps * arguments.world_size
    trainer = LisaGleeTrainer(
        model=model,
        args=arguments,
        data_collator=QuestionCollator(processor),
        train_dataset=QuestionBatches(recipe.data, batches, arguments.seed),
        processing_class=processor,
        matrix_learning_rate=recipe.matrix_learning_rate,
    )
    return run_to_end(trainer, recipe)


def build(recipe: LisaSceneModelRecipe) -> tuple[LisaGleeForReasoningSegmentation, LisaGleeProcessor]:
    """
    Makes a new language model with a vocabulary of whole words, on top of a GLEE that is loaded.

    Args:
        recipe: GLEE, sizes of the language model, and how both are connected.

    Returns:
        the model and its processor.
    """
    seeing = AutoProcessor.from_pretrained(recipe.perception)
    perception = AutoModel.from_pretrained(recipe.perception, dtype=torch.float32)
    scenes = [make_scene(np.random.default_rng((0, index)), (128, 160)) for index in range(VOCABULARY_SCENES)]
    tokenizer = word_tokenizer(
        text
        for scene in scenes
        for question in all_questions(scene, (*FAMILIES, *TRAINED))
        for text in (question.text, question.answer)
    )
    vocabulary = tokenizer.get_vocab()
    language = LlamaConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **recipe.language,
    )
    config = LisaGleeConfig(
        perception_config=perception.config,
        language_config=language,
        object_token_id=vocabulary[OBJECTS],
        segment_token_id=vocabulary[SEGMENT],
        object_label_ids=seeing.tokenizer(["object"]).input_ids[0],
        **recipe.config,
    )
    model = LisaGleeForReasoningSegmentation(config)
    model.perception.load_state_dict(perception.state_dict())
    processor = LisaGleeProcessor(seeing.image_processor, tokenizer, CHAT_TEMPLATE, num_objects=config.num_objects)
    return model, processor


def main(recipe: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> None:
    """
    Trains as a recipe says.

    Args:
        recipe: its YAML file.
        overrides: `section.field=value` strings.

    Raises:
        ValueError: the recipe cannot be run.
    """
    train(read_recipe(recipe, overrides, LisaSceneRecipe, Path(__file__).parents[1]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
