"""Whether a trained judge takes the place of the one before it (docs/verifier.md, "Promotion"). Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from selfevo_contract.judging import AnchorRow


@dataclass(frozen=True)
class Comparison:
    """Two judges on the same pairs."""

    count: int
    before: float | None
    """Accuracy of the judge before; None where there is none."""
    after: float
    error: float
    """Standard error of the paired difference; 0 where there is no judge before."""

    def worse_by(self, standard_errors: float) -> bool:
        """Whether the new one is below the one before by more than so many standard errors."""
        return self.before is not None and self.after < self.before - standard_errors * self.error


def compare(rows: Sequence[AnchorRow]) -> Comparison | None:
    """Accuracies on ``rows``; of a tie no judge is right. None without rows.

    >>> rows = [AnchorRow(question="q", chosen="a", rejected="b", source="data", before=1.0, after=x) for x in (2, -1)]
    >>> compare(rows)
    Comparison(count=2, before=1.0, after=0.5, error=0.5)
    """
    if not rows:
        return None
    after = [float((row.after or 0.0) > 0) for row in rows]
    if any(row.before is None for row in rows):
        return Comparison(len(rows), None, fmean(after), 0.0)
    before = [float((row.before or 0.0) > 0) for row in rows]
    differences = [new - old for new, old in zip(after, before, strict=True)]
    error = stdev(differences) / len(rows) ** 0.5 if len(rows) > 1 else 0.0
    return Comparison(len(rows), fmean(before), fmean(after), error)


FEW = 16
"""Anchors before which their correlation with lengths is no evidence."""


@dataclass(frozen=True)
class Lengths:
    """How the scores of two judges follow the lengths of answers, on the same pairs."""

    count: int
    before: float | None
    """None where there is no judge before, or nothing to correlate."""
    after: float | None

    def refuses(self, limit: float) -> bool:
        """Whether the new one follows them beyond ``limit``, and more than the one before does: which would stay."""
        if self.count < FEW or self.after is None or self.after <= limit:
            return False
        return self.before is None or self.after > self.before


def lengths(rows: Sequence[AnchorRow]) -> Lengths:
    """Correlations of scores with lengths in characters.

    Pearson's, over both answers of every pair, the pair's mean taken off both: what tasks differ in has no part in it.
    With the difference m of the scores of two answers and that d of their lengths it is sum(m d) / sqrt(sum(m^2)
    sum(d^2)).

    >>> rows = [AnchorRow(question="q", chosen="aaa", rejected="a", source="own", before=x, after=0) for x in (3, -4)]
    >>> lengths(rows)
    Lengths(count=2, before=-0.1414213562373095, after=None)
    """
    longer = [float(len(row.chosen) - len(row.rejected)) for row in rows]
    return Lengths(
        len(rows),
        _correlation([row.before for row in rows], longer),
        _correlation([row.after for row in rows], longer),
    )


def _correlation(margins: Sequence[float | None], longer: Sequence[float]) -> float | None:
    known = [margin for margin in margins if margin is not None]
    size = math.hypot(*known) * math.hypot(*longer)
    if len(known) < len(margins) or not size:
        return None
    return math.fsum(a * b for a, b in zip(known, longer, strict=True)) / size
