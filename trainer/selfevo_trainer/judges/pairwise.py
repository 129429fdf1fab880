"""A judge with criteria that compares answers to one task, two at a time.

Sources: the judge is shown both orders, and an answer wins where both prefer it; else it is a tie (Zheng et al.,
Judging LLM-as-a-Judge with MT-Bench, arXiv 2306.05685: models prefer a place). An answer is worth its share of wins in
its group, a tie counting half; as a reward of GRPO that is Wang et al., Pref-GRPO, arXiv 2508.20751.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from selfevo_trainer.endpoints.in_parallel import in_parallel
from selfevo_trainer.judges.asking import CriteriaJudge, sendable
from selfevo_trainer.judges.rubric import mean
from selfevo_trainer.judges.verdicts import comparison, read_preference

TIE = 0.5


@dataclass(frozen=True)
class Compared:
    """A group of answers to one task."""

    shares: tuple[float | None, ...]
    """Of wins of each answer, in order; None where none of its comparisons counts."""
    comparisons: int = 0
    """Those that count: in each order the judge has given a preference, or found a tie."""
    ties: int = 0
    """Of them, those in which no answer was preferred in both orders."""


class PairwiseJudge(CriteriaJudge):
    """Shares of wins. What it gives depends on a group alone, and on the model behind the address."""

    def compare(self, tasks: Sequence[str], groups: Sequence[Sequence[str]]) -> list[Compared]:
        """Each group of answers to each task, in order. Equal answers of a group are compared once, and tie.

        Raises:
            InputError: the endpoint refuses; the budget is used up; too many answers have no comparison.
            ServiceError: the endpoint gives no useful answer within its patience.
        """
        assert self.rubric.pairwise is not None
        asked = [(sendable(task), list(map(sendable, group))) for task, group in zip(tasks, groups, strict=True)]
        different = [list(dict.fromkeys(group)) for _, group in asked]
        pairs = [self.rubric.pairwise.pairs(len(texts)) for texts in different]
        orders = [
            (task, (texts[one], texts[other]))
            for (task, _), texts, of_group in zip(asked, different, pairs, strict=True)
            for pair in of_group
            for one, other in (pair, pair[::-1])
        ]
        votes = self.rubric.votes
        given = in_parallel(
            lambda number: self._vote(*orders[number // votes], number % votes),
            len(orders) * votes,
            self.rubric.endpoint.max_concurrency,
        )
        preferences = iter(mean(given[start : start + votes]) for start in range(0, len(given), votes))
        found = []
        for (_, group), texts, of_group in zip(asked, different, pairs, strict=True):
            wins = [(pair, win(next(preferences), next(preferences))) for pair in of_group]
            found.append(_shares(group, texts, wins))
        self.count([share for group in found for share in group.shares])
        return found

    def _vote(self, task: str, answers: tuple[str, str], number: int) -> float | None:
        assert self.rubric.pairwise is not None
        asked = partial(comparison, self.rubric, self.rubric.pairwise, self.criteria, task, answers, number)
        return self.vote(asked, read_preference)


def win(first: float | None, swapped: float | None) -> float | None:
    """What the first of two answers has of a comparison: ``first`` is the preference for what was shown first when it
    was the one, ``swapped`` when it was the other; None where an order has no preference.

    >>> win(1.0, -0.5), win(-1.0, 1.0), win(1.0, 1.0), win(0.0, -1.0), win(1.0, None)
    (1.0, 0.0, 0.5, 0.5, None)
    """
    if first is None or swapped is None:
        return None
    if first > 0 > swapped:
        return 1.0
    return 0.0 if first < 0 < swapped else TIE


def _shares(
    group: Sequence[str], texts: Sequence[str], wins: Sequence[tuple[tuple[int, int], float | None]]
) -> Compared:
    own: dict[str, list[float]] = {text: [] for text in texts}
    counted = [(pair, found) for pair, found in wins if found is not None]
    for (one, other), found in counted:
        own[texts[one]].append(found)
        own[texts[other]].append(1.0 - found)
    if len(texts) == 1:  # the answers are all the same
        own[texts[0]].append(TIE)
    ties = sum(found == TIE for _, found in counted)
    return Compared(tuple(mean(own[text]) for text in group), len(counted), ties)
