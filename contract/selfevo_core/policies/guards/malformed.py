"""Completions of the Challenger that cannot become a question of the curriculum: no question and answer in them, no
answer with a box among the Solver's, a proof, a prompt's own markup. A sign of ambiguity hacking."""

from __future__ import annotations

from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.guards.base import Guard, Metrics, always, of_metric, percent

_REASONS = ("empty_majority", "proof", "markup", "too_long")


def _measure(metrics: Metrics) -> float | None:
    written, valid = metrics.get("rollout/questions"), metrics.get("rollout/valid")
    if not written or valid is None:
        return None
    dropped = sum(metrics.get(f"rollout/dropped_{reason}", 0.0) for reason in _REASONS)
    return (written - valid + dropped) / written


def _level(value: float, baseline: float | None, spec: RunSpec) -> float:
    """A rise as large as may be counts as much as a share as large as may be."""
    assert spec.guards is not None
    settings = spec.guards.malformed
    risen = value - (value if baseline is None else baseline)
    return max(value, settings.limit + risen - settings.rise)


MALFORMED = Guard(
    "malformed",
    always,
    of_metric(_measure, _level, _measure),
    lambda reading: (
        f"{percent(reading.value)} of the Challenger's completions are no usable question"
        + ("" if reading.baseline is None else f" ({percent(reading.baseline)} at first)")
    ),
    lambda limit: f"{percent(limit)}, or a rise beyond spec.guards.malformed.rise",
)
