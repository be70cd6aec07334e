"""Readers of corpora on disk: GRID, LRS2, LRS3, LRW and any folder with a `metadata.jsonl`, as utterances.

Each reader is a generator `read_*(root, split=None) -> Iterator[Utterance]` over one published layout (the exact trees
are in `training/README.md`). Readers look at names and text files only; no media file is opened here. For another tree
they raise a `CorpusError` that says what was expected and how to fix it.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VIDEO_SUFFIXES = (".mpg", ".mp4", ".avi", ".mov", ".mkv", ".webm")


class CorpusError(ValueError):
    """The folder does not have the layout that a reader expects; the message says what to change."""


@dataclass(frozen=True)
class Utterance:
    """
    One spoken sentence (or word) in one media file.

    Attributes:
        id: unique within the corpus and split; for example `s1/bbaf2n`.
        media: the video (or sound) file.
        text: the words spoken, as the corpus spells them.
        speaker: the speaker, or None if the corpus does not say.
        words: `[{"word": str, "start": float, "end": float}, ...]`, seconds from the start of the clip, or None.
        start: start of the clip in the media file, in seconds; None: the file's start.
        end: end of the clip in the media file, in seconds; None: the file's end.
        split: `train`, `validation`, ... or None.
    """

    id: str
    media: Path
    text: str
    speaker: str | None = None
    words: list[dict] | None = None
    start: float | None = None
    end: float | None = None
    split: str | None = None


# ---------------------------------------------------------------------------------------------------------------- GRID

GRID_CODE = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},
    dict(zip("z123456789", "zero one two three four five six seven eight nine".split(), strict=True)),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
GRID_TIME_UNIT = 1 / 25000  # seconds
GRID_SILENCES = ("sil", "sp")


def grid_sentence(code: str) -> str:
    """Returns the sentence of a GRID file name: `grid_sentence("bbaf2n") == "bin blue at f two now"`.

    Raises:
        CorpusError: if `code` is not six letters of GRID's grammar.
    """
    code = code.lower()
    if len(code) != len(GRID_CODE) or any(letter not in slot for letter, slot in zip(code, GRID_CODE, strict=False)):
        raise CorpusError(
            f"'{code}' is not a GRID sentence code (six letters such as bbaf2n); move the file away or rename it"
        )
    return " ".join(slot[letter] for letter, slot in zip(code, GRID_CODE, strict=True))


def read_grid_align(path: Path) -> list[dict]:
    """Returns the words of an `.align` file (`start end word`, in units of 1/25000 s) in seconds, silences dropped."""
    words = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\S+)\s*", line)
        if match is None:
            raise CorpusError(
                f"{path}, line {number}: expected 'start end word' in units of 1/25000 s, found {line!r}"
            )
        if match[3].lower() not in GRID_SILENCES:
            start, end = int(match[1]) * GRID_TIME_UNIT, int(match[2]) * GRID_TIME_UNIT
            words.append({"word": match[3].lower(), "start": round(start, 4), "end": round(end, 4)})
    return words


def grid_split(code: str) -> str:
    """Returns `train` (90 %), `validation` or `test` (5 % each), fixed by the first four words of the sentence.

    GRID has no published split of its own. Its sentences come in groups of four that share their first four words and
    have consecutive digits, so a split must not divide such groups: else the other words give the letter away.
    """
    slot = zlib.crc32(code[:4].lower().encode()) % 20
    return {0: "test", 1: "validation"}.get(slot, "train")


def read_grid(root: str | Path, split: str | None = None) -> Iterator[Utterance]:
    """Reads GRID (Cooke et al. 2006): speaker folders `s1 ... s34` of videos, alignments in `align/` folders.

    Videos may be in `s1/` or any folder below it; alignments in `s1/align/`, `align/s1/`, `alignments/s1/` or beside
    the videos. Text and word times come from the alignment; without one, the text comes from the six-letter file name.
    `split`: None for all, or `train`, `validation`, `test` of `grid_split`.
    """
    root = _folder(root, "GRID")
    _known_split(split, (None, "train", "validation", "test"), "GRID")
    speakers = [root] if _is_grid_speaker(root) else sorted(filter(_is_grid_speaker, root.iterdir()), key=_grid_number)
    videos_seen = 0
    for folder in speakers:
        videos: dict[str, Path] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in VIDEO_SUFFIXES:
                videos.setdefault(path.stem.lower(), path)
        aligns = _grid_aligns(folder)
        videos_seen += len(videos)
        for code, path in sorted(videos.items()):
            part = grid_split(code)
            if split not in (None, part):
                continue
            text, words = grid_sentence(code), None
            if code in aligns:
                words = read_grid_align(aligns[code])
                text = " ".join(word["word"] for word in words) or text
            yield Utterance(f"{folder.name}/{code}", path, text, folder.name, words or None, split=part)
    if not videos_seen:
        raise CorpusError(
            f"{root} is not a GRID folder: expected speaker folders s1, s2, ... with videos such as s1/bbaf2n.mpg"
            " (and s1/align/bbaf2n.align); pass the folder that holds the speaker folders"
        )


def _is_grid_speaker(folder: Path) -> bool:
    return folder.is_dir() and re.fullmatch(r"s\d+", folder.name) is not None


def _grid_number(folder: Path) -> int:
    return int(folder.name[1:])


def _grid_aligns(folder: Path) -> dict[str, Path]:
    """Returns the alignment file of each sentence code in a speaker's folder."""
    places = [folder, folder.parent / "align" / folder.name, folder.parent / "alignments" / folder.name]
    found: dict[str, Path] = {}
    for place in places:
        for path in sorted(place.rglob("*.align")):
            found.setdefault(path.stem.lower(), path)
    return found


