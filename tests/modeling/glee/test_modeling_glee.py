"""GLEE as a model of transformers: shapes, determinism, batches, attention, precision, gradients, bad requests."""

import pytest
import torch
from transformers import ResNetConfig

from lookhear import GleeConfig, GleeForObjectDetection, GleeModel
from lookhear.modeling.glee import GleeEvaConfig, GleeSupervision
from lookhear.modeling.glee.request_glee import GleeImageFeatures, group_by_padded_size
from lookhear.modeling.glee.transformers_seam_glee import attention_kind
from lookhear.modeling.glee.visual_prompts_glee import aligned_upsample, choose_points

KINDS = ("labels", "expressions", "visual")
ROWS = {"labels": (2, 3), "expressions": (3, 1), "visual": (5, 1)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backbone", ["resnet", "swin", "eva"])
def test_outputs_are_those_of_the_design(make_model, make_inputs, backbone, kind):
    model, inputs = make_model(backbone), make_inputs(kind)
    with torch.no_grad():
        output = model(**inputs)
    rows, classes = ROWS[kind]
    stride = 8 if backbone == "eva" else 4
    assert output.logits.shape == (rows, 20, classes)
    assert output.confidence.shape == (rows, 20)
    assert output.pred_boxes.shape == (rows, 20, 4)
    assert output.pred_masks.shape == (rows, 20, 64 // stride, 96 // stride)
    assert output.track_embeddings.shape == (rows, 20, 32)
    assert all(value.isfinite().all() for value in output.values())
    assert ((output.pred_boxes >= 0) & (output.pred_boxes <= 1)).all()
    images = inputs.get("prompt_image_indices", torch.arange(2))
    assert output.image_sizes.tolist() == torch.tensor([[64, 96], [40, 56]])[images].tolist()
    assert output.padded_sizes.tolist() == [[64, 96]] * rows
    assert model(**inputs, return_dict=False)[0].shape == output.logits.shape


@pytest.mark.parametrize("kind", KINDS)
def test_same_input_same_output(model, make_inputs, kind):
    inputs = make_inputs(kind)
    with torch.no_grad():
        first, second = model(**inputs), model(**inputs)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_depend_on_what_is_asked(model, make_inputs, kind):
    inputs = make_inputs(kind)
    other = {**inputs}
    if kind == "visual":
        other["prompt_masks"] = inputs["prompt_masks"].roll(20, dims=2)
    else:
        name = "input_ids" if kind == "labels" else "expression_input_ids"
        other[name] = inputs[name].clone()
        other[name][:, 1] = (inputs[name][:, 1] + 7) % 50
    with torch.no_grad():
        first, second = model(**inputs), model(**other)
    assert (first.logits - second.logits).abs().max() > 1e-3
    assert (first.pred_boxes - second.pred_boxes).abs().max() > 1e-4


def test_prompts_find_their_image(model, make_inputs):
    """Five prompts in one call give what five calls give."""
    for kind in ("expressions", "visual"):
        inputs = make_inputs(kind)
        shared = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
        with torch.no_grad():
            together = model(**inputs)
            for row, image in enumerate(inputs["prompt_image_indices"].tolist()):
                prompt = {
                    name: value[row : row + 1]
                    for name, value in inputs.items()
                    if name not in ("pixel_values", "pixel_mask", *shared)
                }
                prompt["prompt_image_indices"] = torch.zeros(1, dtype=torch.long)
                images = {name: inputs[name][image : image + 1] for name in ("pixel_values", "pixel_mask")}
                alone = model(**images, **prompt, **shared)
                for name in ("logits", "pred_boxes", "pred_masks"):
                    torch.testing.assert_close(together[name][row], alone[name][0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("queries", [20, 100])
def test_padding_mask_makes_images_independent(make_model, make_inputs, kind, queries):
    """With 100 queries the small image has fewer pixels than queries."""
    model = make_model(padding_mask=True, num_queries=queries)
    inputs = make_inputs(kind)
    with torch.no_grad():
        together = model(**inputs)
        image = {
            "pixel_values": inputs["pixel_values"][1:, :, :64, :64],
            "pixel_mask": inputs["pixel_mask"][1:, :64, :64],
        }
        prompts, rows = dict(inputs), torch.tensor([1])
        if kind != "labels":
            rows = (inputs["prompt_image_indices"] == 1).nonzero()[:, 0]
            names = [name for name in inputs if name.startswith(("prompt", "expression"))]
            prompts.update({name: inputs[name][rows] for name in names})
            prompts["prompt_image_indices"] = torch.zeros(len(rows), dtype=torch.long)
        if kind == "visual":
            prompts["prompt_masks"] = prompts["prompt_masks"][:, :, :64]
        alone = model(**{**prompts, **image})
    count = alone.logits.shape[1]
    assert count == min(queries, 64 + 16 + 4 + 1)
    scale = torch.tensor([64 / 96, 1, 64 / 96, 1])
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(together.logits[rows, :count], alone.logits, **close)
    torch.testing.assert_close(together.confidence[rows, :count], alone.confidence, **close)
    torch.testing.assert_close(together.pred_boxes[rows, :count], alone.pred_boxes * scale, **close)
    torch.testing.assert_close(together.pred_masks[rows, :count, :, :16], alone.pred_masks, **close)
    edge = together.pred_masks[rows, :, :, 15:16].expand(-1, -1, -1, 8)
    torch.testing.assert_close(together.pred_masks[rows, :, :, 16:], edge)  # so that enlarging changes nothing
    assert (together.logits[rows, count:].sigmoid() == 0).all()
    assert together.logits.isfinite().all()


def test_a_padded_size_that_no_image_fills(make_model, make_inputs):
    """Masks cover the padded image even if its largest image belongs to another request."""
    model, inputs = make_model(padding_mask=True), make_inputs()
    small = {name: inputs[name][1:] for name in ("pixel_values", "pixel_mask")}
    with torch.no_grad():
        together, alone = model(**inputs), model(**{**inputs, **small})
    for name in ("logits", "pred_boxes", "pred_masks"):
        torch.testing.assert_close(alone[name][0], together[name][1], atol=1e-4, rtol=1e-4)


def test_padding_matters_by_default(model, make_inputs):
    """The published behaviour, which `padding_mask` turns off."""
    inputs = make_inputs()
    words = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        together = model(**inputs)
        alone = model(inputs["pixel_values"][1:, :, :64, :64], **words)
    assert (together.logits[1].amax(0) - alone.logits[0].amax(0)).abs().max() > 1e-3


def test_images_are_grouped_by_padded_size():
    mask = torch.zeros(4, 100, 130)
    for image, (height, width) in zip(mask, [(20, 70), (100, 130), (32, 96), (10, 33)]):
        image[:height, :width] = 1
    groups = [(padded, images.tolist()) for padded, images in group_by_padded_size(mask, 32)]
    assert groups == [((32, 64), [3]), ((32, 96), [0, 2]), ((100, 130), [1])]


@pytest.mark.parametrize("kind", KINDS)
def test_attention_backends_agree(make_model, make_inputs, kind):
    inputs = make_inputs(kind)
    with torch.no_grad():
        eager, sdpa = (make_model(attention=name)(**inputs) for name in ("eager", "sdpa"))
    for name in ("logits", "pred_boxes", "pred_masks"):
        torch.testing.assert_close(eager[name], sdpa[name], atol=1e-4, rtol=1e-4)


def test_attention_and_hidden_states_are_recorded(make_model, make_inputs):
    model, inputs = make_model(attention="eager"), make_inputs("expressions")
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True, output_attentions=True, output_encoder_hidden_states=True)
    assert [tuple(state.shape) for state in output.hidden_states] == [(3, 20, 32)] * 4
    torch.testing.assert_close(output.hidden_states[-1], output.track_embeddings)
    assert [tuple(weights.shape) for weights in output.attentions] == [(3, 4, 20, 20 + 77)] * 3
    assert [tuple(state.shape) for state in output.encoder_hidden_states] == [(3, 8 * 12 + 4 * 6 + 2 * 3 + 2, 32)] * 3
    hidden = inputs["expression_attention_mask"] == 0
    for weights in output.attentions:  # no query sees padding
        assert weights[..., 20:].masked_select(hidden[:, None, None]).abs().max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_runs_and_is_close(make_model, make_inputs, kind):
    inputs = make_inputs(kind)
    whole, half = make_model(num_queries=200), make_model(num_queries=200).bfloat16()  # all pixels, so none is chosen
    with torch.no_grad():
        expected = whole(**inputs)
        output = half(**{**inputs, "pixel_values": inputs["pixel_values"].bfloat16()})
    assert output.logits.dtype == torch.bfloat16
    best = expected.logits.amax(dim=1)
    assert (output.logits.float().amax(dim=1) - best).abs().max() < 0.2 * expected.logits.abs().max()


def test_gradient_checkpointing_changes_nothing(make_model, make_inputs):
    gradients = []
    for checkpointing in (False, True):
        model = make_model(fusion_dropout=0.0)
        if checkpointing:
            model.activation_checkpointing_enable()
        model.train()
        output = model(**make_inputs("expressions"))
        (output.logits.sum() + output.pred_masks.square().mean() + output.pred_boxes.sum()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 100
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-4)


def test_every_part_learns(make_model, make_inputs):
    """Labels, expressions and visual prompts together reach every weight that the published model uses."""
    model = make_model(auxiliary_outputs=True).train()
    for kind in KINDS:
        output = model(**make_inputs(kind))
        stages = [output, output.proposal_outputs, *output.auxiliary_outputs]
        names = ("logits", "confidence", "pred_boxes", "pred_masks")
        sum((stage[name].float() ** 2).mean() for stage in stages for name in names).backward()
    dead = ("fusion.pixel_value", "fusion.text_output", "fusion.text_scale", "level_projections.3", "text_teacher")
    for name, parameter in model.named_parameters():
        if not any(part in name for part in dead):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    "flag",
    [
        {"double_decoder_norm": False},
        {"proposal_scale_from_coarsest": False},
        {"fusion_attends_padding": False},
        {"discard_fused_text": False},
    ],
)
def test_every_published_behaviour_is_a_field(make_model, make_inputs, flag):
    changed = 0.0
    for kind in ("expressions", "visual"):
        with torch.no_grad():
            output, expected = make_model(**flag)(**make_inputs(kind)), make_model()(**make_inputs(kind))
        changed = max(changed, (output.logits - expected.logits).abs().max().item())
    assert changed > 1e-4


def test_padded_text_does_not_matter_when_hidden(make_model, make_inputs):
    model, inputs = make_model(fusion_attends_padding=False), make_inputs("expressions")
    short = {**inputs}
    for name in ("expression_input_ids", "expression_attention_mask"):
        short[name] = inputs[name][:, :8]
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, model(**short).logits, atol=1e-5, rtol=1e-4)


def test_label_embeddings_stand_for_labels(model, make_inputs):
    inputs = make_inputs()
    with torch.no_grad():
        expected = model(**inputs)
        kept = model.get_label_embeddings(inputs.pop("input_ids"), inputs.pop("attention_mask"))
        output = model(**inputs, **kept)
    assert torch.equal(output.logits, expected.logits)


def test_base_model_gives_what_heads_read(model, make_inputs):
    inputs = make_inputs()
    with torch.no_grad():
        base, output = model.model(**inputs), model(**inputs)
    assert type(model.model) is GleeModel
    assert torch.equal(base.last_hidden_state, output.track_embeddings)
    assert torch.equal(base.pred_boxes, output.pred_boxes)
    assert [tuple(level.shape[-2:]) for level in base.feature_maps] == [(8, 12), (4, 6), (2, 3), (1, 2)]


def test_auxiliary_outputs_cover_every_stage(make_model, make_inputs):
    with torch.no_grad():
        output = make_model(auxiliary_outputs=True)(**make_inputs())
    assert len(output.auxiliary_outputs) == 3
    for stage in (*output.auxiliary_outputs, output.proposal_outputs):
        assert stage["logits"].shape == output.logits.shape
        assert stage["pred_masks"].shape == output.pred_masks.shape


@pytest.mark.slow
def test_backbone_and_pixel_decoder_compile(make_model, make_inputs):
    model, inputs = make_model(), make_inputs()
    with torch.no_grad():
        expected = model(**inputs)
        model.model.backbone = torch.compile(model.model.backbone, backend="aot_eager")
        model.model.pixel_decoder = torch.compile(model.model.pixel_decoder, backend="aot_eager")
        output = model(**inputs)
    torch.testing.assert_close(output.logits, expected.logits, atol=1e-4, rtol=1e-4)


def test_pixel_decoder_is_one_graph(make_model, make_inputs):
    model, inputs = make_model(), make_inputs()
    with torch.no_grad():
        maps = model.model.pixel_decoder.project(model.model.backbone(inputs["pixel_values"]).feature_maps)
        text = torch.randn(1, 7, 32)
        expected = model.model.pixel_decoder(*maps, text)[0]
        output = torch.compile(model.model.pixel_decoder, backend="aot_eager", fullgraph=True)(*maps, text)[0]
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


def test_text_vocabulary_can_be_resized(make_model, make_inputs):
    model, inputs = make_model(), make_inputs()
    with torch.no_grad():
        expected = model(**inputs).logits
        model.resize_token_embeddings(70)
        assert model.config.text_config.vocab_size == 70
        assert torch.equal(model(**inputs).logits, expected)


def same_config(first, second) -> bool:
    """Alike but for what loading notes down: the folder and the weights' type."""
    plain = [config.to_dict() for config in (first, second)]
    for fields in plain:
        fields.pop("_name_or_path"), fields.pop("dtype"), fields.pop("architectures")
        for part in ("backbone_config", "text_config"):
            fields[part].pop("dtype"), fields[part].pop("_name_or_path", None)
    return plain[0] == plain[1]


@pytest.mark.parametrize("backbone", ["resnet", "swin", "eva"])
def test_save_and_load(make_model, make_inputs, tmp_path, backbone):
    model, inputs = make_model(backbone), make_inputs()
    model.save_pretrained(tmp_path)
    loaded, info = GleeForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert same_config(loaded.config, model.config)
    base = GleeModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = model(**inputs)
        assert torch.equal(loaded.eval()(**inputs).logits, expected.logits)
        assert torch.equal(base(**inputs).last_hidden_state, expected.track_embeddings)


def test_initialisation_is_the_published_one(make_config):
    torch.manual_seed(0)
    model = GleeForObjectDetection(make_config()).model
    fusion = model.pixel_decoder.fusion
    assert (fusion.pixel_scale == 0.5).all() and (fusion.text_scale == 0.5).all()  # one over the encoder's layers
    assert not model.heads.box.layers[-1].weight.any()
    attention = model.decoder.layers[0].encoder_attn
    assert not attention.sampling_offsets.weight.any() and attention.sampling_offsets.bias.any()
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name


def test_training_form_holds_a_frozen_teacher(make_config):
    config = make_config().for_training()
    model = GleeForObjectDetection(config)
    assert not any(p.requires_grad for p in model.model.text_teacher.parameters())
    assert model.model.denoising_labels["coco"].weight.shape == (80, 32)
    assert not hasattr(GleeForObjectDetection(make_config()).model, "text_teacher")


@pytest.mark.parametrize("backbone", ["resnet", "eva"])
@pytest.mark.parametrize("alone", [False, True])
def test_features_of_images_serve_every_question(make_model, make_inputs, monkeypatch, backbone, alone):
    """The backbone runs once; with `padding_mask` each image has its own padded size in the maps, too."""
    model = make_model(backbone, padding_mask=alone)
    images = {name: make_inputs()[name] for name in ("pixel_values", "pixel_mask")}
    with torch.no_grad():
        features = model.get_image_features(**images)
        assert [len(level) for level in (*features.levels, features.lateral)] == [len(images["pixel_values"])] * 5
        expected = {kind: model(**make_inputs(kind)) for kind in KINDS}
        monkeypatch.setattr(model.model, "_image_features", lambda *_: pytest.fail("the backbone ran"))
        for kind, outputs in expected.items():
            again = model(**make_inputs(kind), image_features=features)
            for name in ("logits", "pred_boxes", "pred_masks"):
                torch.testing.assert_close(again[name], outputs[name], atol=1e-5, rtol=1e-5)
        with pytest.raises(ValueError, match="image_features are those of 1 image"):
            model(**make_inputs(), image_features=features.of_images([0]))


def test_tokens_of_sentences_stand_for_them(model, make_inputs):
    inputs = make_inputs("expressions")
    with torch.no_grad():
        expected = model(**inputs)
        ids, mask = inputs.pop("expression_input_ids"), inputs["expression_attention_mask"]
        again = model(**inputs, expression_tokens=model.get_expression_tokens(ids, mask))
    torch.testing.assert_close(again.logits, expected.logits)
    torch.testing.assert_close(again.image_sizes, expected.image_sizes)
    with pytest.raises(ValueError, match="expression_attention_mask"):
        model(**make_inputs() | {"input_ids": None}, expression_tokens=torch.zeros(2, 4, 32))


def test_prompts_of_a_clip_are_read_in_its_first_frame(model, make_inputs):
    inputs = make_inputs("prompts")
    with torch.no_grad():
        own = model(**inputs)
        shown = model(**inputs, prompt_sources=torch.arange(len(inputs["prompt_masks"])))
        first = model(**inputs, prompt_sources=torch.zeros(len(inputs["prompt_masks"]), dtype=torch.long))
        inputs["prompt_masks"] = inputs["prompt_masks"].clone()
        inputs["prompt_masks"][1] = ~inputs["prompt_masks"][1]
        again = model(**inputs, prompt_sources=torch.zeros(len(inputs["prompt_masks"]), dtype=torch.long))
    torch.testing.assert_close(own.logits, shown.logits)
    torch.testing.assert_close(own.logits[0], first.logits[0])
    assert not torch.allclose(own.logits[1], first.logits[1])
    torch.testing.assert_close(first.logits, again.logits)


def test_prompts_of_a_clip_need_one_padded_size(make_model, make_inputs):
    model, inputs = make_model(padding_mask=True), make_inputs("prompts")
    sources = torch.zeros(len(inputs["prompt_masks"]), dtype=torch.long)
    with pytest.raises(ValueError, match="prompt_sources need images of one padded size"):
        model(**inputs, prompt_sources=sources)
    inputs["pixel_mask"] = torch.ones_like(inputs["pixel_mask"])
    plain = make_model()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected, found = (each(**inputs, prompt_sources=sources) for each in (plain, model))
    torch.testing.assert_close(found.logits, expected.logits)


def test_the_teacher_is_a_loss_where_labels_are_asked(make_model, make_inputs):
    model = make_model(text_teacher=True)
    with torch.no_grad():
        model.model.text_teacher.load_state_dict(model.model.text_encoder.clip.state_dict())
    for kind, distilled in (("labels", True), ("prompts", True), ("expressions", False)):
        inputs = make_inputs(kind)
        rows = len(inputs.get("prompt_masks", inputs.get("expression_input_ids", inputs["pixel_values"])))
        labels = [{"class_labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}] * rows
        output = model(**inputs, labels=labels)
        assert ("distillation" in output.loss_dict) == distilled
        if distilled:
            assert output.loss_dict["distillation"].item() == pytest.approx(0, abs=1e-10)
            torch.testing.assert_close(output.logits, model(**inputs).logits, msg="the same embeddings")
    with torch.no_grad():
        model.model.text_encoder.clip.final_layer_norm.bias.add_(0.5)
    moved = model(**make_inputs("labels"), labels=[labels[0]] * len(make_inputs("labels")["pixel_values"]))
    assert moved.loss_dict["distillation"].item() == pytest.approx(0.25, rel=1e-4)
    model.config.loss_settings = {"distillation_loss": "l1"}
    absolute = model(**make_inputs("labels"), labels=[labels[0]] * len(make_inputs("labels")["pixel_values"]))
    assert absolute.loss_dict["distillation"].item() == pytest.approx(0.5, rel=1e-4)
    moved.loss_dict["distillation"].backward()
    assert model.model.text_encoder.clip.final_layer_norm.bias.grad.any()
    assert all(weight.grad is None for weight in model.model.text_teacher.parameters())


def test_a_denoising_table_that_the_model_has_not_is_refused(make_model, make_inputs):
    inputs = make_inputs("labels")
    labels = [{"class_labels": torch.zeros(0).long(), "boxes": torch.zeros(0, 4)}] * len(inputs["pixel_values"])
    with pytest.raises(ValueError, match="'cocoa' is not in config.denoising_tables, which has coco"):
        make_model(denoising_tables={"coco": 3})(
            **inputs, labels=labels, supervision=GleeSupervision(denoising_table="cocoa")
        )


def test_points_are_chosen_evenly_and_alike():
    masks = torch.zeros(2, 10, 20, dtype=torch.bool)
    masks[0, 2:8, 5:15] = True  # 60 pixels
    masks[1, 9, 19] = True
    points = choose_points(masks, 12)
    assert points.shape == (2, 1, 12, 2)
    rows, columns = (points[0, 0] * torch.tensor([10, 20])).round().long().unbind(-1)
    assert [row * 20 + column for row, column in zip(rows.tolist(), columns.tolist())] == (
        masks[0].flatten().nonzero()[::5, 0].tolist()
    )
    assert points[1, 0, 0].tolist() == pytest.approx([0.9, 0.95]) and (points[1, 0, 1:] == -1).all()
    torch.manual_seed(0)
    drawn = choose_points(masks, 12, random=True)
    assert len({tuple(point) for point in drawn[0, 0].tolist()}) == 12 and not torch.equal(drawn, points)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_aligned_upsampling_keeps_pixels_in_place(factor):
    """Around the pixels of the input, spaced by `factor`, the output interpolates linearly."""
    row = torch.arange(5.0)[None, None, None].expand(1, 1, 3, -1)
    out = aligned_upsample(row, factor)[0, 0]
    assert out.shape == (3 * factor, 5 * factor)
    position = (torch.arange(5.0 * factor) - factor // 2).clamp(min=0) / factor
    torch.testing.assert_close(out[0], position.clamp(max=4))


@pytest.mark.parametrize(
    ("kind", "change", "named"),
    [
        ("labels", {"input_ids": None}, "input_ids"),
        ("labels", {"attention_mask": None}, "attention_mask"),
        (
            "expressions",
            {"input_ids": torch.zeros(1, 3).long(), "attention_mask": torch.ones(1, 3)},
            "expression_input_ids",
        ),
        ("expressions", {"prompt_image_indices": None}, "prompt_image_indices"),
        ("expressions", {"prompt_image_indices": torch.tensor([0, 1, 2])}, "prompt_image_indices"),
        ("visual", {"prompt_types": None}, "prompt_types"),
        ("visual", {"prompt_masks": torch.ones(5, 10, 10, dtype=torch.bool)}, "prompt_masks"),
        ("visual", {"input_ids": torch.zeros(2, 3).long(), "attention_mask": torch.ones(2, 3)}, "input_ids"),
        ("labels", {"pixel_values": torch.zeros(2, 3, 60, 96), "pixel_mask": None}, "pixel_values"),
    ],
)
def test_bad_requests_are_named(model, make_inputs, kind, change, named):
    with pytest.raises(ValueError, match=named):
        model(**{**make_inputs(kind), **change})


def test_published_sizes():
    lite, plus, pro = GleeConfig.lite(), GleeConfig.plus(num_queries=100), GleeConfig.pro()
    assert [config.backbone_config.model_type for config in (lite, plus, pro)] == ["resnet", "swin", "glee_eva"]
    assert [config.num_queries for config in (lite, plus, pro)] == [300, 100, 300]
    assert [config.canvas_divisor for config in (lite, plus, pro)] == [32, 32, 1536]
    again = GleeConfig.from_dict(pro.to_dict())
    assert type(again.backbone_config) is GleeEvaConfig and not again.project_features


def test_parts_of_a_configuration_must_be_of_their_kind(make_config):
    with pytest.raises(ValueError, match="text_config must be a CLIPTextConfig or its fields as a dict"):
        GleeModel(make_config(text_config=ResNetConfig()))


def test_image_features_must_come_from_the_model(model, make_inputs):
    with pytest.raises(ValueError, match="pass what get_image_features returned"):
        model(**make_inputs(), image_features=GleeImageFeatures())


def test_configurations_of_before_are_read(make_config):
    """`prompt_level_cycle` was a field; its published value is all that there is."""
    config = GleeConfig.from_dict({**make_config().to_dict(), "prompt_level_cycle": 3})
    assert "prompt_level_cycle" not in config.to_dict()


def test_stage_one_takes_no_visual_prompts(make_model, make_inputs):
    model = make_model(template_fuser=False)
    with pytest.raises(ValueError, match="template_fuser"):
        model(**make_inputs("visual"))
    assert model(**make_inputs()).logits.shape == (2, 20, 3)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"hidden_size": 30}, "hidden_size"),
        ({"fusion_size": 50}, "fusion_size"),
        ({"prompt_level_cycle": 5}, "prompt_level_cycle"),
        ({"num_queries": 0}, "num_queries"),
        ({"backbone_config": {"model_type": "no-such-model"}}, "backbone_config"),
    ],
)
def test_bad_configurations_are_named(make_config, fields, named):
    with pytest.raises(ValueError, match=named):
        make_config(**fields)


