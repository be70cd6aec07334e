# Copyright 2026 The LookHear developers.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""GLEE's code beside LISA-GLEE's in a saved checkpoint, which then loads where only transformers is installed."""

from pathlib import Path

from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save

# The text of perception_lisa_glee.py in a checkpoint. The model is registered for this very class of configurations,
# so that a GLEE that another checkpoint brings stays its own. Line by line: transformers looks for lines that begin
# with a relative import in whatever it saves, and would take those of a longer string for this file's own.
PERCEPTION = (
    '"""The class of GLEE\'s configuration: in the files beside this one."""',
    "",
    "from transformers import AutoModel, PreTrainedConfig",
    "",
    "from .{config_module} import {config_name}",
    "from .{model_module} import {model_name}",
    "",
    "AutoModel.register({config_name}, {model_name}, exist_ok=True)",
    "",
    "",
    "def perception_config_class(model_type: str) -> type[PreTrainedConfig]:",
    '    """Returns the class of GLEE\'s configuration; `model_type` is always that of the files beside this one."""',
    "    return {config_name}",
    "",
)


def save_perception_code(config: PreTrainedConfig, folder: Path) -> None:
    """
    Writes the code of GLEE's classes, and the file that names them, where the code of LISA-GLEE has been saved.

    Args:
        config: GLEE's.
        folder: of the checkpoint; left as it is if it has no code.
    """
    names = folder / "perception_lisa_glee.py"
    if not names.is_file():
        return
    config_class, model_class = type(config), registered_model(config)
    custom_object_save(config_class, folder)
    custom_object_save(model_class, folder)
    fields = {"config_name": config_class.__name__, "model_name": model_class.__name__}
    fields["config_module"] = config_class.__module__.rpartition(".")[2]
    fields["model_module"] = model_class.__module__.rpartition(".")[2]
    names.write_text("\n".join(PERCEPTION).format(**fields), encoding="utf-8")


def registered_model(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """
    Returns the class that `AutoModel` has for a configuration.

    Args:
        config: of a class that is registered.

    Raises:
        ValueError: there is no one class for it.
    """
    found = MODEL_MAPPING.get(type(config), None)
    if not isinstance(found, type):
        raise ValueError(f"perception_config: AutoModel has no class for {type(config).__name__}.")
    return found
