"""The Solver's answers become much longer, or much shorter: a reward that can be had by length alone."""

from __future__ import annotations

from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.guards.base import Estimate, Guard, Metrics, of_metric


def _level(value: Estimate, baseline: Estimate | None, spec: RunSpec) -> Estimate | None:
    if baseline is None or not baseline.value or not value.value:
        return None
    return Estimate(max(value.value / baseline.value, baseline.value / value.value))


def _at_first(metrics: Metrics) -> float | None:
    return metrics.get("solver/completions/mean_length_first")


LENGTH = Guard(
    "length",
    of_metric(lambda m: m.get("solver/completions/mean_length_last"), _level, _at_first),
    lambda reading: (
        f"the Solver's answers are {reading.value:.0f} tokens long after training, {reading.at_first:.0f} at first"
    ),
    lambda limit: f"{limit:g} times as long, or as short",
    neutral=1.0,
)
