"""What a guard is: a signal, read off what an iteration's steps measured, and how it is held against its limit.

A share of few questions is far from the true one by chance. So a signal is an estimate with its standard error, as far
as the number that it was counted from is known, and is beyond a limit when it is so by several of these errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfevo_contract.guard_signals import name_of, share_error
from selfevo_contract.spec.guards import Guards
from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.base import RunState
from selfevo_core.summary import figures_of

Metrics = Mapping[str, float]
"""What an iteration's steps measured, by names such as ``rollout/kept``; finite numbers only."""
History = Mapping[int, Metrics]
"""The same by iteration, in their order; 0 is the base. Of old iterations scores alone are known."""


@dataclass(frozen=True)
class Estimate:
    """A figure, and its standard error; 0 where it is not known."""

    value: float
    error: float = 0.0


@dataclass(frozen=True)
class Reading:
    """One iteration's signal."""

    iteration: int
    value: float
    """As it was measured."""
    baseline: Estimate | None
    """What it is held against, where it is held against anything."""
    level: float
    """What is compared with the limit."""
    error: float = 0.0
    """Standard error of the level."""

    @property
    def at_first(self) -> float:
        """The baseline's value; 0 without one."""
        return self.baseline.value if self.baseline else 0.0


@dataclass(frozen=True)
class Guard:
    """One guard. A new one is a file beside this one, its settings in the contract's `spec/guards.py` and a line of
    the registry in `__init__`."""

    field: str
    """Of `Guards`; its alias is the guard's name. What its signal needs: the contract's `guard_signals`."""
    readings: Callable[[History, RunSpec, Estimate | None], list[Reading]]
    """``readings(history, spec, recorded baseline)``: of every iteration that has the signal, in their order."""
    says: Callable[[Reading], str]
    """What was measured, as a clause."""
    limit: Callable[[float], str]
    """The limit, as people read it."""
    below: bool = False
    """It is wrong to be below the limit, not above."""
    neutral: float | None = None
    """The level of a run in which nothing is wrong; None where that is the task's own: the best one measured."""
    nearness: Callable[[Reading], float] = lambda reading: reading.level
    """What tells how near to the limit a reading is, where that is not what is compared with it."""

    @property
    def name(self) -> str:
        """E.g. ``labelAccuracy``."""
        return name_of(self.field)

    def settings(self, guards: Guards) -> Any:
        """Its own part of the spec."""
        return getattr(guards, self.field)

    def excess(self, reading: Reading, limit: float) -> float:
        """How far the signal is on the wrong side of ``limit``; not above 0 within it."""
        return limit - reading.level if self.below else reading.level - limit

    def beyond(self, readings: Sequence[Reading], limit: float, errors: float = 0.0) -> list[bool]:
        """Of each reading, whether the signal is beyond ``limit`` by more than so many standard errors.

        They are summed over the readings in a row that are on the wrong side: of several small excesses none may say
        what all do. It is the cumulative sum of Page (Biometrika 41, 1954), begun again when a reading is within the
        limit. Without a known error a reading counts by itself, as it was measured.
        """
        found, total = [], 0.0
        for reading in readings:
            excess = self.excess(reading, limit)
            total = total + excess / reading.error if reading.error and excess > 0 else 0.0
            found.append(total > errors if reading.error else excess > 0)
        return found

    def good(self, readings: Sequence[Reading], limit: float) -> list[int]:
        """The iterations whose signal has come at most half of the way from where nothing is wrong to ``limit``.

        Limits are wide, so that healthy runs raise no alarm: what goes wrong by and by is well under way before it
        crosses one (docs/guards.md, «What follows»).
        """
        if not readings:
            return []
        all_of = [self.nearness(reading) for reading in readings]
        neutral = self.neutral if self.neutral is not None else (max if self.below else min)(all_of)
        half = (neutral + limit) / 2
        return [
            reading.iteration
            for reading, at in zip(readings, all_of, strict=True)
            if self.excess(reading, limit) <= 0 and (at >= half if self.below else at <= half)
        ]

    @staticmethod
    def warns_from(settings: Any) -> float:
        """Beyond this it warns: the limit of the action, where the guard has no other one."""
        return float(getattr(settings, "warns_from", settings.limit))


