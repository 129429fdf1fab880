"""What is learned of labelled data's answers, and what completions are compared with. Pure."""

from __future__ import annotations

import re

from selfevo_trainer.answers.extraction import last_boxed
from selfevo_trainer.answers.kinds import truth_of

_MARKED = re.compile(r"\s*####\s*([^#]*)$")


def target(answer: str, kind: str) -> str:
    r"""The completion that is learned for ``answer``: as it stands where it has a box, else with its answer in one.

    >>> target("85", "math"), target(r"So \boxed{85}.", "math"), target("He has 18 left.\n#### 18", "number")
    ('\\boxed{85}', 'So \\boxed{85}.', 'He has 18 left.\n\\boxed{18}')
    """
    if last_boxed(answer) is not None:
        return answer
    marked = _MARKED.search(answer) if kind == "number" else None
    if marked is not None and marked.start():
        return f"{answer[: marked.start()]}\n\\boxed{{{marked[1].strip()}}}"
    return f"\\boxed{{{truth_of(kind, answer) or answer}}}"


def truth(answer: str, kind: str) -> str | None:
    r"""What completions are compared with; None when that is no answer of this kind.

    >>> truth(r"7815 3408\boxed{85}", "math"), truth("so 18.\n#### 18", "number"), truth("many", "number")
    ('85', '18', None)
    """
    boxed = last_boxed(answer)
    return truth_of(kind, answer if boxed is None else boxed)
