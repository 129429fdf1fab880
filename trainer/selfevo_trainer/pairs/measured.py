"""What a maker is worth: what it says where the judge is wrong. Pure.

Anchors tell it that name the maker which made them (column `maker`) and whether it puts them in the order that is known
(column `agrees`). Of those that the judge orders wrongly, the share that the maker orders right: above a half it
corrects the judge, below it entrenches the judge's errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfevo_trainer.inputs.anchors import Anchor

LEAST_ERRORS = 8
"""Errors of the judge from which on a maker is dropped for what it says there."""
LEAST_RIGHT = 0.5


@dataclass(frozen=True)
class Measured:
    """One maker, on the judge's errors among its anchors."""

    errors: int
    right: int

    @property
    def share(self) -> float | None:
        """Right among the judge's errors; None where it has none."""
        return self.right / self.errors if self.errors else None

    @property
    def used(self) -> bool:
        """Whether it goes on making pairs."""
        return self.errors < LEAST_ERRORS or self.right >= LEAST_RIGHT * self.errors


def measured(maker: str, anchors: Sequence[Anchor], margins: Sequence[float]) -> Measured:
    """``maker`` on those of ``anchors`` that it made. A tie is an error of the judge.

    Args:
        margins: the judge's score of chosen less that of rejected, one for each anchor.
    """
    wrong = [anchor for anchor, margin in zip(anchors, margins, strict=True) if anchor.maker == maker and margin <= 0]
    return Measured(len(wrong), sum(anchor.agrees for anchor in wrong))
