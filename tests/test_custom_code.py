"""A published checkpoint loads with lookhear (no flag, no prompt) and without it (`trust_remote_code=True`), alike."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSpeechSeq2Seq, AutoProcessor, pipeline

import lookhear
from lookhear.processing.avsr import AvsrFeatureExtractor, AvsrProcessor, AvsrTokenizer, MouthRoiImageProcessor
from lookhear.training.avsr.export import save_checkpoint
from lookhear.training.export import half_matrices

TASK = "audio-visual-speech-recognition"
PACKAGED = [
    ("avsr-grid-tiny", TASK),
    ("glee-tiny", "object-perception"),
    ("lisa-glee-tiny", "reasoning-segmentation"),
]
CONFIG = {
    "audio_config": {"front_end": "spectrogram", "num_mel_bins": 8, "n_fft": 400},
    "visual_config": {
        "stem_channels": 4,
        "hidden_sizes": (4, 8),
        "depths": (1, 1),
        "layer_type": "basic",
        "crop_size": 20,
    },
    "hidden_size": 16,
    "encoder_layers": 1,
    "fusion_layers": 1,
    "decoder_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "head_hidden_sizes": (16,),
    "ctc_upsampling": 2,
}

# Loads everything where lookhear cannot be imported, and writes what came out as JSON.
CHILD = """
import json, sys
import numpy as np, torch
from transformers import AutoModel, AutoModelForSpeechSeq2Seq, AutoProcessor, pipeline

folder, arrays = sys.argv[1], dict(np.load(sys.argv[2]))
trust = {"trust_remote_code": True}
processor = AutoProcessor.from_pretrained(folder, **trust)
inputs = processor(audio=arrays["audio"], sampling_rate=16000, videos=arrays["mouths"], text="bin blue")
model = AutoModelForSpeechSeq2Seq.from_pretrained(folder, **trust).eval()
base = AutoModel.from_pretrained(folder, **trust).eval()
asr = pipeline("audio-visual-speech-recognition", model=folder, device="cpu", **trust)
clip = {"audio": arrays["audio"], "sampling_rate": 16000, "mouths": arrays["mouths"]}
with torch.no_grad():
    result = {
        "classes": [type(o).__name__ for o in (processor, model, base, asr)],
        "modules": sorted({type(o).__module__.split(".")[0] for o in (processor, model, base, asr)}),
        "lookhear": sorted(name for name in sys.modules if name.split(".")[0] == "lookhear"),
        "dtype": str(model.dtype),
        "loss": float(model(**inputs).loss),
        "hidden": base(**{k: v for k, v in inputs.items() if k != "labels"}).last_hidden_state.flatten().tolist(),
        "asr": asr(clip, return_timestamps="word", num_beams=3),
        "batch": asr([clip, {**clip, "mouths": None}], batch_size=2, num_beams=3),
    }
print("RESULT" + json.dumps(result))
"""


# Reads a drawn face where lookhear cannot be imported; the networks that find it came with the checkpoint, or did not.
FACES = """
import json, sys
import numpy as np
from transformers import pipeline

folder, clip = sys.argv[1], {"video": np.load(sys.argv[2]), "fps": 25.0}
asr = pipeline("audio-visual-speech-recognition", model=folder, device="cpu", trust_remote_code=True)
try:
    result = asr(clip)
except ImportError as error:
    result = str(error)
assert not [name for name in sys.modules if name.split(".")[0] == "lookhear"]
print("RESULT" + json.dumps(result))
"""


@pytest.fixture(scope="module")
def processor() -> AvsrProcessor:
    images = MouthRoiImageProcessor(roi_size=24, crop_size=20, mouth_width=12.0)
    return AvsrProcessor(AvsrFeatureExtractor(), images, AvsrTokenizer())


def make_model(**config) -> lookhear.AvsrForConditionalGeneration:
    torch.manual_seed(0)
    return lookhear.AvsrForConditionalGeneration(lookhear.AvsrConfig(**{**CONFIG, **config})).eval()


@pytest.fixture(scope="module")
def folder(processor, tmp_path_factory) -> Path:
    return save_checkpoint(make_model(), processor, tmp_path_factory.mktemp("published") / "avsr-tiny")


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    audio = (0.1 * generator.standard_normal(9600)).astype(np.float32)
    return {"audio": audio, "mouths": generator.integers(0, 255, (15, 24, 24), dtype=np.uint8)}


@pytest.fixture
def no_prompt(monkeypatch):
    """Any question to the user fails."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("transformers asked whether to run custom code"))


