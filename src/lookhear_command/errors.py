"""What a command says of an error: one line, and whether the input is to blame."""

from __future__ import annotations

import traceback

TRACEBACK = "Traceback (most recent call last):"
LONGEST = 600  # letters of a library's message; some list every weight
EXPECTED = (ValueError, OSError, ImportError)  # what is raised for bad input


def explained(error: Exception) -> tuple[int, str]:
    """
    Returns the exit code of an error, 2 for bad input and 1 for a fault of ours, and one line about it.

    A damaged checkpoint counts as bad input. It raises errors of every kind: of safetensors, of JSON, of torch, and of
    whatever uses a setting of the wrong type.
    """
    line, kind, checkpoint = one_line(error), type(error).__name__, loaded_checkpoint(error)
    if "trust_remote_code" in line:  # which is no option of a command
        where = "the checkpoint" if checkpoint is None else f"the checkpoint {checkpoint}"
        return 2, f"{where} is of a type that lookhear does not know, and the code that comes with it is not run"
    if isinstance(error, EXPECTED):
        named = checkpoint is None or checkpoint in line
        return 2, line if named else f"the checkpoint {checkpoint} cannot be loaded: {line}"
    if checkpoint is not None:
        return 2, f"the checkpoint {checkpoint} is damaged, or of another kind: get it again ({kind}: {line})"
    if kind == "SafetensorError" and "I/O error" in line:
        return 2, f"the weights cannot be written: {line}"
    return 1, f"{kind}: {line} (LOOKHEAR_TRACEBACK=1 shows where)"


def one_line(error: BaseException) -> str:
    """Returns an error's message on one line; of a traceback that a library put into it, only what it ends with."""
    text, *stories = str(error).split(TRACEBACK)
    for story in stories:
        lines = story.strip("\n").splitlines()
        text += "\n".join(line for line in lines if line and not line.startswith(" "))
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[:LONGEST] + " …"


def loaded_checkpoint(error: BaseException) -> str | None:
    """Returns the checkpoint during whose loading an error was raised; None of any other error."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = frame.f_locals.get("pretrained_model_name_or_path")
        if frame.f_code.co_name == "from_pretrained" and name is not None:
            return str(name)
    return None
