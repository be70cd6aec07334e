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
"""
The inputs of an AVSR model: mouths from the pictures of a talking face, and one call for sound, mouths and text; and
how processors and pipelines are saved with their code.
"""

import copy
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BaseImageProcessor, BatchFeature, Pipeline, ProcessorMixin
from transformers.dynamic_module_utils import custom_object_save
from transformers.processing_utils import ImagesKwargs
from transformers.utils import auto_docstring

from .clip_report_avsr import ClipReport, ReportBuilder
from .face_networks_avsr import copy_weights, offer_weights
from .landmarks_avsr import DETECTORS, LandmarkDetector, check_landmarks
from .mouth_cropping_avsr import GEOMETRIES, MouthBlock, MouthBuilder, PrecomputedLandmarks, landmark_source

logger = logging.getLogger(__name__)

FETCHING = ("cache_dir", "local_files_only", "revision", "token")  # arguments that say how files are fetched
AUTO_AVSR_MOUTH_WIDTH = 45.0  # pixels between the mouth corners of its mean face
LABEL_PADDING = -100  # labels with this value do not count in the loss


@dataclass
class MouthClip:
    """The mouth crops of one clip of T frames, from `MouthRoiImageProcessor.extract`.

    Attributes:
        mouths: `(T, roi_size, roi_size)` uint8 grey crops; black in a scene without a face, and from ten seconds after
            the face was lost until it is back.
        landmarks: `(T, 68, 2)` float32 pixels of the source picture, gaps interpolated, not smoothed; NaN where the
            crop is black.
        found: `(T,)` bool, False where the landmarks are interpolated.
        report: numbers and warnings.
    """

    mouths: np.ndarray
    landmarks: np.ndarray
    found: np.ndarray
    report: ClipReport


class MouthRoiKwargs(ImagesKwargs, total=False):
    """Arguments of `preprocess` and `from_pretrained` beyond those of every image processor."""

    roi_size: int
    mouth_width: float
    smoothing_window: int
    detect_every: int
    fps: float
    landmarks: str
    geometry: str
    grey_after_crop: bool


