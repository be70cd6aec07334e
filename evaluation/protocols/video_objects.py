"""DAVIS and YouTube-VOS: objects that are shown by a mask; Ref-YouTube-VOS: objects that a sentence is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lookhear.evaluation.measures.mask_runs import decode_mask
from lookhear.evaluation.measures.region_contour import (
    TrackQuality,
    contour_accuracy,
    mean_rates,
    region_similarity,
    track_quality,
)
from lookhear.evaluation.protocols.layout import LayoutError, find_file, find_folder, need_folder, read_json
from lookhear.evaluation.protocols.run import ProtocolReport, ProtocolRun
from lookhear.evaluation.protocols.stored_results import StoredResults
from lookhear.evaluation.protocols.submission import zip_pictures
from lookhear.evaluation.protocols.videos import open_ones, watch_expressions, watch_objects
from lookhear.processing.glee import open_picture

PICTURES = (".jpg", ".jpeg", ".png")
VOID = 255  # in a PNG with a palette: belongs to no object
YTVOS_SERVER = "YouTube-VOS' evaluation server (youtube-vos.org)"
REFYTVOS_SERVER = "Ref-YouTube-VOS' evaluation server (youtube-vos.org)"
DAVIS_SERVER = "DAVIS' evaluation server (davischallenge.org)"


def run_davis(run: ProtocolRun) -> ProtocolReport:
    """
    Runs DAVIS: `JPEGImages/480p/SEQUENCE/00000.jpg`, `Annotations/480p/SEQUENCE/00000.png`, `ImageSets/2017/val.txt`;
    J&F of objects whose mask is shown in the first frame, a mean over objects.

    Splits: `val` (default) and `train` of 2017, `2016/val` of 2016 (one object a sequence), `test-dev` (only first
    masks are public: the zip goes to the server), `all` takes every sequence of the folder, without a list.
    """
    root, split = need_folder(run.data, "JPEGImages/480p and Annotations/480p"), run.split or "val"
    frames = find_folder(root, ["JPEGImages/480p", "JPEGImages"])
    masks = find_folder(root, ["Annotations/480p", "Annotations"])
    single = split.startswith("2016/")
    sequences = run.some(davis_sequences(root, masks, split))
    stored = run.stored(split)
    for place in open_ones(run, stored, sequences):
        name = sequences[place]
        files, first = frame_files(frames / name), min((masks / name).glob("*.png"), default=None)
        if first is None:
            raise LayoutError(f"{masks / name}: it has no mask of the first frame")
        shown = {0: object_masks(first, single)}
        stored.add(name, {"files": [file.stem for file in files], "objects": _plain(watch_objects(run, files, shown))})
    archive = zip_pictures(run.output / "results.zip", _drawn(stored, sequences, "{video}/{frame}.png"))
    if any(len(list((masks / name).glob("*.png"))) < len(stored[name]["files"]) for name in sequences):
        note = f"only first masks of {split} are public: upload results.zip to {DAVIS_SERVER}"
        return ProtocolReport(run.name, split, {}, len(sequences), "sequences", [archive], note)
    each: dict[str, TrackQuality] = {}
    for name in sequences:
        each |= measure_sequence(name, stored[name], masks / name, single)
    parts = {name: quality.rates() for name, quality in each.items()}
    return ProtocolReport(run.name, split, mean_rates(list(each.values())), len(each), "objects", [archive], "", parts)


def davis_sequences(root: Path, masks: Path, split: str) -> list[str]:
    """Returns the names of a split's sequences."""
    if split == "all":
        return sorted(folder.name for folder in masks.iterdir() if folder.is_dir())
    names = (
        [f"ImageSets/{split}.txt"] if "/" in split else [f"ImageSets/{year}/{split}.txt" for year in ("2017", "480p")]
    )
    try:
        lines = find_file(root, names).read_text(encoding="utf-8").split("\n")
    except LayoutError as error:
        raise LayoutError(f"{error}; or take split 'all'") from None
    words = [line.split()[0] for line in lines if line.strip()]
    # 2016's lists have a line per frame: /JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png
    return list(dict.fromkeys(Path(word).parent.name if word.count("/") > 1 else word for word in words))


