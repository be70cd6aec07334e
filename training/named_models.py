"""Models of other authors that are known by name: converted into the cache the first time, and there from then on."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

ENDINGS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")  # of files of weights
BEGINNINGS = ("glee-", "usr2-", "auto-avsr-", "vsr-ml-")  # of the names; no model on the Hub has such a bare name


def local_model(model: str) -> str:
    """
    Returns the folder of a model that is known by name, which is fetched and converted the first time.

    Args:
        model: a name such as `"glee-lite"` or `"vsr-ml-lrs3-visual"`. A folder, or the Hub id of a converted model, is
            returned as it is.

    Raises:
        ValueError: it is no such name, but begins like one; it has to be fetched in a browser; or it cannot be fetched
            or converted.
    """
    system = named_system(model)
    if system is None:
        return model
    if system == "glee":
        from lookhear.training.glee import convert

        names, converted = list(convert.HUB_NAMES), convert.converted_by_name
    else:
        from lookhear.training.avsr import published

        names, converted = [*published.HUB_NAMES, *published.DRIVE_NAMES], published.converted_by_name
    if model not in names:
        raise ValueError(f"model {model!r}: there is no such folder, and no model of that name: {', '.join(names)}")
    return str(converted(model))


def named_system(model: str) -> str | None:
    """Returns `"glee"` or `"avsr"` for a name that is one of a model of other authors, None for anything else."""
    if "/" in model or not model.startswith(BEGINNINGS) or Path(model).exists():
        return None
    return "glee" if model.startswith("glee-") else "avsr"


def check_converted(model: str) -> None:
    """Raises ValueError if a model is a file of weights, or a path on the Hub (`hf://…`): it has to be converted."""
    path = Path(model)
    if path.is_dir() or not (model.startswith("hf://") or path.suffix.lower() in ENDINGS):
        return
    folder = path.stem.lower().replace("_", "-")
    raise ValueError(
        f"model {model!r} is a file of weights, not a folder; convert it first: lookhear convert glee {model} "
        f"{folder}/ (convert avsr for speech), then the model is {folder}/"
    )


def converted_once(name: str, terms: str, convert: Callable[[Path], object]) -> Path:
    """
    Returns a model's folder in the cache; converts it the first time, in one process while others wait.

    Args:
        name: of the model, and of its folder.
        terms: of its licence, printed on stderr before it is fetched.
        convert: makes the folder that it is given.
    """
    from lookhear.training.hub_files import cache_folder, one_at_a_time

    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    with one_at_a_time(folder.parent / f".{name}.lock", f"{name} is being converted by another process"):
        if not folder.is_dir():
            for left in folder.parent.glob(f".{name}-*"):  # by a process that was killed, as this one has the lock
                shutil.rmtree(left, ignore_errors=True)
            print(f"{name}: {terms}", file=sys.stderr)
            convert(folder)
    return folder
