"""The whole of GLEE against the published code: every intermediate, every prediction, for every kind of prompt."""

from __future__ import annotations

from collections import defaultdict
from copy import deepcopy

import pytest
import torch

from lookhear import GleeForObjectDetection
from lookhear.modeling.glee.attention_glee import GleeEarlyFusion

pytestmark = pytest.mark.parity
PROMPT_TYPES = {"mask": 0, "box": 1, "point": 2, "scribble": 3}


@pytest.fixture(scope="module")
def model(stored_model) -> GleeForObjectDetection:
    return stored_model()


@pytest.fixture
def seen(model):
    """What goes into and comes out of the parts: name -> one entry for each call."""
    calls: dict[str, list] = defaultdict(list)
    glee = model.model
    parts = {"text_encoder.clip": glee.text_encoder.clip, "fusion": glee.pixel_decoder.fusion}
    parts |= {"backbone": glee.backbone, "pixel_decoder": glee.pixel_decoder, "proposals.norm": glee.proposals.norm}
    parts |= {f"projection.{i}": part for i, part in enumerate(glee.pixel_decoder.input_projections)}
    parts |= {f"encoder.{i}": part for i, part in enumerate(glee.pixel_decoder.layers)}
    parts |= {f"decoder.{i}": part for i, part in enumerate(glee.decoder.layers)}
    handles = [
        part.register_forward_hook(lambda _, args, out, name=name: calls[name].append((args, out)))
        for name, part in parts.items()
    ]
    yield calls
    for handle in handles:
        handle.remove()


@torch.no_grad()
def run(model, **inputs):
    """Predictions, and the base model's output, of one request."""
    return model(**inputs), model.model(**inputs)


def visual_inputs(stored) -> dict[str, torch.Tensor]:
    """The request of a `visual_*` file, the drawn pixels included."""
    images = len(stored["in.pixel_values"])
    if "in.prompt_mask" in stored:
        masks, suffixes = stored["in.prompt_mask"], [""]
    else:
        suffixes = [f".{index}" for index in range(images)]
        masks = torch.cat([stored[f"in.prompt_mask{suffix}"] for suffix in suffixes])
    draws = [[stored[f"in.sampled_points.level{level}{suffix}"] for level in range(4)] for suffix in suffixes]
    points = torch.full((images, 4, max(len(draw[0]) for draw in draws), 2), -1.0)
    for row, draw in zip(points, draws):
        for level, drawn in enumerate(draw):
            row[level, : len(drawn)] = drawn
    kind = PROMPT_TYPES[stored.facts.get("prompt", "mask")]
    return {
        "pixel_values": stored["in.pixel_values"],
        "prompt_masks": masks,
        "prompt_types": torch.full((images,), kind),
        "prompt_points": points,
    }


def align(stored, base) -> torch.Tensor:
    """Our queries in the order of the stored ones, `(rows, queries)`: equally good pixels may change places."""
    if "two_stage.topk_index" not in stored:
        return torch.arange(base.proposal_indices.shape[1]).expand_as(base.proposal_indices)
    wanted = stored["two_stage.topk_index"]
    equal = wanted[:, :, None] == base.proposal_indices[:, None]  # (rows, stored queries, our queries)
    assert equal.any(dim=2).all(), "other pixels were chosen"
    return equal.int().argmax(dim=2)


