"""Too little of what the Challenger asks is at the edge of what the Solver can do."""

from __future__ import annotations

from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.guards.base import Guard, of_metric, percent, share_of


def _blind(spec: RunSpec) -> str:
    return "" if spec.verifier is None else "spec.verifier scores answers, and no share of them is a majority"


IN_BAND = Guard(
    "in_band",
    _blind,
    of_metric(share_of("rollout/in_band_share", "rollout/valid")),
    lambda reading: f"{percent(reading.value)} of the valid questions are in the band",
    percent,
    below=True,
)
