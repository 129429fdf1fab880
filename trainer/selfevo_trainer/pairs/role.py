"""The Solver's answer over the Challenger's own. Source: J-Zero, arXiv 2608.26582.

Circular where the Solver climbs the judge's errors: there its answers are the worse ones.
"""

from __future__ import annotations

from selfevo_trainer.pairs.base import Made, Sources


def make(sources: Sources) -> list[Made]:
    """Every task."""
    if sources.challenger is None:
        return []
    others = sources.challenger(sources.tasks, "role")
    return [Made(i, own, other) for i, (own, other) in enumerate(zip(sources.answers, others, strict=True))]
