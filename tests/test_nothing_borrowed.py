"""What we take from other libraries beyond their documented names: a list, so that a new one is a decision."""

import ast
import importlib
import re
import sys
from pathlib import Path

FOLDERS = ("modeling", "processing", "training", "evaluation", "src", "spaces")
LIBRARIES = {
    "accelerate",
    "av",
    "datasets",
    "evaluate",
    "gradio",
    "huggingface_hub",
    "pycocotools",
    "tokenizers",
    "torch",
}
LIBRARIES |= {"torchvision", "transformers"}
SEAMS = {"modeling/avsr/transformers_seam_avsr.py", "modeling/glee/transformers_seam_glee.py"}


def python_files(repository: Path) -> list[Path]:
    """Each file once: src/lookhear has links to the others."""
    found = [path for folder in FOLDERS for path in sorted((repository / folder).rglob("*.py"))]
    return list({path.resolve(): path for path in reversed(found)}.values())


def deep_imports(tree: ast.AST) -> set[str]:
    """Names that are imported from modules inside of other libraries: `"transformers.pipelines.base.Pipeline"`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if "." in alias.name}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            deep = "." in node.module or any(alias.name.startswith("_") for alias in node.names)
            names |= {f"{node.module}.{alias.name}" for alias in node.names if deep}
    return {name for name in names if name.split(".")[0] in LIBRARIES}


def is_private(name: object) -> bool:
    return isinstance(name, str) and bool(re.fullmatch(r"_[A-Za-z]\w*", name))


def own_names(tree: ast.AST) -> set[str]:
    """Private names that a file defines: functions, classes, variables, and what it sets on `self`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return {name for name in names if is_private(name)}


