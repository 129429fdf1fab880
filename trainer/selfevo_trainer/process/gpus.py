"""What a process takes of GPUs: how many it sees, and how much of its own one's memory it held."""

from __future__ import annotations

import os
import sys

_GIB = 2**30


def seen(processes: int = 1) -> int:
    """How many this process sees; of several that train together, those of all their pods.

    None where the phase has loaded no torch, and so uses none.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return 0
    pods = processes // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return int(torch.cuda.device_count()) * max(1, pods)


def peak() -> str | None:
    """The most that torch has held on the process's GPU, in tensors and with the blocks that it kept for later ones,
    for its log: beside it stands what `selfevo size` says. None where it has used none. vLLM's sleeping memory, and
    other processes', are not in it."""
    torch = sys.modules.get("torch")  # a phase that loads none has used none
    if torch is None or not torch.cuda.is_initialized():
        return None
    tensors, held = torch.cuda.max_memory_allocated() / _GIB, torch.cuda.max_memory_reserved() / _GIB
    return f"the GPU's memory: at most {tensors:.2f} GiB in tensors, {held:.2f} GiB held by torch"
