"""TAO and BURST: hundreds of names, of which a video is only partly marked, are looked for and followed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lookhear.evaluation.measures.hota import count_labels, count_videos, label_means
from lookhear.evaluation.measures.teta import teta
from lookhear.evaluation.measures.track_frames import TrackVideo, read_videos
from lookhear.evaluation.protocols.layout import (
    LayoutError,
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
from lookhear.evaluation.protocols.run import ProtocolReport, ProtocolRun
from lookhear.evaluation.protocols.stored_results import StoredResults
from lookhear.evaluation.protocols.submission import write_json, write_json_list
from lookhear.evaluation.protocols.videos import open_ones, watch_labels

TRACK_LIMIT = 300  # results per frame
# Classes of TAO for objects that are hard to distinguish; BURST's evaluation leaves them out.
DISTRACTORS = frozenset(
    (
        20,
        63,
        108,
        180,
        188,
        204,
        212,
        247,
        303,
        403,
        407,
        415,
        490,
        504,
        507,
        513,
        529,
        567,
        569,
        588,
        672,
        691,
        702,
        708,
    )
    + (711, 720, 736, 737, 798, 813, 815, 827, 831, 851, 877, 883, 912, 971, 976, 1130, 1133, 1134, 1169, 1184, 1220)
)


def run_tao(run: ProtocolRun) -> ProtocolReport:
    """
    Runs TAO: `annotations/validation.json` and the frames that it names below `frames/`; TETA of boxes over the
    annotated frames (one per second), which alone are looked at, and the results file.

    Splits: `validation` (default), `train`; `test_without_annotations` has no public annotations.
    """
    root, split = need_folder(run.data, "annotations/validation.json and frames"), run.split or "validation"
    path = find_file(root, [f"annotations/{split}.json", f"{split}.json"])
    folder = need_folder(run.images, "the frames") if run.images else find_folder(root, ["frames", "images"])
    content = read_json(path, ("videos", "images", "categories"))
    names = label_names(content["categories"], path)
    videos, frames = run.some(content["videos"]), by_key(content["images"], "video_id")
    of_video = {
        video["id"]: sorted(frames.get(video["id"], ()), key=lambda image: image["frame_index"]) for video in videos
    }
    stored = run.stored(split, tracking=run.tracking)
    keys = [str(video["id"]) for video in videos]
    for place in open_ones(run, stored, keys):
        files = [below(folder, image["file_name"]) for image in of_video[videos[place]["id"]]]
        stored.add(keys[place], watch_labels(run, files, list(names.values()), masks=False, top_k=TRACK_LIMIT))
    file = write_json_list(run.output / f"tao_{split}_results.json", _tao_entries(stored, videos, of_video, names))
    if not content.get("annotations"):
        note = f"{path.name} has no annotations: upload {file.name} to TAO's challenge server"
        return ProtocolReport(run.name, split, {}, len(videos), "videos", [file], note)
    merged = {other["id"]: entry["id"] for entry in content["categories"] for other in entry.get("merged", ())}
    of_image = by_key(content["annotations"], "image_id")

    def truth(video: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for image in of_video[video["id"]]:
            entries = of_image.get(image["id"], ())
            yield {
                "video": str(video["id"]),
                "ids": [entry["track_id"] for entry in entries],
                "boxes": [corners(entry["bbox"]) for entry in entries],
                "labels": [names[merged.get(entry["category_id"], entry["category_id"])] for entry in entries],
            }

    merged_names = {names[old]: names[new] for old, new in merged.items() if old in names}
    rates, each = teta(_videos(videos, keys, stored, truth, "box", merged_names))
    parts = {label: rates["TETA"] for label, rates in each.items()}
    return ProtocolReport(run.name, split, rates, len(videos), "videos", [file], "", {"TETA": parts})


def run_burst(run: ProtocolRun) -> ProtocolReport:
    """
    Runs BURST: `annotations/val/all_classes.json` and `frames/val/DATASET/SEQUENCE/`; HOTA of masks (class-guided),
    means over all, common and uncommon classes, and OWTA whatever the class (open world), over the annotated frames,
    which alone are looked at.

    Splits: `val` (default), `test`; both are public. The common classes are those of `common_classes.json` beside the
    file.
    """
    root, split = need_folder(run.data, "annotations/val/all_classes.json and frames/val"), run.split or "val"
    path = find_file(root, [f"annotations/{split}/all_classes.json", f"{split}/all_classes.json"])
    places = [f"frames/{split}", f"images/{split}", "frames", "images"]
    folder = need_folder(run.images, "the frames") if run.images else find_folder(root, places)
    content = read_json(path, ("sequences", "categories"))
    names = label_names(content["categories"], path)
    videos = run.some(content["sequences"])
    stored = run.stored(split, tracking=run.tracking)
    keys = [f"{video['dataset']}/{video['seq_name']}" for video in videos]
    for place in open_ones(run, stored, keys):
        base = _sequence_folder(folder, split, keys[place])
        files = [base / name for name in videos[place]["annotated_image_paths"]]
        stored.add(keys[place], watch_labels(run, files, list(names.values()), top_k=TRACK_LIMIT))
    file = write_burst_results(run.output / f"burst_{split}_results.json", content, videos, keys, stored, names)

    def truth(video: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        size = [int(video["height"]), int(video["width"])]
        for frame in video["segmentations"]:
            yield {
                "video": f"{video['dataset']}/{video['seq_name']}",
                "ids": [int(number) for number in frame],
                "masks": [{"size": size, "counts": entry["rle"]} for entry in frame.values()],
                "labels": [names[video["track_category_ids"][number]] for number in frame],
                "absent": [names[number] for number in video["neg_category_ids"] if number in names],
                "not_exhaustive": [
                    names[number] for number in video["not_exhaustive_category_ids"] if number in names
                ],
            }

    counts = count_labels(_videos(videos, keys, stored, truth, "mask"))
    ids = {name: number for number, name in names.items()}
    counts = {label: one for label, one in counts.items() if ids[label] not in DISTRACTORS}
    common = _common_classes(path.with_name("common_classes.json"), names)
    groups = {"all": list(counts)}
    if common is not None:
        groups["common"] = [label for label in counts if label in common]
        groups["uncommon"] = [label for label in counts if label not in common]
    metrics: dict[str, float] = {}
    for group, labels in groups.items():
        if labels:
            rates = label_means([counts[label] for label in labels])
            metrics |= {f"{name}_{group}": rates[name] for name in ("HOTA", "DetA", "AssA")}
    total, _ = count_videos(_videos(videos, keys, stored, truth, "mask"))
    metrics |= {name: total.rates()[name] for name in ("OWTA", "DetRe", "AssA")}
    parts = {"HOTA": {label: one.rates()["HOTA"] for label, one in counts.items()}}
    return ProtocolReport(run.name, split, metrics, len(videos), "videos", [file], "", parts)


def write_burst_results(
    path: Path,
    content: dict,
    videos: Sequence[dict],
    keys: Sequence[str],
    stored: StoredResults,
    names: Mapping[int, str],
) -> Path:
    """Returns the annotation file's form with what was found in place of the truth."""
    numbers, sequences = {name: number for number, name in names.items()}, []
    for video, tracks in zip(videos, stored.values(list(keys))):
        frames: list[dict] = [{} for _ in video["annotated_image_paths"]]
        for track in tracks:
            for frame, mask in zip(track["frames"], track["masks"]):
                frames[frame][str(track["id"])] = {"rle": mask["counts"], "is_gt": False, "score": track["score"]}
        labels = {str(track["id"]): numbers[track["label"]] for track in tracks}
        sequences.append({**video, "track_category_ids": labels, "segmentations": frames})
    return write_json(path, {**content, "sequences": sequences})


