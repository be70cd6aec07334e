"""The guide `docs/guides/serving.md`: its command starts a server, which its curl lines and its Python ask."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs lookhear[serve]")


def blocks(repository: Path, language: str) -> list[str]:
    text = (repository / "docs" / "guides" / "serving.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def address(repository, announced):
    (command,) = [
        line for block in blocks(repository, "sh") for line in block.splitlines() if "lookhear serve" in line
    ]
    words = [word if word != "8000" else "0" for word in shlex.split(command)]
    server = subprocess.Popen([sys.executable, "-m", *words], stderr=subprocess.PIPE, text=True)
    try:
        yield announced(server, r"127\.0\.0\.1:\d+")[0]
    finally:
        server.terminate()
        server.communicate(timeout=60)


@pytest.fixture
def folder(repository, talking_clips, tmp_path, monkeypatch) -> Path:
    shutil.copy(talking_clips / "0.mp4", tmp_path / "clip.mp4")
    (tmp_path / "model_cards").symlink_to(repository / "model_cards")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_curl(repository, address, folder):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    lines = [line for block in blocks(repository, "sh") for line in block.splitlines() if line.startswith("curl ")]
    assert len(lines) == 2
    for line, answer in zip(lines, ('"text"', "-->")):
        words = shlex.split(line.replace("127.0.0.1:8000", address))
        assert (
            answer in subprocess.run(words, capture_output=True, text=True, env={**os.environ, "no_proxy": "*"}).stdout
        )


@pytest.mark.slow
def test_the_client(repository, address, folder, capsys):
    pytest.importorskip("openai", reason="needs the package openai")
    (code,) = [block for block in blocks(repository, "python") if "127.0.0.1:8000" in block]
    exec(code.replace("127.0.0.1:8000", address), {})
    assert re.fullmatch(r"(\d+\.\d+ \d+\.\d+ [A-Z ]+\n)+", capsys.readouterr().out)


@pytest.mark.slow
def test_the_handler(repository, folder, capsys):
    (code,) = [block for block in blocks(repository, "python") if "EndpointHandler" in block]
    exec(code, {})
    assert re.fullmatch(r"handler.py \d+\nrequirements.txt \d+\n[A-Z ]+\n", capsys.readouterr().out)


def test_the_table_names_the_limits(repository):
    from lookhear.serving.handler import PREFIX, Limits
    from lookhear_command.serve import LIMITS

    text = (repository / "docs" / "guides" / "serving.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `--([\w-]+)` \| `(\w+)` \| .*? \| ([\d.]+) \|$", text, re.MULTILINE)
    assert [name for name, *_ in rows] == list(LIMITS)
    for name, variable, default in rows:
        field = name.replace("-", "_")
        assert variable == PREFIX + field.upper() and float(default) == getattr(Limits(), field)
        assert f"({default})" in LIMITS[name][2]
