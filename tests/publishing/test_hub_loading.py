"""From `lookhear publish` to a process without lookhear that loads what was published and reads a clip with it."""

import json
import math
import signal

import evaluate
import numpy as np
import pytest
import torch
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, pipeline

from lookhear.publishing import gather
from lookhear.training.avsr.synthesis import VOICES, speak

MODEL, EYES, METRICS = "org/avsr-grid-tiny", "org/glee-tiny", ("wer", "cer", "coco_ap", "hota")
TASK = "audio-visual-speech-recognition"

# Loads everything from the Hub where lookhear cannot be imported, and prints what came out as JSON.
CHILD = """
import json, sys
import evaluate, numpy as np, torch
from transformers import AutoModel, AutoModelForSpeechSeq2Seq, AutoProcessor, pipeline

repo, clip, arrays, examples = sys.argv[1], sys.argv[2], dict(np.load(sys.argv[3])), json.loads(sys.argv[4])
trust = {"trust_remote_code": True}
processor = AutoProcessor.from_pretrained(repo, **trust)
model = AutoModelForSpeechSeq2Seq.from_pretrained(repo, **trust).eval()
base = AutoModel.from_pretrained(repo, **trust)
asr = pipeline("audio-visual-speech-recognition", model=repo, device="cpu", **trust)
inputs = processor(audio=arrays["audio"], sampling_rate=16000, videos=arrays["mouths"], return_tensors="pt")
with torch.no_grad():
    ids = model.generate(**inputs, num_beams=1, ctc_weight=0.0, max_new_tokens=5)
see = pipeline("object-perception", model="org/glee-tiny", device="cpu", **trust)
chosen = asr(clip, speaker="the person", speaker_locator=see)
listen = pipeline("automatic-speech-recognition", model=repo, device="cpu", **trust)
figures = {name: evaluate.load(f"org/{name}").compute(**rows) for name, rows in examples.items()}
print("RESULT" + json.dumps({
    "read": asr(clip, return_timestamps="word"),
    "chosen": {"text": chosen["text"], "speaker": chosen["report"]["speaker"]},
    "ids": ids.tolist(),
    "heard": listen({"raw": arrays["speech"], "sampling_rate": 16000})["text"],
    "classes": [type(o).__name__ for o in (processor, model, base, asr, see)],
    "modules": sorted({type(o).__module__.split(".")[0] for o in (processor, model, base, asr, see)}),
    "figures": figures,
    "lookhear": sorted(name for name in sys.modules if name.split(".")[0] == "lookhear"),
}))
"""


@pytest.fixture(scope="module")
def folder(repository):
    return repository / "model_cards" / "avsr-grid-tiny"


@pytest.fixture(scope="module")
def killed(shared_hub, child, folder):
    """A `lookhear publish` whose process was killed while it sent the weights: (its exit code, the repository)."""
    publishing = child("-m", "lookhear.cli", "publish", str(folder), "--repo", MODEL)

    def kill(call: str) -> bool:
        if call.startswith("PUT"):
            publishing.kill()
            return True
        return False

    shared_hub.breaks = kill
    publishing.communicate(timeout=500)
    shared_hub.breaks = None
    repository = shared_hub.repositories["model", MODEL]
    return publishing.returncode, list(repository.commits)


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_killed_push_leaves_nothing_behind(killed):
    code, commits = killed
    assert code == -signal.SIGKILL and len(commits) == 1 and commits[0][1] == {}


@pytest.fixture
def published(command, killed, folder):
    """The same command again, which goes on; (exit code, stdout, stderr)."""
    return command(folder, "--repo", MODEL)


@pytest.mark.timeout(600)
def test_the_same_command_goes_on(shared_hub, published, folder):
    code, out, err = published
    assert code == 0, err
    repository = shared_hub.repositories["model", MODEL]
    assert out == f"{shared_hub.url}/{MODEL}/commit/{repository.head}\n"
    assert {file.path for file in gather(folder, MODEL).files} == set(repository.files)
    assert repository.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert (
        f"{shared_hub.url}/{MODEL}/blob/main/results.json"
        in repository.files[".eval_results/grid-noise.yaml"].decode()
    )


