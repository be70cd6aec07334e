"""`lookhear publish`: what it lists, what it says, and its exit codes."""

import pytest


@pytest.fixture(scope="module")
def benchmark(repository):
    return repository / "evaluation" / "dataset_cards" / "grid-noise"


def test_help_has_an_example(command):
    code, out, _ = command("--help")
    assert code == 0 and "example:\n  lookhear publish " in out


def test_a_dry_run_lists_every_file_and_asks_nobody(command, shared_hub, repository):
    folder = repository / "model_cards" / "avsr-grid-tiny"
    calls = len(shared_hub.calls)
    code, out, err = command(folder, "--repo", "org/avsr-grid-tiny", "--dry-run")
    assert code == 0 and err == "" and len(shared_hub.calls) == calls and not shared_hub.repositories
    listed = {line.split()[1] for line in out.splitlines()[:-1]}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if "__pycache__" not in path.parts}
    code = {name for name in listed if name.endswith(".py")}
    assert {"modeling_avsr.py", "processing_avsr.py", "pipeline_avsr.py"} <= code and not code & there
    there |= {"requirements.txt"}  # of the handler
    there |= {f"face-mesh/{name}" for name in ("LICENSE", "NOTICE", "README.md", "model.safetensors")}
    assert listed - code == there | {f".eval_results/{name}.yaml" for name in ("grid-noise", "grid-two-talkers")}


def test_the_commit_goes_to_stdout_and_remarks_to_stderr(command, shared_hub, benchmark):
    code, out, err = command(benchmark, "--repo", "org/grid-noise", "--message", "First")
    repository = shared_hub.repositories["dataset", "org/grid-noise"]
    assert code == 0 and out == f"{shared_hub.url}/datasets/org/grid-noise/commit/{repository.head}\n"
    repository.commit(repository.files | {"old.json": b"{}"})
    code, _, err = command(benchmark, "--repo", "org/grid-noise")
    assert code == 0 and "old.json: in the repository, but not in the folder (--prune removes them)" in err
    assert "nothing has changed since the last commit" in err
    code, _, err = command(benchmark, "--repo", "org/grid-noise", "--prune")
    assert code == 0 and "old.json" not in repository.files and "old.json" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--repo", "org/name"], "there is no folder nowhere"),
        (["nowhere"], "--repo"),
    ],
)
def test_bad_input_is_one_line_and_code_2(command, arguments, message):
    code, out, err = command(*arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and message in err


def test_a_broken_line_is_one_line_and_code_2(command, shared_hub, repository):
    shared_hub.breaks = lambda call: "/commit/" in call
    code, out, err = command(repository / "evaluation" / "metrics" / "wer", "--repo", "org/wer")
    shared_hub.breaks = None
    assert code == 2 and out == "" and "org/wer is unchanged" in err and "run the same command again to resume" in err
    assert shared_hub.repositories["space", "org/wer"].files == {}