def measure_sequence(name: str, answer: Mapping[str, Any], masks: Path, single: bool) -> dict[str, TrackQuality]:
    """Computes J and F of each object of a sequence, by `sequence_object`, from masks that do not overlap."""
    values: dict[str, list[tuple[float, float]]] = {number: [] for number in answer["objects"]}
    for frame, found in _number_maps(answer):
        truth = object_numbers(masks / f"{frame}.png", single)
        for number, pairs in values.items():
            sides = truth == int(number), found == int(number)
            pairs.append((region_similarity(*sides), contour_accuracy(*sides)))
    counted = {number: np.array(pairs)[1:-1] for number, pairs in values.items()}  # not the first and the last frame
    return {f"{name}_{number}": TrackQuality(*pairs.T) for number, pairs in counted.items()}


def run_youtube_vos(run: ProtocolRun) -> ProtocolReport:
    """
    Runs YouTube-VOS: `valid/JPEGImages/`, `valid/Annotations/` (the mask of each object's first frame) and
    `valid/meta.json`; the frames' masks in a zip for the server, which alone can measure them.

    Splits: `valid` (default), `test`; MOSE has the same layout.
    """
    root, split = need_folder(run.data, "valid/JPEGImages and valid/Annotations"), run.split or "valid"
    base = root / split if (root / split).is_dir() else root
    frames, masks = find_folder(base, ["JPEGImages"]), find_folder(base, ["Annotations"])
    names = run.some(sorted(folder.name for folder in masks.iterdir() if folder.is_dir()))
    stored = run.stored(split)
    for place in open_ones(run, stored, names):
        name = names[place]
        files = frame_files(frames / name)
        stored.add(
            name,
            {
                "files": [file.stem for file in files],
                "objects": _plain(watch_objects(run, files, first_masks(files, masks / name))),
            },
        )
    archive = zip_pictures(run.output / "results.zip", _drawn(stored, names, "Annotations/{video}/{frame}.png"))
    note = f"the masks of {split} are not public: upload results.zip to {YTVOS_SERVER}"
    return ProtocolReport(run.name, split, {}, len(names), "videos", [archive], note)


def first_masks(files: Sequence[Path], masks: Path) -> dict[int, dict[int, np.ndarray]]:
    """
    Returns frame -> masks of the objects that appear for the first time, for all annotated frames in their order.
    """
    shown: dict[int, dict[int, np.ndarray]] = {}
    known: set[int] = set()
    for place, file in enumerate(files):
        path = masks / f"{file.stem}.png"
        if path.is_file():
            fresh = {number: mask for number, mask in object_masks(path).items() if number not in known}
            if fresh:
                shown[place] = fresh
                known |= fresh.keys()
    if not shown:
        raise LayoutError(f"{masks}: no mask belongs to a frame of the video")
    return shown


def run_refer_youtube_vos(run: ProtocolRun) -> ProtocolReport:
    """
    Runs Ref-YouTube-VOS: `meta_expressions/valid/meta_expressions.json` over `valid/JPEGImages/`; the masks of each
    sentence in a zip for the server, which alone can measure them. Videos of the test part, which the valid file lists
    as well, are left out.

    Splits: `valid` (default), `test`; or `train`, whose masks are public (`train/Annotations/`): J&F, over sentences.
    """
    root, split = need_folder(run.data, "meta_expressions/valid/meta_expressions.json"), run.split or "valid"
    listed = read_json(find_file(root, [_sentences_file(split)]), ("videos",))["videos"]
    if split == "valid" and (root / _sentences_file("test")).is_file():
        hidden = read_json(root / _sentences_file("test"), ("videos",))["videos"]
        listed = {name: video for name, video in listed.items() if name not in hidden}
    frames = need_folder(run.images, "the videos") if run.images else find_folder(root, [f"{split}/JPEGImages"])
    names = run.some(sorted(listed))
    stored = run.stored(split)
    for place in open_ones(run, stored, names):
        video = listed[names[place]]
        numbers, texts = list(video["expressions"]), [one["exp"] for one in video["expressions"].values()]
        files = [frames / names[place] / f"{frame}.jpg" for frame in video["frames"]]
        found = dict(zip(numbers, watch_expressions(run, files, texts)))
        stored.add(names[place], {"files": list(video["frames"]), "expressions": found})
    archive = zip_pictures(run.output / "results.zip", _drawn_sentences(stored, names, frames))
    masks = root / split / "Annotations"
    if (
        not all("obj_id" in one for name in names for one in listed[name]["expressions"].values())
        or not masks.is_dir()
    ):
        note = f"the masks of {split} are not public: upload results.zip to {REFYTVOS_SERVER}"
        return ProtocolReport(run.name, split, {}, len(names), "videos", [archive], note)
    qualities = [
        quality for name in names for quality in _measured_sentences(stored[name], listed[name], masks / name)
    ]
    return ProtocolReport(run.name, split, mean_rates(qualities), len(qualities), "sentences", [archive])


