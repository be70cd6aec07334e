# Copyright 2026 The LookHear developers.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""From a picture and a question to an answer in words and masks: the pipeline task `reasoning-segmentation`."""

from __future__ import annotations

import base64
import copy
import io
import json
import os
import urllib.request
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import Pipeline
from transformers.dynamic_module_utils import custom_object_save
from transformers.generation.streamers import TextIteratorStreamer

from .processing_lisa_glee import LisaGleeProcessor

TASK, MODEL = "reasoning-segmentation", "AutoModel"
Message = dict[str, Any]
# Formats that Pillow decodes itself: others start programs (EPS) or open further files.
PICTURE_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MOST_SIDE = 65_535  # pixels of a file's picture: JPEG's
MOST_BYTES = 256 << 20  # of a picture that a URL names
FETCH_SECONDS = 20.0  # the longest wait for a server that a picture's URL names
BATCH_SIZE = 8  # questions that go through the model together unless the caller says otherwise


@dataclass(frozen=True)
class AnswerSettings:
    """
    Settings of the pipeline `reasoning-segmentation`, or of one call.

    Attributes:
        max_new_tokens: the longest answer in tokens.
        num_beams: beams of the search for an answer.
        threshold: share in [0, 1] from which a pixel belongs to a mask.
        max_pixels: of a picture that is a file, a URL or base64 text, width times height.

    Raises:
        ValueError: a value cannot be used.
    """

    max_new_tokens: int = 128
    num_beams: int = 1
    threshold: float = 0.5
    max_pixels: int = 89_478_485  # above which Pillow warns of a bomb

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "num_beams", "max_pixels"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"`{name}` must be a positive integer, not {value!r}.")
        if (
            isinstance(self.threshold, bool)
            or not isinstance(self.threshold, (int, float))
            or not 0 < self.threshold < 1
        ):
            raise ValueError(f"`threshold` must be a number between 0 and 1, not {self.threshold!r}.")

    def updated(self, given: Mapping[str, Any]) -> AnswerSettings:
        """
        Returns these settings with those of a call.

        Args:
            given: names and values; `None` leaves a setting as it is.

        Raises:
            ValueError: there is no such setting, or a value cannot be used.
        """
        if unknown := sorted(given.keys() - {field.name for field in fields(self)}):
            raise ValueError(
                f"Unknown argument {', '.join(map(repr, unknown))} of the pipeline reasoning-segmentation."
            )
        return replace(self, **{name: value for name, value in given.items() if value is not None})


