"""Held-out scores and what their differences mean. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from selfevo.report.data import Evaluation, Score, TaskScore
from selfevo_contract.rows import ScoreRow


@dataclass(frozen=True)
class Answers:
    """One model's results on one task, question by question."""

    questions: tuple[str, ...]
    mean: tuple[float, ...]
    """Share of right samples."""
    greedy: tuple[float, ...]
    """1 or 0."""

    def by(self, metric: str) -> tuple[float, ...]:
        return self.greedy if metric == "greedy" else self.mean


def results_of(rows: Sequence[ScoreRow], samples: int) -> Answers:
    """From the rows of evaluate's ``answers/<task>.jsonl``."""
    return Answers(
        questions=tuple(row.question for row in rows),
        mean=tuple(row.samples_right / samples for row in rows),
        greedy=tuple(float(row.greedy_right) for row in rows),
    )


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


def average(scores: Sequence[Score]) -> Score:
    """The mean of independent scores; its standard error is known when all of theirs are.

    >>> average([Score(0.2, 0.03), Score(0.4, 0.04)])
    Score(value=0.3..., stderr=0.025)
    """
    errors = [score.stderr for score in scores]
    known = [error for error in errors if error is not None]
    stderr = math.hypot(*known) / len(scores) if len(known) == len(scores) else None
    return Score(sum(score.value for score in scores) / len(scores), stderr)


def task_score(task: str, metrics: Mapping[str, float], answers: Answers | None) -> TaskScore | None:
    """One task's line of an evaluation; None when the manifest has no score of it."""
    if f"{task}/mean" not in metrics:
        return None
    return TaskScore(
        task=task,
        mean=Score(metrics[f"{task}/mean"], metrics.get(f"{task}/mean_stderr")),
        greedy=Score(metrics[f"{task}/greedy"], standard_error(answers.greedy) if answers else None),
        tokens=metrics.get(f"{task}/tokens"),
        questions=len(answers.questions) if answers else 0,
    )


def gain_of(base: Mapping[str, Answers], now: Mapping[str, Answers], metric: str) -> Score | None:
    """``now`` less ``base``, averaged over tasks.

    Both answered the same questions, so differences are taken question by question: the standard error is that of the
    difference, smaller than the two scores' own would suggest.

    None when a task's questions are not the same.
    """
    gains = []
    for task, before in base.items():
        after = now.get(task)
        if after is None or after.questions != before.questions or not before.questions:
            return None
        differences = [b - a for a, b in zip(before.by(metric), after.by(metric), strict=True)]
        gains.append(Score(sum(differences) / len(differences), standard_error(differences)))
    return average(gains) if gains else None


def evaluation_of(
    tasks: Iterable[str],
    metrics: Mapping[str, float],
    answers: Mapping[str, Answers],
    base: Mapping[str, Answers] | None,
    metric: str,
) -> Evaluation | None:
    """One model's evaluation; ``base`` are the base's answers, None for the base itself."""
    scores = [score for task in tasks if (score := task_score(task, metrics, answers.get(task))) is not None]
    if not scores:
        return None
    return Evaluation(
        mean=average([score.mean for score in scores]),
        greedy=average([score.greedy for score in scores]),
        tasks=tuple(scores),
        gain=gain_of(base, answers, metric) if base is not None else None,
    )
