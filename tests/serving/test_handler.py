"""The handler of published checkpoints, in a process without lookhear; and what it refuses from strangers."""

import base64
import http.server
import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookhear.serving.handler import (
    SPEECH,
    Job,
    Limits,
    RequestError,
    Turns,
    checked_parameters,
    one_line,
    plain,
    received,
    run_lengths,
)

# As an endpoint does it: the folder's handler.py, an instance of its class, and calls with what came over HTTP.
CHILD = """
import base64, importlib.util, json, sys

folder, clip = sys.argv[1], open(sys.argv[2], "rb").read()
spec = importlib.util.spec_from_file_location("handler", f"{folder}/handler.py")
module = importlib.util.module_from_spec(spec)
sys.modules["handler"] = module
spec.loader.exec_module(module)
answer = module.EndpointHandler(path=folder, device="cpu")
text = base64.b64encode(clip).decode()

def refusal(data):
    try:
        answer(data)
    except ValueError as error:
        return str(error)

results = [answer(data) for data in json.loads(sys.argv[3].replace("CLIP", text))]
if answer.task == "audio-visual-speech-recognition":
    results.append(answer({"inputs": bytearray(clip), "parameters": {"return_timestamps": "word"}}))
refused = [refusal(data) for data in json.loads(sys.argv[4].replace("CLIP", text))]
there = sorted(name for name in sys.modules if name.split(".")[0] == "lookhear")
print("RESULT" + json.dumps([results, refused, there], allow_nan=False))
"""


def answers(folder: Path, clip: Path, asked: list, refused: list, without_lookhear) -> tuple[list, list]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", without_lookhear(CHILD), folder, clip, json.dumps(asked), json.dumps(refused)]
    child = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert child.returncode == 0, child.stderr[-3000:]
    results, messages, there = json.loads(child.stdout.split("RESULT")[1])
    assert there == [] and all(message and "\n" not in message for message in messages)
    return results, messages


def publish(folder: Path, name: str, target: Path) -> Path:
    from lookhear.publishing import gather

    for file in gather(folder, f"org/{name}").files:
        place = target / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.content if isinstance(file.content, bytes) else file.content.read_bytes())
    return target


@pytest.mark.slow
def test_a_speech_checkpoint_answers_without_lookhear(repository, talking_clips, tmp_path, without_lookhear):
    from transformers import pipeline

    folder = repository / "model_cards" / "avsr-grid-tiny"
    clip = talking_clips / "0.mp4"
    published = publish(folder, "tiny", tmp_path / "there")
    asked = [{"inputs": "CLIP"}, {"inputs": {"video": "CLIP", "modality": "visual"}}]
    refused = [{"inputs": str(clip)}, {"inputs": "CLIP", "parameters": {"language_model": "/etc"}}, {"inputs": 3}]
    results, messages = answers(published, clip, asked, refused, without_lookhear)
    expected = pipeline(SPEECH, model=str(folder), device="cpu")(clip.read_bytes(), return_timestamps="word")
    assert results[2]["text"] == results[0]["text"] == expected["text"] != ""
    assert results[2]["chunks"] == json.loads(json.dumps(expected["chunks"]))
    assert results[1]["report"]["modality"] == "visual"
    assert "neither base64 nor an http(s) address" in messages[0] or "not a clip" in messages[0]
    assert "'language_model' is none of these" in messages[1] and "must be a file's bytes" in messages[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["glee-tiny", "lisa-glee-tiny"])
def test_checkpoints_that_see_answer_without_lookhear(repository, tmp_path, without_lookhear, name):
    from lookhear.training.glee.scenes.scene_file import write_scene

    picture, _ = write_scene(tmp_path / "scene.png", seed=11)
    published = publish(repository / "model_cards" / name, "tiny", tmp_path / "there")
    parameters = {"labels": ["circle", "star"]} if name == "glee-tiny" else {"question": "Which one is red?"}
    refused = [{"inputs": "bm8gcGljdHVyZQ==", "parameters": parameters}]
    asked = [{"inputs": {"image": "CLIP", **parameters}}]
    (result,), messages = answers(published, picture, asked, refused, without_lookhear)
    found = result if name == "glee-tiny" else result["objects"]
    size = list(Image.open(picture).size[::-1])
    assert all(one["mask"]["size"] == size and sum(one["mask"]["counts"]) == size[0] * size[1] for one in found)
    assert name != "glee-tiny" or {one["label"] for one in found} <= {"circle", "star"} and found


def test_the_handler_needs_nothing_of_lookhear(repository):
    text = (repository / "src" / "lookhear" / "serving" / "handler.py").read_text()
    assert "import lookhear" not in text and "from lookhear" not in text and "from ." not in text


def test_run_lengths_are_cocos():
    mask = np.zeros((3, 4), bool)
    mask[0, 0] = mask[1:, 2] = True
    assert run_lengths(mask) == {"size": [3, 4], "counts": [0, 1, 6, 2, 3]}
    assert run_lengths(np.zeros((2, 2), bool))["counts"] == [4]
    assert run_lengths(np.ones((2, 2), bool))["counts"] == [0, 4]
    result = {"score": np.float32(0.5), "box": (1, np.int64(2)), "nan": float("nan"), "mask": mask}
    assert json.loads(json.dumps(plain(result), allow_nan=False))["box"] == [1, 2] and plain(result)["nan"] is None