class ReasoningSegmentationPipeline(Pipeline):
    """
    Answers questions about pictures in words, and shows what the words mean as masks.

    ```python
    >>> import lookhear
    >>> from transformers import pipeline

    >>> ask = pipeline("reasoning-segmentation", model="<folder or Hub id>")
    >>> ask("scene.png", "Which of these would roll? Show it.")
    {'text': 'the red circle', 'objects': [{'score': 0.98, 'label': 'the red circle', 'box': {…}, 'mask': array(…)}]}
    >>> talk = ask.conversation("scene.png")
    >>> talk.ask("How many are red? Show them.")["text"], talk.ask("Which of them is largest?")["text"]
    >>> for words in ask.stream("scene.png", "What is between the star and the heart?"):
    ...     print(words, end="", flush=True)
    ```

    A call takes pictures and questions:

    - inputs: a picture (a path, an http(s) URL, a PIL image or an array `(height, width, 3)` uint8), or a list of
      them; or `{"image": …, "question": …}`, or a list of those.
    - question: a text; a list of texts, one for each picture, or several about one picture, each on its own; or a
      conversation so far, as a list of `{"role": "user" | "assistant", "content": text}` that ends with the user.
    - max_new_tokens: the longest answer in tokens (128).
    - num_beams: beams of the search for an answer (1).
    - threshold: share from which a pixel belongs to a mask (0.5).
    - max_pixels: of a picture that is a file, a URL or base64 text; larger ones are refused (89,478,485).
    - batch_size: questions that go through the model together (8).

    Returns, for each question, `{"text", "objects"}`: the answer, and for each object that it shows, in the order of
    the words, `{"score", "label", "box": {"xmin", "ymin", "xmax", "ymax"}, "mask"}`. The label is the words that
    belong to the object, the score is from 0 to 1, the box (None for an empty mask) in pixels, the mask
    `(height, width)` bool.

    Raises `ValueError`, with one line that names the argument, for whatever cannot be used.
    """

    model: Any  # a `LisaGleeForReasoningSegmentation`, which this folder doesn't import
    processor: LisaGleeProcessor

    _load_processor = True  # type: ignore[assignment]  # transformers declares these five as None
    _load_image_processor = False  # type: ignore[assignment]  # see above
    _load_video_processor = False  # type: ignore[assignment]  # see above
    _load_feature_extractor = False  # type: ignore[assignment]  # see above
    _load_tokenizer = False  # type: ignore[assignment]  # see above

    def __init__(self, *args: Any, batch_size: int | None = None, **kwargs: Any):
        self.batch_size = batch_size or BATCH_SIZE
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError("`processor` is missing: pass the LisaGleeProcessor of the model.")
        if not hasattr(self.processor, "post_process_answers"):  # with code from the Hub, its class is another one
            kind = type(self.processor).__name__
            raise ValueError(f"`model` must be a checkpoint of LISA-GLEE; the processor of this one is a {kind}.")

    def _sanitize_parameters(self, **settings: Any) -> tuple[dict, dict, dict]:
        """Stores the settings that the pipeline is made with; those of a call are added to them in `__call__`."""
        self.settings = AnswerSettings().updated(settings)
        return {}, {}, {}

    def __call__(  # type: ignore[override]  # further positional arguments are errors here
        self, inputs: Any, question: Any = None, *, batch_size: int | None = None, **kwargs: Any
    ) -> Any:
        settings, batch_size = self.settings.updated(kwargs), batch_size or self.batch_size
        pairs, single = _pairs(inputs, question, settings.max_pixels)
        answers: list[dict[str, Any]] = []
        for first in range(0, len(pairs), batch_size):
            batch = [self.preprocess(pair) for pair in pairs[first : first + batch_size]]
            answers += map(self.postprocess, self._forward(batch, settings))
        return answers[0] if single else answers

    def preprocess(  # type: ignore[override]  # transformers' pipelines take dictionaries, this one pairs
        self, inputs: tuple[Image.Image, Any]
    ) -> tuple[Image.Image, list[Message]]:
        """Writes the question about a picture as a conversation; the picture has been read."""
        picture, question = inputs
        return picture, _messages(question)

    def conversation(self, image: Any, **kwargs: Any) -> PictureConversation:
        """
        Opens a conversation about a picture; GLEE sees the picture once for all of it.

        Args:
            image: the picture.
            kwargs: settings of the answers, see [`ReasoningSegmentationPipeline`].
        """
        settings = self.settings.updated(kwargs)
        return PictureConversation(self, _read(image, settings.max_pixels), settings)

    def stream(self, image: Any, question: Any, **kwargs: Any) -> Generator[str, None, dict[str, Any]]:
        """
        Yields the answer to a question word by word; the generator's value (of `yield from`) is the whole answer.

        Args:
            image: the picture.
            question: a text or a conversation so far.
            kwargs: settings of the answer, see [`ReasoningSegmentationPipeline`]; beams cannot be streamed.
        """
        return self.conversation(image, **kwargs).stream_messages(_messages(question))

    def _forward(  # type: ignore[override]  # see `preprocess`
        self, model_inputs: Sequence[tuple[Image.Image, list[Message]]], settings: AnswerSettings
    ) -> list[dict[str, Any]]:
        """Answers several questions in one pass; GLEE sees each picture once, however many questions are about it."""
        pictures = list({id(picture): picture for picture, _ in model_inputs}.values())
        places = {id(picture): place for place, picture in enumerate(pictures)}
        rows = torch.tensor([places[id(picture)] for picture, _ in model_inputs])
        seen = self._look(pictures)
        return self._generate([messages for _, messages in model_inputs], pictures, seen, rows, settings)

    def _look(self, pictures: list[Image.Image]) -> dict[str, Any]:
        """
        Computes what GLEE sees in pictures.

        Returns:
            `objects`, the `mask` of the padded pictures and, for a language model that reads images itself, its
            `pixel_values`.
        """
        inputs = self.processor(images=pictures)
        mask = inputs.pop("perception_pixel_mask")
        pixels = inputs.pop("perception_pixel_values").to(self.device, self.model.dtype)
        with self.device_placement():
            return {"objects": self.model.get_objects(pixels, mask.to(self.device)), "mask": mask, **inputs}

    def _generate(
        self,
        conversations: list[list[Message]],
        pictures: list[Image.Image],
        seen: Mapping[str, Any],
        rows: torch.Tensor,
        settings: AnswerSettings,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """
        Answers conversations.

        Args:
            conversations: each ends with a question.
            pictures: that they are about.
            seen: in the pictures, see `_look`.
            rows: `(conversations,)` int64, the picture of each.
            settings: of the answers.
            kwargs: of the model's `generate`.
        """
        texts = [
            self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            for messages in conversations
        ]
        inputs = {name: value.to(self.device) for name, value in self.processor(text=texts).items()}
        if "pixel_values" in seen:
            inputs["pixel_values"] = seen["pixel_values"][rows].to(self.device, self.model.dtype)
        with self.device_placement():
            outputs = self.model.generate(
                **inputs,
                objects=seen["objects"],
                picture_indices=rows.to(self.device),
                max_new_tokens=settings.max_new_tokens,
                num_beams=settings.num_beams,
                do_sample=False,
                **kwargs,
            )
        sizes = [(picture.height, picture.width) for picture in pictures]
        return self.processor.post_process_answers(outputs, seen["mask"], sizes, rows, settings.threshold)

    def postprocess(  # type: ignore[override]  # see `preprocess`
        self, model_outputs: dict[str, Any]
    ) -> dict[str, Any]:
        """Converts an answer to what a call returns: without `[SEG]`, the sides of boxes by name."""
        sides = ("xmin", "ymin", "xmax", "ymax")
        objects = [
            {**found, "box": None if found["box"] is None else dict(zip(sides, found["box"]))}
            for found in model_outputs["objects"]
        ]
        return {"text": model_outputs["text"], "objects": objects}

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves the model, the processor, and the code of both and of the pipeline; see [`save_with_code`]."""
        save_with_code(self, TASK, MODEL, save_directory, **kwargs)


class PictureConversation:
    """
    A conversation about one picture, made by [`ReasoningSegmentationPipeline.conversation`].

    Args:
        pipe: the pipeline that answers.
        picture: in RGB.
        settings: of the answers.

    Attributes:
        messages: questions and answers so far; `[SEG]` stands where an object was shown.
    """

    def __init__(self, pipe: ReasoningSegmentationPipeline, picture: Image.Image, settings: AnswerSettings):
        self._pipeline, self._picture, self._settings = pipe, picture, settings
        self._seen: dict[str, Any] | None = None
        self.messages: list[Message] = []

    def ask(self, question: str) -> dict[str, Any]:
        """
        Asks the next question.

        Args:
            question: the text.

        Returns:
            `{"text", "objects"}`, see [`ReasoningSegmentationPipeline`].
        """
        messages = [*self.messages, *_messages(question)]
        answer = self._answer(messages)
        self._remember(messages, answer)
        return self._pipeline.postprocess(answer)

    def stream(self, question: str) -> Generator[str, None, dict[str, Any]]:
        """
        Asks the next question and yields the answer word by word; the generator's value is the whole answer.

        Args:
            question: the text.
        """
        messages = [*self.messages, *_messages(question)]
        answer = yield from self._stream(messages)
        self._remember(messages, answer)
        return self._pipeline.postprocess(answer)

    def stream_messages(self, messages: list[Message]) -> Generator[str, None, dict[str, Any]]:
        """
        Yields the answer to a conversation that ends with a question word by word, without adding it to `messages`.

        Args:
            messages: see [`ReasoningSegmentationPipeline`].
        """
        answer = yield from self._stream(messages)
        return self._pipeline.postprocess(answer)

    def _stream(self, messages: list[Message]) -> Generator[str, None, dict[str, Any]]:
        if self._settings.num_beams > 1:
            raise ValueError("`num_beams` must be 1 to stream: beams change their words until the end.")
        tokenizer = self._pipeline.processor.tokenizer
        streamer = _Words(tokenizer, skip_prompt=False, skip_special_tokens=True)
        result: SimpleQueue = SimpleQueue()

        def run() -> None:
            try:
                result.put((self._answer(messages, streamer=streamer), None))
            except Exception as error:  # any error is raised again in the thread that takes the words
                result.put((None, error))
                streamer.end()

        worker = Thread(target=run, daemon=True)
        worker.start()
        try:
            yield from (words for words in streamer if words)
        finally:
            streamer.stopped = True
        worker.join()
        answer, error = result.get()
        if error is not None:
            raise error
        return answer

    def _answer(self, messages: list[Message], **kwargs: Any) -> dict[str, Any]:
        if self._seen is None:
            self._seen = self._pipeline._look([self._picture])
        rows = torch.zeros(1, dtype=torch.long)
        return self._pipeline._generate([messages], [self._picture], self._seen, rows, self._settings, **kwargs)[0]

    def _remember(self, messages: list[Message], answer: dict[str, Any]) -> None:
        self.messages = [*messages, {"role": "assistant", "content": answer["written"]}]


class _Words(TextIteratorStreamer):
    """The words of an answer as they are generated; once `stopped` is set, the generation ends at the next token."""

    stopped = False

    def put(self, value: torch.Tensor) -> None:
        """Takes the next tokens. Raises InterruptedError where nobody takes the words any more."""
        if self.stopped:
            raise InterruptedError("the answer is not wanted any more")
        super().put(value)


def _pairs(inputs: Any, question: Any, max_pixels: int) -> tuple[list[tuple[Image.Image, Any]], bool]:
    """Returns a (picture, question) pair for each answer, and whether the call returns a single answer."""
    if isinstance(inputs, Mapping):
        return _all_read([_named(inputs, question)], max_pixels), True
    if isinstance(inputs, (list, tuple)):
        if all(isinstance(item, Mapping) for item in inputs) and inputs:
            return _all_read((_named(item, question) for item in inputs), max_pixels), False
        questions = list(question) if _is_texts(question) else [question] * len(inputs)
        if len(questions) != len(inputs):
            raise ValueError(f"`question`: {len(questions)} questions for {len(inputs)} pictures; pass one for each.")
        return _all_read(zip(inputs, questions), max_pixels), False
    if _is_texts(question):
        return _all_read(((inputs, text) for text in question), max_pixels), False
    return _all_read([(inputs, question)], max_pixels), True


def _all_read(pairs: Iterable[tuple[Any, Any]], max_pixels: int) -> list[tuple[Image.Image, Any]]:
    """Reads the pictures of (picture, question) pairs, each once even if several questions are about it."""
    given = list(pairs)
    pictures = {id(image): _read(image, max_pixels) for image in {id(image): image for image, _ in given}.values()}
    return [(pictures[id(image)], question) for image, question in given]


def _named(given: Mapping[str, Any], question: Any) -> tuple[Any, Any]:
    """Returns picture and question of a dictionary; `question` is that of dictionaries without one."""
    if "image" not in given:
        raise ValueError(f'`inputs`: a dictionary needs an "image"; this one has {", ".join(map(repr, given))}.')
    return given["image"], given.get("question", question)


def _is_texts(question: Any) -> bool:
    return isinstance(question, (list, tuple)) and bool(question) and all(isinstance(text, str) for text in question)


def _messages(question: Any) -> list[Message]:
    """
    Returns a question as a conversation.

    Raises:
        ValueError: it is neither a text nor a conversation that ends with the user.
    """
    if isinstance(question, str) and question.strip():
        return [{"role": "user", "content": [{"type": "text", "text": question.strip()}]}]
    turns = isinstance(question, (list, tuple)) and all(
        isinstance(message, Mapping) and {"role", "content"} <= message.keys() for message in question
    )
    if turns and question and question[-1]["role"] == "user":
        return [dict(message) for message in question]
    raise ValueError(f"`question` must be a text, or a conversation that ends with the user, not {question!r}.")


def _read(image: Any, max_pixels: int) -> Image.Image:
    """
    Reads a picture, the right way up and in colour.

    Args:
        image: see [`ReasoningSegmentationPipeline`].
        max_pixels: of a file.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        elif isinstance(image, (str, os.PathLike)):
            image = _opened(os.fspath(image), max_pixels)
        if not isinstance(image, Image.Image):
            raise TypeError(f"a {type(image).__name__}")
        upright = ImageOps.exif_transpose(image)  # a copy in any case
        return upright if upright.mode == "RGB" else upright.convert("RGB")
    except Exception as error:  # decoders and servers raise many kinds
        raise ValueError(f"`inputs`: not a picture that can be read: {' '.join(str(error).split())}") from None


def _opened(source: str, max_pixels: int) -> Image.Image:
    """Opens the picture at a path, at a URL, or in base64 text, if Pillow decodes its format itself."""
    if os.path.isfile(source):
        file: Any = source
    elif source.lower().startswith(("http://", "https://")):
        with urllib.request.urlopen(source, timeout=FETCH_SECONDS) as answer:
            file = io.BytesIO(answer.read(MOST_BYTES))
    else:
        encoded = source.partition(",")[2] if source.startswith("data:image/") else source
        try:
            file = io.BytesIO(base64.b64decode("".join(encoded.split()), validate=True))
        except ValueError:
            raise ValueError(f"{source[:200]!r} is neither a file nor a URL nor base64 text") from None
    Image.init()  # some formats depend on how Pillow was built, and on plugins
    most = f"`max_pixels` allows {max_pixels}, and {MOST_SIDE} on a side: make it smaller, or pass it as a PIL image"
    try:
        image = Image.open(file, formats=[name for name in PICTURE_FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError:
        raise ValueError(f"it has more pixels than Pillow opens; {most}") from None
    if max(image.size) > MOST_SIDE or image.width * image.height > max_pixels:
        raise ValueError(f"it has {image.width} x {image.height} pixels; {most}")
    return image


def save_with_code(
    pipe: Pipeline,
    task: str,
    model_class: str,
    save_directory: str | os.PathLike,
    push_to_hub: bool = False,
    **kwargs: Any,
) -> None:
    """
    Writes the model, the processor, and the code of both and of the pipeline; the pipeline may be in use meanwhile.

    Args:
        pipe: its `model` and `processor` are saved.
        task: the pipeline's name in `config.json`, where `pipeline(..., trust_remote_code=True)` looks for it.
        model_class: the Auto class that loads the model for it.
        save_directory: made if missing.
        push_to_hub: whether all of it is uploaded as well, to `repo_id`, by default the folder's name.
        kwargs: of the model's `save_pretrained`; with `push_to_hub` those of the pipeline's `push_to_hub`.

    Raises:
        ValueError: `save_directory` is a file.
    """
    folder = Path(save_directory)
    if folder.is_file():
        raise ValueError(f"`save_directory` must be a folder, and {str(folder)!r} is a file.")
    if push_to_hub:
        pipe.push_to_hub(kwargs.pop("repo_id", folder.name), **kwargs)
        kwargs = {}
    model = copy.copy(pipe.model)  # the same weights; saving writes into the configuration, which may be in use
    model.config = copy.deepcopy(pipe.model.config)
    model.save_pretrained(folder, **kwargs)
    if pipe.processor is not None:
        pipe.processor.save_pretrained(folder)
    custom_object_save(pipe, folder)
    # Only in the file: with a pipeline's name in the model's configuration, `pipeline` would want trust_remote_code.
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["auto_map"]["AutoModel"] = _reference(pipe.model.base_model)  # saving names the model's own class only
    config["custom_pipelines"] = {task: {"impl": _reference(pipe), "pt": [model_class], "type": "multimodal"}}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _reference(instance: object) -> str:
    """`module.Class` of an object, as configurations name code beside them."""
    return f"{type(instance).__module__.split('.')[-1]}.{type(instance).__name__}"
