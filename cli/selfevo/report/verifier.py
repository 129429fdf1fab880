"""What became of each iteration's judge, from the manifests of verifier-train. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from selfevo.report.data import Report
from selfevo_contract.judging import AFTER, BEFORE, BY_LENGTH, ERROR, LENGTH_AFTER, LENGTH_BEFORE, PROMOTED
from selfevo_contract.phases import VERIFIER_TRAIN
from selfevo_contract.spec.verifier import PairMaker


@dataclass(frozen=True)
class MadePairs:
    """What one maker made in an iteration."""

    maker: str
    made: int
    kept: int
    right_in_errors: float | None
    """Of what the judge before has wrong, the share that it says right; None where that was not measured."""
    used: bool


@dataclass(frozen=True)
class Judged:
    """One iteration's judge."""

    iteration: int
    promoted: bool
    before: float | None
    after: float | None
    error: float | None
    own_before: float | None
    own_after: float | None
    length_before: float | None
    """Correlation of the scores on the anchors with the answers' lengths."""
    length_after: float | None
    by_length: bool
    """It was not promoted for that."""
    trained: int
    """Pairs that it was trained on."""
    makers: tuple[MadePairs, ...]


def judges_of(report: Report) -> tuple[Judged, ...]:
    """Those that are done, the first one (iteration 0) first; nothing in a run without a Verifier."""
    return tuple(
        _judged(record.step.iteration, record.manifest.metrics)
        for record in report.steps
        if record.manifest is not None and record.step.phase == VERIFIER_TRAIN.name
    )


def _judged(iteration: int, metrics: Mapping[str, float]) -> Judged:
    return Judged(
        iteration=iteration,
        promoted=bool(metrics.get(PROMOTED)),
        before=metrics.get(BEFORE),
        after=metrics.get(AFTER),
        error=metrics.get(ERROR),
        own_before=metrics.get("anchors/own_before"),
        own_after=metrics.get("anchors/own_after"),
        length_before=metrics.get(LENGTH_BEFORE),
        length_after=metrics.get(LENGTH_AFTER),
        by_length=bool(metrics.get(BY_LENGTH)),
        trained=int(metrics.get("pairs/trained", 0)),
        makers=tuple(
            MadePairs(
                maker=maker,
                made=int(metrics[f"pairs/{maker}/made"]),
                kept=int(metrics.get(f"pairs/{maker}/kept", 0)),
                right_in_errors=metrics.get(f"pairs/{maker}/right_in_errors"),
                used=bool(metrics.get(f"pairs/{maker}/used")),
            )
            for maker in get_args(PairMaker)
            if f"pairs/{maker}/made" in metrics
        ),
    )
