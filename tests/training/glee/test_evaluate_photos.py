"""Figures of photos and the thresholds that are chosen by them, against answers that are known."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lookhear.processing.glee.pipeline_glee import PerceptionSettings
from lookhear.training.glee.scenes.calibrate import (
    STEPS,
    SceneAnswers,
    ask_scenes,
    calibration_scenes,
    expression_threshold,
    label_threshold,
    store_thresholds,
)
from lookhear.training.glee.scenes.evaluate_photos import PhotoAnswers, ask_photos, figures, read_held_out, table
from tests.training.glee.people_folder import BOX, write_people

X, Y, W, H = BOX


def result(score: float, label: str, box: tuple[float, float, float, float]) -> dict:
    return {"score": score, "label": label, "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), box))}


class Seeing:
    """Answers with the person at the right place, a face elsewhere, one star, and sentences at falling scores."""

    def __init__(self):
        config = SimpleNamespace(label_threshold=0.35, expression_threshold=None)
        self.model, self.processor = SimpleNamespace(config=config, eval=lambda: None), None
        self.settings = PerceptionSettings()
        self.asked: list[str] = []

    def __call__(self, image, labels=None, expressions=None, **settings):
        assert settings.pop("masks") is False
        assert image.size == (320, 240)
        if labels is not None:
            assert settings == {"threshold": 0.0}
            shown = (X, Y, X + W, Y + H / 2)  # half of the person
            return [
                result(0.9, "person", shown),
                result(0.4, "star", (0, 0, 9, 9)),
                result(0.3, "person", (0, 0, 9, 9)),
            ]
        self.asked += expressions
        scores = {"the person": 0.8, "the face": 0.3, "the mouth": 0.1}
        right = (X, Y, X + W, Y + H)
        return [
            result(scores.get(text, 0.36 if index == 3 else 0.2), text, right)
            for index, text in enumerate(expressions)
        ]


@pytest.fixture
def photos(tmp_path):
    names = [f"{number}.png" for number in range(40)]
    return read_held_out([str(write_people(tmp_path, dict.fromkeys(names, "Attribution License")))], "")


def test_figures_of_photos(photos):
    assert 2 < len(photos) < 20
    see = Seeing()
    answers = ask_photos(see, photos)
    # Half of a box has an IoU of 0.5; the face is far smaller than what is found; one star a photo has 0.4; one of
    # three sentences about nothing has 0.36.
    expected = {"label_person_P50": 1.0, "person_P50": 1.0, "face_P50": 0.0, "mouth_P50": 0.0}
    assert figures(answers, 0.4, 0.36) == pytest.approx(expected | {"false_shapes": 1.0, "absent_said": 1 / 3})
    assert figures(answers, 0.41, 0.2) == pytest.approx(expected | {"false_shapes": 0.0, "absent_said": 1.0})
    assert not any("person" in text for text in set(see.asked) - {"the person"})
    count = len(photos)
    rows = {(name, measure): value for name, measure, value in table(see, photos, scenes=0)}
    expected = {
        ("label: person", f"best box has IoU 0.5 ({count})"): 1.0,
        ("label: person", f"best score of 0.35 and more ({count})"): 1.0,
        ("label: 8 kinds", f"false shapes in a photo at 0.35 ({count})"): 1.0,
        ("expression about nothing", f"score of 0.35 and more ({3 * count})"): 1 / 3,
        ("the person on the left, in the middle, on the right", "P@0.5 (0)"): float("nan"),
    }
    for kind, value in (("person", 1.0), ("face", 0.0), ("mouth", 0.0)):
        expected[f"expression: the {kind}", f"P@0.5 ({count})"] = value
        expected[f"expression: the {kind}", f"score of 0.35 and more ({count})"] = value
    assert rows == pytest.approx(expected, nan_ok=True)


def test_label_threshold_is_the_best_that_has_few_false_shapes():
    photos, scenes = PhotoAnswers(), SceneAnswers()
    photos.persons = [np.array([0.6, 0.2]), np.array([0.5]), np.array([])]
    photos.overlaps = [np.array([0.8, 0.1]), np.array([0.7]), np.array([])]
    photos.false = [np.array([0.42]), np.array([]), np.array([])]
    scenes.scores, scenes.right, scenes.objects = [0.9, 0.55, 0.45, 0.3], [True, True, True, False], 3
    # Free of shapes that are not there from 0.43 on; from 0.46 on an object of the scenes is lost.
    assert label_threshold(photos, scenes) in (0.43, 0.44, 0.45)
    assert label_threshold(photos, scenes, most_false=1.0) in [step for step in STEPS if 0.3 < step <= 0.45]
    photos.false = [np.array([0.99])] * 3
    assert label_threshold(photos, scenes) == STEPS[-1]


def test_expression_threshold_tells_true_from_untrue():
    assert 0.4 < expression_threshold([0.5, 0.8, 0.9], [0.1, 0.4]) <= 0.5
    random = np.random.default_rng(0)
    present, absent = random.uniform(0.3, 1, 200), random.uniform(0, 0.6, 300)
    quality = {step: (present >= step).mean() + (absent < step).mean() for step in STEPS}
    assert quality[expression_threshold(present, absent)] == max(quality.values())


def test_thresholds_are_stored_in_the_configuration(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "glee", "custom": [1]}))
    assert store_thresholds(tmp_path, 0.3, 0.45) == path
    stored = {"model_type": "glee", "custom": [1], "label_threshold": 0.3, "expression_threshold": 0.45}
    assert json.loads(path.read_text()) == stored
    path.write_text(json.dumps({"model_type": "avsr"}))
    with pytest.raises(ValueError, match="is of the model type avsr, not glee"):
        store_thresholds(tmp_path, 0.3, 0.4)
    with pytest.raises(ValueError, match="has no config.json that can be read"):
        store_thresholds(tmp_path / "nowhere", 0.3, 0.4)


def test_scenes_count_each_object_once():
    scenes = calibration_scenes([], 3)
    assert np.array_equal(scenes[1].image, calibration_scenes([], 2)[1].image)

    def see(image, labels=None, expressions=None, **settings):
        scene = next(scene for scene in scenes if scene.image is image)
        if expressions is not None:
            return [result(0.9 - 0.5 * place, text, (0, 0, 1, 1)) for place, text in enumerate(expressions)]
        found = [result(0.9, shape.kind, shape.box) for shape in scene.shapes if shape.kind in labels]
        return found + [result(0.2, entry["label"], tuple(entry["box"].values())) for entry in found]  # each twice

    answers = ask_scenes(see, scenes)
    assert answers.objects == sum(answers.right) == len(answers.scores) / 2 > 0
    assert all(right == (score == 0.9) for right, score in zip(answers.right, answers.scores))
    assert answers.present == [0.9] * 3 and answers.absent == pytest.approx([0.4] * 3)