# ---------------------------------------------------------------------------------------------------------- LRS2, LRS3

LRS_WORD_HEADER = ["WORD", "START", "END"]  # the fourth column, ASDSCORE, is not used


def read_lrs_text(path: Path) -> tuple[str, list[dict] | None]:
    """Returns text and word times (seconds; None without a word table) of an LRS2 or LRS3 `.txt` file.

    The file starts with `Text:  THE WORDS`; a table under `WORD START END ASDSCORE` holds the word times.
    """
    lines = _read_text(path).splitlines()
    if not lines or not lines[0].startswith("Text:"):
        raise CorpusError(f"{path}: expected 'Text:  ...' on the first line of an LRS transcript")
    text = " ".join(lines[0][len("Text:") :].split())
    words, in_table = [], False
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split()
        if fields[:3] == LRS_WORD_HEADER:
            in_table = True
        elif in_table and fields:
            try:
                words.append({"word": fields[0], "start": float(fields[1]), "end": float(fields[2])})
            except (IndexError, ValueError):
                raise CorpusError(f"{path}, line {number}: expected 'WORD START END SCORE', found {line!r}") from None
    return text, words or None


def read_lrs2(root: str | Path, split: str | None = None) -> Iterator[Utterance]:
    """Reads LRS2-BBC: `mvlrs_v1/{pretrain,main}/ID/NNNNN.{mp4,txt}` and the lists `{pretrain,train,val,test}.txt`.

    The lists are beside or inside `mvlrs_v1`; a line is `ID/NNNNN`, in `test.txt` followed by a second token, which is
    ignored. `split`: one of `pretrain`, `train`, `val`, `test`; None reads all four. `pretrain` clips are yielded
    whole with their word times; `word_window` cuts them when they are loaded for training.
    """
    root = _folder(root, "LRS2")
    _known_split(split, (None, "pretrain", "train", "val", "test"), "LRS2")
    base = root / "mvlrs_v1" if (root / "mvlrs_v1").is_dir() else root
    if not ((base / "main").is_dir() or (base / "pretrain").is_dir()):
        raise CorpusError(
            f"{root} is not an LRS2 folder: expected mvlrs_v1/main/ID/NNNNN.mp4 and mvlrs_v1/pretrain/ID/NNNNN.mp4;"
            " pass the folder that holds mvlrs_v1"
        )
    for part in [split] if split else ["pretrain", "train", "val", "test"]:
        listing = next(
            (place / f"{part}.txt" for place in (root, base, root.parent) if (place / f"{part}.txt").is_file()), None
        )
        if listing is None:
            raise CorpusError(
                f"{root}: the list {part}.txt is missing; download it from the LRS2 page and put it beside mvlrs_v1"
            )
        names = [line.split()[0] for line in _read_text(listing).splitlines() if line.strip()]
        yield from _lrs_utterances(base / ("pretrain" if part == "pretrain" else "main"), names, part)


