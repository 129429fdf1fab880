"""When a run waits for a person."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.rules import Keyed, Rule


class Review(Closed):
    """When a run waits for a person: iterations that do not begin before spec.approvedIteration has reached them."""

    before: Annotated[list[Annotated[Whole, Field(ge=1, le=1000)]], Field(max_length=64), Keyed()] = []
    """Iterations that wait, e.g. [2]; before 1, a person can review the base model's scores."""
    every: bool = False
    """Every iteration waits but the first."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.every || size(self.before) > 0",
            lambda review: review.every or bool(review.before),
            "review names no iteration; write before: [2] or every: true, or remove review",
        ),
    )

    def waits(self, iteration: int) -> bool:
        """Whether ``iteration`` wants an approval."""
        return iteration in self.before or (self.every and iteration > 1)
