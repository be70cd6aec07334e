"""What transformers promises of any model, for every network of every system; tiny random weights."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, LlamaConfig, PreTrainedConfig, PreTrainedModel, ResNetConfig

from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration, AvsrForVideoClassification, AvsrModel
from lookhear.modeling.glee import GleeConfig, GleeForObjectDetection, GleeModel
from lookhear.modeling.lisa_glee import LisaGleeConfig, LisaGleeForReasoningSegmentation

ENCODER_LAYERS, FUSION_LAYERS, DECODER_LAYERS = 2, 3, 4
LANGUAGE_LAYERS = 2
OBJECTS_SHOWN = 6  # to LISA-GLEE's language model
TEXT = {"vocab_size": 60, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2}
TEXT |= {"num_attention_heads": 2, "bos_token_id": 58, "eos_token_id": 59, "pad_token_id": 59}


def avsr_config(**fields) -> AvsrConfig:
    return AvsrConfig(
        audio_config={"front_end": "spectrogram", "num_mel_bins": 8, "n_fft": 400},
        visual_config={
            "layer_type": "basic",
            "stem_channels": 4,
            "hidden_sizes": (4, 8),
            "depths": (1, 1),
            "crop_size": 16,
        },
        hidden_size=16,
        encoder_layers=ENCODER_LAYERS,
        fusion_layers=FUSION_LAYERS,
        decoder_layers=DECODER_LAYERS,
        num_attention_heads=2,
        intermediate_size=32,
        head_hidden_sizes=(16,),
        ctc_upsampling=2,
        **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0),
        **fields,
    )


def word_config() -> AvsrConfig:
    return avsr_config(modality="visual", classifier_back_end="transformer", num_labels=7, is_encoder_decoder=False)


def glee_config() -> GleeConfig:
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], out_features=stages)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "fusion_size": 48}
    counts = {"encoder_layers": ENCODER_LAYERS, "decoder_layers": DECODER_LAYERS, "num_points": 2, "num_groups": 8}
    # as many queries as there are pixels, so that rounding chooses none of them
    counts |= {"num_queries": 126, "fusion_heads": 4, "template_size": 64, "fusion_dropout": 0.0}
    return GleeConfig(backbone_config=backbone, text_config=TEXT, **sizes, **counts)


def lisa_config() -> LisaGleeConfig:
    """Everything that is optional, so that all weights learn."""
    language = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=LANGUAGE_LAYERS, num_attention_heads=2
    )
    ids = {"object_token_id": 3, "segment_token_id": 4, "object_label_ids": [58, 7, 59]}
    options = {
        "object_masks": True,
        "object_ranks": True,
        "object_layers": 1,
        "choose_objects": True,
        "scaled_products": True,
    }
    return LisaGleeConfig(
        perception_config=glee_config(), language_config=language, num_objects=OBJECTS_SHOWN, **ids, **options
    )


def clips() -> dict[str, torch.Tensor]:
    """Two clips, the second one shorter, and what the decoder has said of them."""
    numbers = torch.Generator().manual_seed(0)
    return {
        "input_values": torch.randn(2, 6400, generator=numbers),
        "attention_mask": (torch.arange(6400) < torch.tensor([[6400], [4000]])).long(),
        **lips(),
        "decoder_input_ids": torch.randint(1, 39, (2, 5), generator=numbers),
    }


def lips() -> dict[str, torch.Tensor]:
    numbers = torch.Generator().manual_seed(1)
    return {
        "pixel_values_videos": torch.randn(2, 10, 1, 16, 16, generator=numbers),
        "video_attention_mask": (torch.arange(10) < torch.tensor([[10], [7]])).long(),
    }


def images() -> dict[str, torch.Tensor]:
    """Two images and three labels."""
    numbers = torch.Generator().manual_seed(0)
    words = torch.randint(0, 50, (3, 3), generator=numbers)
    ends = torch.tensor([58, 59]).expand(3, 2)
    return {
        "pixel_values": torch.randn(2, 3, 64, 96, generator=numbers),
        "pixel_mask": torch.ones(2, 64, 96, dtype=torch.long),
        "input_ids": torch.cat((ends[:, :1], words, ends[:, 1:]), dim=1),
        "attention_mask": torch.ones(3, 5, dtype=torch.long),
    }


def objects() -> list[dict[str, torch.Tensor]]:
    """An object in each image."""
    box = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
    masks = torch.zeros(1, 64, 96)
    masks[:, 20:44, 30:66] = 1
    return [{"class_labels": torch.tensor([kind]), "boxes": box, "masks": masks} for kind in (0, 2)]


def answers() -> torch.Tensor:
    """Two conversations, the second one shorter, that show two objects and one."""
    shown = [3] * OBJECTS_SHOWN
    return torch.tensor([[*shown, 10, 11, 12, 4, 13, 4, 2], [*shown, 14, 15, 4, 2, 0, 0, 0]])


def conversations() -> dict[str, torch.Tensor]:
    numbers = torch.Generator().manual_seed(0)
    return {
        "input_ids": answers(),
        "attention_mask": (answers() != 0).long(),
        "perception_pixel_values": torch.randn(2, 3, 64, 96, generator=numbers),
        "mask_labels": torch.rand(3, 16, 24, generator=numbers).round(),
    }


@dataclass
class Case:
    """
    A class of models and what a tiny one is asked.

    stacks: prefix of `hidden_states` and `attentions` -> layers.
    scores: output -> what it must keep if the vocabulary grows; idle: parts that published weights leave unused.
    """

    model: type[PreTrainedModel]
    config: Callable[[], PreTrainedConfig]
    inputs: Callable[[], dict]
    labels: Callable | None = None
    stacks: dict[str, int] = field(default_factory=dict)
    scores: tuple[str, ...] = ("last_hidden_state",)
    idle: tuple[str, ...] = ()

    def build(self) -> PreTrainedModel:
        torch.manual_seed(0)
        model = self.model(self.config()).eval()
        with torch.no_grad():  # what starts at zero would hide what is before it
            for name, weight in model.named_parameters():
                if any(part in name for part in ("heads.box.layers.2", "sampling_offsets", "attention_weights")):
                    weight.normal_(std=0.1)
        return model

    def ask(self, model: PreTrainedModel, **kwargs):
        with torch.no_grad():
            return model(**self.inputs(), **kwargs)


AVSR_STACKS = {"encoder_": FUSION_LAYERS, "audio_": ENCODER_LAYERS, "visual_": ENCODER_LAYERS}
AVSR_STACKS |= {"decoder_": DECODER_LAYERS, "cross_": DECODER_LAYERS}
GLEE_IDLE = ("fusion.pixel_value", "fusion.text_output", "fusion.text_scale", "level_projections.3", "visual_prompter")
CASES = [
    Case(AvsrModel, avsr_config, clips, stacks=AVSR_STACKS),
    Case(
        AvsrForConditionalGeneration,
        avsr_config,
        clips,
        lambda: clips()["decoder_input_ids"],
        AVSR_STACKS,
        ("logits", "ctc_logits"),
    ),
    Case(AvsrForVideoClassification, word_config, lips, lambda: torch.tensor([2, 6]), {"": ENCODER_LAYERS}, ()),
    Case(GleeModel, glee_config, images, stacks={"": DECODER_LAYERS}),
    Case(
        GleeForObjectDetection,
        glee_config,
        images,
        objects,
        {"": DECODER_LAYERS},
        ("track_embeddings",),
        (*GLEE_IDLE, "confidence"),
    ),
    Case(
        LisaGleeForReasoningSegmentation,
        lisa_config,
        conversations,
        lambda: answers().masked_fill(answers() == 0, -100),
        {"": LANGUAGE_LAYERS},
        scores=("logits",),
        idle=("perception.",),
    ),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.model.__name__)
trained = pytest.mark.parametrize("case", [c for c in CASES if c.labels], ids=lambda case: case.model.__name__)
spoken = pytest.mark.parametrize("case", [c for c in CASES if c.scores], ids=lambda case: case.model.__name__)


def tensors(output) -> dict[str, torch.Tensor]:
    """All floating-point tensors of an output, those in tuples included."""
    found = {}
    for name, value in output.items():
        for place, tensor in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                found[f"{name}.{place}"] = tensor
    return found


def assert_same(first, second, **tolerance) -> None:
    first, second = tensors(first), tensors(second)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name].float(), tensor, msg=lambda text, n=name: f"{n}: {text}", **tolerance)


@every
def test_evaluation_is_deterministic(case):
    model = case.build()
    assert_same(case.ask(model), case.ask(model), atol=0, rtol=0)


@every
def test_a_configuration_comes_back(case, tmp_path):
    config = case.config()
    config.save_pretrained(tmp_path)
    assert type(config).from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert type(config).from_dict(config.to_dict()).to_dict() == config.to_dict()


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_saved_model_comes_back(case, tmp_path, dtype):
    model = case.build()
    model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["model.safetensors"]
    back, report = case.model.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not back.training and back.dtype == dtype and back.config.architectures == [case.model.__name__]
    for name, weight in model.state_dict().items():
        same = weight.to(dtype) if weight.is_floating_point() else weight
        assert torch.equal(back.state_dict()[name], same), name
    if dtype == torch.float32:
        assert_same(case.ask(model), case.ask(back), atol=0, rtol=0)


@every
def test_weights_that_a_checkpoint_lacks_are_made_anew(case, tmp_path):
    case.build().save_pretrained(tmp_path)
    save_file({"other": torch.ones(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model, report = case.model.from_pretrained(tmp_path, output_loading_info=True)
    assert report["unexpected_keys"] == {"other"} and report["missing_keys"] == set(model.state_dict())
    assert all(not t.is_meta and t.isfinite().all() for t in (*model.parameters(), *model.buffers()))


@every
def test_an_output_as_a_tuple_has_the_same_order(case):
    model = case.build()
    output = case.ask(model)
    model.config.return_dict = False
    for as_tuple in (case.ask(model, return_dict=False), case.ask(model)):
        assert isinstance(as_tuple, tuple) and len(as_tuple) == len(output)
        for value, expected in zip(as_tuple, output.values()):
            if isinstance(expected, torch.Tensor):
                assert torch.equal(value, expected)
    assert_same(case.ask(model, return_dict=True), output, atol=0, rtol=0)


@every
@pytest.mark.parametrize("by", ["argument", "configuration"])
def test_layers_are_recorded_where_that_is_asked(case, by):
    """A state before the first layer and one of each; weights of each; nothing otherwise."""
    model = case.build()
    model.set_attn_implementation("eager")
    assert not any("hidden_states" in name or "attentions" in name for name in case.ask(model))
    asked = {"output_hidden_states": True, "output_attentions": True}
    if by == "configuration":
        model.config.update(asked)
    output = case.ask(model, **(asked if by == "argument" else {}))
    for prefix, layers in case.stacks.items():
        assert len(output[f"{prefix}attentions"]) == layers
        if prefix != "cross_":
            assert len(output[f"{prefix}hidden_states"]) == layers + 1
    found = {name for name in output if name.endswith(("hidden_states", "attentions"))}
    names = {f"{prefix}{kind}" for prefix in case.stacks for kind in ("hidden_states", "attentions")}
    assert found - {"encoder_hidden_states"} == names - {"cross_hidden_states", "encoder_hidden_states"}


@every
def test_kinds_of_attention_agree(case):
    sdpa, eager = case.build(), case.build()
    eager.set_attn_implementation("eager")  # transformers sets no model with a ResNet inside to "sdpa" again
    assert_same(case.ask(eager), case.ask(sdpa), atol=2e-5, rtol=1e-4)


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_runs(case, dtype):
    inputs = {name: v.to(dtype) if v.is_floating_point() else v for name, v in case.inputs().items()}
    with torch.no_grad():
        output = case.build().to(dtype)(**inputs)
    assert all(tensor.isfinite().all() for tensor in tensors(output).values())
    assert {tensor.dtype for tensor in tensors(output).values()} <= {dtype, torch.float32}


@trained
def test_gradient_checkpointing_changes_nothing_and_all_weights_learn(case):
    results = []
    for checkpointing in (False, True):
        model = case.build()
        if checkpointing:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)  # GLEE's losses look at random points
        loss = model.train()(**case.inputs(), labels=case.labels()).loss
        loss.backward()
        results.append((loss.detach(), {name: p.grad for name, p in model.named_parameters()}))
    (loss, gradients), (same_loss, same_gradients) = results
    assert loss.isfinite() and loss == same_loss
    for name, gradient in gradients.items():
        if not any(part in name for part in case.idle):
            assert gradient is not None and gradient.isfinite().all(), name
        if gradient is not None:
            torch.testing.assert_close(same_gradients[name], gradient, atol=1e-5, rtol=1e-4)


@trained
def test_a_loss_comes_with_labels_only(case):
    model = case.build()
    assert "loss" not in case.ask(model)
    output = case.ask(model, labels=case.labels())
    assert output.loss.shape == () and output.to_tuple()[0] is output.loss


@spoken
@pytest.mark.parametrize(("size", "multiple", "found"), [(70, None, 70), (61, 8, 64), (None, None, None)])
def test_a_vocabulary_is_resized(case, tmp_path, size, multiple, found):
    model = case.build()
    old, before = model.get_input_embeddings().num_embeddings, case.ask(model)
    embedding = model.resize_token_embeddings(size, pad_to_multiple_of=multiple)
    found = found or old
    assert embedding is model.get_input_embeddings() and embedding.num_embeddings == found
    assert model.config.get_text_config().vocab_size == found
    after = case.ask(model)
    for name in case.scores:
        assert after[name].shape[-1] == (found if name.endswith("logits") else before[name].shape[-1])
        torch.testing.assert_close(after[name][..., : before[name].shape[-1]], before[name])
    model.save_pretrained(tmp_path)
    assert_same(case.ask(case.model.from_pretrained(tmp_path)), after, atol=0, rtol=0)


@spoken
def test_embeddings_are_read_and_replaced(case):
    model = case.build()
    old, before = model.get_input_embeddings(), case.ask(model)
    assert isinstance(old, torch.nn.Embedding)
    new = copy.deepcopy(old)
    torch.nn.init.normal_(new.weight)
    model.set_input_embeddings(new)
    assert model.get_input_embeddings() is new
    assert not torch.equal(case.ask(model)[case.scores[0]], before[case.scores[0]])
    head = model.get_output_embeddings()
    assert head is None or head.out_features == old.num_embeddings


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.model.__name__)
@torch.no_grad()
def test_embeddings_stand_for_the_labels_that_the_decoder_reads(case):
    model, inputs = case.build(), case.inputs()
    expected = model(**inputs)
    ids = inputs["decoder_input_ids"]
    embedded = model.get_input_embeddings()(ids)
    assert_same(model(**heard(), decoder_inputs_embeds=embedded), expected, atol=0, rtol=0)
    with pytest.raises(ValueError, match="either decoder_input_ids or decoder_inputs_embeds"):
        model(**inputs, decoder_inputs_embeds=embedded)


def heard() -> dict[str, torch.Tensor]:
    return {name: value for name, value in clips().items() if name != "decoder_input_ids"}


@pytest.fixture(scope="module")
def recogniser() -> AvsrForConditionalGeneration:
    """A model that has something to say: no text is as good as the empty one."""
    model = next(case for case in CASES if case.model is AvsrForConditionalGeneration).build()
    with torch.no_grad():
        for head in (model.ctc_head.output, model.decoder_head.output):
            head.weight.mul_(5)
        model.decoder_head.output.bias[model.config.eos_token_id] = -3
    return model


WAYS = {
    "greedy": {"num_beams": 1},
    "best path": {"num_beams": 1, "ctc_weight": 1.0},
    "sampling": {"num_beams": 1, "do_sample": True},
    "beams": {"num_beams": 3},
    "n-best": {"num_beams": 3, "num_return_sequences": 2},
    "beam sampling": {"num_beams": 3, "do_sample": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_generating_gives_the_same_as_a_dictionary(recogniser, way):
    asked, config = WAYS[way], recogniser.config
    texts = asked.get("num_return_sequences", 1)
    torch.manual_seed(0)
    ids = recogniser.generate(**heard(), **asked, max_new_tokens=6)
    assert ids.shape[0] == 2 * texts and 1 < ids.shape[1] <= 7 and (ids[:, 0] == config.decoder_start_token_id).all()
    torch.manual_seed(0)
    shown = {"output_scores": True, "output_attentions": True, "output_hidden_states": True}
    recogniser.set_attn_implementation("eager")
    output = recogniser.generate(**heard(), **asked, **shown, max_new_tokens=6, return_dict_in_generate=True)
    recogniser.set_attn_implementation("sdpa")
    assert torch.equal(output.sequences, ids)
    assert len(output.encoder_attentions) == FUSION_LAYERS and len(output.encoder_hidden_states) == FUSION_LAYERS + 1
    if way == "best path":  # without the decoder
        return
    steps = len(output.scores)
    assert ids.shape[1] - 1 <= steps <= 6 and output.scores[0].shape[-1] == config.vocab_size
    assert len(output.decoder_attentions) == len(output.cross_attentions) == len(output.decoder_hidden_states) == steps
    assert {len(step) for step in output.decoder_attentions} == {DECODER_LAYERS}
    assert {len(step) for step in output.decoder_hidden_states} == {DECODER_LAYERS + 1}
    if asked["num_beams"] > 1:
        assert output.sequences_scores.shape == (2 * texts,)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_is_the_same_without_a_cache_and_from_what_is_encoded(recogniser, num_beams):
    asked = {"num_beams": num_beams, "max_new_tokens": 6}
    expected = recogniser.generate(**heard(), **asked)
    assert torch.equal(recogniser.generate(**heard(), **asked, use_cache=False), expected)
    encoded = recogniser.get_encoder()(**heard())
    assert torch.equal(recogniser.generate(encoder_outputs=encoded, **asked), expected)


def test_a_generation_config_is_honoured_and_saved(recogniser, tmp_path):
    config = GenerationConfig(num_beams=3, num_return_sequences=2, max_new_tokens=4)
    found = recogniser.generate(**heard(), generation_config=config)
    assert torch.equal(found, recogniser.generate(**heard(), num_beams=3, num_return_sequences=2, max_new_tokens=4))
    model = copy.deepcopy(recogniser)
    model.generation_config.update(**config.to_diff_dict())
    model.save_pretrained(tmp_path)
    assert torch.equal(AvsrForConditionalGeneration.from_pretrained(tmp_path).generate(**heard()), found)


def test_what_generation_does_not_do_is_refused_by_name(recogniser):
    for name, value in {"assistant_model": recogniser, "prompt_lookup_num_tokens": 2, "guidance_scale": 2.0}.items():
        with pytest.raises(ValueError, match=name):
            recogniser.generate(**heard(), **{name: value})


def test_who_can_generate(recogniser):
    assert {case.model for case in CASES if case.model.can_generate()} == {AvsrForConditionalGeneration}
