"""`lookhear perceive`: the table, the JSON with its masks, the overlay, and one line for bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from lookhear import cli
from lookhear.processing.glee.geometry_glee import compress_runs, mask_of_runs, run_lengths
from lookhear.training.glee.corpora.opening import open_corpus
from lookhear.training.glee.mixture.sources import read_vocabulary

PLACED = {
    "--point": "10,20;12,22",
    "--box": "5,5,40,40",
    "--scribble": "5,5 40,30 60,20",
}


@pytest.fixture
def run(capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        try:
            code = cli.main(["perceive", *(str(argument) for argument in arguments)])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def model(tiny_glee, tmp_path_factory):
    from lookhear.training.glee.export import save_checkpoint

    return save_checkpoint(*tiny_glee, tmp_path_factory.mktemp("glee"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """a.png 90 x 60, b.jpg 64 x 64, broken.jpg, mask.png as large as a.png."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / "b.jpg")
    (folder / "broken.jpg").write_bytes((folder / "b.jpg").read_bytes()[:900])
    mask = np.zeros((60, 90), np.uint8)
    mask[20:50, 10:60] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


@pytest.mark.parametrize("files", [("a.png",), ("a.png", "b.jpg")], ids=["one", "several"])
def test_the_dtype_is_the_models(run, model, photos, monkeypatch, tmp_path, files):
    from lookhear.commands import loading

    seen = []

    def watched(*arguments, **settings):
        seen.append(load(*arguments, **settings))
        return seen[-1]

    load = loading.load_pipeline
    monkeypatch.setattr(loading, "load_pipeline", watched)
    found = {}
    for dtype in ("float32", "bfloat16"):
        arguments = ["--model", model, "--labels", "cat", "--threshold", "0", "--dtype", dtype]
        code, out, err = run(*(photos / name for name in files), *arguments, "--json", tmp_path / f"{dtype}.json")
        assert code == 0, err
        found[dtype] = (tmp_path / f"{dtype}.json").read_text()
    assert [str(see.model.dtype) for see in seen] == ["torch.float32", "torch.bfloat16"]
    assert found["float32"] != found["bfloat16"]


def decoded(mask: dict) -> np.ndarray:
    """COCO's run lengths as bool."""
    return coco_mask.decode(mask).astype(bool)


def test_help_shows_an_example_and_needs_no_heavy_import(light_command):
    done = light_command("perceive", "--help")
    assert done.returncode == 0 and "example:\n  lookhear perceive street.jpg --model" in done.stdout
    wrong = light_command("perceive", "street.jpg", "--model", "x", "--out", "o.png")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "--labels" in wrong.stderr


def test_the_table(run, model, photos):
    code, out, err = run(photos / "a.png", "--model", model, "--labels", "cat, dog", "--threshold", 0, "--top-k", 3)
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["score", "label", "xmin", "ymin", "xmax", "ymax", "area"]
    assert set(lines[1]) == {"-"} and len(lines) == 5 and all(line.split()[1] in ("cat", "dog") for line in lines[2:])
    assert "Traceback" not in err


def test_labels_add_up_and_may_have_commas(run, model, photos):
    asked = ["--labels", "cat,dog", "--label", "Bolt, small", "--labels", "red_car"]
    code, out, _ = run(photos / "a.png", "--model", model, *asked, "--threshold", 0, "--json")
    labels = {found["label"] for found in json.loads(out)["images"][0]["objects"]}
    assert code == 0 and labels == {"cat", "dog", "Bolt, small", "red_car"}, "as they were written"


def test_every_kind_of_prompt_in_one_call(run, model, photos):
    asked = [part for pair in PLACED.items() for part in pair]
    asked += ["--point", "80,50", "--mask", photos / "mask.png", "--expression", "the cat, on the left"]
    code, out, _ = run(photos / "a.png", "--model", model, *asked, "--expression", "a dog", "--json", "-")
    assert code == 0
    (entry,) = json.loads(out)["images"]
    assert (entry["image"], entry["height"], entry["width"]) == (str(photos / "a.png"), 60, 90)
    assert [found["label"] for found in entry["objects"]] == ["the cat, on the left", "a dog", *["object"] * 5]
    for found in entry["objects"]:
        assert set(found) == {"score", "label", "box", "area", "mask"}
        assert decoded(found["mask"]).shape == (60, 90) and decoded(found["mask"]).sum() == found["area"]


def test_json_and_overlay_are_written(run, model, photos, tmp_path):
    overlay, file = tmp_path / "new" / "overlay.png", tmp_path / "new" / "found.json"
    asked = ["--labels", "cat", "--threshold", 0, "--point", "10,20"]
    code, out, err = run(photos / "a.png", "--model", model, *asked, "--out", overlay, "--json", file)
    assert code == 0 and out.startswith("score") and str(overlay) in err
    drawn, image = Image.open(overlay), Image.open(photos / "a.png")
    assert drawn.size == image.size and (np.asarray(drawn) != np.asarray(image)).any()
    objects = json.loads(file.read_text())["images"][0]["objects"]
    assert len(objects) == len(out.splitlines()) - 2
    assert sorted(path.name for path in overlay.parent.iterdir()) == ["found.json", "overlay.png"]


