"""Labels become wrong: R-Zero's fall from 79 to 69 to 63 % over three iterations (arXiv 2508.05004)."""

from __future__ import annotations

from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.guards.base import Guard, Metrics, of_metric, percent


def _measure(metrics: Metrics) -> float | None:
    return metrics.get("rollout/label_accuracy")


def _blind(spec: RunSpec) -> str:
    return "there is no spec.rollout.oracle" if spec.rollout.oracle is None else ""


LABEL_ACCURACY = Guard(
    "label_accuracy",
    _blind,
    of_metric(_measure, lambda value, baseline, _: (value if baseline is None else baseline) - value, _measure),
    lambda reading: f"{percent(reading.value)} of the labels are right, {_fall(reading.level)} than at first",
    lambda limit: f"a fall of {100 * limit:.1f} points",
)


def _fall(level: float) -> str:
    return f"{100 * abs(level):.1f} points {'fewer' if level >= 0 else 'more'}"
