"""Word pieces: lists of units, SentencePiece models, texts there and back, and the times of their words."""

import struct

import pytest
from transformers import AutoTokenizer

from lookhear.processing.avsr import AvsrTokenizer
from lookhear.processing.avsr.alignment_avsr import TimedText, delay_early_starts, split_pieces, time_words
from lookhear.processing.avsr.tokenization_avsr import read_sentencepiece, read_units

PIECES = ["<unk>", "'", "S", "A", "B", "C", "\u2581", "\u2581A", "\u2581AB", "\u2581CAB", "AB", "\u2581BE"]
TOKENS = ["<blank>", *PIECES, "<eos>"]
SCORES = {"<unk>": 0.0, "S": -2.0, "A": -3.0, "B": -3.0, "C": -3.0, "\u2581": -1.0, "AB": -9.0, "\u2581A": -4.0}


def units(folder, lines=None):
    file = folder / "units.txt"
    lines = lines or [f"{piece} {place}" for place, piece in enumerate(PIECES, start=1)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return bytes([number << 3 | 2, len(content)]) + content


def sentencepiece_model(folder, scores=None):
    """What SentencePiece writes, with the fields that count: a control symbol, pieces, and the trainer's settings."""
    pieces = [field(1, b"<s>") + b"\x15" + struct.pack("<f", 0.0) + b"\x18\x03"]
    for piece, score in (scores or SCORES).items():
        kind = b"\x18\x02" if piece == "<unk>" else b""
        pieces.append(field(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + kind)
    file = folder / "pieces.model"
    file.write_bytes(b"".join(field(1, piece) for piece in pieces) + field(2, b"\x0a\x01x"))
    return file


def test_units_are_read_in_order(tmp_path):
    assert read_units(units(tmp_path)) == TOKENS
    for lines, message in (
        (["A 1", "B 3"], "has 'B 3' where \"piece 2\" should be"),
        (["A"], "should be"),
        ([" "], "is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            read_units(units(tmp_path, lines))
    with pytest.raises(ValueError, match="cannot be read"):
        read_units(tmp_path / "missing.txt")


def test_without_a_model_texts_are_written_in_the_fewest_pieces(tmp_path):
    tokenizer = AvsrTokenizer.from_units(units(tmp_path))
    assert tokenizer.tokenize("cab's ab") == ["\u2581CAB", "'", "S", "\u2581AB"]
    assert tokenizer("Cab").input_ids == [10, 13]
    assert tokenizer.tokenize("a x") == ["\u2581A", "\u2581", "X"] and tokenizer("x").input_ids == [7, 1, 13]
    assert tokenizer.tokenize("") == []


def test_a_model_decides_between_spellings(tmp_path):
    """The mark and three letters, -10 in all, are more probable than the mark, C and AB, -13."""
    assert read_sentencepiece(sentencepiece_model(tmp_path)) == SCORES
    tokenizer = AvsrTokenizer.from_units(units(tmp_path), sentencepiece_model(tmp_path))
    assert tokenizer.tokenize("cab") == ["\u2581", "C", "A", "B"]
    (tmp_path / "saved").mkdir()
    tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert type(again) is AvsrTokenizer and again.tokenize("cab") == ["\u2581", "C", "A", "B"]
    assert again.get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("content", [b"", b"\x0a\xff\xff\xff\xff", b"no model at all", b"\x0a\x02\x0a\x05"])
def test_what_is_no_model_is_refused(tmp_path, content):
    file = tmp_path / "broken.model"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"^sentencepiece_model: .* is not a SentencePiece model"):
        read_sentencepiece(file)


def test_ids_are_read_as_published(tmp_path):
    tokenizer = AvsrTokenizer.from_units(units(tmp_path))
    assert tokenizer.decode([13, 10, 2, 3, 9, 13, 13]) == "CAB'S AB"
    assert tokenizer.decode([7, 4, 1, 13]) == "A<unk>"
    assert tokenizer.ctc_decode([0, 9, 9, 0, 5, 0]) == "ABB"
    lower = AvsrTokenizer.from_units(units(tmp_path), lower_case_output=True)
    assert lower.decode([9, 5]) == "abb" and lower.spell(9) == " ab"


def test_text_can_be_taken_as_it_is(tmp_path):
    tokenizer = AvsrTokenizer.from_units(units(tmp_path), do_normalise=False)
    assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize("cab AB")) == [7, 1, 9]


def test_pieces_become_words_with_times():
    pieces = [
        TimedText(" CAB", 0.20, 0.28, 0.9),
        TimedText("'", 0.32, 0.36, 0.5),
        TimedText("S", 0.36, 0.40, 0.8),
        TimedText(" ", 0.60, 0.64, 0.7),
        TimedText("B", 0.64, 0.68, 0.6),
        TimedText(" AB", 1.00, 1.04, 0.4),
    ]
    parts, sources = split_pieces(pieces)
    assert [part.text for part in parts] == ["CAB", "'", "S", " ", "B", " ", "AB"]
    assert sources == [0, 1, 2, 3, 4, 5, 5]
    words = time_words(delay_early_starts(parts))
    assert [(word.text, word.start, word.end) for word in words] == [
        ("CAB'S", 0.20, 0.60),
        ("B", 0.64, 0.68),
        ("AB", 1.00, 1.04),
    ]
    letters = [TimedText("A", 0.0, 0.1, 1.0), TimedText(" ", 0.1, 0.2, 1.0), TimedText("B", 0.2, 0.3, 1.0)]
    assert split_pieces(letters) == (letters, [0, 1, 2])