def _measured_sentences(answer: Mapping[str, Any], video: Mapping[str, Any], masks: Path) -> Iterator[TrackQuality]:
    """Computes J and F of each sentence in the annotated frames; all of them count, as no mask was given."""
    marked = [place for place, frame in enumerate(answer["files"]) if (masks / f"{frame}.png").is_file()]
    truth = {place: object_numbers(masks / f"{answer['files'][place]}.png") for place in marked}
    for number, one in video["expressions"].items():
        wanted, found = int(one["obj_id"]), answer["expressions"][number]
        yield track_quality(
            (truth[place] == wanted for place in marked), (found[place] for place in marked), whole=True
        )


def frame_files(folder: Path) -> list[Path]:
    """Returns a video's frames, by name."""
    if not folder.is_dir():
        raise LayoutError(f"{folder} is missing; unpack the videos there")
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURES)


def object_numbers(path: Path, single: bool = False) -> np.ndarray:
    """Reads `(height, width)` uint8, each pixel's object or 0; with `single` all of them are one object."""
    try:
        with open_picture(path) as picture:
            palette = picture.mode == "P"
            numbers = np.array(picture if palette else picture.convert("L"))
    except OSError as error:
        raise LayoutError(f"{path} cannot be read: {error}") from None
    if palette:
        numbers[numbers == VOID] = 0
    if single or not palette and set(np.unique(numbers)) <= {0, 255}:
        return (numbers > 0).astype(np.uint8)
    return numbers


def object_masks(path: Path, single: bool = False) -> dict[int, np.ndarray]:
    """Returns the masks of all objects of a PNG."""
    numbers = object_numbers(path, single)
    found = {int(number): numbers == number for number in np.unique(numbers) if number}
    if not found:
        raise LayoutError(f"{path} shows no object")
    return found


def _sentences_file(split: str) -> str:
    return f"meta_expressions/{split}/meta_expressions.json"


def _plain(objects: Mapping[int, Sequence]) -> dict[str, list]:
    return {str(number): [list(one) if one else None for one in track] for number, track in objects.items()}


def _number_maps(answer: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """
    Yields (frame's name, each pixel's object); where objects overlap, the one with the highest score has the pixel.
    """
    sizes = [one[1]["size"] for track in answer["objects"].values() for one in track if one]
    for place, frame in enumerate(answer["files"]):
        numbers, best = np.zeros(sizes[0], np.uint8), np.zeros(sizes[0], np.float32)
        for number, track in answer["objects"].items():
            if track[place]:
                score, runs = track[place]
                pixels = decode_mask(runs) & (score > best)
                numbers[pixels], best[pixels] = int(number), score
        yield frame, numbers


def _drawn(stored: StoredResults, names: Sequence[str], form: str) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        for frame, numbers in _number_maps(stored[name]):
            yield form.format(video=name, frame=frame), numbers


def _drawn_sentences(stored: StoredResults, names: Sequence[str], frames: Path) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        answer = stored[name]
        with open_picture(frames / name / f"{answer['files'][0]}.jpg") as picture:
            size = picture.height, picture.width
        for number, masks in answer["expressions"].items():
            for frame, mask in zip(answer["files"], masks):
                pixels = decode_mask(mask) if mask else np.zeros(size, bool)
                yield f"Annotations/{name}/{number}/{frame}.png", pixels
