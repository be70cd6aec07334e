"""The Space in a browser: upload, run, read the result, on every tab, on a laptop and on a phone."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.timeout(600)  # the first test waits for the server, too

SAID = "bin blue at f two now"  # in the example of one portrait
READ, SEE, ASK = (f"button[role=tab]:nth-of-type({number})" for number in (1, 2, 3))
QUESTION = "#ask-question :is(textarea, input)"
BUBBLES = "return [...document.querySelectorAll('#ask-chat [data-testid=' + arguments[0] + '] .message-content')].map("
BUBBLES += "bubble => bubble.innerText.trim())"
LOADED = "return document.querySelector(arguments[0])?.readyState >= 1"
TOAST = "[class*=toast]"
SHOWN = "return document.querySelector(arguments[0])?.naturalWidth > 0"
VIDEO = "const v = document.querySelector(arguments[0]); return [v.videoWidth, v.videoHeight, v.duration, v.error]"


def choose(page, group: str, value: str) -> None:
    """Ticks the radio button of a group that has a value."""
    page.click(f'{group} input[value="{value}"]')


def draw(page, path: list[tuple[float, float]], tool: str | None = None) -> None:
    """Draws on the pad of the tab "See", in shares of its picture."""
    if tool is not None:
        page.click(f"#see-pad [data-tool={tool}]")
    page.drag("#see-pad .pad-drawing", path)


def overflow(page) -> int:
    """Pixels by which the page is wider than its window."""
    return page.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")


def wait_for_files(folder: Path, patterns: list[str]) -> list[Path]:
    """The files of these patterns, once the browser has written them."""
    end = time.monotonic() + 60
    while True:
        found = [next((path for path in folder.glob(pattern) if path.stat().st_size), None) for pattern in patterns]
        if None not in found:
            return found
        assert time.monotonic() < end, [str(path) for path in folder.iterdir()]
        time.sleep(0.1)


def write_video(path: Path, seconds: int, size: tuple[int, int] = (48, 64)) -> Path:
    """A grey video, ten pictures a second."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.full((*size, 3), 128, np.uint8), format="rgb24")
        for _ in range(10 * seconds):
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def read_page(chromium, space):
    """The page after the example of one portrait was uploaded and read."""
    chromium.as_laptop()
    chromium.open(space.url)
    chromium.upload("#read-video", space.examples / "one.mp4")
    chromium.wait_for(LOADED, "#read-video video")
    chromium.click("#read-run")
    chromium.text_of("#read-said .said")
    return chromium


def test_uploaded_speech_is_read(read_page):
    assert read_page.text("#read-said .said") == SAID
    rows = read_page.rows("#read-words")
    assert [row[0] for row in rows] == SAID.split()
    times = [float(cell.removesuffix(" s")) for row in rows for cell in row[1:3]]
    assert times == sorted(times) and 0 < times[0] and times[-1] < 2.7
    assert all(0 <= float(row[3]) <= 1 for row in rows)


def test_captioned_video_plays_in_the_browser(read_page):
    read_page.wait_for(LOADED, "#read-captioned video")
    width, height, seconds, error = read_page.run(VIDEO, "#read-captioned video")
    assert error is None and height >= 480 and width / height == pytest.approx(360 / 288, abs=0.02)
    assert seconds == pytest.approx(2.56, abs=0.1)


def test_crops_and_report_are_shown(read_page):
    read_page.wait_for(SHOWN, "#read-strips img")
    facts = dict(read_page.rows("#read-report"))
    assert facts["Read from"] == "sound and lips"
    assert facts["Frames with the face"] == "100 %" and facts["Faces in view, at most"] == "1"
    assert "48 x 48" in read_page.text("#read-strips")


def test_subtitles_can_be_downloaded(read_page, tmp_path):
    read_page.download_to(tmp_path)
    for kind in ("srt", "vtt", "json"):
        read_page.click(f"#read-{kind}")
    wanted = [f"one-*.{kind}" for kind in ("srt", "vtt", "json")]  # no name can be guessed
    srt, vtt, result = (path.read_text(encoding="utf-8") for path in wait_for_files(tmp_path, wanted))
    assert SAID in srt and " --> " in srt and srt.startswith("1\n00:00:0")
    assert SAID in vtt and vtt.startswith("WEBVTT")
    assert json.loads(result)["text"] == SAID and json.loads(result)["report"]["frames"] == 64


def test_read_page_fits_on_a_phone(read_page):
    read_page.as_phone()
    try:
        assert overflow(read_page) <= 0
        width = read_page.run("return document.querySelector('#read-run').getBoundingClientRect().width")
        assert width > 350  # one column, and little beside it
    finally:
        read_page.as_laptop()


