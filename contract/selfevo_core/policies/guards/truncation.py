"""Answers of the rollout that end at their length limit: counted by the engine's reason, not by the tensor's width."""

from __future__ import annotations

from selfevo_core.policies.guards.base import Guard, always, of_metric, percent

TRUNCATION = Guard(
    "truncation",
    always,
    of_metric(lambda m: m.get("rollout/answers/truncated")),
    lambda reading: f"{percent(reading.value)} of the rollout's answers ended at their length limit",
    percent,
)
