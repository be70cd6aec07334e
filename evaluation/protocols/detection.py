"""COCO, LVIS and UVO's frames: names, or everything, are looked for in pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lookhear.evaluation.measures.average_precision import (
    PrecisionTable,
    class_agnostic_precision,
    federated_precision,
    picture_precision,
)
from lookhear.evaluation.measures.mask_runs import to_runs, to_text
from lookhear.evaluation.protocols.layout import (
    below,
    by_key,
    corners,
    find_file,
    find_folder,
    label_names,
    need_folder,
    read_json,
    xywh,
)
from lookhear.evaluation.protocols.pictures import ask_pictures
from lookhear.evaluation.protocols.run import ProtocolReport, ProtocolRun
from lookhear.evaluation.protocols.stored_results import StoredResults, StoredRows
from lookhear.evaluation.protocols.submission import write_json_list

KINDS = ("box", "mask")
COCO_LIMIT, LVIS_LIMIT = 100, 300  # results per picture
FREQUENCIES = {"rare": "r", "common": "c", "frequent": "f"}


def run_coco(run: ProtocolRun) -> ProtocolReport:
    """
    Runs COCO: `annotations/instances_val2017.json` and `val2017/`; box and mask AP.

    Splits: `val2017` (default), `train2017`, … with annotations; `test-dev2017`
    (`annotations/image_info_test-dev2017.json`, pictures in `test2017/`) and `test2017` without, whose results file
    goes to the server.
    """
    root, split = need_folder(run.data, "annotations/instances_val2017.json and val2017"), run.split or "val2017"
    names = [f"annotations/{kind}_{split}.json" for kind in ("instances", "image_info")]
    path = find_file(root, names)
    folder = _pictures(
        run, [split, f"images/{split}", split.replace("-dev", ""), f"images/{split.replace('-dev', '')}"]
    )
    content = read_json(path, ("images", "categories"))
    names_of = label_names(content["categories"], path)
    images = run.some(content["images"])
    stored = run.stored(split, top_k=COCO_LIMIT)
    prompts = {"labels": list(names_of.values())}
    questions = [(str(image["id"]), below(folder, image["file_name"]), prompts) for image in images]
    ask_pictures(run, stored, questions, threshold=0.0, top_k=COCO_LIMIT)
    files = write_coco_results(run.output, f"detections_{split}", stored, images, names_of)
    if "annotations" not in content:
        note = f"{split} has no public annotations: upload each results file in a zip to COCO's evaluation server"
        return ProtocolReport(run.name, split, {}, len(images), "pictures", files, note)
    references = coco_references(images, content["annotations"], names_of)
    tables = {kind: picture_precision(references, _rows(stored, images), kind) for kind in KINDS}
    metrics = {f"{kind}_{name}": value for kind, table in tables.items() for name, value in figures(table).items()}
    parts = {f"{kind}_AP": table.by_label() for kind, table in tables.items()}
    return ProtocolReport(run.name, split, metrics, len(images), "pictures", files, "", parts)


def run_lvis(run: ProtocolRun) -> ProtocolReport:
    """
    Runs LVIS v1: `lvis_v1_val.json` over COCO's `train2017/` and `val2017/`; mask and box AP, also by label frequency.

    Splits: `val` (default), `minival` (`lvis_v1_minival.json` or `lvis_v1_minival_inserted_image_name.json`).
    """
    root, split = need_folder(run.data, "lvis_v1_val.json"), run.split or "val"
    ends = ("", "_inserted_image_name")
    path = find_file(root, [f"{at}lvis_v1_{split}{end}.json" for at in ("", "annotations/") for end in ends])
    folder = need_folder(run.images or root, "COCO's train2017 and val2017")
    content = read_json(path, ("images", "annotations", "categories"))
    names_of = label_names(content["categories"], path)
    images = run.some(content["images"])
    stored = run.stored(split, top_k=LVIS_LIMIT)
    prompts = {"labels": list(names_of.values())}
    ask_pictures(
        run,
        stored,
        [(str(image["id"]), _lvis_picture(folder, image), prompts) for image in images],
        threshold=0.0,
        top_k=LVIS_LIMIT,
    )
    files = write_coco_results(run.output, f"detections_lvis_{split}", stored, images, names_of)
    references = coco_references(images, content["annotations"], names_of)
    for row, image in zip(references, images):
        row["absent"] = [names_of[number] for number in image["neg_category_ids"]]
        row["not_exhaustive"] = [names_of[number] for number in image["not_exhaustive_category_ids"]]
    frequency = {names_of[entry["id"]]: entry.get("frequency") for entry in content["categories"]}
    metrics: dict[str, float] = {}
    for kind in KINDS:
        table = federated_precision(references, _rows(stored, images), kind, LVIS_LIMIT)
        metrics |= {f"{kind}_{name}": value for name, value in figures(table).items() if "AR" not in name}
        for name, letter in FREQUENCIES.items():
            labels = [label for label, value in frequency.items() if value == letter]
            metrics[f"{kind}_AP_{name}"] = table.average_precision(labels=labels)
    return ProtocolReport(run.name, split, metrics, len(images), "pictures", files)


def run_uvo(run: ProtocolRun) -> ProtocolReport:
    """
    Runs UVO's single frames: `FrameSet/UVO_frame_val.json` and `uvo_videos_sparse_frames/`; AR and AP of masks and
    boxes whatever they are called, found by asking for "object".
    """
    root, split = need_folder(run.data, "FrameSet/UVO_frame_val.json"), run.split or "val"
    ends = ("", "_onecate", "_onecategory")
    names = [f"{at}FrameSet/UVO_frame_{split}{end}.json" for at in ("", "annotations/") for end in ends]
    path = find_file(root, names)
    frames = ["uvo_videos_sparse_frames", "uvo_videos_sparse_frames_jpg", "uvo_videos_frames"]
    folder = _pictures(run, frames)
    content = read_json(path, ("images", "annotations"))
    images = run.some(content["images"])
    stored = run.stored(split, top_k=COCO_LIMIT)
    questions = [
        (str(image["id"]), png_or_jpg(below(folder, image["file_name"])), {"labels": ["object"]}) for image in images
    ]
    ask_pictures(run, stored, questions, threshold=0.0, top_k=COCO_LIMIT)
    files = write_coco_results(run.output, f"detections_uvo_{split}", stored, images, {1: "object"})
    references = coco_references(images, content["annotations"], None)
    metrics: dict[str, float] = {}
    for kind in KINDS:
        table = class_agnostic_precision(references, _rows(stored, images), kind)
        metrics |= {f"{kind}_{name}": value for name, value in figures(table).items()}
    return ProtocolReport(run.name, split, metrics, len(images), "pictures", files)


def coco_references(
    images: Sequence[dict], annotations: Sequence[dict], names: Mapping[int, str] | None, masks: bool = True
) -> list[dict[str, Any]]:
    """
    Returns rows of the truth, one per picture.

    Args:
        names: of the categories; None calls everything "object".
        masks: read `segmentation` besides `bbox`; an annotation without one has its box as its mask.
    """
    of_image, rows = by_key(annotations, "image_id"), []
    for image in images:
        row: dict[str, Any] = {"labels": [], "boxes": [], "crowd": [], "areas": []} | ({"masks": []} if masks else {})
        for entry in of_image.get(image["id"], ()):
            row["labels"].append(names[entry["category_id"]] if names else "object")
            row["boxes"].append(corners(entry["bbox"]))
            row["crowd"].append(bool(entry.get("iscrowd", 0)))
            row["areas"].append(float(entry.get("area", entry["bbox"][2] * entry["bbox"][3])))
            if masks:
                x0, y0, x1, y1 = row["boxes"][-1]
                shape = entry.get("segmentation") or [[x0, y0, x1, y0, x1, y1, x0, y1]]
                row["masks"].append(to_text(to_runs(shape, (image["height"], image["width"]))))
        rows.append(row)
    return rows


def write_coco_results(
    output: Path, stem: str, stored: StoredResults, images: Sequence[dict], names: Mapping[int, str]
) -> list[Path]:
    """
    Writes COCO's lists of results one by one: `STEM_bbox_results.json` and `STEM_segm_results.json`.

    They are two files because what reads them takes an object's area from its box where it has one, also to
    distinguish small masks from large ones.
    """
    numbers = {name: number for number, name in names.items()}

    def entries(field: str) -> Iterator[dict[str, Any]]:
        for image, row in zip(images, _rows(stored, images)):
            for place, score in enumerate(row["scores"]):
                shape = xywh(row["boxes"][place]) if field == "bbox" else row["masks"][place]
                entry = {"image_id": image["id"], "category_id": numbers[row["labels"][place]], "score": score}
                yield entry | {field: shape}

    fields = {"bbox": "bbox", "segmentation": "segm"}
    return [write_json_list(output / f"{stem}_{end}_results.json", entries(field)) for field, end in fields.items()]


def figures(table: PrecisionTable) -> dict[str, float]:
    """Returns COCO's figures by their short names."""
    areas = ("small", "medium", "large")
    return {
        "AP": table.average_precision(),
        "AP50": table.average_precision(0.5),
        "AP75": table.average_precision(0.75),
        **{f"AP_{area}": table.average_precision(area=area) for area in areas},
        **{f"AR_{limit}": table.average_recall(limit) for limit in table.limits},
        **{f"AR_{area}": table.average_recall(area=area) for area in areas},
    }


def png_or_jpg(path: Path) -> Path:
    """Returns the picture, or the JPEG that lies in its place."""
    return path if path.is_file() or not path.with_suffix(".jpg").is_file() else path.with_suffix(".jpg")


def _lvis_picture(folder: Path, image: Mapping[str, Any]) -> Path:
    if "coco_url" in image:  # …/train2017/000000391895.jpg: a part of LVIS' validation lies in COCO's train2017
        return below(folder, "/".join(image["coco_url"].split("/")[-2:]))
    return below(folder, image["file_name"])


def _pictures(run: ProtocolRun, names: Sequence[str]) -> Path:
    return need_folder(run.images, "the pictures") if run.images else find_folder(run.data, list(dict.fromkeys(names)))


def _rows(stored: StoredResults, images: Sequence[dict]) -> StoredRows:
    return StoredRows(stored, [str(image["id"]) for image in images])
