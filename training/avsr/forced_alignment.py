"""Times of the words of long clips, found by forced alignment with a recogniser, so that the clips can be cut."""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from datasets import Dataset, Value
from tqdm.auto import tqdm
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

from lookhear.modeling.avsr import AvsrForConditionalGeneration
from lookhear.processing.avsr import AvsrProcessor
from lookhear.processing.avsr.alignment_avsr import (
    IMPOSSIBLE,
    TimedText,
    align_ctc,
    delay_early_starts,
    merge_into_blank,
    time_characters,
)
from lookhear.training.avsr.augmentation import SAMPLES_PER_FRAME, Clip, Words, cut
from lookhear.training.avsr.digests import digest_of_shards, digest_of_weights
from lookhear.training.avsr.prepare import check_geometry, decode_row, shard_files
from lookhear.training.avsr.recipe import DataRecipe
from lookhear.training.avsr.shards import ShardFolder, claim_folder

logger = logging.getLogger(__name__)

FOUND_WORDS = "found_words"  # column of `add_word_times`
WINDOW, CONTEXT = 500, 25  # frames that are read at a time, and frames before and after them that are read with them
MARGIN = 0.12  # seconds of a pause that count to the word before it, and to the word after it, at most
LEAST_CONFIDENCE = 0.2  # geometric mean of the characters' probabilities; another text's is far lower
ROWS = pa.schema([("row", pa.int64()), ("words", pa.string()), ("problem", pa.string())])


class WordAligner:
    """
    Finds when the words of a known text are said.

    Args:
        checkpoint: folder or Hub id of a recogniser, with its processor.
        device: that it computes on.
    """

    model: AvsrForConditionalGeneration
    processor: AvsrProcessor

    def __init__(self, checkpoint: str, device: torch.device | str = "cpu"):
        self.model = AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint).to(device).eval()
        self.processor = AutoProcessor.from_pretrained(checkpoint)

    def align(self, clip: Clip) -> Words:
        """
        Aligns a clip's text.

        Args:
            clip: of any length; its `words` are not used.

        Returns:
            The words with their times in seconds; a word that is written without a character is part of the one before
            it.

        Raises:
            ValueError: the text cannot be written in the aligner's characters, is longer than the clip, or does not
                seem to be what is said.
        """
        words, spans, ids = self._spell(clip.text)
        config = self.model.config
        log_probs = merge_into_blank(self.ctc_log_probs(clip), config.pad_token_id, config.eos_token_id)
        labels = torch.tensor([ids], device=log_probs.device)
        steps, count = (torch.tensor([size], device=log_probs.device) for size in (len(log_probs), len(ids)))
        found = align_ctc(log_probs[None], steps, labels, count, blank=config.pad_token_id)
        if not ids or not found.fits[0]:
            raise ValueError("a text that does not fit into its clip")
        if found.scores[0].mean().exp() < LEAST_CONFIDENCE:
            raise ValueError("a text that is not what the aligner hears or sees")
        characters = delay_early_starts(
            time_characters(
                self.processor.tokenizer.convert_ids_to_tokens(ids),
                found.starts[0].tolist(),
                found.ends[0].tolist(),
                found.scores[0].tolist(),
                1 / (25 * config.ctc_upsampling),
            )
        )
        return widen(time_spans(words, spans, characters), clip.frames / 25)

    def _spell(self, text: str) -> tuple[list[str], list[range], list[int]]:
        """Returns the words, the places of each one's characters, and all characters' ids with spaces between."""
        tokenizer = self.processor.tokenizer
        words: list[str] = []
        spans: list[range] = []
        ids: list[int] = []
        for word in text.split():
            try:
                letters = tokenizer(word).input_ids[:-1]  # without the end of the sentence
            except ValueError:
                raise ValueError("a text that the aligner's characters cannot write") from None
            if not letters and words:
                words[-1] += f" {word}"
            elif letters:
                ids += [tokenizer.convert_tokens_to_ids(" ")] if ids else []
                spans.append(range(len(ids), len(ids) + len(letters)))
                words.append(word)
                ids += letters
        return words, spans, ids

    @torch.no_grad()
    def ctc_log_probs(self, clip: Clip) -> torch.Tensor:
        """
        Computes CTC's log-probabilities of a clip of any length, in windows that overlap.

        Args:
            clip: to read, by all modalities that it and the model have.

        Returns:
            `(frames * ctc_upsampling, vocab)` float32.
        """
        upsampling, parts = self.model.config.ctc_upsampling, []
        for start in range(0, clip.frames, WINDOW):
            first, last = max(0, start - CONTEXT), min(clip.frames, start + WINDOW + CONTEXT)
            begin, end = (start - first) * upsampling, (min(start + WINDOW, last) - first) * upsampling
            parts.append(self._read(cut(clip, first, last), last - first)[begin:end])
        return torch.cat(parts)

    def _read(self, clip: Clip, frames: int) -> torch.Tensor:
        """Returns `(frames * ctc_upsampling, vocab)` of a short clip; blanks where it has neither sound nor lips."""
        config, device = self.model.config, self.model.device
        silence = torch.full((frames * config.ctc_upsampling, config.vocab_size), IMPOSSIBLE, device=device)
        silence[:, config.pad_token_id] = 0.0
        audio = clip.audio if clip.audio is not None and len(clip.audio) >= SAMPLES_PER_FRAME else None
        mouths = clip.mouths if clip.mouths is not None and len(clip.mouths) else None
        audio = None if config.modality == "visual" else audio
        mouths = None if config.modality == "audio" else mouths
        if audio is None and mouths is None:
            return silence
        inputs = self.processor(
            audio=None if audio is None else [audio],
            sampling_rate=self.processor.feature_extractor.sampling_rate,
            videos=None if mouths is None else [mouths],
        ).to(device)
        logits = self.model.compute_ctc_logits(self.model.get_encoder()(**inputs))
        log_probs = logits[0].float().log_softmax(-1)[: len(silence)]
        return torch.cat((log_probs, silence[len(log_probs) :]))


