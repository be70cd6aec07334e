"""What every AVSR network has in common: kinds of attention, initialisation, shared layer norms."""

import torch
from torch import nn
from transformers import PreTrainedModel

from .configuration_avsr import AvsrConfig
from .frontends_avsr import AvsrSpectrogramFrontEnd
from .transformers_seam_avsr import initialization

WORD_CLASSIFIER = "AvsrForVideoClassification"


class AvsrPreTrainedModel(PreTrainedModel):
    config: AvsrConfig
    base_model_prefix = "model"
    main_input_name = "input_values"
    input_modalities = ("audio", "video")
    supports_gradient_checkpointing = True
    _no_split_modules = ["AvsrEncoderLayer", "AvsrDecoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """
        Loads a checkpoint; see transformers.

        Raises:
            ValueError: the checkpoint classifies words, so that a recogniser of it would be random.
        """
        given = kwargs.get("config")  # from the Auto classes: then nothing is loaded in vain
        cls._refuse_words(given if isinstance(given, AvsrConfig) else None, pretrained_model_name_or_path)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with `output_loading_info=True` a pair
        cls._refuse_words(model.config, pretrained_model_name_or_path)
        return loaded

    @classmethod
    def _refuse_words(cls, config: AvsrConfig | None, name) -> None:
        if config is not None and WORD_CLASSIFIER in (config.architectures or []) and cls.__name__ != WORD_CLASSIFIER:
            raise ValueError(
                f"{str(name)!r} classifies words, and {cls.__name__} has other weights: load it with "
                "AutoModelForVideoClassification."
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own initialisation, as the published code; the front-end of transformers keeps its own."""
        if isinstance(module, AvsrSpectrogramFrontEnd):
            module.reset_buffers()
        elif isinstance(module, nn.Embedding):
            initialization.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            initialization.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                bound = module.weight[0].numel() ** -0.5
                initialization.uniform_(module.bias, -bound, bound)
        elif isinstance(module, (nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            super()._init_weights(module)

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """The shared layer norms; the base class takes weights as shared only where word embeddings are."""
        return super().get_expanded_tied_weights_keys(True) if all_submodels else dict(self._tied_weights_keys or {})


def shared_parameters(modules: dict[str, str]) -> dict[str, str]:
    """Names of layer norms and of those they share their parameters with -> names of the parameters."""
    return {f"{a}.{part}": f"{b}.{part}" for a, b in modules.items() for part in ("weight", "bias")}
