"""Readers on small made-up trees of exactly the published layouts."""

import json

import pytest

from lookhear.training.avsr.corpora import (
    CorpusError,
    grid_sentence,
    grid_split,
    read_folder,
    read_grid,
    read_lrs2,
    read_lrs3,
    read_lrw,
)


def put(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


ALIGN = """0 23750 sil
23750 29500 bin
29500 34000 blue
34000 35500 at
35500 41000 f
41000 47250 two
47250 53000 now
53000 74500 sil
"""
PRETRAIN = """Text:  WE NEED IT NOW
Conf:  4

WORD START END ASDSCORE
WE 0.10 0.30 5.2
NEED 0.30 0.62 6.0
IT 0.62 0.80 5.9
NOW 0.85 1.20 4.4
"""


# ---- GRID


def test_grid_reads_times_in_units_of_a_25000th_second(tmp_path):
    put(tmp_path / "s1" / "bbaf2n.mpg")
    put(tmp_path / "s1" / "align" / "bbaf2n.align", ALIGN)
    (clip,) = read_grid(tmp_path)
    assert clip.id == "s1/bbaf2n" and clip.speaker == "s1" and clip.text == "bin blue at f two now"
    assert clip.media == tmp_path / "s1" / "bbaf2n.mpg"
    assert clip.words[0] == {"word": "bin", "start": 0.95, "end": 1.18} and len(clip.words) == 6
    assert clip.words[-1]["end"] == 2.12


@pytest.mark.parametrize("place", ["s2/align", "align/s2", "alignments/s2", "s2"])
def test_grid_finds_alignments_in_every_published_place(tmp_path, place):
    put(tmp_path / "s2" / "video" / "mpg_6000" / "bbaf2n.mpg")
    put(tmp_path / place / "bbaf2n.align", ALIGN.replace("blue", "BLUE"))
    (clip,) = read_grid(tmp_path)
    assert [word["word"] for word in clip.words] == "bin blue at f two now".split()


def test_grid_text_from_the_file_name_without_alignment(tmp_path):
    put(tmp_path / "s10" / "LWBSZA.mp4")
    put(tmp_path / "s2" / "swiz3n.mpg")
    clips = list(read_grid(tmp_path))
    assert [clip.speaker for clip in clips] == ["s2", "s10"]  # by number, not by letter
    assert [clip.text for clip in clips] == ["set white in z three now", "lay white by s zero again"]
    assert all(clip.words is None for clip in clips)
    assert [clip.id for clip in read_grid(tmp_path / "s2")] == ["s2/swiz3n"]


def test_grid_split_keeps_groups_whole_and_covers_all(tmp_path):
    assert len({grid_split("bbaf" + end) for end in ("2n", "3s", "4p", "5a")}) == 1
    codes = [f"{a}{b}{c}{d}1n" for a in "blps" for b in "bgrw" for c in "abiw" for d in "abcdefghij"]
    for code in codes:
        put(tmp_path / "s1" / f"{code}.mpg")
    parts = {split: {clip.id for clip in read_grid(tmp_path, split)} for split in ("train", "validation", "test")}
    assert set.union(*parts.values()) == {clip.id for clip in read_grid(tmp_path)}
    assert sum(map(len, parts.values())) == len(codes)
    assert 0.02 < len(parts["test"]) / len(codes) < 0.09


@pytest.mark.parametrize("code", ["bbaf2", "bbaw2n", "xbaf2n", "bbaf2nn"])
def test_grid_refuses_names_outside_the_grammar(code):
    with pytest.raises(CorpusError, match=code):
        grid_sentence(code)


def test_grid_errors_name_folder_and_expectation(tmp_path):
    put(tmp_path / "videos" / "bbaf2n.mpg")
    with pytest.raises(CorpusError, match=f"{tmp_path}.*speaker folders"):
        list(read_grid(tmp_path))
    with pytest.raises(CorpusError, match="not a folder"):
        list(read_grid(tmp_path / "nowhere"))
    put(tmp_path / "s1" / "bbaf2n.mpg")
    put(tmp_path / "s1" / "bbaf2n.align", "0 bin\n")
    with pytest.raises(CorpusError, match="line 1.*1/25000"):
        list(read_grid(tmp_path))


# ---- LRS2


@pytest.fixture
def lrs2(tmp_path):
    base = tmp_path / "mvlrs_v1"
    for name in ("main/5535415699068794046/00001", "main/5535415699068794046/00002", "main/6330311066473698535/00011"):
        put(base / f"{name}.mp4")
        put(base / f"{name}.txt", "Text:  WHEN YOU'RE COOKING CHIPS\nConf:  4\n")
    put(base / "pretrain/5535496873950688380/00009.mp4")
    put(base / "pretrain/5535496873950688380/00009.txt", PRETRAIN)
    put(tmp_path / "pretrain.txt", "5535496873950688380/00009\n")
    put(tmp_path / "train.txt", "5535415699068794046/00001\n")
    put(tmp_path / "val.txt", "5535415699068794046/00002\n")
    put(tmp_path / "test.txt", "6330311066473698535/00011 NF\n")
    return tmp_path


def test_lrs2_follows_its_lists(lrs2):
    clips = list(read_lrs2(lrs2))
    assert [clip.split for clip in clips] == ["pretrain", "train", "val", "test"]
    assert clips[3].id == "test/6330311066473698535/00011"  # the second token is no part of the name
    assert clips[3].media == lrs2 / "mvlrs_v1" / "main" / "6330311066473698535" / "00011.mp4"
    assert clips[1].text == "WHEN YOU'RE COOKING CHIPS" and clips[1].words is None
    assert clips[0].text == "WE NEED IT NOW" and clips[0].words[3] == {"word": "NOW", "start": 0.85, "end": 1.2}
    assert [clip.id for clip in read_lrs2(lrs2 / "mvlrs_v1", "val")] == ["val/5535415699068794046/00002"]


def test_lrs2_errors(lrs2, tmp_path_factory):
    (lrs2 / "val.txt").unlink()
    with pytest.raises(CorpusError, match="val.txt is missing"):
        list(read_lrs2(lrs2, "val"))
    with pytest.raises(CorpusError, match="split 'validation'.*pretrain, train, val, test"):
        list(read_lrs2(lrs2, "validation"))
    with pytest.raises(CorpusError, match="mvlrs_v1/main"):
        list(read_lrs2(tmp_path_factory.mktemp("empty")))
    put(lrs2 / "mvlrs_v1/main/5535415699068794046/00001.txt", "HELLO\n")
    with pytest.raises(CorpusError, match=r"00001.txt.*Text:"):
        list(read_lrs2(lrs2, "train"))
    (lrs2 / "mvlrs_v1/main/5535415699068794046/00001.txt").unlink()
    with pytest.raises(CorpusError, match=r"00001.txt is missing"):
        list(read_lrs2(lrs2, "train"))


# ---- LRS3


def test_lrs3_reads_word_times_after_the_frame_table(tmp_path):
    table = PRETRAIN.replace(
        "Conf:  4\n", "Conf:  5\nRef: 0Fi83BHQsMA\n\nFRAME X Y W H \n000123 0.41 0.18 0.11 0.20\n"
    )
    for part, name in (
        ("pretrain", "00j9bKdiOjk/00001"),
        ("trainval", "0Fi83BHQsMA/00002"),
        ("test", "0af00UcTOSc/50001"),
    ):
        put(tmp_path / part / f"{name}.mp4")
        put(tmp_path / part / f"{name}.txt", table)
    clips = list(read_lrs3(tmp_path))
    assert [clip.id for clip in clips] == [
        "pretrain/00j9bKdiOjk/00001",
        "trainval/0Fi83BHQsMA/00002",
        "test/0af00UcTOSc/50001",
    ]
    assert clips[1].speaker == "0Fi83BHQsMA" and clips[1].text == "WE NEED IT NOW"
    assert [word["word"] for word in clips[1].words] == ["WE", "NEED", "IT", "NOW"]
    assert [clip.split for clip in read_lrs3(tmp_path, "test")] == ["test"]
    with pytest.raises(CorpusError, match="pretrain, trainval, test"):
        list(read_lrs3(tmp_path / "trainval"))


# ---- LRW


def test_lrw_places_the_word_in_the_middle_of_29_frames(tmp_path):
    for part in ("train", "val", "test"):
        put(tmp_path / "lipread_mp4" / "ABOUT" / part / "ABOUT_00001.mp4")
        lines = "Disk reference: 1\nChannel: BBC\nProgram start: 2015\nClip start: 3.2\nDuration: 0.40 seconds\n"
        put(tmp_path / "lipread_mp4" / "ABOUT" / part / "ABOUT_00001.txt", lines)
    clips = list(read_lrw(tmp_path))
    assert [clip.id for clip in clips] == ["train/ABOUT_00001", "val/ABOUT_00001", "test/ABOUT_00001"]
    assert clips[0].text == "ABOUT" and clips[0].words == [{"word": "ABOUT", "start": 0.38, "end": 0.78}]
    assert [clip.split for clip in read_lrw(tmp_path / "lipread_mp4", "val")] == ["val"]
    with pytest.raises(CorpusError, match="WORD/val/WORD_NNNNN.mp4"):
        list(read_lrw(tmp_path / "lipread_mp4" / "ABOUT", "val"))


# ---- metadata.jsonl


def test_folder_with_metadata(tmp_path):
    words = [{"word": "hi", "start": 0.1, "end": 0.3}]
    rows = [
        {"file_name": "a/one.mp4", "text": "hi", "words": words, "speaker": "ann", "split": "train"},
        {"file_name": "two.wav", "text": "there", "start": 1.0, "end": 2.5, "split": "test"},
    ]
    put(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    one, two = read_folder(tmp_path)
    assert (one.id, one.media, one.words, one.speaker, one.split) == (
        "a/one",
        tmp_path / "a/one.mp4",
        words,
        "ann",
        "train",
    )
    assert (two.start, two.end, two.words) == (1.0, 2.5, None)
    assert [clip.id for clip in read_folder(tmp_path, "test")] == ["two"]
    with pytest.raises(CorpusError, match="no clips of split 'dev'"):
        list(read_folder(tmp_path, "dev"))


def test_folder_of_split_folders(tmp_path):
    put(tmp_path / "train" / "metadata.jsonl", '{"file_name": "x.mp4", "text": "yes"}\n')
    (clip,) = read_folder(tmp_path, "train")
    assert clip.media == tmp_path / "train" / "x.mp4" and clip.split == "train"
    with pytest.raises(CorpusError, match="choose a split: train"):
        list(read_folder(tmp_path))


@pytest.mark.parametrize(
    "lines, message",
    [
        ("{", "line 1: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
        ('{"file_name": "a.mp4"}', "'text' must be present"),
        ("[1]", "'file_name' must be present"),
        ('{"file_name": "a.mp4", "text": "x", "start": "1s"}', "'start' must be a number"),
        ('{"file_name": "a.mp4", "text": "x", "words": [{"word": "x"}]}', "each of 'words'"),
        ('{"file_name": "a.mp4", "text": "x"}\n{"file_name": "a.mp4", "text": "y"}', "line 2: 'a' occurs twice"),
        ("", "holds no clips"),
    ],
)
def test_folder_errors_name_the_line(tmp_path, lines, message):
    put(tmp_path / "metadata.jsonl", lines)
    with pytest.raises(CorpusError, match=message):
        list(read_folder(tmp_path))


@pytest.mark.parametrize("name", ["../secret.mp4", "a/../../secret.mp4", "/etc/passwd"])
def test_files_outside_of_the_folder_are_refused(tmp_path, name):
    corpus = tmp_path / "corpus"
    put(corpus / "metadata.jsonl", json.dumps({"file_name": "a/../b.mp4", "text": "x"}) + "\n")
    assert [clip.id for clip in read_folder(corpus)] == ["a/../b"]
    put(corpus / "metadata.jsonl", json.dumps({"file_name": name, "text": "x"}) + "\n")
    with pytest.raises(CorpusError, match=r"line 1: file_name '.*' is outside of .*corpus; .*--allow-outside"):
        list(read_folder(corpus))
    (clip,) = read_folder(corpus, allow_outside=True)
    assert clip.media == corpus / name
