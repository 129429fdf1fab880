"""Sums and differences, computed.

Model text is matched by a regular expression and never evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from selfevo_contract.phases import SolverRolloutInputs
from selfevo_contract.rows import CurriculumRow, Question
from selfevo_contract.spec.oracles import ArithmeticOracle
from selfevo_trainer.context import Context
from selfevo_trainer.oracles.judgement import Judgement, by_truth

_ARITHMETIC = re.compile(r"(0|[1-9][0-9]{0,11}) ([+-]) (0|[1-9][0-9]{0,11})")


def true_answers(context: Context, oracle: ArithmeticOracle, questions: Sequence[str]) -> list[str | None]:
    """The true answer to each, or None for one that is not well formed."""
    return [true_answer(question) for question in questions]


def true_answer(question: str) -> str | None:
    """The true answer, or None for a question that is not well formed.

    >>> true_answer("37 + 48")
    '85'
    """
    match = _ARITHMETIC.fullmatch(question)
    if match is None:
        return None
    left, right = int(match[1]), int(match[3])
    return str(left + right if match[2] == "+" else left - right)


def judge(
    context: Context, inputs: SolverRolloutInputs, valid: Sequence[Question], kept: Sequence[CurriculumRow]
) -> Judgement:
    """See `by_truth`."""
    return by_truth(valid, kept)
