"""What is said in a clip of any length, word by word while the clip is read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from .alignment_avsr import TimedText
from .clip_stream_avsr import ClipStream
from .long_form_avsr import MOST_OTHERS, LongReading, SpokenWord

logger = logging.getLogger(__name__)

RUNS_NAMED = 5  # stretches that a warning names


class SpeechStream:
    """
    An iterator of finished words or characters, `{"text", "timestamp": (start, end) in seconds, "confidence"}`, in the
    order of their times. A context manager, too, that closes the source; so does the end of the iteration.

    Args:
        source: the clip that is read; reading: of it.
        timestamps: `"char"` gives characters instead of words; `False` leaves the chunks out of the result.
        chunked: whether the clip is longer than a chunk.

    Attributes:
        source, chunked: as given.
        name: how messages call the source.
        duration: seconds that the source announces, None where it does not.
    """

    def __init__(self, source: ClipStream, reading: LongReading, timestamps: bool | str, chunked: bool):
        self.source, self.chunked, self.name, self.duration = source, chunked, source.name, source.duration
        self._reading, self._timestamps = reading, timestamps
        self._chunks = self._spell() if timestamps == "char" else map(as_chunk, reading)

    @property
    def position(self) -> float:
        """Seconds of the clip that are done with."""
        return self._reading.position

    @property
    def confidence(self) -> float:
        """The geometric mean of the confidences (0 to 1) of all characters so far; without any, of the silence."""
        return round(self._reading.tally.confidence, 4)

    def __iter__(self) -> SpeechStream:
        return self

    def __next__(self) -> dict[str, Any]:
        try:
            return next(self._chunks)
        except BaseException as end:
            self.close()
            if isinstance(end, StopIteration):
                for warning in self.to_report()["warnings"]:
                    logger.warning(f"{self.name}: {warning}")
            raise

    def __enter__(self) -> SpeechStream:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the source; nothing more can be read."""
        self.source.close()

    def to_result(self, chunks: list[dict[str, Any]]) -> dict[str, Any]:
        """The chunks that the iteration gave (all, or as far as it came) as the result of a call."""
        between = "" if self._timestamps == "char" else " "
        return {
            "text": between.join(chunk["text"] for chunk in chunks),
            "confidence": self.confidence,
            "chunks": chunks if self._timestamps else [],
            "alternatives": [],
            "report": self.to_report(),
        }

    def _spell(self) -> Iterator[dict[str, Any]]:
        """Characters, with a space between any two words."""
        before: SpokenWord | None = None
        for word in self._reading:
            first = word.characters[0]
            if before is not None and not first.text.isspace():
                yield as_chunk(TimedText(" ", before.end, first.start, 1.0))
            yield from map(as_chunk, word.characters[before is None and first.text.isspace() :])
            before = word

    def to_report(self) -> dict[str, Any]:
        """
        What was measured on the clip, complete at the end of the iteration: the same as of a short one, and
        `"sound_only"`, `[start, end]` in seconds of what was read without lips although lips were looked for.
        """
        tally, report = self._reading.tally, self.source.report
        read = {kind for kind, seconds in tally.seconds.items() if seconds}
        modality = read.pop() if len(read) == 1 else "audiovisual" if read else ""
        sound_only = tally.sound_only if report.frames else []
        runs = [[round(start, 3), round(end, 3)] for start, end in sound_only]
        about = {"source": self.name, "modality": modality, "duration": round(self.position, 3), "sound_only": runs}
        facts = report.to_dict()
        facts = {**about, **facts, "warnings": [*facts["warnings"], *self._warnings(runs)]}
        return note_others(facts, tally.others, tally.others_count)

    def _warnings(self, sound_only: list[list[float]]) -> list[str]:
        tally, said = self._reading.tally, []
        if sound_only:
            share = sum(end - start for start, end in sound_only) / max(sum(tally.seconds.values()), 1e-9)
            named = ", ".join(f"{start:.1f} to {end:.1f} s" for start, end in sound_only[:RUNS_NAMED])
            more = f" and {len(sound_only) - RUNS_NAMED} more" if len(sound_only) > RUNS_NAMED else ""
            said.append(f"{min(share, 1):.0%} of the speech was read from sound only: {named}{more}")
        if tally.changes:
            said.append(f"the scene changes within {tally.changes} utterances: they were read from sound only")
        if tally.seconds["visual"] and (tally.seconds["audio"] or tally.seconds["audiovisual"]):
            said.append(f"{tally.seconds['visual']:.1f} s without sound were read from lips only")
        if not tally.fits:
            said.append("the text has more letters than the clip has time for: some times are spread evenly")
        return said


def note_others(report: dict[str, Any], others: Sequence[TimedText], count: int | None = None) -> dict[str, Any]:
    """
    The report of a chosen speaker with `["speaker"]["others_said"]`: words that were heard and that their lips do not say.

    Args:
        report: as a result holds it; one of nobody in particular comes back as it is.
        others: the words, of very many the first ones; count: how many there are in all, if not those.
    """
    if "speaker" not in report:
        return report
    count = len(others) if count is None else count
    speaker = {**report["speaker"], "others_said": [as_chunk(word) for word in others[:MOST_OTHERS]]}
    sentence = f"{count} words were heard that the speaker's lips do not say: they are left out"
    said = [sentence if count > 1 else "a word was heard that the speaker's lips do not say: it is left out"] * bool(
        count
    )
    return {**report, "speaker": speaker, "warnings": [*report["warnings"], *said]}


def as_chunk(text: TimedText) -> dict[str, Any]:
    """A word or character as results hold it."""
    return {
        "text": text.text,
        "timestamp": (round(text.start, 3), round(text.end, 3)),
        "confidence": round(text.confidence, 4),
    }
