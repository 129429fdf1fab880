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
