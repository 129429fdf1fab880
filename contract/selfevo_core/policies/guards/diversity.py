"""The Challenger repeats itself within a rollout."""

from __future__ import annotations

from selfevo_core.policies.guards.base import Guard, at_first, of_metric, or_change, percent, share_of

_DISTINCT = share_of("rollout/distinct_share", "rollout/questions")

DIVERSITY = Guard(
    "diversity",
    of_metric(_DISTINCT, or_change("diversity", "fall", below=True), _DISTINCT),
    lambda reading: (
        f"{percent(reading.value)} of the Challenger's completions are different questions{at_first(reading)}"
    ),
    lambda limit: f"{percent(limit)}, or a fall beyond spec.guards.diversity.fall",
    below=True,
)
