"""One model's evaluation as the report shows it: by task, by group and over all, with gains over the base. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfevo.report.data import Evaluation, Scored
from selfevo_contract.rows import ScoreRow
from selfevo_contract.scores import Results, Score, average, gain_of, results_of


@dataclass(frozen=True)
class Answered:
    """One model's answers to one task."""

    task: str
    group: str | None
    samples: int
    """Of each question."""
    tokens: float
    """Mean length of a sampled answer."""
    results: Results

    @classmethod
    def of(cls, task: str, group: str | None, samples: int, rows: Sequence[ScoreRow]) -> Answered:
        """From the rows of evaluate's ``answers/<task>.parquet``, of which there is at least one."""
        tokens = sum(row.mean_tokens for row in rows) / len(rows)
        return cls(task, group, samples, tokens, results_of(rows, samples))


def evaluation_of(answered: Sequence[Answered], base: Mapping[str, Results] | None, metric: str) -> Evaluation | None:
    """One model's evaluation; ``base`` has the base's results by task, None for the base itself."""
    if not answered:
        return None
    groups = dict.fromkeys(each.group for each in answered if each.group is not None)
    return Evaluation(
        total=_scored("all", None, answered, base, metric),
        groups=tuple(
            _scored(group, group, [each for each in answered if each.group == group], base, metric) for group in groups
        ),
        tasks=tuple(_scored(each.task, each.group, [each], base, metric) for each in answered),
    )


def over(answered: Sequence[Answered], other: Mapping[str, Results], metric: str) -> Score | None:
    """The gain over another model's results, question by question; None where one side does not know it."""
    none = Results((), {})
    return _average([gain_of(other.get(each.task, none), each.results, metric) for each in answered])


def _scored(
    name: str, group: str | None, tasks: Sequence[Answered], base: Mapping[str, Results] | None, metric: str
) -> Scored:
    samples = {task.samples for task in tasks}
    found = {score: [task.results.score(score) for task in tasks] for score in tasks[0].results.values}
    return Scored(
        name=name,
        group=group,
        scores={score: mean for score, each in found.items() if (mean := _average(each)) is not None},
        gain=over(tasks, base, metric) if base else None,
        questions=sum(len(task.results.questions) for task in tasks),
        samples=samples.pop() if len(samples) == 1 else None,
        tokens=sum(task.tokens for task in tasks) / len(tasks),
    )


def _average(scores: Sequence[Score | None]) -> Score | None:
    known = [score for score in scores if score is not None]
    return average(known) if len(known) == len(scores) else None
