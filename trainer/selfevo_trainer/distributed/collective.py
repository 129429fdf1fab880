"""What the processes of one training say to each other. Each function is a plain one where there is one process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate.utils import gather_object

from selfevo_contract.errors import InputError
from selfevo_contract.process import PROCESSES_ENV
from selfevo_trainer.models.loading import device
from selfevo_trainer.process.signals import Interrupted

Item = TypeVar("Item")
Result = TypeVar("Result")

TIMEOUT_S = 7200
"""How long a collective waits. The others wait there while one answers questions, grades, or uploads a checkpoint; that
a process is gone the launcher notices."""


def grouped() -> bool:
    """Whether there are others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if grouped() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if grouped() else 1


def any_rank(flag: bool) -> bool:
    """Whether ``flag`` is set in any process: the same answer in all."""
    if not grouped():
        return flag
    reduced = torch.tensor([int(flag)], device=device())
    dist.all_reduce(reduced, op=dist.ReduceOp.MAX)
    return bool(reduced.item())


def any_ranks(flags: Sequence[bool]) -> list[bool]:
    """The same for several flags at once."""
    if not grouped():
        return list(flags)
    reduced = torch.tensor([int(flag) for flag in flags], device=device())
    dist.all_reduce(reduced, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in reduced.tolist()]


def broadcast(value: Any) -> Any:
    """The first process's ``value``, in all."""
    if not grouped():
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0, device=torch.device(device()))
    return held[0]


def all_gather(values: Sequence[Any]) -> list[Any]:
    """The values of all processes, in the order of their ranks."""
    return list(gather_object(list(values)))


def apart() -> Any:
    """A group of all processes for a thread beside the training, whose collectives meet none of the training's. Made in
    all at the same time; on the CPU."""
    return dist.new_group(backend="gloo", timeout=timedelta(seconds=TIMEOUT_S))


def collected(value: Any, group: Any) -> list[Any]:
    """The values of all processes of ``group`` in the first one; nothing in the others."""
    values: list[Any] | None = [None] * dist.get_world_size(group) if rank() == 0 else None
    dist.gather_object(value, values, dst=0, group=group)
    return values or []


def dealt_out(items: Sequence[Item], work: Callable[[list[Item]], list[Result]]) -> list[Result]:
    """``work`` on all items, an even share in each process (at most one item more than in another).

    Args:
        items: the same in all processes.
        work: gets every n-th item; called in each process, also with none.

    Returns:
        all results, the same in all processes; those of one process stand together.

    Raises:
        Interrupted: in all, when ``work`` was interrupted in one.
    """
    mine: list[Result] = []
    interrupted: Interrupted | None = None
    try:
        mine = work(list(items[rank() :: size()]))
    except Interrupted as error:
        interrupted = error
    if any_rank(interrupted is not None):
        raise interrupted or Interrupted("another process was asked to stop")
    return all_gather(mine)


def wait_for_all() -> None:
    """Until all are here."""
    any_rank(False)


def leave() -> None:
    """The last thing that a process does that ended well."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def prepare() -> None:
    """Before anything is loaded, in a process that has others.

    Raises:
        InputError: there are GPUs, and none is left for this process.
    """
    if torch.cuda.is_available():
        local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= count:
            raise InputError(
                f"{PROCESSES_ENV} is {os.environ.get('LOCAL_WORLD_SIZE')} and the pod sees {count} GPUs; give the "
                "phase's pods as many GPUs as processes"
            )
        return  # TRL makes the group, with the timeout in grpo/config.py
    # accelerate would call the place cpu:0, to which torch.load can restore no checkpoint
    os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    dist.init_process_group("gloo", timeout=timedelta(seconds=TIMEOUT_S))
