"""AudioVisualSpeechRecognitionPipeline: inputs, modalities, batches, refusals. The model is tiny and random."""

import array
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import lookhear  # noqa: F401  (registers the task)
from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration
from lookhear.processing.avsr import (
    AudioVisualSpeechRecognitionPipeline,
    AvsrFeatureExtractor,
    AvsrProcessor,
    AvsrTokenizer,
    MouthRoiImageProcessor,
)
from lookhear.processing.avsr.clip_arrays_avsr import on_clock, resample
from lookhear.processing.avsr.rendering_avsr import write_video

ROI = 24


@pytest.fixture(scope="module")
def processor() -> AvsrProcessor:
    images = MouthRoiImageProcessor(roi_size=ROI, crop_size=20, mouth_width=12.0)
    return AvsrProcessor(AvsrFeatureExtractor(), images, AvsrTokenizer())


def make_model(modality: str = "audiovisual") -> AvsrForConditionalGeneration:
    torch.manual_seed(0)
    config = AvsrConfig(
        audio_config={"front_end": "spectrogram", "num_mel_bins": 8, "n_fft": 400},
        visual_config={
            "stem_channels": 4,
            "hidden_sizes": (4, 8),
            "depths": (1, 1),
            "layer_type": "basic",
            "crop_size": 20,
        },
        modality=modality,
        hidden_size=16,
        encoder_layers=1,
        fusion_layers=1,
        decoder_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        head_hidden_sizes=(16,),
        ctc_upsampling=2,
    )
    return AvsrForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def asr(processor) -> AudioVisualSpeechRecognitionPipeline:
    return AudioVisualSpeechRecognitionPipeline(make_model(), processor=processor, device="cpu", num_beams=2)


def sound(seconds: float = 0.6, seed: int = 0, rate: int = 16000) -> dict:
    wave = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return {"audio": wave.astype(np.float32), "sampling_rate": rate}


def lips(frames: int = 15, seed: int = 0) -> dict:
    return {"mouths": np.random.default_rng(seed).integers(0, 255, (frames, ROI, ROI), dtype=np.uint8)}


def noise_video(frames: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (frames, 96, 96, 3), dtype=np.uint8)


def face_video(frames: int = 12) -> np.ndarray:
    data = pytest.importorskip("skimage.data", reason="needs lookhear[demo]")
    portrait = np.ascontiguousarray(data.astronaut()[:260, 100:360])
    return np.stack([np.roll(portrait, shift, axis=1) for shift in range(frames)])


def heard(result: dict) -> tuple:
    return result["text"], result["chunks"], [a["text"] for a in result["alternatives"]]


def test_result_has_the_promised_form(asr):
    result = asr({**sound(), **lips()}, return_timestamps="word", num_beams=3, num_return_sequences=3)
    assert set(result) == {"text", "confidence", "chunks", "alternatives", "report"}
    assert isinstance(result["text"], str)
    assert 0 <= result["confidence"] <= 1
    assert [set(a) for a in result["alternatives"]] == [{"text", "confidence", "score"}] * 2
    assert result["alternatives"][0]["score"] >= result["alternatives"][1]["score"]
    assert " ".join(chunk["text"] for chunk in result["chunks"]) == result["text"]
    for chunk in result["chunks"]:
        start, end = chunk["timestamp"]
        assert 0 <= start <= end <= 0.6
        assert 0 <= chunk["confidence"] <= 1
    assert result["report"]["modality"] == "audiovisual"
    assert result["report"]["duration"] == 0.6


def test_there_are_as_many_alternatives_as_texts_exist(asr):
    """One frame of lips has room for one or two letters; what the beam could not fill is left out."""
    result = asr(lips(1), num_beams=2000, num_return_sequences=2000)
    scores = [other["score"] for other in result["alternatives"]]
    assert 0 < len(scores) < 1999 and np.isfinite(scores).all()
    assert len({other["text"] for other in result["alternatives"]}) > len(scores) * 0.9


def test_characters_have_times_too(asr):
    result = asr(sound(), return_timestamps="char")
    assert " ".join("".join(chunk["text"] for chunk in result["chunks"]).split()) == result["text"]
    assert asr(sound())["chunks"] == []


