"""`GleePromptProcessor`: from labels, expressions and visual prompts to the network's inputs."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from transformers import PreTrainedTokenizerBase

from .geometry_glee import Size, is_mask, plain_prompt, resize_mask, scale_points

MAX_LENGTH = 77  # tokens of CLIP's text encoder, its first and last included
CAPACITY = 16  # lists of labels that are cached; 80 labels take about 350 kB
VISUAL_LABEL = "object"  # the label that visual prompts are scored against
REMOVED = ".,:;!?'\"()*#"  # characters that expressions are trained without
SPACED = "-/_"  # characters that become a space
EDGES = " .,;:!?"  # characters that labels are stripped of at both ends

POINT_FRACTION = 40  # a point becomes a rectangle that extends by a 40th of the image to each side
SCRIBBLE_FRACTION = 100  # the width of a drawn line is a 100th of the short side
SCRIBBLE_WIDTH = 3  # pixels, at least
LEAST_SIDE = 0.999  # pixels; a box or line that is smaller is most probably one in shares of the image


# --------------------------------------------------------------------------------------------------- prompts as pixels

# Each function makes a bool picture of the size of the resized image (`resized_size`, height and width) from the
# prompt of one object, which is in pixels of the original image (`image_size`). Each raises a ValueError that says
# what is wrong with the prompt, without its name.


def draw_points(points: Any, image_size: Size, resized_size: Size) -> np.ndarray:
    """Draws `(n, 2)` points (x, y) of one object: a rectangle round each."""
    points = _coordinates(points, "a list of (x, y) points", 2)
    if _in_first_pixel(points) and (points % 1).any():
        raise ValueError(f"the point ({points[0, 0]:g}, {points[0, 1]:g}) is less than a pixel {_shares(image_size)}")
    for x, y in points:
        if not (0 <= x < image_size[1] and 0 <= y < image_size[0]):
            raise ValueError(
                f"the point ({x:g}, {y:g}) is outside of the image of width {image_size[1]} and height {image_size[0]}"
            )
    height, width = resized_size
    reach_y, reach_x = max(1, height // POINT_FRACTION), max(1, width // POINT_FRACTION)
    drawn = np.zeros(resized_size, dtype=bool)
    for x, y in scale_points(points, image_size, resized_size).astype(int):
        drawn[max(0, y - reach_y) : y + reach_y + 1, max(0, x - reach_x) : x + reach_x + 1] = True
    return drawn


def draw_box(box: Any, image_size: Size, resized_size: Size) -> np.ndarray:
    """Fills a box (x0, y0, x1, y1), clipped to the image; x1 and y1 are the first pixels beyond it."""
    corners = _coordinates([box], "four numbers (x0, y0, x1, y1)", 4)
    x0, y0, x1, y1 = corners[0]
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) has no area: x0 < x1 and y0 < y1 must hold")
    if x1 <= 0 or y1 <= 0 or x0 >= image_size[1] or y0 >= image_size[0]:
        raise ValueError(
            f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is outside of the image of width {image_size[1]} and height "
            f"{image_size[0]}"
        )
    seen = np.minimum([x1, y1], image_size[::-1]) - np.maximum([x0, y0], 0)  # width and height within the image
    if _in_first_pixel(corners) or seen.min() < LEAST_SIDE:
        raise ValueError(f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is smaller than a pixel {_shares(image_size)}")
    x0, y0, x1, y1 = scale_points(corners, image_size, resized_size)[0]
    drawn = np.zeros(resized_size, dtype=bool)
    drawn[_pixels(y0, y1, resized_size[0]), _pixels(x0, x1, resized_size[1])] = True
    return drawn


def draw_scribble(scribble: Any, image_size: Size, resized_size: Size) -> np.ndarray:
    """Draws a line through `(n, 2)` points (x, y), or the pixels of an `(H, W)` bool picture of the image's size."""
    if is_mask(scribble):
        return draw_mask(scribble, image_size, resized_size)
    points = _coordinates(scribble, "a line of (x, y) points, or a bool array as large as the image", 2)
    extents = np.ptp(points, axis=0)
    if extents.any() and (_in_first_pixel(points) or extents.max() < LEAST_SIDE):
        raise ValueError(f"the line is shorter than a pixel {_shares(image_size)}")
    line = [(x, y) for x, y in scale_points(points, image_size, resized_size)]
    width = max(SCRIBBLE_WIDTH, round(min(resized_size) / SCRIBBLE_FRACTION))
    picture = Image.new("1", resized_size[::-1])
    pen = ImageDraw.Draw(picture)
    pen.line(line, fill=1, width=width, joint="curve")
    for x, y in (line[0], line[-1]):  # round ends; a line of one point is a dot
        pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=1)
    drawn = np.array(picture)
    if not drawn.any():
        raise ValueError(
            f"the line is outside of the image of width {image_size[1]} and height {image_size[0]}: its points "
            "must be (x, y) in pixels of the image"
        )
    return drawn


