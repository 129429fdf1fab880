"""Text generation behind one small interface: batch in, batch out; weights are a path."""

from selfevo_trainer.engines.base import Completion, Engine, open_engine

__all__ = ["Completion", "Engine", "open_engine"]
