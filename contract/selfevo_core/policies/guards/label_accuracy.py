"""Labels become wrong: R-Zero's fall from 79 to 69 to 63 % over three iterations (arXiv 2508.05004)."""

from __future__ import annotations

import math

from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.guards.base import Estimate, Guard, Metrics, of_metric, percent, share


def _measure(metrics: Metrics) -> Estimate | None:
    """An oracle that asks somebody checks some of the labels; any other all that were kept."""
    value = metrics.get("rollout/label_accuracy")
    return None if value is None else share(value, metrics.get("rollout/label_checked", metrics.get("rollout/kept")))


def _fallen(value: Estimate, baseline: Estimate | None, spec: RunSpec) -> Estimate:
    first = baseline or value
    return Estimate(first.value - value.value, math.hypot(first.error, value.error))


LABEL_ACCURACY = Guard(
    "label_accuracy",
    of_metric(_measure, _fallen, _measure),
    lambda reading: f"{percent(reading.value)} of the labels are right, {_fall(reading.level)} than at first",
    lambda limit: f"a fall of {100 * limit:.1f} points",
    neutral=0.0,
)


def _fall(level: float) -> str:
    return f"{100 * abs(level):.1f} points {'fewer' if level >= 0 else 'more'}"
