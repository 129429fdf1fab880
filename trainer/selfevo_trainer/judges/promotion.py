"""Whether a trained judge takes the place of the one before it (docs/verifier.md, "Promotion"). Pure."""

from __future__ import annotations

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
