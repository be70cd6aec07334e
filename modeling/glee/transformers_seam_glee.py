"""
All that the networks take from transformers beyond its documented names, in one place.

None of these has a documented substitute, and every model in transformers' own tree uses them, so that they change in
one step with the model contract itself (`_init_weights`, `_no_split_modules`, `_tied_weights_keys`, `_supports_*`,
`_can_record_outputs`):

- `initialization`: filling tensors in `_init_weights` without touching weights that were loaded.
- `create_causal_mask`, `create_bidirectional_mask`: masks in the form that the chosen kind of attention reads.
- `capture_outputs`, `OutputRecorder`: hidden states and attentions, collected only when they are asked for.
- `merge_with_config_defaults`: arguments of a call that default to the configuration's.
- [`attention_function`]: the kind of attention that `attn_implementation` chose.

The text is the same for both systems, as a checkpoint's code travels one folder at a time (tests/test_house.py).
"""

from collections.abc import Callable

from transformers import PreTrainedConfig, initialization
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

__all__ = [
    "OutputRecorder",
    "attention_function",
    "attention_kind",
    "capture_outputs",
    "create_bidirectional_mask",
    "create_causal_mask",
    "initialization",
    "merge_with_config_defaults",
]


def attention_kind(config: PreTrainedConfig) -> str:
    """Returns the name that `attn_implementation` was given, such as `"sdpa"`."""
    return config._attn_implementation


def attention_function(config: PreTrainedConfig, eager: Callable) -> Callable:
    """Returns the attention that `attn_implementation` chose; `eager` is the model's own."""
    return ALL_ATTENTION_FUNCTIONS.get_interface(attention_kind(config), eager)
