"""The scripts of `examples/` run as they stand in the repository, on clips and pictures that are made here."""

import ast
import importlib
import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

NAMES = ("caption_video", "choose_speaker", "evaluate_in_noise", "fine_tune_detector", "follow_what_is_named")
NAMES += ("publish_checkpoint",)


@pytest.fixture
def run(repository, monkeypatch, capsys):
    """`run(name, *arguments)`: what the example prints; it runs in the repository's folder, in this process."""

    def run(name: str, *arguments) -> str:
        monkeypatch.chdir(repository)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(repository / "examples" / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def coco_file(tmp_path_factory) -> Path:
    """Two generated scenes with their shapes, as somebody's own COCO file; the checkpoint has never seen them."""
    from lookhear.training.glee.scenes.scene_file import write_scene

    folder = tmp_path_factory.mktemp("coco")
    images, annotations, categories = [], [], {}
    for number in range(2):
        picture, facts = write_scene(folder / f"{number}.png", seed=number, size=(96, 128))
        images.append({"id": number, "file_name": picture.name, "height": 96, "width": 128})
        for thing in json.loads(facts.read_text())["objects"]:
            category = categories.setdefault(thing["label"], len(categories) + 1)
            left, top, right, bottom = thing["box"]
            box = [left, top, right - left, bottom - top]
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": box}
            annotations.append(entry | {"area": box[2] * box[3], "iscrowd": 0})
    named = [{"id": number, "name": name} for name, number in categories.items()]
    path = folder / "own.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": named}))
    return path


def test_every_example_is_short_says_how_to_run_it_and_is_tested(repository):
    paths = sorted((repository / "examples").glob("*.py"))
    assert [path.stem for path in paths] == sorted(NAMES)
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert 20 <= text.count("\n") <= 45, path
        assert f"python examples/{path.name} " in ast.get_docstring(ast.parse(text)), path


@pytest.mark.parametrize("name", NAMES)
def test_examples_use_public_names_only(repository, name):
    """What a package of lookhear lists in `__all__`; nothing from inside of a module."""
    for node in ast.walk(ast.parse((repository / "examples" / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "lookhear":
            package = importlib.import_module(node.module)
            assert {alias.name for alias in node.names} <= set(package.__all__), node.module


def test_a_video_gets_captions(run, talking_clips, tmp_path):
    printed = run("caption_video", talking_clips / "0.mp4", tmp_path / "clip.srt")
    assert "  bin  (" in printed and "  blue  (" in printed
    captions = (tmp_path / "clip.srt").read_text()
    assert "-->" in captions and "bin blue" in captions


@pytest.mark.slow
def test_one_of_two_who_talk_at_once_is_read(run, tmp_path):
    from lookhear.training.avsr.synthesis import synthesize_clip

    two = {"portrait": "hopper", "second": "astronaut", "second_text": "bin blue at f two now"}
    clip = synthesize_clip("set white by k nine soon", tmp_path / "two.mp4", seed=11, **two).video
    printed = run("choose_speaker", clip, "--speaker", "the person on the left")
    assert printed.startswith("the speaker: set white by k nine soon\n")


@pytest.fixture(scope="module")
def sentence(tmp_path_factory):
    """A portrait that says a whole sentence: of a part of one, the checkpoint's lips are not sure."""
    from lookhear.training.avsr.synthesis import synthesize_clip

    return synthesize_clip("bin blue at f two now", tmp_path_factory.mktemp("sentence") / "0.mp4", seed=0).video


def test_whoever_is_pointed_at_is_read(run, sentence):
    printed = run("choose_speaker", sentence, "--point", 180, 150)
    assert printed.startswith("the speaker: bin blue at f two now\n")


def test_everyone_is_read(run, sentence):
    printed = run("choose_speaker", sentence, "--speaker", "everyone")
    assert printed.startswith("Speaker 1: bin blue at f two now\n")


def test_what_is_named_is_followed(run, tmp_path):
    from lookhear.training.glee.scenes.scene_file import write_scene

    video, facts = write_scene(tmp_path / "scene.mp4", size=(144, 180))
    labels = sorted({thing["label"] for thing in json.loads(facts.read_text())["objects"]})
    output = tmp_path / "tracked.webp"
    printed = run("follow_what_is_named", video, output, "--frames", 4, "--labels", *labels)
    assert "frame 3: " in printed and printed.splitlines()[-1] == str(output)
    with Image.open(output) as picture:
        assert picture.size == (180, 144) and picture.n_frames == 4


def test_a_detector_learns_classes_of_a_coco_file(run, coco_file, tiny_glee, tmp_path):
    from lookhear.training.glee.export import save_checkpoint

    start = save_checkpoint(*tiny_glee, tmp_path / "start")
    printed = run("fine_tune_detector", coco_file, tmp_path / "own", "--model", start, "--epochs", 1)
    assert "box_AP50: " in printed and "parameters" in printed
    assert (tmp_path / "own" / "README.md").is_file() and (tmp_path / "own" / "contact_sheet.jpg").is_file()


def test_error_rates_in_noise_are_measured(run, talking_clips):
    pytest.importorskip("jiwer", reason="needs lookhear[eval]")
    printed = run("evaluate_in_noise", talking_clips, "--snr", "clean", -5, "--limit", 2)
    rows = [line.split()[0] for line in printed.splitlines() if line.startswith("audio")]
    assert rows == ["audio", "audio", "audiovisual", "audiovisual"]
    assert "said: BIN BLUE" in printed


def test_publishing_is_rehearsed(run):
    printed = run("publish_checkpoint", "model_cards/glee-tiny", "ORG/glee-tiny")
    assert "model.safetensors" in printed and "modeling_glee.py" in printed
    assert "trust_remote_code=True" in printed
