"""What is different in the pods of tests/cluster/test_several_pods.py: they have this folder on PYTHONPATH, and every
Python imports a module of this name first. All else in them is the product's.

- accelerate makes DDP on a CPU of what asks for FSDP2, and says nothing; the trainer refuses such a machine. Both are
  changed, so that what is sharded on GPUs is sharded here (harness.fsdp).
- TRL draws in each process from a stream of its own. Here completions depend on their place in the batch, so that two
  layouts can be compared (harness.exact).
- A pod that is gone is waited for as long as the tests of the launcher do, in place of 45 seconds.

A module is changed right after the trainer itself has imported it: earlier, SIGTERM would find no handler.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def _training(_: ModuleType) -> None:
    from harness import exact, fsdp

    if "RANK" in os.environ:  # one of several processes
        fsdp.on_the_cpu()
    exact.completions(int(os.environ.get("RANK", "0")))


def _rendezvous(module: ModuleType) -> None:
    vars(module)["LOST_S"] = 15


class _Afterwards(MetaPathFinder):
    """Calls one function when the module ``name`` has been imported."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self._name, self._then = name, then

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        loader: Any = spec.loader
        execute = loader.exec_module

        def executed(module: ModuleType) -> None:
            execute(module)
            self._then(module)

        loader.exec_module = executed
        return spec


for _each in (
    _Afterwards("selfevo_trainer.grpo.train", _training),
    _Afterwards("selfevo_trainer.distributed.rendezvous", _rendezvous),
):
    sys.meta_path.insert(0, _each)
