"""The commands and the Python of README, guides, cards and folders' READMEs run as they stand.

Each document gets a folder of its own with the files that the texts name (`clip.mp4`, `scene.png`, `my_coco.json`, …),
synthesized here, and its blocks run there in their order. What `FOREIGN` matches needs data of others, a network or
hours, and is only read: options of `lookhear` by its parser, Python by `ast`, paths and modules by whether they exist.
"""

import argparse
import ast
import glob
import importlib.util
import json
import re
import shlex
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

FOREIGN = {
    r"/data/": "a corpus that its owners hand out",
    r"\bGRID/": "GRID's videos",
    r"\bcorpora/": "the papers' corpora",
    r"\bORG/MODEL\b": "a checkpoint of the reader's",
    r"\bGLEE_Lite_joint\.pth|^lookhear convert glee glee-|model=\"glee-lite\"": "GLEE's published weights",
    r"\bphoto\.jpg": "a photo of the reader's",
    r"^lookhear export|\bonnxruntime\b": "packages of lookhear[export]",
    r"\bllava-hf/": "LLaVA's published weights",
    r"^lookhear convert (usr2|auto_avsr|vsr-ml)\b": "published recognisers",
    r"--model (usr2-base/|lips/|vsr-)": "what a published recogniser becomes",
    r"\b(talk\.mkv|recorder\.wav|voice\.wav)": "a recording of the reader's",
    r"^python -m pytest tests/reliability": "an hour of kills and damaged files",
    r"\b(grid_tiny|lrs2_\w+|stage\d_\w+|scenes_tiny|people_tiny|lisa_glee_tiny)\.yaml": "hours of training",
    r"^lookhear publish (?!.*--dry-run)": "the Hub",
    r"^lookhear transcribe - ": "a pipe",
    r"\blookhear import batch\b": "Ray, on which tests/test_batch.py runs it",
    r"^lookhear live|asr\.live\(": "a camera, or as long as a clip plays: tests/test_cli_live.py reads its files",
    r"^lookhear serve|127\.0\.0\.1:8000": "a server, which tests/serving/test_guide.py starts and asks",
}
# More than a few seconds.
LONG = r"^lookhear (train|evaluate|prepare|reproduce)\b|--speaker everyone|--recursive|runs/mine"
SHELL = ("sh", "bash")
PREPARED = {"training/README.md"}  # their Python reads folders that their commands would prepare in hours


@dataclass
class Block:
    """A fenced block: its language, its title, its text and the line that it begins on."""

    language: str
    title: str
    text: str
    line: int


