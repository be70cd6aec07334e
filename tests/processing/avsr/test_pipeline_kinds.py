"""The pipeline with a small model of each kind: other authors' recognisers, and other encoders of the sound."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSpeechSeq2Seq, pipeline

from lookhear import AvsrConfig, AvsrForConditionalGeneration
from lookhear.processing.avsr import (
    AudioVisualSpeechRecognitionPipeline,
    AvsrFeatureExtractor,
    AvsrProcessor,
    AvsrTokenizer,
    MouthRoiImageProcessor,
)
from lookhear.training.avsr.export import save_checkpoint

from .test_pipeline import face_video

pytestmark = pytest.mark.slow

TASK = "audio-visual-speech-recognition"
TOKENS = ["<blank>", "<unk>", "\u2581", "\u2581A", "B", "\u2581BE", "C", "<eos>"]
TRUNK = {"stem_channels": 4, "hidden_sizes": (4, 4, 8, 8), "depths": (1, 1, 1, 1)}
LIPS = AvsrConfig.auto_avsr().visual_config.to_dict() | TRUNK
SOUND = {"front_end": "resnet", **TRUNK}
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "encoder_layers": 1}
SMALL = {"vocab_size": len(TOKENS), "decoder_layers": 1, "visual_config": LIPS, "audio_config": SOUND, **SIZES}
MODEL_JSON = {
    **{f"{prefix}{name}": value for prefix in ("", "aux_") for name, value in {"adim": 16, "aheads": 2}.items()},
    **{f"{prefix}{name}": value for prefix in ("", "aux_") for name, value in {"eunits": 24, "elayers": 1}.items()},
    **{f"{prefix}macaron_style": True for prefix in ("", "aux_")},
    **{f"{prefix}use_cnn_module": True for prefix in ("", "aux_")},
    **{f"{prefix}cnn_module_kernel": 5 for prefix in ("", "aux_")},
    **{f"{prefix}transformer_encoder_attn_layer_type": "rel_mha" for prefix in ("", "aux_")},
    "transformer_input_layer": "conv3d",
    "dunits": 24,
    "dlayers": 1,
    "mtlalpha": 0.1,
    "fusion_hdim": 20,
    "fusion_norm": "batchnorm",
}
WHISPER = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 20}
BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
CONVOLUTIONS = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 7, "num_conv_pos_embedding_groups": 2}
ENCODERS = {
    "whisper": ("whisper", WHISPER | {"max_source_positions": 50}),
    "w2v-bert": ("wav2vec2-bert", BERT | {"model_type": "wav2vec2-bert"}),
    "wavlm": ("wav2vec2", BERT | CONVOLUTIONS | {"model_type": "wavlm"}),
}
KINDS = ("usr2", "auto_avsr_sound", "auto_avsr_lips", "vsr-ml", *ENCODERS)


def config_of(kind: str) -> AvsrConfig:
    if kind == "usr2":
        return AvsrConfig.usr2(**SMALL)
    if kind.startswith("auto_avsr"):
        modality = "audio" if kind.endswith("sound") else "visual"
        return AvsrConfig.auto_avsr(modality, conformer_kernel_size=5, **SMALL)
    if kind == "vsr-ml":
        fields = {name: SMALL[name] for name in ("vocab_size", "visual_config", "audio_config")}
        return AvsrConfig.vsr_ml(MODEL_JSON, **fields)
    front_end, encoder = ENCODERS[kind]
    end = dict.fromkeys(("eos_token_id", "bos_token_id", "decoder_start_token_id"), len(TOKENS) - 1)
    audio = {"front_end": front_end, "encoder_config": encoder}
    return AvsrConfig(**{**SMALL, **end, "audio_config": audio, "fusion_layers": 1, "head_hidden_sizes": ()})


@torch.no_grad()
def enliven(model: AvsrForConditionalGeneration) -> None:
    """Moves and stretches CTC's scores, so that each label is the best of some frames."""
    generator, inputs = torch.Generator().manual_seed(3), {}
    if model.config.modality != "visual":
        inputs["audio"] = {"input_values": 0.1 * torch.randn(1, 25600, generator=generator)}
    if model.config.modality != "audio":
        inputs["visual"] = {"pixel_values_videos": torch.randn(1, 40, 1, 88, 88, generator=generator)}
    heads = getattr(model.ctc_head, "heads", {})
    views = {name: inputs[name] for name in heads if name in inputs}
    views["audiovisual"] = {name: value for half in inputs.values() for name, value in half.items()}
    for name, view in views.items():
        head = heads[name] if name in heads else model.ctc_head
        logits = model.compute_ctc_logits(model.get_encoder()(**view))[0]  # (frames, labels)
        gain = 5 / logits.std(dim=0).mean()
        head.output.bias.copy_(-gain * (logits.mean(dim=0) - head.output.bias))
        head.output.weight.mul_(gain)


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(kind, tmp_path_factory) -> Path:
    """A folder as it is published. The model has something to say, and its lips and sound agree on nothing."""
    torch.manual_seed(0)
    model = AvsrForConditionalGeneration(config_of(kind)).eval()
    enliven(model)
    model.generation_config.lip_evidence = 0.0
    normalised = kind not in ("usr2", "whisper", "w2v-bert")
    images = MouthRoiImageProcessor.vsr_ml() if kind == "vsr-ml" else MouthRoiImageProcessor.auto_avsr()
    processor = AvsrProcessor(AvsrFeatureExtractor(do_normalize=normalised), images, AvsrTokenizer.from_units(TOKENS))
    return save_checkpoint(model, processor, tmp_path_factory.mktemp(kind) / "checkpoint", half=False)


