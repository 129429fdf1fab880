r"""The rewards of R-Zero's public code, where they differ from the paper's. Pure.

What "format" is. The public code's math reward comes from EasyR1: format is a full match of
``<think>.*</think>.*\boxed{.*}.*``. Our prompt asks for a box and not for think tags, and a model that writes none
would never earn that part. Here format is what the prompt asks for: a balanced, non-empty ``\boxed{}``
(``extraction.last_boxed``). A prompt that demands think tags would have to check them here.
"""

from __future__ import annotations

from selfevo_trainer.rewards.base import ChallengerReward, RewardMode, checked_share

FORMAT_WEIGHT = 0.1


def uncertainty(p: float) -> float:
    """min(p, 1 - p): half of the paper's. Source: R-Zero's public code.

    >>> uncertainty(0.5), uncertainty(0.75), uncertainty(1.0)
    (0.5, 0.25, 0.0)
    """
    return min(checked_share(p), 1.0 - p)


def challenger(share: float | None, penalty: float) -> ChallengerReward:
    """uncertainty(p) - penalty; -1 - penalty for an invalid completion."""
    if share is None:
        return ChallengerReward(0.0, penalty, -1.0 - penalty, valid=False)
    return ChallengerReward(uncertainty(share), penalty, uncertainty(share) - penalty, valid=True)


def solver(correct: bool, boxed: bool) -> float:
    """0.9 accuracy + 0.1 format (EasyR1's ``compute_score``, format weight 0.1)."""
    return (1.0 - FORMAT_WEIGHT) * correct + FORMAT_WEIGHT * boxed


CODE = RewardMode("code", challenger, solver)
