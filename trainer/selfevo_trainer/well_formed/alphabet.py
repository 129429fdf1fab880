"""An answer is written in the characters that it may have (`AlphabetCheck`)."""

from __future__ import annotations

from selfevo_contract.spec.well_formed import AlphabetCheck
from selfevo_trainer.well_formed.parts import part_after, written


def fits(settings: AlphabetCheck, question: str, answer: str) -> bool:
    """Whether every character of ``answer``, spaces aside, is one of those that it may have.

    >>> [fits(AlphabetCheck(kind="alphabet", characters="01"), "", text) for text in ("0110", "01 10", "012")]
    [True, True, False]
    >>> [fits(AlphabetCheck(kind="alphabet", after="Sort: "), "Sort: c a b", text) for text in ("abc", "abS")]
    [True, False]
    """
    allowed = settings.characters if settings.characters is not None else part_after(question, settings.after)
    return allowed is not None and set("".join(written(answer).split())) <= set(allowed)