@torch.no_grad()
@pytest.mark.parametrize(("backbone", "states", "weights"), [("resnet", 5, None), ("swin", 5, 4), ("eva", 3, 2)])
def test_image_features_follow_the_conventions_of_transformers(make_model, make_inputs, backbone, states, weights):
    model = make_model(backbone, attention=None if weights is None else "eager")
    inputs = make_inputs(padded=(128, 128), small=(128, 128))
    images = {name: inputs[name] for name in ("pixel_values", "pixel_mask")}
    plain = model.get_image_features(**images)
    rows, channels = 2, model.model.backbone.channels[-1]
    assert plain.last_hidden_state.shape[::2] == (rows, channels) and plain.pooler_output.shape == (rows, channels)
    assert plain.hidden_states is None and plain.attentions is None
    more = model.get_image_features(**images, output_hidden_states=True, output_attentions=weights is not None)
    assert len(more.hidden_states) == states
    assert weights is None or len(more.attentions) == weights
    assert torch.equal(more.lateral, plain.lateral)
    as_tuple = model.model.get_image_features(**images, return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], plain.last_hidden_state)
    model.config.output_hidden_states = True
    assert len(model.get_image_features(**images).hidden_states) == states


@torch.no_grad()
@pytest.mark.parametrize("kind", ["labels", "expressions", "visual"])
def test_layers_are_counted_once_whatever_the_number_of_padded_sizes(make_model, make_inputs, kind):
    model = make_model(attention="eager", padding_mask=True)
    inputs = make_inputs(kind)
    if kind == "visual":  # within the smaller image, too
        inputs["prompt_masks"][:, 40:] = False
        inputs["prompt_masks"][:, :, 56:] = False
    asked = {"output_hidden_states": True, "output_attentions": True, "output_encoder_hidden_states": True}
    outputs = model.model(**inputs, **asked)
    rows, queries = outputs.last_hidden_state.shape[:2]
    assert [states.shape[:2] for states in outputs.hidden_states] == [(rows, queries)] * 4
    assert torch.equal(outputs.hidden_states[-1], outputs.last_hidden_state)
    assert [weights.shape[:3] for weights in outputs.attentions] == [(rows, 4, queries)] * 3
    real = outputs.query_mask[:, None, :, None]
    for weights in outputs.attentions:
        torch.testing.assert_close((weights * real).sum(-1), real.expand_as(weights)[..., 0].float())
    assert [states.shape[0] for states in outputs.encoder_hidden_states] == [rows] * 3
    image = 0 if kind == "labels" else int(inputs["prompt_image_indices"][-1])
    row = image if kind == "labels" else rows - 1
    assert outputs.hidden_states[1][row].abs().sum() > 0


