"""What a judge of answers is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Judge(Protocol):
    """Scores answers to tasks, with frozen weights."""

    digest: str
    """What its scores belong to."""

    def score(self, tasks: Sequence[str], answers: Sequence[str]) -> list[float]:
        """J(task, answer), in natural units (sigma is not applied), one for each of the pairs, in order. It depends on
        the pair and the weights alone."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


class Scorer(Protocol):
    """A judge of either kind, as what pays."""

    @property
    def digest(self) -> str:
        """What its scores belong to."""
        ...

    def rewards(self, tasks: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        """The reward of each answer, in 0..1, in order; None where the judge has given no valid score."""
        ...

    def goes_on(self, tokens: float) -> None:
        """Earlier attempts of this step have spent so many tokens of its budget."""
        ...

    def spent(self) -> dict[str, float]:
        """What asking it has come to since this was asked last, by the names of metrics: the same names each time."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...
