"""ODinW: names are looked for in many small data sets; the thirteen of the published mean, or all that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lookhear.evaluation.measures.average_precision import picture_precision
from lookhear.evaluation.protocols.detection import COCO_LIMIT, coco_references
from lookhear.evaluation.protocols.layout import LayoutError, below, label_names, need_folder, read_json
from lookhear.evaluation.protocols.pictures import ask_pictures
from lookhear.evaluation.protocols.run import ProtocolReport, ProtocolRun
from lookhear.evaluation.protocols.stored_results import StoredRows

FILES = ("annotations_without_background.json", "_annotations.coco.json")
# The thirteen data sets of GLIP (CVPR 2022), whose mean is published; below ODinW's folder as it is unpacked.
ODINW_13 = {
    "AerialMaritimeDrone": "AerialMaritimeDrone/large",
    "Aquarium": "Aquarium/Aquarium Combined.v2-raw-1024.coco",
    "CottontailRabbits": "CottontailRabbits",
    "EgoHands": "EgoHands/generic",
    "NorthAmericaMushrooms": "NorthAmericaMushrooms/North American Mushrooms.v1-416x416.coco",
    "Packages": "Packages/Raw",
    "PascalVOC": "PascalVOC",
    "pistols": "pistols/export",
    "pothole": "pothole",
    "Raccoon": "Raccoon/Raccoon.v2-raw.coco",
    "ShellfishOpenImages": "ShellfishOpenImages/raw",
    "thermalDogsAndPeople": "thermalDogsAndPeople",
    "VehiclesOpenImages": "VehiclesOpenImages/416x416",
}
# A split's name in the data sets that name it otherwise. PascalVOC has no test part; the published configurations
# register its validation part as both, and take a small one of the two data sets that have it.
OTHER_PARTS = {
    "test": {"PascalVOC": "valid"},
    "valid": {"EgoHands": "mini_val", "VehiclesOpenImages": "mini_val", "pistols": "val"},
}


def run_odinw(run: ProtocolRun) -> ProtocolReport:
    """
    Runs ODinW: every folder below `data` with `test/annotations_without_background.json` beside its pictures, or
    `export/test_annotations_without_background.json`; box AP of each data set, and the mean over those that have one.

    Splits: `test` (default), `valid`, …
    """
    root, split = need_folder(run.data, "ODinW's data sets"), run.split or "test"
    sets = dict(run.some(sorted(odinw_sets(root, split).items())))
    if not sets:
        raise LayoutError(f"{root}: no {split}/{FILES[0]} in any folder below; unpack the data sets there")
    each, count = _measure(run, split, sets)
    values = np.array(list(each.values()))
    metrics = {"box_AP": float(np.nanmean(values)), "box_AP_median": float(np.nanmedian(values))}
    note = f"mean over {len(each)} data sets; the published mean over thirteen of them is odinw-13"
    return ProtocolReport(run.name, split, metrics, count, "pictures", [], note, {"box_AP": each})


def run_odinw_13(run: ProtocolRun) -> ProtocolReport:
    """
    Runs the thirteen data sets of ODinW-13, whatever else is in the folder; box AP of each, and the mean over exactly
    these.

    Splits: `test` (default; of PascalVOC `valid`), and `valid`, on which the published configurations test
    (`mini_val` of EgoHands and VehiclesOpenImages).

    Raises:
        LayoutError: data sets are missing, all of which are named.
    """
    root, split = need_folder(run.data, "ODinW's data sets"), run.split or "test"
    if split not in OTHER_PARTS:
        raise LayoutError(f"split {split!r} is unknown; odinw-13 has {', '.join(OTHER_PARTS)}")
    names = run.some(list(ODINW_13))
    sets = {name: file for name in names if (file := odinw_13_file(root, name, split)) is not None}
    if missing := [ODINW_13[name] for name in names if name not in sets]:
        raise LayoutError(
            f"{root}: {len(missing)} of ODinW-13's data sets have no {split}/{FILES[0]}: {', '.join(missing)}; "
            "unpack them there"
        )
    each, count = _measure(run, split, sets)
    metrics = {"box_AP": float(np.mean(list(each.values())))}
    note = "" if len(sets) == len(ODINW_13) else f"the first {len(sets)} of the {len(ODINW_13)} data sets only"
    return ProtocolReport(run.name, split, metrics, count, "pictures", [], note, {"box_AP": each})


def odinw_13_file(root: Path, name: str, split: str) -> Path | None:
    """Returns the annotation file of one of the thirteen data sets; None if it isn't there."""
    part = OTHER_PARTS.get(split, {}).get(name, split)
    folder = root / ODINW_13[name]
    places = [place for end in FILES for place in (folder / part / end, folder / f"{part}_{end.lstrip('_')}")]
    return next((place for place in places if place.is_file()), None)


def odinw_sets(root: Path, split: str) -> dict[str, Path]:
    """Finds all data sets: name -> annotation file; a name is its path below `root` without the split."""
    found: dict[str, Path] = {}
    for end in FILES:
        for path in sorted(root.rglob(f"{split}/{end}")):
            found.setdefault(path.parent.parent.relative_to(root).as_posix(), path)
        for path in sorted(root.rglob(f"{split}_{end.lstrip('_')}")):
            found.setdefault(path.parent.relative_to(root).as_posix(), path)
    return found


def _measure(run: ProtocolRun, split: str, sets: Mapping[str, Path]) -> tuple[dict[str, float], int]:
    """Returns the box AP of each data set, by the path of its annotations, and the number of all pictures."""
    each: dict[str, float] = {}
    count = 0
    for name, path in sets.items():
        content = read_json(path, ("images", "annotations", "categories"))
        names_of = label_names(_categories(content), path)
        stored = run.stored(split, part=f"predictions/{name.replace('/', '_')}", top_k=COCO_LIMIT)
        prompts = {"labels": list(names_of.values())}
        images: Sequence[dict] = content["images"]
        questions = [(str(image["id"]), below(path.parent, image["file_name"]), prompts) for image in images]
        ask_pictures(run, stored, questions, masks=False, what=name, threshold=0.0, top_k=COCO_LIMIT)
        references = coco_references(images, content["annotations"], names_of, masks=False)
        found = StoredRows(stored, [str(image["id"]) for image in images])
        each[name] = picture_precision(references, found, "box").average_precision()
        count += len(images)
    return each, count


def _categories(content: Mapping[str, list[dict]]) -> list[dict]:
    """Returns the categories without the category 0 of Roboflow's files, the unused parent of the others."""
    used = {entry["category_id"] for entry in content["annotations"]}
    return [entry for entry in content["categories"] if entry["id"] in used or entry["id"] != 0]
