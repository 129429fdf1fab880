"""What a process says of its GPU's memory."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from selfevo_trainer.process import gpu_memory


def test_peak_names_tensors_and_what_torch_held_on_a_gpu_and_nothing_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert gpu_memory.peak() is None and "torch" not in sys.modules  # it loads nothing to say so
    used = {"initialized": False, "tensors": 36.8 * 2**30, "held": 118.25 * 2**30}
    cuda = SimpleNamespace(
        is_initialized=lambda: used["initialized"],
        max_memory_allocated=lambda: used["tensors"],
        max_memory_reserved=lambda: used["held"],
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert gpu_memory.peak() is None
    used["initialized"] = True
    assert gpu_memory.peak() == "the GPU's memory: at most 36.80 GiB in tensors, 118.25 GiB held by torch"
