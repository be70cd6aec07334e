"""A voice from espeak-ng with the times of its phonemes and words."""

import ctypes
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

SAMPLING_RATE = 16000
MAX_CHARACTERS = 2000
DEFAULT_RATE = 160  # words per minute
DEFAULT_PITCH = 50  # espeak-ng's own scale, 0 to 100

# Two accents of America and three of Britain, with espeak-ng's own variants for other vocal tracts.
VOICES = (
    "en-us",
    "en-gb",
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-us+f2",
    "en-gb+f3",
    "en-us+m3",
    "en-gb-x-rp+m7",
)

_RETRIEVAL_SYNCHRONOUS = 2
_PHONEME_EVENTS_IN_IPA = 0x0001 | 0x0002
_POSITION_CHARACTER = 1
_TEXT_IS_UTF8_WITH_PHONEMES = 0x1 | 0x100
_EVENT_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_PARAMETER_RATE, _PARAMETER_PITCH = 1, 3

_NUMBER_WORDS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}
_PUNCTUATION = ".,;:!?\"')]}…-"
_library_lock = threading.Lock()  # espeak-ng has one voice per process


@dataclass(frozen=True)
class Phoneme:
    """One sound in IPA without stress marks; `""` is a pause. Times in seconds."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True)
class Word:
    """One word of the text as it was written, without punctuation around it. Times in seconds."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """What `speak` returns: audio (samples,) float32 at 16 kHz with its phonemes and words."""

    audio: np.ndarray
    phonemes: list[Phoneme]
    words: list[Word]

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.audio) / SAMPLING_RATE


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):  # espeak_EVENT of speak_lib.h
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def speak(text: str, voice: str = "en-us", rate: int = DEFAULT_RATE, pitch: int = DEFAULT_PITCH) -> Speech:
    """Speaks a text.

    Args:
        text: English text, at most `MAX_CHARACTERS` characters.
        voice: an espeak-ng voice; those in `VOICES` are tested. Any other voice of espeak-ng works, too.
        rate: words per minute, 80 to 400.
        pitch: 0 to 100, 50 is the voice's own.

    Raises:
        ValueError: no text, nothing in it can be spoken, text too long, unknown voice, rate or pitch out of range.
        ImportError: espeakng-loader is not installed.
    """
    tokens = _tokens(text)
    if not 80 <= rate <= 400:
        raise ValueError(f"rate is {rate}; give words per minute from 80 to 400")
    if not 0 <= pitch <= 100:
        raise ValueError(f"pitch is {pitch}; give a number from 0 to 100")
    spoken, ends = _spoken_text(tokens)
    samples, events, sampling_rate = _synthesize(spoken, voice, rate, pitch)
    phonemes = _phonemes(events, len(samples), sampling_rate)
    if not any(phoneme.symbol for phoneme in phonemes):
        raise ValueError(f"nothing in the text {text[:60]!r} can be spoken; give words with letters or digits")
    audio = resample_poly(samples.astype(np.float32) / 32768, 2 * SAMPLING_RATE // 100, 2 * sampling_rate // 100)
    words = _words(tokens, ends, events, sampling_rate, phonemes)
    return Speech(audio.astype(np.float32), phonemes, words)


def _tokens(text: str) -> list[str]:
    """Returns the words of a text as written; raises a ValueError if it cannot be spoken."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the text is empty; give at least one word to say")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"the text has {len(text)} characters; at most {MAX_CHARACTERS} are allowed: split it into clips"
        )
    tokens = [token for token in text.replace("\0", " ").split() if re.search(r"\w", token)]
    if not tokens:
        raise ValueError(f"nothing in the text {text[:60]!r} can be spoken; give words with letters or digits")
    return tokens


def _spoken_text(tokens: list[str]) -> tuple[str, list[int]]:
    """Returns the text for espeak-ng and the character at which each token ends.

    A lone "a" before a digit word is the letter's name, as in GRID's "bin blue at a two now". "[[" and "]]", which
    mark phonemes for espeak-ng, are removed from a user's text.
    """
    pieces, ends, position = [], [], 0
    for token, following in zip(tokens, tokens[1:] + [""]):
        piece = token.replace("[[", "").replace("]]", "")
        if token.lower() == "a" and following.lower().strip(".,!?") in _NUMBER_WORDS:
            piece = "[['eI]]"
        ends.append(position + len(piece.rstrip(_PUNCTUATION)))
        pieces.append(piece)
        position += len(piece) + 1
    return " ".join(pieces), ends


class _Library(ctypes.CDLL):
    """A library that was opened here, and its handle if the system can close it again."""

    opened: int | None = None


def _open_library(path: str) -> _Library:
    """
    Opens the library at a path; on POSIX by the system's own function, whose handle is needed to close the library.
    """
    if os.name != "posix":
        return _Library(path)
    system = ctypes.CDLL(None)  # this process, with the functions of the dynamic linker
    system.dlopen.restype, system.dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    handle = system.dlopen(os.fsencode(path), os.RTLD_NOW | os.RTLD_LOCAL)
    if not handle:
        raise OSError(f"espeak-ng could not be loaded from {path}: reinstall lookhear[demo]")
    library = _Library(path, handle=handle)
    library.opened = handle
    return library


