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
"""
The class of GLEE's configuration, by transformers' Auto classes.

A saved checkpoint has another text under this name, which [`save_perception_code`] writes: it takes the classes from
GLEE's code beside it. So this folder knows no other one, and a checkpoint needs nothing but transformers.
"""

from transformers import CONFIG_MAPPING, PreTrainedConfig


def perception_config_class(model_type: str) -> type[PreTrainedConfig]:
    """
    Returns the class of GLEE's configuration; its model is the one that `AutoModel` has for it.

    Args:
        model_type: of the configuration, such as "glee".

    Raises:
        ValueError: no such class is registered.
    """
    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"perception_config.model_type is {model_type!r}, which transformers doesn't know here.")
    return CONFIG_MAPPING[model_type]
