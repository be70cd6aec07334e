"""Movements of lips, jaw and tongue for each sound, and how neighbouring sounds blend.

Targets are blended with dominance functions (Cohen and Massaro, "Modeling coarticulation in synthetic visual
speech", 1993): each sound pulls every articulator towards its target with a strength that decays before and after
it. Contacts that a blend would leave open (closed lips of b, m, p; lower lip on the teeth of f, v) are then imposed.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from .voice import Phoneme

# Columns of an articulation track, each about 0 to 1:
#   jaw      lowered jaw                        spread   wide (+1) or narrowed (-1) mouth
#   round    lips pushed forward and rounded    upper    upper lip raised     lower   lower lip pulled down
#   tongue   tip raised behind the upper teeth  advance  tip between the teeth
#   closed   lips pressed together              bite     lower lip against the upper teeth
ARTICULATORS = ("jaw", "spread", "round", "upper", "lower", "tongue", "advance", "closed", "bite")
JAW, SPREAD, ROUND, UPPER, LOWER, TONGUE, ADVANCE, CLOSED, BITE = range(len(ARTICULATORS))
TRACK_RATE = 200  # articulation frames a second, before they are averaged over a video frame


@dataclass(frozen=True)
class Viseme:
    """Targets of one sound, and how strongly it holds them against its neighbours (`hold`)."""

    jaw: float = 0.0
    spread: float = 0.0
    round: float = 0.0
    upper: float = 0.0
    lower: float = 0.0
    tongue: float = 0.0
    advance: float = 0.0
    closed: float = 0.0
    bite: float = 0.0
    hold: float = 1.0

    def targets(self) -> list[float]:
        """Returns the nine targets in the order of `ARTICULATORS`."""
        return [getattr(self, name) for name in ARTICULATORS]


REST = Viseme(hold=0.8)
_OPEN_FRONT = Viseme(jaw=0.88, spread=0.45, upper=0.45, lower=0.3)
_OPEN_BACK = Viseme(jaw=1.0, spread=-0.05, upper=0.25, lower=0.2)
_MID = Viseme(jaw=0.5, upper=0.2, lower=0.2, hold=0.6)
_NEAR_I = Viseme(jaw=0.34, spread=0.5, upper=0.4, lower=0.4, hold=0.8)
_ALVEOLAR = Viseme(jaw=0.2, spread=0.15, upper=0.3, lower=0.35, tongue=0.9, hold=0.7)
_VELAR = Viseme(jaw=0.36, upper=0.25, lower=0.25, tongue=0.2, hold=0.45)
_HISS = Viseme(jaw=0.05, spread=0.4, upper=0.55, lower=0.75, tongue=0.3, hold=1.4)
_HUSH = Viseme(jaw=0.1, spread=-0.45, round=0.7, upper=0.9, lower=0.95, tongue=0.3, hold=1.8)
_BILABIAL = Viseme(jaw=0.05, closed=1.0, hold=1.2)
_LABIODENTAL = Viseme(jaw=0.12, spread=0.1, upper=0.5, bite=1.0, hold=1.5)
_DENTAL = Viseme(jaw=0.28, spread=0.1, upper=0.35, lower=0.35, advance=1.0, hold=1.3)
_RHOTIC = Viseme(jaw=0.24, spread=-0.5, round=0.6, upper=0.3, lower=0.5, tongue=0.2, hold=1.1)
_GLIDE_W = Viseme(jaw=0.12, spread=-1.0, round=1.0, hold=2.2)

VISEMES: dict[str, Viseme] = {
    "": REST,
    **dict.fromkeys("bmp", _BILABIAL),
    **dict.fromkeys(["f", "v", "ʋ"], _LABIODENTAL),
    **dict.fromkeys("θð", _DENTAL),
    **dict.fromkeys(["t", "d", "n", "ɾ"], _ALVEOLAR),
    "l": Viseme(jaw=0.42, spread=0.1, upper=0.3, lower=0.35, tongue=1.0, hold=0.9),
    "ɫ": Viseme(jaw=0.4, upper=0.25, lower=0.3, tongue=0.9, hold=0.8),
    **dict.fromkeys("sz", _HISS),
    **dict.fromkeys("ʃʒ", _HUSH),
    **dict.fromkeys(["k", "ɡ", "g", "ŋ", "x", "q", "ɣ"], _VELAR),
    **dict.fromkeys(["ɹ", "r", "ɻ", "ʁ"], _RHOTIC),
    "w": _GLIDE_W,
    "ʍ": _GLIDE_W,
    "j": Viseme(jaw=0.2, spread=0.75, upper=0.4, lower=0.4, hold=0.9),
    "h": Viseme(jaw=0.4, upper=0.2, lower=0.2, hold=0.2),
    "ʔ": Viseme(jaw=0.3, hold=0.15),
    "i": Viseme(jaw=0.22, spread=0.95, upper=0.6, lower=0.6, hold=1.1),
    **dict.fromkeys("ɪɨᵻ", _NEAR_I),
    "e": Viseme(jaw=0.45, spread=0.65, upper=0.45, lower=0.45),
    "ɛ": Viseme(jaw=0.62, spread=0.5, upper=0.4, lower=0.35),
    "æ": _OPEN_FRONT,
    "a": _OPEN_FRONT,
    "ɐ": Viseme(jaw=0.6, spread=0.1, upper=0.25, lower=0.2, hold=0.7),
    "ɑ": _OPEN_BACK,
    "ʌ": Viseme(jaw=0.66, spread=0.05, upper=0.25, lower=0.2, hold=0.9),
    "ɒ": Viseme(jaw=0.85, spread=-0.35, round=0.45, upper=0.2, lower=0.2),
    "ɔ": Viseme(jaw=0.7, spread=-0.6, round=0.7, upper=0.15, lower=0.25, hold=1.2),
    "o": Viseme(jaw=0.48, spread=-0.7, round=0.85, upper=0.1, lower=0.2, hold=1.3),
    "ʊ": Viseme(jaw=0.3, spread=-0.75, round=0.8, upper=0.1, lower=0.2, hold=1.2),
    "u": Viseme(jaw=0.18, spread=-0.95, round=1.0, lower=0.1, hold=1.7),
    "ʉ": Viseme(jaw=0.18, spread=-0.85, round=0.95, lower=0.15, hold=1.6),
    "y": Viseme(jaw=0.2, spread=-0.8, round=0.9, hold=1.5),
    "ø": Viseme(jaw=0.4, spread=-0.6, round=0.75, hold=1.2),
    "œ": Viseme(jaw=0.6, spread=-0.5, round=0.6, hold=1.1),
    **dict.fromkeys("əɘ", _MID),
    **dict.fromkeys("ɜɚɝ", Viseme(jaw=0.42, spread=-0.3, round=0.4, upper=0.2, lower=0.35)),
}

STOPS = set("bptdkɡg")
_DECAY = 0.045  # seconds in which a sound's dominance decays before and after it
_REACH = 0.4  # seconds beyond which it is taken as zero
CLOSURE_LEAD = 0.065  # espeak-ng marks a stop at its burst; the closure lies before
_MIN_PAUSE = 0.09  # shorter gaps are closures of stops, not rests of the mouth


@dataclass(frozen=True)
class _Segment:
    viseme: Viseme
    start: float
    end: float


def articulate(phonemes: list[Phoneme], duration: float, strength: np.ndarray | None = None) -> np.ndarray:
    """Returns the articulation track of a sequence of sounds.

    Args:
        phonemes: sounds with their times in seconds, in order.
        duration: seconds of track.
        strength: (9,) factors of the articulators, a speaker's own habits; None: ones.

    Returns:
        (samples, 9) float32 at `TRACK_RATE`, columns as in `ARTICULATORS`.
    """
    times = (np.arange(int(np.ceil(duration * TRACK_RATE)) + 1) / TRACK_RATE).astype(np.float64)
    segments = _segments(phonemes, duration)
    pull, weight = np.zeros((len(times), len(ARTICULATORS))), np.full((len(times), 1), 1e-9)
    for segment in segments:
        near = slice(*np.searchsorted(times, (segment.start - _REACH, segment.end + _REACH)))
        dominance = _dominance(segment, times[near])[:, None]  # (n, 1)
        pull[near] += dominance * segment.viseme.targets()
        weight[near] += dominance
    track = gaussian_filter1d(pull / weight, 0.016 * TRACK_RATE, axis=0, mode="nearest")  # (N, 9)
    if strength is not None:
        track = track * strength
    _impose_contacts(track, segments, times)
    return track.astype(np.float32)


def sample_track(track: np.ndarray, frames: int, fps: float) -> np.ndarray:
    """Averages a track over half a frame's time around each frame: (frames, 9) float32."""
    offsets = np.linspace(-0.25, 0.25, 5) / fps
    positions = (np.arange(frames)[:, None] / fps + offsets) * TRACK_RATE  # (T, 5)
    grid = np.arange(len(track))
    columns = [np.interp(positions, grid, track[:, column]).mean(1) for column in range(track.shape[1])]
    return np.stack(columns, 1).astype(np.float32)


