"""What an oracle says of a curriculum, and how sure a share of a sample is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from selfevo_contract.rows import CurriculumRow, OracleRow, Question


@dataclass(frozen=True)
class Judgement:
    """Metrics of the rollout, and the rows of oracle.parquet."""

    metrics: dict[str, float]
    rows: Sequence[OracleRow] = ()
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by activity of the processes that asked, as far as they are recorded already in what is committed."""


def accuracy(right: Sequence[bool], of: int) -> dict[str, float]:
    """The metrics of labels that were compared, out of a curriculum of ``of``; no share of none.

    The standard error is that of a simple random sample without replacement, sqrt(p (1 - p) / (n - 1) (1 - n / N)), so
    it is 0 where all were compared. Of a single label there is none. Source: Cochran, Sampling Techniques, 3.2.

    >>> accuracy([True, True, True, False, False], 20)
    {'label_checked': 5.0, 'label_accuracy': 0.6, 'label_accuracy_error': 0.21213203435596426}
    """
    count = len(right)
    found = {"label_checked": float(count)}
    if count:
        found["label_accuracy"] = share = sum(right) / count
        if count > 1 or of == 1:
            spread = share * (1 - share) / max(1, count - 1)
            found["label_accuracy_error"] = math.sqrt(spread * (1 - count / of))
    return found


def by_truth(valid: Sequence[Question], kept: Sequence[CurriculumRow]) -> Judgement:
    """Of an oracle that computes the truth of every well-formed question: ``label_accuracy`` counts one without a known
    truth (a malformed one) as labelled wrongly."""
    metrics = {
        "malformed_share": sum(row.truth is None for row in valid) / len(valid),
        "majority_accuracy": sum(_right(row, row.majority) for row in valid) / len(valid),
    }
    if kept:
        metrics["label_accuracy"] = sum(_right(row, row.answer) for row in kept) / len(kept)
    return Judgement(metrics)


def _right(row: Question | CurriculumRow, answer: str | None) -> bool:
    return row.truth is not None and answer == row.truth
