"""Which points a plot of a long training draws: of several updates in a row the lowest and the highest. Pure.

A mean, or every tenth update, would hide the very ones that a reader looks for: a spike of the gradient norm, a batch
without a valid question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

POINTS = 200
"""Points of a plot, about, from which on not every update is drawn."""
DIGITS = 6
"""Significant digits of a figure in the page; a plot shows three."""


def width_of(updates: int) -> int:
    """How many updates in a row two points stand for; 1 where every update is a point of its own.

    >>> width_of(200), width_of(201), width_of(1100)
    (1, 3, 11)
    """
    return 1 if updates <= POINTS else -(-2 * updates // POINTS)


def places(values: Sequence[float], width: int) -> list[int]:
    """Which of ``values`` are drawn: the first, the last, and of every ``width`` in a row the lowest and the highest.
    A figure that is no number is a gap of the curve, and the first of each row is kept.

    >>> places([5.0, 1.0, 2.0, 9.0, 3.0, 4.0, 4.0, 4.0], 4)
    [0, 1, 3, 4, 5, 7]
    """
    if width == 1:
        return list(range(len(values)))
    kept = {0, len(values) - 1} if values else set()
    for first in range(0, len(values), width):
        row = range(first, min(first + width, len(values)))
        numbers = [place for place in row if math.isfinite(values[place])]
        if numbers:
            kept |= {min(numbers, key=values.__getitem__), max(numbers, key=values.__getitem__)}
        kept |= set([place for place in row if not math.isfinite(values[place])][:1])
    return sorted(kept)


def rounded(value: float) -> float:
    """To as many digits as a page has.

    >>> rounded(0.123456789), rounded(1234567.0)
    (0.123457, 1234570.0)
    """
    return float(f"{value:.{DIGITS}g}")
