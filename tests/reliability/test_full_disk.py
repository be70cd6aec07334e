"""A disk that is full: one line, exit code 2, no final name on half a file; with room, the same command ends."""

import resource
import shutil
from functools import partial

import pytest

WORKS = ("prepare", "train avsr", "train glee", "evaluate avsr", "transcribe", "perceive video", "perceive folder")
SHARES = (0.02, 0.4, 0.9)  # of the largest file of an undisturbed run: a bound on files stands for the disk


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", WORKS)
def test_a_full_disk_is_one_line(works, report, name):
    work = works(name)
    largest = max(path.stat().st_size for path in work.output.rglob("*") if path.is_file())
    for share in SHARES:
        shutil.rmtree(work.output, ignore_errors=True)
        bound = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (int(share * largest),) * 2)
        process = work.start(preexec_fn=bound)
        _, err = process.communicate(timeout=900)
        errors = [line for line in err.splitlines() if ": error: " in line]
        assert process.returncode == 2 and errors, f"{process.returncode} {err}"
        assert "Traceback" not in err and work.torn() == [], err
        work.finish()
        assert work.results() == work.undisturbed
    report(f"full disk under `{name}`", len(SHARES), "one line, exit code 2, no half files; then the same results")
