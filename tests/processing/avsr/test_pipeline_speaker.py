"""`speaker=` of the pipeline: who is asked for is read, and nobody else."""

from types import SimpleNamespace

import numpy as np
import pytest
from transformers import pipeline
from transformers.pipelines.base import Pipeline

from lookhear import AudioVisualSpeechRecognitionPipeline
from lookhear.processing.avsr.clip_stream_avsr import ClipStream, without_others
from lookhear.processing.avsr.landmarks_avsr import Face
from lookhear.processing.avsr.processing_avsr import MouthRoiImageProcessor
from lookhear.processing.avsr.speaker_locator_avsr import ObjectLocator
from lookhear.processing.avsr.speaker_tracking_avsr import ChosenSpeaker

from .test_pipeline import face_video, heard, lips, processor, sound  # noqa: F401
from .test_pipeline_long import FAST, talkative_model

SIDE = 260
LEFT, RIGHT = (0, 0, SIDE, SIDE), (SIDE, 0, 2 * SIDE, SIDE)


@pytest.fixture(scope="module")
def asr(processor) -> AudioVisualSpeechRecognitionPipeline:  # noqa: F811
    return AudioVisualSpeechRecognitionPipeline(talkative_model(), processor=processor, device="cpu", **FAST)


@pytest.fixture(scope="module")
def pair() -> np.ndarray:
    """(12, 260, 520, 3): a face that moves to the right, and beside it the same, larger, which moves to the left."""
    face = face_video()
    large = face[::-1, 20:215, 30:225].repeat(4, axis=1).repeat(4, axis=2)[:, ::3, ::3]
    return np.concatenate([face, large], axis=2)


def boxes(*parts: tuple[int, tuple | None]):
    """A locator: so many frames each box; it remembers what it was asked."""

    def locate(frames, prompt):
        locate.asked.append(prompt)
        rows = (box for count, box in parts for _ in range(count))
        yield from (next(rows) for _ in frames)

    locate.asked = []
    return locate


def mouths_of(video: np.ndarray, box: tuple | None) -> tuple[np.ndarray, ClipStream]:
    speaker = None if box is None else ChosenSpeaker("x", boxes((99, box)))
    with ClipStream({"video": video, "fps": 25}, "visual", 16000, MouthRoiImageProcessor(), speaker=speaker) as stream:
        return np.concatenate([piece.mouths for piece in stream]).astype(float), stream


@pytest.mark.parametrize("box", [LEFT, RIGHT])
def test_a_chosen_face_is_cropped_as_if_it_were_alone(pair, box):
    chosen, stream = mouths_of(pair, box)
    alone, _ = mouths_of(pair[:, :, box[0] : box[2]], None)
    assert chosen.shape == alone.shape == (12, 120, 120)
    assert np.corrcoef(chosen.ravel(), alone.ravel())[0, 1] > 0.97
    facts = stream.report.to_dict()["speaker"]
    assert facts["located"] == facts["followed"] == 1.0
    assert facts["seconds"] == [{"second": 0, "box": list(map(float, box)), "sure": 1.0, "face": 1.0}]
    assert not [warning for warning in stream.report.warnings if "faces" in warning]


def test_the_text_is_the_chosen_ones(asr, pair):
    clip = {**sound(0.48), "video": pair, "fps": 25}
    locators = boxes((12, LEFT)), boxes((12, RIGHT))
    left, right = (asr(clip, speaker=who, speaker_locator=where) for who, where in zip(("he", "she"), locators))
    assert [locator.asked for locator in locators] == [["he"], ["she"]]
    assert left["report"]["speaker"]["asked"] == "he" and left["report"]["modality"] == "audiovisual"
    assert heard(asr(clip, speaker={"track": [LEFT] * 12})) == heard(left)
    assert heard(asr(clip, speaker={"track": [RIGHT] * 24, "fps": 50})) == heard(right)
    assert "speaker" not in asr(clip)["report"]
    together = asr([clip, sound(0.3), clip], batch_size=2, speaker=None)
    assert [heard(result) for result in together] == [heard(asr(one)) for one in (clip, sound(0.3), clip)]


def test_settings_of_the_pipeline_hold_for_its_calls(processor, asr, pair):  # noqa: F811
    clip = {"video": pair, "fps": 25}
    settings = {"speaker": "she", "speaker_locator": boxes((12, RIGHT))}
    given = AudioVisualSpeechRecognitionPipeline(
        talkative_model(), processor=processor, device="cpu", **FAST, **settings
    )
    assert given(clip)["report"]["speaker"] == asr(clip, **settings)["report"]["speaker"]
    assert list(given.stream(clip)) == list(asr.stream(clip, **settings))