def private_names_used(tree: ast.AST) -> set[str]:
    """Private attributes that are read, by a dot or by `getattr`, `hasattr` or `setattr`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            if node.func.id in ("getattr", "hasattr", "setattr") and isinstance(node.args[1], ast.Constant):
                names.add(node.args[1].value)
    return {name for name in names if is_private(name)}


# What is in their documentation, or what every model in transformers' own tree takes from there; a name stands for all
# that is below it.
DOCUMENTED = {
    "accelerate.utils": "documented helpers of several processes",
    "huggingface_hub.dataclasses": "strict configurations, as transformers' are",
    "huggingface_hub.errors": "documented exceptions",
    "huggingface_hub.file_download.http_get": "continues a file that has arrived in part, as hf_hub_download does not",
    "huggingface_hub.utils.HFValidationError": "documented exception",
    "huggingface_hub.utils.build_hf_headers": "documented function",
    "huggingface_hub.utils.validate_repo_id": "documented check",
    "pycocotools.cocoeval.COCOeval": "the module that COCO's own examples import",
    "torchvision.ops": "documented package",
    "torchvision.transforms.v2.functional": "documented module",
    "torchvision.utils": "documented module",
    "transformers.activations.ACT2FN": "the activation that a configuration names",
    "transformers.audio_utils.mel_filter_bank": "documented function",
    "transformers.audio_utils.window_function": "documented function",
    "transformers.cache_utils": "documented caches",
    "transformers.dynamic_module_utils.custom_object_save": "a saved pipeline's code, as transformers saves a model's",
    "transformers.feature_extraction_utils.BatchFeature": "documented class",
    "transformers.generation": "documented package",
    "transformers.image_processing_utils.BaseImageProcessor": "documented base class",
    "transformers.image_processing_utils.BatchFeature": "documented class",
    "transformers.image_utils": "documented helpers of image processors",
    "transformers.modeling_layers.GradientCheckpointingLayer": "what `activation_checkpointing_enable` looks for",
    "transformers.modeling_outputs": "documented outputs",
    "transformers.pipelines.PIPELINE_REGISTRY": "documented way to add a task",
    "transformers.processing_utils": "documented base class of processors and the types of its arguments",
    "transformers.utils.ModelOutput": "documented base class",
    "transformers.utils.TransformersKwargs": "the type of a model's other arguments",
    "transformers.utils.auto_docstring": "documented decorator",
    "transformers.utils.can_return_tuple": "`return_dict=False`, as every model in the tree has it",
    "transformers.utils.is_torch_bf16_gpu_available": "what TrainingArguments asks before it takes bf16",
    "transformers.utils.is_torch_xla_available": "the same, of a TPU",
    "transformers.utils.logging": "documented module",
}
# In the modules that list them with their reasons, nowhere else.
SEAM_ONLY = {
    "transformers.integrations.use_kernel_forward_from_hub",
    "transformers.masking_utils",
    "transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS",
    "transformers.models.auto.modeling_auto",
    "transformers.utils.generic.merge_with_config_defaults",
    "transformers.utils.output_capturing",
}
PRIVATE_READ = {
    "_attn_implementation": "the seam modules alone: what `attn_implementation` was set to",
    "_compute": "what a metric of evaluate defines, as its documentation says",
    "_tied_weights_keys": "a model says which weights are one",
}
BY_METACLASSES = {"_abc_impl", "_backward_cls"}  # of ABCMeta, and of torch for each autograd.Function
# What transformers' and evaluate's documentation asks a class of one's own to define.
PRIVATE_DEFINED = {
    "_auto_class": "what `register_for_auto_class` sets",
    "_can_compile_fullgraph": "model: whether it can be compiled whole",
    "_can_record_outputs": "model: which modules' outputs can be returned",
    "_compute": "metric: the score",
    "_convert_id_to_token": "tokenizer: the token of an id",
    "_convert_token_to_id": "tokenizer: the id of a token",
    "_forward": "pipeline: the model's part",
    "_info": "metric: its description",
    "_init_weights": "model: how weights start",
    "_load_feature_extractor": "pipeline: which parts of a processor it takes",
    "_load_image_processor": "the same",
    "_load_processor": "the same",
    "_load_tokenizer": "the same",
    "_load_video_processor": "the same",
    "_no_split_modules": "model: what stays on one device",
    "_sanitize_parameters": "pipeline: which argument belongs to which part",
    "_tied_weights_keys": "model: which weights are one",
    "_tokenize": "tokenizer: the tokens of a text",
}
GONE = "_get_top_k_continuations|_check_early_stop_heuristic|_reorder_cache|_from_config\\(|_preprocess_params|"
GONE += "_forward_params|_postprocess_params"


def test_every_deep_import_of_another_library_was_decided(repository):
    for path in python_files(repository):
        name = str(path.relative_to(repository))
        allowed = DOCUMENTED.keys() | (SEAM_ONLY if name in SEAMS else set())
        for imported in deep_imports(ast.parse(path.read_text(encoding="utf-8"))):
            decided = any(f"{imported}.".startswith(f"{one}.") for one in allowed)
            documented = imported.startswith("torch.") and "._" not in imported
            assert decided or documented, f"{name} imports {imported}"


def test_no_private_attribute_of_another_library_is_read(repository):
    for path in python_files(repository):
        name = str(path.relative_to(repository))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        allowed = PRIVATE_READ.keys() - (set() if name in SEAMS else {"_attn_implementation"})
        assert private_names_used(tree) - own_names(tree) <= allowed, name


def test_our_classes_override_only_private_names_that_are_documented_for_it(repository):
    """Whatever a base class of another library has under a private name is its own affair."""
    for path in python_files(repository):
        module = ".".join(("lookhear", *path.relative_to(repository).with_suffix("").parts))
        if path.relative_to(repository).parts[0] in ("modeling", "processing", "training", "evaluation"):
            importlib.import_module(module.removesuffix(".__init__"))
    classes = {
        value
        for name, module in list(sys.modules.items())
        if name.startswith("lookhear.")
        for value in list(vars(module).values())
        if isinstance(value, type) and value.__module__.startswith("lookhear.")
    }
    assert len(classes) > 100
    for ours in classes:
        for base in ours.__mro__:
            if base.__module__.split(".")[0] in LIBRARIES:
                both = {name for name in vars(ours).keys() & vars(base).keys() if is_private(name)} - BY_METACLASSES
                undecided = {name for name in both - PRIVATE_DEFINED.keys() if not name.startswith("_supports_")}
                assert not undecided, f"{ours} overrides {undecided} of {base}"


def test_what_broke_with_transformers_5_24_is_gone(repository):
    for path in python_files(repository):
        if path.relative_to(repository).parts[0] in ("modeling", "processing", "training"):
            assert not re.search(GONE, path.read_text(encoding="utf-8")), path
