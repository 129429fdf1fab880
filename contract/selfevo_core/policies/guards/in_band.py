"""Too little of what the Challenger asks is at the edge of what the Solver can do."""

from __future__ import annotations

from selfevo_core.policies.guards.base import Guard, always, of_metric, percent

IN_BAND = Guard(
    "in_band",
    always,
    of_metric(lambda m: m.get("rollout/in_band_share")),
    lambda reading: f"{percent(reading.value)} of the valid questions are in the band",
    percent,
    below=True,
)
