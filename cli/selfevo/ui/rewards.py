"""What one question of a rollout comes to by the formulas of the rewards, as far as its row says it. Pure.

A rollout pays nobody. Its rows have what the formulas ask for, but for the batch of a training, by which repetition is
counted, and a judge's scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from selfevo_contract.spec.run import RunSpec
from selfevo_trainer.rewards import MODES

_UNFIT = ("proof", "markup", "held_out", "contaminated", "too_long")
"""Why a question is dropped that the Challenger's training takes for invalid, too."""


@dataclass(frozen=True)
class OfChallenger:
    """What its training would pay for the question."""

    mode: str
    valid: bool
    uncertainty: float
    """0 of an invalid one."""
    most: float
    """The reward before penalties, which can only lower it."""
    share: float | None
    """What the uncertainty is of; None of an invalid one."""
    weight: float
    """Of the repetition penalty."""
    memory: float | None
    """Of the memory's penalty; None where there is none."""


@dataclass(frozen=True)
class OfSolver:
    """What its training would pay on average for this rollout's answers, which are the Solver's before it."""

    mode: str
    right: int | None
    """Answers that equal the label; None where labels do not pay."""
    answers: int
    mean: float | None
    """None where a judge's scores pay."""


def of_challenger(spec: RunSpec, row: SimpleNamespace) -> OfChallenger | None:
    """None of a question that was not answered for another reason than its form."""
    reward = spec.challenger.reward
    pay = MODES[reward.mode].challenger
    assert pay is not None  # the contract has no mode of the Challenger's that pays the Solver alone
    valid = row.question is not None and row.dropped not in _UNFIT
    share = _share(row, reward.unboxed) if valid else None
    if valid and share is None:
        return None
    found = pay(share, 0.0)
    memory = None if reward.memory is None else reward.memory.weight
    return OfChallenger(reward.mode, valid, found.uncertainty, found.total, share, reward.repetition.weight, memory)


def of_solver(spec: RunSpec, row: SimpleNamespace, answers: int) -> OfSolver | None:
    """None of a question that is in no curriculum, or whose label the votes do not have in this spelling."""
    if row.question is None or row.label is None:
        return None
    mode, sizes = MODES[spec.solver.reward.mode], [vote.count for _, vote in row.votes]
    boxed = sum(sizes)
    if mode.agreed is not None:
        paid = sum(size * mode.agreed(size / answers) for size in sizes)
        return OfSolver(mode.name, None, answers, (paid + (answers - boxed) * mode.agreed(None)) / answers)
    if mode.solver is None:
        return OfSolver(mode.name, None, answers, None)
    right = _equal(row)
    if right is None:
        return None
    paid = (
        right * mode.solver(True, True)
        + (boxed - right) * mode.solver(False, True)
        + (answers - boxed) * mode.solver(False, False)
    )
    return OfSolver(mode.name, right, answers, paid / answers)


def _share(row: SimpleNamespace, unboxed: str) -> float | None:
    sizes: Sequence[int] = [vote.count for _, vote in row.votes]
    if unboxed == "drops" and row.majority is not None and sizes:
        return max(sizes) / sum(sizes)
    share: float | None = row.share
    return share


def _equal(row: SimpleNamespace) -> int | None:
    """How many answers equal the label: the largest class where it is the majority, else the class of its spelling."""
    if row.label == row.majority and row.votes:
        return int(row.votes[0][1].count)
    return next((int(vote.count) for _, vote in row.votes if vote.answer == row.label), None)
