"""The Space's tab "Live" apart from its page: recordings that grow, visitors who leave, limits; and in a browser."""

from __future__ import annotations

import base64
import io
import threading
import time

import numpy as np
import pytest

pytest.importorskip("gradio", reason="needs Gradio: pip install 'lookhear[demo]'")

SAID = "bin blue at f two now"


class _Unseekable(io.RawIOBase):
    """What a recorder writes into."""

    def __init__(self):
        super().__init__()
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.content += data
        return len(data)


@pytest.fixture(scope="module")
def recording() -> bytes:
    """A second of webm's container without a length: ten pictures of 64x48, and noise at 16 kHz."""
    import av

    file = _Unseekable()
    with av.open(file, "w", format="matroska", options={"live": "1", "cluster_time_limit": "100"}) as container:
        video, audio = container.add_stream("mjpeg", rate=10), container.add_stream("pcm_s16le", rate=16000)
        video.height, video.width, video.pix_fmt = 48, 64, "yuvj420p"
        noise = np.random.default_rng(0).integers(-3000, 3000, (1, 16000), dtype=np.int16)
        for number in range(10):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * number, np.uint8), format="rgb24")
            container.mux(video.encode(picture))
            sound = av.AudioFrame.from_ndarray(noise[:, number * 1600 :][:, :1600], format="s16", layout="mono")
            sound.sample_rate, sound.pts = 16000, number * 1600
            container.mux(audio.encode(sound))
        container.mux([*video.encode(None), *audio.encode(None)])
    return bytes(file.content)


