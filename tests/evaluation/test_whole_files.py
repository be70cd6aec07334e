"""Files appear whole or not at all, and what killed processes have left is removed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lookhear.evaluation.whole_files import (
    DiskFullError,
    check_folder,
    check_writable,
    files_for,
    remove_leftovers,
    whole_file,
    whole_folder,
    write_text,
)


@pytest.fixture(scope="module")
def dead() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "a" / "model") as partial:
        (partial / "config.json").write_text("{}")
        raise RuntimeError
    assert list((tmp_path / "a").iterdir()) == []
    with whole_folder(tmp_path / "a" / "model") as partial:
        (partial / "config.json").write_text("{}")
    assert [path.name for path in (tmp_path / "a").rglob("*")] == ["model", "config.json"]


def test_files_join_those_that_are_there(tmp_path):
    write_text(tmp_path / "card.md", "a card")
    write_text(tmp_path / "config.json", "old")
    with pytest.raises(RuntimeError), files_for(tmp_path) as partial:
        (partial / "config.json").write_text("half")
        raise RuntimeError
    with files_for(tmp_path) as partial:
        (partial / "deep" / "er").mkdir(parents=True)
        (partial / "deep" / "er" / "a.txt").write_text("a")
        (partial / "config.json").write_text("new")
    files = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"card.md": "a card", "config.json": "new", "deep/er/a.txt": "a"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.md", "config.json", "deep"]


def test_a_full_disk_has_one_name(tmp_path):
    """Whatever a library calls it; other errors stay what they are."""
    for error in (OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed writing file")):
        for write in (whole_file(tmp_path / "a.bin"), whole_folder(tmp_path / "a"), files_for(tmp_path)):
            with pytest.raises(DiskFullError, match="cannot be written: the disk is full; free some space"), write:
                raise error
    with pytest.raises(RuntimeError, match="other"), whole_file(tmp_path / "a.bin"):
        raise RuntimeError("other")
    assert list(tmp_path.iterdir()) == []


def test_what_dead_processes_left_is_removed(tmp_path, dead):
    """Of this file when it is written, of all when a command begins; never what a process still writes."""
    living, other = os.getppid(), Path(tmp_path, f".b.{dead}.part.json")
    for process in (dead, living):
        for end in ("part.json", "part", "tmp", "masks"):
            Path(tmp_path, f".a.{process}.{end}").write_text("half")
        Path(tmp_path, f".export.{process}.part").mkdir()
        Path(tmp_path, f".export.{process}.part", "model.safetensors").write_text("half")
    other.write_text("half")
    mine = [Path(tmp_path, name) for name in (".a.part", ".gitignore", f"a.{dead}.part", ".a.b.part")]
    for path in mine:
        path.write_text("kept")
    write_text(tmp_path / "a.json", "whole")
    assert not Path(tmp_path, f".a.{dead}.part.json").exists() and other.exists()
    remove_leftovers(tmp_path, None, tmp_path / "missing")
    left = {path.name for path in tmp_path.iterdir()}
    kinds = {f".a.{living}.{end}" for end in ("part.json", "part", "tmp", "masks")} | {f".export.{living}.part"}
    assert left == kinds | {path.name for path in mine} | {"a.json"}


def test_what_cannot_be_written_is_known_before(tmp_path):
    write_text(tmp_path / "file", "")
    check_writable(tmp_path / "new" / "folders" / "a.json", "--json")
    check_folder(tmp_path / "new", "--output")
    assert not (tmp_path / "new").exists()
    for check, path, message in (
        (check_writable, tmp_path, "--x .* is a folder: name a file"),
        (check_writable, tmp_path / "file" / "a.json", "--x .*/file cannot be written: .*/file is not a folder"),
        (check_folder, tmp_path / "file" / "deep", "--x .*deep cannot be written: .*/file is not a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            check(path, "--x")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is write-protected for root")
def test_write_protected_places_are_named(tmp_path):
    write_text(tmp_path / "a.json", "")
    (tmp_path / "a.json").chmod(0o444)
    with pytest.raises(ValueError, match="a.json cannot be written: it is write-protected"):
        check_writable(tmp_path / "a.json", "--json")
    tmp_path.chmod(0o555)
    with pytest.raises(ValueError, match="--output .* is write-protected; name another folder"):
        check_folder(tmp_path / "new", "--output")
    tmp_path.chmod(0o755)
