"""A small CLIP tokenizer: byte-level pieces, merged where words of the training texts repeat."""

from collections import Counter
from collections.abc import Iterable

from transformers import CLIPTokenizer

END_OF_WORD = "</w>"


def learn_tokenizer(texts: Iterable[str], merges: int, max_length: int) -> CLIPTokenizer:
    """
    Trains a tokenizer that takes any text, and has few tokens for the words of these texts.

    Args:
        texts: words separated by blanks, lower case.
        merges: most merges.
        max_length: most tokens of a text.

    Returns:
        A `CLIPTokenizer` of 514 pieces (bytes, bytes that end a word, begin and end of a text) and the merged ones.
    """
    letters = byte_letters()
    learned = learn_merges(texts, merges)
    pieces = [*letters, *(letter + END_OF_WORD for letter in letters), *("".join(pair) for pair in learned)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=learned,  # type: ignore[arg-type]  # pairs, as its backend takes them; annotated are the lines of a file
        model_max_length=max_length,
    )


def byte_letters() -> list[str]:
    """
    Returns the letter for each byte in GPT-2's alphabet (Radford et al., 2019), in the order of its ids.

    Printable characters of Latin-1 represent themselves and come first; each other byte, in order, is the next letter
    from U+0100 on, so that no piece of a text is a space or a control character.
    """
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, shown), *(chr(256 + index) for index in range(256 - len(shown)))]


def learn_merges(texts: Iterable[str], merges: int) -> list[tuple[str, str]]:
    """Finds the most frequent pairs of neighbouring pieces, one after the other (Sennrich et al., ACL 2016)."""
    counts = Counter(word for text in texts for word in text.split())
    words = {(*word[:-1], word[-1] + END_OF_WORD): count for word, count in sorted(counts.items())}
    learned: list[tuple[str, str]] = []
    while len(learned) < merges:
        pairs: Counter = Counter()
        for pieces, count in words.items():
            for pair in zip(pieces, pieces[1:]):
                pairs[pair] += count
        if not pairs:
            break
        best = max(sorted(pairs), key=pairs.__getitem__)
        learned.append(best)
        words = {_merged(pieces, best): count for pieces, count in words.items()}
    return learned


def _merged(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)
