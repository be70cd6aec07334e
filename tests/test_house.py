"""The house rules: what is packaged, who imports whom, how fast the import is."""

import ast
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import tomllib
import zipfile
from pathlib import Path

import pytest
from PIL import Image

SYSTEMS = ("avsr", "glee", "lisa_glee")
LINKED = ("modeling", "processing", "training", "evaluation", "model_cards")


def tracked(repository: Path) -> list[str]:
    """Files under version control; where there is no git, as in an unpacked sdist, those that it would not ignore."""
    listed = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True)
    if names := [name for name in listed.stdout.splitlines() if (repository / name).is_file()]:
        return names
    made = re.compile(
        r"(\.venv[^/]*|build|dist|demo|site|\.[a-z]+_cache)/|.*(__pycache__/|\.egg-info/|/examples/.*\.mp4)|PKG-INFO|setup.cfg"
    )
    names = [str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()]
    return [name for name in names if not made.match(name)]


def sources(repository: Path, *folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((repository / folder).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere; relative ones with their dots."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


@pytest.fixture(scope="module")
def release(repository, tmp_path_factory) -> Path:
    """A copy of what is under version control: what a release is built from."""
    copy = tmp_path_factory.mktemp("copy")
    for name in tracked(repository):
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(repository / name, target)
    for name in LINKED:
        (copy / "src" / "lookhear" / name).symlink_to(Path("..", "..", name))
    return copy


@pytest.fixture(scope="module")
def sdist(release, tmp_path_factory) -> Path:
    """The sdist, unpacked; built without network."""
    output = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", output, release]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    with tarfile.open(next(output.glob("*.tar.gz"))) as archive:
        archive.extractall(output, filter="data")  # as pip does: links must not leave the folder
    return next(path for path in output.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> zipfile.ZipFile:
    """Built from the sdist, as a release is, without network."""
    output = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-build-isolation", "--no-deps"]
    built = subprocess.run([*pip, "--no-index", "-w", output, sdist], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return zipfile.ZipFile(next(output.glob("*.whl")))


def test_sdist_holds_what_git_holds(repository, sdist):
    """Each file once: what src/lookhear links to is a link there as well."""
    packed = {str(path.relative_to(sdist)) for path in sdist.rglob("*") if path.is_file()}
    made = {name for name in packed if ".egg-info/" in name or name in ("PKG-INFO", "setup.cfg")}
    assert packed - made == set(tracked(repository))
    assert all((sdist / "src" / "lookhear" / name).is_symlink() for name in LINKED)


def test_tests_run_from_the_sdist(sdist):
    """Two files stand for all: one of the house, which reads the folders, and one that imports the package."""
    tests = [
        "tests/test_house.py",
        "tests/processing/avsr/test_captions.py",
        "-k",
        "not wheel and not sdist and not quick and not auto",
    ]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-n",
        "0",
        "-m",
        "not slow",
        *tests,
    ]
    environment = os.environ | {"PYTHONPATH": str(sdist / "src")}
    done = subprocess.run(command, cwd=sdist, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_wheel_holds_what_git_holds(repository, wheel):
    expected = {
        name if name.startswith("lookhear") else f"lookhear/{name}"
        for name in (path.removeprefix("src/") for path in tracked(repository))
        if name.split("/")[0] in ("lookhear", "lookhear_command", *LINKED) and not name.endswith(".gitignore")
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == expected


def test_wheel_names_licence_and_command(wheel):
    names = wheel.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    entry_points = next(name for name in names if name.endswith("entry_points.txt"))
    assert "lookhear = lookhear_command:main" in wheel.read(entry_points).decode()


def test_source_folders_are_linked(repository):
    for name in LINKED:
        link = repository / "src" / "lookhear" / name
        assert link.is_symlink() and link.readlink() == Path("..", "..", name)


@pytest.mark.parametrize("folder", ["modeling", "processing"])
def test_exported_code_stays_in_its_own_folder(repository, folder):
    """Rule 1: third-party packages and `from .x import y` only, so that a checkpoint can carry the code."""
    for path in sources(repository, folder):
        for name in imports(path):
            assert not name.startswith(("lookhear", "..", "modeling", "processing", "training", "evaluation")), (
                f"{path} imports {name}"
            )
            assert not name.startswith(".") or "." not in name[1:], f"{path} imports {name}: one dot, one name"


def imported_names(path: Path, root: Path) -> set[str]:
    """Dotted names that a file imports anywhere, in functions too; relative ones in full. `root` holds packages."""
    package = list(path.relative_to(root).parent.parts)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


ABOVE = ("evaluation", "spaces", "benchmarks", "examples", "src/lookhear/commands", "src/lookhear/reproduction")
ABOVE += ("src/lookhear_command", "src/lookhear/serving", "src/lookhear/batch")


FRONTLESS = ("training", "evaluation", "publishing", "commands", "reproduction", "serving", "batch")


@pytest.mark.parametrize("folder", ABOVE)
def test_only_public_names_are_used_from_outside(repository, folder):
    """
    Rule 4. Models and processing are reached through what `lookhear` and the packages of each system export; of
    `training`, `evaluation`, `publishing`, `commands`, `reproduction`, `serving` and `batch`, whose modules have no
    such front, through public names.
    """
    packages = ["lookhear", *(f"lookhear.{kind}.{m}" for kind in ("modeling", "processing") for m in SYSTEMS)]
    public = {f"{name}.{exported}" for name in packages for exported in importlib.import_module(name).__all__}
    public |= {*packages, "lookhear.__version__"}
    open_folders = tuple(f"lookhear.{name}." for name in FRONTLESS)
    files = sources(repository, folder)
    assert files
    for path in files:
        root = repository / "src" if folder.startswith("src/") else repository
        for name in imported_names(path, root):
            if name.split(".")[0] in ("modeling", "processing", "training", "evaluation"):
                name = f"lookhear.{name}"  # from beside it
            if name.split(".")[0] == "lookhear" and name not in public:
                assert name.startswith(open_folders), f"{path} imports {name}, which is not exported"
                assert not any(part.startswith("_") for part in name.split(".")), f"{path} imports {name}"
        deep = re.search(r"\b(modeling|processing)\.\w+\.\w+_(avsr|glee)\b", path.read_text(encoding="utf-8"))
        assert not deep, f"{path} reaches into {deep[0]}"


@pytest.mark.parametrize("name", [f"{kind}.{system}" for kind in ("modeling", "processing") for system in SYSTEMS])
def test_exported_names_exist_and_are_documented(name):
    package = importlib.import_module(f"lookhear.{name}")
    for exported in package.__all__:
        assert exported.isupper() or inspect.getdoc(getattr(package, exported)), exported


def test_the_systems_do_not_know_each_other(repository):
    for folder in ("modeling", "processing", "training"):
        for path in sources(repository, f"{folder}/avsr"):
            assert not any("glee" in name for name in imports(path)), path
        for path in sources(repository, f"{folder}/glee"):
            assert not any("avsr" in name or "lisa" in name for name in imports(path)), path
        for path in sources(repository, f"{folder}/lisa_glee"):  # training asks about GLEE's scenes and corpora
            assert not any("avsr" in name for name in imports(path)), path


def test_exported_files_say_whose_they_are(repository):
    """Flat beside other systems' files on the Hub, names must not collide."""
    for kind in ("modeling", "processing"):
        for path in sources(repository, kind):
            system = path.parent.name
            if path.name != "__init__.py" and system != kind:
                assert f"_{system}" in path.stem, path


def test_both_systems_list_the_same_things_that_they_take_from_transformers(repository):
    """A checkpoint's code travels one folder at a time, so each has the module; and they are one text."""
    avsr, glee = (
        (repository / "modeling" / system / f"transformers_seam_{system}.py").read_text()
        for system in ("avsr", "glee")
    )
    assert avsr.replace("_avsr", "") == glee.replace("_glee", "")


def test_reading_ahead_is_one_text_in_both_systems(repository):
    files = ("avsr/media_source_avsr.py", "glee/video_reading_glee.py")
    avsr, glee = ((repository / "processing" / file).read_text().partition("\nclass _End:\n")[2] for file in files)
    assert "class ReadAhead" in avsr and avsr == glee


def test_all_readers_open_the_same_containers_and_formats(repository):
    from lookhear.processing.avsr.media_source_avsr import CONTAINERS, MAX_PIXELS, open_options
    from lookhear.processing.glee import video_reading_glee

    assert CONTAINERS == video_reading_glee.CONTAINERS and MAX_PIXELS == video_reading_glee.FRAME_LIMITS.max_pixels
    assert open_options(MAX_PIXELS) == video_reading_glee._open_options(video_reading_glee.FRAME_LIMITS)
    from lookhear.processing.glee import image_reading_glee
    from lookhear.processing.lisa_glee import pipeline_lisa_glee

    assert image_reading_glee.PICTURE_FORMATS == pipeline_lisa_glee.PICTURE_FORMATS
    assert not {"concat", "hls", "dash", "image2", "sdp", "rtsp", "lavfi"} & set(CONTAINERS.split(","))


def test_every_source_folder_is_a_package(repository):
    for path in sources(repository, "modeling", "processing", "training", "evaluation"):
        assert (path.parent / "__init__.py").is_file(), path


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (("processing.avsr.processing_avsr", "processing.glee.pipeline_glee"), ("save_with_code", "_reference")),
        (
            ("processing.glee.pipeline_glee", "processing.lisa_glee.pipeline_lisa_glee"),
            ("save_with_code", "_reference"),
        ),
        (("processing.avsr.media_avsr", "processing.glee.video_reading_glee"), ("orientation",)),
        (("processing.avsr.alignment_avsr", "processing.glee.perception_request_glee"), ("run_in_parts",)),
    ],
)
def test_what_both_systems_need_is_one_text(places, names):
    """A checkpoint's code travels one folder at a time, so that neither can call the other's."""
    one, other = (importlib.import_module(f"lookhear.{place}") for place in places)
    for name in names:
        assert inspect.getsource(getattr(one, name)) == inspect.getsource(getattr(other, name)), name


def test_no_file_is_longer_than_one_idea_needs(repository):
    for path in sources(repository, "modeling", "processing", "training", "evaluation", "src"):
        assert path.read_text(encoding="utf-8").count("\n") <= 720, path


def floors(folder: Path) -> int:
    """The longest chain of files of a folder that import each other at their top; a circle is an error."""
    beside = {path.stem: path for path in folder.glob("*.py")}
    below = {
        name: {
            node.module
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module in beside
        }
        for name, path in beside.items()
    }
    heights: dict[str, int] = {}

    def height(name: str, above: tuple[str, ...] = ()) -> int:
        assert name not in above, f"a circle of imports: {' -> '.join((*above, name))}"
        if name not in heights:
            heights[name] = 1 + max((height(other, (*above, name)) for other in below[name]), default=0)
        return heights[name]

    return max(map(height, beside))


@pytest.mark.parametrize(
    ("folder", "files", "most"),
    [("processing/avsr", 26, 8), ("processing/glee", 19, 6), ("modeling/glee", 12, 5), ("modeling/avsr", 12, 7)],
)
def test_rooms_are_few_and_not_deep(repository, folder, files, most):
    """Files of a folder, `__init__` counted, and floors of its import tree: who reads one file reads few others."""
    assert len(list((repository / folder).glob("*.py"))) <= files
    assert floors(repository / folder) <= most


@pytest.fixture
def files_run(repository):
    """Counts the files of ours, each once, whose functions a call runs, in threads that it starts as well."""

    def count(call) -> int:
        ran: set[str] = set()

        def trace(frame, event, argument):
            if frame.f_code.co_name != "<module>":  # an import that happens late isn't part of the way
                ran.add(frame.f_code.co_filename)

        threading.settrace(trace)
        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(None)
            threading.settrace(None)
        rooms = [repository / name for name in LINKED]
        return len({path for path in map(Path.resolve, map(Path, ran)) if any(room in path.parents for room in rooms)})

    return count


def test_one_call_runs_few_files(repository, files_run, talking_clips):
    """Who follows one call from the input to the result reads so many files, and no more."""
    from transformers import pipeline

    clip = talking_clips / "0.mp4"
    asr = pipeline("audio-visual-speech-recognition", model=str(repository / "model_cards" / "avsr-grid-tiny"))
    see = pipeline("object-perception", model=str(repository / "model_cards" / "glee-tiny"))
    picture = Image.new("RGB", (160, 128), "grey")
    assert files_run(lambda: asr(clip)) <= 24
    assert files_run(lambda: asr(clip, speaker={"point": (180, 140)})) <= 48
    assert files_run(lambda: see(picture, labels=["star"])) <= 14


def test_other_pipelines_do_not_pay_for_lisa_glee(repository):
    """What registers LISA-GLEE loads no network, and `see` runs none of its functions."""
    script = """
import sys
import lookhear
assert not [name for name in sys.modules if "lisa_glee" in name]
from transformers import pipeline
from PIL import Image

see = pipeline("object-perception", model=sys.argv[1])
ran = set()
def trace(frame, event, argument):
    ran.add(frame.f_code.co_filename)
sys.settrace(trace)
see(Image.new("RGB", (160, 128), "grey"), labels=["star"])
sys.settrace(None)
assert ran and not [name for name in ran if "lisa_glee" in name]
networks = [name for name in sys.modules if name.startswith("transformers.models.")]
assert not [name for name in networks if ".llava" in name or ".llama" in name], networks
"""
    command = [sys.executable, "-c", script, str(repository / "model_cards" / "glee-tiny")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository)
    assert done.returncode == 0, done.stderr


def test_every_ignored_type_error_has_its_reason(repository):
    """`# type: ignore[code]  # why the types of a library are wrong there`."""
    for path in sources(repository, "modeling", "processing", "training", "evaluation", "src"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "# type: ignore" in line:
                assert re.search(r"# type: ignore\[[a-z-, ]+\]  # \w", line), f"{path}: {line.strip()}"


def test_import_is_quick_beyond_torch_and_transformers():
    """What transformers and torch load for our base classes is loaded first; the rest is ours."""
    script = """
import sys, time
import torch, torchvision
import transformers.pipelines, transformers.modeling_utils, transformers.image_processing_utils
from transformers import AutoImageProcessor, AutoModel, AutoProcessor, AutoTokenizer
from transformers import GenerationMixin, ProcessorMixin, ResNetModel, SequenceFeatureExtractor, Wav2Vec2Model
start = time.process_time()  # not the clock on the wall: a busy machine is not our import
import lookhear.registration
print(time.process_time() - start)
print(sorted({name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, loaded = done.stdout.splitlines()
    assert float(seconds) < 1.0
    heavy = {"dlib", "av", "matplotlib", "gradio", "skimage", "jiwer", "espeakng_loader", "datasets"}
    assert not heavy & set(ast.literal_eval(loaded))


def test_all_has_everything_but_the_hub_kernels(repository):
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    choices = {"dlib", "docs", "export", "hub-kernels", "ray", "dev"}
    assert set(extras) == {"face", "eval", "demo", "lora", "serve", "all"} | choices
    assert extras["all"] == ["lookhear[face,eval,demo,lora,serve]"]


def test_every_requirement_has_its_reason(repository):
    lines = (repository / "pyproject.toml").read_text().splitlines()
    requirements = [line for line in lines if line.startswith('    "') and (">=" in line or "==" in line)]
    assert len(requirements) > 20
    assert [line for line in requirements if "#" not in line] == []


def test_a_call_of_ours_that_is_on_its_way_out_is_an_error():
    """The filters of pyproject.toml go by the module that called what warns."""
    call = "import warnings; warnings.warn('gone soon', FutureWarning, stacklevel=1)"
    with pytest.raises(FutureWarning):
        exec(call, {"__name__": "lookhear.processing.x"})
    with pytest.warns(FutureWarning):
        exec(call, {"__name__": "elsewhere"})


def test_readme_shows_how_to_start(repository):
    readme = (repository / "README.md").read_text()
    assert "make demo" in readme and "make test" in readme
    assert "make test" in (repository / ".ci" / "run").read_text()


def test_nothing_names_the_folder_it_was_written_in(repository):
    for name in tracked(repository):
        assert f"{repository}/".encode() not in (repository / name).read_bytes(), name


def test_auto_classes_know_every_class(tiny_checkpoint):
    import transformers

    import lookhear

    config = transformers.AutoConfig.from_pretrained(tiny_checkpoint)
    assert type(config) is lookhear.AvsrConfig
    for auto, expected in {
        transformers.AutoModel: lookhear.AvsrModel,
        transformers.AutoModelForSpeechSeq2Seq: lookhear.AvsrForConditionalGeneration,
        transformers.AutoProcessor: lookhear.AvsrProcessor,
        transformers.AutoTokenizer: lookhear.AvsrTokenizer,
        transformers.AutoFeatureExtractor: lookhear.AvsrFeatureExtractor,
        transformers.AutoImageProcessor: lookhear.MouthRoiImageProcessor,
    }.items():
        assert type(auto.from_pretrained(tiny_checkpoint)) is expected
    words = transformers.AutoModelForVideoClassification.from_config(config)
    assert type(words) is lookhear.AvsrForVideoClassification
    asr = transformers.pipeline("audio-visual-speech-recognition", model=str(tiny_checkpoint))
    assert type(asr) is lookhear.AudioVisualSpeechRecognitionPipeline
    assert all(hasattr(lookhear, name) for name in lookhear.__all__)
