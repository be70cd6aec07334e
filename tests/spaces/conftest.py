"""The Space as its users meet it: as it is published, served by `python app.py`, driven in headless Chromium.

The page is driven through chromedriver, which speaks W3C WebDriver, JSON over HTTP, so the standard library is all
that is needed.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import importlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),  # a webcam that shows a test picture
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id, fixed by WebDriver
START = 280.0  # seconds within which the Space is up; on an idle machine it takes 30
ANSWER = 120.0  # seconds within which the page has to change
STILL = """
const [element, done] = arguments, place = () => JSON.stringify(element.getBoundingClientRect()), before = place();
requestAnimationFrame(() => requestAnimationFrame(() => done(place() === before)));
"""  # whether an element stays where it is
# Python runs it before anything else: what was not asked for cannot be imported, nor lookhear from this checkout.
SITE = """
import sys
sys.modules.update(dict.fromkeys({absent}))
sys.path[:] = [folder for folder in sys.path if folder != {source!r}]
"""


@pytest.fixture(scope="module")
def space_module(repository: Path) -> Iterator[Callable[[str], Any]]:
    """`space_module("limits")` is spaces/lookhear/limits.py; its modules find each other as when they are served."""
    with importing_from(repository / "spaces" / "lookhear") as load:
        yield load


@pytest.fixture(scope="module")
def board_module(repository: Path) -> Iterator[Callable[[str], Any]]:
    """`board_module("boards")` is spaces/leaderboard/boards.py."""
    with importing_from(repository / "spaces" / "leaderboard") as load:
        yield load


@contextlib.contextmanager
def importing_from(folder: Path) -> Iterator[Callable[[str], Any]]:
    """Modules of a Space, which are forgotten afterwards."""
    names = [path.stem for path in folder.glob("*.py")]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        yield importlib.import_module
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def hub() -> Iterator[Any]:
    """A Hub on this machine to which this process may talk."""
    spec = importlib.util.spec_from_file_location("loopback_hub", Path(__file__).parents[1] / "loopback_hub.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        with module.LoopbackHub() as started:
            patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
            patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
            patch.setattr("huggingface_hub.constants.ENDPOINT", started.url)
            address = started.url + "/{repo_id}/resolve/{revision}/{filename}"
            patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address)
            for name, value in (("NO_PROXY", "127.0.0.1"), ("no_proxy", "127.0.0.1"), ("HF_TOKEN", module.TOKEN)):
                patch.setenv(name, value)
            yield started


@pytest.fixture(scope="session")
def space(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    """The Space as `lookhear publish` composes it, served as on the Hub, with examples that it made itself."""
    pytest.importorskip("gradio", reason="needs Gradio: pip install 'lookhear[demo]'")
    folder = tmp_path_factory.mktemp("space")
    published = publish(repository / "spaces" / "lookhear", folder / "published")
    settings = {"LOOKHEAR_SPACE_READ_SECONDS": "20", "LOOKHEAR_SPACE_MEGABYTES": "5"}
    with served(repository, published, folder, settings) as space:
        yield space


@pytest.fixture(scope="session")
def serve_space(repository: Path) -> Callable[[Path, Path, dict[str, str]], contextlib.AbstractContextManager[Space]]:
    """`serve_space(published, folder, settings)`: see `served`."""
    return functools.partial(served, repository)


@contextlib.contextmanager
def served(repository: Path, published: Path, folder: Path, settings: dict[str, str]) -> Iterator[Space]:
    """A Space that runs while it is used, from its files alone; what it says and takes is below `folder`."""
    (folder / "site").mkdir()
    absent = not_required((published / "requirements.txt").read_text())
    site = SITE.format(absent=absent, source=str(repository / "src"))
    (folder / "site" / "sitecustomize.py").write_text(site)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "PYTHONPATH": str(folder / "site"),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
        **settings,
    }
    space = Space(f"http://127.0.0.1:{port}/", published / "examples", folder / "log")
    with space.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=published,
            env={**os.environ, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        space.wait_until_up(process)
        yield space
    finally:
        process.terminate()
        process.wait(30)


def publish(space: Path, folder: Path) -> Path:
    """Writes a Space as it would be pushed; returns the folder."""
    from lookhear.publishing import gather

    for file in gather(space, "org/lookhear").files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read())
    return folder


def not_required(requirements: str) -> list[str]:
    """Modules that are installed here and would not be where only these requirements, and what they need, are."""
    waiting = [Requirement(line) for line in requirements.splitlines()]
    seen = set()
    while waiting:
        asked = waiting.pop()
        if (key := (canonicalize_name(asked.name), *sorted(asked.extras))) in seen:
            continue
        seen.add(key)
        for needed in map(Requirement, distribution(asked.name).requires or []):
            extras = ("", *asked.extras)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    there = {name for name, *_ in seen} | {"lookhear"}  # which is published with the Space
    modules = packages_distributions().items()
    return sorted(module for module, owners in modules if not there & set(map(canonicalize_name, owners)))


class Space:
    """Where the Space is: its address, the folder of its examples, the file with what it said."""

    def __init__(self, url: str, examples: Path, log: Path):
        self.url, self.examples, self.log = url, examples, log

    def wait_until_up(self, process: subprocess.Popen) -> None:
        """Waits for the first answer."""
        end = time.monotonic() + START
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.url, timeout=10).close()
                return
            time.sleep(0.3)
        raise AssertionError(f"the Space did not start:\n{self.log.read_text(errors='replace')}")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    with started_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="session")
def start_browser() -> Callable[..., contextlib.AbstractContextManager[Browser]]:
    """`start_browser(folder, *flags)`: see `started_browser`."""
    return started_browser


@contextlib.contextmanager
def started_browser(folder: Path, *flags: str) -> Iterator[Browser]:
    """A browser with further flags, whose profile and log are in an empty folder."""
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    log = folder / "log"
    with log.open("wb") as file:
        driver = subprocess.Popen([CHROMEDRIVER, "--port=0"], stdout=file, stderr=subprocess.STDOUT)
    browser = None
    try:
        port = _wait(lambda: re.search(r"successfully on port (\d+)", log.read_text()), START, "chromedriver")[1]
        browser = Browser(f"http://127.0.0.1:{port}", folder / "profile", flags)
        yield browser
    finally:
        if browser is not None:
            browser.quit()
        driver.terminate()
        driver.wait(30)


@pytest.fixture
def page(chromium: Browser, space: Space) -> Iterator[Browser]:
    """The Space, freshly opened, as large as on a laptop; afterwards no traceback on the server names its files."""
    chromium.as_laptop()
    chromium.open(space.url)
    chromium.find("#read-run")
    yield chromium
    assert f'File "{space.examples.parent}' not in space.log.read_text(errors="replace")


class Browser:
    """A session of WebDriver; selectors are CSS, and whatever is asked for is waited for."""

    def __init__(self, driver: str, profile: Path, flags: Sequence[str] = ()):
        options = {"binary": CHROMIUM, "args": [*FLAGS, *flags, f"--user-data-dir={profile}"]}
        wanted = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        self._driver = driver
        self._driver = f"{driver}/session/{self._send('POST', '/session', {'capabilities': wanted})['sessionId']}"

    def _send(self, method: str, path: str, body: dict | None = None) -> Any:
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(
            self._driver + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise BrowserError(json.load(error)["value"]) from None

    def quit(self) -> None:
        self._send("DELETE", "")

    def open(self, url: str) -> None:
        self._send("POST", "/url", {"url": url})

    def as_laptop(self) -> None:
        """The page has the size of a laptop's screen."""
        self._resize(1440, 900, phone=False)

    def as_phone(self) -> None:
        """The page has the size of a phone's screen, and fingers."""
        self._resize(390, 844, phone=True)

    def _resize(self, width: int, height: int, phone: bool) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self._cdp("Emulation.setDeviceMetricsOverride", size)
        self._cdp("Emulation.setTouchEmulationEnabled", {"enabled": phone})

    def _cdp(self, command: str, parameters: dict) -> Any:
        return self._send("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a JavaScript function's body returns; `arguments` are its own."""
        return self._send("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait_for(self, script: str, *arguments: Any, seconds: float = ANSWER) -> Any:
        """Runs a script until it returns something true."""
        return _wait(lambda: self.run(script, *arguments), seconds, script)

    def find(self, selector: str) -> str:
        """The id of the first element that is there."""
        query = {"using": "css selector", "value": selector}

        def look() -> str | None:
            found = self._send("POST", "/elements", query)
            return found[0][ELEMENT] if found else None

        return _wait(look, ANSWER, selector)

    def click(self, selector: str) -> None:
        """Scrolls there and clicks, once it does not move and nothing is in front of it."""

        def attempt() -> bool:
            element = self.find(selector)
            try:
                if not self._send("POST", "/execute/async", {"script": STILL, "args": [{ELEMENT: element}]}):
                    return False
                self._send("POST", f"/element/{element}/click")
                return True
            except BrowserError as error:
                if error.kind in ("element click intercepted", "element not interactable", "stale element reference"):
                    return False
                raise

        _wait(attempt, ANSWER, f"click on {selector}")

    def type(self, selector: str, text: str) -> None:
        """Types into a field; into a file field, the path of a file."""
        self._send("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def upload(self, selector: str, path: Path) -> None:
        """Gives a file to the upload within an element."""
        self.type(f"{selector} input[type=file]", str(path))

    def text(self, selector: str) -> str:
        """What is written in the first such element, "" where there is none."""
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def text_of(self, selector: str, having: str = "") -> str:
        """Waits for an element with a text, or with `having` in it."""
        script = "const t = document.querySelector(arguments[0])?.innerText; return t?.includes(arguments[1]) && t"
        return self.wait_for(script, selector, having)

    def rows(self, selector: str) -> list[list[str]]:
        """The cells of the table within an element, without its head."""
        script = "return [...document.querySelectorAll(arguments[0] + ' tbody tr')].map(row => [...row.cells].map("
        return self.run(script + "cell => cell.innerText.trim()))", selector)

    def drag(self, selector: str, path: list[tuple[float, float]]) -> None:
        """Presses at the first point, moves along, lets go at the last; points are shares (0 to 1) of the element."""
        element = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", {ELEMENT: element})
        frame = self.run("return arguments[0].getBoundingClientRect()", {ELEMENT: element})
        places = [(round(frame["x"] + x * frame["width"]), round(frame["y"] + y * frame["height"])) for x, y in path]
        moves = [{"type": "pointerMove", "duration": 30, "x": x, "y": y, "origin": "viewport"} for x, y in places]
        actions = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        finger = {"type": "pointer", "id": "finger", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self._send("POST", "/actions", {"actions": [finger]})

    def download_to(self, folder: Path) -> None:
        """Where files go that the page offers."""
        self._cdp("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})

    def screenshot(self, path: Path) -> None:
        """Writes a picture of the whole page, for those who look."""
        size = self._cdp("Page.getLayoutMetrics", {})["cssContentSize"]
        area = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        options = {"format": "png", "captureBeyondViewport": True, "clip": area}
        path.write_bytes(base64.b64decode(self._cdp("Page.captureScreenshot", options)["data"]))


class BrowserError(Exception):
    """What WebDriver answers; `kind` is its name for it."""

    def __init__(self, answer: dict[str, str]):
        super().__init__(answer["message"])
        self.kind = answer["error"]


def _wait(look: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `look` returns as soon as it is something."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain for: {what}"
        time.sleep(0.1)