def test_nothing_is_read_while_the_speaker_is_away(asr, pair):
    """Eight seconds; the speaker is away for two of them, of which the first still shows the face."""
    video = np.concatenate([pair, pair[::-1]] * 9)[:200]
    clip = {**sound(8.0), "video": video, "fps": 25}
    away = boxes((75, LEFT), (50, None), (75, LEFT))
    result = asr(clip, speaker="he", speaker_locator=away, chunk_length_s=2, return_timestamps="word")
    assert result["report"]["speaker"]["located"] == 0.75
    assert [second["box"] is None for second in result["report"]["speaker"]["seconds"]] == [False] * 3 + [True] * 2 + [
        False
    ] * 3
    there = {"speaker": {"track": [LEFT] * 200}, "chunk_length_s": 2, "return_timestamps": "word"}
    assert heard(result) != heard(asr(clip, **there))
    assert result["report"]["interpolated_runs"] == [[4.0, 5.0]]
    assert any("in view in 75% of the frames only" in warning for warning in result["report"]["warnings"])


def test_a_speaker_who_is_never_seen(asr, pair):
    clip = {**sound(0.48), "video": pair, "fps": 25}
    for settings in ({}, {"chunk_length_s": 2}):
        with pytest.raises(ValueError, match='dictionary: "Ann" was not found in any frame'):
            asr(clip, speaker="Ann", speaker_locator=boxes((12, None)), **settings)
    with pytest.raises(ValueError, match='"Ann" was not found'):
        list(asr.stream(clip, speaker="Ann", speaker_locator=boxes((12, None))))


def test_a_speaker_without_a_face_is_heard(asr, pair):
    """Somebody stands there, and their face cannot be seen."""
    clip = {**sound(0.48), "video": pair, "fps": 25}
    corner = boxes((12, (0, 200, 60, 260)))
    result = asr(clip, speaker="he", speaker_locator=corner)
    assert result["report"]["modality"] == "audio" and result["report"]["speaker"]["followed"] == 0.0
    assert any("no face was found" in warning for warning in result["report"]["warnings"])
    with pytest.raises(ValueError, match="no face was found"):
        asr(clip, speaker="he", speaker_locator=corner, modality="visual")


@pytest.mark.parametrize(
    "clip, arguments, message",
    [
        (sound(), {}, "cannot be looked for: no video"),
        (lips(), {}, "there are mouths, and no pictures"),
        (sound(), {"modality": "audio"}, "`speaker` chooses among faces"),
        (sound(), {"speaker": {"point": 3}}, "`speaker`"),
        (sound(), {"speaker_locator": "glee"}, "`speaker_locator` must be a function or a pipeline"),
        (sound(), {"speaker_model": 5}, "`speaker_model` must be"),
        (sound(), {"on_piece": []}, "`on_piece` must be a function"),
    ],
    ids=str,
)
def test_what_cannot_be_asked(asr, clip, arguments, message):
    with pytest.raises(ValueError, match=message):
        asr(clip, **{"speaker": "he", "speaker_locator": boxes((99, LEFT)), **arguments})


@pytest.mark.parametrize(
    "absent, heard",
    [
        ([False] * 50, [1.0, 1.0, 1.0, 1.0]),
        ([False] * 10 + [True] * 30 + [False] * 10, [1.0, 0.0, 0.0, 1.0]),
        ([False] * 10 + [True] * 12 + [False] * 28, [1.0, 1.0, 1.0, 1.0]),  # a moment is no absence
        ([False] * 25 + [True] * 25, [1.0, 1.0, 0.0, 0.0]),
        ([True] * 50, [0.0, 0.0, 0.0, 0.0]),
    ],
    ids=("there", "away", "a moment", "leaving", "never"),
)
def test_while_the_speaker_is_away_whoever_talks_is_not_heard(absent, heard):
    audio = np.ones(32000, np.float32)
    loudness = without_others(audio, np.array(absent), 16000, 25.0)
    assert [float(loudness[second]) for second in (3200, 14400, 22400, 30000)] == heard
    assert loudness.dtype == np.float32 and audio.all() and np.abs(np.diff(loudness)).max() < 1e-2
    assert without_others(None, np.array(absent), 16000, 25.0) is None


