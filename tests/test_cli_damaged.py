"""Damaged checkpoints and a full standard output end in one line and exit code 2, without a library's traceback."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lookhear import cli
from lookhear_command.errors import explained, one_line


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{")


def list_of_nothing(folder: Path) -> None:
    (folder / "processor_config.json").write_text("[]")


def of_unknown_type(folder: Path) -> None:
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    del fields["auto_map"]
    path.write_text(json.dumps({**fields, "model_type": "nosuch"}))


def change(**fields: object) -> Callable[[Path], None]:
    """Sets fields of `config.json`."""

    def changed(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return changed


@pytest.fixture
def sound(tmp_path) -> Path:
    path = tmp_path / "sound.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 8000), 16000)
    return path


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "is damaged, or of another kind: get it again (SafetensorError"),
        (empty, "is damaged, or of another kind: get it again (SafetensorError"),
        (without_weights, "model.safetensors"),
        (broken_tokenizer, "cannot be loaded"),
        (list_of_nothing, "is damaged, or of another kind"),
        (change(hidden_size="wide"), "is damaged, or of another kind"),
        (change(audio_config="none"), "is damaged, or of another kind"),
        (change(encoder_layers=10**9), "its config.json says encoder_layers: 1000000000, and 1000 is the most"),
        (of_unknown_type, "is a model of another kind (nosuch)"),
        (
            change(model_type="nosuch", auto_map={"AutoConfig": "evil.Config"}),
            "is a model of another kind (nosuch)",
        ),
    ],
)
def test_a_damaged_checkpoint_is_one_line(tiny_checkpoint, tmp_path, sound, capsys, monkeypatch, damage, reason):
    """Also one that brings code of its own, on a terminal: nobody is asked whether it should run."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    damage(folder)
    (folder / "evil.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    code = cli.main(["transcribe", str(sound), "--model", str(folder)])
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert code == 2 and len(lines) == 1, lines
    assert reason in lines[0] and str(folder) in lines[0] and "Traceback" not in lines[0] and len(lines[0]) < 900


def test_a_fault_of_ours_stays_one():
    try:
        {}["key"]
    except KeyError as error:
        assert explained(error) == (1, "KeyError: 'key' (LOOKHEAR_TRACEBACK=1 shows where)")


def test_a_traceback_in_a_message_is_left_out():
    story = "Traceback (most recent call last):\n  File 'x.py', line 3, in load\n    boom()\nOSError: no file\n\n\n"
    assert one_line(ValueError(f"Could not load it:\n{story}while loading:\n")) == (
        "Could not load it: OSError: no file while loading:"
    )
    assert len(one_line(ValueError("x" * 10_000))) < 1000


def test_a_full_standard_output_is_one_line(tiny_checkpoint, sound, capsys, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main(["transcribe", str(sound), "--model", str(tiny_checkpoint)]) == 2
        full.flush()  # what it could not take is gone
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "No space left on device" in line
