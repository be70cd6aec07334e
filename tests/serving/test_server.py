"""`lookhear serve`: what clients get, what is refused, and that one request at a time uses the model."""

import json
import socket
import threading
import time

import pytest

pytest.importorskip("starlette", reason="needs lookhear[serve]")

from lookhear.serving.handler import Limits

SMALL = Limits(megabytes=1, seconds=5, megapixels=1, gigapixels=1, job_seconds=60, waiting=2)


@pytest.fixture
def served(serve, told):
    with serve(told, SMALL) as running:
        yield running


def test_each_format(served, told, wav):
    assert served.send(wav, model="tiny") == (
        200,
        {"text": "BIN BLUE. NOW", "usage": {"type": "duration", "seconds": 1}},
    )
    assert served.send(wav, response_format="text") == (200, "BIN BLUE. NOW\n")
    assert served.send(wav, response_format="srt")[1].startswith("1\n00:00:00,100 --> ")
    assert served.send(wav, response_format="vtt")[1].startswith("WEBVTT\n\n00:00:00.100 --> ")
    _, verbose = served.send(wav, response_format="verbose_json", model="whisper-1", language="en")
    assert [(one["id"], one["text"], one["start"], one["end"]) for one in verbose["segments"]] == [
        (0, "BIN BLUE.", 0.1, 0.6),
        (1, "NOW", 0.7, 0.9),
    ]
    assert verbose["segments"][0]["avg_logprob"] == pytest.approx(-0.6931, abs=1e-3)
    assert (verbose["language"], verbose["duration"], "words" in verbose) == ("en", 1.0, False)
    _, words = served.send(wav, response_format="verbose_json", **{"timestamp_granularities[]": "word"})
    assert words["words"][0] == {"word": "BIN", "start": 0.1, "end": 0.3} and "segments" not in words
    _, turns = served.send(wav, response_format="diarized_json")
    assert [one["speaker"] for one in turns["segments"]] == ["Speaker 1", "Speaker 1"]
    assert told.calls[-1]["speaker"] == "everyone" and told.calls[-1]["max_pixels"] == 1_000_000


def test_the_pipelines_arguments_are_fields(served, told, wav):
    fields = {"speaker": "10,20.5", "num_beams": "3", "ctc_weight": "0.5", "audio_track": "1", "channel": "left"}
    assert served.send(wav, **fields, modality="audiovisual", temperature="0", prompt="names")[0] == 200
    expected = {"speaker": {"point": (10.0, 20.5)}, "num_beams": 3, "ctc_weight": 0.5, "audio_track": 1}
    assert told.calls[-1] == expected | {"channel": "left", "modality": "audiovisual", "max_pixels": 1_000_000}


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"model": "other"}, 404, "There is no model 'other'; there is tiny."),
        ({"response_format": "doc"}, 400, "`response_format` must be one of"),
        ({"language_model": "/etc"}, 400, "There is no field 'language_model'"),
        ({"on_piece": "x"}, 400, "There is no field"),
        ({"num_beams": "1000"}, 400, "`num_beams` is too large"),
        ({"num_beams": "many"}, 400, "`num_beams` must be a number"),
        ({"speaker": "1,2,3"}, 400, "`speaker` must be X,Y"),
        ({"stream": "true", "response_format": "srt"}, 400, "`stream` goes with"),
        ({"timestamp_granularities[]": "letter"}, 400, "word and segment"),
        ({"search": "greedy"}, 400, "the file in file.mp4 has no b'RIFF'"),
        ({"search": "espnet"}, 500, "The request cannot be answered: RuntimeError."),
    ],
)
def test_what_is_refused_is_said_in_one_line(served, wav, fields, status, message):
    code, answer = served.send(wav, **fields)
    assert code == status and answer["error"]["code"] == status
    assert message in answer["error"]["message"] and "secret" not in answer["error"]["message"]
    assert served.get("/health")[0] == 200 and json.loads(served.get("/health")[1])["requests"] == 0


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", 4, ""),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", 4, ""),
        (b"", 400, "not a clip that can be read"),
        (b"text" * 99, 4, ""),
        (None, 400, "The form has no `file`."),
    ],
)
def test_files_that_are_no_clips(served, told, content, status, message):
    code, answer = served.send(content)
    assert str(code).startswith(str(status)) and message in answer["error"]["message"] and told.calls == []