def test_several_images(run, model, photos, tmp_path):
    files = [photos / "a.png", photos / "b.jpg"]
    asked = ["--model", model, "--expression", "a cat", "--batch-size", 2]
    code, out, _ = run(*files, *asked, "--out", tmp_path / "drawn")
    assert code == 0 and [line.split()[-1] for line in out.splitlines()[2:]] == [str(file) for file in files]
    assert {path.name: Image.open(path).size for path in (tmp_path / "drawn").iterdir()} == {
        "a.png": (90, 60),
        "b.png": (64, 64),
    }


def test_a_folder_is_labelled_for_training(run, model, photos, tmp_path):
    """`perceive --coco` -> the reader of `train glee`: the same boxes, masks and names."""
    folder = tmp_path / "album"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        (folder / name).write_bytes((photos / name).read_bytes())
    out = tmp_path / "labels" / "own.json"
    asked = ["--model", model, "--labels", "cat,red_car", "--threshold", 0, "--top-k", 4]
    code, printed, err = run(folder, *asked, "--coco", out, "--json")
    assert code == 0 and str(out) in err
    content = json.loads(out.read_text())
    assert [image["file_name"] for image in content["images"]] == ["../album/a.png", "../album/b.jpg"]
    assert [category["name"] for category in content["categories"]] == ["cat", "red_car"]
    assert read_vocabulary(out) == ["cat", "red car"]
    for images in (None, folder):
        if images is None:
            with pytest.raises(ValueError, match="--allow-outside"):  # the pictures lie elsewhere
                open_corpus("coco", out)
        rows = open_corpus("coco", out, images=images, allow_outside=images is None)
        for row, entry in zip(rows, json.loads(printed)["images"], strict=True):
            found = [one for one in entry["objects"] if one["area"]]
            named = [one["label"].replace("_", " ") for one in found]
            assert [instance["category"] for instance in row["objects"]] == named
            for instance, one in zip(row["objects"], found):
                assert instance["box"] == pytest.approx(list(one["box"].values()), abs=0.02)
                assert instance["mask"]["counts"] == one["mask"]["counts"]
    for wrong, message in (("own.txt", "its ending must be .json"), (out, "--coco is for pictures")):
        code, _, err = run(folder, *asked, "--coco", wrong, *(["--frames", "video"] if wrong == out else []))
        assert code == 2 and message in err and err.count("\n") == 1


def test_folders_and_animations(run, model, photos, tmp_path):
    folder = tmp_path / "album"
    folder.mkdir()
    pictures = [Image.open(photos / "a.png").rotate(angle) for angle in (0, 90, 180)]
    pictures[0].save(folder / "moving.webp", save_all=True, append_images=pictures[1:], lossless=True)
    pictures[0].save(folder / "b.png")
    asked = ["--model", model, "--expression", "a cat", "--json"]
    code, out, _ = run(folder, *asked, "--each", "--out", tmp_path / "drawn")
    assert code == 0 and [Path(entry["image"]).name for entry in json.loads(out)["images"]] == [
        "b.png",
        *(f"moving-{number}.webp" for number in (1, 2, 3)),
    ]
    drawn = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert drawn == ["b.png", "moving-1.png", "moving-2.png", "moving-3.png"]
    code, out, _ = run(folder / "moving.webp", *asked, "--frames", "first")
    assert code == 0 and len(json.loads(out)["images"]) == 1
    code, out, err = run(folder / "moving.webp", *asked)
    assert code == 0 and [json.loads(line)["frame"] for line in out.splitlines()] == [0, 1, 2]
    assert "is followed as a video; --each: picture by picture" in err


def test_one_that_is_broken_does_not_stop_the_others(run, model, photos):
    files = [photos / "a.png", photos / "broken.jpg", photos / "missing.jpg", photos / "b.jpg"]
    code, out, err = run(*files, "--model", model, "--expression", "a cat", "--batch-size", 3)
    assert code == 2 and [line.split()[-1] for line in out.splitlines()[2:]] == [str(files[0]), str(files[3])]
    errors = [line for line in err.splitlines() if "error" in line]
    assert len(errors) == 2 and "broken.jpg" in errors[0] and "missing.jpg" in errors[1]