def history_of(state: RunState) -> dict[int, dict[str, float]]:
    """What every step that is done has measured, but for those before which one of their phase is not known to be done.

    A record that was lost may be known again by a late iteration first: nobody knows then which one was good.
    """
    found: dict[int, dict[str, float]] = {}
    unknown: set[str] = set()
    for step in sorted([*state.earlier.values(), *state.steps.values()], key=lambda step: step.iteration):
        if step.state != "Succeeded":
            unknown.add(step.phase)
        elif step.phase not in unknown:
            known = {name: value for name, value in figures_of(step).items() if math.isfinite(value)}
            found.setdefault(step.iteration, {}).update(known)
    return found


def of_metric(
    measure: Callable[[Metrics], float | Estimate | None],
    level: Callable[[Estimate, Estimate | None, RunSpec], Estimate | None] = lambda value, baseline, spec: value,
    base: Callable[[Metrics], float | Estimate | None] | None = None,
) -> Callable[[History, RunSpec, Estimate | None], list[Reading]]:
    """Readings of a signal that stands in one iteration's metrics.

    Args:
        level: ``level(value, baseline, spec)``: what is compared with the limit; None where there is nothing to
            compare.
        base: the baseline, read off the first iteration's metrics; without it the signal has none. Once it is
            recorded in the status, it outlives the metrics that it was read from.
    """

    def readings(history: History, spec: RunSpec, recorded: Estimate | None) -> list[Reading]:
        trained = {number: metrics for number, metrics in history.items() if number > 0}
        baseline = None
        if base is not None:
            known = [found for metrics in trained.values() if (found := _estimate(base(metrics))) is not None]
            first = _estimate(base(trained.get(1, {})))
            baseline = first if first is not None else recorded if recorded is not None else next(iter(known), None)
        made = []
        for number, metrics in trained.items():
            value = _estimate(measure(metrics))
            if value is None:
                continue
            reached = level(value, baseline, spec)
            if reached is not None and math.isfinite(reached.value):
                made.append(Reading(number, value.value, baseline, reached.value, reached.error))
        return made

    return readings


def _estimate(found: float | Estimate | None) -> Estimate | None:
    return found if found is None or isinstance(found, Estimate) else Estimate(found)


def of_baseline(value: Estimate, baseline: Estimate | None, spec: RunSpec) -> Estimate | None:
    """A level: the value in parts of the baseline."""
    return Estimate(value.value / baseline.value) if baseline and baseline.value else None


def or_change(field: str, change: str, *, below: bool = False) -> Callable[..., Estimate]:
    """A level: the share, or its change since the first iteration, whichever is further beyond.

    Args:
        field: of `Guards`.
        change: the field of its settings that says how far the share may rise, or fall with ``below``. A change as
            large as may be counts as much as a share at its limit.
    """
    side = -1 if below else 1

    def level(value: Estimate, baseline: Estimate | None, spec: RunSpec) -> Estimate:
        settings, first = getattr(spec.guards, field), baseline or value
        moved = settings.limit - side * getattr(settings, change) + value.value - first.value
        both = (value, Estimate(moved, math.hypot(value.error, first.error)))
        errors = spec.guards.standard_errors if spec.guards else 0.0
        return max(both, key=lambda found: side * found.value - errors * found.error)

    return level


def at_first(reading: Reading) -> str:
    """`` (80.0 % at first)``; empty without a baseline."""
    return "" if reading.baseline is None else f" ({percent(reading.at_first)} at first)"


def share(value: float, of: float | None) -> Estimate:
    """A share that was counted among ``of``. One of each kind is added for its error: none of 18 is no error of 0.

    >>> share(0.0, 18)
    Estimate(value=0.0, error=0.0487950036474267)
    """
    if not of or not 0 <= value <= 1:
        return Estimate(value)
    return Estimate(value, share_error(value, of))


def share_of(name: str, count: str) -> Callable[[Metrics], Estimate | None]:
    """A measure: the share ``name``, with the error of as many as ``count`` says."""
    return lambda metrics: None if (value := metrics.get(name)) is None else share(value, metrics.get(count))


def percent(share: float) -> str:
    """``15.0 %``."""
    return f"{100 * share:.1f} %"
