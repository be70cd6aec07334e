"""Word times of long clips from a recogniser, and what is trained on then."""

import json
import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from lookhear.processing.avsr.alignment_avsr import TimedText
from lookhear.training.avsr import forced_alignment
from lookhear.training.avsr.augmentation import Clip
from lookhear.training.avsr.corpora import READERS
from lookhear.training.avsr.examples import TrainingClips
from lookhear.training.avsr.forced_alignment import WordAligner, frames_of, time_spans, widen
from lookhear.training.avsr.prepare import decode_row, prepare_clip
from lookhear.training.avsr.recipe import load_recipe
from lookhear.training.avsr.train import build_model, build_processor, load_rows

BLANK, LEAST = 0, 1e-4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_recipe):
    """A recogniser with two CTC steps a frame."""
    folder = tmp_path_factory.mktemp("aligner")
    content = tiny_recipe("nowhere", folder)
    content["model"] = content["model"] | {"config": content["model"]["config"] | {"ctc_upsampling": 2}}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    recipe = load_recipe(path).model
    build_model(recipe).save_pretrained(folder)
    build_processor(recipe).save_pretrained(folder)
    return folder


@pytest.fixture
def aligner(checkpoint):
    return WordAligner(str(checkpoint))


def log_probs_of(aligner: WordAligner, emitted: dict[int, str], steps: int) -> torch.Tensor:
    """Certain letters at some steps, blank at all others."""
    probs = torch.full((steps, 40), LEAST)
    tokenizer = aligner.processor.tokenizer
    for step in range(steps):
        probs[step, tokenizer.convert_tokens_to_ids(emitted[step]) if step in emitted else BLANK] = 1 - 39 * LEAST
    return probs.log()


def test_words_of_letters(aligner, monkeypatch):
    """ "It's — AT 4" in 40 frames, 80 steps of 0.02 s: the dash has no letter, and the figure is one."""
    emitted = {10: "I", 11: "I", 12: "T", 14: "'", 16: "S", 20: " ", 36: "A", 40: "T", 44: " ", 60: "4", 61: "4"}
    monkeypatch.setattr(WordAligner, "ctc_log_probs", lambda self, clip: log_probs_of(self, emitted, 80))
    clip = Clip("It's — AT 4", np.zeros(40 * 640, np.float32))
    # Steps 10 to 20, 36 to 44, 60 to 62, and then up to 0.12 s, or half, of the pauses around each.
    expected = [
        ("It's —", 0.20 - 0.12, 0.40 + 0.12),
        ("AT", 0.72 - 0.12, 0.88 + 0.12),
        ("4", 1.20 - 0.12, 1.24 + 0.12),
    ]
    found = aligner.align(clip)
    assert [word for word, *_ in found] == [word for word, *_ in expected]
    assert [t for _, *span in found for t in span] == pytest.approx([t for _, *span in expected for t in span])
    with pytest.raises(ValueError, match="a text that is not what the aligner hears or sees"):
        aligner.align(replace(clip, text="NO WORD IS RIGHT"))
    with pytest.raises(ValueError, match="a text that does not fit into its clip"):
        aligner.align(replace(clip, text="LONG " * 20))
    with pytest.raises(ValueError, match="a text that does not fit"):
        aligner.align(replace(clip, text="…"))
    with pytest.raises(ValueError, match="a text that the aligner's characters cannot write"):
        aligner.align(replace(clip, text="AT \u0436"))


def test_times_of_spans():
    letters = [TimedText(letter, 0.1 * n, 0.1 * n + 0.04, 1.0) for n, letter in enumerate("A BC D")]
    found = time_spans(["a", "bc", "d"], [range(1), range(2, 4), range(5, 6)], letters)
    assert [word for word, *_ in found] == ["a", "bc", "d"]
    assert [t for _, *span in found for t in span] == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.5, 0.54])


