"""A recorded voice with the times of its phones, which move a portrait's lips as those of a synthetic voice do."""

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .visemes import CLOSURE_LEAD, STOPS, VISEMES, split_symbol
from .voice import SAMPLING_RATE, Phoneme, Speech, Word

# Phones of ARPABET, as CMU's dictionary, pocketsphinx, TIMIT and the Montreal Forced Aligner write them, in IPA.
ARPABET = {
    **{"AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "aʊ", "AX": "ə", "AXR": "ɚ", "AY": "aɪ", "EH": "ɛ"},
    **{"ER": "ɜ", "EY": "eɪ", "IH": "ɪ", "IX": "ɨ", "IY": "i", "OW": "oʊ", "OY": "ɔɪ", "UH": "ʊ", "UW": "u"},
    **{"UX": "ʉ", "B": "b", "CH": "tʃ", "D": "d", "DH": "ð", "DX": "ɾ", "F": "f", "G": "ɡ", "HH": "h", "HV": "h"},
    **{"JH": "dʒ", "K": "k", "L": "l", "M": "m", "N": "n", "NG": "ŋ", "NX": "n", "P": "p", "Q": "ʔ", "R": "ɹ"},
    **{"S": "s", "SH": "ʃ", "T": "t", "TH": "θ", "V": "v", "W": "w", "WH": "ʍ", "Y": "j", "Z": "z", "ZH": "ʒ"},
}
PAUSES = ("", "SIL", "SP", "SPN", "PAU", "H#", "<EPS>", "+SPN+", "+NSN+", "_")
LATE = 0.5  # seconds by which a phone may end after the sound


@dataclass(frozen=True)
class Recording:
    """
    A voice that somebody has recorded.

    Attributes:
        speech: the sound, `(samples,)` float32 at 16 kHz, its phones and its words.
        text: what is said; empty if it is not known.
        name: of the sound's file.
    """

    speech: Speech
    text: str
    name: str


def load_recording(sound: str | os.PathLike, phones: str | os.PathLike, text: str | None = None) -> Recording:
    """
    Reads a recording and the times of its phones.

    Args:
        sound: a file with sound.
        phones: a JSON file: a list of `[phone, start, end]` in seconds, or a mapping with that list as `"phones"`, and
            `"words"` (`{"word", "start", "end"}`) and `"text"` if they are known; a `.jsonl` with such a mapping in
            each line, which names the sound as `"file_name"`; or lines `start end phone`. Phones are ARPABET, with or
            without the digit of stress, or IPA; `SIL` is a pause.
        text: what is said; None: the file's.

    Raises:
        ValueError: one of the files cannot be read, a phone is unknown, or times are not in order.
    """
    from lookhear.processing.avsr import read_audio

    path, name = Path(phones), Path(sound).name
    if not path.is_file():
        raise ValueError(f"phones: {path} is not a file; give the phones of {name} with their times")
    audio = read_audio(os.fspath(sound), SAMPLING_RATE, trim_to_video=False)
    if audio is None or not len(audio):
        raise ValueError(f"sound: {sound} holds no sound; give a recording")
    content = _content(path, name)
    duration = len(audio) / SAMPLING_RATE
    phonemes = [_phoneme(entry, path) for entry in content["phones"]]
    _check_times(phonemes, duration, path)
    words = [Word(str(w["word"]), float(w["start"]), float(w["end"])) for w in content.get("words") or []]
    said = text if text is not None else str(content.get("text") or " ".join(word.word for word in words))
    return Recording(Speech(audio, phonemes, words), said, name)


def _content(path: Path, sound: str) -> dict[str, Any]:
    """Returns a mapping with `"phones"` from a file of any form."""
    written = path.read_text(encoding="utf-8")
    try:
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in written.splitlines() if line.strip()]
            content = next((row for row in rows if Path(str(row.get("file_name"))).name == sound), None)
            if content is None:
                raise ValueError(f"phones: {path} has no line whose file_name is {sound}; add it")
        elif written.lstrip()[:1] in "[{":
            content = json.loads(written)
        else:
            fields = [line.split(maxsplit=2) for line in written.splitlines() if line.strip()]
            content = [[(*field, "")[2], *field[:2]] for field in fields]
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"phones: {path} is not the JSON that is expected ({error}); see `load_recording`") from None
    content = {"phones": content} if isinstance(content, list) else content
    if not isinstance(content, dict) or not isinstance(content.get("phones"), list) or not content["phones"]:
        raise ValueError(f"phones: {path} lists no phones; it must hold [phone, start, end] of each, in seconds")
    return content


def _phoneme(entry: Any, path: Path) -> Phoneme:
    """Returns a phone of a file as the lips are moved by it."""
    try:
        name, start, end = entry
        start, end = float(start), float(end)
    except (TypeError, ValueError):
        raise ValueError(f"phones: {path} has {entry!r}, which is not [phone, start, end] in seconds") from None
    bare = re.sub(r"\d$", "", str(name).strip())
    if bare.upper() in PAUSES:
        return Phoneme("", start, end)
    symbol = ARPABET.get(bare.upper(), bare) if bare.upper() == bare or bare not in VISEMES else bare
    if not set(symbol) & set(VISEMES):
        raise ValueError(f"phones: {path} has {name!r}, which is neither ARPABET nor IPA")
    if split_symbol(symbol)[0] in STOPS:  # an aligner's stop begins with the closure, a voice's with the burst
        start = min(start + CLOSURE_LEAD, end)
    return Phoneme(symbol, start, end)


def _check_times(phonemes: list[Phoneme], duration: float, path: Path) -> None:
    before = 0.0
    for phoneme in phonemes:
        right = math.isfinite(phoneme.start) and math.isfinite(phoneme.end)
        if not right or phoneme.start > phoneme.end or phoneme.start < before - 1e-6:
            raise ValueError(
                f"phones: {path} has times that are not in order at {phoneme.start} to {phoneme.end} s; mend them"
            )
        if phoneme.end > duration + LATE:
            raise ValueError(
                f"phones: {path} goes to {phoneme.end:g} s and the sound to {duration:.2f} s: they don't belong "
                "together; give the phones of this sound"
            )
        before = phoneme.start
    if not any(phoneme.symbol for phoneme in phonemes):
        raise ValueError(f"phones: {path} has nothing but pauses; nothing moves the lips")
