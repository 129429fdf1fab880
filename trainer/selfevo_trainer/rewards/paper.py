"""The rewards of the paper: R-Zero, arXiv 2508.05004. Pure."""

from __future__ import annotations

from selfevo_trainer.rewards.base import ChallengerReward, RewardMode, checked_share


def uncertainty(p: float) -> float:
    """1 - 2|p - 1/2|: 1 when the majority share is one half. Source: R-Zero, arXiv 2508.05004, uncertainty reward.

    >>> uncertainty(0.5), uncertainty(0.75), uncertainty(1.0)
    (1.0, 0.5, 0.0)
    """
    return 1.0 - 2.0 * abs(checked_share(p) - 0.5)


def challenger(share: float | None, penalty: float) -> ChallengerReward:
    """max(0, uncertainty(p) - penalty); 0 for an invalid completion."""
    if share is None:
        return ChallengerReward(0.0, penalty, 0.0, valid=False)
    return ChallengerReward(uncertainty(share), penalty, max(0.0, uncertainty(share) - penalty), valid=True)


def solver(correct: bool, boxed: bool) -> float:
    """1 when the answer equals the label, else 0."""
    return float(correct)


PAPER = RewardMode("paper", challenger, solver)
