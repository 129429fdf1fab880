"""Sources of true answers, for measuring how often the majority is right. Training does not see them.

Model text is matched by a regular expression and never evaluated.
"""

from __future__ import annotations

import re

from selfevo_contract.spec.oracles import Oracle

_ARITHMETIC = re.compile(r"(0|[1-9][0-9]{0,11}) ([+-]) (0|[1-9][0-9]{0,11})")


def true_answer(oracle: Oracle | None, question: str) -> str | None:
    """The true answer, or None when it is not known: no source, or a question that is not well formed.

    >>> true_answer(ArithmeticOracle(kind="arithmetic"), "37 + 48")
    '85'
    """
    match = _ARITHMETIC.fullmatch(question) if oracle is not None else None
    if match is None:
        return None
    left, right = int(match[1]), int(match[3])
    return str(left + right if match[2] == "+" else left - right)
