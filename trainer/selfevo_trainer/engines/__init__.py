"""Text generation behind one small interface: batch in, batch out; weights are a path.

An engine is one file beside this one and one branch of `open_engine`.
"""

from __future__ import annotations

from pathlib import Path

from selfevo_contract import reasons
from selfevo_contract.errors import InputError
from selfevo_contract.phases import Loading
from selfevo_contract.spec import Engine as EngineSpec
from selfevo_trainer.engines.base import Completion, Engine

__all__ = ["Completion", "Engine", "open_engine"]


def open_engine(spec: EngineSpec, model: Path, loading: Loading) -> Engine:
    """The engine that ``spec`` asks for, with the weights at ``model``.

    Raises:
        InputError: the kind is not built yet.
    """
    if spec.kind == "transformers":
        from selfevo_trainer.engines.transformers_engine import TransformersEngine

        return TransformersEngine(model, loading, spec.batch_size)
    raise InputError(f"engine.kind {spec.kind!r} is not built yet; use 'transformers'", reason=reasons.NOT_BUILT)
