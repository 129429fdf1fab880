"""An answer is as long as a part of its question (`LengthCheck`)."""

from __future__ import annotations

from selfevo_contract.spec.well_formed import LengthCheck
from selfevo_trainer.well_formed.parts import part_after, written


def fits(settings: LengthCheck, question: str, answer: str) -> bool:
    """Whether ``answer`` is as long as the part of ``question`` that it is held against.

    >>> check = LengthCheck(kind="length", after="Sort: ")
    >>> [fits(check, "Sort: c a b", text) for text in ("abc", "a b c", "ab", "abcc")]
    [True, True, False, False]
    >>> fits(LengthCheck(kind="length", after="Sort: ", unit="words"), "Sort: pear apple", "apple pear")
    True
    """
    part = part_after(question, settings.after)
    if part is None:
        return False
    one, other = part.split(), written(answer).split()
    return len(one) == len(other) if settings.unit == "words" else len("".join(one)) == len("".join(other))