@pytest.fixture(scope="module")
def examples(repository) -> dict:
    """Rows of each metric, as its page shows them at first."""
    rows = {}
    for name in METRICS:
        example = json.loads((repository / "spaces" / "metrics" / "examples" / f"{name}.json").read_text())
        rows[name] = {**example.pop("settings", {}), **example}
    return rows


@pytest.fixture
def elsewhere(
    shared_hub, child, without_lookhear, command, published, examples, repository, talking_clips, arrays, tmp_path
) -> dict:
    """What a process without lookhear makes of the published checkpoint and metrics."""
    assert command(repository / "model_cards" / "glee-tiny", "--repo", EYES)[0] == 0
    for name in METRICS:
        assert command(repository / "evaluation" / "metrics" / name, "--repo", f"org/{name}")[0] == 0
    np.savez(tmp_path / "arrays.npz", **arrays)
    clip = str(talking_clips / "0.mp4")
    loading = child("-c", without_lookhear(CHILD), MODEL, clip, str(tmp_path / "arrays.npz"), json.dumps(examples))
    out, err = loading.communicate(timeout=500)
    assert loading.returncode == 0, err[-3000:]
    return json.loads(out.split("RESULT")[1])


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    audio = (0.1 * generator.standard_normal(9600)).astype(np.float32)
    mouths = generator.integers(0, 255, (15, 64, 64), dtype=np.uint8)
    return {"audio": audio, "mouths": mouths, "speech": speak("bin blue at f two now", VOICES[0]).audio}


@pytest.mark.timeout(600)
def test_what_was_published_works_without_lookhear(
    elsewhere, folder, repository, talking_clips, arrays, examples, tmp_path
):
    assert elsewhere["lookhear"] == [] and elsewhere["modules"] == ["transformers_modules"]
    assert elsewhere["classes"] == [
        "AvsrProcessor",
        "AvsrForConditionalGeneration",
        "AvsrModel",
        "AudioVisualSpeechRecognitionPipeline",
        "ObjectPerceptionPipeline",
    ]
    asr = pipeline(TASK, model=str(folder), device="cpu")
    here = asr(str(talking_clips / "0.mp4"), return_timestamps="word")
    assert elsewhere["read"]["text"] == here["text"] and here["text"]
    assert [chunk["timestamp"] for chunk in elsewhere["read"]["chunks"]] == [
        list(chunk["timestamp"]) for chunk in here["chunks"]
    ]
    assert elsewhere["read"]["confidence"] == pytest.approx(here["confidence"], abs=1e-4)

    see = pipeline("object-perception", model=str(repository / "model_cards" / "glee-tiny"), device="cpu")
    here = asr(str(talking_clips / "0.mp4"), speaker="the person", speaker_locator=see)
    assert elsewhere["chosen"] == plain({"text": here["text"], "speaker": here["report"]["speaker"]})

    sound = {"audio": arrays["speech"], "sampling_rate": 16000}
    assert elsewhere["heard"].split() == asr(sound, modality="audio")["text"].split() != []

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()
    inputs = processor(audio=arrays["audio"], sampling_rate=16000, videos=arrays["mouths"], return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**inputs, num_beams=1, ctc_weight=0.0, max_new_tokens=5)
    assert elsewhere["ids"] == ids.tolist()

    for name, rows in examples.items():
        metric = evaluate.load(str(repository / "evaluation" / "metrics" / name), cache_dir=str(tmp_path))
        assert plain(elsewhere["figures"][name]) == plain(metric.compute(**rows)), name


def plain(value):
    """As it is after JSON, NaN as a word."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return "nan" if math.isnan(value) else pytest.approx(float(value), abs=1e-3)
    return int(value) if isinstance(value, np.integer) else value
