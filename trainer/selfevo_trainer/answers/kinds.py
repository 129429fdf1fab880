"""Kinds of answers of a held-out task (spec.evaluation.tasks[].answers): how truths are read, and what is right.

Pure. ``math`` is what training uses; the others read the forms in which public data sets write their truths.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from selfevo_trainer.answers.commands import TEXTS, unwrapped
from selfevo_trainer.answers.extraction import normalise_answer
from selfevo_trainer.answers.forms import answer_form, remarks
from selfevo_trainer.answers.values import compare, read_number
from selfevo_trainer.answers.voting import Comparer

_CHOICE = re.compile(r"\(?\s*([A-Za-z])\s*(?:\)|[.:,)]|$)\s*(.*)", re.DOTALL)
_SEVERAL = re.compile(r"\(?[A-Za-z]\)?(?:(?:\s*[,;/&]\s*|\s+(?:and|or)\s+)\(?[A-Za-z]\)?)+\.?")
_AFTER_MARK = re.compile(r"####\s*([^#]*)$")


def plain(text: str) -> str:
    """A text without the commands and marks that format it; of a long one the first 10,000 characters."""
    return TEXTS.sub(r"\1 ", unwrapped(text[:10_000])).replace("**", "")


def choice(text: str) -> tuple[str | None, str]:
    r"""The letter of a multiple choice, in upper case, and the text beside it; no letter where there are several.

    >>> choice("B. 42"), choice("B) 42"), choice("(b)"), choice(r"\textbf{(C)}"), choice("42"), choice("B, C")
    (('B', '42'), ('B', '42'), ('B', ''), ('C', ''), (None, '42'), (None, 'B, C'))
    """
    text = normalise_answer(remarks(plain(text)).strip())
    text = re.sub(r"^(?:option|choice)\s+", "", text, flags=re.IGNORECASE).strip().strip("{}$*_")
    match = _CHOICE.fullmatch(text)
    return (match[1].upper(), match[2].strip()) if match and not _SEVERAL.fullmatch(text) else (None, text)


def number(text: str) -> str | None:
    """The number of a truth, after GSM8K's mark where there is one; None when there is none.

    >>> number("He has 20 - 2 = 18 left.\\n#### 1,018"), number("18"), number("eighteen")
    ('1,018', '18', None)
    """
    text = _after_mark(text).strip()
    return text if read_number(answer_form(text.lstrip("\\$€£ "))) is not None else None


def _after_mark(text: str) -> str:
    marked = _AFTER_MARK.search(text)
    return marked[1] if marked else text


def plain_text(text: str) -> str:
    """Text without regard to case, width, layout and a final full stop.

    >>> plain_text(r"\\text{New  York.}") == plain_text("new york")
    True
    """
    text = unicodedata.normalize("NFKC", plain(text)).casefold()
    return " ".join(text.split()).rstrip(". ").strip("$\"'\u201c\u201d ")


def truth_of(kind: str, text: str) -> str | None:
    """What a task's answer is compared with; None when the text is no answer of this kind."""
    if kind == "number":
        return number(text)
    if kind == "choice":
        return text if choice(text)[0] else None
    return text


class KindComparer:
    """Compares answers as a task's kind of answers wants it, in either order; ``math`` is the run's own comparison."""

    def __init__(self, kind: str, comparer: Comparer) -> None:
        self._comparer = comparer
        self.stats = getattr(comparer, "stats", None)
        self._equal: Callable[[str, str], bool] | None = {"choice": _choices, "number": _numbers, "text": _texts}.get(
            kind
        )

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """One verdict for each pair, in order."""
        if self._equal is None:
            return self._comparer.equal_many(pairs)
        return [self._equal(*pair) for pair in pairs]


def _choices(answer: str, truth: str) -> bool:
    letter, text = choice(answer)
    right, right_text = choice(truth)
    if letter is not None and right is not None:
        return letter == right
    return bool(text and right_text) and compare(text, right_text).equal is True


def _numbers(answer: str, truth: str) -> bool:
    return compare(_after_mark(answer), _after_mark(truth)).equal is True


def _texts(answer: str, truth: str) -> bool:
    return bool(plain_text(answer)) and plain_text(answer) == plain_text(truth)
