"""From text to ids and back: the 40 characters of the AVSR system with its text normaliser, or word pieces."""

import itertools
import json
import os
import re
import struct
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizer

VOCAB_FILES_NAMES = {"vocab_file": "vocab.json", "scores_file": "piece_scores.json"}

BLANK_TOKEN = "<blank>"
EOS_TOKEN = "<eos>"
UNKNOWN_TOKEN = "<unk>"
SPACE_TOKEN = "<space>"  # in ESPnet's lists of characters
WORD_START = "\u2581"  # begins the first piece of a word, as in SentencePiece
# Ids 1 to 38 in this order; 0 is the CTC blank and the padding, 39 is start and end of a sentence.
CHARACTERS = " ETOAINSHRLDUYWGCMFBP'VKJXQZ0192856734"

_APOSTROPHES = "\u2019\u02bc\u02b9\u2032\u00b4`\uff07\u055a"  # right quote, modifier letters, prime, accents
_UNDECOMPOSED = str.maketrans(
    {"Æ": "AE", "Œ": "OE", "Ø": "O", "Ł": "L", "Đ": "D", "Ð": "D", "Þ": "TH", "Ħ": "H", "ẞ": "SS", "İ": "I"}
)
_SPOKEN_SYMBOLS = {"&": " AND ", "%": " PERCENT ", "+": " PLUS ", "@": " AT "}


def normalise_text(text: str) -> str:
    """
    Writes `text` with the 38 printable characters only: A to Z, 0 to 9, the apostrophe and the space.

    Upper case; accents dropped; typographic apostrophes distinguished from quotes; `&`, `%`, `+`, `@` spoken; `1,000`
    becomes `1000` and `3.5` becomes `3 POINT 5`; hyphens and all other punctuation part words; white space is single.

    Raises:
        ValueError: a letter or number has no such spelling (another script, for example).
    """
    if not isinstance(text, str):
        raise ValueError(f"`text` must be a string, not {type(text).__name__}.")
    text = re.sub(r"(?<!\w)\u2018([^\u2018\u2019]*)\u2019(?!\w)", r"\1", text)  # ‘quoted’
    text = text.translate({ord(mark): "'" for mark in _APOSTROPHES + "\u2018"})
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<=\d)\.(?=\d)", " POINT ", text)
    text = unicodedata.normalize("NFKD", text).upper().translate(_UNDECOMPOSED)
    text = "".join(_write_character(character, text) for character in text)
    text = re.sub(r"(?<![A-Z0-9])'+(?![A-Z0-9])", " ", text)  # an apostrophe belongs to a word
    return " ".join(text.split())


def _write_character(character: str, text: str) -> str:
    """Returns one character of upper-cased, decomposed text in the 38 characters; see [`normalise_text`]."""
    if character in CHARACTERS:
        return character
    if character in _SPOKEN_SYMBOLS:
        return _SPOKEN_SYMBOLS[character]
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.digit(character))
    if category[0] in "LN":
        name = unicodedata.name(character, f"U+{ord(character):04X}")
        raise ValueError(
            f"`text` has {character!r} ({name}), which the 40 characters of this tokenizer cannot write: "
            f"transliterate it to A-Z, 0-9 or an apostrophe. The text: {text[:80]!r}"
        )
    return "" if category in ("Mn", "Cf") else " "


