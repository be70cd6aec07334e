"""Corpora whose annotations are label maps, PNG files with a class number in each pixel: ADE20K, COCO-Stuff."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lookhear.processing.glee.image_reading_glee import open_picture
from lookhear.training.glee.corpora.reading import (
    CorpusError,
    Problems,
    corpus_folder,
    first_file,
    first_folder,
    read_lines,
)
from lookhear.training.lisa_glee.corpora.schema import AnnotatedPicture, Corpus, LabelRegion, Subject

UNLABELLED = 255  # in COCO-Stuff's maps


@dataclass(frozen=True)
class LabelMaps:
    """
    Reads a corpus's label maps.

    Attributes:
        names: class of each value that can be asked for.
        unknown: values of pixels whose class isn't known.
    """

    names: dict[int, str]
    unknown: tuple[int, ...]

    def read(self, row: tuple[Path, Path]) -> AnnotatedPicture:
        """
        Asks for the classes in a picture.

        Args:
            row: its file, and that of its label map.

        Raises:
            CorpusError: the label map is missing, damaged or not of one channel of 8 bits.
        """
        picture, path = row
        labels = read_label_map(path)
        found = [int(value) for value in np.flatnonzero(np.bincount(labels.ravel(), minlength=256))]
        subjects = [
            Subject("name", self.names[value], LabelRegion(labels, (value,))) for value in found if value in self.names
        ]
        height, width = labels.shape
        image = {"path": str(picture), "bytes": None}
        ignored = LabelRegion(labels, self.unknown)
        return AnnotatedPicture(picture.stem, image, (height, width), tuple(subjects), ignored=ignored)


def read_label_map(path: Path) -> np.ndarray:
    """
    Reads the values of a PNG file.

    Args:
        path: of the file.

    Returns:
        `(height, width)` uint8.

    Raises:
        CorpusError: it is missing, damaged, or its pixels are not numbers from 0 to 255.
    """
    try:
        with open_picture(path) as opened:
            if opened.mode not in ("L", "P"):
                raise CorpusError(f"{path}: its pixels are {opened.mode!r}, not one number from 0 to 255 each")
            return np.array(opened)
    except FileNotFoundError:
        raise CorpusError(f"{path} is missing; copy it into place") from None
    except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: Pillow's, of a PNG with a damaged header
        if isinstance(error, CorpusError):
            raise
        raise CorpusError(f"{path} cannot be read ({error})") from None


def open_ade20k(
    root: str | Path, split: str = "training", problems: Problems | None = None, *, names: str | Path | None = None
) -> Corpus:
    """
    Opens ADE20K's 150 classes (`ADEChallengeData2016`): `images/training/`, `annotations/training/`,
    `objectInfo150.txt`.

    A class of several names is asked for by its first. Pixels of value 0, of other classes, are not known.

    Args:
        root: the folder that holds them.
        split: `training` or `validation`.
        problems: where pictures without label map are reported.
        names: the file `objectInfo150.txt`; None: the one in `root`.

    Raises:
        CorpusError: a file is missing or of another form, or something was reported and `problems` does not skip.
    """
    root = corpus_folder(root, f"images/{split}, annotations/{split} and objectInfo150.txt")
    path = Path(names) if names is not None else first_file(root, ["objectInfo150.txt"])
    found: dict[int, str] = {}
    for line in read_lines(path):
        fields = [field.strip() for field in line.split("\t")]
        if fields[0].isdigit() and len(fields) > 1:  # not the header
            found[int(fields[0])] = re.split(r"[,;]", fields[-1])[0].strip()
    if not found or sorted(found) != list(range(1, len(found) + 1)) or not all(found.values()):
        raise CorpusError(
            f"{path}: expected a table, separated by tabs, with a class's number first and its name last"
        )
    rows = _pairs(root / "images" / split, root / "annotations" / split, problems)
    return Corpus("ade20k", rows, partial(_read, LabelMaps(found, (0,))))


def open_coco_stuff(
    root: str | Path,
    split: str = "train",
    problems: Problems | None = None,
    *,
    images: str | Path | None = None,
    names: str | Path | None = None,
) -> Corpus:
    """
    Opens COCO-Stuff (`stuffthingmaps_trainval2017`): `train2017/*.png`, `labels.txt`, over COCO's `train2017/*.jpg`.

    A value is a class's number in `labels.txt` less one. Classes of two names (`wall-brick`, `furniture-other`) are
    not asked for: where a wall is of brick, "wall" isn't all of it, and no one calls it by both names.

    Args:
        root: the folder that holds `train2017` or `stuffthingmaps_trainval2017/train2017`, and `labels.txt`.
        split: `train` or `val`.
        problems: where label maps without picture are reported.
        images: the folder that holds COCO's `train2017` and `val2017`; None: `root`, or its `images`.
        names: the file `labels.txt`, which COCO-Stuff's repository has; None: the one in `root`.

    Raises:
        CorpusError: a file is missing or of another form, or something was reported and `problems` does not skip.
    """
    root = corpus_folder(root, f"{split}2017 and labels.txt")
    maps = first_folder(root, [f"stuffthingmaps_trainval2017/{split}2017", f"annotations/{split}2017", f"{split}2017"])
    path = Path(names) if names is not None else first_file(root, ["labels.txt"])
    found: dict[int, str] = {}
    for line in read_lines(path):
        number, colon, name = line.partition(":")
        if not colon or not number.strip().isdigit() or not name.strip():
            raise CorpusError(f"{path}: expected lines such as '1: person', not {line[:40]!r}")
        if int(number) > 0 and "-" not in name:  # 0: unlabeled
            found[int(number) - 1] = name.strip()
    if images is None:
        folder = first_folder(root, [f"images/{split}2017", f"{split}2017"])
    else:
        folder = first_folder(corpus_folder(images, f"{split}2017"), [f"{split}2017"])
    return Corpus("coco_stuff", _pairs(folder, maps, problems), partial(_read, LabelMaps(found, (UNLABELLED,))))


def _read(maps: LabelMaps, row: tuple[Path, Path]) -> AnnotatedPicture:
    return maps.read(row)


def _pairs(pictures: Path, maps: Path, problems: Problems | None) -> list[tuple[Path, Path]]:
    """Lists pictures and their label maps, in the order of their names."""
    problems = problems or Problems()
    for folder in (pictures, maps):
        if not folder.is_dir():
            raise CorpusError(f"{folder} is not a folder; unpack the data set there")
    known = {path.stem for path in pictures.glob("*.jpg")}
    labelled = {path.stem for path in maps.glob("*.png")}
    for stem in sorted(labelled - known):
        problems.add(f"{stem}.png", f"its picture {pictures / stem}.jpg is missing")
    for stem in sorted(known - labelled) if maps != pictures else ():
        problems.add(f"{stem}.jpg", f"its label map {maps / stem}.png is missing")
    problems.settle(maps)
    pairs = [(pictures / f"{stem}.jpg", maps / f"{stem}.png") for stem in sorted(known & labelled)]
    if not pairs:
        raise CorpusError(f"{maps}: no PNG file has a picture of its name in {pictures}")
    return pairs