def test_folder_is_complete(folder):
    names = {path.name for path in folder.iterdir()}
    data = {"config.json", "generation_config.json", "model.safetensors", "processor_config.json"}
    code = {
        "configuration_avsr.py",
        "modeling_avsr.py",
        "pipeline_avsr.py",
        "processing_avsr.py",
        "clip_stream_avsr.py",
    }
    assert data | code | {"tokenizer_config.json", "vocab.json"} <= names
    assert not [name for name in names if name.startswith(".")]
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_avsr.AvsrConfig",
        "AutoModel": "modeling_avsr.AvsrModel",
        "AutoModelForSpeechSeq2Seq": "modeling_avsr.AvsrForConditionalGeneration",
    }
    assert config["custom_pipelines"][TASK]["impl"] == "pipeline_avsr.AudioVisualSpeechRecognitionPipeline"


def test_matrices_are_stored_half_and_loaded_whole(folder):
    weights = load_file(folder / "model.safetensors")
    assert {w.dtype for w in weights.values() if w.ndim >= 2} == {torch.float16}
    assert {w.dtype for w in weights.values() if w.ndim == 1} == {torch.float32}
    expected = make_model().state_dict()
    for dtype in (None, "auto"):
        loaded = AutoModelForSpeechSeq2Seq.from_pretrained(folder, **({"dtype": dtype} if dtype else {}))
        assert {p.dtype for p in loaded.parameters()} == {torch.float32}
        for name, weight in loaded.state_dict().items():
            torch.testing.assert_close(weight, expected[name].half().float() if weight.ndim > 1 else expected[name])


def test_whole_weights_on_request(processor, tmp_path):
    model = make_model()
    save_checkpoint(model, processor, tmp_path / "whole", half=False)
    loaded = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "whole").state_dict()
    assert all(torch.equal(weight, loaded[name]) for name, weight in model.state_dict().items())
    assert getattr(model.config, "custom_pipelines", None) is None


def test_saving_again_keeps_what_others_put_there(processor, tmp_path):
    (tmp_path / "README.md").write_text("card")
    for _ in range(2):
        save_checkpoint(make_model(), processor, tmp_path)
    assert (tmp_path / "README.md").read_text() == "card"


def test_what_does_not_belong_together_is_refused(processor, tmp_path):
    with pytest.raises(ValueError, match="vocabulary is 50"):
        save_checkpoint(make_model(vocab_size=50), processor, tmp_path / "wrong")
    with pytest.raises(ValueError, match="embedding is not finite in float16"):
        half_matrices({"embedding": torch.full((2, 2), 1e6)})


def test_with_lookhear_nothing_is_asked(folder, arrays, no_prompt):
    assert type(AutoConfig.from_pretrained(folder)) is lookhear.AvsrConfig
    assert type(AutoModel.from_pretrained(folder)) is lookhear.AvsrModel
    assert type(AutoModelForSpeechSeq2Seq.from_pretrained(folder)) is lookhear.AvsrForConditionalGeneration
    processor = AutoProcessor.from_pretrained(folder)
    parts = (processor, processor.feature_extractor, processor.image_processor, processor.tokenizer)
    assert [type(part) for part in parts] == [
        AvsrProcessor,
        AvsrFeatureExtractor,
        MouthRoiImageProcessor,
        AvsrTokenizer,
    ]
    asr = pipeline(TASK, model=str(folder), device="cpu")
    assert type(asr) is lookhear.AudioVisualSpeechRecognitionPipeline
    assert type(asr.processor) is AvsrProcessor
    asr = pipeline(TASK, model=asr.model, processor=processor, device="cpu")
    assert asr({"audio": arrays["audio"], "sampling_rate": 16000})["report"]["modality"] == "audio"


def test_the_pipeline_saves_what_it_loads(folder, arrays, no_prompt, tmp_path):
    asr = pipeline(TASK, model=str(folder), device="cpu")
    asr.save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    assert type(asr.tokenizer) is AvsrTokenizer
    again = pipeline(TASK, model=str(tmp_path), device="cpu")
    clip = {"audio": arrays["audio"], "sampling_rate": 16000}
    assert again(clip) == asr(clip)


