"""
The Dockerfile: built and run where a Docker daemon is; elsewhere its steps are carried out one by one, without root or
network: what it copies, what it installs, what it runs.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from fnmatch import fnmatch
from pathlib import Path

import pytest


def steps(repository: Path) -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: (name, what follows)."""
    text = re.sub(r"^#.*\n", "", (repository / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in text.splitlines() if line.strip()]


def context(repository: Path, target: Path) -> Path:
    """What `COPY . .` copies: what git holds, without what `.dockerignore` names."""
    lines = (repository / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    listed = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True).stdout.splitlines()
    for name in listed or pytest.skip("no git here"):
        parts = [name, *(str(parent) for parent in Path(name).parents)]
        if any(fnmatch(part, pattern.removeprefix("**/")) for part in parts for pattern in patterns):
            continue
        source, place = repository / name, target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, place, follow_symlinks=False)
    return target


def has_daemon() -> bool:
    return bool(shutil.which("docker")) and subprocess.run(["docker", "info"], capture_output=True).returncode == 0


def test_it_runs_as_an_ordinary_user_and_installs_the_tested_versions(repository):
    found = steps(repository)
    names = [name for name, _ in found]
    assert names[0] == "FROM" and names[-1] == "CMD" and "USER" in names
    assert all(name != "RUN" for name in names[names.index("USER") :]), "nothing is installed as that user"
    (install,) = [text for name, text in found if name == "RUN" and text.startswith("pip install")]
    assert install.endswith("-c constraints.txt '.[all]'")
    assert dict(found)["USER"] == "lookhear" and dict(found)["WORKDIR"].startswith("/home/lookhear/")
    version = re.fullmatch(r"python:(3\.\d+)-slim", found[0][1])[1]
    assert f'"{version}"' in (repository / ".github" / "workflows" / "tests.yml").read_text()
    for file in (".venv/x", ".git/x"):  # neither secrets nor gigabytes go in
        assert any(fnmatch(file.split("/")[0], line) for line in (repository / ".dockerignore").read_text().split())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_its_steps_work(repository, tmp_path, announced):
    """Installed from the same files by the same command, the commands of the image start."""
    app = context(repository, tmp_path / "app")
    install = next(text for name, text in steps(repository) if name == "RUN" and text.startswith("pip install"))
    words = [word.replace(".[all]", ".") for word in shlex.split(install)]
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(tmp_path / "site")]
    done = subprocess.run([sys.executable, "-m", *words, *offline], cwd=app, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "HF_HUB_OFFLINE": "1", "HOME": str(work)}
    command = json.loads(dict(steps(repository))["CMD"])
    assert command[:2] == ["lookhear", "serve"]
    settings = {"cwd": work, "env": environment, "text": True}
    where = subprocess.run(
        [sys.executable, "-c", "import lookhear; print(lookhear.__file__)"], **settings, capture_output=True
    )
    assert str(tmp_path / "site") in where.stdout, where.stderr
    server = subprocess.Popen(
        [sys.executable, "-m", *command, "--port", "0"], **settings, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        address = announced(server, r"http://0\.0\.0\.0:(\d+)/v1")
        with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/health", timeout=60) as answer:
            assert json.load(answer)["model"] == "avsr-grid-tiny"
    finally:
        server.terminate()
        server.communicate(timeout=60)
    shown = subprocess.run([sys.executable, "-m", "lookhear", "demo", "--help"], **settings, capture_output=True)
    assert shown.returncode == 0 and (app / "spaces" / "lookhear" / "app.py").is_file()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_it_is_built_and_runs(repository):
    if not has_daemon():
        pytest.skip("needs a Docker daemon")
    subprocess.run(["docker", "build", "-t", "lookhear-test", "."], cwd=repository, check=True)
    run = ["docker", "run", "--rm", "lookhear-test"]
    assert subprocess.run([*run, "id", "-un"], capture_output=True, text=True).stdout == "lookhear\n"
    subprocess.run([*run, "lookhear", "demo", "--output", "demo"], check=True)
