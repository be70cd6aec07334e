"""Words go to the lips that say them: what counts as evidence, and how it is shared out."""

import math

import numpy as np
import pytest
import torch

from lookhear import AudioVisualSpeechRecognitionPipeline
from lookhear.processing.avsr.alignment_avsr import TimedText
from lookhear.processing.avsr.recognition_avsr import CONTEXT, assign_words, lip_evidence

from .test_pipeline import face_video, processor, sound  # noqa: F401
from .test_pipeline_long import FAST, talkative_model


def spelled(*words: tuple[str, float]) -> list[TimedText]:
    """Words that begin at so many seconds, a tenth of a second a letter, with spaces between them."""
    characters: list[TimedText] = []
    for text, start in words:
        if characters:
            characters.append(TimedText(" ", characters[-1].end, characters[-1].end + 0.02, 0.9))
        characters += [TimedText(letter, start + 0.1 * i, start + 0.1 * (i + 1), 0.9) for i, letter in enumerate(text)]
    return characters


def text_of(characters) -> str:
    return "".join(character.text for character in characters)


def test_evidence_is_the_highest_probability_of_a_character_at_its_time():
    chances = torch.full((1, 20, 4), 0.01)
    chances[0, 5, 2] = 0.7  # letter 2 is shown at step 5
    chances[0, 15, 3] = 0.6  # letter 3 at step 15
    ids, starts = torch.tensor([[2, 3, 2]]), torch.tensor([[7, 3, 12]])
    found = lip_evidence(chances.log(), ids, starts, starts + 1, nearby=2)
    # letter 2 at step 7 is near enough; letter 3 at step 3, and letter 2 at step 12, were shown at another time
    assert found[0].tolist() == pytest.approx([0.7, 0.01, 0.01])
    assert lip_evidence(chances.log(), ids, starts, starts + 1, nearby=20)[0].tolist() == pytest.approx(
        [0.7, 0.6, 0.7]
    )


def test_evidence_at_the_ends_of_a_clip_and_of_nothing():
    log_probs = torch.full((2, 6, 3), math.log(0.25))
    ids = torch.tensor([[1, 2], [1, 0]])
    starts, ends = torch.tensor([[0, 5], [2, 0]]), torch.tensor([[1, 6], [3, 0]])
    assert lip_evidence(log_probs, ids, starts, ends, 3)[:, 0].tolist() == pytest.approx([0.25, 0.25])
    assert lip_evidence(log_probs, ids[:, :0], starts[:, :0], ends[:, :0], 3).shape == (2, 0)


def test_all_words_are_the_lips_or_none_is():
    characters = spelled(("bin", 0.5), ("blue", 0.9))
    own = assign_words(characters, [0.8] * 8)
    assert (text_of(own.characters), own.others) == ("bin blue", [])
    assert own.evidence == pytest.approx(0.8)
    silent = assign_words(characters, [0.2] * 8)
    assert silent.characters == [] and [word.text for word in silent.others] == ["bin", "blue"]
    assert silent.others[0].start == pytest.approx(0.5) and silent.others[1].end == pytest.approx(1.3)


def test_a_letter_that_is_hard_to_see_stays_among_others():
    characters = spelled(("bin", 0.5), ("blue", 0.9), ("p", 1.4))
    evidence = [0.9] * 9 + [0.02]
    assert text_of(assign_words(characters, evidence).characters) == "bin blue p"


def test_whoever_falls_silent_is_not_given_what_another_says_then():
    characters = spelled(("bin", 0.5), ("blue", 0.9), ("set", 4.0), ("red", 4.4))
    evidence = [0.9] * 8 + [0.1] * 8
    own = assign_words(characters, evidence)
    assert text_of(own.characters) == "bin blue" and [word.text for word in own.others] == ["set", "red"]
    later = assign_words(characters, evidence[::-1])
    assert text_of(later.characters) == "set red"  # and no space before it


def test_words_are_judged_with_what_is_a_second_around_them():
    for gap, kept in ((CONTEXT - 0.1, "a b"), (CONTEXT + 0.1, "a")):
        characters = [
            TimedText("a", 0.0, 0.1, 1.0),
            TimedText(" ", 0.1, 0.2, 1.0),
            TimedText("b", 0.1 + gap, 1.5, 1.0),
        ]
        assert text_of(assign_words(characters, [0.9, 0.0, 0.1]).characters) == kept


