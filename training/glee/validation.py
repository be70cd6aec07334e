"""Measurement while training: a published protocol on a part of its data set, with the weights as they are."""

import tempfile
from pathlib import Path

from lookhear.evaluation.protocols.run import ProtocolRun
from lookhear.evaluation.protocols.running import PROTOCOLS, run_protocol
from lookhear.modeling.glee import GleeForObjectDetection
from lookhear.processing.glee import GleeProcessor, ObjectPerceptionPipeline
from lookhear.training.glee.mixture.corpus_recipe import ValidationRecipe

QUESTIONS = ("reasonseg", "scene-questions")  # which a model with a language model answers
KNOWN = [name for name in PROTOCOLS if name not in QUESTIONS]


class Validation:
    """
    Runs a protocol on a model.

    Args:
        recipe: names the protocol and its data.

    Raises:
        ValueError: there is no such protocol, or no such folder.
    """

    def __init__(self, recipe: ValidationRecipe):
        if recipe.protocol not in KNOWN:
            raise ValueError(f"validation.protocol must be one of {', '.join(KNOWN)}, not {recipe.protocol!r}")
        for name in ("data", "images"):
            folder = getattr(recipe, name)
            if folder is None and name == "data":
                raise ValueError(f"validation.data must name the folder of {recipe.protocol}")
            if folder is not None and not Path(folder).is_dir():
                raise ValueError(
                    f"validation.{name} {folder!r} is not a folder; put the data set there, or train without "
                    "measuring: validation.protocol=null"
                )
        self.recipe = recipe

    def __call__(self, model: GleeForObjectDetection, processor: GleeProcessor) -> dict[str, float]:
        """
        Returns the protocol's figures, fractions by name, without those that do not exist.

        Raises:
            ValueError: the folder is not laid out as the protocol expects, or only a server can measure this split.
        """
        recipe, training = self.recipe, model.training
        # A new one each time: a pipeline caches the embeddings of labels, which change with the weights.
        see = ObjectPerceptionPipeline(model=model.eval(), processor=processor, device=model.device)
        try:
            with tempfile.TemporaryDirectory() as folder:
                report = run_protocol(
                    ProtocolRun(
                        str(recipe.protocol),
                        Path(str(recipe.data)),
                        Path(folder),
                        see,
                        split=recipe.split,
                        images=None if recipe.images is None else Path(recipe.images),
                        limit=recipe.limit,
                        batch_size=recipe.batch_size,
                        tracking=recipe.tracking,
                    )
                )
        finally:
            model.train(training)
        figures = {name: value for name, value in report.metrics.items() if value == value}
        if not figures:
            raise ValueError(
                f"validation: {recipe.protocol} {report.split} cannot be measured here "
                f"({report.note or 'no objects'}); choose another validation.split or validation.protocol"
            )
        return figures
