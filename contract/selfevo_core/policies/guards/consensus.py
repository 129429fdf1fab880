"""The Solver agrees with itself more and more, and answers no more questions right: votes sharpen without learning.

    rise = consensus - consensus when the score last rose

The consensus is the mean share of the largest class of equal answers to the held-out questions, which all models
answer. The score has risen when it is above that of the iteration it is held against by more than `standardErrors` of
the difference's own, so that the rise begins anew there: one alone is passed by chance in one of six evaluations.
Source: arXiv 2603.08660.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from selfevo_contract.phases import EVALUATE
from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.guards.base import Estimate, Guard, History, Metrics, Reading, percent

_CONSENSUS = f"{EVALUATE.metrics}/consensus"


@dataclass(frozen=True)
class _Evaluated:
    score: float
    score_error: float
    consensus: float
    consensus_error: float


def _errors_of(metrics: Metrics, score: str) -> tuple[float, float] | None:
    """Of the gains over the base, which are paired."""
    score_error, error = (metrics.get(f"{name}_gain_stderr") for name in (score, _CONSENSUS))
    return None if score_error is None or error is None else (score_error, error)


def _evaluated(number: int, metrics: Metrics, score: str, newest: tuple[float, float]) -> _Evaluated | None:
    """The base has no errors. Of old iterations they are no longer known; then they are the newest ones'."""
    if score not in metrics or _CONSENSUS not in metrics:
        return None
    errors = (0.0, 0.0) if number == 0 else _errors_of(metrics, score) or newest
    return _Evaluated(metrics[score], errors[0], metrics[_CONSENSUS], errors[1])


def _readings(history: History, spec: RunSpec, recorded: Estimate | None) -> list[Reading]:
    if spec.evaluation is None or spec.guards is None:
        return []
    score, found = f"{EVALUATE.metrics}/{spec.evaluation.metric}", []
    all_errors = (_errors_of(metrics, score) for metrics in reversed(list(history.values())))
    newest = next((errors for errors in all_errors if errors is not None), (0.0, 0.0))
    since: _Evaluated | None = None
    for number, metrics in history.items():
        now = _evaluated(number, metrics, score, newest)
        if now is None:
            continue
        rose_by = spec.guards.standard_errors * math.hypot(now.score_error, since.score_error if since else 0.0)
        if since is None:
            since = now
        elif now.score - since.score > rose_by:
            since = now
            found.append(Reading(number, now.consensus, None, 0.0))
        else:
            rise, error = now.consensus - since.consensus, math.hypot(now.consensus_error, since.consensus_error)
            found.append(Reading(number, now.consensus, Estimate(since.consensus), rise, error))
    return found


CONSENSUS = Guard(
    "consensus_without_gain",
    _readings,
    lambda reading: (
        "the score of the held-out questions rose"
        if reading.baseline is None
        else f"the largest class of equal answers to a held-out question has {percent(reading.value)} of them, "
        f"{percent(reading.at_first)} when the score last rose"
    ),
    lambda limit: f"{100 * limit:g} points more",
    neutral=0.0,
)