def test_everyone(asr, pair):
    clip = {**sound(0.48), "video": pair, "fps": 25}
    pieces = []
    result = asr(clip, speaker="everyone", return_timestamps="word", on_piece=pieces.append)
    assert [piece.start for piece in pieces] == [0.0, 0.0] and {len(piece.audio) for piece in pieces} == {7680}
    left, right = (piece.mouths for piece in pieces)
    assert left.shape == right.shape == (12, 24, 24) and (left != right).any()
    assert [one["speaker"] for one in result["speakers"]] == ["Speaker 1", "Speaker 2"]
    assert set(result) == {*asr(clip), "speakers"} and result["report"]["people"] == 2
    assert result["text"] == "\n".join(f"{one['speaker']}: {one['text']}" for one in result["speakers"])
    assert len(result["chunks"]) == sum(len(one["chunks"]) for one in result["speakers"])
    for one, (left, right) in zip(result["speakers"], ((0, SIDE), (SIDE, 2 * SIDE))):
        facts = one["report"]["speaker"]
        assert facts["asked"] == one["speaker"] and facts["followed"] == 1.0
        assert left < (facts["seconds"][0]["box"][0] + facts["seconds"][0]["box"][2]) / 2 < right
    lists = asr([clip, clip], speaker="everyone", batch_size=2, return_timestamps="word")
    assert [len(each["speakers"]) for each in lists] == [2, 2] and lists[1]["text"] == result["text"]


def test_everyone_where_there_is_nobody(asr):
    with pytest.raises(ValueError, match="there is no video"):
        asr(sound(), speaker="everyone")
    with pytest.raises(ValueError, match="no face is in view for long enough"):
        asr({**sound(), "video": np.zeros((9, 64, 64, 3), np.uint8), "fps": 25}, speaker="everyone")
    with pytest.raises(ValueError, match="`stream` reads one speaker"):
        asr.stream(sound(), speaker="everyone")


def test_a_locator_that_breaks_is_not_hidden(asr, pair):
    def broken(frames, prompt):
        yield "here"

    with pytest.raises(ValueError, match="`speaker_locator` gave 'here' for frame 0"):
        asr({"video": pair, "fps": 25}, speaker="he", speaker_locator=broken)


# ------------------------------------------------------------------------------------------- the default locator


class Seeing:
    """What the locator needs of a pipeline for objects."""

    def __init__(self):
        self.calls, self.closed = [], 0

    def __call__(self, inputs, **prompts):
        self.calls.append(prompts)
        self.frames = iter(inputs["video"])
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.closed += 1

    def __iter__(self):
        for index, _ in enumerate(self.frames):
            box = {"xmin": index, "ymin": 0, "xmax": index + 5, "ymax": 9}
            other = {"score": 0.1, "box": dict.fromkeys(box, 0.0)}
            yield [] if index == 2 else [other, {"score": 0.7, "box": box}]


@pytest.mark.parametrize(
    "prompt, asked",
    [
        ("the man", {"expressions": ["the man"]}),
        ({"point": (1.0, 2.0)}, {"points": [[(1.0, 2.0)]]}),
        ({"box": (1.0, 2.0, 3.0, 4.0)}, {"boxes": [(1.0, 2.0, 3.0, 4.0)]}),
    ],
    ids=str,
)
def test_a_pipeline_for_objects_is_a_locator(prompt, asked):
    see = Seeing()
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    found = list(ObjectLocator(see, every=1)(iter(frames), prompt))
    assert found == [(0, 0, 5, 9, 0.7), (1, 0, 6, 9, 0.7), None, (3, 0, 8, 9, 0.7)]
    assert see.calls == [asked] and see.closed == 1
    assert list(ObjectLocator(see)(iter(frames[:0]), prompt)) == []


@pytest.mark.parametrize(("threshold", "sure"), [(0.7, 0.5), (0.5, 0.7), (0.2, 0.9032), (None, 0.7)])
def test_confidence_is_relative_to_the_score_from_which_a_sentence_counts(threshold, sure):
    """0.2: odds of 7 to 3 against odds of 1 to 4."""
    see, frames = Seeing(), np.zeros((1, 8, 8, 3), np.uint8)
    see.model = SimpleNamespace(config=SimpleNamespace(expression_threshold=threshold))
    ((*_, found),) = ObjectLocator(see)(iter(frames), "the man")
    assert found == pytest.approx(sure, abs=1e-4)
    ((*_, pointed),) = ObjectLocator(see)(iter(frames), {"box": (1.0, 2.0, 3.0, 4.0)})
    assert pointed == 0.7


@pytest.mark.parametrize("count", range(1, 13))
def test_boxes_between_the_frames_that_are_looked_at(count):
    see = Seeing()
    frames = np.arange(count, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 8, 8, 3), np.uint8)
    found = list(ObjectLocator(see, every=3)(iter(frames), "the man"))
    first, second = (0, 0, 5, 9, 0.7), (1, 0, 6, 9, 0.7)  # of the frames 0 and 3; in frame 6 nobody, in 9 at x = 3
    third = [(1 / 3, 0, 16 / 3, 9, 0.7), (2 / 3, 0, 17 / 3, 9, 0.7)]
    whole = [first, *third, second, second, None, None, None, *[(3, 0, 8, 9, 0.7)] * 4]
    last = {1: [first], 2: [first] * 2, 3: [first] * 3, 6: [*whole[:4], second, second], 9: whole[:6] + [None] * 3}
    expected = last.get(count, whole[:count])
    assert [box and pytest.approx(box) for box in expected] == found


