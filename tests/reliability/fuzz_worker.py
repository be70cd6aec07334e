"""Reads damaged files, one a line of the input, and says what came of each: `refused`, `read`, or an exception's name.

python fuzz_worker.py avsr CHECKPOINT | glee CHECKPOINT | checkpoints | tables
"""

import contextlib
import json
import os
import sys
from pathlib import Path

KIND, *MODEL = sys.argv[1:]
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is no answer


def reader():
    """Returns what reads a file of this kind."""
    from lookhear.commands.loading import load_pipeline

    if KIND == "avsr":
        asr = load_pipeline("audio-visual-speech-recognition", MODEL[0], num_beams=1, ctc_weight=1.0)
        return lambda path: asr(str(path))
    if KIND == "glee":
        see = load_pipeline("object-perception", MODEL[0])

        def look(path: Path) -> None:
            if path.suffix in (".mp4", ".gif", ".webp"):
                with see({"video": str(path)}, labels=["cat"]) as video:
                    for _ in video:
                        pass
            else:
                see(str(path), labels=["cat"])

        return look
    if KIND == "checkpoints":
        tasks = {"avsr": "audio-visual-speech-recognition", "glee": "object-perception"}
        return lambda path: load_pipeline(tasks[path.name], str(path))

    from lookhear.evaluation.protocols.stored_results import StoredResults
    from lookhear.training.avsr.corpora import read_folder
    from lookhear.training.avsr.recipe import load_recipe
    from lookhear.training.glee.corpora.opening import open_corpus
    from lookhear_command.transcribe import read_track

    readers = {
        "metadata.jsonl": lambda path: list(read_folder(path.parent)),
        "coco.json": lambda path: open_corpus("coco", path),
        "recipe.yaml": lambda path: load_recipe(path),
        "track.json": read_track,
        "results.jsonl": lambda path: StoredResults(path, {"model": "a"}),
    }
    return lambda path: readers[path.name](path)


def main() -> None:
    read = reader()
    print("ready", file=ANSWERS, flush=True)
    for line in sys.stdin:
        outcome, message = "read", ""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                read(Path(line.strip()))
        except (ValueError, OSError, ImportError) as error:
            outcome, message = "refused", str(error)
        except Exception as error:  # whatever a library raises
            outcome, message = type(error).__name__, str(error)
        print(json.dumps([outcome, message]), file=ANSWERS, flush=True)


main()