def test_lips_that_cannot_be_seen_decide_nothing():
    characters = spelled(("bin", 0.5), ("set", 4.0))
    unseen = [math.nan] * 3
    assert text_of(assign_words(characters, [*unseen, math.nan, 0.1, 0.1, 0.1]).characters) == "bin"
    assert assign_words(characters, [math.nan] * 7).evidence == 1.0
    nothing = assign_words([], [])
    assert (nothing.characters, nothing.others, nothing.evidence) == ([], [], 1.0)


def test_no_least_evidence_keeps_everything():
    characters = spelled(("bin", 0.5), ("blue", 0.9))
    assert assign_words(characters, [0.0] * 8, least=0.0).characters == characters


# ------------------------------------------------------------------------------------------------------- the pipeline

SIDE = 260
THERE = {"track": [(0, 0, SIDE, SIDE)] * 400}


@pytest.fixture(scope="module")
def asr(processor):  # noqa: F811
    return AudioVisualSpeechRecognitionPipeline(talkative_model(), processor=processor, device="cpu", **FAST)


@pytest.fixture(scope="module")
def clip() -> dict:
    """Three seconds of a face with noise."""
    video = np.concatenate([face_video(), face_video()[::-1]] * 4)[:75]
    return {**sound(3.0), "video": video, "fps": 25}


def test_words_that_the_lips_do_not_say_are_left_out(asr, clip):
    """A random model's lips never agree wholly with what it reads, and always a little."""
    settings = {"speaker": THERE, "return_timestamps": "word"}
    everything = asr(clip, lip_evidence=0.0, **settings)
    assert everything["text"] and everything["report"]["speaker"]["others_said"] == []
    nothing = asr(clip, lip_evidence=1.0, **settings)
    assert (nothing["text"], nothing["chunks"]) == ("", [])
    assert 0 < nothing["confidence"] < 1
    others = nothing["report"]["speaker"]["others_said"]
    assert others == everything["chunks"]
    count = f"{len(others)} words were" if len(others) > 1 else "a word was"
    assert any(warning.startswith(f"{count} heard that") for warning in nothing["report"]["warnings"])


def test_long_clips_and_streams_leave_them_out_too(asr, clip):
    settings = {"speaker": THERE, "chunk_length_s": 2, "return_timestamps": "word"}
    everything = asr(clip, lip_evidence=0.0, **settings)
    nothing = asr(clip, lip_evidence=1.0, **settings)
    assert everything["chunks"] and nothing["text"] == ""
    said = [word["text"] for word in nothing["report"]["speaker"]["others_said"]]
    assert said and set(said) <= {chunk["text"] for chunk in everything["chunks"]} | set(said)
    stream = asr.stream(clip, lip_evidence=1.0, **settings)
    assert list(stream) == [] and len(stream.to_report()["speaker"]["others_said"]) == len(said)


def test_nobody_in_particular_is_given_everything(asr, clip):
    assert asr(clip, lip_evidence=1.0)["text"] == asr(clip)["text"]
    assert "speaker" not in asr(clip)["report"]


def test_lips_alone_and_sound_alone_are_not_judged(asr, clip):
    silent = {"video": clip["video"], "fps": 25}
    assert asr(silent, speaker=THERE, lip_evidence=1.0)["text"] == asr(silent, speaker=THERE)["text"] != ""
    hidden = {"track": [(0, 200, 60, 260)] * 400}  # no face there
    heard = asr(clip, speaker=hidden, lip_evidence=1.0)
    assert heard["report"]["modality"] == "audio" and heard["text"]


def test_results_do_not_depend_on_the_batch(asr, clip):
    short = {**sound(1.0), "video": clip["video"][:25], "fps": 25}
    settings = {"speaker": THERE, "lip_evidence": 0.2, "return_timestamps": "char"}
    together = asr([clip, short], batch_size=2, **settings)
    for result, alone in zip(together, (clip, short)):
        assert result["text"] == asr(alone, **settings)["text"]


def test_a_wrong_measure_is_refused(asr, clip):
    with pytest.raises(ValueError, match="`lip_evidence` must be a number from 0 to 1, not 2"):
        asr(clip, speaker=THERE, lip_evidence=2)
