"""The Solver is paid for how sure it was of each token; neither a label nor another answer is asked. Pure.

Source: Zhao et al., Learning to Reason without External Rewards (INTUITOR), arXiv 2505.19590:

    self-certainty(o | q) = 1/|o| sum_i KL(U || p_i) = -1/(|o| |V|) sum_i sum_j log(|V| p_i(j))

p_i is the policy's distribution at token i of the answer o, U the uniform one over the vocabulary V. A model becomes
sure of what is wrong as well as of what is right: an arm to compare labels with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TypeVar

from selfevo_trainer.rewards.base import RewardMode

Value = TypeVar("Value")
"""A number, or a tensor of them."""


def from_uniform(log_sum_exp: Value, mean: Value, vocabulary: int) -> Value:
    """KL(U || p) of the softmax p of logits z: log sum_j exp(z_j) - mean_j z_j - log |V|.

    >>> round(from_uniform(math.log(3 + 1), (math.log(3) + 0) / 2, 2), 4)  # p = 3/4, 1/4
    0.1438
    """
    found: Value = log_sum_exp - mean - math.log(vocabulary)  # type: ignore[operator]
    return found


def certain(divergences: Sequence[float]) -> float:
    """The mean over the answer's tokens; 0, the least that there is, of an answer without any.

    >>> certain([0.5, 1.5]), certain([])
    (1.0, 0.0)
    """
    return fmean(divergences) if divergences else 0.0


SELF_CERTAINTY = RewardMode("selfCertainty", certain=certain)
