"""Prepared clips as a data set of training examples, and batches of them."""

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import torch
from datasets import Dataset

from lookhear.processing.avsr import AvsrProcessor
from lookhear.training.avsr.alignment import AlignmentTargets
from lookhear.training.avsr.augmentation import (
    FRAMES_PER_SECOND,
    SAMPLES_PER_FRAME,
    Clip,
    augment,
    change_looks,
    cut_at_words,
    moved,
    scramble,
    splice_word,
    word_window,
)
from lookhear.training.avsr.forced_alignment import FOUND_WORDS, read_words
from lookhear.training.avsr.prepare import decode_audio, decode_row
from lookhear.training.avsr.recipe import AugmentationRecipe, DataRecipe, NonSpeechRecipe
from lookhear.training.avsr.wordless_lips import wander, wordless_lips
from lookhear.training.avsr.wordless_sound import background, wordless_sound

IGNORED = -100


def read_clip(row: dict) -> Clip:
    """Returns a row of a prepared folder as a [`Clip`]."""
    decoded = decode_row(row)
    words = decoded["words"] and tuple((word["word"], word["start"], word["end"]) for word in decoded["words"])
    words = words or read_words(row.get(FOUND_WORDS))
    return Clip(decoded["text"], decoded["audio"], decoded["mouths"], words)


