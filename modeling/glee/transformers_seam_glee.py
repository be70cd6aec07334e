"""
All that the networks take from transformers beyond its documented names, in one place.

None of these has a documented substitute, and every model in transformers' own tree uses them, so that they change in
one step with the model contract itself (`_init_weights`, `_no_split_modules`, `_tied_weights_keys`, `_supports_*`,
`_can_record_outputs`):

- `initialization`: filling tensors in `_init_weights` without touching weights that were loaded.
- `create_causal_mask`, `create_bidirectional_mask`: masks in the form that the chosen kind of attention reads.
- `capture_outputs`, `OutputRecorder`: hidden states and attentions, collected only when a call requests them.
- `merge_with_config_defaults`: arguments of a call that default to the configuration's.
- [`attention_function`]: the kind of attention that `attn_implementation` chose.
- `use_kernel_forward_from_hub`: a layer that may be computed by a compiled kernel from the Hub (`use_kernels=True`).
- [`call_with_cache`], [`cache_field`]: what holds keys and values from step to step was renamed in transformers 5.24.
- [`name_for_task`]: enters a class as a model of one of transformers' tasks. The pipelines look classes up in tables
  of names, which the Auto classes' `register` doesn't fill: the recogniser would be taken for a CTC model and read
  nonsense, and of other classes each pipeline logs that they are not supported.

The text is the same for both systems, as a checkpoint's code travels one folder at a time (tests/test_house.py).
"""

import inspect
from collections.abc import Callable

import torch
from transformers import Cache, PreTrainedConfig, PreTrainedModel, initialization
from transformers.integrations import use_kernel_forward_from_hub
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto import modeling_auto
from transformers.utils import ModelOutput
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

__all__ = [
    "OutputRecorder",
    "attention_function",
    "attention_kind",
    "cache_field",
    "call_with_cache",
    "capture_outputs",
    "create_bidirectional_mask",
    "create_causal_mask",
    "initialization",
    "merge_with_config_defaults",
    "name_for_task",
    "use_kernel_forward_from_hub",
]

TASK_TABLES = {
    "automatic-speech-recognition": modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    "video-classification": modeling_auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES,
    "zero-shot-object-detection": modeling_auto.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES,
}


def attention_kind(config: PreTrainedConfig) -> str:
    """Returns the name that `attn_implementation` was given, such as `"sdpa"`."""
    return config._attn_implementation


def attention_function(config: PreTrainedConfig, eager: Callable) -> Callable:
    """Returns the attention that `attn_implementation` chose; `eager` is the model's own."""
    return ALL_ATTENTION_FUNCTIONS.get_interface(attention_kind(config), eager)


def call_with_cache(
    model: PreTrainedModel, input_ids: torch.Tensor, cache: Cache | None
) -> tuple[torch.Tensor, Cache | None]:
    """
    Calls a causal language model that continues from the keys and values of its last call.

    Args:
        model: of transformers.
        input_ids: `(batch, length)`, those after what `cache` holds.
        cache: what the last call returned; None at first.

    Returns:
        Logits `(batch, length, vocab)` and the new cache, None of a model that has none.
    """
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    outputs = model(input_ids=input_ids, use_cache=True, **{name: cache})
    return outputs.logits, outputs.get(name)


def cache_field(output_class: type[ModelOutput]) -> str:
    """Returns the name of the field for keys and values in an output of transformers."""
    return "cache" if "cache" in inspect.signature(output_class).parameters else "past_key_values"


def name_for_task(task: str, model_class: type[PreTrainedModel]) -> None:
    """Enters a class as a model of a task in the tables of transformers' pipelines."""
    if model_class.config_class is None:
        raise ValueError(f"{model_class.__name__} has no config_class, whose model_type a pipeline looks up.")
    TASK_TABLES[task][model_class.config_class.model_type] = model_class.__name__