def read_lrs3(root: str | Path, split: str | None = None) -> Iterator[Utterance]:
    """Reads LRS3-TED: `{pretrain,trainval,test}/ID/NNNNN.{mp4,txt}`.

    `split`: one of `pretrain`, `trainval`, `test`; None reads those that exist. The ID is the talk, so it serves as
    the speaker. `pretrain` clips are yielded whole, as in `read_lrs2`.
    """
    root = _folder(root, "LRS3")
    parts = ("pretrain", "trainval", "test")
    _known_split(split, (None, *parts), "LRS3")
    wanted = [part for part in ([split] if split else parts) if (root / part).is_dir()]
    if not wanted:
        raise CorpusError(
            f"{root} is not an LRS3 folder: expected {split or 'pretrain, trainval, test'}/ID/NNNNN.mp4 "
            "with NNNNN.txt; pass the folder that holds pretrain, trainval and test"
        )
    for part in wanted:
        names = sorted(
            path.relative_to(root / part).with_suffix("").as_posix() for path in (root / part).glob("*/*.txt")
        )
        if not names:
            raise CorpusError(f"{root / part}: no transcripts ID/NNNNN.txt; unpack the text files beside the videos")
        yield from _lrs_utterances(root / part, names, part)


def _lrs_utterances(folder: Path, names: list[str], split: str) -> Iterator[Utterance]:
    for name in names:
        text, words = read_lrs_text(folder / f"{name}.txt")
        yield Utterance(f"{split}/{name}", folder / f"{name}.mp4", text, name.split("/")[0], words, split=split)


# ----------------------------------------------------------------------------------------------------------------- LRW

LRW_CLIP_SECONDS = 29 / 25  # every clip has 29 frames; the word is in the middle


def read_lrw(root: str | Path, split: str | None = None) -> Iterator[Utterance]:
    """Reads LRW: `WORD/{train,val,test}/WORD_NNNNN.mp4` with `WORD_NNNNN.txt` (its line `Duration: 0.53 seconds`).

    The text of a clip is its WORD, which is also its class; the word is in the middle of the 29 frames, which gives
    its times. `root` may be `lipread_mp4` or the folder that holds it. `split`: `train`, `val`, `test` or None for
    all.
    """
    root = _folder(root, "LRW")
    _known_split(split, (None, "train", "val", "test"), "LRW")
    root = root / "lipread_mp4" if (root / "lipread_mp4").is_dir() else root
    parts = [split] if split else ["train", "val", "test"]
    clips = 0
    for word_folder in sorted(path for path in root.iterdir() if path.is_dir()):
        for part in parts:
            for media in sorted((word_folder / part).glob(f"{word_folder.name}_*.mp4")):
                clips += 1
                words = _lrw_words(media.with_suffix(".txt"), word_folder.name)
                yield Utterance(f"{part}/{media.stem}", media, word_folder.name, None, words, split=part)
    if not clips:
        raise CorpusError(
            f"{root} is not an LRW folder: expected WORD/{split or '{train,val,test}'}/WORD_NNNNN.mp4, for example"
            " ABOUT/train/ABOUT_00001.mp4; pass the folder that holds the 500 word folders"
        )


def _lrw_words(path: Path, word: str) -> list[dict] | None:
    if not path.is_file():
        return None
    match = re.search(r"^Duration:\s*([0-9.]+)", _read_text(path), flags=re.MULTILINE)
    if match is None:
        raise CorpusError(f"{path}: expected a line 'Duration: SECONDS seconds'")
    half = min(float(match[1]), LRW_CLIP_SECONDS) / 2
    middle = LRW_CLIP_SECONDS / 2
    return [{"word": word, "start": round(middle - half, 4), "end": round(middle + half, 4)}]


