"""Groups of answers with equal rewards: GRPO's advantages are zero there, and nothing is learnt from them."""

from __future__ import annotations

from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.guards.base import Estimate, Guard, needs_training, of_metric, percent, share


def _groups(spec: RunSpec) -> int:
    grpo = spec.solver.grpo
    return grpo.completions_per_update // grpo.num_generations


def _of_groups(value: Estimate, baseline: Estimate | None, spec: RunSpec) -> Estimate:
    return share(value.value, _groups(spec))


def _blind(spec: RunSpec) -> str:
    if why := needs_training(spec):
        return why
    assert spec.guards is not None
    limit, errors = spec.guards.zero_spread.limit, spec.guards.standard_errors
    most = spec.iterations * (1 - limit) / share(1.0, _groups(spec)).error
    if limit < 1 and most <= errors:
        return (
            f"an update has {_groups(spec)} groups, of which even all, in each of {spec.iterations} iterations, are "
            f"not beyond {percent(limit)} by {errors:g} standard errors; raise spec.solver.grpo.promptsPerUpdate, or "
            "lower spec.guards.zeroSpread.limit or spec.guards.standardErrors"
        )
    return ""


ZERO_SPREAD = Guard(
    "zero_spread",
    _blind,
    of_metric(lambda m: m.get("solver/frac_reward_zero_std_last"), _of_groups),
    lambda reading: f"{percent(reading.value)} of the groups had equal rewards at the end of the Solver's training",
    percent,
)
