"""What benchmarks/memory.py watches of a training with `grpo.sharding: fsdp`: one of its processes, alone.

accelerate, TRL and the trainer's own code shard the model by FSDP2 in a process group of torch's that is said to have
as many processes as the example has GPUs, and whose collectives send nothing. What is gathered, summed and freed, and
when, is FSDP2's own; only the CUDA streams on which it happens are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.testing._internal.distributed.fake_pg import FakeStore
from trl.trainer import grpo_trainer

from selfevo_trainer.grpo import sharding


@contextmanager
def processes(count: int, dtype: torch.dtype) -> Iterator[Any]:
    """The first of ``count`` processes, as an accelerator that shards: as much of one as accelerate and TRL read."""
    distributed.init_process_group("fake", rank=0, world_size=count, store=FakeStore())
    try:
        options = {name: value for name, value in sharding.ARGUMENTS["fsdp_config"].items() if name != "version"}
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False, **options
        )
        args: Any = SimpleNamespace(fsdp_plugin_args={}, bf16=dtype == torch.bfloat16)  # all that it reads
        policy: Any = sharding.in_float32(args).fsdp_plugin_args
        plugin.mixed_precision_policy = policy.get("mixed_precision_policy", MixedPrecisionPolicy())
        mesh = init_device_mesh("cpu", (count,))
        with mock.patch("torch.distributed.fsdp._fully_shard._fully_shard._init_default_mesh", lambda: mesh):
            yield SimpleNamespace(
                state=SimpleNamespace(fsdp_plugin=plugin),
                mixed_precision="bf16" if dtype == torch.bfloat16 else "no",
                is_main_process=False,
                device=torch.device("cpu"),
            )
    finally:
        distributed.destroy_process_group()


def shard(accelerator: Any, policy: Any, frozen: list[Any]) -> tuple[Any, list[Any]]:
    """The policy as accelerate shards it, and the references as TRL does with `reference_by_layers`."""
    of_trl: Any = grpo_trainer
    with sharding.reference_by_layers():
        return fsdp2_prepare_model(accelerator, policy), [
            of_trl.prepare_fsdp(each, accelerator) if isinstance(each, torch.nn.Module) else each for each in frozen
        ]
