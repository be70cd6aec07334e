"""Mean colours of what masks show."""

import math

import pytest
import torch

from lookhear.processing.glee.track_state_glee import SPREAD, colour_agreement, mask_colours, mixed_colours

UNKNOWN = torch.full((1, 3), torch.nan)


def test_mean_colours_of_masks():
    """A picture of three stripes under masks of a quarter of its size: of one stripe, of two, of nothing."""
    colours = torch.tensor([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0], [-2.0, 1.0, 1.0]])
    picture = colours.T[:, None].repeat_interleave(torch.tensor([8, 8, 16]), dim=2).expand(3, 16, 32)
    masks = torch.full((3, 4, 8), -5.0)
    masks[0, 1:3, :2] = masks[1, :, :4] = 0.1
    found = mask_colours(picture, masks)
    assert torch.allclose(found[0], colours[0]) and torch.allclose(found[1], colours[:2].mean(dim=0))
    assert found[2].isnan().all()
    assert torch.equal(mask_colours(picture.bfloat16(), masks.bfloat16()).nan_to_num(), found.nan_to_num())


def test_what_is_around_hardly_gets_in():
    """A square whose edges run through cells: only those count whose middles it covers."""
    picture = torch.zeros(3, 32, 32)
    picture[:, 11:21, 11:21] = 1.0
    masks = torch.full((1, 8, 8), -5.0)
    masks[0, 3:5, 3:5] = 5.0
    assert torch.allclose(mask_colours(picture, masks), torch.ones(1, 3))


def test_agreement():
    colours = torch.tensor([[0.0, 0.0, 0.0], [3 * SPREAD, 0.0, 4 * SPREAD]])
    found = colour_agreement(colours, torch.cat((colours, colours[:1] + torch.tensor([0.0, SPREAD, 0.0]), UNKNOWN)))
    assert found[0, :3].tolist() == pytest.approx([1.0, math.exp(-12.5), math.exp(-0.5)])
    assert found[1, 1] == 1 and found[:, 3].isnan().all()
    assert colour_agreement(UNKNOWN, colours).isnan().all()


def test_mixing():
    old, new = torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[2.0, 1.0, 0.0]])
    share = torch.tensor([[0.25]])
    assert mixed_colours(old, new, share).tolist() == [[1.25, 1.0, 0.75]]
    assert torch.equal(mixed_colours(old, UNKNOWN, share), old)
    assert torch.equal(mixed_colours(UNKNOWN, new, share), new)
    assert mixed_colours(UNKNOWN, UNKNOWN, share).isnan().all()
