"""Weights that go from a training to vLLM's server on a machine without GPUs, where there is no NCCL.

    python -m harness.weights_on_cpu ARGUMENTS      vLLM's server, in place of vllm.entrypoints.openai.api_server
    python -m harness.weights_on_cpu                `selfevo_trainer.serve`, which starts that

Replaced is what NCCL does, and no more: the group that both sides join is vLLM's own StatelessProcessGroup without a
communicator over it, and each tensor goes through that group's TCPStore. Names, shapes, order, the server's paths, and
how vLLM puts weights into a model are what they are on a GPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

SERVER = "vllm.entrypoints.openai.api_server"


class Group:
    """As much of a PyNcclCommunicator as TRL's client uses."""

    def __init__(self, address: str, port: int, rank: int, world_size: int) -> None:
        from vllm.distributed.utils import StatelessProcessGroup

        self.group: Any = StatelessProcessGroup.create(host=address, port=port, rank=rank, world_size=world_size)


def sends() -> None:
    """Let this process be the one that trains."""
    from trl.generation import vllm_client

    from selfevo_trainer.grpo import vllm_policy

    def joined(info: dict[str, Any]) -> Group:
        return Group(info["master_address"], info["master_port"], 0, info["world_size"])

    def sent(iterator: Iterator[Any], group: Group, src: int, post_iter_func: Callable[[Any], torch.Tensor]) -> None:
        for item in iterator:
            group.group.broadcast_obj(post_iter_func(item).detach().clone(), src)

    client: Any = vllm_client
    client.open_trainer_endpoint, client.packed_nccl_broadcast_producer = joined, sent
    begin = client.VLLMClient.init_communicator
    # TRL asks for a GPU; one without a number it takes for the one that is chosen already.
    client.VLLMClient.init_communicator = lambda self, _: begin(self, torch.device("cuda"))
    policy: Any = vllm_policy
    policy.check_machine = lambda: None
    starts()


def starts() -> None:
    """Let this process be one that starts servers."""
    from selfevo_trainer.engines import vllm_server

    module: Any = vllm_server
    command = module.command_of
    module.command_of = lambda *args: ["harness.weights_on_cpu" if each == SERVER else each for each in command(*args)]


def receives() -> None:
    """Let this process be the server's."""
    from vllm.distributed.weight_transfer import nccl_engine

    from harness.vllm_policy import keep_weights_unpacked

    def joined(info: Any, parallel: Any) -> Group:
        return Group(info.master_address, info.master_port, parallel.rank + info.rank_offset, info.world_size)

    def received(iterator: Iterator[Any], group: Group, src: int, post_unpack_func: Any, **_: Any) -> None:
        for name, (shape, dtype) in iterator:
            tensor = group.group.broadcast_obj(None, src)
            assert (list(tensor.shape), tensor.dtype) == (list(shape), dtype)
            post_unpack_func([(name, tensor)])

    engine: Any = nccl_engine
    engine.worker_init_process_group, engine.packed_nccl_broadcast_consumer = joined, received
    accelerator: Any = torch.accelerator
    accelerator.synchronize = lambda: None  # there is none to wait for
    keep_weights_unpacked()


if __name__ == "__main__" and not sys.argv[1:]:
    from selfevo_trainer import serve

    starts()
    sys.exit(serve.main())
if __name__ in ("__main__", "__mp_main__"):  # the second in a process that vLLM starts
    receives()
if __name__ == "__main__":
    import runpy

    if name := os.environ.get("SERVER_PID_FILE"):
        Path(name).write_text(str(os.getpid()))

    runpy.run_module(SERVER, run_name="__main__", alter_sys=False)
