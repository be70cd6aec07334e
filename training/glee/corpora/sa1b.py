"""SA-1B: masks without classes, a JSON file beside each picture."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torchvision.ops import nms

from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.glee.corpora.schema import make_object, make_row, usable, xyxy
from lookhear.training.glee.corpora.shards import list_shards, read_shard

LAYOUT = "sa_000000.tar, or folders sa_000000 with sa_1.jpg and sa_1.json"


def sa1b_shards(root: str | Path) -> list[Path]:
    """Lists the tar files or folders of SA-1B below `root`."""
    return list_shards(root, LAYOUT)


def read_sa1b(
    root: str | Path,
    split: str | None = None,
    problems: Problems | None = None,
    *,
    shards: Sequence[str | Path] | None = None,
    overlap: float | None = None,
) -> Iterator[dict]:
    """
    Reads SA-1B picture by picture; nothing is held in memory.

    Args:
        root: the folder of `sa_000000.tar` ... or of the unpacked folders.
        split: None, as there are no splits.
        problems: where annotations that cannot be used are reported.
        shards: some of `sa1b_shards(root)`; None: all.
        overlap: IoU in [0, 1]: of two objects whose boxes overlap more, only the larger stays; None: all stay. So GLEE
            was trained on whole objects of SA-1B, not on their parts.
    """
    problems = problems or Problems()
    if split is not None:
        raise CorpusError(f"SA-1B has no split {split!r}; leave it out")
    for shard in sa1b_shards(root) if shards is None else map(Path, shards):
        for name, picture, content in read_shard(shard, problems):
            row = _row(name, picture, content, problems, overlap)
            problems.settle(shard)
            if row is not None:
                yield row
        problems.settle(shard)


def _row(name: str, picture: Path | bytes, content: dict, problems: Problems, overlap: float | None) -> dict | None:
    image, annotations = content.get("image"), content.get("annotations")
    if not isinstance(image, dict) or not isinstance(annotations, list) or not {"height", "width"} <= set(image):
        problems.add(f"image {name}", "its JSON has no 'image' with height and width, or no 'annotations'")
        return None
    size = int(image["height"]), int(image["width"])
    label = f"image {name}, annotation"
    objects = usable(
        make_object(f"{label} {entry.get('id')}", size, problems, xyxy(entry.get("bbox")), entry.get("segmentation"))
        for entry in annotations
    )
    if overlap is not None and objects:
        boxes = torch.tensor([instance["box"] for instance in objects])
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        objects = [objects[index] for index in sorted(nms(boxes, areas, overlap).tolist())]
    return make_row(name, picture, size, objects) if objects else None
