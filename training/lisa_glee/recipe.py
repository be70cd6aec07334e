"""Recipes of LISA-GLEEs that are trained on published corpora, one YAML file each."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from lookhear.modeling.lisa_glee import LisaGleeConfig
from lookhear.training.lisa_glee.corpora.schema import GROUPS
from lookhear.training.recipe_reading import Count, CountOrZero, Positive, Range, check_config

PRESETS = {"llava_7b": LisaGleeConfig.llava_7b, "llava_13b": LisaGleeConfig.llava_13b}


@dataclass
class LoraRecipe:
    """
    Low-rank adapters of the language model (Hu et al., ICLR 2022), merged into its weights at the end.

    Attributes:
        r: rank; 0: no adapters, the language model is trained whole.
        alpha: their output is multiplied by alpha / r.
        dropout: of their input.
        modules: names of the linear layers that have one, in every layer of the language model.
    """

    r: CountOrZero = 8
    alpha: Count = 16
    dropout: Annotated[float, Range(0, 1, below=True)] = 0.05
    modules: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])


@dataclass
class LisaModelRecipe:
    """
    What is trained: adapters of a language model, its embeddings and output layer, and what connects it with GLEE.

    GLEE, and the image encoder of a language model that has its own, are not trained.

    Attributes:
        checkpoint: LISA-GLEE folder or Hub id to start from; None: a new one of `perception` and `language`.
        perception: GLEE's folder or Hub id.
        language: folder or Hub id of a language model that reads images (LLaVA), with its tokenizer.
        preset: sizes of both, `llava_7b` or `llava_13b`, with which a dry run needs neither.
        config: fields of `LisaGleeConfig` that differ; they are checked.
        dtype: of the language model's weights that are not trained; the others are in float32.
        lora: adapters.
    """

    checkpoint: str | None = None
    perception: str | None = None
    language: str | None = None
    preset: Literal["llava_7b", "llava_13b"] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    dtype: Literal["float32", "bfloat16"] = "float32"
    lora: LoraRecipe = field(default_factory=LoraRecipe)

    def __post_init__(self) -> None:
        check_config(self.config, LisaGleeConfig, "model.config")


@dataclass
class ConversationDataRecipe:
    """
    Training data.

    Attributes:
        sources: for each corpus the arguments of `open_corpus`, `reader` and `root` at least, beside them `group`
            (semantic, referring, visual_questions or reasoning; its reader's by default) and `weight` among the
            corpora of its group (1).
        shares: weight of each group; a group without corpora gets none.
        conversations: most conversations about a picture, one for each class, phrase or question.
        longest: tokens of a conversation, its placeholders included.
        skip_bad: whether annotations and pictures that cannot be used are skipped; else they are refused.
    """

    sources: list[dict[str, Any]] = field(default_factory=list)
    shares: dict[str, Positive] = field(default_factory=lambda: dict(zip(GROUPS, (9, 3, 3, 1))))
    conversations: Count = 3
    longest: Count = 2048
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.shares) - set(GROUPS)):
            raise ValueError(f"data.shares has no group {unknown[0]!r}; the groups are {', '.join(GROUPS)}")


@dataclass
class LisaRecipe:
    """
    A whole recipe.

    Attributes:
        model: what is trained.
        data: what it is trained on.
        training: fields of `transformers.TrainingArguments`.
    """

    model: LisaModelRecipe = field(default_factory=LisaModelRecipe)
    data: ConversationDataRecipe = field(default_factory=ConversationDataRecipe)
    training: dict[str, Any] = field(default_factory=dict)
