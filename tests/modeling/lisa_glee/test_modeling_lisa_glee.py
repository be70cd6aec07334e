"""LISA-GLEE's wiring: objects in, masks out, losses as LISA's, and the same in one pass as word by word."""

from __future__ import annotations

import math

import pytest
import torch

from lookhear.modeling.lisa_glee import LisaGleeConfig, LisaGleeForReasoningSegmentation
from lookhear.modeling.lisa_glee.loss_lisa_glee import best_objects, mask_losses
from lookhear.modeling.lisa_glee.objects_lisa_glee import RANKS_SCALE, RANKS_SIZE, box_encoding, rank_encoding

OBJECT, SEGMENT, OBJECTS = 3, 4, 6  # as in conftest.py


def questions(batch: dict) -> dict:
    """What a user passes: no answers."""
    return {name: value for name, value in batch.items() if name not in ("labels", "mask_labels")}


def test_losses_of_masks_are_those_of_lisa():
    logits, labels = torch.tensor([[[2.0, -1.0], [0.5, -3.0]]]), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    bce, dice = mask_losses(logits, labels)
    p = [1 / (1 + math.exp(-x)) for x in (2.0, -1.0, 0.5, -3.0)]
    assert bce.item() == pytest.approx(-sum(map(math.log, (p[0], 1 - p[1], p[2], 1 - p[3]))) / 4, abs=1e-6)
    both, total = 2 * (p[0] + p[2]) / 1000, (sum(p) + 2) / 1000
    assert dice.item() == pytest.approx(1 - (both + 1e-6) / (total + 1e-6), abs=1e-6)


def test_pixels_that_are_not_known_count_nowhere():
    logits, labels = torch.randn(2, 4, 6), torch.rand(2, 4, 6).round()
    labels[:, :, 4:] = -1
    for whole, cut in zip(mask_losses(logits, labels), mask_losses(logits[..., :4], labels[..., :4])):
        assert whole.item() == pytest.approx(cut.item(), abs=1e-6)


def test_no_masks_cost_nothing_and_have_gradients_of_zero():
    logits = torch.zeros(0, 4, 4, requires_grad=True)
    bce, dice = mask_losses(logits, torch.zeros(0, 4, 4))
    (bce + dice).backward()
    assert bce == dice == 0 and logits.grad.shape == (0, 4, 4)


def test_the_best_object_is_the_one_that_overlaps_most():
    labels = torch.zeros(2, 4, 4)
    labels[0, :2] = 1
    found = torch.full((2, 3, 4, 4), -1.0)
    found[0, 0, :1], found[0, 1, :2], found[0, 2] = 1, 1, 1
    assert best_objects(found, labels).tolist() == [1, -100]


def test_boxes_are_encoded_with_corners_and_octaves():
    encoded = box_encoding(torch.tensor([[0.5, 0.25, 0.2, 0.1]]))
    assert encoded.shape == (1, 104)
    assert torch.allclose(encoded[0, :8], torch.tensor([0.5, 0.25, 0.2, 0.1, 0.4, 0.2, 0.6, 0.3]))
    assert encoded[0, 8].item() == pytest.approx(math.sin(math.pi * 0.5), abs=1e-6)
    assert encoded[0, 8 + 48 + 6 + 1].item() == pytest.approx(math.cos(2 * math.pi * 0.25), abs=1e-6)


def test_ranks_say_how_many_objects_are_beside_each():
    """Three objects: the fourth query is none. By hand."""
    boxes = torch.tensor([[[0.1, 0.5, 0.2, 0.2], [0.5, 0.1, 0.1, 0.3], [0.9, 0.9, 0.1, 0.1], [0.3, 0.7, 0.4, 0.4]]])
    encoded = rank_encoding(boxes, torch.tensor([[2.0, 0.1, 3.0, -0.1]]))
    assert encoded.shape == (1, 4, RANKS_SIZE)
    left, above, smaller, right, below, larger = (encoded[0].unflatten(-1, (6, -1)) / RANKS_SCALE).unbind(dim=1)
    assert torch.allclose(2 * left[:, 0], torch.tensor([0.0, 1, 2, 1]))
    assert torch.allclose(2 * right[:, 0], torch.tensor([2.0, 1, 0, 2]))
    assert torch.allclose(2 * above[:, 0], torch.tensor([1.0, 0, 2, 2]))
    assert torch.allclose(2 * below[:, 0], torch.tensor([1.0, 2, 0, 1]))
    assert torch.allclose(2 * smaller[:, 0], torch.tensor([1.0, 2, 0, 3]))
    assert torch.allclose(2 * larger[:, 0], torch.tensor([1.0, 0, 2, 0]))
    assert torch.equal(left[:, 1:4], torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]))
    assert not left[:, 4:].any()


