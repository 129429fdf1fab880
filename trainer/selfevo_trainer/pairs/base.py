"""What a maker of pairs is given, and what it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from selfevo_contract.spec.prompts import Prompt


class Writer(Protocol):
    """A frozen role that answers."""

    def __call__(self, questions: Sequence[str], use: str) -> list[str]:
        """An answer to each question, by the Solver's prompt.

        Args:
            use: what they are for: other uses have other random streams.
        """
        ...


@dataclass(frozen=True)
class Sources:
    """What there is to make pairs of."""

    tasks: Sequence[str]
    answers: Sequence[str]
    """The Solver's own to each task."""
    prompt: Prompt
    """The Solver's."""
    seed: int
    solver: Writer
    challenger: Writer | None = None
    """None where no maker asks for it."""
    earlier: Writer | None = None
    """The Solver of the iteration before; None where there is none, or no maker asks for it."""


@dataclass(frozen=True)
class Part:
    """A part of a task with its own answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Made:
    """A pair, its order known by how it was made."""

    task: int
    """Its number among the sources' tasks."""
    chosen: str
    """The better answer."""
    rejected: str
    parts: tuple[Part, ...] = ()
    """Of what chosen is composed, if of anything."""


class Maker(Protocol):
    """One way to make pairs: a function of one file beside this one."""

    def __call__(self, sources: Sources) -> list[Made]:
        """Pairs of the sources' tasks, at most one of each."""
        ...
