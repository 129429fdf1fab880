"""What the parts of a run that work in shards have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selfevo_contract.rules import Rule


def fewer_at_a_time(shards: Callable[[Any], int], cel: str = "self.shards") -> Rule:
    """Kueue wants the pods with which a Job may start to be fewer than all.

    Args:
        shards: how many a part has in all.
        cel: the same over ``self``.
    """
    return Rule(
        f"!has(self.minShards) || self.minShards < {cel}",
        lambda part: part.min_shards is None or part.min_shards < shards(part),
        "minShards is not below shards; lower it, or remove it",
        lambda part: f"minShards {part.min_shards} is not below shards {shards(part)}; lower it, or remove it",
    )
