"""YouTube-VIS 2019 and 2021, OVIS, LV-VIS and UVO's dense videos: names are looked for and followed through videos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lookhear.evaluation.measures.average_precision import video_precision
from lookhear.evaluation.measures.mask_runs import to_runs, to_text
from lookhear.evaluation.protocols.detection import figures, png_or_jpg
from lookhear.evaluation.protocols.layout import (
    below,
    by_key,
    find_file,
    find_folder,
    label_names,
    need_folder,
    read_json,
)
from lookhear.evaluation.protocols.run import ProtocolReport, ProtocolRun
from lookhear.evaluation.protocols.stored_results import StoredResults, StoredRows
from lookhear.evaluation.protocols.submission import write_json_list, zip_file
from lookhear.evaluation.protocols.videos import open_ones, watch_labels, whole_track

FILES = {  # below the data set's folder, by protocol
    "ytvis19": ("{split}.json", "annotations/instances_{split}_sub.json", "{split}/instances.json"),
    "ytvis21": ("{split}/instances.json", "annotations/{split}.json", "{split}.json"),
    "ovis": ("annotations_{split}.json", "annotations/annotations_{split}.json", "annotations/{split}.json"),
    "lvvis": ("Annotations/{split}_instances.json", "{split}_instances.json", "{split}/{split}_instances.json"),
    "uvo-video": (
        "VideoDenseSet/UVO_video_{split}_dense.json",
        "annotations/VideoDenseSet/UVO_video_{split}_dense.json",
    ),
}
FRAMES = {
    "ytvis19": ("{split}/JPEGImages", "JPEGImages/{split}", "JPEGImages"),
    "ytvis21": ("{split}/JPEGImages", "JPEGImages/{split}", "JPEGImages"),
    "ovis": ("{split}", "Images/{split}", "images/{split}"),
    "lvvis": ("JPEGImages/{split}", "{split}/JPEGImages", "{split}"),
    "uvo-video": ("uvo_videos_dense_frames", "uvo_videos_dense_frames_jpg"),
}
SPLITS = {"ytvis19": "valid", "ytvis21": "valid", "ovis": "valid", "lvvis": "val", "uvo-video": "val"}
SERVERS = {
    "ytvis19": "YouTube-VIS' evaluation server (youtube-vos.org)",
    "ytvis21": "YouTube-VIS' evaluation server (youtube-vos.org)",
    "ovis": "OVIS' evaluation server (songbai.site/ovis)",
}
TRACK_LIMIT = 100  # tracks a video, as the metric counts


def run_video_instances(run: ProtocolRun) -> ProtocolReport:
    """
    Runs a file in YouTube-VIS' form over the frames that it names; AP of tracks of masks where it has annotations, and
    always `results.json` and `results.zip` as the servers want them.

    Splits: `valid` of YouTube-VIS (`valid.json`, `valid/JPEGImages/` of 2019; `valid/instances.json` of 2021) and of
    OVIS (`annotations_valid.json`, `valid/`) has no public annotations; `val` of LV-VIS
    (`Annotations/val_instances.json`, `JPEGImages/val/`) and of UVO (`VideoDenseSet/UVO_video_val_dense.json`,
    `uvo_videos_dense_frames/`) has. UVO's objects have no names: everything is queried and counted as "object".
    """
    root, split = need_folder(run.data, FILES[run.name][0].format(split="SPLIT")), run.split or SPLITS[run.name]
    path = find_file(root, [name.format(split=split) for name in FILES[run.name]])
    folder = (
        need_folder(run.images, "the videos' frames")
        if run.images
        else find_folder(root, [name.format(split=split) for name in FRAMES[run.name]])
    )
    content = read_json(path, ("videos",) if run.name == "uvo-video" else ("videos", "categories"))
    named = run.name != "uvo-video"
    names = label_names(content["categories"], path) if named else {1: "object"}
    videos = run.some(content["videos"])
    stored = run.stored(split, tracking=run.tracking)
    keys = [str(video["id"]) for video in videos]
    for place in open_ones(run, stored, keys):
        files = [png_or_jpg(below(folder, name)) for name in videos[place]["file_names"]]
        stored.add(keys[place], watch_labels(run, files, list(names.values()), top_k=TRACK_LIMIT)[:TRACK_LIMIT])
    results = write_results(run.output / "results.json", stored, videos, names)
    files = [results, zip_file(run.output / "results.zip", results)]
    if not content.get("annotations"):
        server = SERVERS.get(run.name, "the data set's server")
        note = f"{path.name} has no public annotations: upload results.zip to {server} (split {split})"
        return ProtocolReport(run.name, split, {}, len(videos), "videos", files, note)
    references = track_references(videos, content["annotations"], names if named else None)
    lengths = [len(video["file_names"]) for video in videos]
    predictions = StoredRows(stored, keys, lambda place, tracks: track_columns(tracks, lengths[place]))
    table = video_precision(references, predictions)
    parts = {"AP": table.by_label()} if named else {}
    return ProtocolReport(run.name, split, figures(table), len(videos), "videos", files, "", parts)


def track_references(
    videos: Sequence[dict], annotations: Sequence[dict], names: Mapping[int, str] | None
) -> list[dict[str, Any]]:
    """Returns rows of the truth, one per video; without names each label is "object"."""
    of_video, rows = by_key(annotations, "video_id"), []
    for video in videos:
        row: dict[str, Any] = {"labels": [], "masks": [], "crowd": []}
        size = int(video["height"]), int(video["width"])
        for entry in of_video.get(video["id"], ()):
            row["labels"].append(names[entry["category_id"]] if names else "object")
            row["masks"].append([to_text(to_runs(shape, size)) if shape else None for shape in entry["segmentations"]])
            row["crowd"].append(bool(entry.get("iscrowd", 0)))
        rows.append(row)
    return rows


def track_columns(tracks: Sequence[Mapping[str, Any]], length: int) -> dict[str, list]:
    """Converts stored tracks of a video to a row of predictions."""
    return {
        "labels": [track["label"] for track in tracks],
        "scores": [track["score"] for track in tracks],
        "masks": [whole_track(track, length) for track in tracks],
    }


def write_results(path: Path, stored: StoredResults, videos: Sequence[dict], names: Mapping[int, str]) -> Path:
    """Writes YouTube-VIS' list of tracks one by one."""
    numbers = {name: number for number, name in names.items()}

    def entries() -> Iterator[dict[str, Any]]:
        for video, tracks in zip(videos, stored.values([str(video["id"]) for video in videos])):
            for track in tracks:
                entry = {"video_id": video["id"], "category_id": numbers[track["label"]], "score": track["score"]}
                yield entry | {"segmentations": whole_track(track, len(video["file_names"]))}

    return write_json_list(path, entries())
