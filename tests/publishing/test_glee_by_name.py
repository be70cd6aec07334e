"""GLEE's published weights by name: fetched from where the line broke, converted once, and there without network."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lookhear import GleeConfig, GleeForObjectDetection
from lookhear.cli import main
from lookhear.modeling.glee.convert_glee import check_weights, config_from_state_dict, convert_state_dict
from lookhear.training.glee import convert
from lookhear.training.glee.published import HUB_NAMES, checkpoint_file, published_file
from lookhear.training.hub_files import HubFile, fetched
from lookhear.training.named_models import local_model
from tests.loopback_hub import Repository
from tests.modeling.glee.conftest import small_config
from tests.modeling.glee.convert.conftest import BACKBONES, TEXT, publish

SPACE = "Junfeng5/GLEE_demo"
FILE = HubFile(SPACE, "MODEL_ZOO/GLEE_Lite_joint.pth", "space")
PLACE = f"/spaces/{SPACE}/resolve/main/{FILE.path}"
CONTENT = random.Random(0).randbytes(1_200_000)  # of which the Hub knows the digest
# A process of its own: the small checkpoint has another vocabulary than CLIP's, and its tokenizer is CLIP's here.
SEE = f"""
import sys
import numpy as np
from PIL import Image
import lookhear
from lookhear.training.glee import convert
convert.CLIP_VOCABULARY = {TEXT["vocab_size"]}
from transformers import pipeline

see = pipeline("object-perception", model="glee-lite", device="cpu")
see.processor.image_processor.size = {{"shortest_edge": 64}}
found = see(Image.fromarray(np.full((60, 80, 3), 90, np.uint8)), labels=["dog"], threshold=0.0, top_k=3)
print([round(one["score"], 6) for one in found])
"""


@pytest.fixture
def here(here, monkeypatch):
    """The tests' Hub in place of the real one, with a file under the name of GLEE-Lite's."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)  # what is lost at most: else 10 MB
    put(here, CONTENT)
    return here


def put(hub, content: bytes) -> None:
    hub.repositories["space", SPACE] = Repository({})
    hub.repositories["space", SPACE].commit({FILE.path: content})


def downloads(tmp_path) -> list:
    return [path for path in (tmp_path / "home" / "lookhear" / "downloads").iterdir() if path.suffix != ".lock"]


def broken_off(hub, tmp_path) -> None:
    """Fetches the file over a line that goes dead after a third of it, and does not come back."""
    hub.stops = lambda call: 400_000
    hub.breaks = lambda call: call.startswith("GET") and hub.calls.count(call) > 1
    message = rf"^checkpoint {FILE.path} in the space {SPACE} could not be fetched; the same command continues: "
    with pytest.raises(ValueError, match=message), fetched(FILE):
        pass
    hub.stops = hub.breaks = None


def test_names_stand_for_the_published_files():
    assert len(HUB_NAMES) == 12
    assert published_file("glee-lite") == published_file("glee-lite-joint") == FILE
    assert published_file("glee-pro-scaleup").path == "MODEL_ZOO/GLEE_Pro_scaleup.pth"
    assert published_file("glee-plus-pretrain").path == "MODEL_ZOO/GLEE_Plus_pretrain.pth"


def test_a_broken_download_continues_where_it_stopped(here, tmp_path, capsys):
    broken_off(here, tmp_path)
    (partial,) = downloads(tmp_path)
    assert partial.read_bytes() == CONTENT[:400_000]
    assert f"{FILE}: 1.2 MB\n" in capsys.readouterr().err
    sent = []
    here.stops = lambda call: sent.append(call)
    with fetched(FILE) as path:
        assert path.read_bytes() == CONTENT and path.suffix == ".pth"
    assert sent == [f"GET {PLACE}"]
    assert f"{FILE}: 1.2 MB, 400 kB are here\n" in capsys.readouterr().err
    assert downloads(tmp_path) == []  # what was made of it is needed, the file is not


def test_what_arrives_damaged_is_not_used(here, tmp_path):
    broken_off(here, tmp_path)
    (partial,) = downloads(tmp_path)
    partial.write_bytes(bytes(partial.stat().st_size))
    with pytest.raises(ValueError, match="arrived damaged and was deleted: run the same command again"):
        with fetched(FILE):
            pass
    assert downloads(tmp_path) == []
    with fetched(FILE) as path:
        assert path.read_bytes() == CONTENT


def test_another_version_starts_anew_and_an_error_leaves_the_file(here, tmp_path):
    broken_off(here, tmp_path)
    put(here, CONTENT[::-1])
    with pytest.raises(KeyError), fetched(FILE) as path:
        assert path.read_bytes() == CONTENT[::-1]
        raise KeyError
    here.stops = lambda call: pytest.fail(f"{call} again")
    with fetched(FILE) as path:
        assert path.read_bytes() == CONTENT[::-1]
    assert downloads(tmp_path) == []


def test_a_file_in_the_hubs_cache_is_used_and_stays(here, tmp_path):
    from huggingface_hub import hf_hub_download

    known = hf_hub_download(SPACE, FILE.path, repo_type="space")
    here.calls.clear()
    with checkpoint_file("glee-lite") as path:
        assert str(path) == known
    assert not here.calls and path.is_file()


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        (f"hf://spaces/{SPACE}/{FILE.path}", FILE),
        ("hf://a/b@v1/c.pth", HubFile("a/b", "c.pth", "model", "v1")),
        ("hf://datasets/a/b/c/d.pth", HubFile("a/b", "c/d.pth", "dataset")),
    ],
)
def test_paths_of_the_hub_are_read(uri, file):
    assert HubFile.from_uri(uri) == file