def test_nothing_is_fetched_from_elsewhere(read_page, space):
    names = read_page.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert len(names) > 20
    assert [name for name in names if not name.startswith((space.url, "data:", "blob:"))] == []


def test_face_that_is_tapped_is_what_is_asked_for(page, space):
    """The picture is there whether one chooses before or after the upload; a second tap replaces the first."""
    height = "return document.querySelector('#read-pad').getBoundingClientRect().height"
    assert page.run(height) == 0
    page.upload("#read-video", space.examples / "two.mp4")
    page.wait_for(SHOWN, "#read-pad .pad-picture")
    choose(page, "#read-who", "point")
    page.wait_for(f"{height} > 100")
    page.drag("#read-pad .pad-drawing", [(0.25, 0.4), (0.25, 0.4)])
    page.drag("#read-pad .pad-drawing", [(0.75, 0.4), (0.75, 0.4)])
    points = page.run("return document.querySelector('#read-pad .pad-point polyline').getAttribute('points')")
    x, y = map(float, points.split()[0].split(","))
    size = page.run("return document.querySelector('#read-pad .pad-drawing').getAttribute('viewBox')").split()
    width, height = map(float, size[2:])
    assert page.run("return document.querySelectorAll('#read-pad .pad-shape').length") == 1
    assert (x / width, y / height) == pytest.approx((0.75, 0.4), abs=0.02)


@pytest.mark.slow
def test_everyone_is_read_by_themselves(page, space, tmp_path):
    choose(page, "#read-who", "everyone")
    page.upload("#read-video", space.examples / "two.mp4")
    page.wait_for(LOADED, "#read-video video")
    page.click("#read-run")
    said = page.text_of("#read-said .said", "Speaker 2")
    assert said.startswith("Speaker 1: ")
    assert {row[4] for row in page.rows("#read-words")} == {"Speaker 1", "Speaker 2"}
    assert page.text("#read-report").count("Frames with the face") == 2
    assert page.text("#read-strips").startswith("Speaker 1\n") and "\nSpeaker 2\n" in page.text("#read-strips")
    page.wait_for(LOADED, "#read-captioned video")  # until then it moves what is below it
    page.download_to(tmp_path)
    page.click("#read-vtt")
    vtt = wait_for_files(tmp_path, ["two-*.vtt"])[0].read_text(encoding="utf-8")
    assert "<v Speaker 1>" in vtt and "<v Speaker 2>" in vtt


def test_example_fills_the_questions_in(page):
    page.click("#read-examples button:nth-of-type(2)")
    page.wait_for(LOADED, "#read-video video")
    page.wait_for("return document.querySelector('#read-description textarea, #read-description input')?.value")
    page.wait_for("return document.querySelector('#read-description').getBoundingClientRect().height > 20")
    assert page.run("return document.querySelector('#read-who input:checked').value") == "text"


def test_things_named_described_and_shown_are_found_in_a_picture(page, space, tmp_path):
    facts = json.loads((space.examples / "scene.json").read_text())
    boxes = {found["label"]: np.array(found["box"]) / (600, 480, 600, 480) for found in facts["objects"]}
    x0, y0, x1, y1 = boxes["yellow square"]
    page.click(SEE)
    page.upload("#see-file", space.examples / "scene.png")
    page.wait_for(SHOWN, "#see-pad .pad-picture")
    page.type("#see-labels textarea", "white star")
    page.type("#see-sentences textarea", "the yellow square")
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    draw(page, [middle, middle])
    draw(page, [(x0, y0), middle, (x1, y1)], "box")
    draw(page, [(0.6 * x0 + 0.4 * x1, middle[1]), middle, (0.4 * x0 + 0.6 * x1, middle[1])], "scribble")
    draw(page, [(0.05, 0.05), (0.1, 0.1), (0.15, 0.05)])
    page.click("#see-pad [data-act=undo]")
    page.click("#see-run")
    page.wait_for(SHOWN, "#see-picture img")
    rows = page.rows("#see-table")
    assert [row[0] for row in rows] == ["white star", "the yellow square", "point 1", "box 1", "scribble 1"]
    found = {row[0]: np.array([float(side) for side in row[2].split(", ")]) / (600, 480, 600, 480) for row in rows}
    assert np.abs(found["white star"] - boxes["white star"]).max() < 0.05
    for asked in ("the yellow square", "point 1", "box 1", "scribble 1"):
        assert np.abs(found[asked] - boxes["yellow square"]).max() < 0.05, asked


