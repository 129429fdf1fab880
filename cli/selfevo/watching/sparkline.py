"""A curve in one line. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None], width: int) -> str:
    """``values`` as bars between the least and the greatest of them, in ``width`` columns at most.

    More values than columns are averaged, as many as fall together. What is missing or no number is a blank; values
    that are all alike are bars of half the height.

    >>> sparkline([1, 2, None, 8], 10)
    '▁▂ █'
    """
    known = [value if value is not None and math.isfinite(value) else None for value in values]
    if width < 1:
        return ""
    if len(known) > width:
        ends = [round(n * len(known) / width) for n in range(width + 1)]
        known = [_mean(known[start:end]) for start, end in itertools.pairwise(ends)]
    there = [value for value in known if value is not None]
    if not there:
        return " " * len(known)
    low, high = min(there), max(there)
    return "".join(" " if value is None else _bar(value, low, high) for value in known)


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(value / len(there) for value in there) if there else None


def _bar(value: float, low: float, high: float) -> str:
    if high <= low:
        return _BARS[len(_BARS) // 2 - 1]
    share = value / 2 - low / 2  # halved: the span of two floats may be more than a float
    return _BARS[min(len(_BARS) - 1, int(share / (high / 2 - low / 2) * len(_BARS)))]
