"""What a tracker is to us: a place that is sent curves and tables of one step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from selfevo_contract.base import Wire
from selfevo_contract.spec.storage import Storage
from selfevo_contract.spec.tracking import Tracker

Figures = Mapping[str, float]

ITERATIONS = "iterations"
"""Name of the one series of a run that all its steps write: a point an iteration."""


class Job(Wire):
    """The first message to a tracking process."""

    tracker: Tracker
    run: str
    namespace: str
    step: str
    phase: str
    iteration: int
    key: str
    attempt: str
    storage: Storage
    settings: dict[str, str]
    """What the step computes by, for people who compare: a path in its inputs -> its value."""

    @property
    def group(self) -> str:
        """What a run's steps have in common."""
        return f"{self.namespace}/{self.run}"

    @property
    def step_id(self) -> str:
        """The same in every attempt at the step, so that a resumed one goes on with its curves."""
        return _id(self.group, self.step, self.key)

    @property
    def iterations_id(self) -> str:
        """The same in every step of the run."""
        return _id(self.group, ITERATIONS)


def _id(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


class Sink(Protocol):
    """Somewhere that figures are sent to. Any method may raise whatever its library does: the process then ends with
    one sentence, and the phase goes on."""

    def update(self, number: int, figures: Figures) -> None:
        """A point of each curve, by the number of the optimizer update."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table of texts and numbers. Texts are a model's own: nothing in them is to be trusted."""

    def result(self, iteration: int, figures: Figures) -> None:
        """What the step came to, as its summary and as a point of the run's curves by iteration."""

    def close(self, *, ended: bool) -> None:
        """Send what is left. ``ended``: the step is done; otherwise another attempt goes on with it."""