def documents() -> list[str]:
    """Documents with commands or Python in them, from the repository's folder."""
    root = Path(__file__).parents[1]
    patterns = ("*.md", "docs/**/*.md", "*/README.md", "*/*/README.md", "*/*/*/README.md")
    paths = sorted({path for pattern in patterns for path in root.glob(pattern)})
    paths = [path for path in paths if "src" not in path.relative_to(root).parts]  # links to the folders
    return [str(path.relative_to(root)) for path in paths if any(is_code(block) for block in blocks(path))]


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    fences = re.finditer(r'^```(\w*)(?: title="(.*?)")?\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    return [Block(one[1], one[2] or "", one[3], text[: one.start()].count("\n") + 1) for one in fences]


def is_code(block: Block) -> bool:
    return block.language in (*SHELL, "python") or bool(block.title)


def commands(text: str) -> list[str]:
    """One command a line, without the comment at its end; a line that ends in a backslash goes on in the next."""
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [line for line in (shlex.join(shlex.split(line, comments=True)) for line in lines) if line]


def is_foreign(text: str) -> bool:
    return any(re.search(pattern, text) for pattern in FOREIGN)


DOCUMENTS = documents()


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """Clips, a picture, a video of a few frames and a COCO file, under the names that the texts use."""
    pytest.importorskip("espeakng_loader", reason="needs lookhear[demo]")
    from lookhear.training.avsr.synthesis import synthesize_clip
    from lookhear.training.glee.scenes.scene_file import write_scene

    folder = tmp_path_factory.mktemp("media")
    for name in ("clips", "pictures"):
        (folder / name).mkdir()
    synthesize_clip("bin blue", folder / "clip.mp4", portrait="hopper")
    two = {"portrait": "hopper", "second": "astronaut", "second_text": "set red"}
    synthesize_clip("lay green", folder / "talk.mp4", seed=11, **two)
    synthesize_clip("set red", folder / "clips" / "1.mp4", portrait="astronaut", seed=1)
    shutil.copy(folder / "clip.mp4", folder / "clips" / "0.mp4")
    rows = [{"file_name": "0.mp4", "text": "bin blue"}, {"file_name": "1.mp4", "text": "set red"}]
    (folder / "clips" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(folder / "clips", folder / "my_videos")
    (folder / "my_pictures" / "more").mkdir(parents=True)
    shutil.copy(folder / "clip.mp4", folder / "lecture.mp4")
    write_scene(folder / "scene.png", seed=11)
    for name in ("one.png", "more/two.png"):
        shutil.copy(folder / "scene.png", folder / "my_pictures" / name)
    write_scene(folder / "long.mp4", seed=2)
    shorten(folder / "long.mp4", folder / "walk.mp4", frames=9)
    (folder / "long.mp4").unlink()
    write_coco(folder / "my_coco.json", folder / "pictures")
    return folder


def shorten(source: Path, target: Path, frames: int) -> None:
    """Writes the first frames of a video."""
    import av

    with av.open(str(source)) as whole, av.open(str(target), "w") as part:
        video = whole.streams.video[0]
        stream = part.add_stream("libx264", rate=video.average_rate)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
        for number, frame in enumerate(whole.decode(video)):
            if number == frames:
                break
            part.mux(stream.encode(frame))
        part.mux(stream.encode())


def write_coco(path: Path, pictures: Path) -> None:
    """Two small generated scenes as a COCO file."""
    from lookhear.training.glee.scenes.scene_file import write_scene

    images, annotations, categories = [], [], {}
    for number in range(2):
        picture, facts = write_scene(pictures / f"{number}.png", seed=number, size=(96, 128))
        images.append({"id": number, "file_name": picture.name, "height": 96, "width": 128})
        for one in json.loads(facts.read_text())["objects"]:
            left, top, right, bottom = one["box"]
            box = [left, top, right - left, bottom - top]
            category = categories.setdefault(one["label"], len(categories) + 1)
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": box}
            annotations.append(row | {"area": box[2] * box[3], "iscrowd": 0})
    named = [{"id": number, "name": name} for name, number in categories.items()]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": named}))


@pytest.fixture
def workspace(media, repository, tmp_path, monkeypatch) -> Path:
    """The current folder: the media, the repository's folders, and `glee-lite`, for which glee-tiny stands in."""
    folder = tmp_path / "work"
    folder.mkdir()
    for path in media.iterdir():
        (folder / path.name).symlink_to(path)
    for name in ("model_cards", "evaluation", "training", "examples", "spaces"):
        (folder / name).symlink_to(repository / name)
    (folder / "glee-lite").symlink_to(repository / "model_cards" / "glee-tiny")
    monkeypatch.chdir(folder)
    return folder


def names(document: str, media: Path) -> dict:
    """What the Python of a document takes for granted."""
    if document == "evaluation/metrics/README.md":
        objects = SimpleNamespace(ids=[1], boxes=[[0.0, 0.0, 9.0, 9.0]])
        return {"frames": [(objects, objects)] * 2}
    if document == "README.md":
        from lookhear.training.avsr.synthesis import render_clip

        frames, wave, _ = render_clip("bin blue", portrait="hopper")
        return {"frames": np.stack(list(frames)), "wave": wave}
    return {}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_name_what_exists(document, repository):
    for block in blocks(repository / document):
        for command in commands(block.text) if block.language in SHELL else ():
            for part in re.split(r" '?&&'? ", command):
                check_command(shlex.split(part), repository)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_can_be_parsed_and_its_modules_exist(document, repository):
    for block in blocks(repository / document):
        for node in ast.walk(ast.parse(block.text)) if block.language == "python" else ():
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not has_name(module, alias.name)] == [], document


def has_name(module: ModuleType, name: str) -> bool:
    """Whether a module has something, which may be a module of its own that nobody has imported yet."""
    part = f"{module.__name__}.{name}"
    return hasattr(module, name) or (hasattr(module, "__path__") and importlib.util.find_spec(part) is not None)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_quick_commands_and_python_run(document, repository, workspace, media):
    run_document(repository, document, workspace, media, with_long=False)


LONG_DOCUMENTS = [
    document
    for document in DOCUMENTS
    for path in [Path(__file__).parents[1] / document]
    if any(
        re.search(LONG, command) and not is_foreign(command)
        for block in blocks(path)
        if block.language in SHELL
        for command in commands(block.text)
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("document", LONG_DOCUMENTS)
def test_long_commands_run(document, repository, workspace, media):
    run_document(repository, document, workspace, media, with_long=True)


def run_document(repository: Path, document: str, workspace: Path, media: Path, with_long: bool) -> None:
    """Runs the blocks of a document in their order; of its commands, the long ones too, or the others only."""
    given = names(document, media)
    if document in PREPARED:
        prepare(workspace)
    for block in blocks(repository / document):
        if block.title:
            (workspace / block.title).write_text(block.text, encoding="utf-8")
        elif block.language in SHELL:
            for command in commands(block.text):
                if not is_foreign(command) and (with_long or not re.search(LONG, command)):
                    run_command(shlex.split(command), f"{document}:{block.line}")
        elif block.language == "python" and not with_long and not is_foreign(block.text):
            exec(compile(block.text, f"{document}:{block.line}", "exec"), given)


def run_command(words: list[str], place: str) -> None:
    """Runs a command of lookhear in this process; what it synthesizes does not replace what is there."""
    from lookhear_command import main

    if words[0] != "lookhear":
        return
    words = [found for word in words[1:] for found in (sorted(glob.glob(word)) if "*" in word else [word])]
    if words[0] == "synthesize":
        output = words.index("-o") + 1
        words[output] = "made_" + words[output]
    assert main(words) == 0, f"{place}: lookhear {shlex.join(words)}"


def prepare(workspace: Path) -> None:
    """Prepares what the Python of `training/README.md` reads, once under each of its two names."""
    from lookhear_command import main

    for name in ("grid_train", "mine"):
        assert main(["prepare", "folder", "clips", f"prepared/{name}", "--model", "model_cards/avsr-grid-tiny"]) == 0


def check_command(words: list[str], repository: Path) -> None:
    """Fails where a command names an option, script, module, recipe, target or extra that does not exist."""
    while re.match(r"\w+=", words[0]):
        words = words[1:]
    check = {"lookhear": check_lookhear, "python": check_python, "make": check_make, "pip": check_pip}
    check |= {"accelerate": check_accelerate}
    if words[0] in check:
        check[words[0]](words, repository)
    else:
        assert words[0] in ("git", "cd", "cp", "curl", "docker"), words


def check_lookhear(words: list[str], repository: Path) -> None:
    from lookhear_command import build_parser

    assert isinstance(build_parser().parse_args(words[1:]), argparse.Namespace)


def check_python(words: list[str], repository: Path) -> None:
    if words[1] == "-m":
        check_module(words[2:], repository)
    elif words[1] != "app.py":  # of a Space
        check_options(repository / words[1], words[2:])


def check_accelerate(words: list[str], repository: Path) -> None:
    assert words[1:3] == ["launch", "--config_file"] and (repository / words[3]).is_file(), words
    check_module(words[words.index("-m") + 1 :], repository)


def check_module(words: list[str], repository: Path) -> None:
    if words[0] == "lookhear.cli":
        check_lookhear([word for word in words if word != "..."], repository)
        return
    if words[0] == "pytest":
        check_options(repository / words[1] / "conftest.py", [word for word in words if word.startswith("--")])
        return
    origin = Path(importlib.util.find_spec(words[0]).origin)
    check_options(origin.with_name("__main__.py") if origin.name == "__init__.py" else origin, words[1:])
    for word in words[1:]:
        assert not word.startswith("training/") or (repository / word).is_file(), words


def check_options(script: Path, words: list[str]) -> None:
    text = script.read_text(encoding="utf-8")
    assert [word for word in words if word.startswith("--") and f'"{word}"' not in text] == [], script


def check_make(words: list[str], repository: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in words[1:] if "=" not in word} <= set(targets), words


def check_pip(words: list[str], repository: Path) -> None:
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"\[([\w,-]+)\]", " ".join(words))
    assert {extra for group in named for extra in group.split(",")} <= set(extras), words
