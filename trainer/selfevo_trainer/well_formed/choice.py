"""An answer is one of the choices of its question (`ChoiceCheck`)."""

from __future__ import annotations

import re

from selfevo_contract.spec.well_formed import ChoiceCheck
from selfevo_trainer.answers.kinds import choice

_LISTED = re.compile(r"(?:^|(?<=\s))(?:\(([A-Z])\)|([A-Z])[).:])(?=\s|$)", re.MULTILINE)


def listed(question: str) -> list[str]:
    """The letters of the choices that ``question`` lists: A, B, C, ... in a row; none where there are fewer than two.

    >>> listed("Which is even? (A) 3 (B) 4 (C) 5"), listed("Plan B. Which?"), listed("Pick.\\nA. 1\\nB. 2")
    (['A', 'B', 'C'], [], ['A', 'B'])
    """
    found = {match[1] or match[2] for match in _LISTED.finditer(question)}
    letters = []
    for letter in map(chr, range(ord("A"), ord("Z") + 1)):
        if letter not in found:
            break
        letters.append(letter)
    return letters if len(letters) > 1 else []


def fits(settings: ChoiceCheck, question: str, answer: str) -> bool:
    """Whether ``answer`` names one of the choices, or the question lists none.

    >>> asked = "Which is even? (A) 3 (B) 4"
    >>> [fits(ChoiceCheck(kind="choice"), asked, text) for text in ("B", "(b)", "B. 4", "C", "4", "A, B")]
    [True, True, True, False, False, False]
    >>> fits(ChoiceCheck(kind="choice"), "What is 2 + 2?", "4")
    True
    """
    letters = listed(question)
    return not letters or choice(answer)[0] in letters
