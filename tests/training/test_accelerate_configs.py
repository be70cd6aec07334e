"""The launch configurations are read by accelerate's own class and say what their names promise."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.utils import DistributedType

import lookhear

FOLDER = Path(lookhear.__file__).parent / "training" / "accelerate"
EXPECTED = {
    "one_cpu": (DistributedType.NO, 1, 1, True),
    "two_cpu": (DistributedType.MULTI_GPU, 2, 1, True),
    "multi_gpu": (DistributedType.MULTI_GPU, 4, 1, False),
    "fsdp2": (DistributedType.FSDP, 4, 1, False),
    "multi_node": (DistributedType.MULTI_GPU, 16, 2, False),
}


def test_every_file_is_checked():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_reads_the_file(name):
    config = ClusterConfig.from_yaml_file(str(FOLDER / f"{name}.yaml"))
    assert (config.distributed_type, config.num_processes, config.num_machines, config.use_cpu) == EXPECTED[name]
    assert config.mixed_precision == ("no" if config.use_cpu else "bf16")


def test_launch_knows_every_fsdp_setting():
    from accelerate.commands.launch import launch_command_parser

    config = ClusterConfig.from_yaml_file(str(FOLDER / "fsdp2.yaml"))
    known = {action.dest for action in launch_command_parser()._actions}
    assert config.fsdp_config["fsdp_version"] == 2 and set(config.fsdp_config) <= known
