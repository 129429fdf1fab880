"""What a mode of reward is: the formulas by which both roles are paid. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

RewardFunction = Callable[..., list[float]]
"""As TRL calls it: completions, columns of the data set and more by name; a reward for each completion."""


class Distributions(Protocol):
    """The policy in training, as a reward may ask it."""

    def from_uniform(self, prompts: Sequence[Any], completions: Sequence[Sequence[int]]) -> list[list[float]]:
        """KL(U || p) at each token of each completion, p the distribution that it was drawn from before it was cut."""
        ...


@runtime_checkable
class ByPolicy(Protocol):
    """A reward function that asks the policy."""

    policy: Distributions | None
    """It is there once training has loaded it."""


@dataclass(frozen=True)
class ChallengerReward:
    """One completion's reward and what it is made of."""

    uncertainty: float
    """0 for an invalid completion, in every mode."""
    penalty: float
    """weight * |C|/B, and what a memory adds. Known for invalid completions too: they enter the batch as the empty
    string."""
    total: float
    """What the optimizer gets."""
    valid: bool


@dataclass(frozen=True)
class RewardMode:
    """One way to pay both roles: a file beside this one, and a line of the registry in ``__init__``."""

    name: str
    """As a manifest names it: `challenger.reward.mode` and `solver.reward.mode`."""
    challenger: Callable[[float | None, float], ChallengerReward] | None = None
    """(p, penalty) -> reward. p is the Solver's majority share, None for an invalid completion; a valid question to
    which no answer had a box has p = 0. Of judged answers p is the mean of their rewards. None where
    it pays the Solver alone."""
    solver: Callable[[bool, bool], float] | None = None
    r"""(correct, boxed) -> reward. ``boxed``: the completion holds a balanced, non-empty ``\boxed{}``. None where a
    judge's scores pay."""
    scored: Callable[[float], float] | None = None
    """Score of a judge -> reward, in 0..1. None where labels pay."""
    agreed: Callable[[float | None], float] | None = None
    """Share of the group's answers that are equal to the answer -> reward; of an answer without a vote None. Where
    neither labels nor a judge pay."""
    certain: Callable[[Sequence[float]], float] | None = None
    """KL(U || p) at each of the answer's tokens -> reward. Where the policy's own distributions pay."""


@runtime_checkable
class InParts(Protocol):
    """A reward function that takes long, and scores a step's completions in parts, the same in all processes."""

    parts: list[dict[str, Any]]
    """What each part of the step under way came to, as JSON has it; those that an earlier attempt has scored are there
    before it is asked, and it adds the others."""
    between_parts: Callable[[], None]
    """Called in all processes before each part but the first: what is known can be kept."""


def checked_share(p: float) -> float:
    """``p``, a majority share.

    Raises:
        ValueError: it is outside 0..1.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"majority share {p} is outside 0..1")
    return p
