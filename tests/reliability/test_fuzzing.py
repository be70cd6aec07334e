"""Damaged files are refused in one line or read: no crash, no hang, no memory without end, no library's exception."""

import json
import random
import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Returns a file's content with one to four kinds of damage."""
    for _ in range(draw.randint(1, 4)):
        if not content:
            return content
        place, length = draw.randrange(len(content)), draw.choice((1, 2, 4, 16, 200))
        kind = draw.choice(("flip", "cut", "drop", "repeat", "zero", "noise", "number", "swap", "head"))
        if kind == "flip":
            content = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
        elif kind == "cut":
            content = content[: draw.choice((place, 0, len(content) - 1))]
        elif kind == "drop":
            content = content[:place] + content[place + length :]
        elif kind == "repeat":
            content = content[:place] + content[place : place + length] * draw.choice((2, 50)) + content[place:]
        elif kind == "zero":
            content = content[:place] + bytes(length) + content[place + length :]
        elif kind == "noise":
            content = content[:place] + draw.randbytes(length) + content[place + length :]
        elif kind == "swap":
            other = draw.randrange(len(content))
            content = content[other:] + content[:other] if draw.random() < 0.2 else content[:place] + content[other:]
        elif kind == "head":
            place = draw.randrange(min(64, len(content)))
            content = (
                content[:place]
                + draw.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)))
                + content[place + 4 :]
            )
        elif numbers := list(re.finditer(rb"\d+", content)):
            number = draw.choice(numbers)
            new = draw.choice((b"-1", b"0", b"1e999", b"99999999999", b"null", b"[]", b'"a"', b"true", b"{}"))
            content = content[: number.start()] + new + content[number.end() :]
    return content


@pytest.fixture(scope="module")
def samples(tiny_checkpoint, seer, talking_clips, tmp_path_factory) -> dict[str, list[Path]]:
    """Whole files, or folders of a checkpoint, of each kind."""
    folder = tmp_path_factory.mktemp("samples")
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 255, (40, 56, 3), dtype=np.uint8)) for _ in range(4)]
    for ending in ("png", "jpg", "webp", "gif", "tiff", "bmp"):
        more = {"save_all": True, "append_images": pictures[1:]} if ending in ("webp", "gif") else {}
        pictures[0].save(folder / f"a.{ending}", **more)
    clips = [talking_clips / "0.mp4", talking_clips / "2.wav"]
    coco = {"images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 56}]}
    coco["categories"] = [{"id": 1, "name": "cat"}]
    box = {"bbox": [2, 3, 20, 10], "area": 200, "segmentation": [[2, 3, 22, 3, 22, 13]], "iscrowd": 0}
    coco["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, **box}]
    (folder / "coco.json").write_text(json.dumps(coco))
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "bin blue 3"}\n' * 3)
    (folder / "recipe.yaml").write_text(
        "system: avsr\ndata: {train: [a]}\ntraining: {output_dir: out, max_steps: 3}\n"
    )
    (folder / "track.json").write_text("[[1, 2, 30, 40], null, [2.5, 3, 30, 41]]")
    (folder / "results.jsonl").write_text('{"about": {"model": "a"}}\n["1", {"text": "b"}]\n["2", [1.5]]\n')
    tables = ("coco.json", "metadata.jsonl", "recipe.yaml", "track.json", "results.jsonl")
    return {
        "avsr": clips,
        "glee": [*sorted(folder.glob("a.*")), clips[0]],
        "tables": [folder / name for name in tables],
        "checkpoints": [Path(tiny_checkpoint), Path(seer)],
    }


def damage(sample: Path, folder: Path, draw: random.Random) -> Path:
    """Writes a damaged copy of a sample into a folder; of a checkpoint, one of its files is damaged."""
    if sample.is_dir():
        name = "avsr" if (sample / "modeling_avsr.py").exists() else "glee"
        shutil.copytree(sample, folder / name)
        files = sorted(path for path in (folder / name).iterdir() if path.suffix in (".json", ".safetensors"))
        chosen = draw.choice(files)
        chosen.write_bytes(damaged(chosen.read_bytes(), draw))
        return folder / name
    target = folder / sample.name
    target.write_bytes(damaged(sample.read_bytes(), draw))
    if sample.suffix in (".json", ".jsonl") and (sample.parent / "a.png").exists():
        shutil.copy(sample.parent / "a.png", folder)
    return target


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", ["avsr", "glee", "tables", "checkpoints"])
def test_fuzzed_files_are_refused_or_read(kind, samples, tiny_checkpoint, seer, watched, amount, report, tmp_path):
    tried = amount("files")
    models = {"avsr": [str(tiny_checkpoint)], "glee": [str(seer)]}
    worker, outcomes, faults = watched(kind, *models.get(kind, [])), Counter(), []
    try:
        for number in tried:
            draw = random.Random(f"{tried.seed} {kind} {number}")
            with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
                path = damage(draw.choice(samples[kind]), Path(folder), draw)
                outcome, message = worker.read(path)
                outcomes[outcome] += 1
                if outcome not in ("read", "refused"):
                    faults.append(f"number {number}, {path.name}: {outcome} {message[:300]}")
    finally:
        worker.close()
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    report(f"damaged {kind}", sum(outcomes.values()), f"{counts}; {len(faults)} faults")
    assert not faults, "\n".join(faults)
