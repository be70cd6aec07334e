"""GLEE on one's own classes: pictures and a COCO file in, a checkpoint with its card and contact sheet out.

lookhear train glee --data my_coco.json --images pictures/ --model glee-lite/ --output my-glee/
accelerate launch --config_file training/accelerate/multi_gpu.yaml -m lookhear.cli train glee --data …
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from transformers import AutoProcessor, TrainingArguments, set_seed

import lookhear  # noqa: F401  (registers the Auto classes)
from lookhear.processing.glee import GleeProcessor
from lookhear.training.glee.corpora.opening import open_corpus
from lookhear.training.glee.corpora.picture import take_picture
from lookhear.training.glee.corpora.reading import Problems
from lookhear.training.glee.export import save_checkpoint
from lookhear.training.glee.fine_tuning.coco_evaluation import CocoEvaluation
from lookhear.training.glee.fine_tuning.contact_sheet import as_results, contact_sheet
from lookhear.training.glee.fine_tuning.fine_tune_card import FineTuneFacts, write_card
from lookhear.training.glee.initialise import drop_training_parts, load_for_training
from lookhear.training.glee.mixture.augmentation import AugmentationRecipe
from lookhear.training.glee.mixture.collating import QuestionCollator
from lookhear.training.glee.mixture.mixture import CorpusBatches, Source
from lookhear.training.glee.mixture.sources import read_vocabulary
from lookhear.training.glee.optimiser import OptimiserRecipe
from lookhear.training.glee.trainer import GleeTrainer
from lookhear.training.running import last_checkpoint, training_arguments

MOST_LABELS = 100  # of a batch, as published
FEWEST_HELD_OUT = 10  # pictures; of fewer none are held out
SCALES = (0.7, 0.8, 0.9, 1.0)  # of the processor's shortest edge
SHEET_THRESHOLD = 0.3


@dataclass
class FineTuneOptions:
    """
    What is trained on what.

    Attributes:
        data: COCO file.
        model: folder or Hub id of a GLEE checkpoint.
        output: folder of the result.
        images: folder of the COCO file's pictures, by default the file's own.
        validation: another COCO file to measure on.
        validation_images: folder of that file's pictures.
        held_out: share of the pictures held out of training for validation, where there is no `validation`.
        text: `frozen` or `trained`: whether CLIP learns, too (towards a frozen copy of itself, so that other words keep
            their meaning).
        skip_bad: skip annotations that cannot be used.
        keep_empty: whether pictures without objects are trained on.
        epochs: how often all pictures are gone through.
        batch_size: pictures of a batch.
        learning_rate: highest learning rate.
        seed: of the training and of what is held out.
        training: more fields of `TrainingArguments`.
        augmentation: of the pictures; None: mirrored half of the time, in four scales.
        optimiser: how the weights learn, beside `training`.
        sheet: pictures on the contact sheet.
    """

    data: Path
    model: str
    output: Path
    images: Path | None = None
    validation: Path | None = None
    validation_images: Path | None = None
    held_out: float = 0.1
    text: str = "frozen"
    skip_bad: bool = False
    keep_empty: bool = False
    epochs: float = 12
    batch_size: int = 2
    learning_rate: float = 1e-4
    seed: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    augmentation: AugmentationRecipe | None = None
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)
    sheet: int = 8


class FineTuner(GleeTrainer):
    """
    Measures average precision where `Trainer` would measure a loss.

    Args:
        evaluation: on which pictures; kwargs: see [`GleeTrainer`].
    """

    def __init__(self, *args, evaluation: CocoEvaluation, **kwargs):
        super().__init__(*args, eval_dataset=evaluation.rows, **kwargs)
        self.evaluation = evaluation

    def detect(self) -> list[dict]:
        """What the model finds in all pictures that are measured on; the processes share them."""
        self.model.eval()
        mine = range(self.args.process_index, len(self.evaluation.rows), self.args.world_size)
        found = self.evaluation.detect(self.model, self.processing_class, mine)
        return gather_object(found) if self.args.world_size > 1 else found

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """`eval_box_AP`, `eval_mask_AP` and the like; see [`CocoEvaluation.precision`]."""
        found = self.evaluation.precision(self.detect())
        metrics = {f"{metric_key_prefix}_{name}": round(value, 4) for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def fine_tune(options: FineTuneOptions) -> dict[str, float]:
    """
    Trains, or resumes from the last checkpoint in `output/training`, and writes the result to `output`: model, processor
    and code, `README.md`, `contact_sheet.jpg`, `metrics.json`.

    Returns:
        the average precisions of the result.

    Raises:
        ValueError: files that are missing, annotations that cannot be used (all in one list), arguments out of range.
    """
    check_options(options)
    classes = read_vocabulary(options.data)
    rows, measured, own = read_rows(options)
    masks = all(thing["mask"] is not None for row in rows for thing in row["objects"] if not thing["crowd"])
    arguments = make_arguments(options, len(rows), "mask" if masks else "box")
    set_seed(arguments.seed)
    processor = AutoProcessor.from_pretrained(options.model)
    trained, tables = options.text == "trained", {"own": min(len(classes), MOST_LABELS)}
    model = load_for_training(options.model, text_teacher=trained, denoising_tables=tables)
    model.model.text_encoder.clip.requires_grad_(trained)
    source = Source(
        rows,
        images=options.batch_size,
        vocabulary=classes,
        most_labels=MOST_LABELS,
        supervision={} if model.config.padding_mask else {"denoising_table": "own"},
        augmentation=options.augmentation or own_augmentation(processor),
    )
    batches = arguments.max_steps * arguments.gradient_accumulation_steps * arguments.world_size
    trainer = FineTuner(
        model=model,
        args=arguments,
        data_collator=QuestionCollator(processor),
        train_dataset=CorpusBatches([source], batches, options.seed, Problems(skip=options.skip_bad)),
        evaluation=CocoEvaluation(measured, classes, masks),
        processing_class=processor,
        optimiser=options.optimiser,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(arguments.output_dir))
    found = trainer.detect()
    metrics = trainer.evaluation.precision(found)
    if trainer.is_world_process_zero():
        facts = FineTuneFacts(options, classes, len(rows), len(measured), own, masks, trainer.state, metrics)
        write_results(trainer, found, facts)
    trainer.accelerator.wait_for_everyone()
    return metrics


def write_results(trainer: FineTuner, found: list[dict], facts: FineTuneFacts) -> None:
    """The folder that can be pushed."""
    output, processor, evaluation = Path(facts.options.output), trainer.processing_class, trainer.evaluation
    drop_training_parts(trainer.model)
    save_checkpoint(trainer.model.eval(), processor, output, half=False)
    places = [place for place in range(len(evaluation.rows)) if evaluation.rows[place]["objects"]]
    places = places[: facts.options.sheet]
    of_place = [[entry for entry in found if entry["image_id"] == place + 1] for place in places]
    results = [as_results(entries, facts.classes, SHEET_THRESHOLD) for entries in of_place]
    sheet = contact_sheet([take_picture(evaluation.rows[place]) for place in places], results)
    sheet.save(output / "contact_sheet.jpg", quality=90)
    (output / "metrics.json").write_text(json.dumps(facts.metrics, indent=2) + "\n", encoding="utf-8")
    write_card(output / "README.md", facts, SHEET_THRESHOLD)
    (output / ".gitignore").write_text(
        "/training/\n", encoding="utf-8"
    )  # checkpoints to resume from are not published


def check_options(options: FineTuneOptions) -> None:
    """ValueError for an option that is out of range."""
    for name in ("epochs", "batch_size", "learning_rate"):
        if getattr(options, name) <= 0:
            raise ValueError(f"{name} must be positive, not {getattr(options, name)}")
    if options.text not in ("frozen", "trained"):
        raise ValueError(f"text must be 'frozen' or 'trained', not {options.text!r}")
    if not 0 <= options.held_out < 1:
        raise ValueError(f"held_out must be a share from 0 up to 1, not {options.held_out}")
    for name in ("data", "validation"):
        path = getattr(options, name)
        if path is not None and not (Path(path).is_file() and Path(path).suffix == ".json"):
            raise ValueError(f"{name} {str(path)!r} is not a .json file in COCO's format")
    output = Path(options.output)
    if (output / "config.json").exists() and not (output / "training").exists():
        raise ValueError(f"output {str(output)!r} holds a checkpoint already; name another folder")


def read_rows(options: FineTuneOptions) -> tuple[Dataset, Dataset, bool]:
    """Rows to train on and to measure on, and whether the latter are held out. ValueError lists what cannot be used."""

    def read(data: Path, images: Path | None) -> Dataset:
        problems = Problems(skip=options.skip_bad)
        return open_corpus("coco", data, images=images, problems=problems, keep_empty=options.keep_empty)

    rows = read(Path(options.data), options.images)
    if options.validation is not None:
        return rows, read(options.validation, options.validation_images), True
    if len(rows) < FEWEST_HELD_OUT or not options.held_out:
        return rows, rows, False
    parts = rows.train_test_split(options.held_out, seed=options.seed)
    return parts["train"], parts["test"], True


def make_arguments(options: FineTuneOptions, pictures: int, measured: str) -> TrainingArguments:
    """The published optimiser; average precision and a checkpoint after every epoch, of which the best is kept."""
    given = {
        "output_dir": str(Path(options.output) / "training"),
        "per_device_train_batch_size": 1,  # an item is a batch
        "learning_rate": options.learning_rate,
        "weight_decay": 0.05,
        "max_grad_norm": 0.01,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.02,  # a share
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_steps": 1,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": f"{measured}_AP",
        "greater_is_better": True,
        "logging_steps": 20,
        "ddp_find_unused_parameters": True,
        "seed": options.seed,
    }
    arguments = training_arguments(given | options.training)
    batch = options.batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    epoch = math.ceil(pictures / batch)  # steps
    chosen = {"eval_steps": epoch, "save_steps": epoch, "max_steps": max(1, round(options.epochs * epoch))}
    for name in chosen.keys() - options.training.keys():
        setattr(arguments, name, chosen[name])
    return arguments


def own_augmentation(processor: GleeProcessor) -> AugmentationRecipe:
    """Mirrored half of the time, in four scales up to that of the checkpoint; nothing is cut off."""
    size = processor.image_processor.size
    longest = size.get("longest_edge") or 1333
    edge = size.get("shortest_edge") or longest
    return AugmentationRecipe(shortest_edges=[round(edge * scale) for scale in SCALES], longest_edge=longest, crop=0.0)
