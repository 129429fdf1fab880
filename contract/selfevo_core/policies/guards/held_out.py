"""The held-out score falls behind the best: R-Zero's own runs decline after two to four iterations.

    errors below = (best - score) / sqrt(stderr(best)^2 + stderr(score)^2)

All models answer the same questions, so where both gains against the base are known, the errors are those of the gains,
which are paired: an easy question is easy for both. What the two gains have in common is not taken off, so that the
error is rather too large. Otherwise they are those of the scores, as if each model had questions of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from selfevo_contract.phases import EVALUATE
from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.guards.base import Estimate, Guard, History, Metrics, Reading, percent


@dataclass(frozen=True)
class _Scored:
    """One evaluation."""

    score: float
    error: float | None
    gain_error: float | None
    """That of the gain against the base."""

    def behind(self, best: _Scored) -> float | None:
        """Standard errors below ``best``; None where they are not known."""
        errors = (self.gain_error, best.gain_error)
        if None in errors or not any(errors):
            errors = (self.error, best.error)
        if errors[0] is None or errors[1] is None:
            return None
        if best.score <= self.score:
            return 0.0
        both = math.hypot(errors[0], errors[1])
        return min((best.score - self.score) / both, 1e6) if both else 1e6


def _scored(number: int, metrics: Metrics, name: str) -> _Scored | None:
    score = metrics.get(name)
    if score is None:
        return None
    gain_error = 0.0 if number == 0 else metrics.get(f"{name}_gain_stderr")
    return _Scored(score, metrics.get(f"{name}_stderr"), gain_error)


def _readings(history: History, spec: RunSpec, recorded: Estimate | None) -> list[Reading]:
    if spec.evaluation is None:
        return []
    found: list[Reading] = []
    best: _Scored | None = None
    for number, metrics in history.items():
        now = _scored(number, metrics, f"{EVALUATE.metrics}/{spec.evaluation.metric}")
        if now is None:
            continue
        if best is not None and (below := now.behind(best)) is not None:
            found.append(Reading(number, now.score, Estimate(best.score), below))
        if best is None or now.score > best.score:
            best = now
    return found


HELD_OUT = Guard(
    "held_out",
    _readings,
    lambda reading: (
        f"the held-out score is {percent(reading.value)}, {reading.level:.1f} standard errors below the "
        f"best before it, {percent(reading.at_first)}"
    ),
    lambda limit: f"{limit:g} standard errors",
    neutral=0.0,
)
