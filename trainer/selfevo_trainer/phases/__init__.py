"""The phases, one file each, named as in the contract: ``run(context, inputs) -> PhaseResult``."""

from __future__ import annotations

from importlib.util import find_spec


def module_of(phase: str) -> str:
    """The module that does ``phase``; a phase that is not built has none. Importing it imports torch."""
    return f"{__name__}.{phase.replace('-', '_')}"


def is_built(phase: str) -> bool:
    """Whether this trainer has ``phase``. Nothing is imported for it."""
    return find_spec(module_of(phase)) is not None