class Speech:
    """Stands for `LiveSpeech`: notes what is pushed, and says a word for every three pictures."""

    hears = sees = True
    dropped, partial = 2, "perhaps"

    def __init__(self):
        self.samples, self.times, self.values, self.chosen = 0, [], [], []
        self.finished = self.closed = False

    def push(self, sound=None, pictures=None, times=None):
        if sound is not None:
            self.samples += sound.shape[1]
            return []
        self.times += times
        self.values += [int(one.mean()) for one in pictures]
        return [self.word(len(self.times) // 3)] if len(self.times) % 3 == 0 else []

    @staticmethod
    def word(number: int) -> dict:
        return {"text": f"w{number}", "timestamp": (number / 10, number / 10 + 0.1), "confidence": 1.0, "delay": 0.5}

    def finish(self):
        self.finished = True
        return [self.word(9)]

    def choose(self, speaker):
        self.chosen.append(speaker)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.closed = True


class Asr:
    """A pipeline whose `live` gives a `Speech`, or what a test wants."""

    def __init__(self, speech=None):
        self.speech, self.calls = speech or Speech(), []

    def live(self, sampling_rate, fps, **settings):
        self.calls.append((sampling_rate, fps, settings))
        return self.speech


@pytest.fixture
def sessions(space_module):
    """`sessions(asr, seconds=…)`: the readings of a Space with these limits."""

    def make(asr, **limits):
        return space_module("live_reading").LiveSessions(asr, "see", space_module("limits").Limits(**limits))

    return make


def sent(token: str, piece: bytes = b"", last: bool = False) -> dict:
    return {"token": token, "piece": base64.b64encode(piece).decode(), "last": last}


def rest(sessions, token: str, answer: dict) -> list[dict]:
    """All answers from this one to the last."""
    answers, end = [answer], time.monotonic() + 20
    while not answers[-1]["over"]:
        assert time.monotonic() < end
        time.sleep(0.01)
        answers.append(sessions.push(sent(token, last=True)))
    return answers


def test_a_recording_is_read_while_it_grows(sessions, recording):
    asr = Asr()
    live = sessions(asr)
    begun = live.begin({"from": "auto", "who": " the woman "})
    assert set(begun) == {"token", "seconds"} and begun["seconds"] == 120
    third = len(recording) // 3
    answers = [live.push(sent(begun["token"], recording[:third]))]
    end = time.monotonic() + 20
    while not asr.speech.times and time.monotonic() < end:  # before the rest is there
        time.sleep(0.01)
    assert 0 < len(asr.speech.times) < 10 and not asr.speech.finished
    assert live.choose({"token": begun["token"], "point": [30, 20]}) == {"error": None}
    answers.append(live.push(sent(begun["token"], recording[third : 2 * third])))
    answers += rest(live, begun["token"], live.push(sent(begun["token"], recording[2 * third :], last=True)))
    assert [word["text"] for answer in answers for word in answer["words"]] == ["w1", "w2", "w3", "w9"]
    assert all(answer["error"] is None and answer["left_out"] in (0, 2) for answer in answers)
    assert asr.calls == [(16000, 25.0, {"modality": "auto", "speaker": "the woman", "speaker_locator": "see"})]
    assert asr.speech.samples == 16000 and asr.speech.times == pytest.approx(np.arange(10) / 10, abs=0.002)
    assert np.abs(np.array(asr.speech.values) - 20 * np.arange(10)).max() <= 2
    assert asr.speech.chosen == [{"point": (30.0, 20.0)}] and asr.speech.closed
    assert "ended" in live.push(sent(begun["token"]))["error"], "it is forgotten"


def test_a_reading_ends_when_its_visitor_leaves(space_module, sessions, monkeypatch, recording):
    monkeypatch.setattr(space_module("live_reading"), "PATIENCE", 0.05)
    asr = Asr()
    live = sessions(asr)
    live.push(sent(live.begin({})["token"], recording[: len(recording) // 2]))
    end = time.monotonic() + 20
    while not asr.speech.closed and time.monotonic() < end:
        time.sleep(0.01)
    assert asr.speech.closed and not asr.speech.finished, "nobody waits for the rest"
    for thread in [one for one in threading.enumerate() if one.name == "live"]:
        thread.join(20)
    assert "token" in live.begin({}), "another visitor may begin"


def test_only_so_many_are_read_live(sessions, recording):
    live = sessions(Asr(), live_seconds=30)
    first = live.begin({})
    assert "Others are being read live; try again in" in live.begin({})["error"]
    rest(live, first["token"], live.push(sent(first["token"], recording, last=True)))
    assert "token" in live.begin({})


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"megabytes": 0.001}, "larger than the limit"),
        ({"megapixels": 0.001}, "64 x 48 pixels; the limit here is"),
        ({"gigapixels": 5 * 64 * 48 / 1e9}, "too large to be read for so long"),
        ({"live_seconds": 0.45}, None),
    ],
)
def test_limits_of_a_recording(sessions, recording, limits, message):
    asr = Asr()
    live = sessions(asr, **limits)
    token = live.begin({})["token"]
    last = rest(live, token, live.push(sent(token, recording, last=True)))[-1]
    if message is None:
        assert last["error"] is None and len(asr.speech.times) == 5 and asr.speech.finished
    else:
        assert message in last["error"] and len(asr.speech.times) <= 5


@pytest.mark.parametrize("raised", [ValueError("`speaker`: /secret/folder/model is\nno model"), RuntimeError("cuda")])
def test_what_goes_wrong_is_one_line(sessions, recording, raised):
    speech = Speech()

    def push(**given):
        raise raised

    speech.push = push
    live = sessions(Asr(speech))
    token = live.begin({})["token"]
    last = rest(live, token, live.push(sent(token, recording, last=True)))[-1]
    expected = (
        "`speaker`: model is no model" if isinstance(raised, ValueError) else "Something went wrong: start again."
    )
    assert last["error"] == expected and speech.closed


def test_what_a_browser_sends_is_not_trusted(sessions, recording):
    live = sessions(Asr())
    for asked in ({"from": "all"}, {"who": "x" * 300}, {"from": "audio", "who": "me"}, {"from": ["auto"]}):
        assert set(live.begin(asked)) == {"error"}
    for nothing in (None, [], "token", {"token": None}, {"token": "guessed"}):
        assert live.push(nothing)["over"] and "ended" in live.choose(nothing)["error"]
    token = live.begin(None)["token"]
    assert live.push({"token": token, "piece": "no base64!"})["error"]
    assert "too large" in live.push(sent(token, bytes(5_000_000)))["error"]
    for point in (None, [1], ["a", "b"], [float("nan"), 1], {}):
        assert live.choose({"token": token, "point": point})["error"], point
    last = rest(live, token, live.push(sent(token, b"\0\0\0\x18ftypmp42" + bytes(200), last=True)))[-1]
    assert last["error"] == "The recording cannot be read."
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n/etc/passwd\n#EXT-X-ENDLIST\n"
    token = live.begin({})["token"]
    assert (
        rest(live, token, live.push(sent(token, playlist, last=True)))[-1]["error"] == "The recording cannot be read."
    )


# ------------------------------------------------------------------------------------------------------- in a browser


def write_camera(clip, folder, pause: int = 40) -> list[str]:
    """What a camera and a microphone give, again and again: a clip, then its last picture for `pause` frames."""
    import av
    import soundfile

    from lookhear.processing.avsr import read_audio

    with av.open(str(clip)) as container:
        frames = [frame.reformat(format="yuv420p").to_ndarray().tobytes() for frame in container.decode(video=0)]
        width, height = container.streams.video[0].width, container.streams.video[0].height
    with (folder / "camera.y4m").open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420\n".encode())
        for frame in [*frames, *[frames[-1]] * pause]:
            file.write(b"FRAME\n" + frame)
    length = (len(frames) + pause) * 48000 // 25
    sound = read_audio(str(clip), 48000)[:length]
    soundfile.write(folder / "microphone.wav", np.pad(sound, (0, length - len(sound))), 48000, subtype="PCM_16")
    return [
        f"--use-file-for-fake-video-capture={folder / 'camera.y4m'}",
        f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}",
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_somebody_in_front_of_the_camera_is_read_live(space, start_browser, tmp_path_factory):
    """Words appear while they talk; stopping, leaving and coming back; what is wrong is said."""
    folder = tmp_path_factory.mktemp("camera")
    status = "return document.querySelector('.live-status').innerText"
    with start_browser(folder, *write_camera(space.examples / "one.mp4", folder)) as page:
        page.as_laptop()
        page.open(space.url)
        page.click("button[role=tab]:nth-of-type(4)")
        page.find(".live-start")
        page.run("document.querySelector('.live-from').value = 'audio'")
        page.click(".live-start")
        page.text_of(".live-said", SAID)
        assert page.text(".live-caption") and "s after they were said" in page.run(status)
        page.click(".live-stop")
        page.wait_for("return !document.querySelector('.live-start').disabled")
        said = page.text(".live-said").split()
        assert set(said) == set(SAID.split()) and "error" not in page.run(status)

        page.run("document.querySelector('.live-from').value = 'auto'")
        page.click(".live-start")
        page.wait_for("return document.querySelector('.live-video').videoWidth > 300")
        page.wait_for("return document.querySelector('.live-said').innerText.split(' ').length >= 6")
        page.click(".live-video")
        page.wait_for(f"{status}.startsWith('Whoever you tapped')")
        assert page.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        page.open("about:blank")  # without a word to the server
        page.open(space.url)
        page.click("button[role=tab]:nth-of-type(4)")
        page.click(".live-start")
        answer = page.wait_for(
            f"const text = {status.removeprefix('return ')}; return !text.startsWith('Open') && text"
        )
        assert "Others are being read live" in answer or "Talk" in answer
        end = time.monotonic() + 60
        while "Others" in page.run(status):  # until the server has noticed
            assert time.monotonic() < end
            time.sleep(1)
            page.click(".live-start")
            page.wait_for(f"return !({status.removeprefix('return ')}).startsWith('Open')")
        page.click(".live-stop")
        page.as_phone()
        assert page.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