def permute(value: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return torch.stack([row[index] for row, index in zip(value, order)])


def check_predictions(stored, output, base) -> None:
    order = align(stored, base)
    stages = {"": {**output, "confidence": output.confidence}, "interm.": output.proposal_outputs}
    stages |= {f"aux.{index}.": auxiliary for index, auxiliary in enumerate(output.auxiliary_outputs)}
    names = {"pred_logits": "logits", "pred_boxes": "pred_boxes", "pred_masks": "pred_masks"}
    compared = 0
    for prefix, predictions in stages.items():
        for name, ours in names.items():
            if prefix + name in stored:
                stored.compare(prefix + name, permute(predictions[ours], order))
                compared += 1
        if f"{prefix}pred_scores" in stored:
            stored.compare(f"{prefix}pred_scores", permute(predictions["confidence"], order)[..., None])
            compared += 1
    if "pred_track_embed" in stored:
        stored.compare("pred_track_embed", permute(output.track_embeddings, order))
    assert compared >= 2
    if "interm.pred_logits" in stored:
        assert compared == 4 + 3 * (len(stages) - 1)


def check_encoder(stored, seen, model, base) -> None:
    for index, (_, out) in enumerate(seen["backbone"][:2]):
        for level, feature_map in enumerate(out.feature_maps):
            name = f"backbone{f'#{index}' if index else ''}.res{level + 2}"
            if name in stored:
                stored.compare(name, feature_map)
    for level in range(4):
        stored.compare(f"input_proj.{level}", seen[f"projection.{level}"][0][1])
    (pixels, text, *_), (fused, _) = seen["fusion"][0]
    rows = len(pixels)
    stored.compare("fusion_in.v", pixels)
    stored.compare("fusion_in.l", text.expand(rows, -1, -1))
    stored.compare("fusion_out.visual", fused)
    stored.compare("fusion_out.lang", fused_text(model, pixels, text))
    index = 0
    while f"encoder_layer.{index}" in stored:
        stored.compare(f"encoder_layer.{index}", seen[f"encoder.{index}"][0][1])
        index += 1
    if "pixel_decoder.mask_features" in stored:
        assert index == model.config.encoder_layers
        stored.compare("pixel_decoder.mask_features", base.mask_features)
        for level, feature_map in enumerate(base.feature_maps):
            stored.compare(f"pixel_decoder.multi_scale.{level}", feature_map)


@torch.no_grad()
def fused_text(model, pixels: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """The branch that the published model computes and throws away."""
    config = deepcopy(model.config)
    config.discard_fused_text = False
    fusion = GleeEarlyFusion(config).eval()
    fusion.load_state_dict(model.model.pixel_decoder.fusion.state_dict())
    return fusion(pixels, text)[1]


@torch.no_grad()
def check_decoder(stored, seen, model, base) -> None:
    order = align(stored, base)
    stored.compare("two_stage.output_memory", seen["proposals.norm"][0][1])
    chosen = permute(seen["proposals.norm"][0][1], base.proposal_indices)
    assert torch.equal(chosen, base.proposal_states)
    raw = [seen[f"decoder.{index}"][0][1] for index in range(model.config.decoder_layers)]
    references = [seen[f"decoder.{index}"][0][0][3] for index in range(model.config.decoder_layers)]
    references.append(model.model.heads.refined_boxes(raw[-1], references[-1]))
    for index, states in enumerate(raw):
        stored.compare(f"decoder_layer_raw.{index}", permute(states, order).transpose(0, 1))
        stored.compare(f"decoder_hs.{index}", permute(base.layer_states[index], order))
    for index, boxes in enumerate(references):
        stored.compare(f"decoder_reference.{index}", permute(boxes, order))


def test_detection(glee, model, seen):
    stored = glee("detection")
    ids, mask = stored["in.input_ids"], stored["in.attention_mask"]
    output, base = run(model, pixel_values=stored["in.pixel_values"], input_ids=ids, attention_mask=mask)
    stored.compare("text_student", seen["text_encoder.clip"][0][1].last_hidden_state)
    with torch.no_grad():
        stored.compare("text_teacher", model.model.text_teacher(ids, mask).last_hidden_state)
    stored.compare("extra.class_embeddings", base.class_embeddings[0])
    check_encoder(stored, seen, model, base)
    check_decoder(stored, seen, model, base)
    check_predictions(stored, output, base)


def test_detection_with_short_and_kept_labels(glee, model):
    """Labels cut to their longest, or embedded once, score as padded ones."""
    stored = glee("detection")
    ids, mask = stored["in.input_ids"], stored["in.attention_mask"]
    longest = int(mask.sum(dim=1).max())
    with torch.no_grad():
        kept = model.get_label_embeddings(ids[:, :longest], mask[:, :longest])
    output, base = run(model, pixel_values=stored["in.pixel_values"], **kept)
    check_predictions(stored, output, base)


def test_grounding(glee, model, seen):
    stored = glee("grounding")
    ids, mask = stored["in.input_ids"], stored["in.attention_mask"]
    inputs = {"expression_input_ids": ids, "expression_attention_mask": mask}
    output, base = run(model, pixel_values=stored["in.pixel_values"], **inputs)
    stored.compare("text_student", seen["text_encoder.clip"][0][1].last_hidden_state)
    stored.compare("extra.grounding_class", base.class_embeddings[:, 0])
    tokens = seen["decoder.0"][0][0][5]
    stored.compare("extra.grounding_tokens", tokens.transpose(0, 1))
    check_encoder(stored, seen, model, base)
    check_decoder(stored, seen, model, base)
    check_predictions(stored, output, base)


def test_open_world(glee, glee_folder, model):
    stored, other = glee("openworld"), glee("visual_box")
    config = deepcopy(model.config)
    config.num_queries = stored.facts["num_queries"]
    wide = GleeForObjectDetection(config).eval()
    wide.load_state_dict(model.state_dict())
    ids, mask = other["in.input_ids"], other["in.attention_mask"]  # "object"
    output, base = run(wide, pixel_values=stored["in.pixel_values"], input_ids=ids, attention_mask=mask)
    stored.compare("pred_logits", output.logits)
    stored.compare("pred_boxes", output.pred_boxes)


@pytest.mark.parametrize("name", ["visual_box", "visual_point", "visual_scribble", "visual_mask", "visual_batch2"])
def test_visual_prompts(glee, model, seen, name):
    stored, box = glee(name), glee("visual_box")
    inputs = visual_inputs(stored)
    output, base = run(model, **inputs, input_ids=box["in.input_ids"], attention_mask=box["in.attention_mask"])
    (_, text, *_), _ = seen["fusion"][0]
    tokens = text.shape[1] - stored.shapes["template.feats"][1]
    stored.compare("template.feats", text[:, tokens:])
    present = inputs["prompt_points"][:, 0, :, 0] >= 0
    with torch.no_grad():
        prompts = model.model.visual_prompter.pixel_tokens(list(base.feature_maps), inputs["prompt_points"])
    for level, ours in enumerate(prompts):
        assert torch.equal(stored[f"extra.visual_prompt_nonzero_mask.{level}"], ~present)
        if present.all():
            stored.compare(f"extra.visual_prompt_tokens.{level}", ours.transpose(0, 1))
    check_predictions(stored, output, base)
    if name == "visual_box":
        stored.compare("extra.class_embeddings", base.class_embeddings[0])
        check_encoder(stored, seen, model, base)
        check_decoder(stored, seen, model, base)
    if "post.query_by_logit" in stored:
        order = align(stored, base)
        assert permute(output.logits[..., 0], order).argmax(dim=1).tolist() == stored["post.query_by_logit"].tolist()
        confidence = permute(output.confidence, order)
        assert confidence.argmax(dim=1).tolist() == stored["post.query_by_confidence"].tolist()