@pytest.mark.slow
def test_moving_things_are_followed_through_a_video(page, space):
    page.click(SEE)
    page.click("#see-examples button:nth-of-type(2)")
    page.wait_for(SHOWN, "#see-pad .pad-picture")
    page.click("#see-run")
    page.wait_for(LOADED, "#see-tracked video")
    width, height, seconds, error = page.run(VIDEO, "#see-tracked video")
    assert (width, height, error) == (360, 288, None) and seconds == pytest.approx(5.0, abs=0.2)
    rows = page.rows("#see-table")
    assert rows and len({row[0] for row in rows}) == len(rows)
    assert max(int(row[3]) for row in rows) >= 30  # frames of the longest track, of 60


def test_see_page_fits_on_a_phone(page, space):
    page.as_phone()
    page.click(SEE)
    page.click("#see-examples button:nth-of-type(1)")
    page.wait_for(SHOWN, "#see-pad .pad-picture")
    page.click("#see-run")
    page.wait_for(SHOWN, "#see-picture img")
    assert page.rows("#see-table") and overflow(page) <= 0


def ask_page(page, picture: Path) -> None:
    """Opens the tab "Ask" and gives it a picture."""
    page.click(ASK)
    page.upload("#ask-file", picture)
    page.wait_for(SHOWN, "#ask-picture img")


def answers(page, count: int) -> list[str]:
    """The words of all answers, once there are this many and the last one has its picture."""
    images = "#ask-chat [data-testid=bot] img"
    page.wait_for(f"return document.querySelectorAll('{images}').length == arguments[0]", count)
    page.wait_for(f"return [...document.querySelectorAll('{images}')].at(-1).naturalWidth > 0")
    return page.run(BUBBLES, "bot")


def test_a_picture_is_asked_about_and_asked_about_again(page, space):
    """Answers stay, each with its picture; what is typed is shown as it is."""
    ask_page(page, space.examples / "scene.png")
    page.type(QUESTION, "Where is the white star?")
    page.click("#ask-run")
    assert all(answers(page, 1))
    assert page.run("return document.querySelector(arguments[0]).value", QUESTION) == ""
    page.type(QUESTION, "Show the yellow <b>square</b>.\n")
    assert len(answers(page, 2)) == 2
    assert page.run(BUBBLES, "user") == ["Where is the white star?", "Show the yellow <b>square</b>."]
    alternatives = page.run("return [...document.querySelectorAll('#ask-chat img')].map(image => image.alt)")
    assert len(set(page.run("return [...document.querySelectorAll('#ask-chat img')].map(image => image.src)"))) == 2
    assert all(text.startswith("Shown: ") for text in alternatives)
    end = "const log = document.querySelector('#ask-chat [role=log]'); "
    page.wait_for(end + "return log.scrollTop + log.clientHeight >= log.scrollHeight - 2")  # the last one is in view
    page.click("#ask-again")
    page.wait_for("return !document.querySelector('#ask-chat [data-testid=user]')")


def test_what_is_asked_for_is_named_and_shown(page, space):
    ask_page(page, space.examples / "scene.png")
    for number, label in enumerate(("white star", "yellow square"), 1):
        page.type(QUESTION, f"Show the {label}.\n")
        assert label in answers(page, number)[-1]


def test_another_picture_begins_another_conversation(page, space):
    ask_page(page, space.examples / "scene.png")
    page.type(QUESTION, "Where is the white star?\n")
    answers(page, 1)
    page.click("#ask-examples button:nth-of-type(2)")
    page.wait_for("return !document.querySelector('#ask-chat [data-testid=user]')")
    assert page.wait_for("return document.querySelector(arguments[0]).value", QUESTION).startswith("How many rings")
    page.wait_for("return document.querySelector('#ask-file').innerText.includes('crowd')")


def test_ask_page_fits_on_a_phone(page, space):
    page.as_phone()
    ask_page(page, space.examples / "scene.png")
    page.type(QUESTION, "Where is the white star?\n")
    assert answers(page, 1) and overflow(page) <= 0


def test_what_cannot_be_asked_is_said_in_the_page(page, space, tmp_path):
    page.click(ASK)
    page.type(QUESTION, "Where is the white star?")
    page.click("#ask-run")
    page.text_of(TOAST, "Choose a picture first")
    path = tmp_path / "broken.png"
    path.write_bytes((space.examples / "scene.png").read_bytes()[:900])
    page.upload("#ask-file", path)
    texts = "[...document.querySelectorAll(arguments[0])].map(toast => toast.innerText)"
    said = page.wait_for(f"return {texts}.find(text => text.includes('broken.png'))", TOAST)
    assert "/" not in said


