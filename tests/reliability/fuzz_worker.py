"""Reads files, one a line of the input, and says what came of each: `refused`, `read`, or an exception's name; the
message; the seconds of the processor that it took, and the most memory in bytes.

python fuzz_worker.py avsr|glee|lisa_glee CHECKPOINT
python fuzz_worker.py checkpoints|tables|space
python fuzz_worker.py readings CLIP
"""

import contextlib
import json
import os
import sys
import time
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
            if path.suffix not in (".png", ".jpg", ".tiff", ".bmp"):
                with see({"video": str(path)}, labels=["cat"]) as video:
                    for _ in video:
                        pass
            else:
                see(str(path), labels=["cat"], top_k=2)  # a random model finds one at every place

        return look
    if KIND == "lisa_glee":
        ask = load_pipeline("reasoning-segmentation", MODEL[0])
        return lambda path: ask(str(path), "Which is red?", max_new_tokens=4)
    if KIND == "readings":

        def read_with(path: Path) -> None:
            asr = load_pipeline("audio-visual-speech-recognition", str(path))
            asr(MODEL[0])

        return read_with
    if KIND == "space":
        sys.path.insert(0, str(Path(__file__).parents[2] / "spaces" / "lookhear"))
        from limits import Limits
        from media import first_picture, is_video

        def upload(path: Path) -> None:
            """What the page does with a file before anybody has asked for anything."""
            limits = Limits()
            if is_video(str(path)):
                limits.check_video(str(path), limits.see_seconds)
            else:
                limits.check_picture(str(path))
            first_picture(str(path))

        return upload
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


def forget_peak() -> None:
    """Begins to measure memory anew, where the system lets a process do so."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Returns the most memory that this process has taken, in bytes; 0 where the system does not say it."""
    with contextlib.suppress(OSError):
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) << 10
    return 0


def main() -> None:
    from lookhear_command.errors import explained

    read = reader()
    print("ready", file=ANSWERS, flush=True)
    for line in sys.stdin:
        outcome, message, begin = "read", "", time.process_time()
        forget_peak()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                read(Path(line.strip()))
        except Exception as error:  # whatever a library raises: as a command would explain it
            code, message = explained(error)
            outcome = "refused" if code == 2 else type(error).__name__
        print(json.dumps([outcome, message, time.process_time() - begin, peak()]), file=ANSWERS, flush=True)


main()