def test_nothing_found_is_said(run, model, photos):
    code, out, err = run(photos / "a.png", "--model", model, "--labels", "cat", "--threshold", 1)
    assert code == 0 and len(out.splitlines()) == 2 and "nothing found" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "IMAGE"),
        (["a.png", "--model", "m"], "nothing to look for"),
        (["a.png", "--labels", "cat", "--model", "./nowhere"], "no folder ./nowhere"),
        (["a.png", "--labels", "cat,,dog", "--model", "m"], "--labels"),
        (["a.png", "--point", "10", "--model", "m"], "--point"),
        (["a.png", "--point", "10,x", "--model", "m"], "--point"),
        (["a.png", "--point", "nan,3", "--model", "m"], "--point"),
        (["a.png", "--box", "1,2,3", "--model", "m"], "--box"),
        (["a.png", "--scribble", " ", "--model", "m"], "--scribble"),
        (["a.png", "--labels", "cat", "--threshold", "2", "--model", "m"], "--threshold"),
        (["a.png", "--labels", "cat", "--top-k", "0", "--model", "m"], "--top-k"),
        (["a.png", "b.jpg", "--point", "1,2", "--model", "m"], "--point applies to a single image"),
        (["a.png", "b.jpg", "--labels", "cat", "--out", "o.png", "--model", "m"], "need a folder"),
        (["a.png", "x/a.png", "--labels", "cat", "--out", "o", "--model", "m"], "both be drawn"),
        (["a.png", "--labels", "cat", "--out", "o.doc", "--model", "m"], "o.doc"),
        (["a.png", "--labels", "cat", "--out", "a.png", "--model", "m"], "overwrite"),
        (["--labels", "cat", "--model", "m", "b.jpg", "--json", "a.png"], "would write text"),
    ],
)
def test_bad_options_end_in_one_line(run, monkeypatch, photos, arguments, message):
    monkeypatch.chdir(photos)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and message in err
    assert err.count("\n") == 1 and err.startswith("lookhear perceive: error")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jpg", "--labels", "cat"], "missing.jpg"),
        (["broken.jpg", "--labels", "cat"], "broken.jpg"),
        (["a.png", "--labels", "x" * 300], "labels: item 0"),
        (["a.png", "--labels", "cat,cat"], "labels: 'cat' is there twice"),
        (["a.png", "--point", "-5,20"], "points: "),
        (["a.png", "--box", "500,500,600,600"], "boxes: "),
        (["a.png", "--mask", "b.jpg"], "masks: "),
        (["a.png", "--mask", "none.png"], "none.png"),
    ],
)
def test_bad_input_ends_in_one_line(run, monkeypatch, model, photos, arguments, message):
    monkeypatch.chdir(photos)
    code, out, err = run(*arguments, "--model", model)
    assert (code, out) == (2, "") and message in err
    assert len([line for line in err.splitlines() if "lookhear perceive: error" in line]) == 1
    assert "Traceback" not in err


def test_run_lengths():
    mask = np.array([[0, 1, 1], [0, 0, 1]], bool)
    assert run_lengths(mask) == [2, 1, 1, 2]  # by columns: 0 0, 1 0, 1 1
    assert run_lengths(~mask) == [0, 2, 1, 1, 2]
    assert run_lengths(np.zeros((2, 3), bool)) == [6] and run_lengths(np.ones((2, 3), bool)) == [0, 6]
    generator = np.random.default_rng(0)
    for shape in ((1, 1), (7, 5), (1, 9), (9, 1)):
        mask = generator.random(shape) > 0.5
        assert np.array_equal(mask_of_runs(run_lengths(mask), shape), mask)
        assert np.array_equal(decoded({"size": list(shape), "counts": compress_runs(run_lengths(mask))}), mask)


def test_run_lengths_are_cocos():
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(0).random((20, 30)) > 0.5
    compressed = coco.frPyObjects({"size": [20, 30], "counts": run_lengths(mask)}, 20, 30)
    assert np.array_equal(coco.decode(compressed).astype(bool), mask)


def test_packaged_checkpoint_finds_shapes(run, tmp_path):
    """On scenes that no training has seen: most shapes by the name of their kind, and by a point on them."""
    from lookhear.training.glee.scenes.scene_file import write_scene

    named = pointed = total = 0
    for seed in range(4):
        picture, facts = write_scene(tmp_path / f"{seed}.png", seed)
        objects = json.loads(facts.read_text())["objects"]
        kinds = sorted({found["label"].split()[1] for found in objects})
        code, out, _ = run(picture, "--labels", ",".join(kinds), "--threshold", 0.25, "--json")
        answers = json.loads(out)["images"][0]["objects"]
        assert code == 0
        for thing in objects:
            x0, y0, x1, y1 = thing["box"]
            alike = [a for a in answers if a["label"] == thing["label"].split()[1]]
            named += any(overlap(thing["box"], box_of(a)) > 0.5 for a in alike)
            code, out, _ = run(picture, "--point", f"{(x0 + x1) / 2:.0f},{(y0 + y1) / 2:.0f}", "--json")
            pointed += overlap(thing["box"], box_of(json.loads(out)["images"][0]["objects"][0])) > 0.5
            total += 1
    print(named, pointed, total)
    assert named >= 0.6 * total and pointed >= 0.5 * total


def box_of(answer: dict) -> list[float]:
    return [answer["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")]


def overlap(first: list[float], second: list[float]) -> float:
    """Intersection over union of two boxes."""
    sides = [min(a1, b1) - max(a0, b0) for a0, a1, b0, b1 in zip(first[:2], first[2:], second[:2], second[2:])]
    both = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return both / (sum(areas) - both)
