"""The phases, one file each, named as in the contract: ``run(context, inputs) -> PhaseResult``."""

from __future__ import annotations


def module_of(phase: str) -> str:
    """The module that does ``phase``; a phase that is not built has none. Importing it imports torch."""
    return f"{__name__}.{phase.replace('-', '_')}"
