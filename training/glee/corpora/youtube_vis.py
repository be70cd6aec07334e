"""Videos with tracked masks in YouTube-VIS' JSON: YouTube-VIS 2019 and 2021, OVIS, UVO's dense videos."""

import io
import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from lookhear.processing.glee.video_reading_glee import open_video
from lookhear.training.glee.corpora.coco import category_names
from lookhear.training.glee.corpora.reading import (
    CorpusError,
    Problems,
    corpus_folder,
    first_file,
    first_folder,
    need_keys,
    read_json,
)
from lookhear.training.glee.corpora.schema import crowd_flag, make_object, make_row, usable, xyxy

logger = logging.getLogger(__name__)
FILES = (
    "{split}.json",
    "annotations/instances_{split}_sub.json",
    "annotations/instances_{split}.json",
    "annotations/{split}.json",
    "{split}/instances.json",
    "annotations_{split}.json",
    "annotations/annotations_{split}.json",
)
FRAMES = ("{split}/JPEGImages", "Images/{split}", "{split}", "JPEGImages")


def read_youtube_vis(
    root: str | Path, split: str = "train", problems: Problems | None = None, *, images: str | Path | None = None
) -> Iterator[dict]:
    """
    Reads YouTube-VIS 2019 (`train.json`, `train/JPEGImages/VIDEO/00000.jpg`), 2021 (`train/instances.json`) or OVIS
    (`annotations_train.json`, `train/VIDEO/img_0000001.jpg`). A row is a frame, even without objects.

    A JSON file in this form is read, too, such as `lookhear perceive --coco-vis` writes. Where a video's frames are
    not there as pictures, they are those of the video file that it names.

    Args:
        root: the folder of the JSON file and the frames, or a JSON file.
        split: `train`; the others have no public annotations.
        problems: where annotations that cannot be used are reported.
        images: the folder of a JSON file's frames and videos; None: the file's own.
    """
    if Path(root).suffix == ".json":
        folder = corpus_folder(images if images is not None else Path(root).parent, "the frames that the file names")
        yield from video_rows(Path(root), folder, problems)
        return
    root = corpus_folder(root, f"{split}.json and {split}/JPEGImages")
    path = first_file(root, [name.format(split=split) for name in FILES])
    folder = first_folder(root, [name.format(split=split) for name in FRAMES])
    yield from video_rows(path, folder, problems)


def read_uvo_videos(root: str | Path, split: str = "train", problems: Problems | None = None) -> Iterator[dict]:
    """
    Reads UVO's densely annotated videos, without classes: `VideoDenseSet/UVO_video_{train,val}_dense.json` (or
    `..._objectlabel.json`) over `uvo_videos_dense_frames/VIDEO/0.png` (or `uvo_videos_dense_frames_jpg`).
    """
    root = corpus_folder(root, "VideoDenseSet/UVO_video_train_dense.json and uvo_videos_dense_frames")
    names = [f"VideoDenseSet/UVO_video_{split}_dense{end}.json" for end in ("", "_objectlabel")]
    path = first_file(root, [f"{at}{name}" for at in ("", "annotations/") for name in names])
    folder = first_folder(root, ["uvo_videos_dense_frames", "uvo_videos_dense_frames_jpg"])
    yield from video_rows(path, folder, problems, named=False)


def video_rows(path: Path, folder: Path, problems: Problems | None, named: bool = True) -> Iterator[dict]:
    """Reads the frames of all videos of a JSON file in YouTube-VIS' form; without categories if not `named`."""
    problems = problems or Problems()
    content = read_json(path, dict)
    need_keys(content, ("videos", "annotations", "categories"), path)
    if content["annotations"] is None:
        raise CorpusError(f"{path} has no annotations: this split is reserved for the challenge; choose train")
    categories = category_names(content["categories"], path)
    tracks, seen = defaultdict(list), set()
    videos = {video["id"] for video in content["videos"]}
    for entry in content["annotations"]:
        name = f"annotation {entry['id']}"
        if entry["id"] in seen:
            problems.add(name, "its id occurs twice")
        elif entry["video_id"] not in videos:
            problems.add(name, f"its video {entry['video_id']!r} is not among the videos")
        elif entry["category_id"] not in categories:
            problems.add(name, f"its category {entry['category_id']!r} is not among the categories")
        else:
            tracks[entry["video_id"]].append(entry)
        seen.add(entry["id"])
    seen.clear()
    for video in content["videos"]:
        if video["id"] in seen:
            problems.add(f"video {video['id']}", "its id occurs twice")
            continue
        seen.add(video["id"])
        yield from _frames(video, tracks.get(video["id"], []), categories if named else {}, folder, problems)
    problems.settle(path)


def _frames(
    video: dict, tracks: list[dict], categories: dict[int, str], folder: Path, problems: Problems
) -> Iterator[dict]:
    size, length = (int(video["height"]), int(video["width"])), len(video["file_names"])
    whole = []
    for entry in tracks:
        lists = [entry[key] for key in ("segmentations", "bboxes") if entry.get(key) is not None]
        if not lists or any(len(values) != length for values in lists):
            problems.add(
                f"annotation {entry['id']}", f"it has another number of masks or boxes than the {length} frames"
            )
        else:
            whole.append(entry)
    decoded = _decoded(folder, video)
    for index, file_name in enumerate(video["file_names"]):
        name, file = f"video {video['id']}, frame {index}", folder / file_name
        if not file.is_file() and file.with_suffix(".jpg").is_file():
            file = file.with_suffix(".jpg")
        picture: Path | bytes | None = file if file.is_file() else next(decoded, None)
        if picture is None:
            problems.add(name, f"its file {file} is missing")
            continue
        objects = usable(_object(entry, index, size, categories, problems) for entry in whole)
        yield make_row(f"{video['id']}/{index}", picture, size, objects, video=str(video["id"]), frame=index)


def _decoded(folder: Path, video: dict) -> Iterator[bytes]:
    """Yields the frames of the video file that a video names, as PNG; none if there is no such file."""
    path = folder / str(video.get("file_name") or "")
    if not path.is_file():
        return
    for frame in open_video(path).read(logger.warning):
        content = io.BytesIO()
        frame.image.save(content, "png")
        yield content.getvalue()


def _object(
    entry: dict, frame: int, size: tuple[int, int], categories: dict[int, str], problems: Problems
) -> dict | None:
    """Makes a track's object in one frame; None if it is not visible."""
    masks, boxes = entry.get("segmentations"), entry.get("bboxes")
    mask = masks[frame] if masks is not None else None
    box = boxes[frame] if boxes is not None else None
    if not mask and (not box or masks is not None):
        return None
    crowd = crowd_flag(f"annotation {entry['id']}", entry, problems)
    if crowd is None:
        return None
    return make_object(
        f"annotation {entry['id']}, frame {frame}",
        size,
        problems,
        box=xyxy(box) if box else None,
        segmentation=mask,
        category=categories.get(entry["category_id"]),
        track_id=int(entry["id"]),
        crowd=crowd,
    )
