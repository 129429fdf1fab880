"""FSDP2 on the CPU: accelerate makes DDP there of what asks for FSDP, and says nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any


def on_the_cpu() -> None:
    """Let this process shard over gloo: accelerate takes the CPU for a machine that can, and our own check passes."""
    from accelerate.state import AcceleratorState, DistributedType, PartialState
    from torch.distributed.fsdp import CPUOffloadPolicy

    from selfevo_trainer.grpo import sharding

    os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    real = AcceleratorState.__init__

    def init(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        real(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            if isinstance(fsdp_plugin.cpu_offload, CPUOffloadPolicy):  # a machine without GPUs cannot pin memory
                fsdp_plugin.cpu_offload = CPUOffloadPolicy(pin_memory=False)
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    of_accelerate: Any = AcceleratorState
    of_accelerate.__init__ = init
    module: Any = sharding
    module.check_machine = lambda _: None


def share_of(tensors: Iterable[Any]) -> float:
    """The share of the ``tensors``' numbers that this process holds; all have to be DTensors."""
    from torch.distributed.tensor import DTensor

    found = list(tensors)
    assert found and all(isinstance(each, DTensor) for each in found), "a tensor is not sharded"
    return float(sum(each.to_local().numel() for each in found) / sum(each.numel() for each in found))


def offloaded(model: Any) -> list[bool]:
    """Of each part of ``model`` that FSDP2 gathers at once, whether its shares lie in CPU memory between uses."""
    from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule

    parts = [each._get_fsdp_state()._fsdp_param_group for each in model.modules() if isinstance(each, FSDPModule)]
    found = [isinstance(part.offload_policy, CPUOffloadPolicy) for part in parts if part is not None]
    assert len(found) > 2, "layers are not gathered one by one"
    return found
