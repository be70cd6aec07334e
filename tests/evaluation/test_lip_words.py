"""Accuracy of words read from lips: counted by hand, and the whole way from an LRW folder through the command."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lookhear import cli
from lookhear.evaluation.lip_words import WordResult, evaluate_words, format_words, words_to_csv
from lookhear.training.avsr.prepare import prepare

LABELS = ("BLUE", "GREEN", "RED")
RESULT = WordResult(list("abcde"), ["A", "B", "B", "A", "A"], ["A", "B", "A", None, "A"])


def test_accuracy_is_counted_by_hand():
    row = RESULT.to_dict()
    assert row["accuracy"] == pytest.approx(3 / 5) and (row["clips"], row["words"], row["without_mouth"]) == (5, 2, 1)
    assert RESULT.by_word() == {"A": (2, 3), "B": (1, 2)}
    low, high = row["interval"]
    # the share of right clips in a draw of five is binomial: its 2.5 % and 97.5 % quantiles for 0.6
    assert (low, high) == (pytest.approx(0.2), pytest.approx(1.0))
    assert list(csv.reader(words_to_csv(RESULT).splitlines())) == [
        ["word", "right", "clips"],
        ["B", "1", "2"],
        ["A", "2", "3"],
    ]
    assert format_words(row).splitlines()[2].split() == ["60.0", "20.0", "to", "100.0", "5", "2", "1"]
    assert len({len(line) for line in format_words(row).splitlines()}) == 1


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """A folder of a random classifier that always says BLUE, with crops of 24 pixels."""
    from lookhear import (
        AvsrConfig,
        AvsrFeatureExtractor,
        AvsrForVideoClassification,
        AvsrProcessor,
        AvsrTokenizer,
        MouthRoiImageProcessor,
    )

    visual = {"stem_channels": 4, "hidden_sizes": (4, 8), "depths": (1, 1), "layer_type": "basic", "crop_size": 20}
    small = {"hidden_size": 16, "encoder_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {word: n for n, word in enumerate(LABELS)}}
    torch.manual_seed(0)
    config = AvsrConfig(visual_config=visual, modality="visual", classifier_back_end="transformer", **small, **labels)
    model = AvsrForVideoClassification(config)
    with torch.no_grad():
        model.classifier.output.bias[0] = 100.0
    folder = tmp_path_factory.mktemp("classifier")
    model.save_pretrained(folder)
    images = MouthRoiImageProcessor(roi_size=24, crop_size=20, mouth_width=12.0)
    AvsrProcessor(AvsrFeatureExtractor(), images, AvsrTokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lrw(talking_clips, tmp_path_factory) -> Path:
    """LRW's tree: BLUE and RED in the test split, a BLUE without a face there, and a GREEN to train on."""
    from lookhear.processing.avsr.rendering_avsr import write_video

    root = tmp_path_factory.mktemp("lrw")
    places = [("BLUE", "test", 1, "0.mp4"), ("RED", "test", 1, "1.mp4"), ("GREEN", "train", 1, "0.mp4")]
    for word, split, number, source in [*places, ("BLUE", "test", 2, None)]:
        path = root / "lipread_mp4" / word / split / f"{word}_{number:05d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        if source is None:
            tone = 0.2 * np.sin(np.arange(18560) * 0.1).astype(np.float32)
            write_video(path, (np.full((64, 64, 3), 90, np.uint8) for _ in range(29)), fps=25, audio=tone)
        else:
            shutil.copy(talking_clips / source, path)
        path.with_suffix(".txt").write_text("Duration: 0.40 seconds\n")
    return root


def test_the_test_split_is_read_as_it_is_published(classifier, lrw):
    seen = []
    result = evaluate_words(classifier, lrw, batch_size=2, progress=lambda *done: seen.append(done))
    assert result.ids == ["test/BLUE_00001", "test/BLUE_00002", "test/RED_00001"]
    assert result.references == ["BLUE", "BLUE", "RED"] and result.found == ["BLUE", None, "BLUE"]
    assert seen == [("words", 2, 3), ("words", 3, 3)]
    assert evaluate_words(classifier, lrw, split="train").references == ["GREEN"]
    assert len(evaluate_words(classifier, lrw, limit=1).ids) == 1


@pytest.mark.slow
def test_a_prepared_folder_gives_the_same(classifier, lrw, tmp_path):
    prepare("lrw", lrw, tmp_path / "test", split="test", model=classifier, progress=False)
    direct, prepared = evaluate_words(classifier, lrw), evaluate_words(classifier, tmp_path / "test", batch_size=1)
    assert (prepared.ids, prepared.references, prepared.found) == (direct.ids, direct.references, direct.found)
    with pytest.raises(ValueError, match=r"--split: .*test is prepared"):
        evaluate_words(classifier, tmp_path / "test", split="test")
    prepare("lrw", lrw, tmp_path / "large", split="test", progress=False)
    with pytest.raises(ValueError, match="roi_size"):
        evaluate_words(classifier, tmp_path / "large")


def test_what_cannot_be_measured_is_said(classifier, tiny_checkpoint, talking_clips, lrw, tmp_path):
    with pytest.raises(ValueError, match="is no classifier of words"):
        evaluate_words(tiny_checkpoint, lrw)
    with pytest.raises(ValueError, match=r"words that the model does not know: BIN BLUE, .*; it knows 3"):
        evaluate_words(classifier, talking_clips)
    with pytest.raises(ValueError, match="is not an LRW folder"):
        evaluate_words(classifier, tmp_path)
    with pytest.raises(ValueError, match="limit"):
        evaluate_words(classifier, lrw, limit=0)


def run(capsys, *arguments) -> tuple[int, str, str]:
    try:
        code = cli.main(["evaluate", "words", *(str(argument) for argument in arguments)])
    except SystemExit as error:
        code = error.code
    return code, *capsys.readouterr()


def test_the_command(capsys, classifier, lrw, tmp_path):
    files = ["--json", tmp_path / "words.json", "--csv", tmp_path / "words.csv"]
    code, out, _ = run(capsys, "--data", lrw, "--model", classifier, "--device", "cpu", *files)
    assert code == 0 and out.splitlines()[2].split()[0] == "33.3"
    (row,) = json.loads((tmp_path / "words.json").read_text())["results"]
    assert row["accuracy"] == pytest.approx(1 / 3) and row["without_mouth"] == 1
    assert (tmp_path / "words.csv").read_text().splitlines()[1:] == ["RED,0,1", "BLUE,1,2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "."], "evaluate words needs --data FOLDER"),
        (["--data", "."], "evaluate words needs --model"),
        (["--data", ".", "--model", ".", "--picture", "x.png"], "--picture applies to avsr only"),
        (["--data", ".", "--model", ".", "--noise-probability", "0.25"], "--noise-probability applies to avsr only"),
        (["--data", ".", "--model", ".", "--num-beams", "5"], "--num-beams does not apply to words"),
        (["--data", ".", "--model", ".", "--modality", "audio"], "--modality does not apply to words"),
    ],
)
def test_bad_input_is_one_line_and_code_2(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and message in err
