"""Recipes: one YAML file names the model, the data, the augmentation and the length of training."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from lookhear.modeling.avsr import AvsrConfig
from lookhear.training.recipe_reading import (
    Ascending,
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    Range,
    Share,
    check_config,
    read_recipe,
)

Pitch = Annotated[float, Range(0.5, 2)]
FrameRate = Annotated[float, Range(0, 25, above=True)]


@dataclass
class DataRecipe:
    """
    Prepared folders (of `lookhear prepare`), resolved from the working directory.

    Attributes:
        train: folders to train on; a folder listed twice counts twice.
        validation: folders to evaluate on.
        min_frames_with_face: clips whose mouth was seen in a smaller share of their frames, in [0, 1], are left out;
            0: none is. Clips without pictures stay.
        max_frames: longer training clips are cut between two words to at most this number of frames, at least 1, and
            so is their text; see `cut_long_clips` for those whose words have no times. The paper cuts at 160.
        word_window: share of the words of a clip that a training excerpt has, in (0, 1] (1/3 for LRS2's and LRS3's
            `pretrain`); None: all.
        cut_long_clips: training clips over `max_frames` whose words have no times are left out (`"leave_out"`), or
            `aligner` finds the times (`"alignment"`), which are stored in `word_times` in `cache_features` or the
            training's `output_dir`; clips that it cannot align are left out.
        aligner: folder or Hub id of a recogniser, for `cut_long_clips: alignment`.
        word_times: files of a forced aligner, JSON lines or CTM, for clips whose words have no times: see
            `read_word_times`. They count as the corpus' own, for the alignment loss too.
        cache_features: folder in which the outputs of frozen front-ends and back-ends are stored, as in the paper's
            last stage: they are computed once, not in every step. None: they are not stored.
        feature_versions: versions of each training clip, at least 1, whose outputs are stored: version n has the
            augmentation of epoch n, counted from 0, and after the last version the first one is seen again.
        held_speakers: speakers whose clips in the folders of `train` are not trained on: they are evaluated on, as a
            set of their own.
    """

    train: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    min_frames_with_face: Share = 0.0
    max_frames: Count = 160
    word_window: Annotated[float, Range(0, 1, above=True)] | None = None
    cut_long_clips: Literal["leave_out", "alignment"] = "leave_out"
    aligner: str | None = None
    word_times: list[str] = field(default_factory=list)
    cache_features: str | None = None
    feature_versions: Count = 1
    held_speakers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if (self.cut_long_clips == "alignment") != (self.aligner is not None):
            raise ValueError(
                "data.cut_long_clips: alignment and data.aligner, a recogniser's folder or Hub id, go together: "
                "set both or neither"
            )
        if self.feature_versions > 1 and self.cache_features is None:
            raise ValueError("data.feature_versions is of data.cache_features: set both, or leave it out")


@dataclass
class AugmentationRecipe:
    """
    Augmentations of a training clip. The defaults are the paper's (section 4.2); the rest is off.

    Attributes:
        flip: probability that all frames of a clip are mirrored, in [0, 1].
        crop_jitter: how far the crop moves from the centre, pixels, at least 0; None: anywhere in the region.
        intensity: largest relative change of contrast and change of brightness (of 1.0) of a clip, in [0, 1].
        noise_probability: probability of babble in a clip's sound, in [0, 1].
        noise_snr: lowest and highest ratio of speech to noise, dB.
        noise_talkers: fewest and most voices in the babble, at least 1.
        talker_probability: share of the noise that is one competing talker, in [0, 1].
        human_probability: share of the noise that is one-second pieces of speech, in [0, 1].
        noise_bank: utterances held in memory to make noise from, at least 1.
        video_masks: most stretches of a clip without lips, at least 0.
        audio_masks: most stretches of a clip without sound, at least 0.
        mask_seconds: longest stretch without lips or sound, seconds, at least 0.
        splice_probability: probability of each word, in [0, 1], to be exchanged, sound and lips, with the word at the
            same place in another clip of the same speaker with equally many words (for corpora of a fixed grammar,
            with word times).
        part_probability: probability, in [0, 1], that only some words in a row of a clip with word times are left.
            Without such clips, a model that is trained on whole sentences of a fixed grammar reads no part of one.
        silence: whether the silence before and after the words is cut at random.
        speed: lowest and highest common speed of sound and lips, above 0; 1 is the clip's own.
        pitch: lowest and highest factor of the voice's pitch at the same speed, of three clips in ten, 0.5 to 2; 1 is
            the clip's own.
        room_probability: probability of a random room's echo, in [0, 1].
        background_probability: probability of a noise that is no speech (hiss, hum, music, knocks), in [0, 1].
        background_snr: lowest and highest ratio of speech to it, dB.
        codec_probability: probability that the sound goes through AAC, Opus or a telephone, in [0, 1].
        gamma: largest bend of the crops' grey values, at least 0: a power between 1 / (1 + gamma) and 1 + gamma.
        blur: largest blur of the crops, of half of the clips: the standard deviation of a Gaussian, pixels, at least
            0.
        slow_probability: probability that a clip has fewer pictures a second, each shown longer, in [0, 1].
        slow_rates: fewest and most of these pictures, above 0, at most 25.
        ramp_epochs: epochs, at least 0, over which noise, masks, splicing and parts grow from nothing to the recipe's
            values, so that a new model starts on clean clips.
    """

    flip: Share = 0.5
    crop_jitter: CountOrZero | None = None
    intensity: Share = 0.0
    noise_probability: Share = 0.25
    noise_snr: Annotated[tuple[float, float], Ascending()] = (5.0, 5.0)
    noise_talkers: Annotated[tuple[Count, Count], Ascending()] = (20, 20)
    talker_probability: Share = 0.0
    human_probability: Share = 0.0
    noise_bank: Count = 400
    video_masks: CountOrZero = 0
    audio_masks: CountOrZero = 0
    mask_seconds: NotNegative = 0.28
    splice_probability: Share = 0.0
    part_probability: Share = 0.0
    silence: bool = False
    speed: Annotated[tuple[Positive, Positive], Ascending()] = (1.0, 1.0)
    pitch: Annotated[tuple[Pitch, Pitch], Ascending()] = (1.0, 1.0)
    room_probability: Share = 0.0
    background_probability: Share = 0.0
    background_snr: Annotated[tuple[float, float], Ascending()] = (0.0, 20.0)
    codec_probability: Share = 0.0
    gamma: NotNegative = 0.0
    blur: NotNegative = 0.0
    slow_probability: Share = 0.0
    slow_rates: Annotated[tuple[FrameRate, FrameRate], Ascending()] = (10.0, 20.0)
    ramp_epochs: NotNegative = 0.0

    def at(self, epoch: float) -> "AugmentationRecipe":
        """Returns the recipe of one epoch, counted from 0; see `ramp_epochs`."""
        if epoch >= self.ramp_epochs:
            return self
        share = epoch / self.ramp_epochs
        return replace(
            self,
            noise_probability=share * self.noise_probability,
            background_probability=share * self.background_probability,
            splice_probability=share * self.splice_probability,
            part_probability=share * self.part_probability,
            video_masks=round(share * self.video_masks),
            audio_masks=round(share * self.audio_masks),
        )


@dataclass
class NonSpeechRecipe:
    """
    Training clips that say nothing, all or in part, so that a recogniser answers silence, noise and resting lips with
    no words. Off by default. The targets of sound, lips and both may then differ, so the model's
    `modality_loss_weights` must name them; a view that a clip lacks has no loss.

    Attributes:
        share: of the training clips, in [0, 1), that are replaced by others without words.
        seconds: their shortest and longest length, above 0.
        views: relative shares, at least 0, of those with sound only, lips only, and both.
        babble: share of their sounds, in [0, 1], that is babble of twelve voices or more. Beware: much of it makes a
            model deaf to speech in babble.
        backwards: share of them, in [0, 1], that is a clip with speech played backwards.
        scrambled: share of them, in [0, 1], that is a clip with speech cut into pieces of a tenth of a second or two,
            shuffled, as speech of unknown words. Together with `backwards` at most 1.
        still_lips: probability, in [0, 1], that a clip with speech shows lips that don't move, or don't speak: the
            sound's words remain, as those of a talker who is not in view; the lips say nothing.
        noise_alone: probability, in [0, 1], that a clip with lips has no sound but noise: the lips' words remain.
        quiet: probability, in [0, 1], of quiet around a clip with speech.
        pairs: probability, in [0, 1], that a clip with speech is followed, after a quiet, by another one of its
            speaker with as many words (with word times): there is speech after a pause, too.
        quiet_seconds: longest quiet before, after and between clips, at least 0.
        quiet_level: least and most decibels of the noise there, compared with the speech. Beware: where it is faint
            only, a model learns that after a loud noise nothing is said.
    """

    share: Annotated[float, Range(0, 1, below=True)] = 0.0
    seconds: Annotated[tuple[Positive, Positive], Ascending()] = (0.6, 4.5)
    views: tuple[NotNegative, NotNegative, NotNegative] = (0.35, 0.15, 0.5)
    babble: Share = 0.05
    backwards: Share = 0.0
    scrambled: Share = 0.0
    still_lips: Share = 0.0
    noise_alone: Share = 0.0
    quiet: Share = 0.0
    pairs: Share = 0.0
    quiet_seconds: NotNegative = 1.5
    quiet_level: Annotated[tuple[float, float], Ascending()] = (-60.0, -25.0)

    def __post_init__(self) -> None:
        if self.share and not sum(self.views):
            raise ValueError("non_speech.views are all 0: one of sound, lips and both must have a share")
        if self.backwards + self.scrambled > 1:
            raise ValueError(
                f"non_speech.backwards {self.backwards} and non_speech.scrambled {self.scrambled} are above 1 "
                "together: lower one"
            )

    @property
    def used(self) -> bool:
        """Whether any clip is changed."""
        return bool(self.share or self.still_lips or self.noise_alone or self.quiet or self.pairs)

    def at(self, share: float) -> "NonSpeechRecipe":
        """Returns the recipe with this share, in [0, 1], of its probabilities."""
        names = ("share", "still_lips", "noise_alone", "quiet", "pairs")
        return replace(self, **{name: share * getattr(self, name) for name in names})


@dataclass
class ModelRecipe:
    """
    What is trained.

    Attributes:
        task: `"recognition"` (text) or `"words"` (LRW's classes).
        checkpoint: folder or Hub id to start from; None: a new model of `config`.
        config: fields of `AvsrConfig`, which are checked.
        processor: folder or Hub id; None: a new processor of `image_processor` and `tokenizer`.
        image_processor: fields of a new processor's `MouthRoiImageProcessor`.
        corpus_statistics: whether a new processor's `image_mean` and `image_std` are those of `data.train`, as
            `lookhear prepare` has computed them; else LRS2's, or those in `image_processor`.
        tokenizer: fields of a new processor's `AvsrTokenizer`.
        initialise: list of {checkpoint, modules}: modules (such as `model.encoder.visual_front_end`) that are copied
            from other checkpoints; `format: moco | torchvision` reads a ResNet's weights into the visual front-end,
            `format: speech-encoder` a wav2vec 2.0, HuBERT, WavLM, w2v-BERT or Whisper into the audio front-end. Of
            front-ends that are copied a new model takes the configuration, too, unless `config` has its own.
        freeze: modules that are not trained, batch norms included.
    """

    task: Literal["recognition", "words"] = "recognition"
    checkpoint: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    processor: str | None = None
    image_processor: dict[str, Any] = field(default_factory=dict)
    corpus_statistics: bool = False
    tokenizer: dict[str, Any] = field(default_factory=dict)
    initialise: list[dict[str, Any]] = field(default_factory=list)
    freeze: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_config(self.config, AvsrConfig, "model.config")
        given = [name for name in ("image_mean", "image_std") if name in self.image_processor]
        if self.corpus_statistics and (self.processor or self.checkpoint or given):
            other = f"model.image_processor.{given[0]}" if given else "model.processor and model.checkpoint"
            raise ValueError(
                f"model.corpus_statistics is for a new processor and does not go with {other}: leave one out"
            )


@dataclass
class EvaluationRecipe:
    """
    How the validation clips are read. Whatever is chosen, only trained parts read: without a CTC loss the decoder
    alone, with nothing but a CTC loss the CTC head alone. The checkpoint's generation config is saved accordingly.

    Attributes:
        num_beams: beams of the joint search, at least 1, which is slower than the default and is saved as the
            checkpoint's; None: no search, but CTC's best path (or the decoder's, label by label).
        by_folder: whether each folder of `data.validation`, and the clips of `data.held_speakers`, are measured by
            themselves: `grid_validation_wer_audio` and so on, and `mean_wer` over folders and modalities, which
            `training.metric_for_best_model` may name.
    """

    num_beams: Count | None = None
    by_folder: bool = False


@dataclass
class Recipe:
    """
    A whole recipe.

    Attributes:
        model: to train.
        data: training and validation sets.
        augmentation: how training clips are augmented.
        training: fields of `transformers.TrainingArguments`.
        evaluation: how validation clips are read.
        non_speech: training clips that say nothing.
    """

    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    augmentation: AugmentationRecipe = field(default_factory=AugmentationRecipe)
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: EvaluationRecipe = field(default_factory=EvaluationRecipe)
    non_speech: NonSpeechRecipe = field(default_factory=NonSpeechRecipe)

    def __post_init__(self) -> None:
        if self.non_speech.used and self.model.task == "words":
            raise ValueError("non_speech is for model.task: recognition; leave it out for words")
        if self.non_speech.used and self.data.cache_features is not None:
            raise ValueError("non_speech and data.cache_features do not go together: leave one out")
        if self.evaluation.by_folder and self.data.cache_features is not None:
            raise ValueError("evaluation.by_folder and data.cache_features do not go together: leave one out")
        if self.data.held_speakers and not self.evaluation.by_folder:
            raise ValueError("data.held_speakers are measured with evaluation.by_folder: set it to true")


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """
    Reads a recipe with the sections `model`, `data`, `augmentation`, `non_speech`, `training`, `evaluation`; see
    `read_recipe`.
    """
    return read_recipe(path, overrides, Recipe, Path(__file__).parent)