def split_symbol(symbol: str) -> list[str]:
    """Splits an IPA phoneme of espeak-ng into its sounds: "aɪ" -> a, ɪ; "tʃ" -> ʃ with the closure of t; "uː" -> u."""
    sounds = [character for character in symbol if character in VISEMES]
    if len(sounds) > 1 and sounds[0] in "td" and sounds[1] in "ʃʒ":
        return sounds[1:]
    return sounds or ["ə"]


def _segments(phonemes: list[Phoneme], duration: float) -> list[_Segment]:
    """Lists the sounds one by one, diphthongs split, with rests before, between and after."""
    segments, reached = [], 0.0
    for phoneme in phonemes:
        if not phoneme.symbol:
            continue
        start, end = min(phoneme.start, duration), min(phoneme.end, duration)
        if start - reached > _MIN_PAUSE:
            segments.append(_Segment(REST, reached, start - 0.06))
        sounds = split_symbol(phoneme.symbol)
        if sounds[0] in STOPS:
            start = max(start - CLOSURE_LEAD, reached - 0.04, 0.0)
            end = min(end, start + CLOSURE_LEAD + 0.03)
        edges = np.linspace(start, end, len(sounds) + 1)
        segments += [_Segment(VISEMES[s], a, b) for s, a, b in zip(sounds, edges[:-1], edges[1:])]
        reached = max(min(phoneme.end, duration), reached)
    segments.append(_Segment(REST, min(reached + 0.05, duration), duration + 1.0))
    return segments


def _dominance(segment: _Segment, times: np.ndarray) -> np.ndarray:
    """Returns (N,) pull of a segment: full in its middle, decaying with the distance from it."""
    core = min(0.25 * (segment.end - segment.start), 0.03)
    outside = np.maximum(np.maximum(segment.start + core - times, times - segment.end + core), 0.0)
    return segment.viseme.hold * np.exp(-((outside / _DECAY) ** 1.2))


def _impose_contacts(track: np.ndarray, segments: list[_Segment], times: np.ndarray) -> None:
    """
    Sets full lip closure and lip-to-teeth contact for at least one video frame, whatever the neighbours' targets.
    """
    track[:, [CLOSED, BITE]] = 0.0
    for segment in segments:
        for column in (CLOSED, BITE):
            if segment.viseme.targets()[column]:
                middle = (segment.start + segment.end) / 2
                half = np.clip((segment.end - segment.start) / 2 - 0.008, 0.026, 0.09)
                outside = np.clip((np.abs(times - middle) - half) / 0.05, 0.0, 1.0)
                contact = 0.5 + 0.5 * np.cos(np.pi * outside)
                track[:, column] = np.maximum(track[:, column], contact)
