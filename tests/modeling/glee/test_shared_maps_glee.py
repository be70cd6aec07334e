"""Visual prompts on maps that they share: what `forward` finds without their crops in the early fusion."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lookhear.modeling.glee import GleeConfig, GleeForObjectDetection
from lookhear.modeling.glee.decoder_glee import by_image
from lookhear.modeling.glee.visual_prompts_glee import GleePromptTokens


def drawn(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    masks = torch.zeros(len(boxes), 64, 96, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes):
        mask[y0:y1, x0:x1] = True
    return masks


@pytest.fixture(scope="module")
def asked(tiny_glee):
    """Two images of noise, three objects marked in the first, the maps of both and what the prompts mark."""
    model, images = tiny_glee[0], torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    masks = drawn((5, 5, 20, 30), (40, 10, 43, 12), (60, 20, 96, 64))
    with torch.no_grad():
        label = model.get_label_embeddings(torch.tensor([[512, 40, 513]]), torch.ones(1, 3, dtype=torch.long))
        features = model.get_image_features(images)
        maps = model.base_model.get_shared_maps(features, **label)
        tokens = [model.base_model.get_prompt_tokens(maps.of_images([0]), mask[None]) for mask in masks]
    return model, images, masks, dict(label), maps, GleePromptTokens.joined(tokens)


@pytest.mark.parametrize("twice_normed", [False, True])
def test_each_row_is_that_of_a_pass_for_itself(asked, monkeypatch, twice_normed):
    model, images, masks, label, maps, tokens = asked
    nothing = torch.zeros(len(masks) * 2, 0, model.config.hidden_size)
    monkeypatch.setattr(model.model.visual_prompter, "template", lambda *given: nothing)
    monkeypatch.setattr(model.config, "double_decoder_norm", twice_normed)
    with torch.no_grad():
        found = model.base_model.find_on_maps(maps, tokens)
        expected = model(
            images,
            **label,
            prompt_masks=torch.cat((masks, torch.zeros_like(masks))),
            prompt_types=torch.zeros(6, dtype=torch.long),
            prompt_image_indices=torch.tensor([0, 0, 0, 1, 1, 1]),
            prompt_sources=torch.tensor([0, 1, 2, 0, 1, 2]),
        )
    for name in ("logits", "confidence", "pred_boxes", "pred_masks", "track_embeddings"):
        assert found[name].shape == expected[name].shape
        torch.testing.assert_close(found[name], expected[name], atol=2e-4, rtol=1e-4)
    assert (found.track_embeddings[0] - found.track_embeddings[1]).abs().max() > 1e-3  # the prompts count


def test_the_best_queries_alone(asked):
    model, _, _, _, maps, tokens = asked
    with torch.no_grad():
        every, best = (model.base_model.find_on_maps(maps, tokens, count) for count in (None, 4))
    for row in range(6):
        chosen = every.logits[row, :, 0].topk(4).indices
        for name in ("logits", "pred_boxes", "pred_masks", "track_embeddings"):
            torch.testing.assert_close(best[name][row], every[name][row][chosen], atol=1e-4, rtol=1e-4)


def test_the_best_proposals_alone(asked, monkeypatch):
    """As in a model that has no more queries."""
    model, _, _, _, maps, tokens = asked
    with torch.no_grad():
        found = model.base_model.find_on_maps(maps, tokens, decoded=3)
        monkeypatch.setattr(model.config, "num_queries", 3)
        expected = model.base_model.find_on_maps(maps, tokens)
    assert found.logits.shape[:2] == (6, 3)
    for name in ("logits", "pred_boxes", "pred_masks", "track_embeddings"):
        torch.testing.assert_close(found[name], expected[name])


def test_prompts_of_different_sizes_do_not_change_each_other(asked):
    model, _, masks, _, maps, tokens = asked
    assert tokens.present.sum(dim=1).tolist() == [
        min(int(mask.sum()), model.config.max_prompt_points) for mask in masks
    ]
    with torch.no_grad():
        together = model.base_model.find_on_maps(maps, tokens)
        alone = model.base_model.get_prompt_tokens(maps.of_images([0]), masks[[1]])
        single = model.base_model.find_on_maps(maps.of_images(slice(1, None)), alone)
    torch.testing.assert_close(single.track_embeddings[0], together.track_embeddings[4], atol=1e-4, rtol=1e-4)


def test_rows_of_an_image_are_joined():
    rows = torch.arange(24).view(4, 3, 2)
    assert by_image(rows, 4) is rows
    assert by_image(rows, 2).shape == (2, 6, 2) and by_image(rows, 2)[1, 0].tolist() == [12, 13]


@pytest.mark.slow
def test_what_a_frame_costs():
    """GLEE-Lite at 512 x 512, in GFLOP: one object costs what a frame with labels costs, ten a fifth more."""
    config = GleeConfig.lite()
    with torch.device("meta"):
        model, image = GleeForObjectDetection(config), torch.zeros(1, 3, 512, 512)
        label = {"class_embeddings": torch.zeros(1, config.hidden_size)}
        label["class_tokens"] = torch.zeros(3, config.hidden_size)

    def prompts(count: int) -> GleePromptTokens:
        shape = (count, config.max_prompt_points)
        levels = [torch.zeros(*shape, config.hidden_size, device="meta") for _ in range(3)]
        return GleePromptTokens(tuple(levels), torch.ones(shape, dtype=torch.bool, device="meta"))

    def cost(run) -> float:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops() / 1e9

    def shared(count: int) -> float:
        def run():
            maps = model.base_model.get_shared_maps(model.get_image_features(image), **label)
            model.base_model.find_on_maps(maps, prompts(count), 20, 100)

        return cost(run)

    labels = cost(lambda: model(image, **label))
    costs = {count: shared(count) for count in (1, 3, 10)}
    print(f"labels {labels:.1f}, shown objects", {count: round(value, 1) for count, value in costs.items()})
    assert costs[1] <= labels and costs[10] <= 1.25 * labels