def test_a_model_whose_ctc_head_was_not_trained_gives_text_but_no_times(processor):
    """One line that says what to pass; the alignment loss alone trains the head, too."""
    model = make_model("audio")
    model.config.ctc_loss_weight = 0.0
    pipe = AudioVisualSpeechRecognitionPipeline(model, processor=processor, device="cpu", num_beams=2, ctc_weight=0.0)
    clip = {"audio": np.random.default_rng(0).normal(size=8000).astype(np.float32), "sampling_rate": 16000}
    text = pipe(clip)["text"]
    for ask in (lambda: pipe(clip, return_timestamps="word"), lambda: pipe.stream(clip)):
        with pytest.raises(
            ValueError, match=r"`return_timestamps`.*trained without.*return_timestamps=False"
        ) as refused:
            ask()
        assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="`return_timestamps` is 'char'"):
        AudioVisualSpeechRecognitionPipeline(model, processor=processor, device="cpu", return_timestamps="char")
    assert "".join(word["text"] for word in pipe.stream(clip, return_timestamps=False)).split() == text.split()
    model.config.alignment_loss_weight = 0.5
    assert pipe(clip, return_timestamps="word")["text"] == text


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3, 1.0])
def test_results_do_not_depend_on_the_batch(asr, ctc_weight):
    """Clips of different lengths and modalities, alone and together; the same again gives the same."""
    clips = [sound(0.5), lips(20), {**sound(0.8, 1), **lips(18, 1)}, sound(0.3, 2), lips(9, 3)]
    settings = {"ctc_weight": ctc_weight, "return_timestamps": "char"}
    alone = [asr(clip, **settings) for clip in clips]
    for batch_size in (1, 2, 5):
        together = asr(clips, batch_size=batch_size, **settings)
        assert [result["report"] for result in together] == [result["report"] for result in alone]
        for one, other in zip(alone, together):
            assert one["text"] == other["text"]
            assert [c["timestamp"] for c in one["chunks"]] == [c["timestamp"] for c in other["chunks"]]
            assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-3)


def test_a_generator_is_read_lazily(asr):
    results = list(asr((clip for clip in [sound(0.5), sound(0.4)]), batch_size=2))
    assert [r["text"] for r in results] == [asr(sound(0.5))["text"], asr(sound(0.4))["text"]]


def test_modality_picks_what_is_read(asr):
    both = {**sound(), **lips()}
    for modality, part in (("audio", sound()), ("visual", lips()), ("audiovisual", both)):
        chosen = asr(both, modality=modality, return_timestamps="char")
        assert heard(chosen) == heard(asr(part, return_timestamps="char"))
        assert chosen["report"]["modality"] == modality


@pytest.mark.parametrize(
    ("clip", "modality", "message"),
    [
        (sound(), "visual", "there is no video"),
        (sound(), "audiovisual", "there is no video"),
        (lips(), "audio", "there is no sound"),
        (lips(), "audiovisual", "there is no sound"),
    ],
)
def test_what_a_clip_lacks_is_said(asr, clip, modality, message):
    with pytest.raises(ValueError, match=f"input dictionary.*{message}"):
        asr(clip, modality=modality)


def test_silent_sound_is_read_from_lips(asr):
    silence = {"audio": np.zeros(8000, np.float32), "sampling_rate": 16000}
    result = asr({**silence, **lips()})
    assert result["report"]["modality"] == "visual"
    assert any("the sound is silent" in warning for warning in result["report"]["warnings"])
    assert any("the sound is silent" in warning for warning in asr(silence)["report"]["warnings"])


def test_arrays_of_other_rates(asr):
    face = face_video()
    at_50 = {"video": np.repeat(face, 2, axis=0), "fps": 50.0}
    result = asr({**sound(0.48, rate=8000), **at_50}, return_timestamps="word")
    assert result["report"]["modality"] == "audiovisual"
    assert result["report"]["duration"] == pytest.approx(0.48)
    assert heard(asr(at_50)) == heard(asr({"video": face, "fps": 25}))
    grey_list = {"video": [frame[..., 0] for frame in face], "fps": 25}
    assert asr(grey_list)["report"]["modality"] == "visual"


