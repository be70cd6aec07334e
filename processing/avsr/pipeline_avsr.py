"""From a clip to its text: the pipeline `audio-visual-speech-recognition` and its settings."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, cast

import torch
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, Pipeline, ProcessorMixin

from .alignment_avsr import CHUNK_LENGTH, SHORTEST_CHUNK, STRETCH, TimedText, time_words
from .clip_arrays_avsr import as_input, is_many, is_number
from .clip_stream_avsr import MAX_LEAD, MODALITIES, Clip, ClipPiece, ClipStream, read_clip
from .everyone_avsr import read_everyone
from .feature_extraction_avsr import CHANNEL_NAMES, MEAN, Channel
from .long_form_avsr import ClipWindow, LongFormDecoder, PieceReader, SpeechStream
from .media_source_avsr import MAX_PIXELS, Track, TrackChoice
from .processing_avsr import save_with_code
from .reading_workers_avsr import FEW, ClipFile, ReadingWorkers, usual_workers
from .recognition_avsr import Recogniser, note_doubt, note_others, saved_chunk_length
from .speaker_locator_avsr import EVERYONE, GivenTrack, ObjectLocator, Speaker, check_speaker, load_locator
from .speaker_tracking_avsr import ChosenSpeaker

logger = logging.getLogger(__name__)

TASK = "audio-visual-speech-recognition"

MODEL_CLASS = "AutoModelForSpeechSeq2Seq"

TIMESTAMPS = (False, True, "word", "char")  # True: words
NUMBERS: tuple[str, ...]
NUMBERS = ("num_beams", "num_return_sequences", "ctc_weight", "language_model_weight", "chunk_length_s")
NUMBERS += ("speech_confidence", "batch_size", "num_workers", "audio_track", "video_track", "channel", "sampling_rate")
NUMBERS += ("return_timestamps", "max_pixels", "lip_evidence")
GENERATION = ("num_beams", "num_return_sequences", "ctc_weight", "search", "language_model", "language_model_weight")
SEARCHES = ("joint", "two_pass", "greedy", "espnet")


@dataclass(frozen=True)
class ReadingSettings:
    """
    Arguments of a call of [`AudioVisualSpeechRecognitionPipeline`], checked once; it explains them at length.

    Attributes:
        modality: `"auto"`, `"audio"`, `"visual"` or `"audiovisual"`.
        return_timestamps: False, `"word"` (or True) or `"char"`; None: False in a call, `"word"` in a stream.
        num_beams: 1 or more; None: the checkpoint's.
        num_return_sequences: 1 to `num_beams`; None: the checkpoint's.
        ctc_weight: 0 to 1; None: the checkpoint's.
        search: `"joint"`, `"two_pass"`, `"greedy"` or `"espnet"`; None: the checkpoint's.
        language_model: a model, its folder or Hub id; None: none.
        language_model_weight: 0 or more; None: 0.3.
        chunk_length_s: seconds, 2 or more; None: the checkpoint's.
        speaker: who is read; None: the most prominent face.
        speaker_locator: a pipeline or function that finds them; None: `speaker_model` is loaded.
        speaker_model: folder or Hub id of a locator; None: the default one.
        lip_evidence: 0 to 1; None: the checkpoint's.
        speech_confidence: 0 to 1; None: the checkpoint's.
        audio_track: number of a file's sound track, from 0 on, or its language; None: the default one.
        video_track: as `audio_track`, of the video.
        channel: number of the sound's channel, from 0 on, `"left"`, `"right"` or `"mean"`; None: those with speech.
        max_pixels: of a picture of a video file; None: 36,000,000.
        sampling_rate: Hz, of samples that come without one.
        on_piece: called with each piece as it is read.
        batch_size: clips, or utterances of a long one, that go through the model together, 1 or more; None: 1.
        num_workers: processes that read files ahead of the model, 0 or more; None: one for each core but one.

    Raises:
        ValueError: one of them is invalid, or two are incompatible.
    """

    modality: str = "auto"
    return_timestamps: bool | str | None = None
    num_beams: int | None = None
    num_return_sequences: int | None = None
    ctc_weight: float | None = None
    search: str | None = None
    language_model: torch.nn.Module | str | os.PathLike | None = None
    language_model_weight: float | None = None
    chunk_length_s: float | None = None
    speaker: Speaker | None = None
    speaker_locator: Any = None
    speaker_model: str | os.PathLike | None = None
    lip_evidence: float | None = None
    speech_confidence: float | None = None
    audio_track: Track | None = None
    video_track: Track | None = None
    channel: Channel | None = None
    max_pixels: int | None = None
    sampling_rate: int | None = None
    on_piece: Callable[[ClipPiece], object] | None = None
    batch_size: int | None = None
    num_workers: int | None = None

    def __post_init__(self) -> None:
        for name in NUMBERS:
            value = getattr(self, name)
            if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # a number of numpy or torch
                object.__setattr__(self, name, value.item())
        if self.modality not in MODALITIES:
            raise ValueError(f"`modality` must be one of {', '.join(map(repr, MODALITIES))}, not {self.modality!r}.")
        if self.return_timestamps is not None and self.return_timestamps not in TIMESTAMPS:
            raise ValueError(f'`return_timestamps` must be False, "word" or "char", not {self.return_timestamps!r}.')
        if self.return_timestamps and not isinstance(self.return_timestamps, str):
            object.__setattr__(self, "return_timestamps", "word")
        self._check_search()
        length = self.chunk_length_s
        if length is not None and not (is_number(length) and SHORTEST_CHUNK <= length < math.inf):
            raise ValueError(
                f"`chunk_length_s` must be None or a number of seconds, {SHORTEST_CHUNK:g} or more, not {length!r}."
            )
        self._check_speaker()
        self._check_tracks()
        if self.on_piece is not None and not callable(self.on_piece):
            raise ValueError(f"`on_piece` must be a function, not {self.on_piece!r}.")
        if self.batch_size is not None and not _is_count(self.batch_size):
            raise ValueError(f"`batch_size` must be a positive integer, not {self.batch_size!r}.")
        if self.num_workers is not None and not _is_count(self.num_workers, 0):
            raise ValueError(f"`num_workers` must be an integer, 0 or more, not {self.num_workers!r}.")

    def _check_search(self) -> None:
        for name in ("num_beams", "num_return_sequences"):
            value = getattr(self, name)
            if value is not None and not _is_count(value):
                raise ValueError(f"`{name}` must be a positive integer, not {value!r}.")
        texts, beams = self.num_return_sequences, self.num_beams
        if beams is not None and texts is not None and texts > beams:
            raise ValueError(f"`num_return_sequences` ({texts}) must not be more than `num_beams` ({beams}).")
        if self.ctc_weight is not None and not (is_number(self.ctc_weight) and 0 <= self.ctc_weight <= 1):
            raise ValueError(f"`ctc_weight` must be a number from 0 to 1, not {self.ctc_weight!r}.")
        if self.search is not None and self.search not in SEARCHES:
            raise ValueError(f"`search` must be one of {', '.join(map(repr, SEARCHES))}, not {self.search!r}.")
        self._check_language_model()

    def _check_language_model(self) -> None:
        model, weight = self.language_model, self.language_model_weight
        if model is not None and not isinstance(model, (torch.nn.Module, str, os.PathLike)):
            raise ValueError(f"`language_model` must be a model, a folder or a Hub id, not {model!r}.")
        if weight is not None and not (is_number(weight) and 0 <= weight < math.inf):
            raise ValueError(f"`language_model_weight` must be a number, 0 or more, not {weight!r}.")
        if weight is not None and model is None:
            raise ValueError("`language_model_weight` is of no use without a `language_model`: pass one, too.")

    def _check_speaker(self) -> None:
        if self.speaker is not None:
            object.__setattr__(self, "speaker", check_speaker(self.speaker))  # the same with plain numbers
            if self.modality == "audio":
                raise ValueError('`speaker` chooses among faces, and `modality` is "audio": no faces are looked at.')
        if self.speaker_locator is not None and not callable(self.speaker_locator):
            raise ValueError(f"`speaker_locator` must be a function or a pipeline, not {self.speaker_locator!r}.")
        if self.speaker_model is not None and not isinstance(self.speaker_model, (str, os.PathLike)):
            raise ValueError(f"`speaker_model` must be a folder or a Hub id, not {self.speaker_model!r}.")
        for name in ("lip_evidence", "speech_confidence"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and 0 <= value <= 1):
                raise ValueError(f"`{name}` must be a number from 0 to 1, not {value!r}.")

    def _check_tracks(self) -> None:
        for name in ("audio_track", "video_track"):
            track = getattr(self, name)
            if track is not None and not (_is_count(track, 0) or (isinstance(track, str) and track.strip())):
                raise ValueError(f"`{name}` must be a track's number, from 0 on, or a language, not {track!r}.")
        if self.channel is not None and not (_is_count(self.channel, 0) or self.channel in (*CHANNEL_NAMES, MEAN)):
            names = ", ".join(f'"{name}"' for name in (*CHANNEL_NAMES, MEAN))
            raise ValueError(f"`channel` must be a channel's number, from 0 on, or {names}, not {self.channel!r}.")
        for name, unit in (("sampling_rate", " (Hz)"), ("max_pixels", "")):
            value = getattr(self, name)
            if value is not None and not _is_count(value):
                raise ValueError(f"`{name}` must be a positive integer{unit}, not {value!r}.")

    @property
    def tracks(self) -> TrackChoice:
        """Which of a file's tracks and of the sound's channels are read, and how large its pictures may be."""
        return TrackChoice(self.audio_track, self.video_track, self.channel, self.max_pixels or MAX_PIXELS)

    def changed(self, **given: Any) -> ReadingSettings:
        """
        Returns these settings with those that a caller gave instead.

        Args:
            given: names and values; None leaves a setting as it is. `generate_kwargs` holds more of them, those of
                the search, as in the pipelines of transformers.

        Raises:
            ValueError: a name is unknown, or a value invalid.
        """
        given = _with_generation(**given)
        if unknown := [name for name in given if name not in SETTING_NAMES]:
            known = ", ".join(SETTING_NAMES)
            raise ValueError(f"Unknown argument {', '.join(map(repr, unknown))}: there are {known}.")
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def _with_generation(generate_kwargs: Any = None, **given: Any) -> dict[str, Any]:
    """Returns settings together with those in `generate_kwargs`."""
    if generate_kwargs is None:
        return given
    if not isinstance(generate_kwargs, Mapping):
        raise ValueError(f"`generate_kwargs` must be a dictionary, not {generate_kwargs!r}.")
    for name in generate_kwargs:
        if name not in GENERATION:
            raise ValueError(f"`generate_kwargs` may hold {', '.join(GENERATION)}, and {name!r} is none of these.")
        if given.get(name) is not None:
            raise ValueError(f"`{name}` is given twice, as an argument and in `generate_kwargs`: leave one out.")
    return {**given, **generate_kwargs}


SETTING_NAMES = tuple(field.name for field in fields(ReadingSettings))


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


class AudioVisualSpeechRecognitionPipeline(Pipeline):
    """
    Reads speech from sound, from lips, or from both.

    ```python
    >>> import lookhear
    >>> from transformers import pipeline

    >>> asr = pipeline("audio-visual-speech-recognition", model="model_cards/avsr-grid-tiny")
    >>> asr("clip.mp4", return_timestamps="word")["chunks"][0]
    {'text': 'BIN', 'timestamp': (0.6, 0.82), 'confidence': 0.98}
    ```

    A call takes one input or a list of them, and these arguments (which may be given to `pipeline(...)` too):

    - inputs: a path, a URL, bytes, a binary file object, or
      `{"audio": (samples,), "sampling_rate": Hz, "video": (frames, height, width, 3) uint8, "fps": float}`, either
      half of which may be missing. Any sampling rate, frame rate and type of samples, `(channels, samples)` too.
      Instead of `"video"` there may be `"mouths"`: crops of the image processor. Either half may be a file:
      `{"video": "take.mp4", "audio": "recorder.wav", "audio_offset": 1.5}` reads lips of one and sound of the other,
      which begins 1.5 s after the video. Also an array or tensor of samples with `sampling_rate`,
      `{"array", "sampling_rate"}` and `{"path", "bytes"}` of a data set, its column, a pandas Series, and torchcodec's
      decoders.
    - sampling_rate: of samples that come without one.
    - audio_track, video_track: which track of a file is read, by its number, from 0 on, or its language (`"de"`). By
      default the one that the file flags as default, or the first; a warning lists all where there are several.
    - channel: which channel of the sound is read: its number, from 0 on, `"left"`, `"right"`, or `"mean"` for the
      average. By default those in which somebody speaks, averaged where that doesn't cancel them out.
    - max_pixels: of a picture of a video (36,000,000); a file with larger ones is refused.
    - batch_size: clips that go through the model together, or utterances of a long clip, whose words a stream then
      gives together; the results do not depend on it.
    - num_workers: processes that decode files and find and crop the mouths in them, ahead of the model and in the
      order of the files; they stay for the next call. By default one for each processor core but one, as soon as a
      call has more than four files; 0: none. Files longer than a chunk or a minute, URLs, arrays, and whatever is read
      with a `speaker` or `on_piece` are read by threads of this process instead.
    - modality: `"auto"` reads what the clip has, and notes in the report if lips or sound are missing; `"audio"`,
      `"visual"` and `"audiovisual"` read exactly that, or raise.
    - return_timestamps: `False`, `"word"` (or `True`) or `"char"`. Times are seconds on the file's clock, as players
      show it: 0 is where the first of its tracks begins. A model that was trained without a CTC loss has no times.
    - generate_kwargs: a dictionary of the next six arguments, as other pipelines take them.
    - num_beams, num_return_sequences, ctc_weight: see `generate`; the checkpoint's values by default.
    - search: `"joint"`; `"two_pass"` (CTC finds `num_beams` texts, 10 by default, and the decoder chooses) and
      `"greedy"` (CTC alone) are quicker and may read worse; see `generate`; the checkpoint's by default.
    - language_model: a causal language model over the recogniser's ids (a model of transformers, its folder or Hub
      id), whose log-probability counts in the search, times `language_model_weight` (0.3 by default); see `generate`.
    - chunk_length_s: seconds (2 or more) that the model reads in one pass; the checkpoint's, or 12, by default. A
      longer clip is cut where the speaker pauses and read utterance by utterance, in memory that does not depend on
      its length. An utterance may be 1.5 times as long; one that is longer still is read in overlapping pieces. Such a
      clip has no alternatives.
    - speaker: whom to read if several people are in view. `None` takes the most prominent face. With a text about one
      person (`"the woman in the orange suit"`), `{"point": (x, y)}` or `{"box": (x0, y0, x1, y1)}` in pixels of the
      first picture, that person is followed, and face and mouth are searched for in their box only.
      `{"track": boxes}`: for each picture `(x0, y0, x1, y1)` or None, at 25 pictures per second or the rate `"fps"`
      beside it. `"everyone"`: all people whose faces are in view for a second or longer, up to eight, each read
      separately; the result then has a line for each of them in `"text"`, a `"speaker"` in each of its `"chunks"`, and
      `"speakers"`, a result for each.
    - speaker_locator: what follows them: a pipeline of the task `object-perception`, or any function that takes an
      iterator of pictures `(height, width, 3)` uint8 and `speaker`, and yields for each picture, as early as it can,
      `(x0, y0, x1, y1)` in pixels, `(x0, y0, x1, y1, score)` with a score from 0 to 1, or None where the speaker isn't
      seen. It runs in a thread of its own.
    - speaker_model: the checkpoint (folder or Hub id) of the locator if none is given; `default_speaker_model` by
      default, which is the packaged `glee-tiny` once lookhear is imported.
    - lip_evidence: words that were read from sound and lips of a chosen speaker count as theirs if the letters within
      a second around them have this mean probability under the lips alone, 0 to 1; the checkpoint's, or 0.25, by
      default. All others are left out, and listed in the report as `["speaker"]["others_said"]`. With 0, every word
      counts as the speaker's.
    - speech_confidence: what is read with a lower confidence, 0 to 1, is no speech: it is left out, and listed in the
      report's `"left_out"`; the checkpoint's, or 0, by default. 0 leaves nothing out.
    - on_piece: a function that is called with each [`ClipPiece`], about a second of sound and mouth crops as the model
      gets them, while the input is read: to show progress, or what is seen. With several inputs, or `"everyone"`, the
      pieces of one input or person follow those of the previous one; each begins with `start` 0.

    Returns, for each input, `{"text", "confidence", "chunks", "alternatives", "report"}`: the confidence (0 to 1) is
    the geometric mean of the characters' CTC probabilities; chunks are `{"text", "timestamp": (start, end) in seconds,
    "confidence"}`; alternatives are the other `num_return_sequences - 1` texts, `{"text", "confidence", "score"}`,
    best first; the report holds measurements of the clip and `"warnings"` in words, and for a chosen speaker who was
    followed in each second, with the confidence ([`SpeakerReport`]). [`stream`] gives the words of one input as soon
    as they are certain. What cannot be read raises `ValueError`, with one line that names the input or argument.
    """

    default_speaker_model: str | None = None  # path or Hub id; set by lookhear/registration.py
    settings = ReadingSettings()  # where a call gives no others
    processor: ProcessorMixin  # an `AvsrProcessor`
    _locator: tuple[str | None, ObjectLocator] | None = None
    _language_model: tuple[str, torch.nn.Module] | None = None
    _workers: ReadingWorkers | None = None

    _load_processor = True  # type: ignore[assignment]  # declared as None in transformers, for pipelines to set
    _load_image_processor = False  # type: ignore[assignment]  # declared as None in transformers
    _load_video_processor = False  # type: ignore[assignment]  # declared as None in transformers
    _load_feature_extractor = False  # type: ignore[assignment]  # declared as None in transformers
    _load_tokenizer = False  # type: ignore[assignment]  # declared as None in transformers

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        cast(Any, self.model).prepare_for_inference()
        names = (*SETTING_NAMES, "generate_kwargs")
        self.settings = self.settings.changed(**{name: kwargs[name] for name in names if name in kwargs})

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # transformers: *args
        settings = self._settings(kwargs)
        if not is_many(inputs):
            return self._read_one(inputs, settings)
        if isinstance(inputs, (Iterator, Dataset)) or not hasattr(inputs, "__len__"):
            return self._read_all(inputs, settings)
        if len(inputs) == 0:
            raise ValueError("`inputs` is an empty list: pass at least one clip.")
        return list(self._read_all(inputs, settings))

    def attempt(self, inputs: Sequence[Any], **kwargs: Any) -> list[dict[str, Any] | ValueError | OSError]:
        """
        Reads several inputs together, as a call does, and goes on where one of them cannot be read.

        Args:
            inputs: see `__call__`; those of `read_ahead`, too.
            kwargs: see `__call__`.

        Returns:
            For each input its result, or the error that a call would raise.
        """
        settings = self._settings(kwargs)
        return self._read_together(list(self._ahead(inputs, settings)), settings)

    def read_ahead(self, sources: Iterable[Any], **kwargs: Any) -> Iterator[Any]:
        """
        Reads files ahead of the calls that they are passed to, as a call with all of them does.

        Args:
            sources: inputs; see `__call__`.
            kwargs: see `__call__`; those of the later calls.

        Yields:
            For each source a [`Clip`], the error that it cannot be read for, or the source itself, for a call to read.
        """
        return self._ahead(sources, self._settings(kwargs))

    def stream(self, inputs: Any, **kwargs: Any) -> SpeechStream:
        """
        Gives the words of one input as soon as they are certain, while the input is read.

        Args:
            inputs: one input; see `__call__`.
            kwargs: see `__call__`; `return_timestamps="char"` gives characters instead of words.

        Returns:
            An iterator of `{"text", "timestamp": (start, end) in seconds, "confidence"}`, with `duration`, `position`
            and `confidence`, and at the end `to_result(chunks)` and `to_report()`.

        Raises:
            ValueError: as in a call; faults found while the input is read are raised by the iterator.
        """
        settings = self._settings(kwargs)
        if settings.speaker == EVERYONE:
            raise ValueError('`speaker`: `stream` reads one speaker; for "everyone" call the pipeline.')
        timestamps = settings.return_timestamps
        if timestamps is None:
            self._check_alignment('`return_timestamps` is "word" in a stream')
            timestamps = "word"
        return self._listen(self._open(inputs, settings), settings, timestamps)

    def live(self, sampling_rate: int | None = 16000, fps: float | None = 25.0, **kwargs: Any) -> Any:
        """
        Returns a [`LiveSpeech`]: sound and pictures are pushed to it, and it gives words as soon as they are certain.

        Args:
            sampling_rate: of the sound in Hz; None if there is none.
            fps: pictures a second, where they come without times; None if there are none.
            kwargs: see `__call__`; what concerns files and whole clips is of no use here.
        """
        from .live_avsr import open_live  # no other call needs it

        settings = self._settings(kwargs)
        self._check_alignment("live, words have times")
        settings = replace(settings, modality=self._modality(settings), chunk_length_s=self._chunk_length(settings))
        return open_live(self._recogniser, self._piece_reader, self._chosen, settings, sampling_rate, fps)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves the model, the processor, and the code of both and of the pipeline; see [`save_with_code`]."""
        save_with_code(self, TASK, MODEL_CLASS, save_directory, **kwargs)

    # --------------------------------------------------------------------------------- the steps of transformers

    def _sanitize_parameters(self, **given: Any) -> tuple[dict, dict, dict]:
        """Checks the arguments, once a call: `preprocess`, `_forward` and `postprocess` share one object."""
        changed = self.settings.changed(**given)
        if changed.return_timestamps:
            self._check_alignment(f"`return_timestamps` is {changed.return_timestamps!r}")
        settings = {"settings": changed}
        return settings, settings, settings

    # The three steps are typed by what is passed on: transformers declares any keyword and `ModelOutput`.
    def preprocess(  # type: ignore[override]  # see above
        self, inputs: Any, settings: ReadingSettings | None = None
    ) -> dict[str, Any]:
        """Converts one input to tensors, a batch of 1; an absent modality is one step with a mask of 0."""
        settings = settings or self.settings
        clip = self._read_clip(self._open(inputs, settings), settings)
        return {**self._recogniser.features([clip]), "report": clip.to_report()}

    def _forward(  # type: ignore[override]  # see above
        self, model_inputs: dict[str, Any], settings: ReadingSettings | None = None, encoded: Any = None
    ) -> dict[str, Any]:
        """
        Returns what [`Recogniser.search`] finds; everything is `(batch, num_return_sequences, …)`.

        Args:
            model_inputs: of `preprocess`.
            settings: of the call.
            encoded: the encoder's output on them, if it is known.
        """
        settings = settings or self.settings
        found = self._recogniser.search(
            model_inputs,
            settings.num_beams,
            settings.num_return_sequences,
            judge_lips=settings.speaker is not None,
            encoded=encoded,
            **self._scores(settings),
        )
        return {**found, "report": model_inputs.get("report")}

    def postprocess(  # type: ignore[override]  # see above
        self, model_outputs: dict[str, Any], settings: ReadingSettings | None = None
    ) -> dict[str, Any]:
        """Returns the result of one input."""
        return self._result(model_outputs, 0, model_outputs["report"], settings or self.settings)

    # ------------------------------------------------------------------------------------------------ one call

    def _settings(self, given: dict[str, Any]) -> ReadingSettings:
        """Returns the pipeline's settings with those of a call."""
        return self._sanitize_parameters(**given)[0]["settings"]

    def _check_alignment(self, what: str) -> None:
        """Raises a ValueError if nothing has trained the CTC head, whose alignment gives times; `what` asks for it."""
        config = self.model.config
        if not (config.ctc_loss_weight or config.alignment_loss_weight):
            raise ValueError(
                f"{what}, and times come from the CTC head, which this model was trained without (its "
                "ctc_loss_weight is 0): pass return_timestamps=False, or load another checkpoint."
            )

    def _read_one(self, source: Any, settings: ReadingSettings) -> dict[str, Any]:
        """Returns the result of one input; raises the error that it cannot be read for."""
        result = self._read_together([source], settings)[0]
        if isinstance(result, Exception):
            raise result
        return result

    def _read_all(self, inputs: Any, settings: ReadingSettings) -> Iterator[dict[str, Any]]:
        """
        Yields the results of many inputs, in batches of `batch_size`; an error follows the results of those before it.

        Args:
            inputs: an iterable, or a data set of torch's with a length.
            settings: of the call.
        """
        items = inputs if isinstance(inputs, Iterable) else (inputs[i] for i in range(len(inputs)))
        with contextlib.closing(self._ahead(items, settings)) as read:
            while batch := list(itertools.islice(read, settings.batch_size or 1)):
                for result in self._read_together(batch, settings):
                    if isinstance(result, Exception):
                        raise result
                    yield result

    def _ahead(self, sources: Iterable[Any], settings: ReadingSettings) -> Generator[Any, None, None]:
        """Yields what `read_ahead` does."""
        count = usual_workers() if settings.num_workers is None else settings.num_workers
        if not count or settings.speaker is not None or settings.on_piece is not None:
            yield from sources
            return
        if self._workers is None or self._workers.count != count:
            self._workers = ReadingWorkers(count)
        many = settings.num_workers is not None or (isinstance(sources, Sequence) and len(sources) > FEW)
        file = partial(ClipFile, how=self._how(settings), longest=self._chunk_length(settings))
        yield from self._workers.read_ahead(sources, file, 0 if many else FEW, settings.batch_size or 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_workers": None}  # processes stay where they are

    def _read_together(self, inputs: Sequence[Any], settings: ReadingSettings) -> list[Any]:
        """
        Returns the results of a few inputs: short ones go through the model together, long ones by themselves.

        Args:
            inputs: of the call, and what workers have read of them.
            settings: of the call.

        Returns:
            For each input its result, or the error that it cannot be read for.
        """
        if settings.speaker == EVERYONE:
            return [_attempt(self._read_everyone, source, settings) for source in inputs]
        streams = [_attempt(self._open, source, settings) for source in inputs]
        clips = [_attempt(self._start_reading, stream, settings) for stream in streams]
        whole = [clip for clip in clips if isinstance(clip, Clip) and not clip.pieces]
        outputs = self.forward(self._recogniser.features(whole), settings=settings) if whole else {}
        results = (self._result(outputs, index, clip.to_report(), settings) for index, clip in enumerate(whole))
        done: list[Any] = []
        for stream, clip in zip(streams, clips):
            if isinstance(clip, Exception):
                done.append(clip)
            elif isinstance(clip, Clip) and not clip.pieces:
                done.append(next(results))
            else:
                pieces = clip.pieces if isinstance(clip, Clip) else None
                done.append(_attempt(self._read_long, stream, settings, pieces))
        return done

    def _start_reading(self, stream: ClipStream | Clip | Exception, settings: ReadingSettings) -> Any:
        """Returns all of a short clip, and a long one, or an error, as it is."""
        if not isinstance(stream, ClipStream) or self._is_long(stream, settings):
            return stream
        return self._read_clip(stream, settings)

    def _read_long(
        self, stream: ClipStream, settings: ReadingSettings, pieces: list[ClipPiece] | None = None
    ) -> dict[str, Any]:
        """Returns the result of a clip that is longer than a chunk, or of one that was read and has these pieces."""
        with self._listen(stream, settings, settings.return_timestamps or False, pieces) as speech:
            result = speech.to_result(list(speech))
        if (settings.num_return_sequences or self.model.generation_config.num_return_sequences or 1) > 1:
            result["report"]["warnings"].append("a clip that is read in chunks has no alternatives")
        return result

    def _read_everyone(self, source: Any, settings: ReadingSettings) -> dict[str, Any]:
        """Returns the results of all whose faces are in view: the source is read once for all, then once for each."""
        source, images = as_input(source, settings.sampling_rate), self.processor.image_processor
        return read_everyone(source, images, settings.tracks, partial(self._read_person, settings))

    def _read_person(self, settings: ReadingSettings, source: Any, track: Any) -> dict[str, Any]:
        return self._read_one(source, settings.changed(speaker={"track": track}))

    # ------------------------------------------------------------------------------------------------ the input

    def _modality(self, settings: ReadingSettings) -> str:
        """Returns what is read: a model of one modality reads only that, so "auto" need not look for the other."""
        known = self.model.config.modality
        if known == "audiovisual" or settings.modality == known:
            return settings.modality
        if settings.modality != "auto":
            raise ValueError(
                f'`modality` is "{settings.modality}", but this model reads "{known}" only: load an audio-visual '
                "checkpoint."
            )
        return known

    def _chunk_length(self, settings: ReadingSettings) -> float:
        """Returns the seconds that the model reads in one pass."""
        return settings.chunk_length_s or saved_chunk_length(self.model.generation_config) or CHUNK_LENGTH

    def _how(self, settings: ReadingSettings) -> dict[str, Any]:
        """Returns the arguments with which a [`ClipStream`] is opened where nobody is chosen."""
        return {
            "modality": self._modality(settings),
            "sampling_rate": self.processor.feature_extractor.sampling_rate,
            "image_processor": self.processor.image_processor,
            "max_lead": max(MAX_LEAD, STRETCH * self._chunk_length(settings)),
            "tracks": settings.tracks,
        }

    def _open(self, source: Any, settings: ReadingSettings) -> Any:
        """Returns an input as a stream; one that was opened or read already as it is. Raises it if it is an error."""
        if isinstance(source, Exception):
            raise source
        if isinstance(source, (ClipStream, Clip)):
            return source
        source, speaker = as_input(source, settings.sampling_rate), self._chosen(settings)
        return ClipStream(source, **self._how(settings), speaker=speaker, on_piece=settings.on_piece)

    def _is_long(self, stream: ClipStream, settings: ReadingSettings) -> bool:
        return stream.duration is None or stream.duration > self._chunk_length(settings)

    def _read_clip(self, stream: ClipStream, settings: ReadingSettings) -> Clip:
        """Returns all of a short clip."""
        extractor, image_processor = self.processor.feature_extractor, self.processor.image_processor
        return read_clip(stream, self._modality(settings), extractor.sampling_rate, image_processor)

    def _chosen(self, settings: ReadingSettings) -> ChosenSpeaker | None:
        """Returns who is to be read, and what finds them; None where nobody was chosen."""
        speaker, locator = settings.speaker, settings.speaker_locator
        if speaker is None:
            return None
        if not isinstance(speaker, str) and "track" in speaker:
            return ChosenSpeaker(speaker, GivenTrack(self.processor.image_processor.fps))
        if locator is None:
            locator = self._loaded_locator(settings.speaker_model or self.default_speaker_model)
        if isinstance(locator, Pipeline):
            locator = ObjectLocator(locator)
        return ChosenSpeaker(speaker, locator)

    def _loaded_locator(self, model: str | os.PathLike | None) -> ObjectLocator:
        """Returns the locator of a checkpoint; the latest one is cached."""
        name = None if model is None else os.fspath(model)
        if self._locator is None or self._locator[0] != name:
            self._locator = name, load_locator(name, self.device)
        return self._locator[1]

    # ------------------------------------------------------------------------------------------------- the words

    @property
    def _recogniser(self) -> Recogniser:
        return Recogniser(self.model, self.processor)

    def _scores(self, settings: ReadingSettings) -> dict[str, Any]:
        """Returns the arguments of `generate` for a text's score and how it is searched for."""
        scores: dict[str, Any] = {"ctc_weight": settings.ctc_weight, "search": settings.search}
        if settings.language_model is not None:
            scores["language_model"] = self._loaded_language_model(settings.language_model)
        if settings.language_model_weight is not None:
            scores["language_model_weight"] = settings.language_model_weight
        return scores

    def _loaded_language_model(self, model: torch.nn.Module | str | os.PathLike) -> torch.nn.Module:
        """Returns a language model; the latest one of a folder or Hub id is cached."""
        if isinstance(model, torch.nn.Module):
            return model
        name = os.fspath(model)
        if self._language_model is None or self._language_model[0] != name:
            loaded: torch.nn.Module = AutoModelForCausalLM.from_pretrained(name)
            self._language_model = name, loaded.to(self.device).eval()
        return self._language_model[1]

    def _result(
        self, outputs: dict[str, Any], clip: int, report: dict[str, Any], settings: ReadingSettings
    ) -> dict[str, Any]:
        """Returns what the pipeline gives for one clip of a batch."""
        report = dict(report)
        silence, judged_by = outputs["silence"][clip].tolist(), (settings.lip_evidence, settings.speech_confidence)
        places = ((outputs, clip, i, report["duration"], report["modality"]) for i in range(outputs["ids"].shape[1]))
        texts = [self._recogniser.spoken_words(*place, *judged_by) for place in places]
        best = texts[0]
        report = note_others(report, best.others)
        report = note_doubt(report, best.doubtful, best.confidence_of_words, self._recogniser.doubt)
        words = time_words(best.characters)
        if settings.return_timestamps and not outputs["fits"][clip, 0]:
            warning = "the text has more letters than the clip has time for: the times are spread evenly"
            report["warnings"] = [*report["warnings"], warning]
        for warning in report["warnings"]:
            logger.warning(f"{report['source']}: {warning}")
        chunks = {"word": words, "char": best.characters}.get(str(settings.return_timestamps), [])
        results: list[dict[str, Any]] = [
            {"text": _text(own.characters), "confidence": own.confidence(silence[index])}
            for index, own in enumerate(texts)
        ]
        for index, result in enumerate(results[1:], 1):
            result["score"] = float(outputs["score"][clip, index])
        return {
            **results[0],
            "chunks": [chunk.to_chunk() for chunk in chunks],
            "alternatives": [result for result in results[1:] if result["score"] > -math.inf],  # a beam may be empty
            "report": report,
        }

    def _piece_reader(self, settings: ReadingSettings) -> PieceReader:
        one_text, least = settings.changed(num_return_sequences=1), (settings.lip_evidence, settings.speech_confidence)
        return PieceReader(
            self._recogniser,
            lambda inputs, encoded: self.forward(inputs, settings=one_text, encoded=encoded),
            self.device_placement,
            self.device,
            *least,
            settings.batch_size or 1,
        )

    def _listen(
        self,
        source: ClipStream,
        settings: ReadingSettings,
        timestamps: bool | str,
        pieces: list[ClipPiece] | None = None,
    ) -> SpeechStream:
        """Returns the words of a stream; of its pieces if it was read already."""
        read, reader = iter(pieces or source), self._piece_reader(settings)
        rate, fps = self.processor.feature_extractor.sampling_rate, self.processor.image_processor.fps
        reading = LongFormDecoder(
            ClipWindow(read, rate, fps, source.chosen),
            reader.nonblank_probability,
            reader.read,
            self._chunk_length(settings),
            self._recogniser.seconds_per_step,
            settings.batch_size or 1,
        )
        return SpeechStream(source, reading, timestamps, self._is_long(source, settings), self._recogniser.doubt)


def _attempt(read: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what `read` returns, or the error of an input that cannot be read."""
    try:
        return read(*arguments)
    except (ValueError, OSError) as error:
        return error


def _text(characters: list[TimedText]) -> str:
    return " ".join("".join(character.text for character in characters).split())
