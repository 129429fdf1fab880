"""What several seeds came to. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A mean over seeds."""

    mean: float
    deviation: float | None
    """Sample standard deviation; None of one seed."""
    count: int

    @property
    def stderr(self) -> float | None:
        """Of the mean."""
        return None if self.deviation is None else self.deviation / self.count**0.5


def spread_of(values: Sequence[float]) -> Spread:
    """Of at least one value.

    >>> spread_of([0.5, 0.7])
    Spread(mean=0.6, deviation=0.14..., count=2)
    """
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation, len(values))
