"""Fine-tuning of GLEE on your own classes: from pictures and a COCO file to a checkpoint with card and contact sheet.

lookhear train glee --data my_coco.json --images pictures/ --model glee-lite/ --output my-glee/
accelerate launch --config_file training/accelerate/multi_gpu.yaml -m lookhear.cli train glee --data …
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from transformers import AutoProcessor, EarlyStoppingCallback, TrainingArguments, set_seed

import lookhear  # noqa: F401  (registers the Auto classes)
from lookhear.modeling.glee import GleeConfig, GleeForObjectDetection
from lookhear.processing.glee import GleeProcessor
from lookhear.training.glee.corpora.opening import open_corpus
from lookhear.training.glee.corpora.picture import take_picture
from lookhear.training.glee.corpora.reading import Problems
from lookhear.training.glee.export import save_checkpoint
from lookhear.training.glee.fine_tuning.checking import Annotated, check_annotated
from lookhear.training.glee.fine_tuning.coco_evaluation import CocoEvaluation
from lookhear.training.glee.fine_tuning.contact_sheet import as_results, contact_sheet
from lookhear.training.glee.fine_tuning.few_shot import few_shot_places
from lookhear.training.glee.fine_tuning.fine_tune_card import FineTuneFacts, write_card
from lookhear.training.glee.initialise import check_glee, drop_training_parts, load_for_training
from lookhear.training.glee.mixture.augmentation import AugmentationRecipe
from lookhear.training.glee.mixture.collating import QueryCollator
from lookhear.training.glee.mixture.mixture import CorpusBatches, Source
from lookhear.training.glee.mixture.sources import read_vocabulary
from lookhear.training.glee.optimiser import OptimiserRecipe
from lookhear.training.glee.trainer import GleeTrainer
from lookhear.training.recipe_reading import check_config, fill
from lookhear.training.run_record import begin_or_resume, recipe_record
from lookhear.training.running import training_arguments

logger = logging.getLogger(__name__)
MOST_LABELS = 100  # per batch, as published
MEND = "leave them out with --skip-bad; pictures without objects may also be trained on: --keep-empty"
PARTS = {"backbone": "model.backbone", "text": "model.text_encoder"}  # that `freeze` knows by short names
FEWEST_HELD_OUT = 10  # of fewer pictures none is held out
SCALES = (0.7, 0.8, 0.9, 1.0)  # of the processor's shortest edge
SHEET_THRESHOLD = 0.3


@dataclass
class FineTuneOptions:
    """
    Options of fine-tuning.

    Attributes:
        data: COCO file.
        model: folder or Hub id of a GLEE checkpoint.
        output: folder of the result.
        images: folder of the COCO file's pictures; None: the file's own.
        validation: another COCO file to evaluate on.
        validation_images: folder of that file's pictures; None: the file's own.
        held_out: share of the pictures, in [0, 1), held out of training for validation if there is no `validation`.
        shots: objects of each class to train on, at least 1: of the pictures to train on, only some are used, chosen
            by `seed`, see [`few_shot_places`]; None: all pictures.
        freeze: parts that learn nothing: `backbone`, `text` (all of the text encoder), or names of modules.
        patience: evaluations in a row without a better average precision after which the training stops; None: never.
        text: `frozen` or `trained`: whether CLIP is trained, too (with a frozen copy of itself as its teacher, so that
            other words keep their meaning).
        skip_bad: whether annotations that cannot be used are skipped; else they are refused.
        keep_empty: whether pictures without objects are trained on.
        epochs: passes over all pictures, above 0.
        batch_size: pictures of a batch, at least 1.
        learning_rate: highest learning rate, above 0.
        seed: of the training and of the held-out pictures.
        training: more fields of `TrainingArguments`.
        augmentation: of the pictures, or fields that differ from the default: mirrored with probability 0.5, at four
            scales.
        source: more fields of [`Source`], such as `prompts`.
        config: fields of the model's configuration that differ.
        optimiser: settings of the optimiser that `training` has not.
        sheet: number of pictures on the contact sheet.
        overwrite: whether the checkpoints of an earlier run in `output` are removed; else it is resumed, if it was
            started with the same options and data.
    """

    data: Path
    model: str
    output: Path
    images: Path | None = None
    validation: Path | None = None
    validation_images: Path | None = None
    held_out: float = 0.1
    shots: int | None = None
    freeze: tuple[str, ...] = ()
    patience: int | None = None
    text: str = "frozen"
    skip_bad: bool = False
    keep_empty: bool = False
    epochs: float = 12
    batch_size: int = 2
    learning_rate: float = 1e-4
    seed: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    augmentation: AugmentationRecipe | dict[str, Any] | None = None
    source: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)
    sheet: int = 8
    overwrite: bool = False


class FineTuner(GleeTrainer):
    """
    Evaluates by average precision instead of the loss.

    Args:
        *args: see [`GleeTrainer`].
        evaluation: of the model on some pictures.
        epoch: steps of one pass over the pictures; the data set is one of the whole run.
        **kwargs: see [`GleeTrainer`].
    """

    def __init__(self, *args: Any, evaluation: CocoEvaluation, epoch: int, **kwargs: Any):
        super().__init__(*args, eval_dataset=evaluation.rows, **kwargs)
        self.evaluation, self.epoch = evaluation, epoch

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Logs with the number of passes over the pictures as `epoch`."""
        self.state.epoch = self.state.global_step / self.epoch
        super().log(logs, *args, **kwargs)

    def detect(self) -> list[dict]:
        """Detects objects in all pictures of the evaluation, which the processes share."""
        model, processor = self.checkpoint()
        mine = range(self.args.process_index, len(self.evaluation.rows), self.args.world_size)
        shown = self.is_world_process_zero() and not self.args.disable_tqdm
        found = self.evaluation.detect(model.eval(), processor, mine, progress=shown)
        return gather_object(found) if self.args.world_size > 1 else found

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Computes `eval_box_AP`, `eval_mask_AP` and the like; see [`CocoEvaluation.precision`]."""
        found = self.evaluation.precision(self.detect())
        metrics = {f"{metric_key_prefix}_{name}": round(value, 4) for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def fine_tune(options: FineTuneOptions) -> dict[str, float]:
    """
    Trains, or resumes from the last checkpoint in `output/training`, and writes the result to `output`: model,
    processor and code, `README.md`, `contact_sheet.jpg`, `metrics.json`.

    Returns:
        The average precisions of the result, in [0, 1].

    Raises:
        ValueError: missing files, annotations that cannot be used (all in one list), arguments out of range, or
            `output` holds a run that was started with other options or data.
    """
    check_options(options)
    classes = read_vocabulary(options.data)
    rows, measured, own = read_rows(options)
    if options.shots is not None:
        rows = rows.select(few_shot_places(rows, classes, options.shots, options.seed)).flatten_indices()
    trained = Annotated.of_rows(rows)
    source = "data" if options.validation is None else "validation"
    masks = check_annotated(trained, Annotated.of_rows(measured), classes, source)
    arguments = make_arguments(options, len(rows), "mask" if masks else "box")
    record = run_record(options, classes, arguments)
    resumed = begin_or_resume(arguments, record, options.overwrite, ", start anew with --overwrite")
    set_seed(arguments.seed)
    processor = AutoProcessor.from_pretrained(options.model)
    learning, tables = options.text == "trained", {"own": min(len(classes), MOST_LABELS)}
    model = load_for_training(options.model, **options.config, text_teacher=learning, denoising_tables=tables)
    model.model.text_encoder.clip.requires_grad_(learning)
    freeze(model, options.freeze)
    given = {
        "rows": rows,
        "images": options.batch_size,
        "vocabulary": classes,
        "most_labels": MOST_LABELS,
        "supervision": {} if model.config.padding_mask else {"denoising_table": "own"},
        "augmentation": augmentation_of(options, processor),
    }
    pictures = fill(Source, given | options.source, "source")
    batches = arguments.max_steps * arguments.gradient_accumulation_steps * arguments.world_size
    trainer = FineTuner(
        model=model,
        args=arguments,
        data_collator=QueryCollator(processor),
        train_dataset=CorpusBatches([pictures], batches, options.seed, Problems(skip=options.skip_bad, mend=MEND)),
        evaluation=CocoEvaluation(measured, classes, masks),
        processing_class=processor,
        optimiser=options.optimiser,
        epoch=steps_of_epoch(options, arguments, len(rows)),
        callbacks=[] if options.patience is None else [EarlyStoppingCallback(options.patience)],
    )
    trainer.train(resume_from_checkpoint=resumed)
    found = trainer.detect()
    metrics = trainer.evaluation.precision(found)
    if trainer.is_world_process_zero():
        if trainer.state.best_metric == 0:
            logger.warning(
                "AP is 0 after every epoch: train longer, or compare contact_sheet.jpg with the annotations"
            )
        counts = {"trained": len(rows), "measured": len(measured), "unmasked": len(trained.unmasked)}
        facts = FineTuneFacts(options, classes, arguments, trainer.state, metrics, own, masks, **counts)
        write_results(trainer, found, facts)
    trainer.accelerator.wait_for_everyone()
    return metrics


def run_record(options: FineTuneOptions, classes: Sequence[str], arguments: TrainingArguments) -> dict[str, Any]:
    """
    Returns what a run is started with: see [`recipe_record`].

    Args:
        options: of the fine-tuning.
        classes: names of the classes.
        arguments: made of the options.
    """
    plain = asdict(options) | {"classes": list(classes), "processes": arguments.world_size}
    for name in ("output", "sheet", "overwrite"):  # where the result goes, and how it is shown
        del plain[name]
    for name in ("images", "validation_images"):  # pictures may be moved
        plain[name] = plain[name] and Path(plain[name]).resolve().name
    return recipe_record({name: str(value) if isinstance(value, Path) else value for name, value in plain.items()})


def write_results(trainer: FineTuner, found: list[dict], facts: FineTuneFacts) -> None:
    """Writes the folder that can be pushed to the Hub."""
    output, evaluation = Path(facts.options.output), trainer.evaluation
    model, processor = trainer.checkpoint()
    drop_training_parts(model)
    model.config.id2label = dict(enumerate(facts.classes))
    model.config.label2id = {name: number for number, name in enumerate(facts.classes)}
    save_checkpoint(model.eval(), processor, output, half=False)
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
    """Raises ValueError for an option that is out of range."""
    for name in ("epochs", "batch_size", "learning_rate", "shots"):
        if getattr(options, name) is not None and getattr(options, name) <= 0:
            raise ValueError(f"{name} must be positive, not {getattr(options, name)}")
    if options.patience is not None and options.patience < 1:
        raise ValueError(f"patience must be at least 1, not {options.patience}")
    if options.patience is not None and options.training.get("load_best_model_at_end") is False:
        raise ValueError("patience needs the best checkpoint: leave training.load_best_model_at_end out")
    if options.text == "trained" and "text" in options.freeze:
        raise ValueError("freeze: text can't be frozen and trained; leave --text trained or --freeze text out")
    if "num_train_epochs" in options.training:
        raise ValueError("training.num_train_epochs is not used here: pass --epochs")
    check_config(options.config, GleeConfig, "config")
    if options.text not in ("frozen", "trained"):
        raise ValueError(f"text must be 'frozen' or 'trained', not {options.text!r}")
    if not 0 <= options.held_out < 1:
        raise ValueError(f"held_out must be at least 0 and below 1, not {options.held_out}")
    for name in ("data", "validation"):
        path = getattr(options, name)
        if path is not None and not (Path(path).is_file() and Path(path).suffix == ".json"):
            raise ValueError(f"{name} {str(path)!r} is not a .json file in COCO's format")
    output = Path(options.output)
    if (output / "config.json").exists() and not (output / "training").exists():
        raise ValueError(f"output {str(output)!r} holds a checkpoint already; name another folder")
    check_glee(options.model)


def read_rows(options: FineTuneOptions) -> tuple[Dataset, Dataset, bool]:
    """
    Reads rows to train on and to evaluate on, and whether the latter are held out. ValueError lists what is unusable.
    """

    def read(data: Path, images: Path | None) -> Dataset:
        problems = Problems(skip=options.skip_bad, mend=MEND)
        return open_corpus("coco", data, images=images, problems=problems, keep_empty=options.keep_empty)

    rows = read(Path(options.data), options.images)
    if options.validation is not None:
        return rows, read(options.validation, options.validation_images), True
    if len(rows) < FEWEST_HELD_OUT or not options.held_out:
        return rows, rows, False
    parts = rows.train_test_split(options.held_out, seed=options.seed)
    return parts["train"], parts["test"], True


def make_arguments(options: FineTuneOptions, pictures: int, measured: str) -> TrainingArguments:
    """
    Makes the published settings, with an evaluation and a checkpoint after every epoch, the best of which is used.
    """
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
    epoch = steps_of_epoch(options, arguments, pictures)
    chosen = {"eval_steps": epoch, "save_steps": epoch, "max_steps": max(1, math.ceil(options.epochs * epoch - 1e-6))}
    for name in chosen.keys() - options.training.keys():
        setattr(arguments, name, chosen[name])
    return arguments


def steps_of_epoch(options: FineTuneOptions, arguments: TrainingArguments, pictures: int) -> int:
    """Returns the number of steps of one pass over the pictures."""
    batch = options.batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    return math.ceil(pictures / batch)


def freeze(model: GleeForObjectDetection, parts: Sequence[str]) -> None:
    """
    Excludes parts of a model from learning.

    Args:
        model: in place.
        parts: `backbone`, `text`, or names of modules.

    Raises:
        ValueError: there is no such module, or nothing would learn.
    """
    modules = dict(model.named_modules())
    for part in parts:
        name = PARTS.get(part, part)
        if name not in modules:
            raise ValueError(f"freeze: there is no part {part!r}; name {', '.join(PARTS)}, or a module of the model")
        modules[name].requires_grad_(False)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ValueError(f"freeze: nothing would learn without {', '.join(parts)}; leave one out")


def augmentation_of(options: FineTuneOptions, processor: GleeProcessor) -> AugmentationRecipe:
    """Returns the options' augmentation; fields that are not given are those of the default."""
    if isinstance(options.augmentation, AugmentationRecipe):
        return options.augmentation
    own = own_augmentation(processor)
    return fill(AugmentationRecipe, asdict(own) | (options.augmentation or {}), "augmentation")


def own_augmentation(processor: GleeProcessor) -> AugmentationRecipe:
    """
    Makes the default augmentation: mirrored with probability 0.5, at four scales up to the checkpoint's, not cropped.
    """
    size = processor.image_processor.size
    longest = size.get("longest_edge") or 1333
    edge = size.get("shortest_edge") or longest
    return AugmentationRecipe(shortest_edges=[round(edge * scale) for scale in SCALES], longest_edge=longest, crop=0.0)
