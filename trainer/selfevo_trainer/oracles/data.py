"""Questions whose answers a file knows."""

from __future__ import annotations

from collections.abc import Sequence

from selfevo_contract.phases import SolverRolloutInputs
from selfevo_contract.rows import CurriculumRow, Question
from selfevo_contract.spec.oracles import DataOracle
from selfevo_trainer.answers.extraction import normalise_question
from selfevo_trainer.context import Context
from selfevo_trainer.inputs.data import ORACLE_FIELD, read_held_out
from selfevo_trainer.oracles.judgement import Judgement, accuracy


def true_answers(context: Context, oracle: DataOracle, questions: Sequence[str]) -> list[str | None]:
    """The file's answer to each question, None where it has none; of several it is the first.

    Raises:
        InputError: the file is not there, or not as it must be.
    """
    known: dict[str, str] = {}
    for row in read_held_out(context, oracle.data, ORACLE_FIELD):
        known.setdefault(normalise_question(row.question), row.answer)
    return [known.get(normalise_question(question)) for question in questions]


def judge(
    context: Context, inputs: SolverRolloutInputs, valid: Sequence[Question], kept: Sequence[CurriculumRow]
) -> Judgement:
    """Shares of the questions that the file knows; those that it does not know count neither way."""
    labels = [(row.answer, row.truth) for row in kept if row.truth is not None]
    majorities = [(row.majority or "", row.truth) for row in valid if row.truth is not None]
    with context.clock.during("grading"), context.grader(inputs.grading) as grader:
        verdicts = grader.equal_many([*labels, *majorities])
    metrics = {"known_share": len(majorities) / len(valid), **accuracy(verdicts[: len(labels)], len(kept))}
    if majorities:
        metrics["majority_accuracy"] = sum(verdicts[len(labels) :]) / len(majorities)
    return Judgement(metrics)