def draw_mask(mask: Any, image_size: Size, resized_size: Size) -> np.ndarray:
    """Resizes a mask of the image's size, `(H, W)` bool or integers that are 0 outside of the object, by the nearest
    pixel."""
    if not is_mask(mask):
        raise ValueError("it must be a bool array (height, width) as large as the image")
    mask = _as_array(mask)
    if mask.dtype != bool and not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(f"it must be bool, or integers that are 0 outside of the object, got {mask.dtype}")
    if mask.shape != tuple(image_size):
        raise ValueError(f"its size is {mask.shape}, but the image's (height, width) is {tuple(image_size)}")
    if not mask.any():
        raise ValueError("it marks no pixel")
    return resize_mask(mask != 0, resized_size)


def _coordinates(value: Any, form: str, columns: int) -> np.ndarray:
    """Converts nested lists or arrays to `(n, columns)` float64, n at least 1; `form` describes them in the error."""
    try:
        array = np.asarray(_as_array(value), dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] != columns:
        raise ValueError(f"it must be {form} in pixels of the image")
    if not np.isfinite(array).all():
        raise ValueError("it has NaN or infinite coordinates")
    return array


def _in_first_pixel(coordinates: np.ndarray) -> bool:
    """Returns whether all coordinates are from 0 to 1, as shares of an image are."""
    return bool(((coordinates >= 0) & (coordinates <= 1)).all())


def _shares(image_size: Size) -> str:
    """Says what to do about coordinates that seem to be shares of the image."""
    return (
        f"of the image: coordinates are pixels, not shares; multiply x by the width {image_size[1]} and y by the "
        f"height {image_size[0]}"
    )


