"""An answer is a mathematical expression (`ExpressionCheck`).

By its form and not by a parser: math-verify's reads "hello world" as a product of letters, and "x +" as x.
"""

from __future__ import annotations

import re

from selfevo_contract.spec.well_formed import ExpressionCheck
from selfevo_trainer.answers.forms import MAX_CHARS, answer_form
from selfevo_trainer.answers.words import WORD
from selfevo_trainer.well_formed.parts import without_units

_NAMES = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_JOINING = r"(?:[*/^_=<>,:&]|\\(?:cdot|times|div|le|ge|ne|in|cup|cap)(?![A-Za-z]))"
_SIGN = r"(?:[-+]|\\(?:pm|mp)(?![A-Za-z]))"
_NO_OPERAND = re.compile(
    rf"^\s*{_JOINING}|(?:{_JOINING}|{_SIGN})\s*$|(?:{_JOINING}|{_SIGN}|[(\[])\s*{_JOINING}|(?:{_JOINING}|{_SIGN})\s*[)\]}}]"
)
_CLOSED_BY = {"(": ")]", "[": ")]", "{": "}"}


def fits(settings: ExpressionCheck, question: str, answer: str) -> bool:
    r"""Whether ``answer`` has the form of a mathematical expression.

    >>> check = ExpressionCheck(kind="expression")
    >>> [fits(check, "", text) for text in ("x+1", r"\frac{1}{2}", "5 km", "sin(x)+2pi", "[0,1)", "x = 3", "6abc")]
    [True, True, True, True, True, True, True]
    >>> [fits(check, "", text) for text in ("", "x+", "(x", "x^2+*3", "hello world", "yes", "I think it is 4")]
    [False, False, False, False, False, False, False]
    """
    form = answer_form(answer)
    if not form or len(form) > MAX_CHARS:
        return False
    form = re.sub("\ue000(?:and|or)\ue001", ",", without_units(form))
    if WORD.search(form) or not form.strip():
        return False
    names = (match[0].lower() for match in _NAMES.finditer(re.sub(r"\\(?:begin|end)\{[a-z]+\*?\}", "", form)))
    # Letters in the order of the alphabet are a product of variables: abc, xyz.
    if any(list(name) != sorted(set(name)) for name in names):
        return False
    return _closed(form) and _NO_OPERAND.search(form) is None


def _closed(form: str) -> bool:
    """Whether every bracket closes; an interval may be open at one side."""
    left: list[str] = []
    for character in re.sub(r"\\[{}]", "", form):
        if character in _CLOSED_BY:
            left.append(_CLOSED_BY[character])
        elif character in ")]}" and (not left or character not in left.pop()):
            return False
    return not left
