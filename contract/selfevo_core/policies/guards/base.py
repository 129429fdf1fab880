"""What a guard is: a signal, read off what an iteration's steps measured, and how it is held against its limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from selfevo_contract.spec.guards import Guards
from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.base import RunState
from selfevo_core.summary import figures_of

Metrics = Mapping[str, float]
"""What an iteration's steps measured, by names such as ``rollout/kept``; finite numbers only."""
History = Mapping[int, Metrics]
"""The same by iteration, in their order; 0 is the base. Of old iterations scores alone are known."""


@dataclass(frozen=True)
class Reading:
    """One iteration's signal."""

    iteration: int
    value: float
    """As it was measured."""
    baseline: float | None
    """What it is held against, where it is held against anything."""
    level: float
    """What is compared with the limit."""


@dataclass(frozen=True)
class Guard:
    """One guard. A new one is a file beside this one, its settings in the contract's `spec/guards.py` and a line of
    the registry in `__init__`."""

    field: str
    """Of `Guards`; its alias is the guard's name."""
    blind: Callable[[RunSpec], str]
    """Why a run of this spec never has the signal; empty where it has."""
    readings: Callable[[History, RunSpec, float | None], list[Reading]]
    """``readings(history, spec, recorded baseline)``: of every iteration that has the signal, in their order."""
    says: Callable[[Reading], str]
    """What was measured, as a clause."""
    limit: Callable[[float], str]
    """The limit, as people read it."""
    below: bool = False
    """It is wrong to be below the limit, not above."""

    @property
    def name(self) -> str:
        """E.g. ``labelAccuracy``."""
        return Guards.model_fields[self.field].alias or self.field

    def settings(self, guards: Guards) -> Any:
        """Its own part of the spec."""
        return getattr(guards, self.field)

    def beyond(self, reading: Reading, limit: float) -> bool:
        """Whether the signal is on the wrong side of ``limit``."""
        return reading.level < limit if self.below else reading.level > limit


def history_of(state: RunState) -> dict[int, dict[str, float]]:
    """What every step that is done has measured."""
    found: dict[int, dict[str, float]] = {}
    for step in sorted([*state.earlier.values(), *state.steps.values()], key=lambda step: step.iteration):
        if step.state == "Succeeded":
            known = {name: value for name, value in figures_of(step).items() if math.isfinite(value)}
            found.setdefault(step.iteration, {}).update(known)
    return found


def of_metric(
    measure: Callable[[Metrics], float | None],
    level: Callable[[float, float | None, RunSpec], float | None] = lambda value, baseline, spec: value,
    base: Callable[[Metrics], float | None] | None = None,
) -> Callable[[History, RunSpec, float | None], list[Reading]]:
    """Readings of a signal that stands in one iteration's metrics.

    Args:
        level: ``level(value, baseline, spec)``: what is compared with the limit; None where there is nothing to
            compare.
        base: the baseline, read off the first iteration's metrics; without it the signal has none. Once it is
            recorded in the status, it outlives the metrics that it was read from.
    """

    def readings(history: History, spec: RunSpec, recorded: float | None) -> list[Reading]:
        trained = {number: metrics for number, metrics in history.items() if number > 0}
        baseline = None
        if base is not None:
            known = [found for metrics in trained.values() if (found := base(metrics)) is not None]
            first = base(trained.get(1, {}))
            baseline = first if first is not None else recorded if recorded is not None else next(iter(known), None)
        made = []
        for number, metrics in trained.items():
            value = measure(metrics)
            if value is None:
                continue
            reached = level(value, baseline, spec)
            if reached is not None and math.isfinite(reached):
                made.append(Reading(number, value, baseline, reached))
        return made

    return readings


def of_baseline(value: float, baseline: float | None, spec: RunSpec) -> float | None:
    """A level: the value in parts of the baseline."""
    return value / baseline if baseline else None


def always(spec: RunSpec) -> str:
    """Every run has the signal."""
    return ""


def needs_training(spec: RunSpec) -> str:
    """A run has the signal whose Solver is trained."""
    return "the Solver is not trained (spec.solver.grpo.maxSteps is 0)" if spec.solver.grpo.max_steps == 0 else ""


def needs_evaluation(spec: RunSpec) -> str:
    """A run has the signal that is evaluated."""
    return "there is no spec.evaluation" if spec.evaluation is None else ""


def percent(share: float) -> str:
    """``15.0 %``."""
    return f"{100 * share:.1f} %"
