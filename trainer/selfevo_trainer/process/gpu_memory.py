"""What a process took of its GPU's memory, for its log: beside it stands what `selfevo size` says."""

from __future__ import annotations

import sys

_GIB = 2**30


def peak() -> str | None:
    """The most that torch has held on the process's GPU, in tensors and with the blocks that it kept for later ones;
    None where it has used none. vLLM's sleeping memory, and other processes', are not in it."""
    torch = sys.modules.get("torch")  # a phase that loads none has used none
    if torch is None or not torch.cuda.is_initialized():
        return None
    tensors, held = torch.cuda.max_memory_allocated() / _GIB, torch.cuda.max_memory_reserved() / _GIB
    return f"the GPU's memory: at most {tensors:.2f} GiB in tensors, {held:.2f} GiB held by torch"
