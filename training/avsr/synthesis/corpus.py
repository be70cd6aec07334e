"""Many synthesized clips as a training set: a folder of videos with `metadata.jsonl`."""

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lookhear.evaluation.whole_files import remove_leftovers, write_text

from .clip import DEFAULT_SIZE, synthesize_clip, write_json
from .portrait import PORTRAITS
from .recording import load_recording
from .voice import VOICES

# GRID's grammar (Cooke et al., "An audio-visual corpus for speech perception and automatic speech recognition", 2006)
COMMANDS = ("bin", "lay", "place", "set")
COLOURS = ("blue", "green", "red", "white")
PREPOSITIONS = ("at", "by", "in", "with")
LETTERS = tuple("abcdefghijklmnopqrstuvxyz")  # no w
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ADVERBS = ("again", "now", "please", "soon")


def grid_sentence(generator: np.random.Generator) -> str:
    """Returns one sentence of GRID's grammar, each of its six words chosen at random: "lay green with z nine soon"."""
    slots = (COMMANDS, COLOURS, PREPOSITIONS, LETTERS, DIGITS, ADVERBS)
    return " ".join(slot[generator.integers(len(slot))] for slot in slots)


@dataclass(frozen=True)
class _Job:
    folder: Path
    index: int
    seed: int
    portraits: tuple
    voices: tuple[str, ...]
    sentence: Callable[[np.random.Generator], str]
    fps: float
    size: tuple[int, int]
    recording: tuple[Path, Path, str] | None = None  # metadata.jsonl, a sound that is said instead, and its speaker


