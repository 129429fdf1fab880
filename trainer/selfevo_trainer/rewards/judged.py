"""The rewards of a run with a Verifier, whose judge scores answers: J-Zero, arXiv 2608.26582. Pure."""

from __future__ import annotations

import math

from selfevo_trainer.rewards.base import ChallengerReward, RewardMode, checked_share


def challenger(mean: float | None, penalty: float) -> ChallengerReward:
    """max(0, 1 - mean score - penalty), the scores by `scored`; -1 - penalty for an invalid completion.

    >>> round(challenger(0.25, 0.5).total, 2), challenger(0.75, 0.5).total, challenger(None, 0.5).total
    (0.25, 0.0, -1.5)
    """
    if mean is None:
        return ChallengerReward(0.0, penalty, -1.0 - penalty, valid=False)
    doubt = 1.0 - checked_share(mean)
    return ChallengerReward(doubt, penalty, max(0.0, doubt - penalty), valid=True)


def scored(score: float) -> float:
    """sigma(J), J the judge's score of an answer.

    >>> scored(0.0), scored(1000.0), scored(-1000.0)
    (0.5, 1.0, 0.0)
    """
    if score >= 0:
        return 1.0 / (1.0 + math.exp(-score))
    return math.exp(score) / (1.0 + math.exp(score)) if score > -700 else 0.0


JUDGED = RewardMode("judged", challenger, scored=scored)