@pytest.fixture(scope="module")
def asr(checkpoint) -> AudioVisualSpeechRecognitionPipeline:
    return pipeline(TASK, model=str(checkpoint), device="cpu", num_beams=1, ctc_weight=1.0)


def clip_for(asr, seconds: float, seed: int = 0, pause: bool = False) -> dict:
    """Noise, and lips, of what the model reads; with a second of silence in every third one if a pause is wanted."""
    generator, modality = np.random.default_rng(seed), asr.model.config.modality
    wave = 0.1 * generator.standard_normal(round(16000 * seconds)).astype(np.float32)
    mouths = generator.integers(0, 255, (round(25 * seconds), 96, 96), dtype=np.uint8)
    for second in range(2, int(seconds), 3) if pause else ():
        wave[16000 * second : 16000 * second + 12000] = 0
        mouths[25 * second : 25 * second + 19] = 128
    sound = {"audio": wave, "sampling_rate": 16000} if modality != "visual" else {}
    return sound | ({"mouths": mouths} if modality != "audio" else {})


def said(result: dict) -> tuple:
    return result["text"], [(chunk["text"], chunk["timestamp"]) for chunk in result["chunks"]]


@pytest.mark.parametrize("search", ["joint", "espnet"])
def test_a_clip_alone_and_in_a_batch(asr, search):
    clips = [clip_for(asr, seconds, seed) for seed, seconds in enumerate((0.8, 1.32, 0.4))]
    settings = {"return_timestamps": "word", "num_beams": 4, "ctc_weight": 0.3, "num_return_sequences": 2}
    together = asr(clips, batch_size=3, search=search, **settings)
    for clip, result in zip(clips, together):
        alone = asr(clip, search=search, **settings)
        assert said(alone) == said(result)
        assert [other["text"] for other in alone["alternatives"]] == [x["text"] for x in result["alternatives"]]
    assert len({result["text"] for result in asr(clips)}) == 3  # it says something, and not always the same


def test_a_long_clip_is_read_in_chunks_and_as_a_stream(asr):
    clip = clip_for(asr, 7.0, pause=True)
    settings = {"chunk_length_s": 2, "return_timestamps": "word"}
    result = asr(clip, **settings)
    assert result["text"] and result["text"] == " ".join(chunk["text"] for chunk in result["chunks"])
    times = [time for chunk in result["chunks"] for time in chunk["timestamp"]]
    assert times == sorted(times) and 0 <= times[0] and 5 < times[-1] <= 7.0
    assert all(0 <= chunk["confidence"] <= 1 for chunk in result["chunks"])
    with asr.stream(clip, **settings) as speech:
        assert list(speech) == result["chunks"]
    short = clip_for(asr, 1.0)
    assert said(asr(short, **settings)) == said(asr(short, return_timestamps="word"))


