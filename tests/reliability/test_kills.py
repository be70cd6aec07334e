"""Killed at a random moment, the same command ends as if it had not been, and nothing is left over."""

import random
import shutil

import pytest

WORKS = ("prepare", "train avsr", "train glee", "evaluate avsr", "evaluate glee", "transcribe", "perceive video")
WORKS += ("perceive folder",)


def kill_once(work, draw: random.Random) -> bool:
    """
    Starts a command anew and kills it, most often once it has begun to write; returns whether it was still running.
    """
    shutil.rmtree(work.output, ignore_errors=True)
    begun, whole = work.seconds
    moment = draw.uniform(0, whole) if draw.random() < 0.2 else draw.uniform(begun, whole)
    running = work.start()
    while running.seconds() < moment and not running.ended(0.002):
        pass
    return running.kill()


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", WORKS)
def test_a_kill_changes_nothing(works, amount, report, name):
    work, tried = works(name), amount("kills")
    draw, kills = random.Random(f"{tried.seed} {name}"), 0
    for _ in tried:
        kills += kill_once(work, draw)
        assert work.torn() == [], "half a file under its final name"
        work.finish()
        found = work.results()
        assert found.keys() == work.undisturbed.keys(), "something is left over, or missing"
        assert [path for path in found if found[path] != work.undisturbed[path]] == []
    report(f"SIGKILL of `{name}`", kills, "the same results, 0 torn files, 0 leftovers")


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_kill_publishes_all_or_nothing(works, hub, amount, report):
    work, tried = works("publish"), amount("kills")
    repository = ("model", "org/tiny")
    whole = dict(hub.repositories[repository].files)
    draw, kills = random.Random(f"{tried.seed} publish"), 0
    for _ in tried:
        hub.repositories.clear()
        kills += kill_once(work, draw)
        there = hub.repositories[repository].files if repository in hub.repositories else {}
        assert not there or there == whole
        work.finish()
        assert hub.repositories[repository].files == whole
    report("SIGKILL of `publish`", kills, "all or nothing on the Hub, then all")
