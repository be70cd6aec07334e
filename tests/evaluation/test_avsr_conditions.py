"""Measuring under conditions: the noise that clips get, what is shared, and the whole way on a tiny random model."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from lookhear.evaluation import avsr_conditions
from lookhear.evaluation.avsr_conditions import Clip, ConditionResult, evaluate_avsr, load_clips, parse_snr
from lookhear.processing.avsr import MouthRoiImageProcessor
from lookhear.training.avsr.prepare import prepare


def make_clips(count: int = 4) -> list[Clip]:
    generator = np.random.default_rng(0)
    return [
        Clip(
            f"c{i}",
            f"bin blue {i}",
            generator.normal(0, 0.1, 24000).astype(np.float32),
            np.zeros((12, 24, 24), np.uint8),
        )
        for i in range(count)
    ]


class Listener:
    """Stands in for a checkpoint: keeps what it was given, reads every clip right."""

    image_processor = None
    has_times = True

    def __init__(self):
        self.calls: list[tuple[str, list[Clip]]] = []

    def __call__(self, clips, modality, progress):
        self.calls.append((modality, list(clips)))
        chunks = [{"text": "BIN", "timestamp": (0.52, 0.7)}, {"text": "red", "timestamp": (1.1, 1.2)}]
        return [{"text": clip.text, "chunks": chunks if clip.words else []} for clip in clips]


@pytest.fixture
def listener(monkeypatch) -> Listener:
    listener, clips = Listener(), make_clips()
    monkeypatch.setattr(avsr_conditions, "Recogniser", lambda *args, **settings: listener)
    monkeypatch.setattr(avsr_conditions, "load_clips", lambda *args, **settings: clips)
    return listener


def measured_snr(clean: Clip, noisy: Clip) -> float:
    noise = noisy.audio.astype(np.float64) - clean.audio
    return 10 * np.log10(np.mean(clean.audio.astype(np.float64) ** 2) / np.mean(noise**2))


def test_every_condition_once(listener):
    results = evaluate_avsr("m", "d", noises=("babble", "talker"), snrs=("clean", "5", "-5"))
    assert [(r.modality, r.noise, r.snr) for r in results] == [
        (modality, noise, snr)
        for modality in ("audio", "visual", "audiovisual")
        for noise in ("babble", "talker")
        for snr in ("clean", "5", "-5")
    ]
    assert all(r.words.rate == 0 and r.to_dict()["clips"] == 4 for r in results)
    # Clean is read once a modality, lips once in all: 5 + 1 + 5 readings for 18 rows.
    assert [modality for modality, _ in listener.calls] == ["audio"] * 5 + ["visual"] + ["audiovisual"] * 5


def test_word_starts_are_measured_where_they_are_known(monkeypatch, listener):
    words = [{"word": "bin", "start": 0.5, "end": 0.7}, {"word": "blue", "start": 0.8, "end": 0.9}]
    words += [{"word": "red", "start": 1.0, "end": 1.2}]
    clips = [replace(clip, words=words if number < 2 else None) for number, clip in enumerate(make_clips())]
    monkeypatch.setattr(avsr_conditions, "load_clips", lambda *args, **settings: clips)
    results = evaluate_avsr("m", "d", modalities=["audio"], snrs=["clean", "5"])
    for result in results:
        assert result.word_starts == pytest.approx([0.02, 0.1] * 2)
        row = result.to_dict()
        assert (row["word_start_median"], row["words_timed"]) == (pytest.approx(0.06), 4)
    assert "words_timed" not in ConditionResult("audio", "babble", "0", ["a"], ["a"], ["a"]).to_dict()


def test_speed_is_seconds_of_speech_in_a_second_of_reading(monkeypatch, listener):
    clock = iter(range(0, 1000, 3))  # each reading takes three seconds
    monkeypatch.setattr(avsr_conditions, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    for result in evaluate_avsr("m", "d", snrs=["clean", "5"]):  # four clips of a second and a half
        assert result.rtfx == pytest.approx(2.0) and result.to_dict()["rtfx"] == result.rtfx
    assert "rtfx" not in ConditionResult("audio", "babble", "0", ["a"], ["a"], ["a"]).to_dict()


@pytest.mark.parametrize("kind", ["babble", "human", "talker"])
def test_noise_is_seeded_and_has_its_level(listener, kind):
    evaluate_avsr("m", "d", modalities=["audio"], noises=[kind], snrs=["clean", "5", "-5.0"])
    evaluate_avsr("m", "d", modalities=["audio"], noises=[kind], snrs=["5"])
    evaluate_avsr("m", "d", modalities=["audio"], noises=[kind], snrs=["5"], seed=1)
    clean, five, minus, again, other = (clips for _, clips in listener.calls)
    for index in range(4):
        assert measured_snr(clean[index], five[index]) == pytest.approx(5, abs=0.01)
        assert measured_snr(clean[index], minus[index]) == pytest.approx(-5, abs=0.01)
        np.testing.assert_array_equal(five[index].audio, again[index].audio)
        assert not np.array_equal(five[index].audio, other[index].audio)
        louder = (minus[index].audio - clean[index].audio) / (five[index].audio - clean[index].audio)
        assert np.std(louder) / np.mean(louder) < 0.01  # the same noise at both levels


def test_noise_is_never_the_clip_itself():
    clips = make_clips(2)
    noise = avsr_conditions.noise_maker("talker")
    disturbed = avsr_conditions._disturbed(clips[0], [clip.audio for clip in clips], "talker", noise, 0.0, 0)
    added = disturbed.audio - clips[0].audio
    assert abs(np.corrcoef(added, clips[0].audio)[0, 1]) < 0.1


def test_a_noise_file(listener, tmp_path):
    tone = np.sin(np.arange(3000) * 0.3).astype(np.float32)
    soundfile.write(tmp_path / "tone.wav", tone, 16000)
    evaluate_avsr("m", "d", modalities=["audio"], noises=[str(tmp_path / "tone.wav")], snrs=["0"])
    added = listener.calls[0][1][0].audio - make_clips()[0].audio
    spectrum = np.abs(np.fft.rfft(added))
    assert spectrum.argmax() == pytest.approx(0.3 / (2 * np.pi) * 24000, abs=3)


def test_snr_as_typed():
    assert parse_snr("clean") is None and parse_snr("-5") == -5 and parse_snr(2.5) == 2.5
    for wrong in ("loud", "nan", "inf", ""):
        with pytest.raises(ValueError, match="neither 'clean' nor"):
            parse_snr(wrong)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modalities": ["lips"]}, "modality 'lips' is unknown"),
        ({"modalities": []}, "modalities has to be a list"),
        ({"noises": ["rain"]}, "noise 'rain' is neither"),
        ({"snrs": ["clean", "5dB"]}, "snr '5dB'"),
        ({"snrs": "clean"}, "snrs has to be a list"),
        ({"batch_size": 0}, "batch_size"),
        ({"limit": 0}, "limit"),
    ],
)
def test_bad_arguments_are_named(listener, settings, message):
    with pytest.raises(ValueError, match=message):
        evaluate_avsr("m", "d", **settings)
    assert not listener.calls


def test_letter_error():
    references = ["bin blue at f two now", "lay red by z nine soon"]
    result = ConditionResult("audio", "babble", "0", ["a", "b"], references, ["BIN BLUE AT S TWO NOW", references[1]])
    assert result.at_position(3).rate == 0.5 and result.at_position(0).rate == 0
    assert result.to_dict()["wer"] == pytest.approx(1 / 12)


def test_from_files_to_rates(tiny_checkpoint, talking_clips):
    """Video and sound-only files through the pipeline; batches and runs do not change what is read."""
    settings = {"snrs": ["clean", "0"], "num_beams": 1, "ctc_weight": 1.0}
    results = evaluate_avsr(tiny_checkpoint, talking_clips, batch_size=2, **settings)
    again = evaluate_avsr(tiny_checkpoint, talking_clips, batch_size=1, **settings)
    assert [r.hypotheses for r in results] == [r.hypotheses for r in again]
    by_condition = {(r.modality, r.snr): r for r in results}
    assert by_condition["audio", "clean"].references == ["BIN BLUE", "SET RED", "LAY GREEN"]
    assert by_condition["visual", "clean"].hypotheses[2] == ""  # a sound file has no lips
    # ... and is read from its sound where both were asked for
    assert by_condition["audiovisual", "clean"].hypotheses[2] == by_condition["audio", "clean"].hypotheses[2]
    assert len(evaluate_avsr(tiny_checkpoint, talking_clips, modalities=["visual"], limit=1)[0].ids) == 1


def test_prepared_folders_are_read_too(tiny_checkpoint, talking_clips, tmp_path):
    prepare("folder", talking_clips, tmp_path / "fit", model=tiny_checkpoint, progress=False)
    images = MouthRoiImageProcessor.from_pretrained(tiny_checkpoint)
    direct, prepared = load_clips(talking_clips, images), load_clips(tmp_path / "fit", images)
    for one, other in zip(direct, prepared, strict=True):
        assert one.id == other.id and one.text == other.text
        np.testing.assert_array_equal(one.audio, other.audio)
        np.testing.assert_array_equal(one.mouths, other.mouths)
    prepare("folder", talking_clips, tmp_path / "other", roi_size=32, crop_size=28, mouth_width=18.0, progress=False)
    with pytest.raises(ValueError, match="crops of 32 pixels"):
        load_clips(tmp_path / "other", images)


def test_one_clip_cannot_make_noise(tiny_checkpoint, talking_clips):
    with pytest.raises(ValueError, match="fewer than two clips with sound"):
        evaluate_avsr(tiny_checkpoint, talking_clips, modalities=["audio"], snrs=["0"], limit=1)


def test_a_share_of_the_clips_is_disturbed(monkeypatch, listener):
    """A quarter, as in the paper's test: the same clips at every ratio, in every kind of noise and in every run."""
    clips = [replace(clip, id=f"c{number}") for number, clip in enumerate(make_clips(4) * 100)]
    monkeypatch.setattr(avsr_conditions, "load_clips", lambda *args, **settings: clips)
    settings = {"modalities": ["audio"], "noises": ("babble", "talker"), "snrs": ["5", "-5"]}
    results = evaluate_avsr("m", "d", noise_probability=0.25, **settings)
    noisy = [[a is not b for a, b in zip(clips, heard, strict=True)] for _, heard in listener.calls]
    assert all(choice == noisy[0] for choice in noisy) and 80 <= sum(noisy[0]) <= 120
    assert [row.to_dict()["noise_probability"] for row in results] == [0.25] * 4
    listener.calls.clear()
    evaluate_avsr("m", "d", noise_probability=0.25, seed=1, modalities=["audio"], snrs=["5"])
    assert [a is not b for a, b in zip(clips, listener.calls[0][1], strict=True)] != noisy[0]
    listener.calls.clear()
    evaluate_avsr("m", "d", modalities=["audio"], snrs=["5"])  # all of them, with the noise that a share would get
    assert all(a is not b for a, b in zip(clips, listener.calls[0][1], strict=True))


def test_only_noise_has_a_share(listener):
    row = evaluate_avsr("m", "d", modalities=["audio"], snrs=["clean"], noise_probability=0.25)[0].to_dict()
    assert "noise_probability" not in row
    for wrong in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="noise_probability has to be above 0 and at most 1"):
            evaluate_avsr("m", "d", noise_probability=wrong)
