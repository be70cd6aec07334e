"""Options that several commands have, and what they mean."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import urllib.parse
from pathlib import Path
from typing import Any

from .argument_types import positive, share

SEARCHES = ("joint", "two_pass", "greedy", "espnet")
MODALITIES = ("audio", "visual", "audiovisual")
DTYPES = ("auto", "float32", "bfloat16", "float16")
STANDARD_INPUT = "-"
SHARD = "read only the files of job I of N, from 0: every Nth in the order of names; all jobs write into one --output"


def add_model(
    parser: argparse.ArgumentParser, name: str = "avsr-grid-tiny", knows: str = "English commands of the GRID corpus"
) -> None:
    text = f"checkpoint folder or Hub id (the packaged {name}: {knows})"
    others = {"avsr": "a recogniser of other authors by name, such as vsr-ml-lrs3-visual"}
    others["glee"] = "GLEE's published weights by name, which are fetched once: glee-lite, glee-plus, glee-pro"
    if (system := name.split("-")[0]) in others:
        text += f"; or {others[system]}"
    parser.add_argument("--model", default=packaged(name), help=text)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (the first accelerator, else cpu)")


def add_dtype(parser: argparse.ArgumentParser, changed: str = "a letter") -> None:
    text = "what the model computes in; auto: half precision on a CUDA GPU, elsewhere as the checkpoint is stored. "
    text += f"bfloat16 is faster on CPUs with AMX, too; half precision may change {changed} (auto)"
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help=text)


def packaged(name: str) -> str:
    """Returns the folder of a checkpoint that comes with the package."""
    package = importlib.util.find_spec("lookhear")  # finds the folder, imports nothing
    if package is None or package.origin is None:
        raise ImportError("the package lookhear is not installed beside its command: pip install lookhear")
    return str(Path(package.origin).parent / "model_cards" / name)


def checked_model(options: argparse.Namespace, needed: str | None = None) -> str:
    """
    Returns the checkpoint of `--model`; one that is known by name is fetched and converted the first time.

    Args:
        options: with `model`.
        needed: `model_type` of the command's models; None to take any.

    Raises:
        ValueError: there is no such folder (a Hub id has one slash at most), or it is another kind of model.
    """
    from lookhear.commands.loading import check_kind
    from lookhear.training.named_models import check_converted, local_model, named_system

    model = options.model
    check_converted(model)
    if (model.startswith((".", os.sep)) or model.count("/") > 1) and not Path(model).is_dir():
        raise ValueError(f"--model: there is no folder {model}")
    found = named_system(model) or _model_type(model)
    if needed is not None and found is not None:
        check_kind(model, found, needed)
    return local_model(model)


def _model_type(folder: str) -> str | None:
    """Returns the `model_type` of a checkpoint's folder, None if it says none."""
    try:
        return json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def check_outputs(**files: str | Path | None) -> None:
    """
    Checks files of results before they are computed, and removes what a killed command left beside them.

    Args:
        **files: by option; None or "-" for one that isn't written.

    Raises:
        ValueError: one cannot be written.
    """
    from lookhear.evaluation.whole_files import check_writable, remove_leftovers

    for option, path in files.items():
        if path is not None and path != "-":
            check_writable(path, f"--{option.replace('_', '-')}")
            remove_leftovers(Path(path).parent)


def check_folder(folder: Path | None, name: str = "--output", shared: bool = False) -> None:
    """
    Checks a folder of results before they are computed, and removes what a killed command left in it.

    Args:
        folder: need not exist yet; None if none is written.
        name: of the argument.
        shared: whether other machines may be writing into it: then nothing is removed.

    Raises:
        ValueError: it cannot be made or written to.
    """
    from lookhear.evaluation import whole_files

    if folder is not None:
        whole_files.check_folder(folder, name)
        if not shared:
            whole_files.remove_leftovers(folder)


def add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-beams", type=positive, metavar="N", help="width of the beam search (the checkpoint's)")
    parser.add_argument(
        "--ctc-weight", type=share, metavar="W", help="weight of CTC in the search, 0 to 1 (the checkpoint's)"
    )
    rules = (
        "joint: decoder and CTC label by label; two_pass: CTC finds texts, the decoder chooses; greedy: CTC alone; "
    )
    rules += "espnet: joint by its rules, as others measured (the checkpoint's)"
    parser.add_argument("--search", choices=SEARCHES, help=rules)
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help="clips read together (8)")


def search_settings(options: argparse.Namespace) -> dict[str, Any]:
    settings = {"num_beams": options.num_beams, "ctc_weight": options.ctc_weight, "search": options.search}
    return {name: value for name, value in settings.items() if value is not None}


def result_name(file: str) -> str:
    """Returns the name of a file's or URL's result: the file's name without its ending."""
    if file == STANDARD_INPUT:
        return "stdin"
    if file.lower().startswith("file://"):
        file = urllib.parse.unquote(file)
    return Path(file.split("?")[0].rstrip("/")).stem or "result"
