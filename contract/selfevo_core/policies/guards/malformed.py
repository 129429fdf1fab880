"""Completions of the Challenger that cannot become a question of the curriculum: no question and answer in them, no
answer with a box among the Solver's, a proof, a prompt's own markup. A sign of ambiguity hacking.

With `rollout.wellFormed` a question to which no answer is well-formed is a hard one, and not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.guards.base import (
    Estimate,
    Guard,
    History,
    Metrics,
    Reading,
    at_first,
    of_metric,
    or_change,
    percent,
    share,
)

_REASONS = ("proof", "markup", "too_long")
_NO_ANSWER = "empty_majority"


def _measure(reasons: Sequence[str], metrics: Metrics) -> Estimate | None:
    written, valid = metrics.get("rollout/questions"), metrics.get("rollout/valid")
    if not written or valid is None:
        return None
    dropped = sum(metrics.get(f"rollout/dropped_{reason}", 0.0) for reason in reasons)
    return share((written - valid + dropped) / written, written)


def _readings(history: History, spec: RunSpec, recorded: Estimate | None) -> list[Reading]:
    measure = partial(_measure, _REASONS if spec.rollout.well_formed else (*_REASONS, _NO_ANSWER))
    if recorded is not None and not recorded.error and spec.rollout.well_formed:
        recorded = None  # by a version that counted such questions, too
    return of_metric(measure, or_change("malformed", "rise"), measure)(history, spec, recorded)


MALFORMED = Guard(
    "malformed",
    _readings,
    lambda reading: (
        f"{percent(reading.value)} of the Challenger's completions are no usable question{at_first(reading)}"
    ),
    lambda limit: f"{percent(limit)}, or a rise beyond spec.guards.malformed.rise",
)