@pytest.mark.parametrize(
    "point, asked",
    [
        ((30.0, 30.0), {"boxes": [(17.0, 17.0, 43.0, 43.0)]}),  # 3 of the face's 20 pixels around it
        ((22.0, 18.0), {"boxes": [(17.0, 17.0, 43.0, 43.0)]}),
        ((44.0, 30.0), {"boxes": [(37.0, 17.0, 60.0, 43.0)]}),  # up to the edge of the picture
        ((41.0, 30.0), {"boxes": [(37.0, 17.0, 60.0, 43.0)]}),  # on both: the one whose middle is nearer
        ((30.0, 45.0), {"points": [[(30.0, 45.0)]]}),
    ],
    ids=str,
)
def test_a_point_on_a_face_means_the_head(point, asked):
    def faces(frame):
        assert frame.shape == (50, 60, 3) and not frame.any()  # the first one
        return [Face((x, 20.0, x + 20.0, 40.0), np.zeros((68, 2), np.float32), 1.0) for x in (20.0, 40.0)]

    frames = np.arange(4, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 50, 60, 3), np.uint8)
    see = Seeing()
    assert len(list(ObjectLocator(see, faces=faces)(iter(frames), {"point": point}))) == 4
    assert see.calls == [asked]


def test_a_point_stays_a_point_where_no_faces_can_be_found():
    def faces(frame):
        raise ImportError("dlib is missing")

    see = Seeing()
    list(ObjectLocator(see, faces=faces)(iter(np.zeros((2, 8, 8, 3), np.uint8)), {"point": (1.0, 2.0)}))
    assert see.calls == [{"points": [[(1.0, 2.0)]]}]


@pytest.mark.parametrize("every", [0, -1, 1.5, None])
def test_how_often_a_locator_looks_is_a_count(every):
    with pytest.raises(ValueError, match="`every` must be a positive integer"):
        ObjectLocator(Seeing(), every=every)


def test_a_prompt_that_the_pipeline_refuses():
    def see(inputs, **prompts):
        raise ValueError("`points`: (900, 5) is outside of the image")

    with pytest.raises(ValueError, match="`speaker`: `points`: .900, 5. is outside"):
        next(ObjectLocator(see)(iter(np.zeros((2, 8, 8, 3), np.uint8)), {"point": (900.0, 5.0)}))


def test_the_packaged_checkpoint_is_the_default(processor, repository, monkeypatch):  # noqa: F811
    asr = AudioVisualSpeechRecognitionPipeline(talkative_model(), processor=processor, device="cpu")
    assert asr._chosen(asr.settings) is None
    locator = asr._chosen(asr.settings.changed(speaker="the man")).locator
    assert isinstance(locator, ObjectLocator) and isinstance(locator.see, Pipeline)
    assert locator.see.model.config.model_type == "glee"
    assert asr._chosen(asr.settings.changed(speaker="the woman")).locator is locator
    assert asr._chosen(asr.settings.changed(speaker="the man", speaker_locator=locator.see)).locator.see is locator.see
    with pytest.raises(OSError):
        asr._chosen(asr.settings.changed(speaker="the man", speaker_model=str(repository / "nowhere")))
    monkeypatch.setattr(AudioVisualSpeechRecognitionPipeline, "default_speaker_model", None)
    with pytest.raises(ValueError, match="pass `speaker_model`"):
        asr._chosen(asr.settings.changed(speaker="the man"))


def test_two_portraits_and_a_sentence(tmp_path, repository):
    """With the shipped checkpoints: the person on the left says one sentence, the one on the right another."""
    pytest.importorskip("espeakng_loader", reason="needs lookhear[demo]")
    from lookhear.training.avsr.synthesis import synthesize_clip

    clip = synthesize_clip(
        "bin blue", tmp_path / "two.mp4", portrait="astronaut", second="hopper", second_text="set red", seed=3
    )
    asr = pipeline(
        "audio-visual-speech-recognition", model=str(repository / "model_cards" / "avsr-grid-tiny"), device="cpu"
    )
    for who, left, right in (("the person on the left", 0, 360), ("the person on the right", 360, 720)):
        facts = asr(clip.video, speaker=who)["report"]["speaker"]
        assert facts["located"] > 0.8 and facts["followed"] > 0.8
        for second in facts["seconds"]:
            assert left < (second["box"][0] + second["box"][2]) / 2 < right
