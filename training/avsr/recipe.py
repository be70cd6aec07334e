"""Recipes: one YAML file names the model, the data, the augmentation and the length of training."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lookhear.training.recipe_reading import read_recipe


@dataclass
class DataRecipe:
    """
    Prepared folders (of `lookhear prepare`), resolved from the working directory.

    Attributes:
        train: folders to learn from; a folder listed twice counts twice.
        validation: folders to measure on.
        min_frames_with_face: clips whose mouth was seen in a smaller share of their frames, in [0, 1], are left out; 0
            keeps all.
        max_frames: longer clips are cut to this many frames, words and all; the paper's are cut at 160.
        word_window: share of the words of a clip that a training excerpt has (1/3 for LRS2's and LRS3's `pretrain`).
    """

    train: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    min_frames_with_face: float = 0.0
    max_frames: int = 160
    word_window: float | None = None


@dataclass
class AugmentationRecipe:
    """
    Disturbances of a training clip. The defaults are the paper's (section 4.2); the rest is off.

    Attributes:
        flip: probability that all frames of a clip are mirrored.
        crop_jitter: how far the crop moves from the centre, pixels; None: anywhere in the region.
        intensity: largest relative change of contrast and change of brightness (of 1.0) of a clip.
        noise_probability: probability of babble in a clip's sound.
        noise_snr: lowest and highest ratio of speech to noise, dB.
        noise_talkers: fewest and most voices in the babble.
        talker_probability: share of the noise that is one competing talker.
        human_probability: share of the noise that is one-second pieces of speech.
        noise_bank: utterances held in memory to make noise of.
        video_masks: most stretches of a clip without lips.
        audio_masks: most stretches of a clip without sound.
        mask_seconds: longest stretch without lips or sound, seconds.
        splice_probability: per word, that it is exchanged, sound and lips, with the word at the same place in another
            clip of the same speaker with equally many words (for corpora of a fixed grammar, with word times).
        silence: whether the silence before and after the words is cut at random.
        speed: lowest and highest common speed of sound and lips.
        ramp_epochs: epochs over which noise, masks and splicing grow from nothing to what the recipe says: a new model
            finds its way on clean clips.
    """

    flip: float = 0.5
    crop_jitter: int | None = None
    intensity: float = 0.0
    noise_probability: float = 0.25
    noise_snr: tuple[float, float] = (5.0, 5.0)
    noise_talkers: tuple[int, int] = (20, 20)
    talker_probability: float = 0.0
    human_probability: float = 0.0
    noise_bank: int = 400
    video_masks: int = 0
    audio_masks: int = 0
    mask_seconds: float = 0.28
    splice_probability: float = 0.0
    silence: bool = False
    speed: tuple[float, float] = (1.0, 1.0)
    ramp_epochs: float = 0.0

    def at(self, epoch: float) -> "AugmentationRecipe":
        """What the recipe says in one epoch (from 0)."""
        if epoch >= self.ramp_epochs:
            return self
        share = epoch / self.ramp_epochs
        return replace(
            self,
            noise_probability=share * self.noise_probability,
            splice_probability=share * self.splice_probability,
            video_masks=round(share * self.video_masks),
            audio_masks=round(share * self.audio_masks),
        )


@dataclass
class ModelRecipe:
    """
    What is trained.

    Attributes:
        task: `"recognition"` (text) or `"words"` (LRW's classes).
        checkpoint: folder or Hub id to start from; None: a new model of `config`.
        config: fields of `AvsrConfig`.
        processor: folder or Hub id; None: a new processor of `image_processor` and `tokenizer`.
        image_processor: fields of a new processor's `MouthRoiImageProcessor`.
        tokenizer: fields of a new processor's `AvsrTokenizer`.
        initialise: list of {checkpoint, modules}: modules (names as `model.encoder.visual_front_end`) that are copied
            from other checkpoints; `format: moco | torchvision` reads a ResNet's weights into the visual front-end.
        freeze: modules that stay as they are, batch norms included.
    """

    task: Literal["recognition", "words"] = "recognition"
    checkpoint: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    processor: str | None = None
    image_processor: dict[str, Any] = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=dict)
    initialise: list[dict[str, Any]] = field(default_factory=list)
    freeze: list[str] = field(default_factory=list)


@dataclass
class Recipe:
    """
    A whole recipe.

    Attributes:
        model: to train.
        data: training and validation sets.
        augmentation: how training clips are disturbed.
        training: fields of `transformers.TrainingArguments`.
    """

    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    augmentation: AugmentationRecipe = field(default_factory=AugmentationRecipe)
    training: dict[str, Any] = field(default_factory=dict)


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Reads a recipe with the sections `model`, `data`, `augmentation`, `training`; see [`read_recipe`]."""
    return read_recipe(path, overrides, Recipe, Path(__file__).parent)
