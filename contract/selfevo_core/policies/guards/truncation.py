"""Answers of the rollout that end at their length limit: counted by the engine's reason, not by the tensor's width.

Answers to one question are alike, so the error is that of as many answers as there are questions.
"""

from __future__ import annotations

from selfevo_core.policies.guards.base import Guard, of_metric, percent, share_of

TRUNCATION = Guard(
    "truncation",
    of_metric(share_of("rollout/answers/truncated", "rollout/valid")),
    lambda reading: f"{percent(reading.value)} of the rollout's answers ended at their length limit",
    percent,
)
