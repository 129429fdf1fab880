"""The Challenger's reward: how uncertain the Solver is, less how much the batch repeats itself (docs/method.md). Pure.

Suffix: B completions of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


def uncertainty_paper(p: float) -> float:
    """1 - 2|p - 1/2|: 1 when the majority share is one half. Source: R-Zero, arXiv 2508.05004, uncertainty reward.

    >>> uncertainty_paper(0.5), uncertainty_paper(0.75), uncertainty_paper(1.0)
    (1.0, 0.5, 0.0)
    """
    return 1.0 - 2.0 * abs(_share(p) - 0.5)


def uncertainty_code(p: float) -> float:
    """min(p, 1 - p): half of the paper's. Source: R-Zero's public code.

    >>> uncertainty_code(0.5), uncertainty_code(0.75), uncertainty_code(1.0)
    (0.5, 0.25, 0.0)
    """
    return min(_share(p), 1.0 - p)


@dataclass(frozen=True)
class ChallengerReward:
    """One completion's reward and what it is made of."""

    uncertainty: float
    """0 for an invalid completion, in both modes."""
    penalty: float
    """weight * |C|/B. Known for invalid completions too: they enter the batch as the empty string."""
    total: float
    """What the optimizer gets."""
    valid: bool


def challenger_rewards(
    mode: Literal["paper", "code"],
    shares_B: Iterable[float | None],
    repetition_B: Iterable[float],
    weight: float = 1.0,
) -> list[ChallengerReward]:
    """Rewards of a batch.

    | | paper | code |
    |---|---|---|
    | valid | max(0, uncertainty_paper(p) - penalty) | uncertainty_code(p) - penalty |
    | invalid | 0 | -1 - penalty |

    Args:
        shares_B: p, the Solver's majority share; None for an invalid completion. A valid question to which no answer
            had a box has p = 0.
        repetition_B: |C|/B (``repetition.repetition_share``).
        weight: the paper's lambda; penalty = weight * |C|/B. The public code has none, which is 1.

    >>> [round(item.total, 2) for item in challenger_rewards("paper", [0.5, 1.0, None], [0.25, 0.25, 0.5])]
    [0.75, 0.0, 0.0]
    >>> [round(item.total, 2) for item in challenger_rewards("code", [0.5, 1.0, None], [0.25, 0.25, 0.5])]
    [0.25, -0.25, -1.5]
    """
    if mode not in ("paper", "code"):
        raise ValueError(f"challenger reward mode {mode!r} is unknown; use 'paper' or 'code'")
    rewards: list[ChallengerReward] = []
    for share, repetition in zip(shares_B, repetition_B, strict=True):
        penalty = weight * float(repetition)
        if share is None:
            total = 0.0 if mode == "paper" else -1.0 - penalty
            rewards.append(ChallengerReward(0.0, penalty, total, valid=False))
        elif mode == "paper":
            uncertainty = uncertainty_paper(share)
            rewards.append(ChallengerReward(uncertainty, penalty, max(0.0, uncertainty - penalty), valid=True))
        else:
            uncertainty = uncertainty_code(share)
            rewards.append(ChallengerReward(uncertainty, penalty, uncertainty - penalty, valid=True))
    return rewards


def _share(p: float) -> float:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"majority share {p} is outside 0..1")
    return p
