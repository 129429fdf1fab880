"""Parts of a question and of an answer. Pure."""

from __future__ import annotations

import re

from selfevo_trainer.answers.kinds import plain
from selfevo_trainer.answers.words import WORD

_WORD = "(?!\ue000(?:and|or)\ue001)" + WORD.pattern
_UNITS = re.compile(rf"(?<=[0-9)}}%\]])\s*{_WORD}(?:\s*(?:/|\\cdot|-)?\s*{_WORD})*")


def part_after(question: str, mark: str | None) -> str | None:
    """What stands behind the last ``mark`` in ``question``; the whole without a mark, None when it is not there.

    >>> part_after("Sort these: c a b", "these: "), part_after("Sort", "these: "), part_after("Sort", None)
    ('c a b', None, 'Sort')
    """
    if mark is None:
        return question
    _, found, rest = question.rpartition(mark)
    return rest if found else None


def written(answer: str) -> str:
    r"""An answer without the commands that format it.

    >>> written(r"\text{abc}")
    'abc'
    """
    return plain(answer).strip().strip("$").strip()


def without_units(form: str) -> str:
    r"""A result of ``answer_form`` without the words that stand behind quantities; ``and`` and ``or`` stay.

    >>> from selfevo_trainer.answers.forms import answer_form
    >>> [without_units(answer_form(text)) for text in ("5 km/h", r"$5", "2x", r"3\text{ apples}")]
    ['5', '5', '2x', '3']
    """
    return _UNITS.sub("", form)
