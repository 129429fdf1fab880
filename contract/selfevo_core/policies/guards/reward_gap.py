"""The Solver's first answers in training earn less than its votes foretell: labels, rewards, questions or weights are
not those of the rollout.

    gap = expected accuracy - reward at the first update

The Solver that begins to train is the one that voted. So its answer to a question of the curriculum equals the label as
often as one of the rollout's answers equals the majority of the question's others, over the questions that are in the
band by these others (`expected_accuracy`), and no mode pays less than that share. More is no sign: what a committee
agrees on and what is asked again is answered better.
"""

from __future__ import annotations

import math

from selfevo_contract.guard_signals import share_error
from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.guards.base import Estimate, Guard, History, Reading


def _readings(history: History, spec: RunSpec, recorded: Estimate | None) -> list[Reading]:
    """The error is that of a step's questions, each of which is answered always or never at worst, and of the votes."""
    found = []
    for number, metrics in history.items():
        expected, reward = metrics.get("rollout/expected_accuracy"), metrics.get("solver/reward_first")
        if expected is None or reward is None:
            continue
        votes = metrics.get("rollout/kept", 0.0) * spec.rollout.samples
        error = math.hypot(share_error(expected, spec.solver.grpo.prompts_per_step), share_error(expected, votes))
        found.append(Reading(number, reward, Estimate(expected), expected - reward, error))
    return found


REWARD_GAP = Guard(
    "reward_gap",
    _readings,
    lambda reading: (
        f"the Solver's answers earned {reading.value:.3g} at the first update of its training, and its votes foretold "
        f"{reading.at_first:.3g}"
    ),
    lambda limit: f"a gap of {limit:g}",
    neutral=0.0,
)