def test_masks_come_from_the_states_that_predict_them(model, batch):
    """By hand: the language model on the same embeddings, its state one place before each [SEG], times the pixels."""
    outputs = model(**batch)
    objects = model.get_objects(batch["perception_pixel_values"], batch["perception_pixel_mask"])
    shown, _ = model.object_encoder(objects)
    embeddings = model.get_input_embeddings()(batch["input_ids"]).clone()
    embeddings[batch["input_ids"] == OBJECT] = shown.reshape(-1, shown.shape[-1])
    eyes = {"pixel_values": batch["pixel_values"]} if "pixel_values" in batch else {}
    sees = batch["attention_mask"]
    if model.config.object_attention == "full":
        sees = (torch.ones(13, 13).tril() * sees[:, None] + torch.eye(13)) > 0
        sees[:, :OBJECTS, :OBJECTS] = True  # the rows begin with their objects
        sees = sees[:, None]
    seen = model.language_model(inputs_embeds=embeddings, attention_mask=sees, output_hidden_states=True, **eyes)
    places = (batch["labels"] == SEGMENT).nonzero().tolist()
    assert outputs.mask_rows.tolist() == [row for row, _ in places] == [0, 0, 1]
    for mask, (row, place) in zip(outputs.mask_logits, places):
        wanted = model.segment_head.scale * model.segment_head.pixels(seen.hidden_states[-1][row, place - 1])
        expected = torch.einsum("c,chw->hw", wanted, objects.mask_features[row])
        assert torch.allclose(mask, expected, atol=1e-5)
    assert torch.allclose(outputs.logits, seen.logits, atol=1e-5)


def test_the_loss_is_the_weighted_sum(model, batch):
    outputs = model(**batch)
    losses, config = outputs.loss_dict, model.config
    expected = losses["text"] + 2 * losses["bce"] + 0.5 * losses["dice"] + losses.get("object", 0.0)
    assert outputs.loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert ("object" in losses) == config.choose_objects
    shifted = torch.nn.functional.cross_entropy(
        outputs.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100
    )
    assert losses["text"].item() == pytest.approx(shifted.item(), abs=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}, {"do_sample": True}]
)
def test_generated_masks_are_those_of_reading_the_answer_in_one_pass(model, batch, options):
    """Whatever the search: the state that produced a [SEG] is found again, through beams and padding."""
    asked = questions(batch)
    asked["input_ids"], asked["attention_mask"] = asked["input_ids"][:, :-4], asked["attention_mask"][:, :-4]
    asked["input_ids"] = asked["input_ids"].masked_fill(asked["input_ids"] == SEGMENT, 9)
    with torch.no_grad():  # random weights rarely say [SEG]
        model.get_output_embeddings().weight[SEGMENT] = 0.6 * model.get_output_embeddings().weight.mean(dim=0)
        model.get_output_embeddings().weight[SEGMENT] += 0.05
        if model.config.choose_objects:  # nor do they tell objects apart
            for head in (model.segment_head.choice, model.object_encoder.keys):
                head.first.weight *= 20
                head.last.weight *= 20
    torch.manual_seed(0)
    given = model.generate(**asked, max_new_tokens=8, eos_token_id=2, pad_token_id=0, **options)
    assert len(given.mask_logits) == len(given.mask_scores) == int((given.sequences == SEGMENT).sum())
    times = len(given.sequences) // 2
    whole = {name: value.repeat_interleave(times, dim=0) for name, value in asked.items()}
    whole["input_ids"] = torch.cat((whole["input_ids"], given.sequences), dim=1)
    whole["attention_mask"] = torch.cat((whole["attention_mask"], torch.ones_like(given.sequences)), dim=1)
    labels = whole["input_ids"].clone()
    labels[:, : asked["input_ids"].shape[1]] = -100
    read = model(**whole, labels=labels)
    assert torch.equal(read.mask_rows, given.mask_rows)
    masks = read.mask_logits
    if model.config.choose_objects and len(masks):
        best = read.object_logits.argmax(dim=-1)
        rows = read.mask_rows
        masks = torch.einsum(
            "nc,nchw->nhw", read.objects.mask_embeddings[rows, best], read.objects.mask_features[rows]
        )
    assert torch.allclose(given.mask_logits, masks, atol=1e-4)


def test_a_picture_serves_several_questions(model, batch):
    """One picture with two questions: as if it had been passed twice."""
    asked = questions(batch)
    both = {name: value[[0, 0]] for name, value in asked.items()}
    both["input_ids"] = torch.stack((asked["input_ids"][0], asked["input_ids"][0].flip(0)))
    twice = model(**both, labels=both["input_ids"])
    objects = model.get_objects(asked["perception_pixel_values"][:1], asked["perception_pixel_mask"][:1])
    once = {name: value for name, value in both.items() if not name.startswith("perception")}
    shared = model(**once, objects=objects, picture_indices=torch.tensor([0, 0]), labels=both["input_ids"])
    assert torch.allclose(twice.logits, shared.logits, atol=1e-5)
    assert torch.allclose(twice.mask_logits, shared.mask_logits, atol=1e-5)


