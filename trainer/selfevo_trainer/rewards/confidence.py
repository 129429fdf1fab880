"""The Solver is paid for agreeing with itself; no label is asked. Pure.

Source: EMPO, arXiv 2504.05812: the reward of an answer is the share of its group that means the same, by which the
entropy of the group's answers falls. Votes are sharpened and nothing is learnt that they do not say already: an arm to
compare labels with.
"""

from __future__ import annotations

from selfevo_trainer.rewards.base import RewardMode, checked_share


def agreed(share: float | None) -> float:
    """p of the answer's own class; 0 for an answer without a vote.

    >>> agreed(0.75), agreed(None)
    (0.75, 0.0)
    """
    return 0.0 if share is None else checked_share(share)


CONFIDENCE = RewardMode("confidence", agreed=agreed)
