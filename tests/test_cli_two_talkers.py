"""`lookhear evaluate two-talkers` and the end of `lookhear demo`, with the packaged checkpoints and with tiny ones."""

import json

import pytest

from lookhear_command import main


class Listener:
    """Stands in for the pipeline: hears nothing but one sentence."""

    def __init__(self, *arguments, **settings):
        self.settings = settings

    def __call__(self, path, speaker=None, **settings):
        report = {"duration": 1.2, "speaker": {"seconds": [{"box": [0.0, 0.0, 20.0, 32.0]}]}}
        return {"text": "bin blue at f two now", "report": report}


@pytest.fixture
def tones(tmp_path_factory):
    """Three clips of coloured pictures and tones, with word times."""
    import numpy as np

    from lookhear.processing.avsr.rendering_avsr import write_video

    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for number, text in enumerate(("bin blue at f two now", "set red by k one soon", "lay green in z nine again")):
        wave = 0.1 * np.sin(np.arange(12800) * (0.1 + 0.05 * number)).astype(np.float32)
        write_video(folder / f"{number}.mp4", [np.full((32, 48, 3), 80 * number, np.uint8)] * 20, 25, wave)
        rows.append({"file_name": f"{number}.mp4", "text": text, "words": [{"word": "x", "start": 0.2, "end": 0.4}]})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_two_talkers_are_composed_read_and_counted(monkeypatch, capsys, tones, tmp_path):
    monkeypatch.setattr("transformers.pipeline", Listener)
    arguments = [
        "evaluate",
        "two-talkers",
        "--data",
        tones,
        "--talking",
        2,
        "--silent",
        1,
        "--snr",
        "-5",
        "--choose",
        "track",
    ]
    arguments += ["--output", tmp_path / "run", "--json", tmp_path / "out.json"]
    assert main([str(argument) for argument in arguments]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:3] == ["people", "SNR", "dB"] and len(out) == 2 + 7
    rows = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [(row["people"], row["snr"], row["reading"]) for row in rows] == [
        *((people, -5.0, reading) for people in (2, 3) for reading in ("sound", "named", "neighbour")),
        (2, None, "named"),
    ]
    assert rows[-1]["wrong_words_a_minute"] == pytest.approx(300.0)
    assert (tmp_path / "run" / "mixtures" / "talking-0001.mp4").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--snr", "clean"], "two talkers are never 'clean'"),
        (["--csv", "out.csv"], "--csv applies to avsr only"),
        (["--data", "nowhere"], "nowhere"),
        (["--talking", "0", "--silent", "0"], "nothing to compose"),
    ],
)
def test_what_cannot_be_measured_ends_in_one_line(monkeypatch, capsys, tones, tmp_path, arguments, message):
    monkeypatch.setattr("transformers.pipeline", Listener)
    base = ["evaluate", "two-talkers", "--data", str(tones), "--output", str(tmp_path)]
    assert main([*base, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.slow
def test_the_demo_ends_with_one_of_two_who_talk_at_once(capsys, tmp_path):
    """The packaged checkpoints, as users of the demo have them: sound alone cannot tell the voices apart, lips can."""
    from transformers import pipeline

    import lookhear  # noqa: F401
    from lookhear.commands.demo_speaker import SAID, run_speaker_demo
    from lookhear.evaluation.measures.rates import normalise
    from lookhear.processing.avsr.media_avsr import probe_media
    from lookhear_command.shared_options import packaged

    asr = pipeline("audio-visual-speech-recognition", model=packaged("avsr-grid-tiny"), device="cpu")
    readings = run_speaker_demo(tmp_path, asr)
    left = "the person on the left"
    assert normalise(readings[left]["text"]) == normalise(SAID[left])
    assert normalise(readings["sound alone"]["text"]) != normalise(SAID[left])
    out = capsys.readouterr().out
    assert f"{left}    read: {SAID[left]}  \u2713" in out
    for name in ("speaker.srt", "speaker.mp4", "speaker.jpg"):
        assert str(tmp_path / name) in out and (tmp_path / name).stat().st_size
    assert probe_media(tmp_path / "speaker.mp4").has_audio
