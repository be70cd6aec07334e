"""Corpora in COCO's JSON: COCO itself, your own pictures, LVIS, Objects365 v2, UVO's frames."""

import gc
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lookhear.processing.glee.prompt_processing_glee import clean_label
from lookhear.training.glee.corpora.large_json import read_list
from lookhear.training.glee.corpora.reading import (
    CorpusError,
    Problems,
    corpus_folder,
    first_file,
    first_folder,
    need_keys,
)
from lookhear.training.glee.corpora.schema import (
    are_shares,
    crowd_flag,
    is_apart,
    make_object,
    make_row,
    readable,
    usable,
    xyxy,
)

FindImage = Callable[[dict], Path]
KEYS = ("images", "annotations", "categories")
USED = ("id", "image_id", "category_id", "bbox", "segmentation", "iscrowd")
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
OBJECTS365_VERSIONS = ("", "images/v1/", "images/v2/", "images/")


def read_coco(
    root: str | Path,
    split: str = "train",
    problems: Problems | None = None,
    *,
    images: str | Path | None = None,
    keep_empty: bool = False,
) -> Iterator[dict]:
    """
    Reads COCO (`annotations/instances_train2017.json`, `train2017/`), or a JSON file in its form and its pictures.

    Args:
        root: the folder that holds `annotations`, or a JSON file.
        split: `train` or `val` of a folder; a year may follow (`train2014`); 2017 is assumed.
        problems: where annotations that cannot be used are reported.
        images: the folder of a JSON file's pictures; None: the file's own.
        keep_empty: whether pictures without objects are rows; else they are reported.

    Raises:
        CorpusError: a file is missing or of another form, or something was reported and `problems` does not skip.
    """
    root = Path(root)
    if root.suffix == ".json":
        path = root
        folder = corpus_folder(images if images is not None else root.parent, "the pictures that the JSON file names")
    else:
        corpus_folder(root, "annotations/instances_train2017.json and train2017")
        names = [split] if split[-1:].isdigit() else [f"{split}2017", split]
        path = first_file(root, [f"annotations/instances_{name}.json" for name in names])
        folder = (
            Path(images) if images else first_folder(root, [f"{at}{name}" for at in ("", "images/") for name in names])
        )
    yield from coco_rows(path, picture_finder(folder), problems, empty="keep" if keep_empty else "report")


def read_lvis(
    root: str | Path, split: str = "train", problems: Problems | None = None, *, images: str | Path | None = None
) -> Iterator[dict]:
    """
    Reads LVIS v1 (`lvis_v1_train.json`) over COCO's pictures (`train2017/`, `val2017/`).

    Args:
        root: the folder of `lvis_v1_{split}.json`.
        split: `train` or `val`.
        problems: where annotations that cannot be used are reported.
        images: the folder that holds `train2017` and `val2017`; None: `root`.
    """
    root = corpus_folder(root, f"lvis_v1_{split}.json")
    path = first_file(root, [f"lvis_v1_{split}.json", f"annotations/lvis_v1_{split}.json"])
    folder = corpus_folder(images if images is not None else root, "train2017 and val2017")

    def find(image: dict) -> Path:
        if "coco_url" in image:  # .../train2017/000000391895.jpg: part of LVIS' validation set is in COCO's train2017
            return folder.joinpath(*image["coco_url"].split("/")[-2:])
        return folder / image["file_name"]

    yield from coco_rows(path, find, problems, empty="omit")


def read_objects365(root: str | Path, split: str = "train", problems: Problems | None = None) -> Iterator[dict]:
    """
    Reads Objects365 v2: `zhiyuan_objv2_{train,val}.json` and the unpacked `patch0` ... `patch50`, in `train/` and
    `val/`.

    The patches may be in `{split}/`, `{split}/images/v1/`, `{split}/images/v2/`, or the same below `images/`.
    """
    root = corpus_folder(root, f"zhiyuan_objv2_{split}.json and {split}/patch0")
    name = f"zhiyuan_objv2_{split}.json"
    path = first_file(root, [name, f"annotations/{name}", f"{split}/{name}"])
    bases = [base for base in (root / split, root / "images" / split, root / "images", root) if base.is_dir()]
    places = [base / version for base in bases for version in OBJECTS365_VERSIONS]
    folders: dict[str, Path] = {}  # patch -> its folder

    def find(image: dict) -> Path:
        patch, name = Path(image["file_name"]).parts[-2:]
        if patch not in folders:
            folders[patch] = next((place for place in places if (place / patch).is_dir()), root / split) / patch
        return folders[patch] / name

    yield from coco_rows(path, find, problems, empty="omit")


