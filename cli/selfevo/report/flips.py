"""Held-out questions that a model answers otherwise than the one before it, by their greedy answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfevo_contract.rows import ScoreRow

_KEPT = 200
"""Characters of an answer that are kept."""


@dataclass(frozen=True)
class Greedy:
    """A model's greedy answer to a held-out question."""

    answer: str
    """The end of its text, where the answer stands."""
    right: bool


Answers = Mapping[tuple[str, str, str], Greedy]
"""By task, question and true answer."""


@dataclass(frozen=True)
class Flip:
    """A question that was right before and is wrong now. All but the task is text from outside: hostile."""

    task: str
    question: str
    truth: str
    before: str
    after: str


@dataclass(frozen=True)
class Flips:
    """One model against the one before it, on the questions that both were asked."""

    iteration: int
    before: int
    """The iteration that it is held against; 0 is the base."""
    asked: int
    lost: int
    """Right before, wrong now."""
    gained: int
    """Wrong before, right now."""
    examples: tuple[Flip, ...]
    """Some of the lost, in the order of the data."""


def greedy_answers(task: str, rows: Sequence[ScoreRow]) -> dict[tuple[str, str, str], Greedy]:
    """From the rows of evaluate's ``answers/<task>.parquet``."""
    return {(task, row.question, row.answer): Greedy(row.greedy[-_KEPT:], row.greedy_right) for row in rows}


def flips_of(iteration: int, now: Answers, before_iteration: int, before: Answers, listed: int) -> Flips:
    """What changed from the model of ``before_iteration`` to that of ``iteration``, with ``listed`` examples."""
    both = [key for key in now if key in before]
    lost = [key for key in both if before[key].right and not now[key].right]
    gained = sum(now[key].right and not before[key].right for key in both)
    examples = tuple(Flip(*key, before[key].answer, now[key].answer) for key in lost[:listed])
    return Flips(iteration, before_iteration, len(both), len(lost), gained, examples)
