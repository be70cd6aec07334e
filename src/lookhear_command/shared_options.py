"""Options that several commands have, and what they mean."""

from __future__ import annotations

import argparse
import importlib.util
import os
import urllib.parse
from pathlib import Path
from typing import Any

from .argument_types import positive, share

MODALITIES = ("audio", "visual", "audiovisual")
PUBLISHED = ("usr2-", "auto-avsr-", "vsr-ml-")  # how the names of other authors' recognisers begin


def add_model(
    parser: argparse.ArgumentParser, name: str = "avsr-grid-tiny", knows: str = "English commands of the GRID corpus"
) -> None:
    text = f"checkpoint folder or Hub id (the packaged {name}: {knows})"
    if name.startswith("avsr"):
        text += "; or a recogniser of other authors by name, such as vsr-ml-lrs3-visual"
    parser.add_argument("--model", default=packaged(name), help=text)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (the first accelerator, else cpu)")


def packaged(name: str) -> str:
    """Returns the folder of a checkpoint that comes with the package."""
    package = importlib.util.find_spec("lookhear")  # finds the folder, imports nothing
    if package is None or package.origin is None:
        raise ImportError("the package lookhear is not installed beside its command: pip install lookhear")
    return str(Path(package.origin).parent / "model_cards" / name)


def checked_model(options: argparse.Namespace) -> str:
    """Returns the checkpoint; checks that it exists if it must be a folder, as a Hub id has one slash at most."""
    model = options.model
    if (model.startswith((".", os.sep)) or model.count("/") > 1) and not Path(model).is_dir():
        raise ValueError(f"--model: there is no folder {model}")
    if model.startswith(PUBLISHED) and not Path(model).exists():
        from lookhear.training.avsr.published import converted_by_name, is_published

        if is_published(model):
            return str(converted_by_name(model))
    return model


def add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-beams", type=positive, metavar="N", help="width of the beam search (the checkpoint's)")
    parser.add_argument(
        "--ctc-weight", type=share, metavar="W", help="weight of CTC in the search, 0 to 1 (the checkpoint's)"
    )
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help="clips read together (8)")


def search_settings(options: argparse.Namespace) -> dict[str, Any]:
    settings = {"num_beams": options.num_beams, "ctc_weight": options.ctc_weight}
    return {name: value for name, value in settings.items() if value is not None}


def result_name(file: str) -> str:
    """Returns the name of a file's or URL's result: the file's name without its ending."""
    if file.lower().startswith("file://"):
        file = urllib.parse.unquote(file)
    return Path(file.split("?")[0].rstrip("/")).stem or "result"