class TrainingClips(torch.utils.data.Dataset):
    """
    Augmented clips. Clip number i of an epoch is the same in any order, process or worker: its generator is seeded by
    (seed, epoch, i), so a resumed or distributed run sees what an uninterrupted one sees.

    Args:
        rows: from `load_prepared`.
        augmentation: of the recipe.
        data: of the recipe.
        crop_size: side of the network's input, in pixels.
        seed: of everything random.
        non_speech: of the recipe; None: every clip says its text.
    """

    def __init__(
        self,
        rows: Dataset,
        augmentation: AugmentationRecipe,
        data: DataRecipe,
        crop_size: int,
        seed: int = 0,
        non_speech: NonSpeechRecipe | None = None,
    ):
        self.rows, self.augmentation, self.data = rows, augmentation, data
        self.crop_size, self.seed, self.epoch = crop_size, seed, 0
        self.non_speech = non_speech or NonSpeechRecipe()
        noisy = augmentation.noise_probability or self.non_speech.used
        self.voices = self._collect_voices() if noisy else []
        self.with_lips = self._find_lips() if self.non_speech.used else []
        partners = augmentation.splice_probability or self.non_speech.pairs
        self.partners = self._find_partners() if partners else {}

    def _collect_voices(self) -> list[tuple[int, np.ndarray]]:
        """Reads the sound of some clips, for noise: pairs of row number and wave."""
        generator = np.random.default_rng([self.seed, 1])
        chosen = generator.permutation(len(self.rows))[: self.augmentation.noise_bank]
        columns = self.rows.select_columns(["audio"])
        waves = ((int(i), decode_audio(columns[int(i)]["audio"])) for i in chosen)
        return [(index, wave) for index, wave in waves if wave is not None and np.abs(wave).max(initial=0) > 0]

    def _find_lips(self) -> list[int]:
        """Finds the rows with mouth crops."""
        shapes = self.rows.select_columns(["mouth_shape"])
        return [index for index, row in enumerate(shapes) if row["mouth_shape"] is not None]

    def _find_partners(self) -> dict[int, list[int]]:
        """Finds, for each row with word times, the rows of the same speaker with the same number of words."""
        groups = defaultdict(list)
        columns = self.rows.select_columns(["speaker", "words"])
        for index, row in enumerate(columns):
            if row["words"] and row["speaker"]:
                groups[row["speaker"], len(row["words"])].append(index)
        return {index: group for group in groups.values() if len(group) > 1 for index in group}

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, counted from 0; called at the start of each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Clip:
        generator = np.random.default_rng([self.seed, self.epoch, index])
        augmentation = self.augmentation.at(self.epoch)
        ramp = self.augmentation.ramp_epochs
        non_speech = self.non_speech.at(min(1.0, self.epoch / ramp) if ramp else 1.0)
        others = [wave for row, wave in self.voices if row != index]
        if non_speech.share and generator.random() < non_speech.share:
            return self._wordless(read_clip(self.rows[index]), augmentation, non_speech, others, generator)
        clip = self._spoken(index, augmentation, others, generator)
        if not self.non_speech.used:
            return clip
        if non_speech.pairs and index in self.partners and generator.random() < non_speech.pairs:
            partner = self._partner(index, generator)
            following = self._spoken(partner, augmentation, others, generator)
            if clip.frames + following.frames <= self.data.max_frames:
                clip = join(clip, following, non_speech.quiet_seconds, non_speech.quiet_level, generator)
        elif generator.random() < non_speech.quiet:
            clip = add_quiet(clip, non_speech.quiet_seconds, non_speech.quiet_level, generator)
        clip = replace(clip, heard=clip.text, seen=clip.text)
        drawn = generator.random()
        if drawn < non_speech.still_lips and clip.audio is not None:
            lips = self._quiet_lips(None, clip.frames, augmentation, generator)
            clip = clip if lips is None else replace(clip, mouths=lips, seen="")
        elif drawn < non_speech.still_lips + non_speech.noise_alone and clip.mouths is not None:
            samples = len(clip.mouths) * SAMPLES_PER_FRAME
            clip = replace(clip, audio=wordless_sound(samples, generator, others, non_speech.babble), heard="")
        return clip

    def _spoken(
        self, index: int, augmentation: AugmentationRecipe, voices: list[np.ndarray], generator: np.random.Generator
    ) -> Clip:
        """Returns the clip of a row with its words: spliced, cut and augmented."""
        row = self.rows[index]
        clip = self._splice(read_clip(row), index, augmentation.splice_probability, generator)
        if self.data.word_window:
            clip = word_window(clip, self.data.word_window, generator, self.data.max_frames)
        if clip.frames > self.data.max_frames:
            clip = cut_at_words(clip, self.data.max_frames)
        if not row["words"]:  # times that an aligner found are for cutting only
            clip = replace(clip, words=None)
        return augment(clip, augmentation, self.crop_size, voices, generator)

    def _partner(self, index: int, generator: np.random.Generator) -> int:
        """Draws a row of the same speaker with as many words; it may be the same row."""
        return self.partners[index][int(generator.integers(len(self.partners[index])))]

    def _wordless(
        self,
        clip: Clip,
        augmentation: AugmentationRecipe,
        recipe: NonSpeechRecipe,
        voices: list[np.ndarray],
        generator: np.random.Generator,
    ) -> Clip:
        """Returns a clip that says nothing, in the place of another one."""
        drawn = generator.random()
        if drawn < recipe.backwards + recipe.scrambled:
            clip = augment(clip, augmentation, self.crop_size, voices, generator)
            if drawn >= recipe.backwards:
                return replace(scramble(clip, generator), heard="", seen="")
            audio = None if clip.audio is None else clip.audio[::-1].copy()
            return Clip("", audio, None if clip.mouths is None else clip.mouths[::-1], (), "", "")
        frames = max(2, round(FRAMES_PER_SECOND * generator.uniform(*recipe.seconds)))
        view = int(generator.choice(3, p=np.array(recipe.views) / sum(recipe.views)))
        mouths = self._quiet_lips(clip, frames, augmentation, generator) if view > 0 else None
        audio = None
        if view != 1 or mouths is None:
            audio = wordless_sound(frames * SAMPLES_PER_FRAME, generator, voices, recipe.babble)
        return Clip("", audio, mouths, (), "", "")

    def _quiet_lips(
        self, clip: Clip | None, frames: int, augmentation: AugmentationRecipe, generator: np.random.Generator
    ) -> np.ndarray | None:
        """
        Makes lips that say nothing, `(frames, size, size)` uint8, of a clip's crops, of any one's without it; None if
        no clip has lips.
        """
        if clip is None or clip.mouths is None:
            if not self.with_lips:
                return None
            clip = read_clip(self.rows[self.with_lips[int(generator.integers(len(self.with_lips)))]])
        assert clip.mouths is not None  # of a row with crops
        lips = wander(wordless_lips(clip.mouths, clip.words, frames, generator), self.crop_size, generator)
        lips = change_looks(lips, augmentation, generator)
        return lips[:, :, ::-1] if generator.random() < augmentation.flip else lips

    def _splice(self, clip: Clip, index: int, probability: float, generator: np.random.Generator) -> Clip:
        if index not in self.partners or clip.words is None or not probability:
            return clip
        for place in range(len(clip.words)):
            if generator.random() < probability:
                clip = splice_word(clip, read_clip(self.rows[self._partner(index, generator)]), place)
        return clip


