"""The Challenger writes the questions of earlier iterations again: within a rollout they may differ all the same.

What is similar is decided where it is measured: BLEU above 0.5 with a question of the curricula that `rollout.replay`
draws from, or else what `challenger.reward.memory` takes for near. Source of the threshold: arXiv 2602.13103, where
repetition within a batch falls while that across iterations rises.
"""

from __future__ import annotations

from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.guards.base import Estimate, Guard, History, Metrics, Reading, percent, share


def _measure(metrics: Metrics, spec: RunSpec) -> Estimate | None:
    """Of a run that has both, what the rollout measured: another step's figure is not to be held against it."""
    if spec.rollout.replay is not None:
        replayed = metrics.get("rollout/similar_share")
        return None if replayed is None else share(replayed, metrics.get("rollout/valid"))
    remembered = metrics.get("challenger/similar_last")
    return None if remembered is None else Estimate(remembered)


def _readings(history: History, spec: RunSpec, recorded: Estimate | None) -> list[Reading]:
    """A share that does not rise is no sign, nor is the first one: what a task asks may be of few kinds."""
    found: list[Reading] = []
    before: Estimate | None = None
    for number, metrics in history.items():
        now = _measure(metrics, spec)
        if now is None:
            continue
        rises = before is not None and now.value > before.value
        found.append(Reading(number, now.value, before, now.value if rises else 0.0, now.error if rises else 0.0))
        before = now
    return found


SIMILARITY = Guard(
    "similarity",
    _readings,
    lambda reading: (
        f"{percent(reading.value)} of the Challenger's questions are similar to one of an earlier iteration"
        + (f", {percent(reading.at_first)} before" if reading.baseline else "")
    ),
    lambda limit: percent(limit),
    neutral=0.0,
    nearness=lambda reading: reading.value,  # the first share is no sign, and no good one either
)
