"""Talking portraits: an espeak-ng voice and a photo whose lips follow it, for the demo, tests and training."""

from .clip import SynthesizedClip, render_clip, synthesize_clip
from .corpus import grid_sentence, synthesize_corpus, synthesize_recordings
from .portrait import PORTRAITS, Portrait, PortraitError, load_portrait
from .recording import Recording, load_recording
from .voice import VOICES, speak

__all__ = [
    "PORTRAITS",
    "VOICES",
    "Portrait",
    "PortraitError",
    "Recording",
    "SynthesizedClip",
    "grid_sentence",
    "load_portrait",
    "load_recording",
    "render_clip",
    "speak",
    "synthesize_clip",
    "synthesize_corpus",
    "synthesize_recordings",
]