def _load_library() -> tuple[_Library, Path, int]:
    """Returns a freshly loaded and initialised espeak-ng, the folder of its data, and its sampling rate."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError("the voice needs espeakng-loader: pip install lookhear[demo]") from error
    library = _open_library(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path()
    sampling_rate = library.espeak_Initialize(_RETRIEVAL_SYNCHRONOUS, 200, os.fsencode(data), _PHONEME_EVENTS_IN_IPA)
    if sampling_rate <= 0:
        raise OSError("espeak-ng could not start from the data of espeakng-loader: reinstall lookhear[demo]")
    return library, Path(data), sampling_rate


def _unload(library: _Library) -> None:
    """
    Drops espeak-ng's static state, which none of its functions resets: the next clip must not depend on this one.
    """
    if library.opened is not None:
        system = ctypes.CDLL(None)
        system.dlclose.argtypes = (ctypes.c_void_p,)
        system.dlclose(library.opened)


def _synthesize(text: str, voice: str, rate: int, pitch: int) -> tuple[np.ndarray, list[tuple], int]:
    """Samples (n,) int16, events (type, text position, sample, IPA symbol) and espeak-ng's sampling rate."""
    blocks: list[np.ndarray] = []
    events: list[tuple] = []

    def receive(wave, count, event) -> int:
        if wave and count > 0:
            blocks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while event[index].type != _EVENT_END:
            item = event[index]
            symbol = item.id.string.decode("utf-8", "ignore") if item.type == _EVENT_PHONEME else ""
            events.append((item.type, item.text_position - 1, item.sample, symbol))
            index += 1
        return 0

    callback = _Callback(receive)
    data = text.encode("utf-8")
    with _library_lock:
        library, folder, sampling_rate = _load_library()
        try:
            library.espeak_ng_SetRandSeed(ctypes.c_long(1))
            if not _choose_voice(library, folder, voice):
                raise ValueError(f"espeak-ng has no voice {voice!r}; tested voices: {', '.join(VOICES)}")
            library.espeak_SetParameter(_PARAMETER_RATE, int(rate), 0)
            library.espeak_SetParameter(_PARAMETER_PITCH, int(pitch), 0)
            library.espeak_SetSynthCallback(callback)
            library.espeak_Synth(
                data, len(data) + 1, 0, _POSITION_CHARACTER, 0, _TEXT_IS_UTF8_WITH_PHONEMES, None, None
            )
            library.espeak_Synchronize()
        finally:
            library.espeak_Terminate()
            _unload(library)
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
    return samples, events, sampling_rate


def _choose_voice(library: ctypes.CDLL, folder: Path, voice: str) -> bool:
    """Whether espeak-ng has this voice; it is then set.

    espeak-ng lists its British voice as en-gb, but opens it by the name of its file only: en. It would silently ignore
    a variant after "+" that does not exist.
    """
    base, plus, variant = voice.partition("+")
    if plus and variant not in {path.name for path in (folder / "voices" / "!v").iterdir()}:
        return False
    name = ("en" if base.lower() == "en-gb" else base) + plus + variant
    return bool(base) and library.espeak_SetVoiceByName(name.encode("utf-8")) == 0


def _phonemes(events: list[tuple], samples: int, sampling_rate: int) -> list[Phoneme]:
    """Turns phoneme events into phonemes, each of which ends where the next one starts."""
    marks = [(sample, symbol) for kind, _, sample, symbol in events if kind == _EVENT_PHONEME]
    ends = [sample for sample, _ in marks[1:]] + [samples]
    return [
        Phoneme(re.sub(r"[ˈˌ_\s]", "", symbol).lstrip(":"), start / sampling_rate, end / sampling_rate)
        for (start, symbol), end in zip(marks, ends)
    ]


def _words(
    tokens: list[str], ends: list[int], events: list[tuple], sampling_rate: int, phonemes: list[Phoneme]
) -> list[Word]:
    """
    Returns the times of the written words: from a word's first event to the next word's, or to the pause before it.
    """
    begin: dict[int, float] = {}
    for kind, position, sample, _ in events:
        if kind == _EVENT_WORD:
            token = int(np.searchsorted(ends, position, side="right"))  # the mark may lie in the space before
            begin.setdefault(min(token, len(tokens) - 1), sample / sampling_rate)
    pauses = [phoneme for phoneme in phonemes if not phoneme.symbol]
    speech_end = max(phoneme.end for phoneme in phonemes if phoneme.symbol)
    begin.setdefault(0, 0.0)
    marked = sorted(begin)
    words = []
    for first, after in zip(marked, marked[1:] + [len(tokens)]):
        start, end = begin[first], begin.get(after, speech_end)
        end = min([pause.start for pause in pauses if start < pause.start < end], default=end)
        words += _share(tokens[first:after], start, max(end, start))
    return words


def _share(tokens: list[str], start: float, end: float) -> list[Word]:
    """Divides the time of words that espeak-ng joins into one event ("of the") by their letters."""
    edges = np.cumsum([0] + [len(token) for token in tokens]) / sum(len(token) for token in tokens)
    times = start + edges * (end - start)
    return [
        Word(re.sub(r"^\W+|\W+$", "", token), round(float(a), 3), round(float(b), 3))
        for token, a, b in zip(tokens, times[:-1], times[1:])
    ]
