"""How answers are compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole


class Grading(Closed):
    """How answers are compared."""

    method: Literal["math-verify", "exact"] = "math-verify"
    """`math-verify`: mathematically equal answers are equal. `exact`: equal by the rules that come before it
    (numbers, units, choices, words), without a process; formulas only in one form."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 5.0
    """Hard limit of one symbolic comparison, which runs in a process that can be killed."""
    memory_mebibytes: Annotated[Whole, Field(ge=256, le=1_048_576)] = 2048
    """Memory of one such process."""
    batch_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    """Limit of all symbolic comparisons of one batch together, by the clock: no process waits long for another's.
    What is not decided then counts as unequal."""