def test_glee_stays_as_it_is(model, batch):
    before = {name: value.clone() for name, value in model.perception.state_dict().items()}
    model.train()
    assert not model.perception.training and model.language_model.training
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1)
    model(**batch).loss.backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.perception.state_dict().items())
    named = {name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None}
    assert not {name for name in named if "vision_tower" not in name}


def test_padding_of_the_picture_changes_nothing_but_its_edge(tiny_glee):
    """Boxes are shares of the picture, not of the padded one."""
    model, processor = tiny_glee
    label = processor.tokenizer(["object"], return_tensors="pt")
    pixels = torch.randn(1, 3, 64, 64)
    padded = torch.nn.functional.pad(pixels, (0, 64))
    mask = torch.zeros(1, 64, 128, dtype=torch.long)
    mask[..., :64] = 1
    whole = model.model.get_object_queries(padded, mask, **label, count=4)
    outputs = model.model(padded, mask, **label)
    assert whole.boxes.shape == (1, 4, 4)
    shares = whole.boxes * torch.tensor([0.5, 1.0, 0.5, 1.0])
    assert all((outputs.pred_boxes[0] - box).abs().amax(dim=-1).min() < 1e-6 for box in shares[0])


def test_objects_are_the_best_and_bring_their_masks(tiny_glee):
    model, processor = tiny_glee
    label = processor.tokenizer(["object", "star"], padding=True, return_tensors="pt")
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    objects, outputs = model.model.get_object_queries(pixels, None, **label, count=5), model(pixels, **label)
    scores = outputs.logits.amax(dim=-1)
    for image in range(2):
        best = scores[image].topk(5).indices
        assert torch.allclose(objects.scores[image], scores[image][best], atol=1e-5)
        masks = torch.einsum("qc,chw->qhw", objects.mask_embeddings[image], objects.mask_features[image])
        assert torch.allclose(masks, outputs.pred_masks[image][best], atol=1e-4)


def test_objects_see_each_other_and_are_chosen_as_they_are(build):
    """Another first object changes what the language model is shown of all, and only its own key."""
    for layers in (1, 3):
        model = build(object_layers=layers, object_masks=True, choose_objects=True)
        objects = model.get_objects(torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)))
        shown, keys = model.object_encoder(objects)
        assert 0.7 < shown.std().item() < 1.4  # however many layers; larger ones would outweigh what is added to them
        objects["last_hidden_state"][:, 0] += 1
        others, changed = model.object_encoder(objects)
        assert (shown - others).abs().amax(dim=-1).gt(1e-4).all()
        assert torch.equal(keys[:, 1:], changed[:, 1:]) and not torch.allclose(keys[:, 0], changed[:, 0])


@pytest.mark.parametrize("attention", ["causal", "full"])
def test_with_full_attention_an_object_depends_on_the_next_and_a_word_does_not(build, attention):
    """Two runs of objects with a word between: what a token's logits depend on, by changing one embedding."""
    model = build(object_attention=attention)
    ids = torch.tensor([[10, *[OBJECT] * OBJECTS, 11, *[OBJECT] * OBJECTS, 12]])
    objects = model.get_objects(torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)))
    embeddings = model._input_embeddings(ids, objects, torch.tensor([0]))[0].detach().requires_grad_(True)
    visible = model._visible(ids, None) if attention == "full" else None
    logits = model.language_model(inputs_embeds=embeddings, attention_mask=visible).logits[0]
    first, last, word, second = 1, OBJECTS, OBJECTS + 1, OBJECTS + 2
    for token, other, depends in (
        (first, last, attention == "full"),
        (first, second, False),
        (second, last, True),
        (second, 2 * OBJECTS + 1, attention == "full"),
        (0, first, False),
        (word, second, False),
    ):
        (gradient,) = torch.autograd.grad(logits[token].sum(), embeddings, retain_graph=True)
        assert bool(gradient[0, other].any()) == depends, (token, other)


def test_an_object_that_two_queries_stand_for_is_shown_once(build):
    """Of queries with overlapping boxes the best comes first; others only fill what would be empty. Brute force."""
    count = OBJECTS
    model, every = build(object_overlap=0.3), build(num_objects=12)
    pixels = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    found, all_found = model.get_objects(pixels), every.get_objects(pixels)
    hidden_before = 0
    for picture in range(3):
        distinct, others = [], []
        for index in range(12):
            box = all_found.boxes[picture, index].tolist()
            same = any(overlap(box, all_found.boxes[picture, other].tolist()) > 0.3 for other in distinct)
            (others if same else distinct).append(index)
        expected = [*distinct, *others][:count]
        hidden_before += expected != list(range(count))
        for name in ("last_hidden_state", "scores", "boxes", "mask_embeddings"):
            assert torch.equal(found[name][picture], all_found[name][picture, expected]), name
    assert hidden_before  # the order was changed in some picture
    assert torch.equal(found.mask_features, all_found.mask_features)


