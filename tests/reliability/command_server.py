"""Runs commands of lookhear in forks of one process that has imported everything, as imports take longer than small
work.

Each line of the input is the JSON of a command: its `arguments`, the files that its `output` and its `errors` go to,
and the `bound`, in bytes, on every file that it writes (null: none). The answer is the number of its process at once,
and its exit code once it has ended: -9 where it was killed.
"""

import importlib
import json
import os
import resource
import sys

MODULES = (
    "datasets",
    "transformers.trainer",
    *(f"lookhear.commands.{name}" for name in ("loading", "perceive", "perceive_video")),
    *(f"lookhear.training.{name}" for name in ("avsr.prepare", "avsr.train", "glee.scenes.train")),
    "lookhear.evaluation.avsr_conditions",
    "lookhear.publishing",
)


def run(arguments: list[str], output: str, errors: str, bound: int | None) -> None:
    """Runs one command in this process, which ends with it."""
    os.setsid()  # so that what it starts can be killed with it
    for number, path in ((0, os.devnull), (1, output), (2, errors)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    if bound is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, bound))
    sys.argv = ["lookhear", *arguments]
    from lookhear.cli import main

    sys.exit(main())


def serve() -> None:
    """Answers until the input ends."""
    import lookhear

    for name in lookhear.__all__:
        getattr(lookhear, name)
    for name in MODULES:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        pid = os.fork()
        if not pid:
            answers.close()
            run(**command)
        print(pid, file=answers, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)


serve()
