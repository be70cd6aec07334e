"""Augmentations of training clips that keep sound and lips in step. Every function takes a random generator."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from lookhear.processing.avsr.noise_avsr import babble, competing_talker, human_noise, mix_at_snr
from lookhear.training.avsr.channel import add_room, change_pitch, random_codec
from lookhear.training.avsr.recipe import AugmentationRecipe
from lookhear.training.avsr.wordless_sound import background

SAMPLES_PER_FRAME = 640  # 16 kHz sound, 25 frames a second
FRAMES_PER_SECOND = 25
BLURRED_SHARE = 0.5  # of the clips, where blur is on
PITCHED_SHARE = 0.3  # likewise: half of the time that a clip takes otherwise
TOLERANCE = 1e-3  # of a frame: less than a sample of sound, more than the rounding of stored times

Words = tuple[tuple[str, float, float], ...]  # with start and end in seconds


@dataclass(frozen=True)
class Clip:
    """
    One training clip.

    Attributes:
        text: the words that are spoken.
        audio: `(samples,)` float32 at 16 kHz, or None.
        mouths: `(frames, size, size)` uint8 at 25 fps, or None.
        words: `(word, start, end)` in seconds, or None if the times are not known.
        heard: what the sound alone says, if that isn't `text`: nothing where lips move beside noise.
        seen: what the lips alone say, likewise: nothing where they are still.
    """

    text: str
    audio: np.ndarray | None = None
    mouths: np.ndarray | None = None
    words: Words | None = None
    heard: str | None = None
    seen: str | None = None

    @property
    def frames(self) -> int:
        """Length in video frames; a last part of the sound that is shorter than a frame counts as one."""
        audio = 0 if self.audio is None else -(-len(self.audio) // SAMPLES_PER_FRAME)
        return max(audio, 0 if self.mouths is None else len(self.mouths))

    def text_of(self, view: str) -> str | None:
        """
        Returns what is said in `"audio"`, `"visual"` or `"audiovisual"`; None where the clip lacks what is read there.
        """
        present = {"audio": self.audio is not None, "visual": self.mouths is not None}
        if not present.get(view, any(present.values())):
            return None
        own = {"audio": self.heard, "visual": self.seen}.get(view)
        return self.text if own is None else own


def cut(clip: Clip, start: int, end: int) -> Clip:
    """
    Cuts frames `[start, end)` out of a clip, with their sound. Only words that lie wholly inside stay, in the text
    too, their times shifted; without word times the text stays as it is.
    """
    seconds = start / 25, end / 25
    text, words = clip.text, clip.words
    if words:
        words = tuple(
            (word, a - seconds[0], b - seconds[0])
            for word, a, b in words
            if a >= seconds[0] - 1e-3 and b <= seconds[1] + 0.04
        )
        if len(words) < len(clip.words or ()):
            text = " ".join(word for word, *_ in words)
    return Clip(
        text,
        None if clip.audio is None else clip.audio[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME],
        None if clip.mouths is None else clip.mouths[start:end],
        words,
    )


def word_window(clip: Clip, share: float, generator: np.random.Generator, max_frames: int) -> Clip:
    """
    Cuts out `share` of the words (at least one) in a row, chosen at random and shortened until they fit (section 4.2).
    """
    if not clip.words:
        return clip
    count = max(1, round(len(clip.words) * share))
    first = int(generator.integers(len(clip.words) - count + 1))
    chosen = clip.words[first : first + count]
    while len(chosen) > 1 and (chosen[-1][2] - chosen[0][1]) * 25 > max_frames:
        chosen = chosen[:-1]
    start, end = int(chosen[0][1] * 25), int(np.ceil(chosen[-1][2] * 25))
    return replace(cut(clip, start, min(end, start + max_frames)), text=" ".join(word for word, *_ in chosen))


def cut_part(clip: Clip, generator: np.random.Generator) -> Clip:
    """
    Keeps one word or more in a row, but not all, chosen at random, with their sound and lips: a sentence that was cut
    off, at either end. Neighbours are cut apart half way between them. A clip without word times stays as it is.
    """
    words = clip.words or ()
    if len(words) < 2:
        return clip
    count = int(generator.integers(1, len(words)))
    first = int(generator.integers(len(words) - count + 1))
    last = first + count
    start = 0 if first == 0 else _frame_between(words[first - 1], words[first])
    end = clip.frames if last == len(words) else _frame_between(words[last - 1], words[last])
    if end <= start:
        return clip
    text = " ".join(word for word, *_ in words[first:last])
    return replace(cut(clip, start, end), text=text, words=moved(words[first:last], -start))


def moved(words: Words, frames: int) -> Words:
    """Returns words that are said a number of frames later; earlier, where it is negative."""
    late = frames / FRAMES_PER_SECOND
    return tuple((word, start + late, end + late) for word, start, end in words)


def _frame_between(word: tuple[str, float, float], following: tuple[str, float, float]) -> int:
    """Returns the frame whose beginning is nearest to the middle between two words."""
    return round(25 * (word[2] + following[1]) / 2)


def first_words(words: Sequence[tuple[str, float, float]], max_frames: int) -> tuple[int, range] | None:
    """
    Finds the first words of a clip that fit into a number of frames.

    The excerpt begins with the clip if the first word ends in time, else with the first word that is short enough.

    Args:
        words: each with its start and end in seconds, in order.
        max_frames: of the excerpt, at least 1.

    Returns:
        The excerpt's first frame, and the places of its words; None if no word fits.
    """
    for start, first in ((0, 0), *((_frame_at(word[1]), place) for place, word in enumerate(words))):
        count = 0
        while first + count < len(words) and _frame_after(words[first + count][2]) <= start + max_frames:
            count += 1
        if count:
            return start, range(first, first + count)
    return None


def cut_at_words(clip: Clip, max_frames: int) -> Clip:
    """
    Cuts a clip with word times to at most `max_frames` frames, before a word: no word is heard, seen or written in
    part. See [`first_words`]; of a clip no word of which fits, the first frames remain.
    """
    words = clip.words or ()
    found = first_words(words, max_frames)
    if found is None:
        return cut(clip, 0, max_frames)
    start, places = found
    chosen, rest = words[places.start : places.stop], words[places.stop :]
    end = max(_frame_at(rest[0][1]) if rest else clip.frames, _frame_after(chosen[-1][2]))
    text = " ".join(word for word, *_ in chosen) if len(chosen) < len(words) else clip.text
    return replace(cut(clip, start, min(end, start + max_frames)), text=text, words=moved(chosen, -start))


def _frame_at(seconds: float) -> int:
    """Returns the frame in which a time lies."""
    return math.floor(25 * seconds + TOLERANCE)


def _frame_after(seconds: float) -> int:
    """Returns the first frame that begins at or after a time."""
    return math.ceil(25 * seconds - TOLERANCE)


def cut_silence(clip: Clip, generator: np.random.Generator) -> Clip:
    """Removes a random part of the silence before the first word and after the last one."""
    if not clip.words:
        return clip
    first, last = int(clip.words[0][1] * 25), int(np.ceil(clip.words[-1][2] * 25))
    start = int(generator.integers(max(first - 1, 0) + 1))
    return cut(clip, start, int(generator.integers(min(last + 2, clip.frames), clip.frames + 1)))


def splice_word(clip: Clip, other: Clip, place: int) -> Clip:
    """
    Replaces word number `place` of a clip, sound and lips, by the other clip's word at that place. Both clips have
    lips, or neither has; else nothing is replaced.
    """
    if clip.audio is None or other.audio is None or (clip.mouths is None) != (other.mouths is None):
        return clip
    if clip.words is None or other.words is None:
        return clip
    (_, start, end), (word, other_start, other_end) = clip.words[place], other.words[place]
    start, end, other_start, other_end = (round(t * 25) for t in (start, end, other_start, other_end))
    lengths = [one.frames if one.mouths is None else len(one.mouths) for one in (clip, other)]
    if end <= start or other_end <= other_start or other_end > lengths[1] or end > lengths[0]:
        return clip
    mouths = None
    if clip.mouths is not None and other.mouths is not None:
        mouths = np.concatenate((clip.mouths[:start], other.mouths[other_start:other_end], clip.mouths[end:]))
    a, b, c, d = (t * SAMPLES_PER_FRAME for t in (start, end, other_start, other_end))
    audio = np.concatenate((clip.audio[:a], other.audio[c:d], clip.audio[b:]))
    shift = ((other_end - other_start) - (end - start)) / 25
    words = list(clip.words)
    words[place] = (word, start / 25, start / 25 + (other_end - other_start) / 25)
    words[place + 1 :] = [(w, s + shift, e + shift) for w, s, e in words[place + 1 :]]
    return Clip(" ".join(w for w, *_ in words), audio, mouths, tuple(words))


def scramble(clip: Clip, generator: np.random.Generator) -> Clip:
    """
    Cuts a clip into pieces of 2 to 6 frames (80 to 240 ms) and shuffles them: sounds and lips of speech, but no words.

    The pieces of the sound are faded over 5 ms, so that their edges don't click.
    """
    ends = np.cumsum(generator.integers(2, 7, clip.frames // 2))
    edges = np.array([0, *ends[ends < clip.frames], clip.frames])
    pieces = generator.permutation(len(edges) - 1)
    audio, mouths = clip.audio, clip.mouths
    if audio is not None:
        waves = (audio[edges[i] * SAMPLES_PER_FRAME : edges[i + 1] * SAMPLES_PER_FRAME] for i in pieces)
        audio = np.concatenate([wave * _edge_fades(len(wave)) for wave in waves])
    if mouths is not None:
        mouths = np.concatenate([mouths[edges[i] : edges[i + 1]] for i in pieces])
    return Clip("", audio, mouths, ())


def _edge_fades(samples: int) -> np.ndarray:
    """Returns factors `(samples,)` float32 that rise from 0 to 1 over 80 samples, and fall at the end."""
    place = np.arange(samples)
    return np.clip(np.minimum(place, samples - 1 - place) / 80, 0, 1).astype(np.float32)


def change_speed(clip: Clip, factor: float) -> Clip:
    """Speeds up sound and lips by `factor`; the pitch rises with it."""
    audio, mouths = clip.audio, clip.mouths
    if audio is not None:
        position = np.arange(int(len(audio) / factor)) * factor
        audio = np.interp(position, np.arange(len(audio)), audio).astype(np.float32)
    if mouths is not None:
        count = max(1, round(len(mouths) / factor))
        mouths = mouths[np.minimum(np.round(np.arange(count) * factor).astype(int), len(mouths) - 1)]
    words = clip.words and tuple((word, a / factor, b / factor) for word, a, b in clip.words)
    return Clip(clip.text, audio, mouths, words)


def crop_and_flip(
    mouths: np.ndarray, size: int, generator: np.random.Generator, flip: float, jitter: int | None
) -> np.ndarray:
    """
    Crops `(frames, roi, roi)` to `(frames, size, size)`, and mirrors it with probability `flip`: the same for all
    frames.
    """
    spare = mouths.shape[-1] - size
    centre = spare // 2
    reach = spare if jitter is None else jitter
    low, high = max(0, centre - reach), min(spare, centre + reach)
    top, left = generator.integers(low, high + 1, 2)
    mouths = mouths[:, top : top + size, left : left + size]
    return mouths[:, :, ::-1] if generator.random() < flip else mouths


def change_intensity(mouths: np.ndarray, amount: float, generator: np.random.Generator) -> np.ndarray:
    """Changes contrast and brightness of the whole clip, each by at most `amount` (of 1.0)."""
    contrast, brightness = 1 + amount * generator.uniform(-1, 1), 255 * amount * generator.uniform(-1, 1)
    table = np.clip((np.arange(256) - 128) * contrast + 128 + brightness, 0, 255).astype(np.uint8)
    return table[mouths]


def change_gamma(mouths: np.ndarray, amount: float, generator: np.random.Generator) -> np.ndarray:
    """Bends the grey values of the whole clip by a power between `1 / (1 + amount)` and `1 + amount`."""
    power = (1 + amount) ** generator.uniform(-1, 1)
    table = np.round(255 * (np.arange(256) / 255) ** power).astype(np.uint8)
    return table[mouths]


def blur(mouths: np.ndarray, most: float, generator: np.random.Generator) -> np.ndarray:
    """Blurs the whole clip by a Gaussian of up to `most` pixels, as a small or unsharp face is."""
    sigma = generator.uniform(0, most)
    return gaussian_filter(mouths, (0.0, sigma, sigma), mode="nearest")


def lower_frame_rate(mouths: np.ndarray, rate: float) -> np.ndarray:
    """Shows only `rate` different pictures a second, each until the next one: 25 frames a second all the same."""
    places = np.floor(np.floor(np.arange(len(mouths)) * rate / FRAMES_PER_SECOND) * FRAMES_PER_SECOND / rate + 0.5)
    return mouths[np.minimum(places.astype(int), len(mouths) - 1)]


def mask_stretches(
    values: np.ndarray, most: int, longest: int, fill: float, generator: np.random.Generator
) -> np.ndarray:
    """Sets at most `most` stretches of at most `longest` steps of the first axis to `fill`."""
    values = values.copy()
    for _ in range(int(generator.integers(most + 1))):
        length = int(generator.integers(longest + 1))
        start = int(generator.integers(max(len(values) - length, 0) + 1))
        values[start : start + length] = fill
    return values


def add_noise(
    audio: np.ndarray, voices: list[np.ndarray], recipe: AugmentationRecipe, generator: np.random.Generator
) -> np.ndarray:
    """Adds babble, pieces of speech or a competing talker to `(samples,)`, at a random ratio within the recipe's."""
    kind = generator.random()
    if kind < recipe.talker_probability:
        noise = competing_talker(voices, len(audio), generator)
    elif kind < recipe.talker_probability + recipe.human_probability:
        noise = human_noise(voices, len(audio), generator)
    else:
        talkers = int(generator.integers(recipe.noise_talkers[0], recipe.noise_talkers[1] + 1))
        noise = babble(voices, len(audio), generator, talkers)
    return _mixed(audio, noise, generator.uniform(*recipe.noise_snr))


