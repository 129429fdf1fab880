"""An answer is as long as a part of its question."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Closed
from selfevo_contract.spec.well_formed.base import After


class LengthCheck(Closed):
    """The answer is as long as the question, or as the part of it behind a mark."""

    kind: Literal["length"]
    """Which check."""
    after: After | None = None
    """The mark behind whose last occurrence in the question the part lies that is as long; the whole question when not
    given. A question without the mark has no well-formed answer."""
    unit: Literal["characters", "words"] | None = None
    """What is counted: characters other than spaces, which is so when not given, or words."""
