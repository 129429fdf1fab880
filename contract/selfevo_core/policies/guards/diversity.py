"""The Challenger repeats itself within a rollout."""

from __future__ import annotations

from selfevo_core.policies.guards.base import Guard, of_metric, percent, share_of

DIVERSITY = Guard(
    "diversity",
    of_metric(share_of("rollout/distinct_share", "rollout/questions")),
    lambda reading: f"{percent(reading.value)} of the Challenger's completions are different questions",
    percent,
    below=True,
)