# ------------------------------------------------------------------------------------------ folder with metadata.jsonl


def read_folder(root: str | Path, split: str | None = None, *, allow_outside: bool = False) -> Iterator[Utterance]:
    """Reads a folder with a `metadata.jsonl`, the layout of `datasets`' VideoFolder and AudioFolder.

    Each line is a JSON object: `file_name` (relative to the file) and `text`; optional `words`
    (`[{"word", "start", "end"}]`, seconds), `speaker`, `start`, `end` (seconds, a part of the file), `id`, `split`.
    With `split`, `root/split/metadata.jsonl` is read if there is one, else the lines whose `split` is the wanted one.

    Args:
        root: the folder.
        split: part of the corpus; None: all of it.
        allow_outside: whether a `file_name` may point outside of the folder of its `metadata.jsonl`.

    Raises:
        CorpusError: the file is missing or damaged, or points outside.
    """
    root = _folder(root, "corpus")
    nested = split is not None and (root / split / "metadata.jsonl").is_file()
    folder = root / split if split is not None and nested else root
    path = folder / "metadata.jsonl"
    if not path.is_file():
        below = sorted(child.name for child in root.iterdir() if (child / "metadata.jsonl").is_file())
        hint = (
            f"; choose a split: {', '.join(below)}"
            if below
            else '; write one line {"file_name": ..., "text": ...} per clip'
        )
        raise CorpusError(f"{root} has no metadata.jsonl{hint}")
    seen: set[str] = set()
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        row = _metadata_row(line, f"{path}, line {number}")
        part = split if nested else row.get("split", None)
        if not nested and split is not None and part != split:
            continue
        name = str(row.get("id") or Path(row["file_name"]).with_suffix("").as_posix())
        if name in seen:
            raise CorpusError(f"{path}, line {number}: '{name}' occurs twice; give each line its own 'id'")
        seen.add(name)
        media, speaker, words = folder / row["file_name"], row.get("speaker"), row.get("words") or None
        if not allow_outside and not Path(os.path.normpath(media)).is_relative_to(folder):
            raise CorpusError(
                f"{path}, line {number}: file_name {row['file_name']!r} is outside of {folder}; move the file there, "
                "or pass --allow-outside (allow_outside=True) if you trust the corpus"
            )
        yield Utterance(name, media, row["text"], speaker, words, row.get("start"), row.get("end"), part)
    if not seen:
        raise CorpusError(f"{path} holds no clips" + (f" of split '{split}'" if split else ""))


def _metadata_row(line: str, place: str) -> dict:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{place}: not JSON ({error}); write one JSON object per line") from None
    for key in ("file_name", "text"):
        if not isinstance(row, dict) or not isinstance(row.get(key), str):
            raise CorpusError(f"{place}: '{key}' must be present and be a string")
    for key in ("start", "end"):
        if row.get(key) is not None and not isinstance(row[key], (int, float)):
            raise CorpusError(f"{place}: '{key}' must be a number of seconds")
    for word in row.get("words") or []:
        if not isinstance(word, dict) or not {"word", "start", "end"} <= set(word):
            raise CorpusError(f"{place}: each of 'words' must have 'word', 'start' and 'end' (seconds)")
    return row


# ------------------------------------------------------------------------------------------------------------- helpers

READERS = {"folder": read_folder, "grid": read_grid, "lrs2": read_lrs2, "lrs3": read_lrs3, "lrw": read_lrw}


def _folder(root: str | Path, corpus: str) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise CorpusError(f"{root} is not a folder; pass the folder that holds the {corpus} data")
    return root.resolve()


def _known_split(split: str | None, known: tuple, corpus: str) -> None:
    if split not in known:
        names = ", ".join(name for name in known if name)
        raise CorpusError(f"split '{split}' does not exist in {corpus}; choose one of {names}, or none for all")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise CorpusError(f"{path} is missing; copy it into place, or take its clip out of the corpus") from None
    except UnicodeDecodeError:
        raise CorpusError(f"{path} is not UTF-8 text; convert it") from None
