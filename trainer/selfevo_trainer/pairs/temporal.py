"""The Solver's answer over that of the Solver before its last training.

Circular where the Solver climbs the judge's errors: there later is worse.
"""

from __future__ import annotations

from selfevo_trainer.pairs.base import Made, Sources


def make(sources: Sources) -> list[Made]:
    """Every task; nothing in the first iteration, which has no Solver before."""
    if sources.earlier is None:
        return []
    others = sources.earlier(sources.tasks, "temporal")
    return [Made(i, own, other) for i, (own, other) in enumerate(zip(sources.answers, others, strict=True))]
