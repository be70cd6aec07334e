"""`lookhear live`: which device is opened how, captions on a terminal and elsewhere, files at their own speed."""

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
import pytest

from lookhear import cli
from lookhear.commands.live import Caption, device_of, open_source

LINUX = {"video4linux2,v4l2", "alsa", "rtsp"}


@pytest.fixture
def run(capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        try:
            code = cli.main(["live", *(str(argument) for argument in arguments)])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


def test_each_system_has_its_devices():
    camera, microphone = "--camera", "--microphone"
    assert device_of(camera, None, "linux", LINUX) == ("v4l2", "/dev/video0")
    assert device_of(camera, "/dev/video2", "linux", LINUX) == ("v4l2", "/dev/video2")
    assert device_of(microphone, None, "linux", LINUX) == ("alsa", "default")
    assert device_of(microphone, None, "linux", {*LINUX, "pulse"}) == ("pulse", "default")
    assert device_of(camera, None, "darwin", {"avfoundation"}) == ("avfoundation", "0:none")
    assert device_of(microphone, "1", "darwin", {"avfoundation"}) == ("avfoundation", "none:1")
    assert device_of(camera, "USB Camera", "win32", {"dshow"}) == ("dshow", "video=USB Camera")
    with pytest.raises(ValueError, match="--microphone: name the device"):
        device_of(microphone, None, "win32", {"dshow"})
    with pytest.raises(ValueError, match="--camera: this build of PyAV opens no such devices"):
        device_of(camera, None, "linux", {"alsa"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clip.mp4", "--camera", "0"], "--camera and --microphone are for devices, and SOURCE is clip.mp4"),
        (["--camera", "none", "--microphone", "none"], "leave nothing to read"),
        (["nowhere.mp4"], "nowhere.mp4 is no file; an address begins with rtsp://"),
        (["ftp://host/clip.mp4"], "ftp://host/clip.mp4: streams come by "),
        (["rtsp://127.0.0.1:9/none"], "rtsp://127.0.0.1:9/none cannot be opened: "),
        (["--camera", "/dev/nothing", "--microphone", "none"], "--camera"),
        (["clip.mp4", "--speaker", "1,2,3"], "argument --speaker: '1,2,3' is neither X,Y"),
    ],
)
def test_bad_input_is_one_line(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1, err


def test_a_playlist_opens_no_files(tmp_path):
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    with pytest.raises(ValueError, match="cannot be opened|neither video nor sound"):
        open_source(str(tmp_path / "list.m3u8"))


def test_a_stream_loses_nothing_while_it_is_opened(tmp_path):
    """What is read to find out what a stream holds is its beginning, and is heard as well."""
    path = tmp_path / "sound.ts"
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mp2", rate=16000, layout="mono")
        sound = np.random.default_rng(0).integers(-3000, 3000, (1, 32000), dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode(None)])

    def samples(source: str) -> int:
        opened = open_source(source)
        try:
            return sum(frame.samples for frame, _ in opened.frames(time.monotonic() - 60))
        finally:
            opened.close()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert samples(f"http://127.0.0.1:{server.server_port}/sound.ts") == samples(str(path)) >= 32000
        finally:
            server.shutdown()


def word(text: str, start: float, end: float) -> dict:
    return {"text": text, "timestamp": (start, end), "confidence": 0.9, "delay": 0.8}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_captions():
    def shown(out: io.StringIO, json_lines: bool = False) -> str:
        caption = Caption(json_lines, out)
        caption.show([word("bin", 0.5, 0.8)], "blu")
        caption.show([], "blue")
        caption.show([word("blue", 0.8, 1.2), word("now", 3.0, 3.3)])
        caption.end()
        return out.getvalue()

    assert shown(io.StringIO()) == "bin blue\nnow\n", "a pause ends a line"
    lines = [json.loads(line) for line in shown(io.StringIO(), json_lines=True).splitlines()]
    assert lines == [
        json.loads(json.dumps(word(*one))) for one in (("bin", 0.5, 0.8), ("blue", 0.8, 1.2), ("now", 3.0, 3.3))
    ]
    text = shown(Terminal())
    assert "\x1b[2mblu  0.8 s\x1b[0m" in text and re.sub(r"[^\n]*\r\x1b\[K", "", text) == "bin blue\nnow\n"


def test_help_needs_no_heavy_import(light_command):
    done = light_command("live", "--help")
    assert done.returncode == 0 and "lookhear live clip.mp4" in done.stdout


SAID = "bin blue at f two now"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from lookhear.training.avsr.synthesis import synthesize_clip

    path = tmp_path_factory.mktemp("live") / "clip.mp4"
    synthesize_clip(SAID, path, portrait="hopper")
    return path


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """No picture is left out, however busy the machine is."""
    from lookhear.processing.avsr import live_source_avsr

    for name in ("BEHIND", "FAR_BEHIND"):
        monkeypatch.setattr(live_source_avsr, name, 1000)


@pytest.mark.slow
def test_a_file_is_read_at_its_own_speed(run, clip):
    began = time.monotonic()
    code, out, err = run(clip, "--json")
    passed = time.monotonic() - began
    words = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and " ".join(one["text"] for one in words) == SAID
    assert all(0 <= one["delay"] < 30 for one in words) and passed > 1.8
    assert re.search(r"lookhear live: \d\.\d s, 6 words, \d+\.\d s after their end, 95 % within", err)
    code, out, err = run(clip, "--seconds", "0.2")
    assert (code, out) == (0, "") and ", 0 words" in err


@pytest.mark.slow
def test_a_stream_comes_through_a_pipe(clip):
    import soundfile

    from lookhear.processing.avsr import read_audio

    soundfile.write(clip.with_suffix(".wav"), read_audio(clip), 16000)
    command = [sys.executable, "-m", "lookhear", "live", "-", "--modality", "audio"]
    with open(clip.with_suffix(".wav"), "rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == SAID + "\n", done.stderr


@pytest.mark.slow
def test_the_guide(repository, run, clip, tmp_path, monkeypatch, capsys):
    """Its commands on files, and its Python."""
    shutil.copy(clip, tmp_path / "clip.mp4")
    (tmp_path / "model_cards").symlink_to(repository / "model_cards")
    monkeypatch.chdir(tmp_path)
    text = (repository / "docs" / "guides" / "live.md").read_text(encoding="utf-8")
    lines = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("lookhear live clip.mp4")]
    assert len(commands) >= 2
    for words in commands:
        assert run(*words[2:])[0] == 0
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    exec(code, {})
    assert re.search(r"^bin \(", capsys.readouterr().out, re.MULTILINE)
