"""More held-out questions go from right to wrong than from wrong to right.

    errors = -(share wrong to right - share right to wrong) / its standard error

of the greedy answers, against the base, over the same questions. TTRL makes 21.6 % of solvable problems worse. It is a
signal, and never a reward.
"""

from __future__ import annotations

from selfevo_contract.phases import EVALUATE
from selfevo_core.policies.guards.base import Guard, Metrics, of_metric

_GAIN = f"{EVALUATE.metrics}/greedy_gain"


def _errors(metrics: Metrics) -> float | None:
    gain, error = metrics.get(_GAIN), metrics.get(f"{_GAIN}_stderr")
    return -gain / error if gain is not None and error else None


FLIPS = Guard(
    "flips",
    of_metric(_errors),
    lambda reading: (
        "of the greedy answers to held-out questions, "
        + (
            f"{reading.value:.1f} standard errors more went from right to wrong than the other way round"
            if reading.value > 0
            else "no more went from right to wrong than the other way round"
        )
    ),
    lambda limit: f"{limit:g} standard errors",
    neutral=0.0,
)