def _mixed(audio: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Adds noise at a ratio in dB; an excerpt that is silent, as in a pause of its voice, adds nothing."""
    return mix_at_snr(audio, noise, snr) if noise.any() else audio


def augment(
    clip: Clip,
    recipe: AugmentationRecipe,
    crop_size: int,
    voices: list[np.ndarray],
    generator: np.random.Generator,
) -> Clip:
    """
    Applies all augmentations but splicing, in an order that keeps sound and lips in step; `voices` are waves for
    noise.
    """
    if recipe.part_probability and generator.random() < recipe.part_probability:
        clip = cut_part(clip, generator)
    if recipe.silence:
        clip = cut_silence(clip, generator)
    if tuple(recipe.speed) != (1.0, 1.0):
        clip = change_speed(clip, generator.uniform(*recipe.speed))
    audio, mouths = clip.audio, clip.mouths
    if mouths is not None:
        mouths = crop_and_flip(mouths, crop_size, generator, recipe.flip, recipe.crop_jitter)
        mouths = change_looks(mouths, recipe, generator)
        if recipe.video_masks and len(mouths):
            longest = round(recipe.mask_seconds * 25)
            mouths = mask_stretches(mouths, recipe.video_masks, longest, round(float(mouths.mean())), generator)
    if audio is not None and len(audio):
        if tuple(recipe.pitch) != (1.0, 1.0) and generator.random() < PITCHED_SHARE:
            audio = change_pitch(audio, generator.uniform(*recipe.pitch))
        if recipe.room_probability and generator.random() < recipe.room_probability:
            audio = add_room(audio, generator)
        if voices and generator.random() < recipe.noise_probability:
            audio = add_noise(audio, voices, recipe, generator)
        if recipe.background_probability and generator.random() < recipe.background_probability:
            noise = background(len(audio), generator)
            audio = _mixed(audio, noise, generator.uniform(*recipe.background_snr))
        if recipe.codec_probability and generator.random() < recipe.codec_probability:
            audio = random_codec(audio, generator)
        if recipe.audio_masks:
            audio = mask_stretches(audio, recipe.audio_masks, round(recipe.mask_seconds * 16000), 0.0, generator)
    return replace(clip, audio=audio, mouths=mouths)


def change_looks(mouths: np.ndarray, recipe: AugmentationRecipe, generator: np.random.Generator) -> np.ndarray:
    """Changes brightness, contrast, sharpness and frame rate of `(frames, size, size)` crops by a recipe."""
    table = np.arange(256, dtype=np.uint8)  # what each grey value becomes
    if recipe.intensity:
        table = change_intensity(table, recipe.intensity, generator)
    if recipe.gamma:
        table = change_gamma(table, recipe.gamma, generator)
    if recipe.intensity or recipe.gamma:
        mouths = table[mouths]
    if recipe.blur and generator.random() < BLURRED_SHARE:
        mouths = blur(mouths, recipe.blur, generator)
    if recipe.slow_probability and len(mouths) and generator.random() < recipe.slow_probability:
        mouths = lower_frame_rate(mouths, generator.uniform(*recipe.slow_rates))
    return mouths
