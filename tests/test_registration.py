"""`import lookhear` takes milliseconds, and yet transformers knows our classes: whatever is imported first."""

import os
import subprocess
import sys

import pytest

# One process for many first imports: what takes long and has nothing to do with it is loaded before it is forked.
FIRST_IMPORTS = """
import os, sys, traceback
import torch, torchvision, scipy.ndimage, scipy.optimize, scipy.signal, scipy.stats
import accelerate, huggingface_hub, tokenizers

CHECK = '''
import lookhear
import transformers
assert transformers.CONFIG_MAPPING["avsr"] is lookhear.AvsrConfig
assert type(transformers.AutoConfig.from_pretrained("model_cards/glee-tiny")) is lookhear.GleeConfig
assert transformers.AutoModel._model_mapping[lookhear.GleeConfig] is lookhear.GleeModel
assert type(transformers.AutoProcessor.from_pretrained("model_cards/avsr-grid-tiny")) is lookhear.AvsrProcessor
tasks = transformers.pipelines.PIPELINE_REGISTRY
assert tasks.check_task("object-perception")[1]["impl"] is lookhear.ObjectPerceptionPipeline
assert transformers.pipeline is transformers.pipelines.pipeline  # which knows models by name
assert transformers.pipeline.__code__.co_filename.endswith("registration.py")
assert {type(sys.modules[name]).__name__ for name in sys.modules if "transformers.models.auto." in name} == {"module"}
'''
assert "transformers" not in sys.modules
for code in sys.stdin.read().split("---"):
    child = os.fork()
    if not child:
        try:
            exec(code + CHECK, {"sys": sys})
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print("FAILED", code)
"""
QUICK = [
    "from transformers import AutoConfig",
    "from transformers import AutoProcessor, pipeline",
    "import transformers.pipelines",
    "import lookhear.processing.avsr.speaker_locator_avsr",
]
MORE = [
    "from transformers import PreTrainedModel",
    "from transformers.models.auto.modeling_auto import *",
    *(f"from transformers import {name}" for name in ("AutoModel", "AutoModelForSpeechSeq2Seq", "AutoTokenizer")),
    *(
        f"from transformers import {name}"
        for name in ("AutoImageProcessor", "AutoFeatureExtractor", "AutoVideoProcessor")
    ),
    "from transformers import AutoModelForZeroShotObjectDetection, AutoModelForVideoClassification",
    *(f"from transformers import {name}" for name in ("Pipeline", "Trainer", "GenerationMixin", "ProcessorMixin")),
    *(f"from transformers import {name}" for name in ("CLIPTokenizer", "DetrForObjectDetection", "CONFIG_MAPPING")),
    "import transformers",
    "import transformers; transformers.AutoModel",
    "from transformers.models.auto import AutoModel",
    "from transformers.models.auto.configuration_auto import CONFIG_MAPPING",
    "import transformers.models.auto.modeling_auto",
    "import transformers.models.llava.modeling_llava",
    "import transformers.generation.utils, transformers.trainer",
    "import datasets, evaluate",
    "import lookhear.modeling.glee",
    "import lookhear.training.avsr.train",
    "from lookhear import *",
    "from lookhear import GleeTracker",
    "import lookhear; assert lookhear.modeling.glee.GleeConfig is lookhear.GleeConfig",
]
THREADS = """
import importlib, sys, threading
import lookhear

names = ["AutoConfig", "AutoModel", "AutoProcessor", "AutoTokenizer", "AutoImageProcessor"]
names += ["pipeline", "PreTrainedModel"]
together, wrong = threading.Barrier(len(names)), []

def take(name):
    together.wait()
    try:
        taken = getattr(importlib.import_module("transformers"), name)
        if name not in ("pipeline", "PreTrainedModel"):
            importlib.import_module("transformers").AutoConfig.from_pretrained("model_cards/glee-tiny")
        if name in ("AutoProcessor", "AutoTokenizer", "AutoImageProcessor"):
            taken.from_pretrained("model_cards/avsr-grid-tiny")
    except BaseException as error:
        wrong.append((name, error))

threads = [threading.Thread(target=take, args=(name,)) for name in names]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not wrong, wrong
"""
SPAWN = """
import multiprocessing

def config_type(folder):
    from transformers import AutoConfig
    return type(AutoConfig.from_pretrained(folder))

if __name__ == "__main__":
    import lookhear
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(config_type, ["model_cards/glee-tiny"]) is lookhear.GleeConfig
"""


def run(repository, *arguments, **options) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=repository, capture_output=True, text=True, timeout=600, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_import_loads_nothing_heavy_and_is_quick(repository):
    """The fastest of five, in time of the processor: what else runs on the machine is not our import."""
    script = """
import sys, time
start = time.process_time()
import lookhear
print(time.process_time() - start)
heavy = {"torch", "transformers", "numpy", "scipy", "av", "huggingface_hub"}
heavy |= {"lookhear.modeling", "lookhear.registration"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
assert lookhear.__version__ and {"AvsrConfig", "GleeTracker", "modeling"} <= set(dir(lookhear))
"""
    assert min(float(run(repository, "-c", script)) for _ in range(5)) < 0.3


def test_an_unknown_name_is_an_attribute_error(repository):
    import lookhear

    with pytest.raises(AttributeError, match="no attribute 'Avsr'"):
        _ = lookhear.Avsr
    assert set(lookhear.__all__) <= set(dir(lookhear))
    assert all(getattr(lookhear, name).__name__ == name for name in lookhear.__all__)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="many first imports in one process need fork")
@pytest.mark.parametrize("imports", [QUICK, pytest.param(MORE, marks=pytest.mark.slow)], ids=["some", "more"])
def test_transformers_knows_our_classes_whatever_is_imported_first(repository, imports):
    orders = [f"import lookhear\n{line}\n" for line in imports] + [f"{line}\nimport lookhear\n" for line in imports]
    printed = run(repository, "-c", FIRST_IMPORTS, input="---".join(orders))
    assert "FAILED" not in printed, printed


@pytest.mark.slow
def test_transformers_knows_our_classes_in_threads_that_import_it_at_once(repository):
    run(repository, "-c", THREADS)


@pytest.mark.slow
def test_a_spawned_process_knows_our_classes(repository, tmp_path):
    """The result's type comes back by the name of its module, which the child and the parent both import."""
    (tmp_path / "spawning.py").write_text(SPAWN.replace("import multiprocessing", "import lookhear, multiprocessing"))
    run(repository, str(tmp_path / "spawning.py"))


@pytest.mark.slow
def test_the_source_of_watched_modules_is_found(repository):
    """Tracebacks, `inspect` and documentation tools ask a module's loader."""
    script = """
import lookhear, inspect, importlib.resources, importlib.util
from transformers import AutoConfig
import transformers.models.auto.configuration_auto as module
assert "class AutoConfig" in inspect.getsource(AutoConfig)
assert "CONFIG_MAPPING" in module.__loader__.get_source(module.__name__)
assert importlib.util.find_spec("transformers.pipelines").loader.is_package("transformers.pipelines")
"""
    run(repository, "-c", script)


def test_the_command_runs_as_a_module(repository):
    assert run(repository, "-m", "lookhear", "--version").startswith("lookhear ")