def test_large_and_long_files_are_refused(served, told, wav, tone):
    code, answer = served.send(tone(40.0))  # 1.28 megabytes, as it announces
    assert code == 413 and "the limit here is 1" in answer["error"]["message"]
    code, answer = served.send(tone(20.0, rate=8000))
    assert code == 413 and "lasts 20 seconds; the limit here is 5" in answer["error"]["message"]
    assert told.calls == [] and served.send(wav)[0] == 200


def test_a_body_that_announces_nothing_is_counted(served, told):
    """In chunks without an end; the server hangs up, and answers others."""
    with socket.create_connection(("127.0.0.1", int(served.url.rsplit(":", 1)[1]))) as client:
        head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        client.sendall(head.encode() + f"{len(part):x}\r\n".encode() + part + b"\r\n")
        sent = 0
        try:
            while sent < 16_000_000:
                client.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
                sent += 65536
        except OSError:
            pass
        else:
            client.settimeout(5)
            assert b"413" in client.recv(100)
    assert served.get("/health")[0] == 200 and told.calls == []


def test_one_at_a_time_and_no_more_than_can_wait(served, told, wav):
    told.going.clear()
    answers: list[int] = []
    clients = [threading.Thread(target=lambda: answers.append(served.send(wav)[0])) for _ in range(3)]
    for client in clients:
        client.start()
    wait_for(lambda: json.loads(served.get("/health")[1])["requests"] == 3)
    code, refused = served.send(wav)
    assert code == 503 and "try again later" in refused["error"]["message"]
    assert "lookhear_requests_inside 3" in served.get("/metrics")[1]
    told.going.set()
    for client in clients:
        client.join()
    assert answers == [200, 200, 200] and told.most == 1 and len(told.calls) == 3
    shown = served.get("/metrics")[1]
    assert 'lookhear_requests_total{status="200"} 3' in shown and 'lookhear_requests_total{status="503"} 1' in shown
    assert "lookhear_media_seconds_total 3.000" in shown and "lookhear_answer_seconds_count 3" in shown
    assert "lookhear_requests_inside 0" in shown


def test_a_client_that_leaves_frees_the_model(serve, told, wav):
    told.going.clear()
    with serve(told, SMALL) as served:
        with socket.create_connection(("127.0.0.1", int(served.url.rsplit(":", 1)[1]))) as client:
            part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + wav + b"\r\n--b--\r\n"
            head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(part)}\r\n"
            client.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + part)
            wait_for(lambda: told.inside == 1)
        wait_for(lambda: told.inside == 0)
        wait_for(lambda: json.loads(served.get("/health")[1])["requests"] == 0)
        assert 'status="499"} 1' in served.get("/metrics")[1]


def test_a_job_that_takes_too_long_is_ended(serve, told, wav):
    told.going.clear()
    with serve(told, Limits(job_seconds=0.2)) as served:
        code, answer = served.send(wav)
    assert code == 413 and "takes longer than 0.2 seconds" in answer["error"]["message"]


def test_words_are_streamed(served, wav):
    code, text = served.send(wav, stream="true")
    events = [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line]
    assert code == 200 and [one.get("delta") for one in events] == ["BIN", " BLUE.", " NOW", None]
    assert events[-1]["type"] == "transcript.text.done" and events[-1]["text"] == "BIN BLUE. NOW"
    code, text = served.send(wav, stream="true", search="greedy")
    assert code == 200 and json.loads(text.removeprefix("data: "))["error"]["code"] == 400
    assert json.loads(served.get("/health")[1])["requests"] == 0 and served.send(wav)[0] == 200


def test_a_key_is_asked_for(serve, told, wav):
    with serve(told, SMALL, "secret") as served:
        assert served.send(wav)[0] == 401 and served.get("/v1/models")[0] == 401 and told.calls == []
        assert served.get("/v1/models", authorization="Bearer secre")[0] == 401
        code, models = served.get("/v1/models", authorization="Bearer secret")
        assert code == 200 and [one["id"] for one in json.loads(models)["data"]] == ["tiny"]
        assert served.get("/health")[0] == 200


def test_other_addresses_and_forms(served):
    for path, status in (("/v1/models/tiny", 200), ("/v1/models/big", 404), ("/nowhere", 404), ("/v1/audio", 404)):
        code, text = served.get(path)
        assert code == status and (status == 200 or json.loads(text)["error"]["code"] == 404)
    assert served.get("/v1/audio/transcriptions")[0] == 405


def wait_for(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
