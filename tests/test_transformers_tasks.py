"""transformers' own tasks on our checkpoints: they are right, or refused in one line."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSpeechSeq2Seq, AutoModelForVideoClassification, pipeline

import lookhear
from lookhear.processing.avsr import AvsrFeatureExtractor, AvsrProcessor, AvsrTokenizer, MouthRoiImageProcessor
from lookhear.processing.avsr.rendering_avsr import write_video

RATE = 16000
OWN_TASK, SPEECH_TASK, WORDS_TASK = (
    "audio-visual-speech-recognition",
    "automatic-speech-recognition",
    "video-classification",
)

# What transformers runs for a path; this machine may have no ffmpeg, and PyAV is one.
FFMPEG = f"""#!{sys.executable}
import io, sys
import av, numpy as np
with av.open(io.BytesIO(sys.stdin.buffer.read())) as media:
    resampler = av.AudioResampler("flt", "mono", {RATE})
    for frame in [*media.decode(audio=0), None]:
        for part in resampler.resample(frame):
            sys.stdout.buffer.write(part.to_ndarray().astype("<f4").tobytes())
"""

# Reads sound where lookhear cannot be imported.
CHILD = """
import json, sys
import numpy as np
from transformers import pipeline

asr = pipeline("automatic-speech-recognition", model=sys.argv[1], device="cpu", trust_remote_code=True)
waves = list(np.load(sys.argv[2]).values())
texts = [result["text"] for result in asr(waves, batch_size=2)]
print("RESULT" + json.dumps({"texts": texts, "module": type(asr.model).__module__.split(".")[0]}))
"""


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    """Sound of different lengths, `(samples,)` each."""
    generator = np.random.default_rng(0)
    return [(0.1 * generator.standard_normal(length)).astype(np.float32) for length in (9600, 16000, 12345)]


@pytest.fixture(scope="module")
def asr(tiny_checkpoint):
    return pipeline(SPEECH_TASK, model=str(tiny_checkpoint), device="cpu")


@pytest.fixture(scope="module")
def expected(tiny_checkpoint, waves) -> list[str]:
    """What our own task reads from the sound."""
    own = pipeline(OWN_TASK, model=str(tiny_checkpoint), device="cpu")
    return [own({"audio": wave, "sampling_rate": RATE}, modality="audio")["text"] for wave in waves]


def test_the_task_of_speech_reads_the_sentence(asr, waves, expected):
    assert all(expected)
    assert [asr(wave)["text"] for wave in waves] == expected
    assert [asr({"raw": wave, "sampling_rate": RATE})["text"] for wave in waves] == expected
    assert [asr({"array": wave, "sampling_rate": RATE})["text"] for wave in waves] == expected
    assert asr(torch.from_numpy(waves[0]))["text"] == expected[0]


def test_the_task_of_speech_reads_batches(asr, waves, expected):
    for batch_size in (1, 2, 3):
        assert [result["text"] for result in asr(list(waves), batch_size=batch_size)] == expected


def test_the_task_of_speech_reads_files(asr, waves, talking_clips, tiny_checkpoint, tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text(FFMPEG)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    own = pipeline(OWN_TASK, model=str(tiny_checkpoint), device="cpu")
    for name in ("2.wav", "0.mp4"):
        path = talking_clips / name
        decoded = subprocess.run([program], input=path.read_bytes(), capture_output=True, check=True).stdout
        heard = {"audio": np.frombuffer(decoded, np.float32).copy(), "sampling_rate": RATE}
        assert asr(str(path))["text"] == own(heard, modality="audio")["text"] != ""


def test_the_task_of_speech_takes_settings_of_generate(asr, waves, tiny_checkpoint):
    own = pipeline(OWN_TASK, model=str(tiny_checkpoint), device="cpu")
    for settings in ({"ctc_weight": 0.4}, {"search": "two_pass"}, {"search": "greedy"}):
        settings = settings if "greedy" in settings.values() else {"num_beams": 3, **settings}
        text = own({"audio": waves[1], "sampling_rate": RATE}, **settings)["text"]
        assert asr(waves[1], generate_kwargs=settings)["text"] == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"chunk_length_s": 5}, "audio-visual-speech-recognition"), ({"return_timestamps": "word"}, "return_timestamps")],
)
def test_what_the_task_of_speech_cannot_do_is_refused(asr, waves, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        asr(waves[0], **arguments)
    assert "\n" not in str(caught.value)


def test_sound_that_is_too_long_for_the_task_of_speech_is_refused(tiny_checkpoint):
    """The task gives the model all of it at once."""
    asr = pipeline(SPEECH_TASK, model=str(tiny_checkpoint), device="cpu")
    asr.model.generation_config.chunk_length_s = 2.0
    sound = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)
    assert isinstance(asr(sound[: 3 * RATE])["text"], str)
    with pytest.raises(
        ValueError, match=r"has 4.0 s, and this checkpoint reads 3.0 s.*audio-visual-speech-recognition"
    ):
        asr(sound)
    assert isinstance(asr(sound, generate_kwargs={"chunk_length_s": 4.0})["text"], str)


def test_the_task_of_speech_reads_without_lookhear(tiny_checkpoint, waves, expected, tmp_path, without_lookhear):
    np.savez(tmp_path / "waves.npz", *waves)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-c", without_lookhear(CHILD), str(tiny_checkpoint), str(tmp_path / "waves.npz")]
    child = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=240
    )
    assert child.returncode == 0, child.stderr[-3000:]
    assert json.loads(child.stdout.split("RESULT")[1]) == {"texts": expected, "module": "transformers_modules"}


@pytest.mark.shared
def test_the_task_of_speech_reads_grid(shared, repository):
    """At least 95 of 100 words, from the sound alone (the card: 96)."""
    from lookhear.processing.avsr.media_avsr import read_audio

    folder = shared / "data" / "grid_s1" / "test"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    asr = pipeline(SPEECH_TASK, model=str(repository / "model_cards" / "avsr-grid-tiny"), device="cpu")
    results = asr([read_audio(folder / row["file_name"], RATE) for row in rows], batch_size=8)
    words = [
        said == heard
        for row, result in zip(rows, results)
        for said, heard in zip(row["text"].split(), result["text"].split(), strict=True)
    ]
    assert sum(words) / len(words) >= 0.95


@pytest.fixture(scope="module")
def words_folder(tmp_path_factory) -> Path:
    """A random classifier of three words as `lookhear train` leaves it."""
    folder = tmp_path_factory.mktemp("words")
    torch.manual_seed(0)
    config = lookhear.AvsrConfig(
        visual_config={
            "stem_channels": 4,
            "hidden_sizes": (4, 8),
            "depths": (1, 1),
            "layer_type": "basic",
            "crop_size": 20,
        },
        modality="visual",
        classifier_hidden_size=16,
        id2label=dict(enumerate(("BIN", "LAY", "SET"))),
        label2id={"BIN": 0, "LAY": 1, "SET": 2},
    )
    lookhear.AvsrForVideoClassification(config).save_pretrained(folder)
    images = MouthRoiImageProcessor(roi_size=24, crop_size=20, mouth_width=12.0)
    AvsrProcessor(AvsrFeatureExtractor(), images, AvsrTokenizer()).save_pretrained(folder)
    return folder


def test_the_task_of_videos_names_the_word_of_the_lips(words_folder, talking_clips, caplog):
    from lookhear.processing.avsr.media_avsr import read_frames

    path = str(talking_clips / "0.mp4")
    words = pipeline(WORDS_TASK, model=str(words_folder), device="cpu")
    model = AutoModelForVideoClassification.from_pretrained(words_folder).eval()
    pictures = list(read_frames(path, 25.0))[:29]
    with torch.no_grad():
        shares = model(**words.image_processor(pictures)).logits[0].softmax(-1)
    expected = {
        model.config.id2label[index]: pytest.approx(float(share), abs=1e-3) for index, share in enumerate(shares)
    }
    assert {answer["label"]: answer["score"] for answer in words(path)} == expected
    assert words([path, path], batch_size=2) == [words(path), words(path)]
    assert "not supported" not in caplog.text


def test_the_task_of_videos_refuses_one_without_a_face(words_folder, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (30, 96, 96, 3), dtype=np.uint8)
    write_video(tmp_path / "noise.mp4", noise, 25)
    with pytest.raises(ValueError, match="no face was found in the 29 pictures"):
        pipeline(WORDS_TASK, model=str(words_folder), device="cpu")(str(tmp_path / "noise.mp4"))


@pytest.mark.parametrize(
    "load",
    [
        AutoModel.from_pretrained,
        AutoModelForSpeechSeq2Seq.from_pretrained,
        lookhear.AvsrModel.from_pretrained,
        lambda folder: pipeline(OWN_TASK, model=str(folder)),
        lambda folder: pipeline(SPEECH_TASK, model=str(folder)),
    ],
)
def test_a_classifier_of_words_is_not_taken_for_a_recogniser(words_folder, load):
    with pytest.raises(ValueError, match="AutoModelForVideoClassification"):
        load(words_folder)


@pytest.mark.parametrize(
    ("task", "name"),
    [(OWN_TASK, "avsr-grid-tiny"), ("object-perception", "glee-tiny"), ("reasoning-segmentation", "lisa-glee-tiny")],
)
def test_a_task_without_a_model_takes_the_packaged_one(repository, task, name):
    made = pipeline(task, device="cpu")
    assert Path(made.model.name_or_path).resolve() == repository / "model_cards" / name
