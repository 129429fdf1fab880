"""Too little of what the Challenger asks is at the edge of what the Solver can do."""

from __future__ import annotations

from selfevo_core.policies.guards.base import Guard, of_metric, percent, share_of

IN_BAND = Guard(
    "in_band",
    of_metric(share_of("rollout/in_band_share", "rollout/valid")),
    lambda reading: f"{percent(reading.value)} of the valid questions are in the band",
    percent,
    below=True,
)
