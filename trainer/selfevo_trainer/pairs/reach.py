"""Which tasks lie beyond what the judge's anchors reach (docs/verifier.md, "Gate"). Pure.

On tasks that are harder than those of the anchors a judge's accuracy on the anchors says nothing. How hard a task is
nobody knows. But the Solver that answered it answers the anchors' tasks as often, too, and the same judge scores all of
that: a task whose mean is below that of nearly all of the anchors' tasks is taken to be beyond them. (The anchors' own
answers are no measure: many are bad on purpose, and the writer is another one.)
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from selfevo_contract.judging import PairRow
from selfevo_contract.spec.verifier import REACH_TASKS
from selfevo_trainer.rewards.judged import scored

REACH = "reach"
"""Why such a task's pairs are dropped."""
FEW = 16
"""Tasks of anchors before which their lowest means are no evidence."""


def asked(anchors: Iterable[str], samples: int, seed: int) -> list[str]:
    """The tasks of ``anchors`` that the Solver is to answer, each as often as a rollout has an answer to a task.

    >>> asked(["a tale", "a tale"], 2, 0)
    ['a tale', 'a tale']
    """
    tasks = list(dict.fromkeys(anchors))
    return random.Random(seed).sample(tasks, min(REACH_TASKS, len(tasks))) * samples


def lowest(scores: Iterable[tuple[str, float]], quantile: float) -> float | None:
    """The ``quantile`` of the mean scores of the anchors' tasks: the value below which at most that share of them is.

    Args:
        scores: task and J of each answer of the Solver, by the judge before.

    Returns:
        a mean of sigma(J), as a rollout's are; None where the anchors have too few tasks.

    >>> lowest([(f"task {i}", 0.1 * (i - 10)) for i in range(20)], 0.1)
    0.31002551887238755
    """
    by_task: dict[str, list[float]] = defaultdict(list)
    for task, score in scores:
        by_task[task].append(scored(score))
    means = sorted(map(fmean, by_task.values()))
    return means[math.floor(quantile * len(means))] if len(means) >= FEW else None


def within(rows: Sequence[PairRow], means: Mapping[str, float | None], limit: float | None) -> list[PairRow]:
    """``rows``, those dropped whose task has a mean score below ``limit``.

    Args:
        means: of the answers to each task; None where another judge scored them.
    """
    if limit is None:
        return list(rows)
    beyond = {task for task, mean in means.items() if mean is not None and mean < limit}
    return [
        row.model_copy(update={"dropped": REACH}) if row.dropped is None and row.question in beyond else row
        for row in rows
    ]
