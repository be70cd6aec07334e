"""Where GLEE's published checkpoints are: names, and the files on the Hub that they stand for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookhear.training.hub_files import HUB_PATH, HubFile, fetched

SPACE = "Junfeng5/GLEE_demo"
TERMS = "published by GLEE's authors under the MIT licence"
STAGES = ("joint", "scaleup", "pretrain")  # the first is what a bare size stands for
HUB_NAMES = {  # each name -> the one with size and stage
    f"glee-{size}{stage and '-'}{stage}": f"glee-{size}-{stage or STAGES[0]}"
    for size in ("lite", "plus", "pro")
    for stage in ("", *STAGES)
}


def published_file(name: str) -> HubFile:
    """Returns the file of a name in `HUB_NAMES`."""
    _, size, stage = HUB_NAMES[name].split("-")
    return HubFile(SPACE, f"MODEL_ZOO/GLEE_{size.capitalize()}_{stage}.pth", "space")


@contextmanager
def checkpoint_file(source: str | os.PathLike) -> Iterator[Path]:
    """
    Yields the file of a published checkpoint, which is fetched if it is on the Hub; see [`fetched`].

    Args:
        source: a file, a name in `HUB_NAMES`, or a path on the Hub, such as
            `hf://spaces/Junfeng5/GLEE_demo/MODEL_ZOO/GLEE_Lite_joint.pth`.
    """
    name = os.fspath(source)
    if name.startswith(HUB_PATH):
        file = HubFile.from_uri(name)
    elif name in HUB_NAMES and not Path(name).is_file():
        file = published_file(name)
    else:
        yield Path(source)
        return
    with fetched(file) as path:
        yield path