@pytest.mark.parametrize("uri", ["hf://", "hf://a", "hf://a/b", "hf://buckets/a/b/c.pth"])
def test_paths_that_name_no_file_are_refused(uri):
    with pytest.raises(ValueError, match="such as hf://spaces/Junfeng5/GLEE_demo/MODEL_ZOO/GLEE_Lite_joint.pth"):
        HubFile.from_uri(uri)


def test_a_missing_file_and_no_network_are_one_line(here, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="^checkpoint MODEL_ZOO/GLEE_Pro_joint.pth in the space .* could not be fetc"):
        local_model("glee-pro")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="could not be fetched; .*offline") as caught:
        local_model("glee-lite")
    assert "\n" not in str(caught.value)


def refused(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_what_is_no_name_is_explained(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    perceive = ("perceive", "photo.jpg", "--labels", "dog", "--model")
    assert "no model of that name: glee-lite, glee-lite-joint," in refused(capsys, *perceive, "glee-light")
    line = refused(capsys, *perceive, "GLEE_Lite_joint.pth")
    assert "convert it first: lookhear convert glee GLEE_Lite_joint.pth glee-lite-joint/" in line
    assert "convert it first: lookhear convert glee hf://a/b/c.pth c/" in refused(capsys, *perceive, "hf://a/b/c.pth")
    line = refused(capsys, "transcribe", "clip.mp4", "--model", "glee-lite")  # before anything is fetched
    assert "glee-lite is a model that finds objects (glee), for lookhear perceive; this command needs" in line
    line = refused(capsys, *perceive, "vsr-ml-lrs3-visual")
    assert "is a speech model (avsr), for lookhear transcribe; this command needs a model that finds objects" in line
    (tmp_path / "glee-lite").mkdir()  # a folder of one's own goes before
    assert local_model("glee-lite") == "glee-lite"


def save_small(hub, tokenizer, tmp_path) -> None:
    """Puts a small random checkpoint of the published layout on the Hub, and its tokenizer as CLIP's."""
    fields = {"hidden_size": 64, "num_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 2, "fusion_size": 64}
    fields |= {"backbone_config": BACKBONES["resnet"], "text_config": TEXT, "fusion_heads": 8, "canvas_divisor": None}
    fields |= {name: getattr(GleeConfig(), name) for name in ("num_groups", "template_size", "num_queries")}
    torch.manual_seed(0)
    weights = publish(GleeForObjectDetection(small_config(**fields)).eval())
    torch.save({"model": {f"glee.{name}": value for name, value in weights.items()}}, tmp_path / "weights.pth")
    put(hub, (tmp_path / "weights.pth").read_bytes())
    tokenizer.save_pretrained(tmp_path / "words")
    hub.repositories["model", convert.CLIP] = Repository({})
    words = {file.name: file.read_bytes() for file in (tmp_path / "words").iterdir()}
    hub.repositories["model", convert.CLIP].commit(words)


@pytest.mark.slow
def test_a_name_works_on_the_command_line(here, tiny_glee, monkeypatch, tmp_path, capsys):
    save_small(here, tiny_glee[1].tokenizer, tmp_path)
    monkeypatch.setattr(convert, "CLIP_VOCABULARY", TEXT["vocab_size"])
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    command = ["perceive", str(tmp_path / "photo.png"), "--model", "glee-lite", "--labels", "dog", "--threshold", "0"]
    broken_off(here, tmp_path)
    assert main([*command, "--top-k", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count(" dog ") == 2
    folder = tmp_path / "home" / "lookhear" / "glee-lite-joint"
    assert "glee-lite-joint: published by GLEE's authors under the MIT licence" in captured.err
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in folder.iterdir()}
    here.calls.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main([*command, "--top-k", "2"]) == 0 and not here.calls
    assert capsys.readouterr().out == captured.out
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for source in ("glee-lite", f"hf://spaces/{SPACE}/{FILE.path}"):
        assert main(["convert", "glee", source, str(tmp_path / "out" / source[:4])]) == 0
    weights = [(place / "model.safetensors").read_bytes() for place in (folder, tmp_path / "out" / "glee")]
    assert weights[0] == weights[1] == (tmp_path / "out" / "hf:/" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_two_processes_fetch_once_and_a_third_needs_no_network(here, tiny_glee, tmp_path):
    save_small(here, tiny_glee[1].tokenizer, tmp_path)
    environment = {**os.environ, **here.environment(tmp_path / "own")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    both = [subprocess.Popen([sys.executable, "-c", SEE], env=environment, **pipes) for _ in range(2)]
    outputs = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert here.calls.count(f"GET {PLACE}") == 1
    assert outputs[0][0] == outputs[1][0] and outputs[0][0].count(",") == 2
    here.calls.clear()
    offline = environment | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    third = subprocess.run([sys.executable, "-c", SEE], env=offline, timeout=600, **pipes)
    assert (third.returncode, third.stdout) == (0, outputs[0][0]), third.stderr
    assert not here.calls


@pytest.mark.slow
@pytest.mark.parametrize("size", ["lite", "plus", "pro"])
def test_full_size_files_have_their_place(here, size, tmp_path):
    """Names, shapes and the configuration of the real sizes; the numbers of the weights are left out."""
    with torch.device("meta"):
        model = GleeForObjectDetection(getattr(GleeConfig, size)())
    torch.save({"model": publish(model)}, tmp_path / "weights.pth")
    content = (tmp_path / "weights.pth").read_bytes()
    here.repositories["space", SPACE].commit({published_file(f"glee-{size}").path: content})
    with checkpoint_file(f"glee-{size}") as path:
        weights = torch.load(path, weights_only=True)["model"]
    config = config_from_state_dict(weights)
    assert config.to_dict() == model.config.to_dict()
    check_weights(convert_state_dict(weights), config)