class MouthRoiImageProcessor(BaseImageProcessor):
    """Finds the mouth in each frame, aligns it with a mean face, cuts it out, and normalises it.

    Args:
        roi_size: side of the mouth region in pixels, as stored by data preparation.
        crop_size: side of the centre crop that the network sees.
        mouth_width: distance between the mean face's mouth corners in the region, in pixels.
        image_mean: subtracted after rescaling; the default is that of LRS2.
        image_std: divided by after that; the default is that of LRS2.
        rescale_factor: factor that 8-bit values are multiplied by.
        smoothing_window: frames over which landmarks are averaged.
        detect_every: frames between two searches for faces; in between the face is followed.
        fps: frames per second of the clips.
        landmarks: what finds faces and their landmarks where nothing else is passed: `"mesh"`, networks that come with
            the package, or `"dlib"`, of the extra `dlib`.
        geometry: how a face becomes a mouth region. `"lookhear"`: as in the paper, with this project's mean face.
            `"auto_avsr"`: as auto_avsr, VSR-ML and USR 2.0 do it: their mean face and stable points, the mean shape of
            the frames around, a region at whole pixels, black outside of the picture; `mouth_width` is 45 then.
        grey_after_crop: whether colours become grey after the warp (USR 2.0, auto_avsr) instead of before it.
    """

    model_input_names = ["pixel_values_videos", "video_attention_mask"]
    valid_kwargs = MouthRoiKwargs
    loaded_from: tuple[str, dict[str, Any]] | None = (
        None  # checkpoint, and arguments that say how its files are fetched
    )

    def __init__(
        self,
        roi_size: int = 120,
        crop_size: int = 112,
        mouth_width: float = 60.0,
        image_mean: float = 0.4161,
        image_std: float = 0.1688,
        rescale_factor: float = 1 / 255,
        smoothing_window: int = 12,
        detect_every: int = 10,
        fps: float = 25.0,
        landmarks: str = DETECTORS[0],
        geometry: str = "lookhear",
        grey_after_crop: bool = False,
        **kwargs: Any,
    ):
        # Processors saved by earlier versions name where crops are centred; other places would need other crops.
        if (crop_center := kwargs.pop("crop_center", "mouth")) != "mouth":
            raise ValueError(
                f"crop_center is no longer an option and can only be 'mouth', got {crop_center!r}: leave it out"
            )
        super().__init__(**kwargs)
        if not 0 < crop_size <= roi_size:
            raise ValueError(f"crop_size must be between 1 and roi_size={roi_size}, got {crop_size}")
        for name, value in (("mouth_width", mouth_width), ("image_std", image_std), ("fps", fps)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        for name, value in (("smoothing_window", smoothing_window), ("detect_every", detect_every)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.roi_size = roi_size
        self.crop_size = crop_size
        self.mouth_width = mouth_width
        self.image_mean = image_mean
        self.image_std = image_std
        self.rescale_factor = rescale_factor
        self.smoothing_window = smoothing_window
        self.detect_every = detect_every
        self.fps = fps
        check_landmarks(landmarks)
        self.landmarks = landmarks
        if geometry not in GEOMETRIES:
            raise ValueError(f"geometry must be one of {GEOMETRIES}, got {geometry!r}")
        if geometry == "auto_avsr" and mouth_width != AUTO_AVSR_MOUTH_WIDTH:
            raise ValueError(f"mouth_width must be {AUTO_AVSR_MOUTH_WIDTH} with geometry='auto_avsr': leave it out")
        self.geometry = geometry
        self.grey_after_crop = grey_after_crop

    @classmethod
    def auto_avsr(cls, **kwargs: Any) -> "MouthRoiImageProcessor":
        """Returns the processor of auto_avsr and USR 2.0: regions of 96 pixels, of which 88 are seen.

        Args:
            kwargs: arguments with other values.
        """
        published = {
            "roi_size": 96,
            "crop_size": 88,
            "mouth_width": AUTO_AVSR_MOUTH_WIDTH,
            "image_mean": 0.421,
            "image_std": 0.165,
            "geometry": "auto_avsr",
            "grey_after_crop": True,
        }
        return cls(**{**published, **kwargs})

    @classmethod
    def vsr_ml(cls, **kwargs: Any) -> "MouthRoiImageProcessor":
        """Returns the processor of VSR-ML: as auto_avsr's, but frames become grey before the warp.

        Args:
            kwargs: arguments with other values.
        """
        return cls.auto_avsr(**{"grey_after_crop": False, **kwargs})

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the base class lists its arguments
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> "MouthRoiImageProcessor":
        """Loads the processor of a checkpoint, from which the networks for `landmarks="mesh"` may be read later.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            kwargs: of the base class's method; settings with other values.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        fetching = {name: value for name, value in kwargs.items() if name in FETCHING and value is not None}
        processor = loaded[0] if isinstance(loaded, tuple) else loaded  # a tuple with `return_unused_kwargs`
        processor.loaded_from = (os.fspath(pretrained_model_name_or_path), fetching)
        offer_weights(pretrained_model_name_or_path, **fetching)
        return loaded

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings, without the place that they were loaded from."""
        return {name: value for name, value in super().to_dict().items() if name != "loaded_from"}

    # ------------------------------------------------------------------------------------------ frames -> mouths

    def extract(
        self,
        frames: Iterable[np.ndarray],
        landmarks: np.ndarray | PrecomputedLandmarks | LandmarkDetector | str | None = None,
        fps_in: float | None = None,
        warnings: Sequence[str] = (),
    ) -> MouthClip:
        """Cuts the mouth out of every frame. Frames are taken one at a time, and none is stored.

        Args:
            frames: `(height, width, 3)` uint8 RGB pictures at `fps` frames per second, any sizes, any number.
            landmarks: `(T, 68, 2)` points, rows of NaN where there is no face; or such points read from a file; or a
                detector, or its name; None for the one of the setting `landmarks`.
            fps_in: frame rate of the source, for the report.
            warnings: sentences for the report, such as those of `probe_media`.

        Raises:
            ValueError: a frame is not a picture, `landmarks` has another shape or is no detector's name.
        """
        landmarks = self.landmarks if landmarks is None else landmarks
        builder = MouthBuilder(self, landmark_source(landmarks, self.fps, self.detect_every))
        report, blocks = ReportBuilder(self.mouth_width, self.fps), [MouthBlock.empty(self.roi_size)]
        for block in builder.build(map(_as_picture, frames)):
            report.add(block.mouths, block.points, block.found, block.outside, block.cuts, block.lips)
            blocks.append(block)
        mouths, points, found = (
            np.concatenate(parts) for parts in zip(*((block.mouths, block.points, block.found) for block in blocks))
        )
        clip = MouthClip(mouths, points, found, report.finish(builder.counts, builder.switches, fps_in))
        clip.report.warn([*builder.warnings(), *warnings])
        return clip

    # ------------------------------------------------------------------------------------------ mouths -> tensors

    def __call__(  # type: ignore[override]  # the base class's argument is `images`, that of clips `videos`
        self, videos: Any, *args: Any, **kwargs: Any
    ) -> BatchFeature:
        """Calls `preprocess`."""
        return self.preprocess(videos, *args, **kwargs)

    def preprocess(self, videos: Any, return_tensors: str | None = "pt", **kwargs: Any) -> BatchFeature:
        """Makes the network's input of one clip or of a list of clips.

        Args:
            videos: a clip is `(T, roi_size, roi_size)` or `(T, crop_size, crop_size)` uint8 mouths, a `MouthClip`, or
                pictures `(T, height, width, 3)` uint8 or any iterable of `(height, width, 3)`, which are extracted
                first.
            return_tensors: "pt", "np" or None.

        Returns:
            `pixel_values_videos` `(B, T, 1, crop_size, crop_size)` float32, zero where a clip is shorter than the
            longest, and `video_attention_mask` `(B, T)` int64, 1 for frames. A clip without frames has a row of zeros.
        """
        mouths = [self._mouths(clip) for clip in _as_clips(videos)]
        if not mouths:
            raise ValueError("videos is an empty list: pass at least one clip")
        longest = max(1, *(len(clip) for clip in mouths))
        values = np.zeros((len(mouths), longest, 1, self.crop_size, self.crop_size), dtype=np.float32)
        mask = np.zeros((len(mouths), longest), dtype=np.int64)
        for row, clip in enumerate(mouths):
            values[row, : len(clip), 0] = self.normalize_mouths(clip)
            mask[row, : len(clip)] = 1
        data = {"pixel_values_videos": values, "video_attention_mask": mask}
        return BatchFeature(data=data, tensor_type=return_tensors)

    def normalize_mouths(self, mouths: np.ndarray) -> np.ndarray:
        """Crops to the centre, rescales and normalises.

        Args:
            mouths: `(T, roi_size, roi_size)` or `(T, crop_size, crop_size)` uint8.

        Returns:
            `(T, crop_size, crop_size)` float32.
        """
        edge = (mouths.shape[-1] - self.crop_size) // 2
        inner = mouths[:, edge : edge + self.crop_size, edge : edge + self.crop_size].astype(np.float32)
        return (inner * self.rescale_factor - self.image_mean) / self.image_std

    def _mouths(self, clip: Any) -> np.ndarray:
        """Returns any kind of clip as (T, roi or crop, same) uint8."""
        if isinstance(clip, MouthClip):
            clip = clip.mouths
        if isinstance(clip, torch.Tensor):
            clip = clip.cpu().numpy()
        if isinstance(clip, np.ndarray) and clip.ndim == 3:
            sides = (self.roi_size, self.crop_size)
            if clip.dtype != np.uint8 or clip.shape[1] != clip.shape[2] or clip.shape[1] not in sides:
                raise ValueError(
                    f"videos: mouths must be (frames, {self.roi_size}, {self.roi_size}) uint8, got {clip.shape} "
                    f"{clip.dtype}; pictures have three channels, (frames, height, width, 3)"
                )
            return clip
        if isinstance(clip, (str, bytes, dict)) or not isinstance(clip, Iterable):
            raise ValueError(
                f"videos: a clip must be an array or an iterable of pictures, got {type(clip).__name__}; read a file "
                "with `read_frames` first"
            )
        extracted = self.extract(clip)
        if len(extracted.found) and not extracted.found.any():
            raise ValueError(
                f"videos: no face was found in the {len(extracted.found)} pictures of a clip, so there are no lips to "
                "read"
            )
        return extracted.mouths


def _as_clips(videos: Any) -> list[Any]:
    """Returns one clip or several, as a list of clips."""
    if isinstance(videos, (list, tuple)):
        if videos and np.ndim(videos[0]) == 3 and np.shape(videos[0])[-1] == 3:
            return [videos]  # a list of (height, width, 3) pictures is one clip
        return list(videos)
    if isinstance(videos, (np.ndarray, torch.Tensor)) and videos.ndim == 5:
        return list(videos)
    return [videos]


def _as_picture(frame: Any) -> np.ndarray:
    """Returns a frame as (height, width, 3) uint8; raises ValueError where it is none."""
    if isinstance(frame, torch.Tensor):
        frame = frame.cpu().numpy()
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise ValueError(f"a frame must be (height, width, 3) uint8 RGB, got {frame.shape} {frame.dtype}")
    return frame


# ---------------------------------------------------------------------------------------------- sound, mouths and text


@auto_docstring(
    custom_intro="""
    One call for the inputs of an AVSR model: [`AvsrFeatureExtractor`] for sound, [`MouthRoiImageProcessor`] for video,
    [`AvsrTokenizer`] for text.
    """
)
class AvsrProcessor(ProcessorMixin):
    def __init__(self, feature_extractor, image_processor, tokenizer, **kwargs):
        super().__init__(feature_extractor, image_processor, tokenizer, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """
        Saves the parts, and the face networks if the image processor finds mouths with them.

        Args:
            save_directory (`str` or `os.PathLike`):
                Folder, which is created if missing.
            push_to_hub (`bool`, *optional*, defaults to `False`):
                Whether all of it is uploaded as well, to `repo_id`, by default the folder's name.
            kwargs:
                Of `push_to_hub`.
        """
        super().save_pretrained(save_directory)
        if self.image_processor.landmarks == "mesh":
            try:
                copy_weights(save_directory)
            except ImportError as error:
                logger.warning(f"saved without the networks that find faces. {error}")
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)

    @auto_docstring
    def __call__(
        self,
        audio=None,
        sampling_rate: int | None = None,
        videos=None,
        text: str | list[str] | None = None,
        padding: bool | str = True,
        return_tensors: str | None = "pt",
        **kwargs,
    ) -> BatchFeature:
        """
        Args:
            audio (`np.ndarray`, `torch.Tensor`, or a list of them):
                `(samples,)`, one channel. In a list, `None` stands for a clip without sound.
            sampling_rate (`int`): of `audio`; must be the feature extractor's.
            videos (`np.ndarray`, `torch.Tensor`, or a list of them):
                Mouth crops `(frames, roi, roi)` uint8, or frames `(frames, height, width, 3)` uint8 at the image
                processor's rate. In a list, `None` stands for a clip without pictures.
            text (`str` or list of `str`): the labels.

        Returns:
            `BatchFeature` with the requested inputs: `input_values` and `attention_mask` `(batch, samples)`,
            `pixel_values_videos` `(batch, frames, 1, height, width)` and `video_attention_mask` `(batch, frames)`,
            `labels` `(batch, length)`, padded with -100. An absent modality has a mask row of zeros.

        Raises:
            ValueError: nothing was passed, the numbers of items differ, or an item is unusable.
        """
        if kwargs:
            raise ValueError(f"Unknown argument {', '.join(map(repr, kwargs))} of {type(self).__name__}.")
        features: dict = {}
        if audio is not None:
            features.update(self._sound(audio, sampling_rate, padding, return_tensors))
        if videos is not None:
            features.update(self._pictures(videos, return_tensors))
        if text is not None:
            features["labels"] = self._labels(text, padding, return_tensors)
        if not features:
            raise ValueError("Nothing to process: pass at least one of `audio`, `videos` and `text`.")
        sizes = {name: len(value) for name, value in features.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"`audio`, `videos` and `text` must have equally many items, but the sizes are {sizes}.")
        return BatchFeature(features)

    def _sound(self, audio, sampling_rate: int | None, padding: bool | str, return_tensors: str | None) -> dict:
        """Returns `input_values` and `attention_mask`; nothing where the list holds only `None`."""
        waves, present = _fill_absent(audio, np.zeros(1, np.float32))
        if not present.any():
            return {}
        features = self.feature_extractor(
            waves, sampling_rate=sampling_rate, padding=padding, return_tensors=return_tensors
        )
        return _clear_absent(features, present, "input_values", "attention_mask")

    def _pictures(self, videos, return_tensors: str | None) -> dict:
        """Returns `pixel_values_videos` and `video_attention_mask`; nothing where the list holds only `None`."""
        size = self.image_processor.roi_size
        clips, present = _fill_absent(videos, np.zeros((1, size, size), np.uint8))
        if not present.any():
            return {}
        features = self.image_processor(clips, return_tensors=return_tensors)
        return _clear_absent(features, present, "pixel_values_videos", "video_attention_mask")

    def _labels(self, text: str | list[str], padding: bool | str, return_tensors: str | None):
        """Returns `(batch, length)` ids that end with EOS, padded with -100."""
        texts = [text] if isinstance(text, str) else list(text)
        encoded = self.tokenizer(texts, padding=padding, return_attention_mask=True, return_tensors=return_tensors)
        ids, masks = encoded["input_ids"], encoded["attention_mask"]
        if isinstance(ids, list):
            return [[i if valid else LABEL_PADDING for i, valid in zip(*row)] for row in zip(ids, masks)]
        ids[masks == 0] = LABEL_PADDING
        return ids

    @property
    def model_input_names(self) -> list[str]:
        return ["input_values", "attention_mask", "pixel_values_videos", "video_attention_mask"]


def _fill_absent(items, placeholder: np.ndarray) -> tuple[list | object, np.ndarray]:
    """Returns the items with each `None` replaced by the placeholder, and which were there: `(batch,)` bool."""
    if not isinstance(items, (list, tuple)):
        return items, np.ones(1, bool)
    present = np.array([item is not None for item in items], bool)
    if len(items) == 0:
        raise ValueError("The list of clips is empty: pass at least one.")
    return [placeholder if item is None else item for item in items], present


def _clear_absent(features: BatchFeature, present: np.ndarray, values: str, mask: str) -> dict:
    """Returns the rows of absent items set to zero, both values and mask."""
    if not present.all():
        for index in np.flatnonzero(~present):
            features[values][index] *= 0
            features[mask][index] *= 0
    return {values: features[values], mask: features[mask]}


# ------------------------------------------------------------------------------------------------------------ saving


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
