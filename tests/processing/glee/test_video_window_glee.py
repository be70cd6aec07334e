"""What the model says of some frames, and what colours are there."""

import numpy as np
import pytest
import torch
from PIL import Image

from lookhear.modeling.glee import GleeForObjectDetection
from lookhear.processing.glee import GleeProcessor, ObjectPerceptionPipeline
from lookhear.processing.glee.video_queries_glee import FrameWindow, PreparedFrame
from lookhear.processing.glee.video_reading_glee import VideoFrame
from lookhear.training.glee.scenes.moving_scenes import MovingRecipe, make_moving_scene
from lookhear.training.glee.scenes.shapes import KINDS


@pytest.mark.parametrize("first", [0, 1])
def test_colours_are_those_of_the_frame(repository, first):
    """
    Each good candidate has the mean colour of what it shows, in its own frame.

    The second frame is the first one mirrored, with red and blue swapped.
    """
    card = repository / "model_cards" / "glee-tiny"
    see = ObjectPerceptionPipeline(
        GleeForObjectDetection.from_pretrained(card), processor=GleeProcessor.from_pretrained(card), device="cpu"
    )
    processor = see.processor.image_processor
    mean, spread = np.array(processor.image_mean), np.array(processor.image_std)
    still = make_moving_scene(np.random.default_rng(5), recipe=MovingRecipe(frames=1)).frame(0).image
    pictures = [Image.fromarray(np.ascontiguousarray(pixels)) for pixels in (still, still[:, ::-1, ::-1])]
    ready = [processor([picture], return_tensors="pt") for picture in pictures]
    window = FrameWindow(
        see.model,
        [
            PreparedFrame(VideoFrame(index, None, picture), one["pixel_values"], one["pixel_mask"])
            for index, (picture, one) in enumerate(zip(pictures, ready))
        ],
    )
    found = window.find_labels(see._encode_labels(tuple(KINDS)), first, 30)
    assert len(found) == 2 - first
    compared = 0
    for picture, candidates in zip(pictures[first:], found):
        assert candidates.colours.shape == (30, 3) and candidates.colours.dtype == torch.float32
        for place in (candidates.logits.amax(dim=1).sigmoid() > 0.3).nonzero()[:, 0].tolist():
            inside = window.sizes.masks(candidates.masks[[place]])[0].decode()
            expected = (np.asarray(picture)[inside].mean(axis=0) / 255 - mean) / spread
            assert candidates.colours[place].numpy() == pytest.approx(expected, abs=0.25)
            compared += 1
    assert compared >= 2 * len(found)