@pytest.fixture
def site():
    """A server on this machine: /clip gives bytes, /far leads to a private address, /big never ends."""

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302 if self.path == "/far" else 200)
            if self.path == "/far":
                self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            for _ in range(40 if self.path == "/big" else 1):
                self.wfile.write(b"x" * 65536 if self.path == "/big" else b"clip")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_addresses_are_fetched_but_not_private_ones(site, monkeypatch):
    limits = Limits(megabytes=1)
    with pytest.raises(RequestError, match="^The address is not a public one.$"):
        received(site + "/clip", limits)
    monkeypatch.setenv("LOOKHEAR_SERVE_PRIVATE_URLS", "1")
    assert received(site + "/clip", limits) == b"clip"
    for path, message in (("/far", "cannot be fetched"), ("/big", "1 megabytes or more")):
        with pytest.raises(RequestError, match=message):
            received(site + path, limits)


@pytest.mark.parametrize("value", ["/etc/passwd", "file:///etc/passwd", "~/x.mp4", "ftp://host/x", None, 3, ["a"]])
def test_no_path_is_opened(value):
    with pytest.raises(RequestError) as refused:
        content = received(value, Limits())
        Limits().check_clip(io.BytesIO(content))  # what happens to be base64 is some bytes, and no clip
    assert refused.value.status in (400, 415) and "\n" not in str(refused.value)


def test_base64_and_data_addresses():
    text = base64.b64encode(b"clip" * 99).decode()
    assert received(text, Limits()) == received(f"data:video/mp4;base64,{text}", Limits()) == b"clip" * 99
    with pytest.raises(RequestError, match="megabytes") as refused:
        received(text * 4000, Limits(megabytes=1))
    assert refused.value.status == 413


def test_parameters_are_those_of_the_task():
    assert checked_parameters(SPEECH, {"num_beams": 3, "search": None}) == {"num_beams": 3}
    for given in ({"speaker_model": "x"}, {"num_beams": 21}, {"speaker": "x" * 501}, {"on_piece": 1}, [1]):
        with pytest.raises(RequestError):
            checked_parameters(SPEECH, given)
    with pytest.raises(RequestError, match="`labels` is too large"):
        checked_parameters("object-perception", {"labels": ["a"] * 201})
    with pytest.raises(RequestError, match="too long"):
        checked_parameters("object-perception", {"labels": ["a" * 30_000]})


def test_limits_come_from_the_environment():
    assert Limits.from_environment({"LOOKHEAR_SERVE_SECONDS": "7.5"}) == Limits(seconds=7.5)
    with pytest.raises(ValueError, match="LOOKHEAR_SERVE_WAITING must be a positive number, not '-1'"):
        Limits.from_environment({"LOOKHEAR_SERVE_WAITING": "-1"})


def test_clips_are_measured_before_they_are_decoded(tone, tmp_path):
    import av

    assert Limits().check_clip(io.BytesIO(tone(1.5))) == pytest.approx(1.5, abs=0.01)
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for _ in range(10):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((480, 640, 3), np.uint8))))
        file.mux(stream.encode())
    clip = io.BytesIO(path.read_bytes())
    assert Limits().check_clip(clip) == pytest.approx(2.0, abs=0.21) and clip.tell() == 0
    for limits, message in (
        (Limits(megapixels=0.3), "640 x 480 pixels"),
        (Limits(gigapixels=0.003), "10 frames"),
        (Limits(seconds=1), "lasts 2 seconds"),
    ):
        with pytest.raises(RequestError, match=message) as refused:
            limits.check_clip(io.BytesIO(path.read_bytes()))
        assert refused.value.status == 413


def test_messages_name_no_folder_of_this_machine():
    assert one_line(ValueError("'<123 bytes>' is\nbroken: /home/me/x.bin")) == "the file is broken: x.bin"
    assert one_line(OSError("see https://host/a/b")) == "see https://host/a/b"


def test_turns_are_taken_one_by_one():
    turns = Turns(1)
    turns.enter()
    turns.enter()
    with pytest.raises(RequestError) as refused:
        turns.enter()
    assert refused.value.status == 503 and turns.taken == 2
    stopped = Job(9, stopped=True)
    with turns.turn(Job(9)), pytest.raises(RequestError, match="given up"), turns.turn(stopped):
        pass
    with pytest.raises(RequestError, match="takes longer"), turns.turn(Job(0)) as _:
        raise AssertionError("its time is over")
    with turns.turn(Job(9)):
        turns.leave()
    assert turns.taken == 1


def test_a_module_of_the_handlers_own_name_loads(repository):
    """Dataclasses need their module in sys.modules; the endpoint's loader puts it there under another name."""
    path = repository / "src" / "lookhear" / "serving" / "handler.py"
    spec = importlib.util.spec_from_file_location("some_handler", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    assert module.EndpointHandler and module.Limits() == module.Limits()
