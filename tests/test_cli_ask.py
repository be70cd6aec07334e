"""`lookhear ask`: answers as text, as JSON with masks and as overlays, conversations, and one line for bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from lookhear import cli

QUESTION = "Which is it?"
PACKAGED = Path(__file__).parents[1] / "model_cards" / "lisa-glee-tiny"


@pytest.fixture
def run(capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        try:
            code = cli.main(["ask", *(str(argument) for argument in arguments)])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """a.png 90 x 60, b.jpg 64 x 64, broken.jpg."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / "b.jpg")
    (folder / "broken.jpg").write_bytes((folder / "b.jpg").read_bytes()[:900])
    return folder


def decoded(mask: dict) -> np.ndarray:
    """COCO's compressed run lengths as bool."""
    return coco.decode(mask).astype(bool)


def test_help_and_wrong_arguments_need_no_heavy_import(light_command):
    done = light_command("ask", "--help")
    assert done.returncode == 0 and 'example:\n  lookhear ask scene.png "Which of these' in done.stdout
    wrong = light_command("ask", "street.jpg", "--model", "x", "--out", "o.png")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "put a question" in wrong.stderr


def test_the_answer_is_printed(run, answering_checkpoint, photos):
    code, out, err = run(photos / "a.png", QUESTION, "--model", answering_checkpoint)
    assert (code, out) == (0, "the red star\n") and "error" not in err


def test_questions_may_follow_options(run, answering_checkpoint, photos):
    code, out, _ = run(photos / "a.png", "--model", answering_checkpoint, QUESTION, "--num-beams", 1, "Is it red?")
    assert code == 0 and [line.split("\t")[0] for line in out.splitlines()] == [QUESTION, "Is it red?"]


def test_json_and_overlay_are_those_of_the_pipeline(run, answering_checkpoint, photos, tmp_path):
    from transformers import pipeline

    import lookhear  # noqa: F401 - registers the pipeline

    overlay, file = tmp_path / "new" / "overlay.png", tmp_path / "new" / "answer.json"
    asked = ["--model", answering_checkpoint, "--threshold", 0.4, "--out", overlay, "--json", file]
    code, out, err = run(photos / "a.png", QUESTION, *asked)
    assert (code, out) == (0, "the red star\n") and str(overlay) in err
    pipe = pipeline("reasoning-segmentation", model=str(answering_checkpoint))
    expected = pipe(str(photos / "a.png"), QUESTION, threshold=0.4)
    (entry,) = json.loads(file.read_text())["images"]
    (answer,) = entry.pop("answers")
    assert entry == {"image": str(photos / "a.png"), "height": 60, "width": 90}
    assert (answer["question"], answer["text"]) == (QUESTION, expected["text"])
    (found,), (wanted,) = answer["objects"], expected["objects"]
    assert set(found) == {"score", "label", "box", "area", "mask"}
    assert found["label"] == "the red star" and found["score"] == pytest.approx(wanted["score"])
    assert (decoded(found["mask"]) == wanted["mask"]).all() and found["area"] == wanted["mask"].sum() > 0
    assert found["box"] == wanted["box"]
    drawn, image = np.asarray(Image.open(overlay)), np.asarray(Image.open(photos / "a.png"))
    assert drawn.shape == image.shape and (drawn != image).any(axis=-1)[wanted["mask"]].mean() > 0.9
    assert sorted(path.name for path in overlay.parent.iterdir()) == ["answer.json", "overlay.png"]


def test_several_questions_are_one_conversation(run, monkeypatch, answering_checkpoint, photos, tmp_path):
    """The second question is asked after the first and its answer; GLEE sees the picture once."""
    from lookhear.processing.lisa_glee import LisaGleeProcessor

    written, looked = [], []
    call = LisaGleeProcessor.__call__

    def spy(self, images=None, text=None, **options):
        written.extend(text or ())
        looked.extend(images or ())
        return call(self, images=images, text=text, **options)

    monkeypatch.setattr(LisaGleeProcessor, "__call__", spy)
    questions = ["Which is it?", "Is it red?"]
    code, out, _ = run(photos / "a.png", *questions, "--model", answering_checkpoint, "--out", tmp_path / "drawn")
    assert (code, out) == (0, "Which is it?\tthe red star\nIs it red?\tthe red star\n")
    assert len(looked) == 1 and len(written) == 2
    places = [written[1].index(words) for words in ("Which is it?", "the red star [SEG]", "Is it red?")]
    assert places == sorted(places) and "Is it red?" not in written[0]
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"a-1.png", "a-2.png"}


def test_several_images_are_asked_the_same(run, answering_checkpoint, photos, tmp_path):
    files = [photos / "a.png", photos / "b.jpg"]
    asked = ["--question", QUESTION, "--model", answering_checkpoint, "--out", tmp_path / "drawn"]
    code, out, _ = run(*files, *asked, "--json")
    assert code == 0
    images = json.loads(out)["images"]
    assert [(one["image"], one["height"], one["width"]) for one in images] == [
        (str(files[0]), 60, 90),
        (str(files[1]), 64, 64),
    ]
    assert [decoded(one["answers"][0]["objects"][0]["mask"]).shape for one in images] == [(60, 90), (64, 64)]
    assert {path.name: Image.open(path).size for path in (tmp_path / "drawn").iterdir()} == {
        "a.png": (90, 60),
        "b.png": (64, 64),
    }


