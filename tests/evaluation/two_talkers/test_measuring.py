"""Who is asked for in each reading, what counts as followed, and figures that can be checked by hand."""

import pytest

from lookhear.evaluation.two_talkers.composing import compose_mixtures
from lookhear.evaluation.two_talkers.measuring import evaluate_two_talkers, followed_share
from lookhear.evaluation.two_talkers.planning import plan_mixtures
from lookhear.evaluation.two_talkers.showing import to_markdown, to_text


class Listener:
    """Stands in for the pipeline: reads whoever is named from `texts`, and follows them where they are."""

    def __init__(self, rows):
        self.rows, self.calls = {row["file_name"]: row for row in rows}, []

    def __call__(self, path, modality="auto", speaker=None, **settings):
        name = path.rsplit("/", 1)[-1]
        self.calls.append((name, modality, speaker, settings))
        row = self.rows[name]
        if speaker is None:
            return {"text": "bin blue at f two now", "report": {"duration": 1.2}}
        if isinstance(speaker, dict):
            first = next(iter(speaker["track"]))
            place = int((first[0] + first[2]) / 2 // 48)
        else:
            place = [person["prompt"] for person in row["people"]].index(speaker)
        if row["file_name"] == "talking-0001.mp4":
            raise ValueError(f"{name}: {speaker} was not found in any frame.")
        box = [48 * place + 10.0, 0.0, 48 * place + 30.0, 32.0]
        report = {"duration": 1.2, "speaker": {"seconds": [{"box": box}, {"box": box}]}}
        return {"text": row["people"][place]["text"], "report": report}


@pytest.fixture(scope="module")
def folder(tone_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixtures")
    compose_mixtures(plan_mixtures(tone_clips, talking=4, silent=3, snrs=(0.0,)), folder)
    return folder


@pytest.fixture
def listener(folder):
    from lookhear.evaluation.two_talkers.measuring import read_mixtures

    return Listener(read_mixtures(folder))


def test_figures_of_a_reader_who_is_right_but_for_one_clip(folder, listener, tmp_path):
    results = {
        (row["people"], row["snr"], row["reading"]): row
        for row in (result.to_dict() for result in evaluate_two_talkers(listener, folder, tmp_path))
    }
    assert list(results) == [
        *((people, 0.0, reading) for people in (2, 3) for reading in ("sound", "named", "neighbour")),
        *((people, None, "named") for people in (1, 2, 3)),
    ]
    two = results[2, 0.0, "named"]
    assert (two["wer"], two["followed"], two["clips"], two["wrong_words_a_minute"]) == (0.0, 1.0, 2, None)
    three = results[3, 0.0, "named"]  # talking-0001 is refused: six words are missing, and nobody is followed
    assert (three["wer"], three["followed"]) == (0.5, 0.5)
    assert results[2, 0.0, "neighbour"]["wer"] > 0.5 and results[2, 0.0, "neighbour"]["followed"] == 1.0
    assert results[2, 0.0, "sound"]["followed"] is None
    assert results[2, None, "named"]["wrong_words_a_minute"] == 0.0 and results[2, None, "named"]["wer"] is None


def test_words_of_silent_targets_are_counted_by_the_minute(folder, listener, tmp_path):
    for row in listener.rows.values():
        row["people"] = [{**person, "text": person["text"] or "bin blue"} for person in row["people"]]
    results = evaluate_two_talkers(listener, folder, tmp_path, readings=["named"])
    assert [result.words_a_minute for result in results if result.snr is None] == pytest.approx([100.0] * 3)


def test_people_are_asked_for_by_words_or_by_their_track(folder, listener, tmp_path):
    evaluate_two_talkers(listener, folder, tmp_path, limit=1, num_beams=2)
    row = listener.rows["talking-0000.mp4"]
    asked = [call[1:] for call in listener.calls if call[0] == "talking-0000.mp4"]
    right, left = row["people"][row["target"]]["prompt"], row["people"][1 - row["target"]]["prompt"]
    assert asked == [
        ("audio", None, {"num_beams": 2}),
        ("auto", right, {"num_beams": 2}),
        ("auto", left, {"num_beams": 2}),
    ]
    (two, *_) = evaluate_two_talkers(listener, folder, tmp_path, choose="track", limit=1, readings=["named"])
    track = next(call[2] for call in listener.calls if isinstance(call[2], dict))["track"]
    assert next(track) == next(track) == (48.0 * row["target"], 0.0, 48.0 * (row["target"] + 1), 32.0)
    assert two.words.rate == 0.0 and two.followed == [1.0]


def test_a_stopped_run_goes_on_and_another_run_is_refused(folder, listener, tmp_path):
    first = evaluate_two_talkers(listener, folder, tmp_path, about="tiny", limit=2)
    count = len(listener.calls)
    assert evaluate_two_talkers(listener, folder, tmp_path, about="tiny", limit=2) == first
    assert len(listener.calls) == count  # nothing is read twice
    with pytest.raises(ValueError, match="another run"):
        evaluate_two_talkers(listener, folder, tmp_path, about="large")


def test_a_wrong_argument_is_not_taken_for_somebody_who_is_not_found(folder, tmp_path):
    def refuse(path, **settings):
        raise ValueError("`speaker` needs something that finds the speaker")

    with pytest.raises(ValueError, match="needs something"):
        evaluate_two_talkers(refuse, folder, tmp_path, readings=["named"])


def test_followed_is_the_share_of_seconds_with_the_box_in_the_part():
    seconds = [{"box": [10, 0, 30, 20]}, {"box": None}, {"box": [60, 0, 80, 20]}, {"box": [40, 0, 54, 20]}]
    assert followed_share(seconds, (0, 0, 48, 32)) == 0.5
    assert followed_share([], (0, 0, 48, 32)) == 0.0


def test_what_cannot_be_measured_is_refused(folder, listener, tmp_path):
    with pytest.raises(ValueError, match="readings has to be of sound, named, neighbour, not 'lips'"):
        evaluate_two_talkers(listener, folder, tmp_path, readings=["lips"])
    with pytest.raises(ValueError, match="choose has to be of words, track"):
        evaluate_two_talkers(listener, folder, tmp_path, choose="point")
    with pytest.raises(ValueError, match="compose mixtures there first"):
        evaluate_two_talkers(listener, tmp_path, tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.mp4", "text": "bin"}\n')
    with pytest.raises(ValueError, match="does not list mixtures"):
        evaluate_two_talkers(listener, tmp_path, tmp_path)


def test_tables_show_what_there_is():
    rows = [
        {"people": 2, "snr": -5.0, "reading": "named", "wer": 0.05, "interval": [0.01, 0.1], "followed": 0.985,
         "wrong_words_a_minute": None, "clips": 33},
        {"people": 1, "snr": None, "reading": "named", "wer": None, "interval": None, "followed": 1.0,
         "wrong_words_a_minute": 1.234, "clips": 9},
    ]  # fmt: skip
    markdown = to_markdown(rows).splitlines()
    assert markdown[1] == "|---|---|---|---|---|---|---|"
    assert markdown[2] == "| 2 | -5 | named | 5.0 (1.0 to 10.0) | 98.5 |  | 33 |"
    assert markdown[3] == "| 1 | silent | named |  | 100.0 | 1.2 | 9 |"
    assert "silent" in to_text(rows).splitlines()[3]
