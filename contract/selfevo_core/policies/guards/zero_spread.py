"""Groups of answers with equal rewards: GRPO's advantages are zero there, and nothing is learnt from them."""

from __future__ import annotations

from selfevo_core.policies.guards.base import Guard, needs_training, of_metric, percent

ZERO_SPREAD = Guard(
    "zero_spread",
    needs_training,
    of_metric(lambda m: m.get("solver/frac_reward_zero_std_last")),
    lambda reading: f"{percent(reading.value)} of the groups had equal rewards at the end of the Solver's training",
    percent,
)
