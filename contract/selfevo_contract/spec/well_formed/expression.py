"""An answer is a mathematical expression."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Closed


class ExpressionCheck(Closed):
    """The answer reads as a mathematical expression: brackets that close, operators with their operands, names of one
    or two letters or of functions, words as units behind a quantity only."""

    kind: Literal["expression"]
    """Which check."""