def _videos(
    videos: Sequence[dict],
    keys: Sequence[str],
    stored: StoredResults,
    truth: Any,
    kind: str,
    renamed: Mapping | None = None,
) -> Iterator[TrackVideo]:
    """Yields truth and stored tracks, video by video, for the metrics."""
    for video, tracks in zip(videos, stored.values(list(keys))):
        references = list(truth(video))
        predictions: list[dict] = [{"ids": [], "boxes": [], "masks": [], "labels": []} for _ in references]
        for track in tracks:
            label = (renamed or {}).get(track["label"], track["label"])
            for place, frame in enumerate(track["frames"]):
                row = predictions[frame]
                row["ids"].append(track["id"])
                row["boxes"].append(track["boxes"][place])
                row["labels"].append(label)
                if track["masks"]:
                    row["masks"].append(track["masks"][place])
        yield from read_videos(references, predictions, kind)


def _tao_entries(
    stored: StoredResults, videos: Sequence[dict], of_video: Mapping, names: Mapping[int, str]
) -> Iterator[dict]:
    numbers = {name: number for number, name in names.items()}
    before = 0  # ids are of one count over all videos
    for video, tracks in zip(videos, stored.values([str(video["id"]) for video in videos])):
        images = of_video[video["id"]]
        for track in tracks:
            for frame, box in zip(track["frames"], track["boxes"]):
                entry = {"image_id": images[frame]["id"], "video_id": video["id"], "track_id": before + track["id"]}
                entry |= {"category_id": numbers[track["label"]], "bbox": xywh(box), "score": track["score"]}
                yield entry
        before += max((track["id"] for track in tracks), default=0)


def _sequence_folder(folder: Path, split: str, name: str) -> Path:
    places = [folder / name, folder / split / name]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise LayoutError(f"{places[0]} is missing; unpack TAO's frames there")
    return found


def _common_classes(path: Path, names: Mapping[int, str]) -> set[str] | None:
    if not path.is_file():
        return None
    sequences = read_json(path, ("sequences",))["sequences"]
    return {names[number] for video in sequences for number in video["track_category_ids"].values()}
