"""An answer is written in the characters that it may have."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed
from selfevo_contract.rules import Rule
from selfevo_contract.spec.well_formed.base import After


class AlphabetCheck(Closed):
    """Every character of the answer, spaces aside, is one of those that it may have."""

    kind: Literal["alphabet"]
    """Which check."""
    characters: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """The characters that an answer may have; those of the question when not given."""
    after: After | None = None
    """Where the characters are the question's: the mark behind whose last occurrence they stand. A question without the
    mark has no well-formed answer."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.characters) || !has(self.after)",
            lambda check: check.characters is None or check.after is None,
            "characters says what an answer may have, and after would take it from the question; remove one of them",
        ),
    )
