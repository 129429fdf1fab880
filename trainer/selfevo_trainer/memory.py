"""The Challenger's memory of earlier iterations: the questions that it may not ask again and again
(`challenger.reward.memory`; docs/method.md, "Memory").

A Challenger carries its memory with it: what it was trained against lies beside its weights, and the next one adds the
questions of the rollout in between.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfevo_contract.phases import SOLVER_ROLLOUT, ChallengerTrainInputs, StepModelRef
from selfevo_contract.rows import QUESTIONS, WrittenQuestion
from selfevo_contract.rows_between import MEMORY
from selfevo_store import fetch_rows
from selfevo_trainer.context import Context


def remembered(context: Context, inputs: ChallengerTrainInputs) -> list[str]:
    """The newest ``reward.memory.pool`` questions of earlier iterations, oldest first; none without reward.memory, and
    none in the first iteration.

    Raises:
        InputError: an output that it reads is not there.
    """
    memory = inputs.reward.memory
    if memory is None or inputs.earlier is None:
        return []
    known: list[str] = []
    with context.clock.during("store"):
        if isinstance(inputs.challenger, StepModelRef):
            ref = inputs.challenger
            prefix, manifest = context.output_of(ref.phase, ref.key, "remembers its questions")
            if MEMORY.as_in(manifest) is not None:  # trained without a memory, as before a fork, it has none
                known = [row.question for row in fetch_rows(context.store, prefix, manifest, MEMORY)]
        prefix, manifest = context.output_of(SOLVER_ROLLOUT.name, inputs.earlier, "remembers its questions")
        rows = fetch_rows(context.store, prefix, manifest, QUESTIONS)
    return newest(known, [row.question for row in rows if row.question is not None], memory.pool)


def newest(known: Sequence[str], asked: Sequence[str], size: int) -> list[str]:
    """The newest ``size`` of all questions, oldest first. What was asked twice counts twice.

    >>> newest(["a", "b"], ["c", "b"], 3)
    ['b', 'c', 'b']
    """
    return [*known, *asked][-size:]


def rows_of(questions: Sequence[str]) -> list[WrittenQuestion]:
    """As they are committed."""
    return [WrittenQuestion(question=question) for question in questions]
