"""AvsrProcessor: names and shapes of the inputs, absent modalities, labels, round trip."""

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor, AutoTokenizer

import lookhear  # noqa: F401  (registers the Auto classes)
from lookhear.processing.avsr import AvsrFeatureExtractor, AvsrProcessor, AvsrTokenizer, MouthRoiImageProcessor


@pytest.fixture(scope="module")
def processor() -> AvsrProcessor:
    images = MouthRoiImageProcessor(roi_size=24, crop_size=20, mouth_width=12.0)
    return AvsrProcessor(AvsrFeatureExtractor(), images, AvsrTokenizer(lower_case_output=True))


@pytest.fixture
def clips() -> dict:
    generator = np.random.default_rng(0)
    waves = [generator.standard_normal(n).astype(np.float32) for n in (640, 960)]
    mouths = [generator.integers(0, 255, (n, 24, 24), dtype=np.uint8) for n in (5, 3)]
    return {"audio": waves, "sampling_rate": 16000, "videos": mouths, "text": ["at", "bin blue"]}


def test_names_and_shapes_of_the_public_interface(processor, clips):
    inputs = processor(**clips)
    assert {name: tuple(value.shape) for name, value in inputs.items()} == {
        "input_values": (2, 960),
        "attention_mask": (2, 960),
        "pixel_values_videos": (2, 5, 1, 20, 20),
        "video_attention_mask": (2, 5),
        "labels": (2, 9),
    }
    assert inputs["attention_mask"].sum(1).tolist() == [640, 960]
    assert inputs["video_attention_mask"].sum(1).tolist() == [5, 3]
    assert inputs["labels"][0].tolist() == [5, 3, 39] + 6 * [-100]
    assert set(inputs) - {"labels"} == set(processor.model_input_names)


def test_one_clip_is_a_batch_of_one(processor, clips):
    inputs = processor(audio=clips["audio"][0], sampling_rate=16000, videos=clips["videos"][0], text="at")
    assert inputs["input_values"].shape == (1, 640)
    assert inputs["pixel_values_videos"].shape == (1, 5, 1, 20, 20)
    assert inputs["labels"].tolist() == [[5, 3, 39]]


def test_one_modality_alone(processor, clips):
    assert set(processor(audio=clips["audio"], sampling_rate=16000)) == {"input_values", "attention_mask"}
    assert set(processor(videos=clips["videos"])) == {"pixel_values_videos", "video_attention_mask"}
    assert set(processor(text="at")) == {"labels"}


def test_absent_modalities_have_masks_of_zeros(processor, clips):
    inputs = processor(audio=[clips["audio"][0], None], sampling_rate=16000, videos=[None, clips["videos"][1]])
    assert inputs["attention_mask"].sum(1).tolist() == [640, 0]
    assert inputs["video_attention_mask"].sum(1).tolist() == [0, 3]
    assert not inputs["input_values"][1].any()
    assert not inputs["pixel_values_videos"][0].any()
    assert "input_values" not in processor(audio=[None, None], sampling_rate=16000, videos=clips["videos"])


def test_numpy_and_lists(processor, clips):
    as_numpy = processor(**clips, return_tensors="np")
    as_torch = processor(**clips)
    for name, value in as_numpy.items():
        assert isinstance(value, np.ndarray)
        assert np.array_equal(value, as_torch[name].numpy())
    assert processor(text=["a", "at"], return_tensors=None)["labels"] == [[5, 39, -100], [5, 3, 39]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "at least one"),
        ({"audio": np.zeros(640)}, "`sampling_rate` is None"),
        ({"audio": [], "sampling_rate": 16000}, "empty"),
        ({"text": ["a", "b"], "videos": np.zeros((2, 24, 24), np.uint8)}, "equally many"),
        ({"audio": [None, None]}, "at least one"),
        ({"text": "a", "colour": 1}, "'colour'"),
    ],
)
def test_wrong_arguments_are_named(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(**arguments)


def test_decode(processor):
    ids = torch.tensor([[39, 20, 6, 7, 39, 0], [39, 5, 39, 0, 0, 0]])
    assert processor.batch_decode(ids) == ["bin", "a"]
    assert processor.decode(ids[0]) == "bin"


def test_save_and_load_through_every_auto_class(processor, clips, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is AvsrProcessor
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is AvsrTokenizer
    assert type(AutoFeatureExtractor.from_pretrained(tmp_path)) is AvsrFeatureExtractor
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is MouthRoiImageProcessor
    assert loaded.tokenizer.lower_case_output
    assert loaded.image_processor.to_dict() == processor.image_processor.to_dict()
    before, after = processor(**clips), loaded(**clips)
    assert all(torch.equal(before[name], after[name]) for name in before)