def overlap(one: list[float], other: list[float]) -> float:
    """Computes intersection over union of two boxes, cxcywh."""
    shared = 1.0
    for axis in (0, 1):
        low = max(one[axis] - one[axis + 2] / 2, other[axis] - other[axis + 2] / 2)
        high = min(one[axis] + one[axis + 2] / 2, other[axis] + other[axis + 2] / 2)
        shared *= max(high - low, 0.0)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def test_saved_and_loaded_it_answers_the_same(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = LisaGleeForReasoningSegmentation.from_pretrained(tmp_path).eval()
    assert loaded.config.object_label_ids == model.config.object_label_ids
    assert torch.equal(loaded(**batch).loss, model(**batch).loss)
    assert not any(weight.requires_grad for weight in loaded.perception.parameters())


def test_half_precision_is_near(model, batch):
    exact = model(**batch)
    half = model.to(torch.bfloat16)(
        **{n: v.to(torch.bfloat16) if v.is_floating_point() else v for n, v in batch.items()}
    )
    assert half.logits.dtype == torch.bfloat16
    assert abs(half.loss.item() - exact.loss.item()) < 0.3


def test_objects_may_be_shown_after_every_question(build):
    """Each run of placeholders is the picture's objects: equal to one run when the text before it is the same."""
    model = build()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    run = [OBJECT] * OBJECTS
    once, twice = [9, *run, 10, 11], [9, *run, 10, 11, 12, *run, 13]
    padded = once + [0] * (len(twice) - len(once))
    logits = model(torch.tensor([padded, twice]), perception_pixel_values=pixels).logits
    alone = model(torch.tensor([once]), perception_pixel_values=pixels[:1]).logits
    assert torch.allclose(logits[:1, : len(once)], alone, atol=1e-5)
    other = model(torch.tensor([padded, twice]), perception_pixel_values=pixels.flip(0)).logits
    assert not torch.allclose(logits[1, -1], other[1, -1], atol=1e-4)
    objects = model.get_objects(pixels[1:])
    embeddings, _ = model._input_embeddings(torch.tensor([twice]), objects, torch.tensor([0]))
    shown, _ = model.object_encoder(objects)
    assert torch.equal(embeddings[:, 1 : 1 + OBJECTS], shown)
    assert torch.equal(embeddings[:, -1 - OBJECTS : -1], shown)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"perception_pixel_values": None}, "pass either perception_pixel_values or objects"),
        (
            {"input_ids": torch.tensor([[OBJECT] * OBJECTS + [9], [OBJECT] * (OBJECTS - 1) + [9, 9]])},
            "needs 6 placeholders of objects, or a multiple of 6",
        ),
        (
            {"input_ids": torch.tensor([[OBJECT] * OBJECTS])},
            "1 rows of input_ids about 2 pictures: pass picture_indices",
        ),
        ({"mask_labels": torch.zeros(2, 8, 8)}, r"3 \[SEG\] in labels, but 2 mask_labels"),
    ],
)
def test_what_does_not_fit_is_named(build, change, message):
    ids = torch.tensor([[OBJECT] * OBJECTS + [9, SEGMENT, SEGMENT], [OBJECT] * OBJECTS + [9, 9, SEGMENT]])
    inputs = {"input_ids": ids, "labels": ids, "perception_pixel_values": torch.zeros(2, 3, 64, 64)}
    with pytest.raises(ValueError, match=message):
        build()(**{**inputs, **change})


@pytest.mark.parametrize(
    "wrong",
    [{"num_objects": 13}, {"segment_token_id": 40}, {"object_layers": -1}, {"object_overlap": 0}]
    + [{"object_attention": "none"}],
)
def test_configuration_refuses_what_cannot_be(build, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        build(**wrong)


def test_published_sizes_are_the_papers():
    """LLaVA 1.5 7B and GLEE-Plus, without memory for their weights."""
    config = LisaGleeConfig.llava_7b()
    with torch.device("meta"):
        model = LisaGleeForReasoningSegmentation(config)
    language = sum(weight.numel() for weight in model.language_model.parameters())
    seeing = sum(weight.numel() for weight in model.perception.parameters())
    assert 7.0e9 < language < 7.2e9 and 2.5e8 < seeing < 4.5e8
    assert model.object_encoder.projection.first.in_features == 256 + 1 + 104
