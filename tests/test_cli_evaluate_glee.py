"""`lookhear evaluate glee`: a protocol with a real pipeline, figures on stdout, one line for bad input."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from lookhear import cli


@pytest.fixture
def run(capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        try:
            code = cli.main(["evaluate", "glee", *(str(argument) for argument in arguments)])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def model(tiny_glee, tmp_path_factory):
    from lookhear.training.glee.export import save_checkpoint

    return save_checkpoint(*tiny_glee, tmp_path_factory.mktemp("glee"))


@pytest.fixture
def coco(tmp_path):
    """Two pictures of noise with a box each, in COCO's layout."""
    root, generator = tmp_path / "coco", np.random.default_rng(0)
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    images, annotations = [], []
    for number in (1, 2):
        Image.fromarray(generator.integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(root / f"val2017/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 60, "width": 90})
        entry = {"id": number, "image_id": number, "category_id": 1, "bbox": [10, 10, 40, 30], "area": 1200}
        annotations.append(entry | {"iscrowd": 0, "segmentation": [[10, 10, 50, 10, 50, 40, 10, 40]]})
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


def test_coco(run, coco, model, tmp_path):
    options = ("--protocol", "coco", "--data", coco, "--model", model, "--output", tmp_path / "out")
    code, out, err = run(*options)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "coco val2017: 2 pictures" and any(line.startswith("mask_AP50 ") for line in lines)
    results = json.loads((tmp_path / "out" / "detections_val2017_segm_results.json").read_text())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {entry["image_id"] for entry in results} == {1, 2} and 0 <= report["metrics"]["box_AP"] <= 1
    assert "pictures" in err
    # All is there already: nothing is asked again.
    assert run(*options, "--json", tmp_path / "again.json")[1] == out
    assert json.loads((tmp_path / "again.json").read_text()) == report


def test_davis(run, model, tmp_path):
    """A first-frame mask is followed by the real video path."""
    root, generator = tmp_path / "davis", np.random.default_rng(0)
    for folder in ("JPEGImages", "Annotations"):
        (root / folder / "480p" / "dog").mkdir(parents=True)
    numbers = np.zeros((60, 90), np.uint8)
    numbers[10:40, 20:60] = 255
    for place in range(5):
        noise = generator.integers(0, 255, (60, 90, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "JPEGImages" / "480p" / "dog" / f"{place:05d}.jpg")
        Image.fromarray(numbers).save(root / "Annotations" / "480p" / "dog" / f"{place:05d}.png")
    options = ("--data", root, "--split", "all", "--model", model, "--output", tmp_path / "out")
    code, out, err = run("--protocol", "davis", *options)
    assert code == 0, err
    assert out.startswith("davis all: 1 objects\nJ&F ") and (tmp_path / "out" / "results.zip").is_file()


def test_names_and_sentences_in_videos(run, model, tmp_path):
    """YouTube-VIS and Ref-YouTube-VOS with the real video path: no figures, but the evaluation servers' files."""
    root, generator = tmp_path / "ytvos", np.random.default_rng(0)
    frames = [f"{place:05d}" for place in range(3)]
    for frame in frames:
        path = root / "valid" / "JPEGImages" / "v1" / f"{frame}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(path)
    files = [f"v1/{frame}.jpg" for frame in frames]
    video = {"id": 1, "file_names": files, "height": 60, "width": 90, "length": 3}
    content = {"videos": [video], "categories": [{"id": 4, "name": "dog"}, {"id": 9, "name": "cat"}]}
    (root / "valid.json").write_text(json.dumps(content))
    expressions = {"0": {"exp": "the dog on the left"}, "1": {"exp": "a cat"}}
    path = root / "meta_expressions" / "valid" / "meta_expressions.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"videos": {"v1": {"expressions": expressions, "frames": frames}}}))
    for protocol in ("ytvis19", "refytvos"):
        options = ("--data", root, "--model", model, "--output", tmp_path / protocol)
        code, out, err = run("--protocol", protocol, *options)
        assert code == 0 and out.splitlines()[-1].endswith("(youtube-vos.org) (split valid)") == (
            protocol == "ytvis19"
        ), err
        assert "upload results.zip" in out
    tracks = json.loads((tmp_path / "ytvis19" / "results.json").read_text())
    assert all(len(track["segmentations"]) == 3 and track["category_id"] in (4, 9) for track in tracks)
    with zipfile.ZipFile(tmp_path / "refytvos" / "results.zip") as archive:
        names = sorted(archive.namelist())
    assert names == [f"Annotations/v1/{number}/{frame}.png" for number in "01" for frame in frames]


def test_bad_input_is_one_line(run, coco, model, tmp_path):
    (coco / "val2017" / "2.png").unlink()
    for arguments, words in (
        ((), "--protocol"),
        (("--protocol", "coco", "--csv", "a.csv"), "--csv applies to avsr only"),
        (("--protocol", "imagenet"), "choose from coco, lvis"),
        (("--protocol", "coco"), "2.png is missing"),
        (("--protocol", "coco", "--split", "val2014"), "instances_val2014.json"),
        (("--protocol", "coco", "--model", "./nowhere"), "no folder ./nowhere"),
    ):
        code, out, err = run("--data", coco, "--model", model, "--output", tmp_path / "out", *arguments)
        message = err.strip().splitlines()[-1]
        assert code == 2 and words in message and not out, (arguments, err)


@pytest.fixture(scope="module")
def asker(repository, tmp_path_factory):
    """A LISA-GLEE that has learnt nothing, as a checkpoint."""
    import torch

    from lookhear.training.lisa_glee.scene_recipe import LisaSceneModelRecipe
    from lookhear.training.lisa_glee.train_scenes import build

    language = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    perception = str(repository / "model_cards" / "glee-tiny")
    torch.manual_seed(0)
    model, processor = build(LisaSceneModelRecipe(perception, language, {"num_objects": 4}))
    folder = tmp_path_factory.mktemp("lisa-glee")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def reason_seg(tmp_path):
    """Two pictures in ReasonSeg's layout; the second shows nothing that is meant."""
    folder, generator = tmp_path / "reason_seg" / "ReasonSeg" / "val", np.random.default_rng(0)
    folder.mkdir(parents=True)
    shapes = [{"label": "target", "points": [[10, 10], [50, 10], [50, 40], [10, 40]]}]
    for name, some, texts in (
        ("one", shapes, ["What would roll?", "Which of these is red?"]),
        ("two", [], ["a moon"]),
    ):
        Image.fromarray(generator.integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(folder / f"{name}.jpg")
        content = {"shapes": some, "text": texts, "is_sentence": name == "one"}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder.parents[1]


def test_reasonseg(run, reason_seg, asker, tmp_path):
    options = ("--protocol", "reasonseg", "--data", reason_seg, "--model", asker, "--output", tmp_path / "out")
    code, out, err = run(*options, "--batch-size", "2")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "reasonseg val: 3 queries" and [line.split()[0] for line in lines[1:7]] == [
        *("gIoU", "cIoU", "gIoU_long", "cIoU_long", "gIoU_short", "cIoU_short")
    ]
    answers = [json.loads(line)[1] for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[1:]]
    assert [len(some) for some in answers] == [2, 1] and {"text", "masks"} == set(answers[0][0])
    assert run(*options)[1] == out  # from the stored answers


def test_scene_questions(run, asker, tmp_path):
    """A benchmark that was made here; the settings alone do as well."""
    from lookhear.evaluation.scene_questions import SETTINGS, SceneSettings, write_benchmark

    write_benchmark(tmp_path / "made", SceneSettings(2, 3))
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / SETTINGS).write_text("scenes: 2\nseed: 3\n")
    printed = []
    for name in ("made", "settings"):
        options = ("--protocol", "scene-questions", "--data", tmp_path / name, "--model", asker)
        code, out, err = run(*options, "--output", tmp_path / f"out_{name}", "--json", tmp_path / f"{name}.json")
        assert code == 0, err
        figures = json.loads((tmp_path / f"{name}.json").read_text())["metrics"]
        assert 0 <= figures["gIoU"] <= 1 and {"words_count", "gIoU_relation", "none"} <= set(figures)
        printed.append(figures)
    assert printed[0] == printed[1]


@pytest.mark.slow
def test_scene_questions_needs_no_folder(run, asker, tmp_path):
    options = ("--protocol", "scene-questions", "--limit", "1", "--model", asker, "--output", tmp_path / "out")
    code, out, err = run(*options)
    assert code == 0 and out.startswith("scene-questions test: "), err
    code, _, err = run("--protocol", "reasonseg", "--model", asker)
    assert code == 2 and "evaluate glee needs --data FOLDER" in err


def test_the_other_systems_checkpoint_is_refused(run, reason_seg, coco, model, asker, tmp_path):
    """Also when the figures would otherwise come out as a long error of another library."""
    output = ("--output", tmp_path / "out")
    code, out, err = run("--protocol", "reasonseg", "--data", reason_seg, "--model", model, *output)
    message = err.strip().splitlines()[-1]
    assert code == 2 and not out and message.endswith("is a glee; this protocol needs a checkpoint of lisa_glee")
    code, out, err = run("--protocol", "coco", "--data", coco, "--model", asker, "--output", tmp_path / "coco_out")
    message = err.strip().splitlines()[-1]
    assert code == 2 and not out and message.endswith("is a lisa_glee; this protocol needs a checkpoint of glee")