class AvsrTokenizer(PreTrainedTokenizer):
    """
    Tokenizer of characters or of word pieces: 0 is the CTC blank and the padding, the last id starts and ends a text.

    A vocabulary with pieces that begin with SentencePiece's mark of a word is one of word pieces. They are written
    with the scores of a SentencePiece model if it has been given to [`~AvsrTokenizer.from_units`], else with as few
    pieces as possible; what no piece can write is `<unk>`.

    Args:
        vocab_file (`str`, *optional*):
            JSON file `{token: id}`. The 40 characters when it is not given.
        scores_file (`str`, *optional*):
            JSON file `{piece: log-probability}` of a SentencePiece model.
        do_normalise (`bool`, defaults to `True`):
            Whether text is written in capital letters, digits and apostrophes first, see [`normalise_text`]; else
            word pieces and other lists of characters take it as it is.
        lower_case_output (`bool`, defaults to `False`):
            Decode to lower case.
        bos_token (`str`, defaults to `"<eos>"`):
            Starts a sentence.
        eos_token (`str`, defaults to `"<eos>"`):
            Ends a sentence.
        pad_token (`str`, defaults to `"<blank>"`):
            The CTC blank, and padding.
        kwargs:
            Of every tokenizer.
    """

    vocab_files_names = VOCAB_FILES_NAMES
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(
        self,
        vocab_file: str | None = None,
        scores_file: str | None = None,
        do_normalise: bool = True,
        lower_case_output: bool = False,
        bos_token: str = EOS_TOKEN,
        eos_token: str = EOS_TOKEN,
        pad_token: str = BLANK_TOKEN,
        **kwargs: Any,
    ):
        if vocab_file is None:
            self.encoder = {token: index for index, token in enumerate([BLANK_TOKEN, *CHARACTERS, EOS_TOKEN])}
        else:
            with open(vocab_file, encoding="utf-8") as file:
                self.encoder = json.load(file)
        self.decoder = {index: token for token, index in self.encoder.items()}
        self.lower_case_output = lower_case_output
        self.do_normalise = do_normalise
        self.has_pieces = any(token.startswith(WORD_START) for token in self.encoder)
        self.piece_scores: dict[str, float] | None = None
        if scores_file is not None:
            self.piece_scores = json.loads(Path(scores_file).read_text(encoding="utf-8"))
        self._splitter: Tokenizer | None = None
        kwargs.setdefault("special_tokens_pattern", "eos")
        super().__init__(
            do_normalise=do_normalise,
            lower_case_output=lower_case_output,
            bos_token=bos_token,
            eos_token=eos_token,
            pad_token=pad_token,
            **kwargs,
        )

    @classmethod
    def from_units(
        cls,
        units: str | os.PathLike[str] | Sequence[str],
        sentencepiece_model: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> "AvsrTokenizer":
        """
        Makes the tokenizer of a recogniser that was trained with ESPnet.

        Args:
            units: its list of units, a file of lines "piece id" with the ids 1, 2, ...; or the list of tokens itself,
                the blank first and the end of a text last.
            sentencepiece_model: the model with which its texts were written, if it is at hand.
            kwargs: arguments of the class.

        Raises:
            ValueError: a file isn't such a list or such a model.
        """
        tokens = read_units(units) if isinstance(units, (str, os.PathLike)) else list(units)
        if len(set(tokens)) != len(tokens):
            raise ValueError("units: a token is there twice.")
        with tempfile.TemporaryDirectory() as folder:
            vocabulary = Path(folder, VOCAB_FILES_NAMES["vocab_file"])
            vocabulary.write_text(json.dumps({token: index for index, token in enumerate(tokens)}), encoding="utf-8")
            tokenizer = cls(str(vocabulary), bos_token=tokens[-1], eos_token=tokens[-1], pad_token=tokens[0], **kwargs)
        if sentencepiece_model is not None:
            tokenizer.piece_scores = read_sentencepiece(sentencepiece_model)
        return tokenizer

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Writes the vocabulary, and the pieces' scores if there are any."""
        files: dict[str, Any] = {"vocab_file": self.encoder, "scores_file": self.piece_scores}
        paths = []
        for name, content in files.items():
            if content is None:
                continue
            path = Path(save_directory, (f"{filename_prefix}-" if filename_prefix else "") + VOCAB_FILES_NAMES[name])
            path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
            paths.append(str(path))
        return tuple(paths)

    @property
    def space_id(self) -> int:
        """Returns what stands between words: the id of the space, or the blank where pieces begin words."""
        if self.has_pieces:
            return self.encoder[str(self.pad_token)]
        return self.encoder[SPACE_TOKEN if SPACE_TOKEN in self.encoder else " "]

    @property
    def vocab_size(self) -> int:
        return len(self.encoder)

    def get_vocab(self) -> dict[str, int]:
        return {**self.encoder, **self.added_tokens_encoder}

    def normalise(self, text: str) -> str:
        """Writes `text` in the characters of this tokenizer; see [`normalise_text`]."""
        return normalise_text(text) if self.do_normalise else text

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        if self.has_pieces:
            return self._pieces(self.normalise(text))
        characters = list(self.normalise(text))
        if SPACE_TOKEN in self.encoder:
            characters = [SPACE_TOKEN if character == " " else character for character in characters]
        if UNKNOWN_TOKEN in self.encoder:
            return characters
        missing = sorted(set(characters) - set(self.encoder))
        if missing:
            raise ValueError(f"The vocabulary has no {missing}, which `text` needs: {text[:80]!r}")
        return characters

    def _pieces(self, text: str) -> list[str]:
        """Writes a text in the pieces of the highest score together, or without scores in the fewest."""
        words = unicodedata.normalize("NFKC", text).split()
        if self._splitter is None:
            scores = self.piece_scores
            if scores is None:
                special = (self.pad_token, self.eos_token, UNKNOWN_TOKEN)
                scores = {UNKNOWN_TOKEN: 0.0} | {piece: -1.0 for piece in self.encoder if piece not in special}
            unknown = list(scores).index(UNKNOWN_TOKEN)
            self._splitter = Tokenizer(models.Unigram(list(scores.items()), unk_id=unknown))
        return self._splitter.encode("".join(WORD_START + word for word in words)).tokens if words else []

    def spell(self, index: int) -> str:
        """Returns how an id is written, with a space before the first piece of a word."""
        text = self._convert_id_to_token(index).replace(WORD_START, " ").replace(SPACE_TOKEN, " ")
        return text.lower() if self.lower_case_output else text

    def _convert_token_to_id(self, token: str) -> int | None:
        return self.encoder.get(token, self.encoder.get(UNKNOWN_TOKEN))

    def _convert_id_to_token(self, index: int) -> str:
        if index not in self.decoder:
            raise ValueError(f"Id {index} is not in the vocabulary (0 to {len(self) - 1}).")
        return self.decoder[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        text = "".join(tokens)
        if self.has_pieces or SPACE_TOKEN in self.encoder:
            text = text.replace(WORD_START, " ").replace(SPACE_TOKEN, " ").strip()
        return text.lower() if self.lower_case_output else text

    def decode(self, token_ids: Any, skip_special_tokens: bool = True, **kwargs: Any) -> str | list[str]:
        """
        Decodes ids of labels or of `generate` to text; a batch gives a list.

        Special tokens are left out unless `skip_special_tokens=False`, and so is the -100 of padded labels.
        Repeated ids are repeated letters: for frame-wise CTC ids use [`~AvsrTokenizer.ctc_decode`].
        """
        return super().decode(_without_padding(token_ids), skip_special_tokens=skip_special_tokens, **kwargs)

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = True,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Returns a list of texts for a batch of ids; see [`~AvsrTokenizer.decode`]."""
        sequences = [_without_padding(row) for row in sequences]
        return super().batch_decode(
            sequences,
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            **kwargs,
        )

    def ctc_decode(self, frame_ids: Any) -> str | list[str]:
        """
        Decodes the best path: one id per frame, repeats collapsed, blanks and other special tokens dropped.

        Args:
            frame_ids (`(frames,)` or `(batch, frames)` of int, list, array or tensor):
                The most probable id of each frame; negative ids (padding) count as blank.
        """
        frame_ids = frame_ids.tolist() if hasattr(frame_ids, "tolist") else list(frame_ids)
        if frame_ids and isinstance(frame_ids[0], (list, tuple)):
            return [self._best_path(row) for row in frame_ids]
        return self._best_path(frame_ids)

    def _best_path(self, frame_ids: list[int]) -> str:
        ids = [index for index, _ in itertools.groupby(max(index, self.pad_token_id) for index in frame_ids)]
        return str(self.decode(ids))


def read_units(file: str | os.PathLike[str]) -> list[str]:
    """
    Reads ESPnet's list of units: lines "piece id", the ids 1, 2, ... in order.

    Args:
        file: the list, UTF-8.

    Returns:
        The tokens in the order of their ids: the blank, the units, the end of a text.

    Raises:
        ValueError: the file isn't such a list.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"units: {file} cannot be read ({error}).") from None
    units = []
    for place, line in enumerate((line for line in lines if line.strip()), start=1):
        unit, _, number = line.rpartition(" ")
        if not unit or number.strip() != str(place):
            raise ValueError(f'units: {file} has {line[:40]!r} where "piece {place}" should be.')
        units.append(unit)
    if not units:
        raise ValueError(f"units: {file} is empty.")
    return [BLANK_TOKEN, *units, EOS_TOKEN]


def read_sentencepiece(file: str | os.PathLike[str]) -> dict[str, float]:
    """
    Reads the pieces of a SentencePiece model and their log-probabilities.

    Args:
        file: the model (a serialised `ModelProto`, of which only the list of pieces is read).

    Returns:
        Pieces in their order; without the control symbols.

    Raises:
        ValueError: the file isn't such a model.
    """
    scores: dict[str, float] = {}
    try:
        for field, content in _messages(Path(file).read_bytes()):
            if field != 1 or not isinstance(content, bytes):
                continue
            piece = dict(_messages(content))  # 1: piece, 2: score, 3: kind (1 without it; 2 unknown, 3 control)
            text, score, kind = piece[1], piece.get(2, b"\0\0\0\0"), piece.get(3, 1)
            if isinstance(text, bytes) and isinstance(score, bytes) and kind != 3:
                scores[text.decode()] = struct.unpack("<f", score)[0]
    except OSError as error:
        raise ValueError(f"sentencepiece_model: {file} cannot be read ({error}).") from None
    except (IndexError, KeyError, UnicodeDecodeError, struct.error):
        scores = {}
    if UNKNOWN_TOKEN not in scores or not any(piece.startswith(WORD_START) for piece in scores):
        raise ValueError(f"sentencepiece_model: {file} is not a SentencePiece model.")
    return scores


def _messages(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields the fields of a protocol buffer: numbers, and numbers or bytes."""
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = content[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value
            if shift > 63:
                raise IndexError("a number of more than 64 bits")

    while place < len(content):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        if kind not in (1, 2, 5):
            raise IndexError(f"no field of kind {kind}")
        size = number() if kind == 2 else 8 if kind == 1 else 4
        if place + size > len(content):
            raise IndexError("a field that ends after the file")
        yield key >> 3, content[place : place + size]
        place += size


def _without_padding(ids: Any) -> list:
    """Returns ids (one, a text's or a batch's; numbers, array or tensor) as lists without the -100 of padding."""
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in ([ids] if isinstance(ids, int) else ids)]
    if rows and isinstance(rows[0], (list, tuple)):
        return [_without_padding(row) for row in rows]
    return [row for row in rows if row >= 0]
