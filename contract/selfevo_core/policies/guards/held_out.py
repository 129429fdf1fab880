"""The held-out score falls behind the best: R-Zero's own runs decline after two to four iterations.

    errors below = (best - score) / sqrt(stderr(best)^2 + stderr(score)^2)

The errors are those of the two scores, as if each model had answered questions of its own. They answered the same
ones, so that the error of the difference is mostly smaller: the guard is slower than it might be, not faster.
"""

from __future__ import annotations

import math

from selfevo_contract.phases import EVALUATE
from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.guards.base import Guard, History, Reading, needs_evaluation, percent


def _readings(history: History, spec: RunSpec, recorded: float | None) -> list[Reading]:
    if spec.evaluation is None:
        return []
    name = f"{EVALUATE.metrics}/{spec.evaluation.metric}"
    found, best, error_of_best = [], None, None
    for number, metrics in history.items():
        score, error = metrics.get(name), metrics.get(f"{name}_stderr")
        if score is None:
            continue
        if best is not None and error is not None and error_of_best is not None:
            both = math.hypot(error, error_of_best)
            below = (best - score) / both if both else math.inf * (best - score) if best > score else 0.0
            found.append(Reading(number, score, best, min(below, 1e6)))
        if best is None or score > best:
            best, error_of_best = score, error
    return found


HELD_OUT = Guard(
    "held_out",
    needs_evaluation,
    _readings,
    lambda reading: (
        f"the held-out score is {percent(reading.value)}, {reading.level:.1f} standard errors below the "
        f"best before it, {percent(reading.baseline or 0.0)}"
    ),
    lambda limit: f"{limit:g} standard errors",
)
