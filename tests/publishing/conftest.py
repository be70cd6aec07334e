"""A Hub on this machine, and a process that talks to it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("loopback_hub", Path(__file__).parents[1] / "loopback_hub.py")
_MODULE = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _MODULE
_SPEC.loader.exec_module(_MODULE)


@pytest.fixture
def hub():
    """A Hub without repositories."""
    with _MODULE.LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def shared_hub():
    """A Hub for the tests of one file."""
    with _MODULE.LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def child(shared_hub, tmp_path_factory):
    """`child(arguments)`: a process in which `shared_hub` is the Hub, started; its output can be read."""
    home = tmp_path_factory.mktemp("home")

    def start(*arguments: str) -> subprocess.Popen:
        environment = {**os.environ, **shared_hub.environment(home)}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, *arguments], cwd=home, env=environment, text=True, **pipes)

    return start


@pytest.fixture(scope="module")
def online():
    """Lets this process talk to a Hub (the tests' own, on this machine), and skips the waits between attempts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        patch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1")
        yield


@pytest.fixture
def command(shared_hub, online, monkeypatch, capsys):
    """`command(arguments)`: `lookhear publish` in this process to `shared_hub`; gives (exit code, stdout, stderr)."""
    from lookhear import cli

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", shared_hub.url)
    monkeypatch.setenv("HF_TOKEN", _MODULE.TOKEN)

    def run(*arguments) -> tuple[int, str, str]:
        try:
            code = cli.main(["publish", *map(str, arguments)])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def here(hub, online, monkeypatch, tmp_path):
    """The tests' Hub in place of the real one, for this process, with an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    return hub
