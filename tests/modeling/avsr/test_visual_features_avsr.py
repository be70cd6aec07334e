"""Vectors of the lips that were computed before, in place of the mouth crops."""

import pytest
import torch

LIPS = ("pixel_values_videos", "video_attention_mask")


@pytest.fixture
def inputs(model, batch):
    if model.config.modality == "audio":
        pytest.skip("the model doesn't read lips")
    return {name: value for name, value in batch.items() if name != "labels"}


@torch.no_grad()
def test_the_encoder_takes_vectors_of_the_lips_in_place_of_the_crops(model, inputs):
    encoder = model.get_encoder()
    whole = encoder(**inputs)
    crops, mask = (inputs[name] for name in LIPS)
    features = encoder.visual_front_end(crops, mask.bool())
    rest = {name: value for name, value in inputs.items() if name != "pixel_values_videos"}
    noisy = torch.where(mask[..., None].bool(), features, 7.0)  # what is at padded frames is ignored
    again = encoder(**rest, visual_features=noisy)
    assert torch.equal(again.frame_mask, whole.frame_mask)
    valid = whole.frame_mask
    assert torch.allclose(again.last_hidden_state[valid], whole.last_hidden_state[valid], atol=1e-6)
    with pytest.raises(ValueError, match="leave one of them out"):
        encoder(**inputs, visual_features=features)


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_the_front_end_computes_only_what_is_not_known(model, inputs, share):
    front_end = model.get_encoder().visual_front_end
    crops, mask = inputs["pixel_values_videos"], inputs["video_attention_mask"].bool()
    whole = front_end(crops, mask)
    known_mask = torch.rand(mask.shape, generator=torch.Generator().manual_seed(3)) < share
    known = torch.where(known_mask[..., None], whole, 7.0)  # elsewhere anything
    rows = []
    handle = front_end.stem.register_forward_hook(lambda module, arguments, output: rows.append(len(output)))
    try:
        again = front_end(crops, mask, known, known_mask)
    finally:
        handle.remove()
    assert torch.allclose(again, whole, atol=1e-6)
    assert sum(rows) == int((mask & ~known_mask).sum())


@torch.no_grad()
def test_a_vector_depends_on_its_neighbours_within_reach(model, inputs):
    front_end = model.get_encoder().visual_front_end
    crops = inputs["pixel_values_videos"][:1].repeat(1, 2, 1, 1, 1)
    frames, place = crops.shape[1], 9
    mask = torch.ones(1, frames, dtype=torch.bool)
    before = front_end(crops, mask)[0]
    crops = crops.clone()
    crops[0, place] += 1.0
    changed = (front_end(crops, mask)[0] - before).abs().amax(dim=1) > 1e-6
    assert changed.nonzero().flatten().tolist() == [
        frame for frame in range(frames) if abs(frame - place) <= front_end.reach
    ]
