"""What the parts of a run that work in shards have in common."""

from __future__ import annotations

from typing import Any

from selfevo_contract.rules import Rule


def _say(part: Any) -> str:
    return f"minShards {part.min_shards} is not below shards {part.shards}; lower it, or remove it"


FEWER_AT_A_TIME = Rule(
    "!has(self.minShards) || self.minShards < self.shards",
    lambda part: part.min_shards is None or part.min_shards < part.shards,
    "minShards is not below shards; lower it, or remove it",
    _say,
)
"""Kueue wants the pods with which a Job may start to be fewer than all."""
