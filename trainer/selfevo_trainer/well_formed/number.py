"""An answer is a number (`NumberCheck`)."""

from __future__ import annotations

from selfevo_contract.spec.well_formed import NumberCheck
from selfevo_trainer.answers.forms import answer_form
from selfevo_trainer.answers.values import read_number
from selfevo_trainer.well_formed.parts import without_units


def fits(settings: NumberCheck, question: str, answer: str) -> bool:
    r"""Whether ``answer`` is one number, in any of the ways in which one is written, with a unit or without.

    >>> [fits(NumberCheck(kind="number"), "", text) for text in ("1,018", r"\frac{1}{2}", "5 km", "x", "3 or 4", "ten")]
    [True, True, True, False, False, False]
    """
    return read_number(without_units(answer_form(answer))) is not None
