"""Recipes of training on corpora: one YAML file with the model to start from, corpora, their shares, and schedule."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from lookhear.modeling.glee import GleeConfig
from lookhear.modeling.glee.configuration_glee import GleeLossSettings
from lookhear.training.glee.optimiser import OptimiserRecipe
from lookhear.training.recipe_reading import Count, Range, check_config


@dataclass
class StartRecipe:
    """
    What is trained.

    Attributes:
        checkpoint: GLEE folder or Hub id to start from; None: a new model.
        size: of a new model: `lite`, `plus` or `pro`.
        config: fields of `GleeConfig` that differ, of a checkpoint, too; they are checked.
        backbone: folder or Hub id of a backbone in transformers, or an EVA-02 file, whose weights a new model starts
            with.
        text: folder or Hub id of a CLIP with its tokenizer, which a new model starts with (and has as its teacher).
        freeze: modules that are not trained (`model.text_encoder.clip`).
    """

    checkpoint: str | None = None
    size: Literal["lite", "plus", "pro"] = "lite"
    config: dict[str, Any] = field(default_factory=dict)
    backbone: str | None = None
    text: str | None = None
    freeze: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_config(self.config, GleeConfig, "model.config")
        GleeLossSettings.from_config(self.config.get("loss_settings"))  # refuses names that do not exist


@dataclass
class CorporaRecipe:
    """
    Training data.

    Attributes:
        sources: arguments of `open_source` for each corpus: `reader`, `root`, and those that differ from the defaults.
        common: arguments of all sources that don't have their own.
        fraction: share of each corpus that is used, in (0, 1] (the study of scale: 0.1, 0.2, 0.5, 1); of a corpus in
            shards, the share of the shards.
        skip_bad: whether annotations that cannot be used are skipped; else they are refused.
    """

    sources: list[dict[str, Any]] = field(default_factory=list)
    common: dict[str, Any] = field(default_factory=dict)
    fraction: Annotated[float, Range(0, 1, above=True)] = 1.0
    skip_bad: bool = False


@dataclass
class ValidationRecipe:
    """
    What is measured while training: a published protocol, on a part of its data set. When, `training` says:
    `eval_steps` (by default `save_steps`) and `eval_on_start` (by default true, so that a folder that is not laid out
    as it should be is noticed before the first step).

    Attributes:
        protocol: one of `lookhear evaluate glee --protocol` that looks for objects, such as `coco`, `refcoco` or
            `davis`; None: nothing is measured.
        data: folder of its data set.
        split: part of the data set; None: the protocol's own.
        images: folder of the pictures; None: where they are published.
        limit: the first pictures, videos or data sets only, at least 1; None: all of them.
        batch_size: pictures in a pass, at least 1.
        tracking: how videos are tracked, `memory` or `minvis`.
    """

    protocol: str | None = None
    data: str | None = None
    split: str | None = None
    images: str | None = None
    limit: Count | None = None
    batch_size: Count = 1
    tracking: Literal["memory", "minvis"] = "memory"


@dataclass
class CorpusTrainingRecipe:
    """
    A whole recipe.

    Attributes:
        model: what is trained.
        data: what it is trained on.
        validation: what is measured meanwhile.
        optimiser: settings of the optimiser that `training` has not.
        training: fields of `transformers.TrainingArguments`.
    """

    model: StartRecipe = field(default_factory=StartRecipe)
    data: CorporaRecipe = field(default_factory=CorporaRecipe)
    validation: ValidationRecipe = field(default_factory=ValidationRecipe)
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)
    training: dict[str, Any] = field(default_factory=dict)