def add_quiet(clip: Clip, most: float, level: tuple[float, float], generator: np.random.Generator) -> Clip:
    """
    Adds up to `most` seconds before a clip and after it, in which its first and last picture stand still, and nothing
    is heard but, often, a noise of `level` decibels (least and most) above the speech.
    """
    before, after = (round(FRAMES_PER_SECOND * generator.uniform(0, most) * (generator.random() < 0.7)) for _ in "ab")
    audio, mouths = clip.audio, clip.mouths
    if audio is not None:
        ends = _quiet_sounds(audio, (before, after), level, generator)
        audio = np.concatenate([ends[0], _as_long_as(audio, mouths), ends[1]])
    if mouths is not None and len(mouths):
        mouths = np.concatenate([np.repeat(mouths[:1], before, 0), mouths, np.repeat(mouths[-1:], after, 0)])
    return replace(clip, audio=audio, mouths=mouths, words=clip.words and moved(clip.words, before))


def join(clip: Clip, following: Clip, most: float, level: tuple[float, float], generator: np.random.Generator) -> Clip:
    """
    Returns one clip and then another, with up to `most` seconds between them, as [`add_quiet`] makes them. If only one
    has sound, lips or word times, the first clip is returned as it is.
    """
    for mine, other in zip(
        (clip.audio, clip.mouths, clip.words), (following.audio, following.mouths, following.words)
    ):
        if (mine is None) != (other is None):
            return clip
    between = round(FRAMES_PER_SECOND * generator.uniform(0, most))
    audio, mouths, words = clip.audio, clip.mouths, clip.words
    sounds = [_as_long_as(part.audio, part.mouths) for part in (clip, following) if part.audio is not None]
    frames = len(mouths) if mouths is not None else clip.frames  # of the first one
    if sounds:
        pause = _quiet_sounds(sounds[0], (between,), level, generator)[0]
        first = np.pad(sounds[0], (0, frames * SAMPLES_PER_FRAME - len(sounds[0])))
        audio = np.concatenate([first, pause, sounds[1]])
    if mouths is not None and following.mouths is not None:
        held = [np.repeat(mouths[-1:], between // 2, 0), np.repeat(following.mouths[:1], between - between // 2, 0)]
        mouths = np.concatenate([mouths, *held, following.mouths])
    if words is not None and following.words is not None:
        words += moved(following.words, frames + between)
    return replace(clip, text=f"{clip.text} {following.text}".strip(), audio=audio, mouths=mouths, words=words)


def _quiet_sounds(
    speech: np.ndarray, frames: tuple[int, ...], level: tuple[float, float], generator: np.random.Generator
) -> list[np.ndarray]:
    """Makes sounds of these lengths without words, each `(samples,)` float32: silent, or noise of one random level."""
    loudness = float(np.sqrt(np.mean(np.square(speech)))) if len(speech) else 0.0
    loudness *= 10 ** (generator.uniform(*level) / 20) * (generator.random() < 0.7)
    counts = [number * SAMPLES_PER_FRAME for number in frames]
    sounds = (loudness * background(count, generator) if count and loudness else np.zeros(count) for count in counts)
    return [np.asarray(sound, np.float32) for sound in sounds]


def _as_long_as(audio: np.ndarray, mouths: np.ndarray | None) -> np.ndarray:
    """Returns `(samples,)` sound that ends with the pictures, if there are any."""
    return audio if mouths is None else audio[: len(mouths) * SAMPLES_PER_FRAME]


class EvaluationClips(torch.utils.data.Dataset):
    """Clips without augmentation."""

    def __init__(self, rows: Dataset):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Clip:
        return read_clip(self.rows[index])


@dataclass
class ClipCollator:
    """
    Makes a batch of clips with an `AvsrProcessor`.

    Attributes:
        processor: makes the inputs.
        classes: for the words task, the label of each text; None: the labels are characters.
        steps_per_second: CTC steps per second, if the alignment loss is used: adds `alignment_labels`
            `(batch, steps)` or `alignment_windows` `(batch, length, 2)`.
        margin: see [`AlignmentTargets`].
        views: of `"audio"`, `"visual"`, `"audiovisual"`, in the order of the model's `modality_loss_weights`: labels
            of clips whose views say different texts are `(views * batch, length)`.
    """

    processor: AvsrProcessor
    classes: dict[str, int] | None = None
    steps_per_second: float | None = None
    margin: int | None = None
    views: tuple[str, ...] = ()

    def __call__(self, clips: list[Clip]) -> dict[str, torch.Tensor]:
        if self.views and any(clip.heard is not None or clip.seen is not None for clip in clips):
            return self._with_views(clips)
        inputs = self.processor(
            audio=[clip.audio for clip in clips] if self.classes is None else None,
            sampling_rate=self.processor.feature_extractor.sampling_rate,
            videos=[clip.mouths for clip in clips],
            text=[clip.text for clip in clips] if self.classes is None else None,
            return_tensors="pt",
        )
        if self.classes is not None:
            inputs["labels"] = torch.tensor([self.classes[clip.text.upper()] for clip in clips])
        elif self.steps_per_second is not None:
            inputs.update(self._alignment(clips, inputs["labels"], self.steps_per_second))
        return dict(inputs)

    def _with_views(self, clips: list[Clip]) -> dict[str, torch.Tensor]:
        """Makes a batch whose labels have a row for each view of each clip; views that a clip lacks are ignored."""
        clips = with_both(clips, self.processor.image_processor.crop_size)
        texts = [clip.text_of(view) for view in self.views for clip in clips]
        inputs = self.processor(
            audio=[clip.audio for clip in clips],
            sampling_rate=self.processor.feature_extractor.sampling_rate,
            videos=[clip.mouths for clip in clips],
            return_tensors="pt",
        )
        inputs |= self.processor(text=[text or "" for text in texts], return_tensors="pt")
        absent = torch.tensor([text is None for text in texts])
        inputs["labels"] = inputs["labels"].masked_fill(absent[:, None], IGNORED)
        if self.steps_per_second is not None:
            parts = [spoken_part(clip, view) for view in self.views for clip in clips]
            inputs.update(self._alignment(parts, inputs["labels"], self.steps_per_second))
        return dict(inputs)

    def _alignment(self, clips: list[Clip], labels: torch.Tensor, steps_per_second: float) -> dict[str, torch.Tensor]:
        return AlignmentTargets(self.processor.tokenizer, steps_per_second, self.margin)(clips, labels)


def spoken_part(clip: Clip, view: str) -> Clip:
    """Returns a clip with the text that one view of it says, and without word times if they are not this text's."""
    text = clip.text_of(view)
    if text is None:
        return replace(clip, words=None)
    return replace(clip, text=text, words=clip.words if text == clip.text else None if text else ())


def with_both(clips: list[Clip], crop_size: int) -> list[Clip]:
    """
    Gives the first clip black pictures, or digital silence, where no clip of a batch has lips, or sound. So each part
    of a network has a share in each step, which processes that train together wait for.
    """
    clips = list(clips)
    frames = max(clips[0].frames, 1)
    if all(clip.mouths is None for clip in clips):
        clips[0] = replace(clips[0], mouths=np.zeros((frames, crop_size, crop_size), np.uint8), seen="")
    if all(clip.audio is None for clip in clips):
        clips[0] = replace(clips[0], audio=np.zeros(frames * SAMPLES_PER_FRAME, np.float32), heard="")
    return clips
