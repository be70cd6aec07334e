"""AvsrTokenizer: the 40 characters, the normaliser, decoding, round trips."""

import json

import numpy as np
import pytest
import torch

from lookhear.processing.avsr.tokenization_avsr import AvsrTokenizer, normalise_text


@pytest.fixture(scope="module")
def tokenizer() -> AvsrTokenizer:
    return AvsrTokenizer()


def test_ids_are_those_of_the_published_vocabulary(tokenizer):
    known = {" ": 1, "E": 2, "T": 3, "R": 10, "L": 11, "'": 22, "Z": 28, "0": 29, "1": 30, "9": 31, "5": 34, "4": 38}
    assert {token: tokenizer.encoder[token] for token in known} == known
    assert (len(tokenizer), tokenizer.vocab_size) == (40, 40)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 39, 39)


def test_text_becomes_characters_and_an_end(tokenizer):
    assert tokenizer("set tea").input_ids == [8, 2, 3, 1, 3, 2, 5, 39]
    assert tokenizer("").input_ids == [39]


def test_batch_is_padded_with_the_blank(tokenizer):
    batch = tokenizer(["A", "THE"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[5, 39, 0, 0], [3, 9, 2, 39]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bin blue at f two now.", "BIN BLUE AT F TWO NOW"),
        ("don\u2019t \u2018stop\u2019 'til\u00a0the\tdogs\u2019 bone", "DON'T STOP 'TIL THE DOGS' BONE"),
        ("rock 'n' roll - it's ' over", "ROCK 'N' ROLL IT'S OVER"),
        ("Café déjà-vu: naïve Ångström", "CAFE DEJA VU NAIVE ANGSTROM"),
        ("Straße, Æsop, Łódź, smørrebrød", "STRASSE AESOP LODZ SMORREBROD"),
        ("1,000 and 3.5, 10:30", "1000 AND 3 POINT 5 10 30"),
        ("R&D at 5%", "R AND D AT 5 PERCENT"),
        ("ﬁve \u0663 \uff12 zero\u200bwidth \U0001f600", "FIVE 3 2 ZEROWIDTH"),
        ("  \n ", ""),
    ],
)
def test_normaliser(text, expected):
    assert normalise_text(text) == expected
    assert normalise_text(expected) == expected


@pytest.mark.parametrize("text", ["привет", "東京", "x \u03c0"])
def test_letters_that_cannot_be_written_are_named(text):
    with pytest.raises(ValueError, match="transliterate"):
        normalise_text(text)


def test_text_that_is_none_is_refused():
    with pytest.raises(ValueError, match="must be a string"):
        normalise_text(None)


def test_decode_leaves_out_special_tokens_and_label_padding(tokenizer):
    ids = [39, *tokenizer("LAY RED AT K 9 SOON").input_ids, 0, 0]
    assert tokenizer.decode(ids) == "LAY RED AT K 9 SOON"
    assert tokenizer.batch_decode(torch.tensor([ids, [-100] * len(ids)])) == ["LAY RED AT K 9 SOON", ""]
    assert tokenizer.decode([11, 39], skip_special_tokens=False) == "L<eos>"
    assert AvsrTokenizer(lower_case_output=True).decode(ids) == "lay red at k 9 soon"


def test_decoding_an_unknown_id_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="Id 40"):
        tokenizer.decode([40])


def test_ctc_decode_collapses_repeats_and_drops_blanks(tokenizer):
    a, el, space, b = (tokenizer.encoder[c] for c in "AL B")
    frames = [0, a, a, 0, el, el, 0, el, 0, space, b, b, 39, 0, -100]
    assert tokenizer.ctc_decode(frames) == "ALL B"
    assert tokenizer.ctc_decode(np.array([frames, [0] * len(frames)])) == ["ALL B", ""]


def test_save_and_load(tmp_path):
    before = AvsrTokenizer(lower_case_output=True)
    before.save_pretrained(tmp_path)
    after = AvsrTokenizer.from_pretrained(tmp_path)
    assert json.loads((tmp_path / "vocab.json").read_text()) == before.encoder == after.encoder
    assert after.get_vocab() == before.get_vocab()
    ids = before("IT'S 8").input_ids
    assert after("it's 8").input_ids == ids
    assert after.decode(ids) == "it's 8"


def test_a_vocabulary_of_ones_own(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"<blank>": 0, "A": 1, " ": 2, "<eos>": 3}))
    tokenizer = AvsrTokenizer(vocab_file=str(path))
    assert tokenizer("a a").input_ids == [1, 2, 1, 3]


def test_added_tokens_get_new_ids(tokenizer):
    tokenizer = AvsrTokenizer()
    assert tokenizer.add_tokens(["<laugh>"]) == 1
    assert len(tokenizer) == 41
    assert tokenizer("HA <laugh>").input_ids == [9, 5, 40, 39]
