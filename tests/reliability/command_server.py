"""Runs commands of lookhear in forks of one process that has imported everything, as imports take longer than small
work.

Each line of the input is the JSON of a command: its `arguments`, where its `output` and its errors go, and the `bound`
in bytes on every file that it writes (null: none). The first answer is the number of its process, the second its exit
code once it has ended: -9 where it was killed.
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


def run(arguments: list[str], output: str, bound: int | None) -> None:
    """Runs one command in this process, which ends with it."""
    os.setsid()  # so that what it starts can be killed with it
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY), number)
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
