"""What a registered data set is: where it lies on the hub, and how a row of it becomes a question with an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal

Row = Mapping[str, Any]
"""One row as ``datasets`` gives it: column -> value."""


@dataclass(frozen=True)
class DataSet:
    """An entry of the registry."""

    name: str
    """As ``selfevo data prepare`` takes it, and the task's name."""
    repository: str
    """owner/name on the hub."""
    split: str
    """The split that scores are published on."""
    questions: int
    """How many it has, as published."""
    answers: Literal["math", "choice", "number", "text"]
    """The kind of its answers (spec.evaluation.tasks[].answers)."""
    group: str
    """The group of tasks whose average it enters."""
    columns: tuple[str, ...]
    """The columns that ``read`` needs. A data set without one of them has changed."""
    read: Callable[..., tuple[str, str] | None]
    """(question, answer) from the cells of ``columns``; None when there is none."""
    config: str | None = None
    """Which configuration; the only one when None."""

    def pair(self, row: Row) -> tuple[str, str] | None:
        """(question, answer) of a row; None when there is none."""
        return self.read(*(row[column] for column in self.columns))


def text_of(value: object) -> str:
    """A cell's text, "" for none.

    >>> text_of(" 4 "), text_of(4), text_of(None)
    ('4', '4', '')
    """
    return "" if value is None else str(value).strip()


def plain(question: object, answer: object) -> tuple[str, str] | None:
    """Two cells as they stand."""
    pair = text_of(question), text_of(answer)
    return pair if all(pair) else None


def with_options(question: object, options: Sequence[object] | None, letter: object) -> tuple[str, str] | None:
    """A multiple choice as one text, an option a line; the answer is its letter.

    None without a question, with fewer than two options, and where the letter is none of theirs.

    >>> with_options("Which is even?", ["3", "4"], "B")
    ('Which is even?\\nA. 3\\nB. 4', 'B')
    """
    asked, right = text_of(question), text_of(letter)
    texts = [text_of(option) for option in options or []]
    letters = list(ascii_uppercase[: len(texts)])
    if not asked or not 2 <= len(texts) <= len(ascii_uppercase) or right not in letters:
        return None
    lines = [f"{mark}. {text}" for mark, text in zip(letters, texts, strict=True)]
    return "\n".join([asked, *lines]), right