def test_one_that_is_broken_does_not_stop_the_others(run, answering_checkpoint, photos, tmp_path):
    files = [photos / name for name in ("broken.jpg", "a.png", "missing.jpg", "b.jpg")]
    asked = ["--question", QUESTION, "--question", "And now?", "--model", answering_checkpoint]
    code, out, err = run(*files, *asked, "--out", tmp_path / "drawn")
    assert code == 2 and [line.split("\t")[:2] for line in out.splitlines()] == [
        [str(file), question] for file in (files[1], files[3]) for question in (QUESTION, "And now?")
    ]
    errors = [line for line in err.splitlines() if "error" in line]
    assert len(errors) == 2 and "broken.jpg" in errors[0] and "missing.jpg" in errors[1]
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"a-1.png", "a-2.png", "b-1.png", "b-2.png"}


def test_an_object_with_an_empty_mask_is_said_but_not_drawn(photos, tmp_path, capsys):
    from lookhear.commands.ask import ask

    nothing = {"label": "the star", "score": 0.2, "box": None, "mask": np.zeros((60, 90), bool)}

    class Pipe:
        def conversation(self, image, **settings):
            return self

        def ask(self, question):
            return {"text": "the star", "objects": [nothing]}

    overlay = tmp_path / "o.png"
    assert ask([str(photos / "a.png")], Pipe(), [QUESTION], overlays=[overlay], json_path="-") == 0
    (found,) = json.loads(capsys.readouterr().out)["images"][0]["answers"][0]["objects"]
    assert (found["box"], found["area"]) == (None, 0)
    assert decoded(found["mask"]).shape == (60, 90) and not decoded(found["mask"]).any()
    assert (np.asarray(Image.open(overlay)) == np.asarray(Image.open(photos / "a.png"))).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "IMAGE"),
        (["a.png", "--model", "m"], "nothing is asked: put a question after the image"),
        (["a.png", " ", "--model", "m"], "a question is empty"),
        (["a.png", "--question", "", "--model", "m"], "a question is empty"),
        (["a.png", "b.jpg", "--model", "m"], "b.jpg is an image, not a question"),
        (["a.png", "Which?", "--model", "./nowhere"], "no folder ./nowhere"),
        (["a.png", "Which?", "--treshold", "0.4", "--model", "m"], "unrecognized arguments: --treshold 0.4"),
        (["a.png", "Which?", "--threshold", "1", "--model", "m"], "--threshold"),
        (["a.png", "Which?", "--max-new-tokens", "0", "--model", "m"], "--max-new-tokens"),
        (["a.png", "Which?", "--num-beams", "two", "--model", "m"], "--num-beams"),
        (["a.png", "Which?", "--out", "o.doc", "--model", "m"], "o.doc: the ending must be one of .png"),
        (["a.png", "Which?", "--out", "a.png", "--model", "m"], "overwrite"),
        (["a.png", "Which?", "How?", "--out", "o.png", "--model", "m"], "several overlays need a folder"),
        (["a.png", "b.jpg", "--question", "Which?", "--out", "o.png", "--model", "m"], "several images need a folder"),
        (["a.png", "x/a.png", "--question", "Which?", "--out", "o", "--model", "m"], "both be drawn"),
        (["a.png", "--model", "m", "Which?", "--json", "How many?"], "--json How many?: the ending must be .json"),
    ],
)
def test_bad_options_end_in_one_line(run, monkeypatch, photos, arguments, message):
    monkeypatch.chdir(photos)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and message in err
    assert err.count("\n") == 1 and err.startswith(("lookhear ask: error", "lookhear: error"))


@pytest.mark.parametrize("name", ["missing.jpg", "broken.jpg"])
def test_a_picture_that_cannot_be_read_ends_in_one_line(run, answering_checkpoint, photos, name):
    code, out, err = run(photos / name, QUESTION, "--model", answering_checkpoint)
    assert (code, out) == (2, "") and "Traceback" not in err
    assert [name in line for line in err.splitlines() if "lookhear ask: error" in line] == [True]


def test_a_checkpoint_of_another_system_is_named(run, photos):
    code, out, err = run(photos / "a.png", QUESTION, "--model", PACKAGED.parent / "glee-tiny")
    assert (code, out) == (2, "") and "needs a model that answers questions about images (lisa_glee)" in err


def test_packaged_checkpoint_names_and_shows_shapes(run, tmp_path):
    """
    On scenes that no training has seen: shapes that are the only ones of their name are shown where they are, in
    conversations.
    """
    from lookhear.training.glee.scenes.scene_file import write_scene

    shown = total = 0
    for seed in range(6):
        picture, facts = write_scene(tmp_path / f"{seed}.png", seed)
        objects = json.loads(facts.read_text())["objects"]
        labels = [found["label"] for found in objects]
        objects = [found for found in objects if labels.count(found["label"]) == 1][:3]
        code, out, _ = run(picture, *(f"Where is the {found['label']}?" for found in objects), "--json")
        assert code == 0
        for found, answer in zip(objects, json.loads(out)["images"][0]["answers"], strict=True):
            boxes = [one["box"] for one in answer["objects"] if one["box"] is not None]
            shown += len(boxes) == 1 and overlap(found["box"], [*boxes[0].values()]) > 0.5
            total += 1
    print(shown, total)
    assert shown >= 0.8 * total


def overlap(first: list[float], second: list[float]) -> float:
    """Intersection over union of two boxes."""
    sides = [min(a1, b1) - max(a0, b0) for a0, a1, b0, b1 in zip(first[:2], first[2:], second[:2], second[2:])]
    both = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return both / (sum(areas) - both)