def test_without_lookhear_the_results_are_equal(folder, arrays, no_prompt, tmp_path, without_lookhear):
    np.savez(tmp_path / "arrays.npz", **arrays)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-c", without_lookhear(CHILD), str(folder), str(tmp_path / "arrays.npz")]
    child = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=240
    )
    assert child.returncode == 0, child.stderr[-3000:]
    there = json.loads(child.stdout.split("RESULT")[1])
    assert there["lookhear"] == []
    assert there["modules"] == ["transformers_modules"]
    assert there["dtype"] == "torch.float32"

    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(audio=arrays["audio"], sampling_rate=16000, videos=arrays["mouths"], text="bin blue")
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()
    base = AutoModel.from_pretrained(folder).eval()
    asr = pipeline(TASK, model=str(folder), device="cpu")
    assert there["classes"] == [type(part).__name__ for part in (processor, model, base, asr)]
    with torch.no_grad():
        assert there["loss"] == pytest.approx(float(model(**inputs).loss), abs=1e-5)
        inputs.pop("labels")
        hidden = base(**inputs).last_hidden_state.flatten().tolist()
    assert there["hidden"] == pytest.approx(hidden, abs=1e-5)
    clip = {"audio": arrays["audio"], "sampling_rate": 16000, "mouths": arrays["mouths"]}
    here = asr(clip, return_timestamps="word", num_beams=3)
    assert there["asr"] == json.loads(json.dumps(here))
    assert there["batch"] == json.loads(json.dumps(asr([clip, {**clip, "mouths": None}], batch_size=2, num_beams=3)))


def test_face_networks_are_saved_with_the_processor_that_needs_them(processor, tmp_path):
    names = ("README.md", "LICENSE", "NOTICE", "model.safetensors")
    for landmarks, expected in (("dlib", set()), ("mesh", set(names))):
        images = MouthRoiImageProcessor(roi_size=24, crop_size=20, mouth_width=12.0, landmarks=landmarks)
        AvsrProcessor(processor.feature_extractor, images, processor.tokenizer).save_pretrained(tmp_path / landmarks)
        assert {path.name for path in (tmp_path / landmarks / "face-mesh").glob("*")} == expected
        assert AutoProcessor.from_pretrained(tmp_path / landmarks).image_processor.landmarks == landmarks
    packaged = Path(lookhear.__file__).parent / "model_cards" / "face-mesh"
    assert all((packaged / name).read_bytes() == (tmp_path / "mesh/face-mesh" / name).read_bytes() for name in names)


@pytest.mark.slow
def test_faces_are_found_without_lookhear(processor, tmp_path, without_lookhear):
    """By networks from the checkpoint's folder; where it lacks them, one line says so."""
    images = MouthRoiImageProcessor(roi_size=24, crop_size=20, mouth_width=12.0, landmarks="mesh")
    whole = AvsrProcessor(processor.feature_extractor, images, processor.tokenizer)
    folder = save_checkpoint(make_model(), whole, tmp_path / "published")
    drawn = runpy.run_path(str(Path(__file__).parent / "processing/avsr/drawn_faces.py"))["drawn_face"]()
    np.save(tmp_path / "video.npy", np.repeat(drawn[None], 10, axis=0))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-c", without_lookhear(FACES), str(folder), str(tmp_path / "video.npy")]

    def read() -> Any:
        options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 240}
        child = subprocess.run(command, cwd=tmp_path, env=environment, **options)
        assert child.returncode == 0, child.stderr[-3000:]
        return json.loads(child.stdout.split("RESULT")[1])

    here = pipeline(TASK, model=str(folder), device="cpu")({"video": np.load(tmp_path / "video.npy"), "fps": 25.0})
    there = read()
    assert there == json.loads(json.dumps(here)) and there["report"]["frames_with_face"] == 1.0
    shutil.rmtree(folder / "face-mesh")
    assert re.fullmatch(
        rf"Finding faces needs face-mesh/model.safetensors.*\({folder} has none\): pip.*dlib\"", read()
    )


@pytest.mark.parametrize("trust", [None, False, True])
@pytest.mark.parametrize(("name", "task"), PACKAGED, ids=["avsr", "glee", "lisa_glee"])
def test_packaged_checkpoint_loads_without_code_beside_it(repository, no_prompt, name, task, trust):
    folder = repository / "model_cards" / name
    loaded = pipeline(task, model=str(folder), device="cpu", trust_remote_code=trust)
    parts = (loaded, loaded.model, loaded.processor, AutoModel.from_pretrained(folder, trust_remote_code=trust))
    assert {type(part).__module__.split(".")[0] for part in parts} == {"lookhear"}


@pytest.mark.parametrize(("name", "task"), PACKAGED, ids=["avsr", "glee", "lisa_glee"])
def test_saving_a_packaged_checkpoint_writes_its_code(repository, tmp_path, name, task):
    """The folder is complete for those without lookhear; the configuration in memory is what it was."""
    loaded = pipeline(task, model=str(repository / "model_cards" / name), device="cpu")
    loaded.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    modules = {value.split(".")[0] for value in config["auto_map"].values()} | {
        config["custom_pipelines"][task]["impl"].split(".")[0]
    }
    assert {"AutoConfig", "AutoModel"} <= set(config["auto_map"])
    assert all((tmp_path / f"{module}.py").is_file() for module in modules)
    assert not hasattr(loaded.model.config, "auto_map") and not hasattr(loaded.model.config, "custom_pipelines")
