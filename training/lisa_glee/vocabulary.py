"""A tokenizer of whole words for questions about generated scenes and their answers."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lookhear.processing.lisa_glee.processing_lisa_glee import OBJECTS, SEGMENT
from lookhear.training.lisa_glee.chat import WORDS

PADDING, UNKNOWN, END, USER, ASSISTANT = "<pad>", "<unk>", "</s>", "<user>", "<assistant>"
SPECIAL = (PADDING, UNKNOWN, END, USER, ASSISTANT, OBJECTS, SEGMENT)
# A conversation: questions and answers; an answer ends with </s>. The picture's objects are shown after each question,
# so that what becomes of an object depends on what is asked.
CHAT_TEMPLATE = (
    WORDS
    + """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}<assistant> {{ words(message) }}</s>
{%- else -%}<user> {{ words(message) }}<objects>{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<assistant>{%- endif -%}
"""
)


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """
    Makes a tokenizer of the words of some texts. Case and punctuation are ignored.

    Args:
        texts: questions and answers, from which the vocabulary is taken.
    """
    normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\w\s]"), " ")])
    split = pre_tokenizers.WhitespaceSplit()
    words = {
        word
        for text in texts
        for word, _ in split.pre_tokenize_str(normalizer.normalize_str(text.replace(SEGMENT, " ")))
    }
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, split
    tokenizer.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PADDING,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, OBJECTS, SEGMENT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
