"""Lines of letters, sorted."""

from __future__ import annotations

import re
from collections.abc import Sequence

from selfevo_contract.phases import SolverRolloutInputs
from selfevo_contract.rows import CurriculumRow, Question
from selfevo_contract.spec.oracles import SortingOracle
from selfevo_trainer.context import Context
from selfevo_trainer.oracles.judgement import Judgement, by_truth

_LETTERS = re.compile(r"[A-Za-z](?: [A-Za-z])*")


def true_answers(context: Context, oracle: SortingOracle, questions: Sequence[str]) -> list[str | None]:
    """The true answer to each, or None for one that is not well formed."""
    return [true_answer(question) for question in questions]


def true_answer(question: str) -> str | None:
    """The true answer, or None for a question that is not well formed.

    >>> true_answer("c A b"), true_answer("c A b ?"), true_answer("cab")
    ('A b c', None, None)
    """
    return " ".join(sorted(question.split(" "))) if _LETTERS.fullmatch(question) else None


def judge(
    context: Context, inputs: SolverRolloutInputs, valid: Sequence[Question], kept: Sequence[CurriculumRow]
) -> Judgement:
    """See `by_truth`."""
    return by_truth(valid, kept)
