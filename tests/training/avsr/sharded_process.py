"""
A process of a training by a recipe whose weights are divided by FSDP2, on the CPU.

accelerate divides weights between GPUs only. Here its state says of processes on the CPU what it says of those on
GPUs; all else is what `accelerate launch` with `fsdp2.yaml` does. Arguments: recipe, field=value, ...
"""

import os
import sys

SETTINGS = {  # as `accelerate launch` sets them by training/accelerate/fsdp2.yaml
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
}


def main() -> None:
    os.environ.update(SETTINGS)
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    original = AcceleratorState.__init__

    def initialise(self, *args, fsdp_plugin=None, **kwargs):
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU and fsdp_plugin is not None:
            AcceleratorState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = initialise
    from lookhear.training.avsr.train import main as train

    train(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    main()
