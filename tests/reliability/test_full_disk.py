"""A disk that is full: one line, exit code 2, no final name on half a file; with room, the same command ends."""

import shutil

import pytest

WORKS = ("prepare", "train avsr", "train glee", "evaluate avsr", "evaluate glee", "transcribe", "perceive video")
WORKS += ("perceive folder", "perceive webp", "synthesize")
SHARES = (0.02, 0.4, 0.9)  # of the largest file of an undisturbed run: a bound on files stands for the disk


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", WORKS)
def test_a_full_disk_is_one_line(works, report, name):
    work = works(name)
    largest = max(path.stat().st_size for path in work.output.rglob("*") if path.is_file())
    for share in SHARES:
        shutil.rmtree(work.output, ignore_errors=True)
        code, text = work.start(bound=int(share * largest)).wait()
        errors = [line for line in text.splitlines() if ": error: " in line]
        assert code == 2 and len(errors) == 1, f"{code} {text}"
        assert "Traceback" not in text and work.torn() == [], text
        work.finish()
        assert work.results() == work.undisturbed
    report(f"full disk under `{name}`", len(SHARES), "one line, exit code 2, no half files; then the same results")