def test_frames_are_resampled_by_time():
    frames = np.arange(60)[:, None]
    assert [int(f[0]) for f in on_clock(frames, 50, 25)] == list(range(0, 60, 2))
    assert [int(f[0]) for f in on_clock(frames[:6], 12.5, 25)] == [0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 5]
    assert len(list(on_clock(frames, 29.97, 25))) == 50
    assert len(list(on_clock(frames[:1], 60, 25))) == 1


def test_sound_is_resampled_without_aliases():
    time = np.arange(44100) / 44100
    low, high = (np.sin(2 * np.pi * f * time).astype(np.float32) for f in (1000, 12000))
    resampled = resample(low, 44100, 16000)
    assert len(resampled) == 16000
    np.testing.assert_allclose(
        resampled[500:-500], np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)[500:-500], atol=0.01
    )
    assert np.abs(resample(high, 44100, 16000)[500:-500]).max() < 0.01


def test_integer_sound_is_scaled(asr):
    loud = np.full(8000, 16384, np.int16)
    loud[::2] *= -1
    report = asr({"audio": loud, "sampling_rate": 16000})["report"]
    assert report["audio_level_dbfs"] == pytest.approx(-6.0, abs=0.1)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ({}, "nothing"),
        ({"audio": None}, "nothing"),
        ({"audio": np.zeros(9)}, "sampling_rate"),
        ({"audio": np.zeros(9), "sampling_rate": 0}, "sampling_rate"),
        ({"audio": np.zeros(9), "sampling_rate": 16000.5}, "sampling_rate"),
        ({"audio": np.zeros(0), "sampling_rate": 16000}, "is empty"),
        ({"audio": np.zeros((2, 3, 9)), "sampling_rate": 16000}, "one channel"),
        ({"audio": np.zeros((99, 99)), "sampling_rate": 16000}, "one channel"),
        ({"audio": np.zeros(9, complex), "sampling_rate": 16000}, "must be numbers, not complex128"),
        ({"audio": np.full(9, 2**40), "sampling_rate": 16000}, "beyond 32 bits"),
        ({"audio": [[1, 2], [3]], "sampling_rate": 16000}, '`"audio"` of the input dictionary is no array'),
        ({"array": np.zeros(9)}, '"sampling_rate"` of the input dictionary'),
        ({"path": None, "bytes": None}, '"path" and "bytes" are None'),
        (np.zeros(9), "`sampling_rate` is missing: pass it"),
        (torch.zeros(9), "`sampling_rate` is missing: pass it"),
        ([0.1, 0.2], "`sampling_rate` is missing: pass it"),
        ({"array": np.zeros(9), "sampling_rate": 16000, "text": "bin"}, "'text' is none of these"),
        ({"audio": np.full(9, np.nan), "sampling_rate": 16000}, "9 NaN or infinite"),
        ({"audio": ["a"], "sampling_rate": 16000}, "must be numbers"),
        ({"video": noise_video()}, "fps"),
        ({"video": noise_video(), "fps": -25}, "fps"),
        ({"video": noise_video(), "fps": float("nan")}, "fps"),
        ({"video": noise_video() / 255, "fps": 25}, "uint8"),
        ({"video": noise_video()[:0], "fps": 25}, "shape"),
        ({"video": noise_video().transpose(0, 3, 1, 2), "fps": 25}, "shape"),
        ({"video": [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)], "fps": 25}, "different shapes"),
        ({"mouths": np.zeros((5, 9, 9), np.uint8)}, f"{ROI}, {ROI}"),
        ({**sound(), "frames": 3}, "'frames' is none of these"),
        (3.5, "not a media source"),
        (None, "not a media source"),
        ([["clip.mp4"]], "not a media source"),
        ("no_such_file.mp4", "'no_such_file.mp4' does not exist"),
        (b"", "is empty"),
        (b"not a video at all", "<18 bytes>"),
        (["no_such_file.mp4"], "'no_such_file.mp4' does not exist"),
        ([], "empty list"),
        ((), "empty list"),
    ],
    ids=str,
)
def test_unusable_inputs_get_one_clear_error(asr, clip, message):
    with pytest.raises(ValueError, match=message) as caught:
        asr(clip)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modality": "smell"}, "`modality`.*'smell'"),
        ({"return_timestamps": "line"}, "`return_timestamps`"),
        ({"return_timestamps": 2}, "`return_timestamps`"),
        ({"channel": "middle"}, "`channel`"),
        ({"channel": 1}, "`channel`: there is no channel 1, as the sound has one channel"),
        ({"channel": -1}, "`channel`"),
        ({"audio_track": -1}, "`audio_track`"),
        ({"audio_track": 1}, "`audio_track` chooses among the tracks of a file"),
        ({"video_track": ""}, "`video_track`"),
        ({"sampling_rate": 0}, "`sampling_rate`"),
        ({"generate_kwargs": ["num_beams"]}, "`generate_kwargs` must be a dictionary"),
        ({"generate_kwargs": {"max_new_tokens": 3}}, "`generate_kwargs` may hold num_beams.*'max_new_tokens' is none"),
        ({"generate_kwargs": {"num_beams": 2}, "num_beams": 3}, "`num_beams` is given twice"),
        ({"num_beams": 0}, "`num_beams`"),
        ({"num_beams": -1}, "`num_beams`"),
        ({"num_beams": 2.5}, "`num_beams`"),
        ({"num_return_sequences": 0}, "`num_return_sequences`"),
        ({"num_beams": 2, "num_return_sequences": 3}, "must not be more than `num_beams`"),
        ({"num_return_sequences": 6}, "must not be more than `num_beams`"),
        ({"ctc_weight": -0.1}, "`ctc_weight`"),
        ({"ctc_weight": 1.5}, "`ctc_weight`"),
        ({"ctc_weight": "much"}, "`ctc_weight`"),
        ({"language_model": 3}, "`language_model` must be a model, a folder"),
        ({"language_model": "lm", "language_model_weight": -1}, "`language_model_weight`"),
        ({"language_model_weight": 0.5}, "`language_model_weight` is of no use without"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"chunk_length_s": 1}, "`chunk_length_s`"),
        ({"speaker": ["the man"]}, "`speaker`"),
        ({"colour": "red"}, "'colour'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(asr, arguments, message):
    with pytest.raises(ValueError, match=message):
        asr(sound(), **arguments)


class Samples:
    """What torchcodec's `AudioDecoder.get_all_samples` returns."""

    def __init__(self, data: torch.Tensor, rate: int):
        self.data, self.sample_rate, self.pts_seconds = data, rate, 0.0


class AudioDecoder:
    def __init__(self, samples: Samples):
        self.samples = samples

    def get_all_samples(self) -> Samples:
        return self.samples


class VideoDecoder:
    """As torchcodec's: frames are `(3, height, width)` tensors."""

    def __init__(self, frames: np.ndarray, fps: float):
        self.frames, self.metadata = torch.from_numpy(frames).permute(0, 3, 1, 2), type("M", (), {"average_fps": fps})

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.frames[index]

    get_frame_at = __getitem__


def test_every_form_of_the_same_sound(asr):
    """16-bit samples at 16 kHz, in the forms of numpy, torch, datasets, torchcodec and other pipelines."""
    pandas = pytest.importorskip("pandas")
    samples = (32767 * sound()["audio"].clip(-1, 1)).astype(np.int16)
    wave = samples.astype(np.float32) / 2**15
    expected = heard(asr({"audio": wave, "sampling_rate": 16000}, return_timestamps="char"))
    tensor = torch.from_numpy(wave)
    bare = [wave, samples, samples.tolist(), samples.astype(np.int64), samples.astype(np.int32), tensor]
    bare += [wave[:, None], wave[None], np.stack([wave, wave]), np.stack([wave, wave], axis=1), tensor[None]]
    bare += [tensor.clone().requires_grad_(), wave.tolist(), array.array("h", samples), wave.astype(">f4")]
    bare += [pandas.Series(wave)]
    for inputs in bare:
        result = asr(inputs, sampling_rate=16000, return_timestamps="char")
        assert heard(result) == expected and result["report"]["source"] == "the input array"
    rated = [(16000, samples), (wave, 16000), AudioDecoder(Samples(tensor[None], 16000))]
    rated += [{name: wave, "sampling_rate": np.int64(16000)} for name in ("array", "raw", "audio")]
    rated += [{"path": "x.wav", "array": wave, "sampling_rate": 16000.0}]
    rated += [
        {"audio": {"path": None, "array": wave, "sampling_rate": 16000}},
        {"audio": AudioDecoder(Samples(tensor, 16000))},
    ]
    assert [heard(asr(inputs, return_timestamps="char")) for inputs in rated] == [expected] * len(rated)
    assert isinstance(asr(tensor.bfloat16(), sampling_rate=16000)["text"], str)
    levels = {asr(inputs, sampling_rate=16000)["report"]["audio_level_dbfs"] for inputs in bare}
    assert len(levels) == 1 and -25 < levels.pop() < -15


def test_several_inputs_in_every_form(asr, tmp_path):
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    paths = []
    for seed in (0, 1):
        paths.append(str(tmp_path / f"{seed}.wav"))
        soundfile.write(paths[-1], sound(seed=seed)["audio"], 16000)
    expected = [asr(path)["text"] for path in paths]
    waves = [sound(seed=seed)["audio"] for seed in (0, 1)]
    table = datasets.Dataset.from_dict({"audio": paths}).cast_column("audio", datasets.Audio(decode=False))
    rows = [{"array": wave, "sampling_rate": 16000} for wave in waves]
    stored = [{"path": "gone.wav", "bytes": Path(path).read_bytes()} for path in paths]
    for inputs in (
        table["audio"],
        table[:]["audio"],
        rows,
        stored,
        pandas.Series(paths),
        np.array(paths),
        tuple(paths),
    ):
        results = asr(inputs)
        assert isinstance(results, list) and [result["text"] for result in results] == expected
    several = asr(waves, sampling_rate=16000)
    assert [result["text"] for result in several] == expected
    assert [result["text"] for result in asr(row["audio"] for row in table)] == expected
    assert asr(Path(paths[0]).as_uri())["text"] == expected[0]


def test_pictures_of_a_decoder(asr):
    face, wave = face_video(), sound(0.48)
    both = {"video": VideoDecoder(face, 25.0), "audio": AudioDecoder(Samples(torch.from_numpy(wave["audio"]), 16000))}
    assert heard(asr(both)) == heard(asr({**wave, "video": face, "fps": 25}))
    assert heard(asr(VideoDecoder(face, 25.0))) == heard(asr({"video": torch.from_numpy(face), "fps": np.float32(25)}))


def test_settings_of_numpy_and_of_other_pipelines(asr):
    clip = {**sound(), **lips()}
    expected = asr(clip, num_beams=3, ctc_weight=0.5, return_timestamps="word")
    numbers = {"num_beams": np.int64(3), "ctc_weight": np.float64(0.5), "batch_size": np.int32(1)}
    assert asr(clip, return_timestamps=True, chunk_length_s=np.float32(12), **numbers) == expected
    assert asr(clip, return_timestamps=np.True_, generate_kwargs={"num_beams": 3, "ctc_weight": 0.5}) == expected
    assert asr(clip, num_beams=torch.tensor(3), ctc_weight=torch.tensor(0.5), return_timestamps="word") == expected


def test_long_and_short_clips_give_the_same_warnings(asr):
    """A long clip says what a short one does about what is missing."""
    silence, fallback = np.zeros(5 * 16000, np.float32), "read from lips only: "
    for clip, words in (
        (lips(125), fallback + "there is no sound"),
        ({**lips(125), "audio": silence, "sampling_rate": 16000}, fallback + "the sound is silent"),
        (sound(5.0), "read from sound only: there is no video"),
        ({**sound(5.0), **lips(100)}, "sound (5.0 s) and picture (4.0 s) are of different length"),
    ):
        for length in (2, 30):
            assert words in asr(clip, chunk_length_s=length)["report"]["warnings"]
        speech = asr.stream(clip, chunk_length_s=2)
        list(speech)
        assert words in speech.to_report()["warnings"]


def test_what_cannot_be_read_does_not_stop_the_others(asr):
    clips = [sound(0.5), {"audio": np.zeros(0), "sampling_rate": 16000}, sound(5.0), "nowhere.mp4", sound(0.4)]
    results = asr.attempt(clips, chunk_length_s=2)
    assert [type(result).__name__ for result in results] == ["dict", "ValueError", "dict", "MediaError", "dict"]
    for index in (0, 2, 4):
        assert heard(results[index]) == heard(asr(clips[index], chunk_length_s=2))
    with pytest.raises(ValueError, match="is empty"):
        asr(clips)


def test_a_file_as_path_bytes_and_file_object(asr, tmp_path):
    path = tmp_path / "face.mp4"
    write_video(path, face_video(), 25, sound(0.48)["audio"])
    results = [asr(source, return_timestamps="word") for source in (path, str(path), path.read_bytes())]
    with open(path, "rb") as file:
        results.append(asr(file, return_timestamps="word"))
    results.append(asr(io.BytesIO(path.read_bytes()), return_timestamps="word"))
    assert len({str(heard(result)) for result in results}) == 1
    report = results[0]["report"]
    assert report["modality"] == "audiovisual"
    assert report["source"] == repr(str(path))
    assert report["duration"] == pytest.approx(0.48, abs=0.05)


def test_without_a_face_the_sound_is_read(asr, tmp_path, caplog):
    path = tmp_path / "noise.mp4"
    write_video(path, noise_video(), 25, sound(0.4)["audio"])
    result = asr(path)
    assert result["report"]["modality"] == "audio"
    assert any("no face was found" in warning for warning in result["report"]["warnings"])
    assert "no face was found" in caplog.text
    assert heard(result) == heard(asr(path, modality="audio"))
    for modality in ("visual", "audiovisual"):
        with pytest.raises(ValueError, match=r"noise\.mp4.*no face was found"):
            asr(path, modality=modality)


def test_without_face_and_sound_there_is_one_error(asr, tmp_path):
    path = tmp_path / "mute.mp4"
    write_video(path, noise_video(), 25)
    with pytest.raises(ValueError, match=r"mute\.mp4.*no sound.*no face was found"):
        asr(path)


def test_without_sound_the_lips_are_read(asr, tmp_path):
    path = tmp_path / "mute.mp4"
    write_video(path, face_video(), 25)
    result = asr(path)
    assert result["report"]["modality"] == "visual"
    assert any("no sound" in warning for warning in result["report"]["warnings"])
    assert heard(result) == heard(asr(path, modality="visual"))
    with pytest.raises(ValueError, match=r"mute\.mp4.*there is no sound"):
        asr(path, modality="audio")


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_a_model_of_one_modality(processor, modality):
    pipe = AudioVisualSpeechRecognitionPipeline(make_model(modality), processor=processor, device="cpu")
    both = {**sound(), **lips()}
    assert pipe(both)["report"]["modality"] == modality
    assert heard(pipe(both)) == heard(pipe(both, modality=modality))
    with pytest.raises(ValueError, match="this model reads"):
        pipe(both, modality="audiovisual")


@pytest.mark.parametrize(("num_beams", "ctc_weight"), [(1, 1.0), (1, 0.0), (1, 0.5), (3, 1.0), (3, 0.0)])
def test_every_search_gives_a_result(asr, num_beams, ctc_weight):
    clips = [{**sound(), **lips()}, sound(0.3, 1)]
    for result in asr(clips, num_beams=num_beams, ctc_weight=ctc_weight, batch_size=2, return_timestamps="word"):
        assert isinstance(result["text"], str)
        assert len(result["chunks"]) == len(result["text"].split())


@pytest.mark.parametrize("search", ["two_pass", "greedy"])
def test_quick_searches_give_the_same_kinds_of_result(asr, search):
    """Confidence, alternatives and times are there, and the batch changes nothing."""
    texts = 3 if search == "two_pass" else 1
    settings = {"search": search, "num_beams": texts, "num_return_sequences": texts, "return_timestamps": "char"}
    clips = [sound(), sound(0.4, seed=1), {**sound(seed=2), **lips()}]
    together = asr(clips, batch_size=3, **settings)
    for clip, result in zip(clips, together):
        assert heard(result) == heard(asr(clip, **settings))
        assert 0 <= result["confidence"] <= 1 and len(result["alternatives"]) == texts - 1
        assert "".join(chunk["text"] for chunk in result["chunks"]).split() == result["text"].split()
    best = asr(clips[0], ctc_weight=1.0, num_beams=1)["text"]
    if search == "greedy":
        assert together[0]["text"] == best
        with pytest.raises(ValueError, match=r"`num_return_sequences` \(2\) must not be more than `num_beams` \(1\)"):
            asr(clips[0], search="greedy", num_return_sequences=2)
        assert asr(clips[0], generate_kwargs={"search": "greedy"})["text"] == best  # the pipeline has two beams


def test_two_passes_compare_ten_texts_by_default(processor, monkeypatch):
    """A checkpoint's number of beams is for the search that it is saved with."""
    model = make_model()
    numbers, generate = [], type(model).generate

    def noted(self, *args, **kwargs):
        numbers.append(kwargs["num_beams"])
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "generate", noted)
    asr = AudioVisualSpeechRecognitionPipeline(model, processor=processor, device="cpu")
    for search in (None, "two_pass", "greedy"):
        asr(sound(0.2), search=search)
    model.generation_config.num_beams, model.generation_config.search = 4, "two_pass"
    asr(sound(0.2))
    asr(sound(0.2), search="two_pass")
    assert numbers == [5, 10, 1, 4, 4]


