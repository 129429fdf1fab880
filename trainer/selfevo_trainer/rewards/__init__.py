"""Rewards, one mode a file (docs/method.md, "Challenger reward", "Solver reward"). Pure.

A mode is a file beside this one and a line of the registry. Suffix: B completions of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from selfevo_trainer.rewards.base import ChallengerReward, RewardMode
from selfevo_trainer.rewards.code import CODE
from selfevo_trainer.rewards.confidence import CONFIDENCE
from selfevo_trainer.rewards.judged import JUDGED
from selfevo_trainer.rewards.paper import PAPER
from selfevo_trainer.rewards.self_certainty import SELF_CERTAINTY

__all__ = [
    "MODES",
    "ChallengerReward",
    "RewardMode",
    "agreed_reward",
    "certain_reward",
    "challenger_rewards",
    "scored_reward",
    "solver_reward",
]

MODES = {mode.name: mode for mode in (PAPER, CODE, JUDGED, CONFIDENCE, SELF_CERTAINTY)}


def challenger_rewards(
    mode: str,
    shares_B: Iterable[float | None],
    repetition_B: Iterable[float],
    weight: float = 1.0,
    memory_B: Iterable[float] | None = None,
    memory_weight: float = 1.0,
) -> list[ChallengerReward]:
    """Rewards of a batch of questions: how uncertain the Solver is, less how much the batch repeats itself.

    | | paper | code | judged |
    |---|---|---|---|
    | valid | max(0, paper.uncertainty(p) - penalty) | code.uncertainty(p) - penalty | max(0, 1 - p - penalty) |
    | invalid | 0 | -1 - penalty | -1 - penalty |

    Args:
        mode: a name of the registry.
        shares_B: p, the Solver's majority share; None for an invalid completion. A valid question to which no answer
            had a box has p = 0. Of judged answers p is the mean of their rewards.
        repetition_B: |C|/B (``repetition.repetition_share``).
        weight: the paper's lambda; penalty = weight * |C|/B. The public code has none, which is 1.
        memory_B: shares of the questions of earlier iterations that lie near (``repetition.near_share``); neither the
            paper nor the code has them. ``memory_weight`` times that comes on top of the penalty.

    >>> [round(item.total, 2) for item in challenger_rewards("paper", [0.5, 1.0, None], [0.25, 0.25, 0.5])]
    [0.75, 0.0, 0.0]
    >>> [round(item.total, 2) for item in challenger_rewards("code", [0.5, 1.0, None], [0.25, 0.25, 0.5])]
    [0.25, -0.25, -1.5]
    """
    pay = _mode(mode, "challenger").challenger
    if pay is None:
        raise ValueError(f"challenger reward mode {mode!r} pays the Solver alone")
    penalties = [weight * float(repetition) for repetition in repetition_B]
    if memory_B is not None:
        penalties = [each + memory_weight * float(near) for each, near in zip(penalties, memory_B, strict=True)]
    return [pay(share, penalty) for share, penalty in zip(shares_B, penalties, strict=True)]


def solver_reward(mode: str, *, correct: bool, boxed: bool) -> float:
    r"""The reward of one answer.

    Args:
        mode: a name of the registry.
        correct: the answer equals the label.
        boxed: the completion holds a balanced, non-empty ``\boxed{}``.

    >>> solver_reward("paper", correct=False, boxed=True), solver_reward("code", correct=False, boxed=True)
    (0.0, 0.1)
    """
    if correct and not boxed:
        raise ValueError("a completion without a box has no answer that could be correct")
    pay = _mode(mode, "solver").solver
    if pay is None:
        raise ValueError(f"solver reward mode {mode!r} does not pay by labels")
    return pay(correct, boxed)


def scored_reward(mode: str, score: float) -> float:
    """The reward of one answer with a judge's ``score``.

    >>> scored_reward("judged", 0.0)
    0.5
    """
    pay = _mode(mode, "solver").scored
    if pay is None:
        raise ValueError(f"solver reward mode {mode!r} does not pay by a judge's scores")
    return pay(score)


def agreed_reward(mode: str, share: float | None) -> float:
    """The reward of one answer to which a ``share`` of its group's answers is equal, itself too; None without a vote.

    >>> agreed_reward("confidence", 0.75)
    0.75
    """
    pay = _mode(mode, "solver").agreed
    if pay is None:
        raise ValueError(f"solver reward mode {mode!r} does not pay by agreement")
    return pay(share)


def certain_reward(mode: str, divergences: Sequence[float]) -> float:
    """The reward of one answer whose tokens' distributions are so far from the uniform one.

    >>> certain_reward("selfCertainty", [0.5, 1.5])
    1.0
    """
    pay = _mode(mode, "solver").certain
    if pay is None:
        raise ValueError(f"solver reward mode {mode!r} does not pay by the policy's distributions")
    return pay(divergences)


def _mode(name: str, role: str) -> RewardMode:
    if name not in MODES:
        raise ValueError(f"{role} reward mode {name!r} is unknown; use {' or '.join(map(repr, MODES))}")
    return MODES[name]
