"""The Solver moves away from where its training began, and its reward does not rise."""

from __future__ import annotations

from selfevo_core.policies.guards.base import Guard, Metrics, of_baseline, of_metric


def _measure(metrics: Metrics) -> float | None:
    """0 where the reward rose: to move is then no harm."""
    kl, first, last = (metrics.get(f"solver/{name}") for name in ("kl_last", "reward_first", "reward_last"))
    if kl is None or first is None or last is None:
        return None
    return 0.0 if last > first else kl


KL = Guard(
    "kl",
    of_metric(_measure, of_baseline, lambda m: m.get("solver/kl_last")),
    lambda reading: (
        "the reward of the Solver's training rose"
        if reading.value == 0
        else f"the Solver's KL divergence is {reading.value:.3g} ({reading.at_first:.3g} at first), and its reward "
        "did not rise"
    ),
    lambda limit: f"{limit:g} times the first iteration's",
    neutral=1.0,
)
