"""How a model in training reads the validation clips, and how its checkpoint reads by default: by what is trained."""

from typing import Any

from transformers import GenerationConfig

from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration
from lookhear.training.avsr.recipe import EvaluationRecipe


def trained_ctc_weight(config: AvsrConfig) -> float | None:
    """
    Returns the weight of CTC in the search of a model of which only one part is trained.

    Args:
        config: its `ctc_loss_weight` and `alignment_loss_weight` are used.

    Returns:
        0.0 where no loss trains the CTC head, 1.0 where none trains the decoder, None where both are trained.
    """
    if config.ctc_loss_weight == 1:
        return 1.0
    return None if config.ctc_loss_weight or config.alignment_loss_weight else 0.0


def search_settings(config: AvsrConfig, recipe: EvaluationRecipe) -> dict[str, Any]:
    """
    Chooses the search that reads the validation clips.

    Args:
        config: of the model in training.
        recipe: with `num_beams`, the joint search; without it CTC's best path, or the decoder's where CTC is not
            trained.

    Returns:
        Arguments of `generate`. `ctc_weight` is missing where the generation config's counts.
    """
    weight = trained_ctc_weight(config)
    if recipe.num_beams is None and weight is None:
        weight = 1.0
    settings = {"num_beams": recipe.num_beams or 1, "num_return_sequences": 1, "do_sample": False}
    return settings | ({} if weight is None else {"ctc_weight": weight})


def save_search(model: AvsrForConditionalGeneration, recipe: EvaluationRecipe) -> None:
    """
    Writes the search into the model's generation config, so that its checkpoint reads by what was trained.

    The CTC weight becomes 0 or 1 where only one part is trained. Where both are, a 0 or 1 of an earlier training is
    removed, and any other weight stays. The recipe's `num_beams` is saved where it names one.

    Args:
        model: its generation config is replaced.
        recipe: of the evaluation.
    """
    # One that transformers derived from the model's configuration would be derived again when it is loaded.
    old = model.generation_config.to_diff_dict()
    fields = {name: value for name, value in old.items() if not name.startswith("_")}
    weight = trained_ctc_weight(model.config)
    if weight is not None:
        fields["ctc_weight"] = weight
    elif fields.get("ctc_weight") in (0, 1):
        del fields["ctc_weight"]
    if recipe.num_beams is not None:
        fields["num_beams"] = recipe.num_beams
    model.generation_config = GenerationConfig(**fields)
