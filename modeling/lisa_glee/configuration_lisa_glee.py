# Copyright 2026 The LookHear developers.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Configuration of LISA-GLEE (GLEE as a foundation model, Wu et al., CVPR 2024)."""

import os
from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from .perception_lisa_glee import perception_config_class
from .saved_code_lisa_glee import save_perception_code


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@strict
class LisaGleeConfig(PreTrainedConfig):
    r"""
    Configuration of [`LisaGleeForReasoningSegmentation`].

    What the paper leaves open is a field; the defaults are the plainest reading of it.

    Attributes:
        perception_config (`dict` or `GleeConfig`, *optional*): configuration of GLEE; defaults to GLEE-Lite.
        language_config (`dict` or `PreTrainedConfig`, *optional*):
            Configuration of the language model: one of `AutoModelForImageTextToText`, or of `AutoModelForCausalLM` for
            a model that sees through GLEE only. Defaults to LLaVA 1.5 7B.
        perception_id (`str`, *optional*):
            Folder or Hub id of a published GLEE that has the weights of this one, which are not stored, then.
        perception_revision (`str`, *optional*): its branch, tag or commit; the commit for what has to stay the same.
        language_model_id (`str`, *optional*):
            Folder or Hub id of a published language model that has the weights of this one. Frozen ones are not
            stored, then; those that learn are, such as embeddings.
        language_model_revision (`str`, *optional*): its branch, tag or commit.
        object_token_id (`int`, *optional*, defaults to 32002): placeholder of an object in `input_ids`.
        segment_token_id (`int`, *optional*, defaults to 32003): `[SEG]`, whose state becomes a mask.
        object_label_ids (`list[int]`, *optional*):
            Tokens of the text "object" in GLEE's vocabulary, the label that GLEE detects: objects of any kind.
            Defaults to the tokens of CLIP's published vocabulary.
        num_objects (`int`, *optional*, defaults to 100): the best queries, which the language model is shown.
        object_overlap (`float`, *optional*, defaults to 1.0):
            Queries whose boxes have a larger intersection over union than this with a better query's come after all
            others: GLEE may have several queries for an object, which would be counted twice. 1 leaves the order.
        object_boxes (`bool`, *optional*, defaults to `True`): whether it is shown each query's box and score, too.
        object_ranks (`bool`, *optional*, defaults to `False`):
            Whether it is shown, too, how many objects are to the left and right of each, above and below it, smaller
            and larger.
        object_masks (`bool`, *optional*, defaults to `False`): whether it is shown each query's mask embedding, too.
        object_attention (`str`, *optional*, defaults to `"causal"`):
            What an object's state depends on in the language model: `"causal"`, all that comes before it, or `"full"`,
            also the objects that follow it without a word between.
        object_layers (`int`, *optional*, defaults to 0): layers of attention among objects before they are shown.
        choose_objects (`bool`, *optional*, defaults to `False`):
            Generates the mask of the query that is most similar to the state of `[SEG]`, instead of that state's
            product with the pixels' mask features. Both are trained.
        scaled_products (`bool`, *optional*, defaults to `False`): divides products by the root of their length.
        text_loss_weight (`float`, *optional*, defaults to 1.0): of the answers' cross entropy (as LISA).
        bce_loss_weight (`float`, *optional*, defaults to 2.0): of the masks' binary cross entropy (as LISA).
        dice_loss_weight (`float`, *optional*, defaults to 0.5): of the masks' dice loss (as LISA).
        object_loss_weight (`float`, *optional*, defaults to 1.0): of the cross entropy of the chosen query.
        initializer_range (`float`, *optional*, defaults to 0.02): standard deviation of new linear layers.
    """

    model_type = "lisa_glee"
    sub_configs = {"perception_config": AutoConfig, "language_config": AutoConfig}

    perception_config: dict | PreTrainedConfig | None = None
    language_config: dict | PreTrainedConfig | None = None
    perception_id: str | None = None
    perception_revision: str | None = None
    language_model_id: str | None = None
    language_model_revision: str | None = None
    object_token_id: int = 32002
    segment_token_id: int = 32003
    object_label_ids: list[int] | None = None
    num_objects: int = 100
    object_overlap: float | int = 1.0
    object_boxes: bool = True
    object_ranks: bool = False
    object_masks: bool = False
    object_attention: str = "causal"
    object_layers: int = 0
    choose_objects: bool = False
    scaled_products: bool = False
    text_loss_weight: float | int = 1.0
    bce_loss_weight: float | int = 2.0
    dice_loss_weight: float | int = 0.5
    object_loss_weight: float | int = 1.0
    initializer_range: float | int = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        if not isinstance(self.perception_config, PreTrainedConfig):
            fields = {"model_type": "glee", **(self.perception_config or {})}
            self.perception_config = perception_config_class(fields.pop("model_type"))(**fields)
        if not isinstance(self.language_config, PreTrainedConfig):
            fields = {"model_type": "llava", **(self.language_config or _llava(4096, 11008, 32, 32))}
            self.language_config = CONFIG_MAPPING[fields.pop("model_type")](**fields)
        if self.object_label_ids is None:
            self.object_label_ids = [49406, 14115, 49407]  # <|startoftext|>, "object", <|endoftext|>
        for part in ("perception", "language_model"):
            name, revision = getattr(self, f"{part}_id"), getattr(self, f"{part}_revision")
            _require(name is None or name.strip() != "", f"{part}_id must be a folder or a Hub id, not {name!r}.")
            _require(revision is None or name is not None, f"{part}_revision needs {part}_id; pass both.")
        queries = self.perception_config.num_queries
        _require(
            1 <= self.num_objects <= queries,
            f"num_objects must be from 1 to the {queries} queries of GLEE, not {self.num_objects}.",
        )
        overlap = self.object_overlap
        _require(0 < overlap <= 1, f"object_overlap must be above 0 and at most 1, not {overlap}.")
        attention = self.object_attention
        _require(attention in ("causal", "full"), f"object_attention must be 'causal' or 'full', not {attention!r}.")
        _require(self.object_layers >= 0, f"object_layers must be at least 0, not {self.object_layers}.")
        words = self.text_config.vocab_size
        for name in ("object_token_id", "segment_token_id"):
            _require(0 <= getattr(self, name) < words, f"{name} must be below the vocabulary's size, {words}.")
        if not __name__.startswith("transformers_modules."):
            # A published checkpoint names the file of its pipeline. Where lookhear is imported its own pipeline is
            # registered, and transformers would ask for trust_remote_code if it saw the name.
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """
        Saves the configuration; where the model's code is saved beside it, with the code of GLEE.

        Args:
            save_directory: made if missing.
            push_to_hub: whether it is uploaded as well, to `repo_id`, by default the folder's name.
            kwargs: of `push_to_hub`.
        """
        super().save_pretrained(save_directory)
        save_perception_code(sub_config(self, "perception_config"), Path(save_directory))
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)

    @property
    def text_config(self) -> PreTrainedConfig:
        """Returns the text part of the language model's configuration."""
        return sub_config(self, "language_config").get_text_config(decoder=True)

    @classmethod
    def llava_7b(cls, **kwargs) -> "LisaGleeConfig":
        """Returns the paper's: GLEE-Plus and LLaVA 1.5 7B."""
        return cls(**{"perception_config": _glee("plus"), "language_config": _llava(4096, 11008, 32, 32), **kwargs})

    @classmethod
    def llava_13b(cls, **kwargs) -> "LisaGleeConfig":
        """Returns the paper's larger one: GLEE-Plus and LLaVA 1.5 13B."""
        return cls(**{"perception_config": _glee("plus"), "language_config": _llava(5120, 13824, 40, 40), **kwargs})


def sub_config(config: LisaGleeConfig, name: str) -> PreTrainedConfig:
    """
    Returns `perception_config` or `language_config` as the type that `LisaGleeConfig` has turned it into.

    Args:
        config: that has it.
        name: of the field.

    Raises:
        ValueError: it has been replaced by something else.
    """
    value = getattr(config, name)
    if not isinstance(value, PreTrainedConfig):
        raise ValueError(f"{name} must be a configuration, not {type(value).__name__}.")
    return value


def _glee(size: str) -> PreTrainedConfig:
    return getattr(perception_config_class("glee"), size)()


def _llava(hidden_size: int, intermediate_size: int, layers: int, heads: int) -> dict[str, Any]:
    """Returns LLaVA 1.5 with room for the two new tokens: its vocabulary is a multiple of 64."""
    text = {
        "model_type": "llama",
        "vocab_size": 32064,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
    }
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    }
    return {"model_type": "llava", "vision_config": vision, "text_config": text, "image_token_index": 32000}
