"""selfevo in Python: `run` drives a run on this machine, `open` gives its tables as DataFrames (docs/python.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfevo.api import OpenRun, RunFailed, open, run

__all__ = ["OpenRun", "RunFailed", "open", "run"]


def __getattr__(name: str) -> Any:
    """What is offered is imported when it is asked for: the command needs none of it to begin."""
    if name in __all__:
        from selfevo import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