def _as_array(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    return np.asarray(value) if isinstance(value, Image.Image) else value


def _pixels(low: float, high: float, length: int) -> slice:
    """Returns the pixels from `low` to `high`, at least one, within `length`."""
    first = min(max(0, math.floor(low + 0.5)), length - 1)
    return slice(first, max(first + 1, math.floor(high + 0.5)))


# --------------------------------------------------------------------------------------------------- prompts as inputs


class PromptKind(NamedTuple):
    """One kind of visual prompt."""

    number: int  # in the network
    draw: Callable[[Any, Size, Size], np.ndarray]
    axes: int  # of the prompt of one object, as a nested list or array
    form: str  # for errors


VISUAL_PROMPTS = {  # in the order of the prompts of one image
    "points": PromptKind(2, draw_points, 2, "each object a list of (x, y)"),
    "boxes": PromptKind(1, draw_box, 1, "each object (x0, y0, x1, y1)"),
    "scribbles": PromptKind(3, draw_scribble, 2, "each object a line of (x, y), or a bool array (height, width)"),
    "masks": PromptKind(0, draw_mask, 2, "each object a bool array (height, width)"),
}


class GleePromptProcessor:
    """
    Converts labels, expressions, points, boxes, scribbles and masks to arrays, for any number of images with any
    number of prompts each.

    Args:
        tokenizer: CLIP's.
        max_length: maximum number of tokens of the text encoder; the tokenizer's, if that is less. Longer texts are
            refused, not cut.

    Example:

    ```python
    >>> prompts = GleePromptProcessor(tokenizer)
    >>> prompts(labels=["person", "traffic light"])["input_ids"].shape
    (2, 4)
    >>> sizes = {"image_sizes": [(480, 640)], "resized_sizes": [(800, 1067)], "padded_size": (800, 1088)}
    >>> prompts(points=[[(100, 50), (120, 60)], [(300, 200)]], boxes=[(0, 0, 99, 99)], **sizes)["prompt_masks"].shape
    (3, 800, 1088)
    ```
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int = MAX_LENGTH):
        self.tokenizer = tokenizer
        self.max_length = min(max_length, tokenizer.model_max_length)

    def __call__(
        self,
        labels: Sequence[str] | None = None,
        expressions: Any = None,
        points: Any = None,
        boxes: Any = None,
        scribbles: Any = None,
        masks: Any = None,
        image_sizes: Sequence[Size] = (),
        resized_sizes: Sequence[Size] = (),
        padded_size: Size = (0, 0),
    ) -> dict[str, np.ndarray]:
        """
        Builds the inputs of one of three tasks: labels, expressions, or visual prompts, which may be of several kinds.

        Apart from `labels`, which all images share, an argument is a list with one list per image. For one image the
        outer list may be left out. An image may have no prompt of a kind: `[]`. Coordinates are (x, y) in pixels of
        the original image.

        Args:
            labels: names of categories, such as `["person", "traffic light"]`; see [`clean_label`]. All differ.
            expressions: sentences, each about one object of its image. They are lower-cased, and punctuation is
                removed.
            points: lists of `(x, y)`, one list per object. Each becomes a rectangle of a 20th of the image.
            boxes: `(x0, y0, x1, y1)`, one per object. They are clipped to the image.
            scribbles: one line `[(x, y), ...]`, or bool array of the image's `(height, width)`, per object.
            masks: one bool array of the image's `(height, width)` per object.
            image_sizes: `(height, width)` of the original images.
            resized_sizes: `(height, width)` of the resized images, for visual prompts.
            padded_size: `(height, width)` of the padded images, for visual prompts.

        Returns:
            For labels `input_ids` and `attention_mask` `(K, L)` int64, padded to the longest. For expressions
            `expression_input_ids` and `expression_attention_mask` `(P, max_length)` int64, and `prompt_image_indices`
            `(P,)` int64, image by image. For visual prompts `prompt_masks` `(P, H, W)` bool on the padded image,
            `prompt_types` `(P,)` int64 (0 mask, 1 box, 2 point, 3 scribble), `prompt_image_indices` `(P,)` int64, and
            the tokens of "object". Prompts are in the order of the images, those of one image in the order points,
            boxes, scribbles, masks.

        Raises:
            ValueError: there are prompts of none or of several of the three tasks, or one cannot be used. The message
                names the argument.
        """
        visual = {"points": points, "boxes": boxes, "scribbles": scribbles, "masks": masks}
        visual = {name: value for name, value in visual.items() if value is not None}
        given = [name for name, value in (("labels", labels), ("expressions", expressions)) if value is not None]
        if len(given) + bool(visual) > 1:
            raise ValueError(
                f"{' and '.join([*given, *visual])} exclude each other in one call: make one call for each"
            )
        if labels is not None:
            return self.encode_labels(labels)
        if expressions is None and not visual:
            raise ValueError("nothing to look for: pass labels, expressions, points, boxes, scribbles or masks")
        if not image_sizes:
            raise ValueError("images must be there for every prompt but labels")
        if expressions is not None:
            return self.encode_expressions(expressions, len(image_sizes))
        return {
            **draw_visual_prompts(visual, image_sizes, resized_sizes, padded_size),
            **self.encode_labels([VISUAL_LABEL]),
        }

    def encode_labels(self, labels: Sequence[str]) -> dict[str, np.ndarray]:
        """Tokenizes K labels as [`clean_label`] writes them: `input_ids` and `attention_mask` `(K, L)`, padded to the
        longest."""
        given = _checked_texts("labels", labels)
        texts = [clean_label(text) for text in given]
        for index, text in enumerate(texts):
            if not text:
                raise ValueError(f"labels: item {index} is empty: take it out, or name something")
            if text in texts[:index]:
                first = texts.index(text)
                other = given[first].strip() != given[index].strip()
                also = f" (as {given[first]!r} and {given[index]!r})" if other else ""
                raise ValueError(f"labels: {text!r} is there twice{also}, items {first} and {index}: take one out")
        return dict(zip(("input_ids", "attention_mask"), self._encode("labels", texts)))

    def encode_expressions(self, expressions: Any, num_images: int) -> dict[str, np.ndarray]:
        """Tokenizes expressions: `expression_input_ids` and `expression_attention_mask` `(P, max_length)`, and
        `prompt_image_indices` `(P,)`."""
        texts, images = [], []
        for image, sentences in enumerate(_sentences_of_images(expressions, num_images)):
            for index, text in enumerate(sentences):
                texts.append(clean_expression(text))
                images.append(image)
                if not texts[-1]:
                    raise ValueError(f"expressions: image {image}, item {index} has no word: {text!r}")
        if not texts:
            raise ValueError("expressions is empty: pass at least one sentence")
        ids, mask = self._encode("expressions", texts, self.max_length)
        return {
            "expression_input_ids": ids,
            "expression_attention_mask": mask,
            "prompt_image_indices": np.array(images, dtype=np.int64),
        }

    def _encode(self, name: str, texts: list[str], length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Tokenizes n texts: `(n, length)` ids and attention mask; None stands for the length of the longest."""
        rows = self.tokenizer(texts, verbose=False)["input_ids"]
        for index, row in enumerate(rows):
            if len(row) > self.max_length:
                raise ValueError(
                    f"{name}: item {index} has {len(row)} tokens, {self.max_length} fit: "
                    f"shorten {texts[index][:40]!r}..."
                )
        shape = (len(rows), length or max(map(len, rows)))
        ids = np.full(shape, self.tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return ids, mask


def clean_label(text: str) -> str:
    """
    Writes the name of a category as it is looked for: lower case, underscores as spaces, single spaces, and no
    punctuation at its ends. Punctuation within a name stays.

    Example:

    ```python
    >>> clean_label(" Red_triangle."), clean_label("T-shirt,  size M")
    ('red triangle', 't-shirt, size m')
    ```
    """
    return " ".join(text.lower().replace("_", " ").split()).strip(EDGES)


def clean_expression(text: str) -> str:
    """
    Normalises a sentence as in training: lower case, without punctuation, underscores and hyphens as single spaces.

    Example:

    ```python
    >>> clean_expression("The man's T-shirt,  left/right (red)!")
    'the mans t shirt left right red'
    ```
    """
    text = text.lower().translate(str.maketrans(SPACED, " " * len(SPACED), REMOVED))
    return " ".join(text.split())


def draw_visual_prompts(
    prompts: dict[str, Any], image_sizes: Sequence[Size], resized_sizes: Sequence[Size], padded_size: Size
) -> dict[str, np.ndarray]:
    """
    Draws visual prompts on the padded images.

    Args:
        prompts: argument name ("points", "boxes", "scribbles", "masks") to one list per image, see
            `GleePromptProcessor`.
        image_sizes: `(height, width)` of the original images.
        resized_sizes: `(height, width)` of the resized images.
        padded_size: `(height, width)` of the padded images.

    Returns:
        `prompt_masks` `(P, H, W)` bool, `prompt_types` and `prompt_image_indices` `(P,)` int64.

    Raises:
        ValueError: a prompt cannot be used.
    """
    objects = {name: _objects_of_images(name, value, len(image_sizes)) for name, value in prompts.items()}
    rows = [  # (argument, image, index, prompt), image by image
        (name, image, index, prompt)
        for image in range(len(image_sizes))
        for name in VISUAL_PROMPTS
        if name in objects
        for index, prompt in enumerate(objects[name][image])
    ]
    drawn = np.zeros((len(rows), *padded_size), dtype=bool)
    for row, (name, image, index, prompt) in enumerate(rows):
        height, width = resized_sizes[image]
        try:
            pixels = VISUAL_PROMPTS[name].draw(plain_prompt(name, prompt), image_sizes[image], resized_sizes[image])
        except ValueError as error:
            raise ValueError(f"{name}: image {image}, object {index}: {error}") from None
        drawn[row, :height, :width] = pixels
    return {
        "prompt_masks": drawn,
        "prompt_types": np.array([VISUAL_PROMPTS[name].number for name, *_ in rows], dtype=np.int64),
        "prompt_image_indices": np.array([image for _, image, *_ in rows], dtype=np.int64),
    }


def _sentences_of_images(expressions: Any, num_images: int) -> list[list[str]]:
    """Returns one list of sentences per image; for one image a sentence or one list is accepted."""
    if isinstance(expressions, str) and num_images == 1:
        expressions = [expressions]
    if num_images == 1 and _is_list(expressions) and not any(map(_is_list, expressions)):
        expressions = [expressions]
    if not _is_list(expressions) or len(expressions) != num_images:
        raise ValueError(
            f"expressions must be one list of sentences for each of {num_images} images, got {expressions!r}"
        )
    return [
        _checked_texts(f"expressions: image {image}", sentences, may_be_empty=True)
        for image, sentences in enumerate(expressions)
    ]


def _objects_of_images(name: str, value: Any, num_images: int) -> list[list]:
    """Returns one list of objects per image; the outer list is added where it was left out."""
    if num_images == 1 and _axes(value) != VISUAL_PROMPTS[name].axes + 2:
        value = [value]
    form = f"{name} must be one list of objects for each of {num_images} images, {VISUAL_PROMPTS[name].form}"
    if not _is_list(value) or len(value) != num_images or not all(map(_is_list, value)):
        raise ValueError(f"{form}; got {_shape(value)}")
    if not any(len(objects) for objects in value):
        raise ValueError(f"{name} is empty: pass at least one object")
    return [list(objects) for objects in value]


def _axes(value: Any) -> int:
    """Counts how deep lists and arrays are nested; a number has 0 axes, a picture 2."""
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.ndim
    if isinstance(value, Image.Image):
        return 2
    if isinstance(value, Mapping):  # a box, or a result
        return 1
    if isinstance(value, (list, tuple)):
        return 1 + max(map(_axes, value), default=0)
    return 0


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim > 0)


def _shape(value: Any) -> str:
    """Describes a value in an error."""
    return f"{len(value)} items, {_axes(value)} levels deep" if _is_list(value) else type(value).__name__


def _checked_texts(name: str, texts: Any, may_be_empty: bool = False) -> list[str]:
    """Returns a flat list of strings; raises ValueError for other values."""
    if isinstance(texts, str) or not isinstance(texts, (list, tuple)):
        raise ValueError(f"{name} must be a list of strings, got {type(texts).__name__}")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{name}: item {index} must be a string, got {type(text).__name__}")
    if not texts and not may_be_empty:
        raise ValueError(f"{name} is empty: pass at least one")
    return list(texts)


class LabelCache:
    """
    Caches the text embeddings of the `capacity` lists of labels that were used last.

    So a list is encoded once, and not once for each image.

    It doesn't notice when weights change: after training or loading others, call `clear`. It is not thread-safe.

    Args:
        capacity: number of lists, at least 1.

    Raises:
        ValueError: `capacity` is less than 1.
    """

    def __init__(self, capacity: int = CAPACITY):
        if capacity < 1:
            raise ValueError(f"`capacity` must be at least 1, not {capacity!r}.")
        self.capacity = capacity
        self._embeddings: OrderedDict[tuple[str, ...], dict[str, torch.Tensor]] = OrderedDict()

    def get(self, labels: Sequence[str], encode: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """
        Returns the embeddings of a list of labels.

        Args:
            labels: the list; the order of labels matters.
            encode: makes the embeddings if they are not cached.
        """
        key = tuple(labels)
        if key not in self._embeddings:
            self._embeddings[key] = encode()
        self._embeddings.move_to_end(key)
        while len(self._embeddings) > self.capacity:
            self._embeddings.popitem(last=False)
        return self._embeddings[key]

    def clear(self) -> None:
        """Empties the cache."""
        self._embeddings.clear()

    def __len__(self) -> int:
        return len(self._embeddings)

    def __contains__(self, labels: object) -> bool:
        return isinstance(labels, (list, tuple)) and tuple(labels) in self._embeddings
