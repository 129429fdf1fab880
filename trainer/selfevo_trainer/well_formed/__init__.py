"""Which answers may vote, as their questions alone tell (`rollout.wellFormed`; docs/method.md, "Voting").

No truth is asked: a check sees a question and an answer to it. A kind is a file here with
``fits(settings, question, answer) -> bool`` and a line of `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from selfevo_contract.spec.well_formed import Check
from selfevo_trainer.answers.grades import verdicts_of
from selfevo_trainer.answers.voting import Comparer, Vote, vote_many
from selfevo_trainer.well_formed import alphabet, choice, expression, length, number

KINDS: dict[str, Callable[[Any, str, str], bool]] = {
    "alphabet": alphabet.fits,
    "choice": choice.fits,
    "expression": expression.fits,
    "length": length.fits,
    "number": number.fits,
}


def vote_well_formed(
    checks: Sequence[Check] | None,
    questions_Q: Sequence[str],
    answers_QM: Sequence[Sequence[str | None]],
    comparer: Comparer,
) -> tuple[list[Vote], list[int], dict[str, int]]:
    """The votes on each question by the answers that pass ``checks``; an answer that does not counts as one without a
    box does: in the total, and never for a class.

    Returns:
        (votes, how many answers to each question were refused, the comparer's verdicts as `verdicts_of` counts them).
    """
    voting_QM = [voting(checks, question, row) for question, row in zip(questions_Q, answers_QM, strict=True)]
    votes, verdicts = verdicts_of(comparer, lambda: vote_many(voting_QM, comparer))
    refused = [row.count(None) - list(before).count(None) for row, before in zip(voting_QM, answers_QM, strict=True)]
    return votes, refused, verdicts


def voting(checks: Sequence[Check] | None, question: str, answers: Sequence[str | None]) -> list[str | None]:
    """``answers`` to ``question`` with None in the place of each that one of ``checks`` refuses.

    Args:
        checks: of ``rollout.wellFormed``; without one every answer stays.
        answers: what stands in the boxes; None without one.
    """
    refused = {
        answer
        for answer in {answer for answer in answers if answer is not None}
        if any(not KINDS[check.kind](check, question, answer) for check in checks or ())
    }
    return [None if answer in refused else answer for answer in answers]
