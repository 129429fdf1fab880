"""Groups of answers with equal rewards: GRPO's advantages are zero there, and nothing is learnt from them."""

from __future__ import annotations

from selfevo_contract.guard_signals import groups
from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.guards.base import Estimate, Guard, of_metric, percent, share


def _of_groups(value: Estimate, baseline: Estimate | None, spec: RunSpec) -> Estimate:
    return share(value.value, groups(spec))


ZERO_SPREAD = Guard(
    "zero_spread",
    of_metric(lambda m: m.get("solver/frac_reward_zero_std_last"), _of_groups),
    lambda reading: f"{percent(reading.value)} of the groups had equal rewards at the end of the Solver's training",
    percent,
)