def test_pauses_are_shared_between_words():
    words = (("A", 0.05, 0.2), ("B", 0.3, 0.5), ("C", 0.5, 0.6), ("D", 2.0, 2.2))
    found = widen(words, 2.25)
    times = [0.0, 0.25, 0.25, 0.5, 0.5, 0.72, 1.88, 2.25]
    assert [t for _, *span in found for t in span] == pytest.approx(times)


def test_long_clips_are_read_in_windows(aligner, monkeypatch):
    """Every frame is there once, in order, and is read with a second before and after it."""
    read = []

    def echo(self, clip, frames):
        """The number of each frame, twice, as its probabilities."""
        assert len(clip.mouths) == frames and len(clip.audio) == 640 * frames
        numbers = 256 * clip.mouths[:, 0, 0].astype(int) + clip.mouths[:, 0, 1]
        read.append((numbers[0], numbers[-1]))
        return torch.from_numpy(numbers.repeat(2))[:, None].float()

    monkeypatch.setattr(WordAligner, "_read", echo)
    numbers = np.arange(1040)
    mouths = np.stack((numbers // 256, numbers % 256), axis=1)[:, None].astype(np.uint8)  # (frames, 1, 2)
    found = aligner.ctc_log_probs(Clip("", np.zeros(1040 * 640, np.float32), mouths))
    assert found[:, 0].tolist() == numbers.repeat(2).tolist()
    assert read == [(0, 524), (475, 1024), (975, 1039)]


def test_a_window_without_sound_or_lips_is_blank(aligner, spelled):
    audio, mouths = spelled("ET OA", 0)
    for clip in (Clip("", audio, None), Clip("", None, mouths), Clip("", audio[:100], mouths)):
        probs = aligner._read(clip, 15).exp()
        assert probs.shape == (30, 40) and torch.allclose(probs.sum(dim=1), torch.ones(30), atol=1e-4)
    silent = aligner._read(Clip("", audio[:100], None), 15).exp()
    assert silent[:, BLANK].tolist() == [1.0] * 30 and silent.sum() == 30
    shorter = aligner._read(Clip("", audio[: 5 * 640], None), 15).exp()
    assert shorter[10:, BLANK].tolist() == [1.0] * 20 and (shorter[:10, BLANK] < 1).all()


@pytest.fixture
def recipe(tiny_recipe, prepared_folder, checkpoint, tmp_path):
    """The longest clips have 15 frames, at most 12 are trained on; of two of them no word times are known."""
    folder = prepared_folder(tmp_path / "data", ["ET", "ET OA", "IN TE", "NO TA", "NE"])
    path = next(folder.glob("*.parquet"))
    table = pq.read_table(path)
    rows = table.to_pylist()
    for number in (0, 1, 2):
        rows[number]["words"] = None
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    content = tiny_recipe(folder, tmp_path / "run")
    content["data"] |= {"max_frames": 12, "cut_long_clips": "alignment", "aligner": str(checkpoint)}
    content["augmentation"] = {"noise_probability": 0.0, "flip": 0.0, "crop_jitter": 0}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_recipe(path)


def test_aligned_clips_are_cut_and_counted(recipe, tmp_path, monkeypatch, caplog, spelled):
    """Times are found once; the clip that the aligner cannot align is left out, as without an aligner."""
    aligned = []

    def align(self, clip):
        aligned.append(clip.text)
        if clip.text == "IN TE":
            raise ValueError("a text that does not fit into its clip")
        return (("ET", 0.0, 0.24), ("OA", 0.36, 0.6))

    monkeypatch.setattr(WordAligner, "align", align)
    folders = recipe.data.train
    with caplog.at_level(logging.WARNING):
        rows = load_rows(folders, recipe.data, training=True, output=tmp_path / "run")
    assert rows["text"][:] == ["ET", "ET OA", "NO TA", "NE"] and aligned == ["ET OA", "IN TE"]
    said = caplog.text
    assert "of 2 clips with more than data.max_frames (12) frames and without word times 1 are aligned by" in said
    assert "; 1 have a text that does not fit into its clip" in said
    assert "1 of 5 clips are left out: more than data.max_frames (12) frames, and no word times" in said
    assert "2 of 4 clips have more than data.max_frames (12) frames and are cut between words" in said

    clips = TrainingClips(rows, recipe.augmentation, recipe.data, 16)
    clip = clips[1]
    assert (clip.text, clip.frames, clip.words) == ("ET", 9, None)  # up to where OA begins; the times go no further
    assert np.array_equal(clip.mouths, spelled("ET OA", 1)[1][:9, 2:18, 2:18])
    assert clips[2].text == "NO" and clips[2].words == (("NO", 0.0, pytest.approx(0.24)),)
    windows = TrainingClips(rows, recipe.augmentation, replace(recipe.data, word_window=0.5), 16)
    assert {windows[1].text for windows.epoch in range(10)} == {"ET", "OA"}

    again = load_rows(folders, recipe.data, training=True, output=tmp_path / "run")
    assert again["text"][:] == rows["text"][:] and aligned == ["ET OA", "IN TE"]
    settings = json.loads((tmp_path / "run" / "word_times" / "word_times.json").read_text())
    assert settings["data.max_frames"] == 12
    recipe.data.max_frames = 11
    with pytest.raises(ValueError, match=r"word_times was begun with other settings \(data\.max_frames 12 there, 11"):
        load_rows(folders, recipe.data, training=True, output=tmp_path / "run")
    recipe.data.max_frames = 15
    assert len(load_rows(folders, recipe.data, training=True, output=tmp_path / "other")) == 5
    assert not (tmp_path / "other").exists()  # nothing is long


def test_clips_without_a_word_that_fits_are_left_out(recipe, caplog):
    recipe.data.max_frames, recipe.data.cut_long_clips, recipe.data.aligner = 5, "leave_out", None
    with pytest.raises(ValueError, match="no clip is left: all 2 have more than data.max_frames .*no word that is as"):
        load_rows(recipe.data.train, recipe.data, training=True)


def test_a_checkpoint_of_other_crops_does_not_align(recipe, checkpoint, monkeypatch, tmp_path):
    folder = recipe.data.train[0]
    settings = {"roi_size": 20, "mouth_width": 12.0, "fps": 25.0}
    with open(f"{folder}/prepare.json", "w") as file:
        json.dump(settings, file)
    with pytest.raises(ValueError, match="data was prepared with mouth_width 12, not 10"):
        load_rows(recipe.data.train, recipe.data, training=True, output=tmp_path / "run")


def test_frames_of_a_duration():
    assert [frames_of(seconds) for seconds in (0.0, 0.04, np.float32(6.4), 6.4 + 1 / 16000, 6.45)] == [
        0,
        1,
        160,
        161,
        162,
    ]


@pytest.mark.slow
def test_embedded_checkpoint_aligns_a_speaker_to_a_frame_or_two(repository, shared):
    """GRID's own word times, borders between words within 0.08 s; another sentence is refused."""
    source = shared / "data" / "grid_s1" / "test"
    if not source.is_dir():
        pytest.skip("needs ../shared/data/grid_s1")
    aligner = WordAligner(str(repository / "model_cards" / "avsr-grid-tiny"))
    rows = [
        decode_row(prepare_clip(u, aligner.processor.image_processor)) for u in READERS["folder"](source, None)[:4]
    ]
    for place, row in enumerate(rows):
        clip = Clip(row["text"], row["audio"], row["mouths"])
        for view in (clip, replace(clip, mouths=None), replace(clip, audio=None)):
            found = aligner.align(view)
            off = [abs(end - word["end"]) for (_, _, end), word in zip(found[:-1], row["words"][:-1])]
            assert max(off) < (0.08 if view.audio is not None else 0.2), off
        with pytest.raises(ValueError, match="not what the aligner hears"):
            aligner.align(replace(clip, text=rows[place - 1]["text"]))
    assert forced_alignment.LEAST_CONFIDENCE == 0.2