def test_quick_searches_judge_lips(processor):
    """With sound and lips of a chosen speaker each character has its evidence, whatever search found it."""
    from lookhear.processing.avsr.recognition_avsr import Recogniser

    recogniser = Recogniser(make_model(), processor)
    asr = AudioVisualSpeechRecognitionPipeline(recogniser.model, processor=processor, device="cpu")
    inputs = asr.preprocess({**sound(), **lips()})
    for search in ("two_pass", "greedy"):
        found = recogniser.search(inputs, judge_lips=True, search=search)
        assert found["lips"].shape == found["ids"].shape
        judged = found["lips"][found["ids"] != 0]
        assert ((judged >= 0) & (judged <= 1)).all()


@pytest.fixture(scope="module")
def language_model() -> GPT2LMHeadModel:
    """A random model of the recogniser's 40 ids that is sure of what it says."""
    torch.manual_seed(2)
    config = GPT2Config(
        vocab_size=40,
        n_embd=8,
        n_layer=1,
        n_head=1,
        n_positions=128,
        bos_token_id=39,
        eos_token_id=39,
        tie_word_embeddings=False,
    )
    model = GPT2LMHeadModel(config).eval()
    torch.nn.init.normal_(model.lm_head.weight, std=3.0)
    return model


def test_a_language_model_counts_in_the_search(asr, language_model, tmp_path):
    clip = {**sound(), **lips()}
    alone, helped = asr(clip), asr(clip, language_model=language_model, language_model_weight=2.0)
    assert helped["text"] and helped["text"] != alone["text"]
    assert asr(clip, language_model=language_model, language_model_weight=0)["text"] == alone["text"]
    language_model.save_pretrained(tmp_path)
    for folder in (tmp_path, str(tmp_path)):
        assert asr(clip, language_model=folder, language_model_weight=2.0) == helped
    words = list(asr.stream(clip, language_model=tmp_path, language_model_weight=2.0))
    assert " ".join(word["text"] for word in words) == helped["text"]