def synthesize_corpus(
    folder: str | os.PathLike,
    clips: int,
    seed: int = 0,
    *,
    portraits: tuple = PORTRAITS,
    voices: tuple[str, ...] = VOICES,
    sentence: Callable[[np.random.Generator], str] = grid_sentence,
    fps: float = 25.0,
    size: tuple[int, int] = DEFAULT_SIZE,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes clips 000000.mp4 and so on, each with a JSON file, and a `metadata.jsonl` of all.

    A clip depends only on the seed and its number, so an interrupted run resumes where it stopped, and more clips can
    be added later. Corpora of different seeds share no clip.

    Args:
        folder: created if missing.
        clips: number of clips, at least 1.
        seed: of everything random.
        portraits: portraits, one of which is chosen at random for each clip; see `synthesize_clip`.
        voices: voices, one of which is chosen at random for each clip.
        sentence: makes a clip's text with a random generator; with several processes a function of a module.
        fps: frames per second.
        size: (width, height) of the frames.
        processes: number of worker processes, each on one core; at least 1.
        progress: called with (clips done, all clips) after each.

    Returns:
        The path of metadata.jsonl; its rows have file_name, speaker (portrait and voice), text, words, voice,
        portrait, seed.

    Raises:
        ValueError: the folder holds clips made with other settings, or clips or processes is not positive.
    """
    folder = Path(folder)
    settings = {"seed": seed, "portraits": [str(p) for p in portraits], "voices": list(voices), "fps": fps,
                "size": list(size), "sentence": sentence.__qualname__}  # fmt: skip
    jobs = [
        _Job(folder, index, seed, tuple(portraits), tuple(voices), sentence, fps, (size[0], size[1]))
        for index in range(clips)
    ]
    return _synthesize_missing(folder, jobs, settings, processes, progress)


def synthesize_recordings(
    recordings: str | os.PathLike,
    folder: str | os.PathLike,
    seed: int = 0,
    *,
    clips: int | None = None,
    portraits: tuple = PORTRAITS,
    fps: float = 25.0,
    size: tuple[int, int] = DEFAULT_SIZE,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Gives faces to recorded voices: as `synthesize_corpus`, but each clip is one of the recordings.

    Args:
        recordings: folder with sound files and a `metadata.jsonl` (`file_name`, `text`, `words`, `phones`), as
            `load_recording` reads it.
        folder: created if missing.
        seed: of everything random: which recording, which portrait, movements of the head.
        clips: number of clips; None: one of each recording. More of them begin anew with the first recording.
        portraits: portraits, one of which is chosen at random for each clip; see `synthesize_clip`.
        fps: frames per second.
        size: (width, height) of the frames.
        processes: number of worker processes, each on one core; at least 1.
        progress: called with (clips done, all clips) after each.

    Returns:
        The path of metadata.jsonl; its rows have file_name, speaker (portrait and voice), text, words, voice,
        portrait, seed.

    Raises:
        ValueError: the recordings' folder has no `metadata.jsonl`, or the folder holds clips made with other settings.
    """
    index = Path(recordings) / "metadata.jsonl"
    if not index.is_file():
        raise ValueError(f"recordings: {recordings} has no metadata.jsonl; give a folder of sounds and their phones")
    rows = [json.loads(line) for line in index.read_text(encoding="utf-8").splitlines() if line.strip()]
    sounds = [
        (index, index.parent / row["file_name"], str(row.get("speaker") or Path(row["file_name"]).name))
        for row in rows
    ]
    order = np.random.default_rng([seed, 1]).permutation(len(sounds))
    folder = Path(folder)
    settings = {"seed": seed, "portraits": [str(p) for p in portraits], "recordings": Path(recordings).name,
                "sounds": len(sounds), "fps": fps, "size": list(size)}  # fmt: skip
    jobs = [
        _Job(folder, number, seed, tuple(portraits), (), grid_sentence, fps, (size[0], size[1]),
             sounds[order[number % len(sounds)]])
        for number in range(len(sounds) if clips is None else clips)
    ]  # fmt: skip
    return _synthesize_missing(folder, jobs, settings, processes, progress)


def _synthesize_missing(
    folder: Path, jobs: list[_Job], settings: dict, processes: int, progress: Callable[[int, int], None] | None
) -> Path:
    """Makes the clips that the folder lacks, and its index; returns the path of the index."""
    if not jobs or processes < 1:
        raise ValueError(f"clips is {len(jobs)} and processes is {processes}; both must be at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, settings)
    missing = [job for job in jobs if not (folder / f"{job.index:06d}.json").exists()]
    done = len(jobs) - len(missing)
    for _ in _run(missing, processes):
        done += 1
        if progress is not None:
            progress(done, len(jobs))
    return _write_index(folder)


def _claim(folder: Path, settings: dict) -> None:
    """Writes the settings into the folder, or compares them with those written there."""
    path = folder / "synthesis.json"
    remove_leftovers(folder)
    if not path.exists():
        write_json(path, settings)
    elif json.loads(path.read_text(encoding="utf-8")) != settings:
        raise ValueError(f"{folder} holds clips made with other settings ({path.name} says which); use another folder")


def _run(jobs: list[_Job], processes: int):
    """Does the jobs here or in worker processes; yields after each one."""
    if processes == 1 or len(jobs) < 2:
        yield from map(_synthesize, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes, initializer=_single_thread) as pool:
        yield from pool.imap_unordered(_synthesize, jobs, chunksize=1)


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _synthesize(job: _Job) -> int:
    """Makes one clip: its text, voice, portrait and seed follow from the corpus's seed and its number."""
    generator = np.random.default_rng([job.seed, job.index])
    recording = text = None
    voice = ""
    if job.recording is not None:
        index, sound, speaker = job.recording
        recording = replace(load_recording(sound, index), name=speaker)
    else:
        text = job.sentence(generator)
        voice = job.voices[generator.integers(len(job.voices))]
    portrait = job.portraits[generator.integers(len(job.portraits))]
    synthesize_clip(
        text,
        job.folder / f"{job.index:06d}.mp4",
        portrait=portrait,
        voice=voice,
        seed=int(generator.integers(2**31)),
        fps=job.fps,
        size=job.size,
        recording=recording,
    )
    return job.index


def _write_index(folder: Path) -> Path:
    """Writes metadata.jsonl from the JSON files of all clips in the folder."""
    rows = []
    for path in sorted(folder.glob("[0-9]*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        fields = {key: record[key] for key in ("text", "words", "voice", "portrait", "seed")}
        speaker = f"{fields['portrait']} {fields['voice']}"
        rows.append(json.dumps({"file_name": f"{path.stem}.mp4", "speaker": speaker, **fields}, ensure_ascii=False))
    index = folder / "metadata.jsonl"
    write_text(index, "\n".join(rows) + "\n")
    return index