@pytest.mark.parametrize(
    ("name", "message"),
    [("none", "Choose a video first"), ("long", "lasts 21 seconds; the limit here is 20"), ("broken", "broken.mp4")],
)
def test_what_is_wrong_is_said_in_the_page(page, tmp_path, name, message):
    path = tmp_path / f"{name}.mp4"
    if name == "long":
        write_video(path, 21)
    if name == "broken":
        path.write_bytes(b"\0\0\0\x18ftypmp42 and then nothing that a video has")
    if name != "none":
        page.upload("#read-video", path)
    else:
        page.click("#read-run")
    said = page.text_of(TOAST, message)
    assert "/" not in said.replace("and/or", "")  # no folder of the server


def test_file_that_is_too_large_is_refused(page, tmp_path):
    path = tmp_path / "large.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(6_000_000))
    page.upload("#read-video", path)
    page.text_of(TOAST, "exceed the maximum allowed size")


def test_nothing_asked_for_is_said(page, space):
    page.click(SEE)
    page.upload("#see-file", space.examples / "scene.png")
    page.wait_for(SHOWN, "#see-pad .pad-picture")
    page.click("#see-run")
    page.text_of(TOAST, "Say what to look for")


@pytest.fixture
def client(space, tmp_path, monkeypatch):
    """Gradio's own client, as anyone may use it; it leaves a folder for each file that it fetches."""
    from gradio_client import Client

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return Client(space.url, verbose=False, download_files=str(tmp_path))


@pytest.mark.slow
def test_the_place_in_the_queue_is_shown(page, space, client, tmp_path):
    """On every tab, also where there is an answer already, while the model works for somebody else."""
    from gradio_client import handle_file

    page.click(SEE)
    page.upload("#see-file", space.examples / "scene.png")
    page.type("#see-labels textarea", "white star")
    page.click("#see-run")
    page.wait_for(SHOWN, "#see-picture img")
    page.click(ASK)
    page.upload("#ask-file", space.examples / "scene.png")
    page.type(QUESTION, "Where is the white star?")
    page.click(READ)
    page.upload("#read-video", space.examples / "one.mp4")
    page.wait_for(LOADED, "#read-video video")
    long = handle_file(write_video(tmp_path / "long.mp4", 14))
    jobs = [client.submit(long, "star", api_name="/see") for _ in range(2)]
    try:
        while jobs[0].status().code.name != "PROCESSING":
            time.sleep(0.1)
        for tab, name in ((READ, "read"), (SEE, "see"), (ASK, "ask")):
            page.click(tab)
            page.click(f"#{name}-run")
            assert page.text_of(f"#{name}-answer", "queue: ")
            page.click(f"#{name}-stop")
    finally:
        for job in jobs:
            job.cancel()


def test_programs_are_answered_too(space, client):
    """What is not given is as the page has it."""
    from gradio_client import exceptions, handle_file

    assert set(client.view_api(return_format="dict", print_info=False)["named_endpoints"]) == {"/read", "/see", "/ask"}
    with pytest.raises(exceptions.AppError, match="Describe the speaker"):
        client.predict(handle_file(space.examples / "one.mp4"), "text", api_name="/read")
    _, picture, _, table = client.predict(handle_file(space.examples / "scene.png"), "star", api_name="/see")
    assert Path(picture["value"]).is_file() and "<td>" in table and "star" in table
    scene = handle_file(space.examples / "scene.png")
    for number, question in enumerate(("Where is the white star?", "Where is the yellow square?"), 1):
        chat, _ = client.predict(scene, question, api_name="/ask")
        assert [message["role"] for message in chat] == ["user", "assistant"] * number


def test_webcam_is_recorded(page):
    """The browser's own test picture, as large as a mouth needs it; its first frame is there to be tapped."""
    choose(page, "#read-who", "point")
    page.click("#read-video [aria-label='Capture from camera']")
    page.click("#read-video button:has(.wrap)")
    page.wait_for("return document.querySelector('#read-video video')?.videoWidth > 0")
    page.click("#read-video [aria-label='start recording']")
    time.sleep(1.5)
    page.click("#read-video [aria-label='start recording']")  # the same button ends it
    page.wait_for(SHOWN, "#read-pad .pad-picture")
    assert page.run("return document.querySelector('#read-pad .pad-picture').naturalWidth") == 640
