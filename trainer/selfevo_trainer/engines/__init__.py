"""Text generation behind one small interface: batch in, batch out; weights are a path.

An engine is one file beside this one, with `open_engine(spec, weights)`, and one line of `MODULES`.
"""

from __future__ import annotations

from importlib import import_module

from selfevo_contract.spec.engines import Engine as EngineSpec
from selfevo_trainer.engines.base import Completion, Engine, Frozen

__all__ = ["MODULES", "Completion", "Engine", "Frozen", "open_engine"]

MODULES = {
    "transformers": "selfevo_trainer.engines.transformers_engine",
    "vllm": "selfevo_trainer.engines.vllm_engine",
    "server": "selfevo_trainer.engines.server_engine",
}
"""Kind, as a manifest names it -> the module that does it, imported when a phase asks for it."""


def open_engine(spec: EngineSpec, weights: Frozen) -> Engine:
    """The engine that ``spec`` asks for, with ``weights``."""
    engine: Engine = import_module(MODULES[spec.kind]).open_engine(spec, weights)
    return engine
