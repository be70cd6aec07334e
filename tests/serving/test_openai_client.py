"""The client that people have, `openai`, against `lookhear serve` on this machine."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

openai = pytest.importorskip("openai", reason="needs the package openai")
pytest.importorskip("starlette", reason="needs lookhear[serve]")


@pytest.fixture(scope="module")
def address(announced):
    """Where `lookhear serve` answers, with the packaged checkpoint and a key."""
    command = [sys.executable, "-m", "lookhear", "serve", "--port", "0", "--seconds", "9"]
    environment = {**os.environ, "LOOKHEAR_API_KEY": "key"}
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield announced(server, r"^lookhear serve: avsr-grid-tiny at (http://127\.0\.0\.1:\d+/v1)$")[1]
    finally:
        server.send_signal(signal.SIGINT)
        rest = server.communicate(timeout=60)[1]
    assert server.returncode == 130 and rest.endswith("lookhear: stopped\n") and "Traceback" not in rest


@pytest.fixture
def client(address):
    return openai.OpenAI(base_url=address, api_key="key", max_retries=0)


@pytest.fixture(scope="module")
def clip(talking_clips) -> Path:
    return talking_clips / "0.mp4"  # "bin blue", with lips


@pytest.mark.slow
def test_a_video_is_transcribed(client, clip):
    from transformers import pipeline

    import lookhear  # noqa: F401

    expected = pipeline("audio-visual-speech-recognition", device="cpu")(str(clip), return_timestamps="word")
    create = client.audio.transcriptions.create
    with clip.open("rb") as file:
        assert create(model="avsr-grid-tiny", file=file).text == expected["text"] != ""
    verbose = create(
        model="whisper-1", file=clip, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert verbose.text == expected["text"] and verbose.duration == pytest.approx(expected["report"]["duration"])
    assert [(word.word, word.start) for word in verbose.words] == [
        (chunk["text"], chunk["timestamp"][0]) for chunk in expected["chunks"]
    ]
    assert " ".join(segment.text for segment in verbose.segments) == expected["text"]
    srt = create(model="avsr-grid-tiny", file=clip, response_format="srt")
    assert "-->" in srt and expected["chunks"][0]["text"] in srt
    lips = create(model="avsr-grid-tiny", file=clip, extra_body={"modality": "visual"})
    sound = create(model="avsr-grid-tiny", file=clip, extra_body={"modality": "audio"})
    assert lips.text and sound.text


@pytest.mark.slow
def test_words_come_one_by_one(client, clip):
    events = list(client.audio.transcriptions.create(model="avsr-grid-tiny", file=clip, stream=True))
    assert [event.type for event in events[-1:]] == ["transcript.text.done"]
    assert "".join(event.delta for event in events[:-1]) == events[-1].text != ""


@pytest.mark.slow
def test_errors_are_the_clients(address, client, clip, tmp_path):
    create = client.audio.transcriptions.create
    with pytest.raises(openai.NotFoundError, match="there is avsr-grid-tiny"):
        create(model="other", file=clip)
    with pytest.raises(openai.BadRequestError, match="`num_beams` is too large"):
        create(model="avsr-grid-tiny", file=clip, extra_body={"num_beams": 99})
    other = openai.OpenAI(base_url=address, api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        other.audio.transcriptions.create(model="avsr-grid-tiny", file=clip)
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(60_000_000))
    with pytest.raises(openai.APIStatusError, match="the limit here is 50") as refused:
        create(model="avsr-grid-tiny", file=large)
    assert refused.value.status_code == 413
    assert [model.id for model in client.models.list()] == ["avsr-grid-tiny"]