def test_a_chosen_speaker_is_read(asr):
    if asr.model.config.modality == "audio":
        with pytest.raises(ValueError, match="speaker"):
            asr(clip_for(asr, 0.48), speaker={"box": (0, 0, 260, 260)})
        return
    face = face_video()
    pair = np.concatenate([face, face[::-1]], axis=2)
    clip = {**clip_for(asr, 0.48), "video": pair, "fps": 25}
    clip.pop("mouths")
    left, right = ({"track": [(side, 0, side + 260, 260)] * 12} for side in (0, 260))
    seen = asr(clip, speaker=left), asr(clip, speaker=right)
    assert all(result["report"]["speaker"]["located"] == 1.0 for result in seen)
    alone = asr({**clip, "video": face}, speaker=left)
    assert alone["text"] == seen[0]["text"] != ""


@torch.no_grad()
def test_half_precision_reads_nearly_the_same(asr, checkpoint):
    clip = clip_for(asr, 1.0)
    half = pipeline(TASK, model=str(checkpoint), device="cpu", dtype=torch.bfloat16)
    result = half(clip, return_timestamps="word", num_beams=3)
    assert result["text"] == " ".join(chunk["text"] for chunk in result["chunks"])
    settings = {} if asr.model.config.modality == "visual" else {"audio": [clip["audio"]], "sampling_rate": 16000}
    settings |= {} if asr.model.config.modality == "audio" else {"videos": [clip["mouths"]]}
    inputs = asr.processor(**settings, return_tensors="pt")
    halves = {name: value.bfloat16() if value.is_floating_point() else value for name, value in inputs.items()}
    states, expected = (model.get_encoder()(**one) for model, one in ((half.model, halves), (asr.model, inputs)))
    assert states.last_hidden_state.dtype == torch.bfloat16
    difference = states.last_hidden_state.float() - expected.last_hidden_state
    assert difference.norm() / expected.last_hidden_state.norm() < 0.03


CHILD = """
import json, sys
import numpy as np
from transformers import pipeline

asr = pipeline("audio-visual-speech-recognition", model=sys.argv[1], device="cpu", trust_remote_code=True)
clip = {name: value if value.ndim else value.item() for name, value in np.load(sys.argv[2]).items()}
assert type(asr.model).__module__.split(".")[0] == "transformers_modules" and "lookhear" not in sys.modules
print("RESULT" + json.dumps(asr(clip, return_timestamps="word", num_beams=3)))
"""


def test_without_lookhear_the_result_is_equal(asr, checkpoint, tmp_path, without_lookhear):
    clip = clip_for(asr, 1.0)
    np.savez(tmp_path / "clip.npz", **clip)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-c", without_lookhear(CHILD), str(checkpoint), str(tmp_path / "clip.npz")]
    child = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=240
    )
    assert child.returncode == 0, child.stderr[-3000:]
    here = pipeline(TASK, model=str(checkpoint), device="cpu")(clip, return_timestamps="word", num_beams=3)
    there = json.loads(child.stdout.split("RESULT")[1])
    assert said(there) == said(json.loads(json.dumps(here))) and there["report"] == json.loads(
        json.dumps(here["report"])
    )
    assert there["confidence"] == pytest.approx(here["confidence"], abs=1e-3)


def test_what_is_saved_again_is_the_same(asr, tmp_path):
    asr.save_pretrained(tmp_path)
    again = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path)
    weights = asr.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
    clip = clip_for(asr, 0.6)
    other = pipeline(TASK, model=str(tmp_path), device="cpu", num_beams=1, ctc_weight=1.0)
    assert said(other(clip, return_timestamps="word")) == said(asr(clip, return_timestamps="word"))