def time_spans(words: Sequence[str], spans: Sequence[range], characters: Sequence[TimedText]) -> Words:
    """
    Gives words the times of their characters. A word ends where the space after it begins, the last one with its last
    character.

    Args:
        words: of the text.
        spans: places of each one's characters.
        characters: of the text, spaces included.
    """
    ends = [characters[span.stop].start if span.stop < len(characters) else characters[-1].end for span in spans]
    return tuple((word, characters[span[0]].start, end) for word, span, end in zip(words, spans, ends))


def widen(words: Words, duration: float) -> Words:
    """
    Lets each word begin and end in the pauses around it, up to their middle and by at most `MARGIN` seconds: CTC marks
    where a letter is recognised, not its whole sound.

    Args:
        words: with their times in seconds, in order.
        duration: of the clip, in seconds.
    """
    borders = [(0.0, 0.0), *((start, end) for _, start, end in words), (duration, duration)]
    widened = []
    for place, (word, start, end) in enumerate(words):
        before, after = borders[place][1], borders[place + 2][0]
        share_before = 1 if place == 0 else 2  # the silence at either end of the clip belongs to one word alone
        share_after = 1 if place == len(words) - 1 else 2
        start -= min(max(start - before, 0.0) / share_before, MARGIN)
        widened.append((word, start, end + min(max(after - end, 0.0) / share_after, MARGIN)))
    return tuple(widened)


def add_word_times(rows: Dataset, folders: Sequence[str], recipe: DataRecipe, output: Path) -> Dataset:
    """
    Aligns the clips that are longer than `max_frames` and have no word times, once: the times are stored.

    Args:
        rows: of prepared folders, as `load_prepared` returns them.
        folders: these folders.
        recipe: with `aligner`.
        output: folder whose folder `word_times` holds the stored times.

    Returns:
        The rows with the column `FOUND_WORDS`, empty where nothing was aligned; see [`read_words`].

    Raises:
        ValueError: the stored times are of other clips or another aligner, or the aligner reads other mouth crops.
    """
    columns = rows.select_columns(["duration", "words"])
    long = [i for i, row in enumerate(columns) if not row["words"] and frames_of(row["duration"]) > recipe.max_frames]
    if not long:
        return rows
    state = PartialState()
    assert recipe.aligner is not None  # the recipe has checked it
    aligner = WordAligner(recipe.aligner, state.device)
    if aligner.model.config.modality != "audio":
        check_geometry(folders, aligner.processor.image_processor)
    shards = ShardFolder(output / "word_times", "word_times", len(long), 50)
    settings = {
        "aligner": digest_of_weights({"model": aligner.model}),
        "clips": digest_of_shards([file for folder in folders for file in shard_files(folder)]),
        "data.max_frames": recipe.max_frames,
    }
    claim_folder(shards.folder / "word_times.json", settings, "training.output_dir or data.cache_features")
    missing = sum(len(shards.items_of(number)) for number in shards.missing())
    with tqdm(total=missing, desc="align", unit="clip", disable=not missing or not state.is_main_process) as bar:

        def align(places: range) -> Iterator[dict]:
            for place in places:
                bar.update()
                yield _aligned_row(aligner, rows, long[place])

        shards.write(ROWS, align, (state.process_index, state.num_processes))
    state.wait_for_everyone()
    found = [row for number in range(shards.shards) for row in pq.read_table(shards.path(number)).to_pylist()]
    if state.is_main_process:
        problems = Counter(row["problem"] for row in found if row["problem"])
        listed = "".join(f"; {count} have {problem}" for problem, count in problems.most_common())
        logger.warning(
            "%s: of %d clips with more than data.max_frames (%d) frames and without word times %d are aligned by %s%s",
            *(", ".join(folders), len(found), recipe.max_frames, sum(1 for row in found if row["words"])),
            *(recipe.aligner, listed),
        )
    words = [""] * len(rows)
    for row in found:
        words[row["row"]] = row["words"] or ""
    return rows.add_column(FOUND_WORDS, words, feature=Value("string"))


def _aligned_row(aligner: WordAligner, rows: Dataset, index: int) -> dict:
    """Returns a row of `ROWS`."""
    clip = decode_row(rows[index])
    try:
        words = aligner.align(Clip(clip["text"], clip["audio"], clip["mouths"]))
    except ValueError as problem:
        return {"row": index, "words": None, "problem": str(problem)}
    return {"row": index, "words": json.dumps(words), "problem": None}


def read_words(column: str | None) -> Words | None:
    """Returns the words in a value of the column `FOUND_WORDS`, or None."""
    return tuple((word, start, end) for word, start, end in json.loads(column)) if column else None


def frames_of(duration: float) -> int:
    """Returns the frames of a clip from its stored duration in seconds, the last one perhaps not whole."""
    # a thousandth of a frame is less than a sample of sound and more than the duration's rounding
    return math.ceil(25 * duration - 1e-3)