def test_a_language_model_of_other_ids_is_refused(asr):
    config = GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
    small = GPT2LMHeadModel(config)
    with pytest.raises(ValueError, match="language_model knows 20 tokens"):
        asr(sound(), language_model=small)


def test_half_precision(processor):
    pipe = AudioVisualSpeechRecognitionPipeline(make_model().bfloat16(), processor=processor, device="cpu")
    result = pipe({**sound(), **lips()}, return_timestamps="word")
    assert pipe.dtype == torch.bfloat16
    assert 0 <= result["confidence"] <= 1


def test_one_sample_and_one_frame(asr):
    assert isinstance(asr({"audio": np.ones(1), "sampling_rate": 16000})["text"], str)
    assert isinstance(asr(lips(1))["text"], str)


def test_nothing_is_said_to_the_user_but_our_own_warnings(asr, recwarn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asr([sound(), lips()], batch_size=2, num_beams=2, num_return_sequences=2)


def test_the_settings_of_a_call_are_checked_once(asr, monkeypatch):
    calls, check = [], asr._sanitize_parameters
    monkeypatch.setattr(asr, "_sanitize_parameters", lambda **given: calls.append(given) or check(**given))
    settings = {"return_timestamps": "word", "num_beams": 3, "batch_size": 2}
    asr([sound(0.5), lips(20), sound(0.4), {**sound(5.0), **lips(125)}], chunk_length_s=2, **settings)
    assert calls == [{"chunk_length_s": 2, **settings}]


def test_what_a_pipeline_was_made_with_holds_where_a_call_says_nothing(processor):
    given = {"modality": "audio", "return_timestamps": "char", "num_beams": 3, "num_return_sequences": 2}
    asr = AudioVisualSpeechRecognitionPipeline(
        make_model(), processor=processor, device="cpu", batch_size=2, num_workers=1, **given
    )
    clip = {**sound(), **lips()}
    alone = asr(clip, modality="visual", num_return_sequences=1)
    assert alone["report"]["modality"] == "visual" and alone["alternatives"] == []
    results = asr([clip, clip, clip], return_timestamps=None)
    assert [result["report"]["modality"] for result in results] == ["audio"] * 3
    assert [len(result["alternatives"]) for result in results] == [1] * 3
    assert "".join(chunk["text"] for chunk in results[0]["chunks"]).split() == results[0]["text"].split()
    with pytest.raises(ValueError, match="must not be more than `num_beams`"):
        asr(clip, num_beams=1)


def test_the_steps_of_a_call_can_be_taken_one_by_one(asr):
    clip = {**sound(), **lips()}
    assert asr.postprocess(asr.forward(asr.preprocess(clip))) == asr(clip)


def test_a_pipeline_is_usable_while_it_is_saved(asr, processor, tmp_path, monkeypatch):
    seen = []
    save = processor.save_pretrained

    def look_and_save(folder, **kwargs):
        seen.append((asr.tokenizer, asr.image_processor, getattr(asr.model.config, "custom_pipelines", None)))
        return save(folder, **kwargs)

    monkeypatch.setattr(processor, "save_pretrained", look_and_save)
    asr.save_pretrained(tmp_path)
    assert seen == [(processor.tokenizer, processor.image_processor, None)]
    with pytest.raises(ValueError, match="is a file"):
        asr.save_pretrained(tmp_path / "config.json")
    pushed = []
    monkeypatch.setattr(asr, "push_to_hub", lambda *names, **settings: pushed.append((*names, settings)))
    asr.save_pretrained(tmp_path / "asr", push_to_hub=True, private=True)
    assert pushed == [("asr", {"private": True})] and (tmp_path / "asr" / "config.json").is_file()


def test_the_pixels_of_a_file_are_bounded(asr, tmp_path):
    from lookhear.processing.avsr import write_video

    write_video(tmp_path / "clip.mp4", np.zeros((10, 48, 64, 3), np.uint8), 25, np.zeros(6400, np.float32))
    with pytest.raises(
        ValueError, match=r"pictures of 64 x 48 pixels, and `max_pixels` allows 3071: make them smaller"
    ):
        asr(str(tmp_path / "clip.mp4"), max_pixels=3071)
    with pytest.raises(ValueError, match="`max_pixels` must be a positive integer, not 0"):
        asr(str(tmp_path / "clip.mp4"), max_pixels=0)
    asr(str(tmp_path / "clip.mp4"), max_pixels=3072, modality="audio")


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_beams", 10**6), ("num_beams", "5"), ("num_return_sequences", 10**6), ("chunk_length_s", 1e9)],
)
def test_what_a_checkpoint_sets_is_bounded(asr, monkeypatch, name, value):
    """A search with a million beams does not end; whoever passes such a number means it."""
    monkeypatch.setattr(asr, "settings", type(asr.settings)())  # none of its own
    monkeypatch.setattr(asr.model.generation_config, name, value, raising=False)
    clip = {"audio": np.zeros(8000, np.float32), "sampling_rate": 16000}
    with pytest.raises(
        ValueError, match=rf"`{name}` is .* in the checkpoint's generation_config.json.*: pass `{name}`"
    ):
        asr(clip)
    asr(clip, **{name: 2})
