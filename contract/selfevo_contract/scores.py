"""Scores of an evaluation: their names, their formulas and their errors, for the trainer and the report alike. Pure.

Of n sampled answers to a question c are right (docs/evaluation.md):

    mean        c / n: mean@n, which is pass@1
    greedy      1 when the single most likely answer is right, else 0
    maj         maj@n: 1 when the answer of the largest class of equal answers is right, else 0
    pass@k      the chance that at least one of k of the n answers is right, for k = 2, 4, 8, ... and n
    consensus   the share of the n answers that the largest class of equal ones has, right or wrong; for n > 1

A task's score is the mean over its questions; tasks count alike. Suffixes: Q questions of one task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfevo_contract.rows import ScoreRow

SCORES = ("mean", "greedy", "maj")
"""What `spec.evaluation.metric` chooses from, the first ones first where there is no room for all."""


@dataclass(frozen=True)
class Score:
    """An accuracy, or a difference of two, with its standard error over questions."""

    value: float
    stderr: float | None = None
    """None: for fewer than two questions nothing is known."""


@dataclass(frozen=True)
class Results:
    """One model's results on one task, question by question."""

    questions: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]
    """By score: Q values of 0 to 1."""

    def score(self, name: str) -> Score | None:
        """The mean over questions; None when the rows do not tell it."""
        return score_of(self.values[name]) if name in self.values else None


def pass_counts(samples: int) -> list[int]:
    """The k of pass@k for so many samples: powers of two, and all; pass@1 is the mean.

    >>> pass_counts(1), pass_counts(4), pass_counts(10)
    ([], [2, 4], [2, 4, 8, 10])
    """
    powers = [2**i for i in range(1, samples.bit_length()) if 2**i < samples]
    return [*powers, samples] if samples > 1 else []


def pass_at(samples: int, right: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): an unbiased estimate of the chance that one of k answers is right.

    Source: Chen et al. 2021, arXiv 2107.03374, equation 1, as the product that needs no large numbers.

    >>> pass_at(4, 1, 2), pass_at(4, 3, 2), pass_at(4, 0, 4)
    (0.5, 1.0, 0.0)
    """
    if samples - right < k:
        return 1.0
    return 1.0 - math.prod((samples - right - i) / (samples - i) for i in range(k))


def results_of(rows: Sequence[ScoreRow], samples: int) -> Results:
    """From the rows of evaluate's ``answers/<task>.parquet``, of so many samples each."""
    values = {
        "mean": tuple(row.samples_right / samples for row in rows),
        "greedy": tuple(float(row.greedy_right) for row in rows),
    }
    if all(row.majority_right is not None for row in rows):
        values["maj"] = tuple(float(row.majority_right or False) for row in rows)
        # Older rows have no votes.
        if samples > 1 and all(row.votes or (row.majority is None and not row.samples_right) for row in rows):
            values["consensus"] = tuple(max((votes for _, votes in row.votes), default=0) / samples for row in rows)
    for k in pass_counts(samples):
        values[f"pass@{k}"] = tuple(pass_at(samples, row.samples_right, k) for row in rows)
    return Results(tuple(row.question for row in rows), values)


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean of ``values``; None for fewer than two.

    >>> standard_error([0.0, 1.0])
    0.5
    """
    count = len(values)
    if count < 2:
        return None
    mean = sum(values) / count
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)


def score_of(values: Sequence[float]) -> Score:
    """The mean of ``values``, of which there is at least one, with its standard error."""
    return Score(sum(values) / len(values), standard_error(values))


def average(scores: Sequence[Score]) -> Score:
    """The mean of independent scores; its standard error is known when all of theirs are.

    >>> average([Score(0.2, 0.03), Score(0.4, 0.04)])
    Score(value=0.3..., stderr=0.025)
    """
    errors = [score.stderr for score in scores]
    known = [error for error in errors if error is not None]
    stderr = math.hypot(*known) / len(scores) if len(known) == len(scores) else None
    return Score(sum(score.value for score in scores) / len(scores), stderr)


def gain_of(base: Results, now: Results, name: str) -> Score | None:
    """``now`` less ``base``: the mean of the differences question by question, and its standard error.

    Both answered the same questions, so that this error is smaller than the two scores' own would suggest.
    None when the questions are not the same, or one side does not know the score.
    """
    if base.questions != now.questions or not base.questions or name not in base.values or name not in now.values:
        return None
    return score_of([after - before for before, after in zip(base.values[name], now.values[name], strict=True)])


def metrics_of(tasks: Mapping[str, Results], base: Mapping[str, Results] | None = None) -> dict[str, float]:
    """A manifest's metrics: ``<task>/<score>``, and ``<score>`` averaged over the tasks that all have it.

    Each with ``_stderr``, where that is known. With ``base``, the base's results on the same tasks, also ``_gain`` and
    ``_gain_stderr``.
    """
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(name for results in tasks.values() for name in results.values):
        found = {task: results.score(name) for task, results in tasks.items()}
        metrics |= _metrics_of(name, found)
        if base is not None:
            none = Results((), {})
            gains = {task: gain_of(base.get(task, none), results, name) for task, results in tasks.items()}
            metrics |= _metrics_of(f"{name}_gain", gains)
    return metrics


def _metrics_of(name: str, found: Mapping[str, Score | None]) -> dict[str, float]:
    known = {f"{task}/{name}": score for task, score in found.items() if score is not None}
    if len(known) == len(found):
        known[name] = average(list(known.values()))
    errors = {f"{key}_stderr": score.stderr for key, score in known.items() if score.stderr is not None}
    return {**{key: score.value for key, score in known.items()}, **errors}
