"""A judge that is not trained: a model behind an OpenAI-compatible address scores answers by criteria."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean

from selfevo_contract.canonical import digest
from selfevo_contract.judging import COUNTED, TOKENS
from selfevo_trainer.endpoints.in_parallel import in_parallel
from selfevo_trainer.judges.asking import CriteriaJudge, sendable
from selfevo_trainer.judges.verdicts import read_scores, request

NOT_OF_SCORES = {"criteria", "endpoint", "max_unscored", "anchor_pairs", "pairwise"}
"""What of a rubric says nothing of a score, or stands in its digest by what it says."""


class RubricJudge(CriteriaJudge):
    """See `Scorer`. What it gives depends on task and answer alone, and on the model behind the address."""

    @property
    def digest(self) -> str:
        """See `Scorer.digest`."""
        return digest(
            {
                "rubric": self.rubric.model_dump(mode="json", exclude=NOT_OF_SCORES),
                "criteria": [[each.name, each.description, each.weight, list(each.scale)] for each in self.criteria],
            }
        )

    def rewards(self, tasks: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        """See `Scorer.rewards`.

        Raises:
            InputError: the endpoint refuses; the budget is used up; too many answers have no score.
            ServiceError: the endpoint gives no useful answer within its patience.
        """
        pairs = list(zip(map(sendable, tasks), map(sendable, answers), strict=True))
        new = list(dict.fromkeys(pairs))
        votes = self.rubric.votes
        found = in_parallel(
            lambda number: self._vote(*new[number // votes], number % votes),
            len(new) * votes,
            self.rubric.endpoint.max_concurrency,
        )
        known = {pair: mean(found[number * votes : (number + 1) * votes]) for number, pair in enumerate(new)}
        scores = [known[pair] for pair in pairs]
        self.count(scores)
        return scores

    def _vote(self, task: str, answer: str, number: int) -> float | None:
        return self.vote(partial(request, self.rubric, self.criteria, task, answer, number), read_scores)


def mean(votes: Iterable[float | None]) -> float | None:
    """Of the votes that count; None without any."""
    counted = [vote for vote in votes if vote is not None]
    return fmean(counted) if counted else None


def totals(history: Iterable[Mapping[str, float]], processes: int) -> dict[str, float]:
    """What a training's judge was asked, from the metrics of its updates, each the mean over the processes."""
    rows = [row for row in history if TOKENS in row]
    return {name: sum(row[name] for row in rows) * processes for name in COUNTED} if rows else {}
