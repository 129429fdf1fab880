"""What a process says of its GPUs: how many they are, and of its own one's memory."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfevo_contract.artifacts import GPU_SECONDS
from selfevo_trainer.context import Context
from selfevo_trainer.distributed.layout import Rank
from selfevo_trainer.process import gpus


def test_peak_names_tensors_and_what_torch_held_on_a_gpu_and_nothing_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert gpus.peak() is None and "torch" not in sys.modules  # it loads nothing to say so
    used = {"initialized": False, "tensors": 36.8 * 2**30, "held": 118.25 * 2**30}
    cuda = SimpleNamespace(
        is_initialized=lambda: used["initialized"],
        max_memory_allocated=lambda: used["tensors"],
        max_memory_reserved=lambda: used["held"],
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert gpus.peak() is None
    used["initialized"] = True
    assert gpus.peak() == "the GPU's memory: at most 36.80 GiB in tensors, 118.25 GiB held by torch"


@pytest.mark.parametrize(
    ("here", "processes", "in_all", "seen"),
    [(0, None, 1, 0), (1, None, 1, 1), (8, None, 1, 8), (4, 4, 4, 4), (4, 4, 8, 8), (4, 2, 6, 12)],
)
def test_the_gpus_of_all_pods_are_counted(
    monkeypatch: pytest.MonkeyPatch, here: int, processes: int | None, in_all: int, seen: int
) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(device_count=lambda: here)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert gpus.seen(in_all) == seen
    monkeypatch.delitem(sys.modules, "torch")
    assert gpus.seen(in_all) == 0 and "torch" not in sys.modules


def test_timings_have_seconds_of_gpus_and_laps_add_up_to_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpus, "seen", lambda processes: 2 * processes)
    nothing: Any = None
    context = Context(nothing, nothing, nothing, None, time.time() - 100.0, tmp_path, tmp_path, Rank(0, 4))
    laps = [context.lap(), context.lap()]
    whole = context.timings()
    assert whole[GPU_SECONDS] == pytest.approx(8 * whole["total"], abs=0.01) and whole["total"] >= 100
    assert sum(lap[GPU_SECONDS] for lap in laps) == pytest.approx(whole[GPU_SECONDS], abs=8.0)
    assert laps[1][GPU_SECONDS] < laps[0][GPU_SECONDS]