@torch.no_grad()
def test_tuples_are_returned_where_the_configuration_says_so(make_model, make_inputs):
    model, inputs = make_model(), make_inputs()
    whole = model(**inputs)
    model.config.return_dict = False
    outputs = model(**inputs)
    assert isinstance(outputs, tuple) and torch.equal(outputs[0], whole.logits)
    assert isinstance(model.model(**inputs), tuple)
    assert torch.equal(model(**inputs, return_dict=True).pred_boxes, whole.pred_boxes)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_kind_of_attention_reaches_text_and_backbone(make_model, tmp_path, attention):
    make_model("swin").save_pretrained(tmp_path)
    model = GleeForObjectDetection.from_pretrained(tmp_path, attn_implementation=attention)
    parts = model.model.text_encoder.clip, model.model.backbone
    assert {attention_kind(part.config) for part in (model, *parts)} == {attention}
    mixed = GleeForObjectDetection.from_pretrained(tmp_path, attn_implementation={"text_config": "eager"})
    assert attention_kind(mixed.model.text_encoder.clip.config) == "eager" != attention_kind(mixed.config)
    model.set_attn_implementation("eager")
    assert {attention_kind(part.config) for part in (model, *parts)} == {"eager"}


@torch.no_grad()
@pytest.mark.parametrize("padding_mask", [False, True])
def test_images_with_own_labels_are_as_if_alone(make_model, make_inputs, padding_mask):
    model, inputs = make_model(padding_mask=padding_mask), make_inputs()
    inputs["input_ids"], inputs["attention_mask"] = inputs["input_ids"][:2], inputs["attention_mask"][:2]
    together = model(**inputs, own_labels=torch.ones(2, dtype=torch.long))
    assert together.logits.shape == (2, 20, 1) and model(**inputs).logits.shape == (2, 20, 2)
    for row in range(2):
        length = int(inputs["attention_mask"][row].sum())
        one = {name: value[row : row + 1] for name, value in inputs.items()}
        one |= {name: one[name][:, :length] for name in ("input_ids", "attention_mask")}
        alone = model(**one, own_labels=torch.ones(1, dtype=torch.long))
        queries = alone.logits.shape[1]
        torch.testing.assert_close(together.logits[row, :queries], alone.logits[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.pred_boxes[row, :queries], alone.pred_boxes[0], atol=1e-4, rtol=1e-4)


CANVAS = torch.zeros(1, 64, 96, dtype=torch.bool)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"boxes": torch.tensor([[4.0, 8.0, 20.0, 30.0]])},
            r"labels\[1\]\['boxes'\] must be cxcywh as shares .*64 x 96",
        ),
        (
            {"boxes": torch.tensor([[0.6, 0.6, 0.9, 0.9]])},
            "cxcywh as shares .* object 0 is not: .0.6, 0.6, 0.9, 0.9",
        ),  # corners
        ({"boxes": torch.tensor([[0.5, 0.5, 0.0, 0.2]])}, "cxcywh as shares"),
        ({"boxes": torch.tensor([[0.5, torch.nan, 0.1, 0.2]])}, "cxcywh as shares"),
        ({"boxes": [[0.5, 0.5, 0.1, 0.2]]}, "'boxes'. must be a tensor, not list"),
        ({"boxes": torch.tensor([0.5, 0.5, 0.1, 0.2])}, r"must be \(objects, 4\), not \(4,\)"),
        ({"class_labels": None}, "'class_labels'. must be a tensor, not NoneType"),
        (
            {"masks": torch.zeros(1, 40, 56)},
            r"'masks'. must be \(objects, 64, 96\), on the padded images, not \(1, 40, 56\)",
        ),
        ({"masks": CANVAS.float() + 255}, "'masks'. must be True and False, or from 0 to 1; object 0 is not"),
    ],
)
def test_labels_that_cannot_teach_are_refused(make_model, make_inputs, wrong, message):
    entry = {"class_labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]]), "masks": CANVAS}
    with pytest.raises(ValueError, match=message) as raised:
        make_model()(**make_inputs("labels"), labels=[entry, {**entry, **wrong}])
    assert "\n" not in str(raised.value)