def read_uvo(
    root: str | Path, split: str = "train", problems: Problems | None = None, *, images: str | Path | None = None
) -> Iterator[dict]:
    """
    Reads UVO's single frames, without classes: `FrameSet/UVO_frame_{train,val}.json` (or `..._onecate.json`) and its
    frames.

    Args:
        root: the folder of `FrameSet`.
        split: `train` or `val`.
        problems: where annotations that cannot be used are reported.
        images: the folder of `VIDEO/FRAME.png`; None: the first of `uvo_videos_sparse_frames`,
            `uvo_videos_sparse_frames_jpg`, `uvo_videos_frames`. If there is a `.jpg` instead of a `.png`, it is used.
    """
    root = corpus_folder(root, "FrameSet/UVO_frame_train.json and uvo_videos_sparse_frames")
    names = [f"UVO_frame_{split}{end}.json" for end in ("", "_onecate", "_onecategory")]
    path = first_file(root, [f"{at}FrameSet/{name}" for at in ("", "annotations/") for name in names])
    frames = ["uvo_videos_sparse_frames", "uvo_videos_sparse_frames_jpg", "uvo_videos_frames"]
    folder = Path(images) if images is not None else first_folder(root, frames)

    def find(image: dict) -> Path:
        path = folder / image["file_name"]
        return path if path.is_file() else path.with_suffix(".jpg")

    yield from coco_rows(path, find, problems, empty="omit", named=False)


def picture_finder(folder: Path) -> FindImage:
    """
    Returns a function that finds the file of an entry of `images`, as annotation tools write `file_name`.

    That is a path below the folder, its `images` or its `data`, also with backslashes, or a name or number without its
    ending. Of a path of another machine, or a URL, the last part is looked for, if no other entry has the same.

    Args:
        folder: of the pictures.
    """
    taken: set[Path] = set()

    def find(image: dict) -> Path:
        name = image["file_name"]
        if isinstance(name, float) and name.is_integer():
            name = int(name)
        if not isinstance(name, (str, int)) or not str(name).strip():
            raise ValueError(f"file_name {name!r}")
        forward = str(name).replace("\\", "/")
        last = forward.split("?")[0].rstrip("/").rpartition("/")[2]
        places = (folder, folder / "images", folder / "data")
        for wanted in dict.fromkeys((str(name), forward)):
            for place in places:
                if (found := _with_ending(place / wanted)) is not None:
                    return found
        for place in places:
            found = _with_ending(place / last)
            if found is not None and found not in taken:
                taken.add(found)
                return found
        return folder / forward

    return find


def _with_ending(path: Path) -> Path | None:
    """Returns a file, or the only picture of that name where an ending is missing."""
    try:
        if path.is_file():
            return path
        if path.suffix or not path.parent.is_dir():
            return None
        found = [other for end in ENDINGS for other in (path.with_suffix(end), path.with_suffix(end.upper()))]
        found = [other for other in dict.fromkeys(found) if other.is_file()]
        return found[0] if len(found) == 1 else None
    except OSError:  # such as a name that is too long
        return None


def coco_rows(
    path: Path, find_image: FindImage, problems: Problems | None, empty: str = "report", named: bool = True
) -> Iterator[dict]:
    """
    Reads a JSON file in COCO's form.

    Args:
        path: of the file.
        find_image: returns the picture's file for an entry of `images`.
        problems: where annotations that cannot be used are reported.
        empty: whether to `report` pictures without objects, to `keep` them, or to `omit` them silently.
        named: whether objects have their category.
    """
    problems = problems or Problems()
    content = read_coco_json(path)
    categories = category_names(content["categories"], path)
    by_image = _annotations_by_image(content, problems, path)
    seen = set()
    for image in content["images"]:
        need_keys(image, ("id",), f"{path}: images")
        name, size = f"image {image['id']}", (_pixels(image.get("height")), _pixels(image.get("width")))
        annotations = by_image.get(image["id"], [])
        try:
            file = find_image(image)
        except (KeyError, ValueError):
            raise CorpusError(f"{path}: {name} has no usable file_name") from None
        if image["id"] in seen:
            problems.add(name, "its id occurs twice")
        elif not all(side > 0 for side in size):
            problems.add(name, f"its height and width are {image.get('height', 0)} and {image.get('width', 0)}")
        elif not file.is_file():
            problems.add(name, f"its file {file} is missing")
        else:
            objects = usable(coco_object(entry, size, categories, problems, named) for entry in annotations)
            if not annotations and empty == "report":
                problems.add(name, "it has no annotated object")
            elif objects or empty == "keep":
                yield make_row(image["id"], file, size, objects, incomplete=_incomplete(image, categories))
        seen.add(image["id"])
    problems.settle(path)


