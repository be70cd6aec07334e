"""From text to character ids and back: the 40 characters of the AVSR system, with its text normaliser."""

import itertools
import json
import re
import unicodedata
from typing import Any

from transformers import PreTrainedTokenizer

VOCAB_FILES_NAMES = {"vocab_file": "vocab.json"}

BLANK_TOKEN = "<blank>"
EOS_TOKEN = "<eos>"
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
    Character tokenizer: 0 is the CTC blank and the padding, 39 starts and ends a sentence.

    Args:
        vocab_file (`str`, *optional*):
            JSON file `{token: id}`. The 40 characters when it is not given.
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
        kwargs.setdefault("special_tokens_pattern", "eos")
        super().__init__(
            lower_case_output=lower_case_output,
            bos_token=bos_token,
            eos_token=eos_token,
            pad_token=pad_token,
            **kwargs,
        )

    @property
    def vocab_size(self) -> int:
        return len(self.encoder)

    def get_vocab(self) -> dict[str, int]:
        return {**self.encoder, **self.added_tokens_encoder}

    def normalise(self, text: str) -> str:
        """Writes `text` in the characters of this tokenizer; see [`normalise_text`]."""
        return normalise_text(text)

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        characters = list(normalise_text(text))
        missing = sorted(set(characters) - set(self.encoder))
        if missing:
            raise ValueError(f"The vocabulary has no {missing}, which `text` needs: {text[:80]!r}")
        return characters

    def _convert_token_to_id(self, token: str) -> int | None:
        return self.encoder.get(token)

    def _convert_id_to_token(self, index: int) -> str:
        if index not in self.decoder:
            raise ValueError(f"Id {index} is not in the vocabulary (0 to {len(self) - 1}).")
        return self.decoder[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        text = "".join(tokens)
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


def _without_padding(ids: Any) -> list:
    """Returns ids (one, a text's or a batch's; numbers, array or tensor) as lists without the -100 of padding."""
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in ([ids] if isinstance(ids, int) else ids)]
    if rows and isinstance(rows[0], (list, tuple)):
        return [_without_padding(row) for row in rows]
    return [row for row in rows if row >= 0]
