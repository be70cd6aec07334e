"""From a file to what the person says: the pipeline task `audio-visual-speech-recognition`."""

import itertools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers.pipelines.base import Pipeline

from .chunking_avsr import CHUNK_LENGTH, SHORTEST_CHUNK, STRETCH
from .clip_pieces_avsr import MAX_LEAD, ClipPiece
from .clip_reading_avsr import MODALITIES, Clip, read_clip
from .clip_stream_avsr import ClipStream
from .clip_window_avsr import ClipWindow
from .everyone_avsr import named, people_in, together
from .landmarks_avsr import DlibLandmarkDetector
from .long_reading_avsr import LongReading, Reading
from .media_source_avsr import fetch_media, source_name
from .recognition_avsr import Recogniser
from .speaker_boxes_avsr import ChosenSpeaker
from .speaker_locator_avsr import GivenTrack, ObjectLocator, load_locator
from .speaker_request_avsr import EVERYONE, check_speaker
from .speech_activity_avsr import OwnWords
from .speech_stream_avsr import SpeechStream, as_chunk, note_others
from .word_timing_avsr import TimedText, mean_confidence, time_words

logger = logging.getLogger(__name__)

TIMESTAMPS = (False, "word", "char")
LOADING = ("batch_size", "num_workers")  # arguments of a call that are transformers' own


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
      `{"audio": (samples,), "sampling_rate": Hz, "video": (frames, height, width, 3) uint8, "fps": float}`, either half
      of which may be missing. Any sampling rate and frame rate. Instead of `"video"` there may be `"mouths"`: crops of
      the image processor.
    - batch_size (`int`): clips that go through the model together; the results do not depend on it.
    - modality: `"auto"` reads what the clip has, and says in the report where lips or sound are missing; `"audio"`,
      `"visual"` and `"audiovisual"` read exactly that, or raise.
    - return_timestamps: `False`, `"word"` or `"char"`.
    - num_beams, num_return_sequences, ctc_weight: as of `generate`; the checkpoint's values by default.
    - chunk_length_s: seconds (2 or more) that go through the model at once; the checkpoint's, or 12, by default. A
      longer clip is read utterance by utterance, in memory that does not depend on its length: cut where the speaker
      pauses. An utterance may have 1.5 times as much; one that is longer still is read in overlapping pieces. There
      are no alternatives then.
    - speaker: whom to read where several people are in view. `None` takes the most prominent face. A text about one
      person (`"the woman in the orange suit"`), `{"point": (x, y)}` or `{"box": (x0, y0, x1, y1)}` in pixels of the first
      picture: whoever that is, is followed, and face and mouth are looked for in their box only. `{"track": boxes}`: for
      each picture `(x0, y0, x1, y1)` or None, 25 a second or as many as `"fps"` beside it says. `"everyone"`: all whose
      faces are in view for a second or longer, up to eight, each by themselves; the result then has a line for each of
      them in `"text"`, a `"speaker"` in each of its `"chunks"`, and `"speakers"`, a result for each.
    - speaker_locator: what follows them: a pipeline of the task `object-perception`, or any function of an iterator of
      pictures `(height, width, 3)` uint8 and of `speaker`, which gives for each picture, as soon as it knows it,
      `(x0, y0, x1, y1)` in pixels, `(x0, y0, x1, y1, score)` with a score from 0 to 1, or None where the speaker isn't
      seen. It runs in a thread of its own.
    - speaker_model: the checkpoint (folder or Hub id) of the locator where none is given; `default_speaker_model` by
      default, which is the packaged `glee-tiny` once lookhear is imported.
    - lip_evidence: words that were read from sound and lips of a chosen speaker count as theirs where the lips alone give
      the letters within a second around them this mean probability, 0 to 1; the checkpoint's, or 0.25, by default. All
      others are left out, and stand in the report as `["speaker"]["others_said"]`. 0 takes every word for the speaker's.
    - on_piece: a function that is called with each [`ClipPiece`], about a second of sound and mouth crops as the model gets
      them, while the input is read: to show how far it is, or what is seen. With several inputs, or `"everyone"`, the
      pieces of one come after those of the other; each begins with `start` 0.

    Returns, for each input, `{"text", "confidence", "chunks", "alternatives", "report"}`: the confidence (0 to 1) is the
    geometric mean of the characters' CTC probabilities; chunks are `{"text", "timestamp": (start, end) in seconds,
    "confidence"}`; alternatives are the other `num_return_sequences - 1` texts, `{"text", "confidence", "score"}`, best
    first; the report holds what was measured on the clip and `"warnings"` in words, of a chosen speaker also who was
    followed in each second and how surely ([`SpeakerReport`]). [`stream`] gives the words of one input as soon as they
    are certain.

    Raises `ValueError`, with one line that names the input or argument, for whatever cannot be read.
    """

    default_speaker_model: str | None = None  # of whoever packages one
    _locator: tuple[str | None, ObjectLocator] | None = None

    _load_processor = True
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __call__(self, inputs, **kwargs):
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            raise ValueError("`inputs` is an empty list: pass at least one clip.")
        batch_size = kwargs.get("batch_size")
        if batch_size is not None and not _is_count(batch_size):
            raise ValueError(f"`batch_size` must be a positive integer, not {batch_size!r}.")
        if isinstance(inputs, list):
            return list(self._read_all(inputs, kwargs))
        if isinstance(inputs, (Iterator, Dataset)) and not hasattr(inputs, "read"):
            return self._read_all(inputs, kwargs)
        return self._read_together([inputs], kwargs)[0]

    def stream(self, inputs, **kwargs) -> SpeechStream:
        """
        The words of one input as soon as they are certain, while the input is read.

        Args:
            inputs: one input, as of a call.
            kwargs: as of a call; `return_timestamps="char"` gives characters instead of words.

        Returns:
            An iterator of `{"text", "timestamp": (start, end) in seconds, "confidence"}`, with `duration`, `position`
            and `confidence`, and for the end `to_result(chunks)` and `to_report()`.

        Raises:
            ValueError: as a call does; what is found out while the input is read, the iterator raises.
        """
        if self._asked(kwargs)[0].get("speaker") == EVERYONE:
            raise ValueError('`speaker`: a stream is of one speaker, and "everyone" is for a call.')
        return self._listen(self._open(inputs, kwargs), kwargs)

    def _read_all(self, inputs: Iterable, kwargs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The results of many inputs, so many at a time as go through the model together."""
        size = kwargs.get("batch_size") or self._batch_size or 1
        items = iter(inputs) if isinstance(inputs, Iterable) else (inputs[i] for i in range(len(inputs)))
        while batch := list(itertools.islice(items, size)):
            yield from self._read_together(batch, kwargs)

    def _read_together(self, inputs: list, kwargs: dict[str, Any]) -> list[dict[str, Any]]:
        """The results of a few inputs: short ones go through the model together, long ones by themselves."""
        if self._asked(kwargs)[0].get("speaker") == EVERYONE:
            return [self._read_everyone(source, kwargs) for source in inputs]
        streams = [self._open(source, kwargs) for source in inputs]
        short = [stream for stream in streams if not self._is_long(stream, kwargs)]
        done = iter(super().__call__(short, **{**kwargs, "batch_size": len(short)}) if short else [])
        return [self._read_long(stream, kwargs) if self._is_long(stream, kwargs) else next(done) for stream in streams]

    def _read_everyone(self, source: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The results of all whose faces are in view: the source is read once for all, and then once for each of them."""
        name = "the input dictionary" if isinstance(source, dict) else source_name(source)
        source = source if isinstance(source, dict) else fetch_media(source)
        people, warnings = people_in(source, self.processor.image_processor, DlibLandmarkDetector())
        results = []
        for number, person in enumerate(people, 1):
            (result,) = self._read_together([source], {**kwargs, "speaker": {"track": person}})
            results.append(named(result, number, name))
        return together(results, warnings)

    @property
    def _recogniser(self) -> Recogniser:
        return Recogniser(self.model, self.processor)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Saves the model, the processor, and the code of both and of the pipeline."""
        config = self.model.config
        before = {name: getattr(config, name, None) for name in ("auto_map", "custom_pipelines")}
        base = type(self.model.base_model)  # what AutoModel gives; saving names the model's own class only
        config.auto_map = {
            **(before["auto_map"] or {}),
            "AutoModel": f"{base.__module__.split('.')[-1]}.{base.__name__}",
        }
        parts = self.feature_extractor, self.image_processor, self.tokenizer
        self.feature_extractor = self.image_processor = self.tokenizer = None  # they are saved as one processor
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            self.feature_extractor, self.image_processor, self.tokenizer = parts
            for name, value in before.items():  # with a pipeline's name, `pipeline` would ask for trust_remote_code
                setattr(config, name, value)
                if value is None:
                    delattr(config, name)
        self.processor.save_pretrained(save_directory)

    def _sanitize_parameters(
        self,
        modality: str | None = None,
        return_timestamps: bool | str | None = None,
        num_beams: int | None = None,
        num_return_sequences: int | None = None,
        ctc_weight: float | None = None,
        chunk_length_s: float | None = None,
        speaker: Any = None,
        speaker_locator: Any = None,
        speaker_model: str | None = None,
        lip_evidence: float | None = None,
        on_piece: Callable[[ClipPiece], object] | None = None,
        **unknown,
    ) -> tuple[dict, dict, dict]:
        if unknown:
            raise ValueError(f"Unknown argument {', '.join(map(repr, unknown))} of {type(self).__name__}.")
        if chunk_length_s is not None and not (
            _is_number(chunk_length_s) and SHORTEST_CHUNK <= chunk_length_s < math.inf
        ):
            raise ValueError(
                f"`chunk_length_s` must be None or a number of seconds, {SHORTEST_CHUNK:g} or more, not "
                f"{chunk_length_s!r}."
            )
        if speaker is not None:
            speaker = check_speaker(speaker)
            if modality == "audio":
                raise ValueError('`speaker` chooses among faces, and `modality` is "audio": no faces are looked at.')
        if speaker_locator is not None and not callable(speaker_locator):
            raise ValueError(f"`speaker_locator` must be a function or a pipeline, not {speaker_locator!r}.")
        if on_piece is not None and not callable(on_piece):
            raise ValueError(f"`on_piece` must be a function, not {on_piece!r}.")
        if speaker_model is not None and not isinstance(speaker_model, (str, os.PathLike)):
            raise ValueError(f"`speaker_model` must be a folder or a Hub id, not {speaker_model!r}.")
        if lip_evidence is not None and not (_is_number(lip_evidence) and 0 <= lip_evidence <= 1):
            raise ValueError(f"`lip_evidence` must be a number from 0 to 1, not {lip_evidence!r}.")
        if modality is not None and modality not in MODALITIES:
            raise ValueError(f"`modality` must be one of {', '.join(map(repr, MODALITIES))}, not {modality!r}.")
        if return_timestamps is not None and return_timestamps not in TIMESTAMPS:
            raise ValueError(f'`return_timestamps` must be False, "word" or "char", not {return_timestamps!r}.')
        _check_search(num_beams, num_return_sequences, ctc_weight)
        search = {"num_beams": num_beams, "num_return_sequences": num_return_sequences, "ctc_weight": ctc_weight}
        return (
            _given(
                modality=modality,
                chunk_length_s=chunk_length_s,
                speaker=speaker,
                speaker_locator=speaker_locator,
                speaker_model=speaker_model,
                on_piece=on_piece,
            ),
            _given(**search, judge_lips=True if speaker is not None else None),
            _given(return_timestamps=return_timestamps, lip_evidence=lip_evidence),
        )

    def preprocess(self, inputs, modality: str = "auto", **settings: Any) -> dict[str, Any]:
        """One input to tensors with a batch dimension of 1; an absent modality is one step with a mask of 0."""
        extractor, image_processor = self.processor.feature_extractor, self.processor.image_processor
        stream = self._open(inputs, {"modality": modality, **settings})
        clip = read_clip(stream, self._modality(modality), extractor.sampling_rate, image_processor)
        for warning in clip.report.warnings:
            logger.warning(f"{clip.name}: {warning}")
        return {**self._recogniser.features([clip]), "report": clip.to_report()}

    def _modality(self, modality: str) -> str:
        """A model of one modality reads only that, so "auto" need not look for the other."""
        return self.model.config.modality if modality == "auto" and self._single_modality() else modality

    def _single_modality(self) -> bool:
        return self.model.config.modality != "audiovisual"

    def _check_model_reads(self, modality: str) -> None:
        if self._single_modality() and modality not in ("auto", self.model.config.modality):
            raise ValueError(
                f'`modality` is "{modality}", but this model reads "{self.model.config.modality}" only: load an '
                "audio-visual checkpoint."
            )

    def _forward(self, model_inputs: dict[str, Any], **search) -> dict[str, Any]:
        """What [`Recogniser.search`] finds; everything is `(batch, num_return_sequences, …)`."""
        return {**self._recogniser.search(model_inputs, **search), "report": model_inputs.get("report")}

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        return_timestamps: bool | str = False,
        lip_evidence: float | None = None,
    ) -> dict[str, Any]:
        report = dict(model_outputs["report"])
        texts = [
            self._recogniser.own_words(model_outputs, 0, index, report["duration"], lip_evidence)
            for index in range(model_outputs["ids"].shape[1])
        ]
        report = note_others(report, texts[0].others)
        best, words = texts[0].characters, time_words(texts[0].characters)
        if return_timestamps and not model_outputs["fits"][0, 0]:
            warning = "the text has more letters than the clip has time for: the times are spread evenly"
            report["warnings"] = [*report["warnings"], warning]
        chunks = {"word": words, "char": best}.get(return_timestamps, [])
        results = [
            {"text": _text(own.characters), "confidence": self._confidence(own, model_outputs["silence"][0, index])}
            for index, own in enumerate(texts)
        ]
        for index, result in enumerate(results[1:], 1):
            result["score"] = float(model_outputs["score"][0, index])
        return {
            **results[0],
            "chunks": [as_chunk(chunk) for chunk in chunks],
            "alternatives": results[1:],
            "report": report,
        }

    # ------------------------------------------------------------------------------------------------- long input

    def _asked(self, kwargs: dict[str, Any]) -> tuple[dict, dict, dict]:
        """The settings of `preprocess`, `_forward` and `postprocess`: the call's, else the pipeline's."""
        given = self._sanitize_parameters(**{name: value for name, value in kwargs.items() if name not in LOADING})
        kept = self._preprocess_params, self._forward_params, self._postprocess_params
        return tuple({**before, **now} for before, now in zip(kept, given))

    def _chunk_length(self, kwargs: dict[str, Any]) -> float:
        chunk_length = self._asked(kwargs)[0].get("chunk_length_s")
        return chunk_length or getattr(self.model.generation_config, "chunk_length_s", None) or CHUNK_LENGTH

    def _open(self, source: Any, kwargs: dict[str, Any]) -> ClipStream:
        if isinstance(source, ClipStream):
            return source
        asked = self._asked(kwargs)[0]
        modality = asked.get("modality", "auto")
        self._check_model_reads(modality)
        extractor, image_processor = self.processor.feature_extractor, self.processor.image_processor
        return ClipStream(
            source,
            self._modality(modality),
            extractor.sampling_rate,
            image_processor,
            max_lead=max(MAX_LEAD, STRETCH * self._chunk_length(kwargs)),
            speaker=self._chosen(**asked),
            on_piece=asked.get("on_piece"),
        )

    def _chosen(
        self, speaker: Any = None, speaker_locator: Any = None, speaker_model: str | None = None, **_: Any
    ) -> ChosenSpeaker | None:
        """Who is to be read, and what finds them."""
        if speaker is None:
            return None
        if not isinstance(speaker, str) and "track" in speaker:
            return ChosenSpeaker(speaker, GivenTrack(self.processor.image_processor.fps))
        if speaker_locator is None:
            speaker_locator = self._loaded_locator(speaker_model or self.default_speaker_model)
        if isinstance(speaker_locator, Pipeline):
            speaker_locator = ObjectLocator(speaker_locator)
        return ChosenSpeaker(speaker, speaker_locator)

    def _loaded_locator(self, model: str | None) -> ObjectLocator:
        """The locator of a checkpoint; the latest one is kept."""
        if self._locator is None or self._locator[0] != model:
            self._locator = model, load_locator(model, self.device)
        return self._locator[1]

    def _is_long(self, stream: ClipStream, kwargs: dict[str, Any]) -> bool:
        return stream.duration is None or stream.duration > self._chunk_length(kwargs)

    def _listen(self, source: ClipStream, kwargs: dict[str, Any]) -> SpeechStream:
        _, search, shown = self._asked(kwargs)
        least = shown.get("lip_evidence")
        window = ClipWindow(source, self.processor.feature_extractor.sampling_rate, self.processor.image_processor.fps)
        reading = LongReading(
            window,
            self._letter_chances,
            lambda clips: self._read_pieces(clips, {**search, "num_return_sequences": 1}, least),
            self._chunk_length(kwargs),
            self._recogniser.seconds_per_step,
        )
        return SpeechStream(source, reading, shown.get("return_timestamps", "word"), self._is_long(source, kwargs))

    def _read_long(self, source: ClipStream, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The result of a clip that is longer than a chunk."""
        asked = self._asked(kwargs)
        search, timestamps = asked[1], asked[2].get("return_timestamps", False)
        with self._listen(source, {**kwargs, "return_timestamps": timestamps}) as speech:
            result = speech.to_result(list(speech))
        if (search.get("num_return_sequences") or self.model.generation_config.num_return_sequences or 1) > 1:
            result["report"]["warnings"].append("a clip that is read in chunks has no alternatives")
        return result

    def _encode(self, clips: list[Clip]) -> dict[str, torch.Tensor]:
        return self._ensure_tensor_on_device(self._recogniser.features(clips), device=self.device)

    def _letter_chances(self, clip: Clip) -> np.ndarray:
        """`(steps,)`: CTC's probability of any letter."""
        with self.device_placement(), torch.inference_mode():
            return self._recogniser.letter_chances(self._encode([clip]))[0].cpu().numpy()

    def _read_pieces(self, clips: list[Clip], search: dict[str, Any], lip_evidence: float | None) -> list[Reading]:
        """What each clip says."""
        outputs = self.forward(self._encode(clips), **search)
        readings = []
        for index, clip in enumerate(clips):
            own = self._recogniser.own_words(outputs, index, 0, clip.duration, lip_evidence)
            silence = own.log_silence if own.others else float(outputs["silence"][index, 0])
            readings.append(Reading(own.characters, bool(outputs["fits"][index, 0]), silence, own.others))
        return readings

    @staticmethod
    def _confidence(own: OwnWords, silence: torch.Tensor) -> float:
        """Of the whole text; of an empty one, how surely nothing was said."""
        if own.characters:
            return round(mean_confidence(own.characters), 4)
        return round(math.exp(own.log_silence if own.others else float(silence)), 4)


def _text(characters: list[TimedText]) -> str:
    return " ".join("".join(character.text for character in characters).split())


def _given(**arguments) -> dict[str, Any]:
    """The arguments that the caller passed."""
    return {name: value for name, value in arguments.items() if value is not None}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_search(num_beams: Any, num_return_sequences: Any, ctc_weight: Any) -> None:
    for name, value in (("num_beams", num_beams), ("num_return_sequences", num_return_sequences)):
        if value is not None and not _is_count(value):
            raise ValueError(f"`{name}` must be a positive integer, not {value!r}.")
    if num_beams is not None and num_return_sequences is not None and num_return_sequences > num_beams:
        raise ValueError(
            f"`num_return_sequences` ({num_return_sequences}) must not be more than `num_beams` ({num_beams})."
        )
    if ctc_weight is not None and not (_is_number(ctc_weight) and 0 <= ctc_weight <= 1):
        raise ValueError(f"`ctc_weight` must be a number from 0 to 1, not {ctc_weight!r}.")