def read_coco_json(path: Path) -> dict[str, list[dict]]:
    """
    Reads `images`, `annotations` and `categories` of a file in COCO's form; of annotations only the used keys.

    Raises:
        CorpusError: no such file, not JSON, or one of the three is missing, empty or not a list of objects.
    """
    collecting = gc.isenabled()
    gc.disable()  # each collection would visit all dictionaries read so far, which takes longer than reading them
    try:
        content = {name: [_used(element, name, path) for element in read_list(path, name)] for name in KEYS}
    finally:
        if collecting:
            gc.enable()
    missing = [name for name in KEYS if not content[name]]
    if missing:
        raise CorpusError(f"{path}: expected the lists {', '.join(KEYS)}; {', '.join(missing)} is missing or empty")
    return content


def _used(element: object, name: str, path: Path) -> dict:
    """Checks an element of the list `name`, and drops the parts of an annotation that nothing uses."""
    if not isinstance(element, dict):
        raise CorpusError(f"{path}: {name} holds {element!r}, not an object")
    return {key: element[key] for key in USED if key in element} if name == "annotations" else element


def category_names(categories: list[dict], place: Path) -> dict[int, str]:
    """
    Maps category ids to names. Several ids may have one name, as exports of Roboflow have, in whatever way it is
    written (see [`clean_label`]): they have that of the first.

    Raises:
        CorpusError: an entry has no name, or two of one id have different names.
    """
    names: dict[int, str] = {}
    spelt: dict[str, str] = {}
    for entry in categories:
        need_keys(entry, ("id", "name"), f"{place}: categories")
        name = readable(str(entry["name"]))
        name = spelt.setdefault(clean_label(name), name)
        if names.setdefault(entry["id"], name) != name:
            raise CorpusError(
                f"{place}: the categories {names[entry['id']]!r} and {name!r} have one id, {entry['id']}; change it"
            )
    return names


def coco_object(
    entry: dict, size: tuple[int, int], categories: dict[int, str], problems: Problems, named: bool = True
) -> dict | None:
    """Makes an object of an entry of `annotations`; None, reported, if it cannot be used."""
    name = f"annotation {entry['id']}"
    if entry.get("category_id") not in categories:
        problems.add(name, f"its category {entry.get('category_id')!r} is not among the categories")
        return None
    crowd = crowd_flag(name, entry, problems)
    if crowd is None:
        return None
    if entry.get("bbox") is not None and are_shares(entry["bbox"]):
        problems.add(name, f"its bbox {entry['bbox']} is in shares of the picture, not in pixels")
        return None
    found = make_object(
        name,
        size,
        problems,
        box=xyxy(entry["bbox"]) if entry.get("bbox") is not None else None,
        segmentation=entry.get("segmentation"),
        category=categories[entry["category_id"]] if named else None,
        crowd=crowd,
    )
    if found is not None and is_apart(found):
        problems.add(name, "its polygons lie outside of its box")
        return None
    return found


def _annotations_by_image(content: dict, problems: Problems, path: Path) -> dict[int, list[dict]]:
    """Groups annotations by their picture; those with an id twice, or without a picture, are reported."""
    images = {image.get("id") for image in content["images"]}
    seen, by_image = set(), defaultdict(list)
    for entry in content["annotations"]:
        need_keys(entry, ("id", "image_id"), f"{path}: annotations")
        if entry["id"] in seen:
            problems.add(f"annotation {entry['id']}", "its id occurs twice")
        elif entry["image_id"] not in images:
            problems.add(f"annotation {entry['id']}", f"its image {entry['image_id']!r} is not among the images")
        else:
            by_image[entry["image_id"]].append(entry)
        seen.add(entry["id"])
    return by_image


def _pixels(value: Any) -> int:
    """Returns a picture's height or width; 0 for anything but a whole number, which is reported as such."""
    try:
        return int(value) if int(value) == float(value) else 0
    except (TypeError, ValueError, OverflowError):
        return 0


def _incomplete(image: dict, categories: dict[int, str]) -> list[str]:
    """Lists the categories that are not annotated exhaustively (LVIS)."""
    return [categories[index] for index in image.get("not_exhaustive_category_ids", ()) if index in categories]
