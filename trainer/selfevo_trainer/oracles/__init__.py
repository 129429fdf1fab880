"""Whether a curriculum's labels are right, by what the manifest names as its oracle (`rollout.oracle`).

A kind is a file here with ``judge(context, inputs, valid, kept) -> Judgement`` and a line of `MODULES`; one that knows
the truth also has ``true_answers(context, oracle, questions)``. Training sees none of it unless labels are the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from selfevo_contract.phases import SolverRolloutInputs
from selfevo_contract.rows import CurriculumRow, InvalidCompletion, Question
from selfevo_trainer.context import Context
from selfevo_trainer.oracles.judgement import Judgement

MODULES = {
    "arithmetic": "selfevo_trainer.oracles.arithmetic",
    "data": "selfevo_trainer.oracles.data",
    "endpoint": "selfevo_trainer.oracles.endpoint",
    "sorting": "selfevo_trainer.oracles.sorting",
}

Rows = Sequence[Question | InvalidCompletion]


def with_truths(context: Context, inputs: SolverRolloutInputs, rows: Rows) -> list[Question | InvalidCompletion]:
    """``rows``, the valid questions with their true answers where the oracle knows them."""
    oracle = inputs.oracle
    if oracle is None or not oracle.exact:
        return list(rows)
    valid = [row.question for row in rows if isinstance(row, Question)]
    truths = iter(import_module(MODULES[oracle.kind]).true_answers(context, oracle, valid))
    return [row.model_copy(update={"truth": next(truths)}) if isinstance(row, Question) else row for row in rows]


def judge(context: Context, inputs: SolverRolloutInputs, rows: Rows, kept: Sequence[CurriculumRow]) -> Judgement:
    """What the oracle says of the curriculum ``kept``, out of ``rows``; nothing without an oracle.

    Raises:
        InputError: the data is not as it must be, or the endpoint refuses what it is asked or who asks.
        ServiceError: the endpoint does not answer, or not in a useful way.
    """
    if inputs.oracle is None:
        return Judgement({})
    valid = [row for row in rows if isinstance(row, Question)]
    judgement: Judgement = import_module(MODULES[inputs.oracle.kind]).judge(context, inputs, valid, kept)
    return judgement
