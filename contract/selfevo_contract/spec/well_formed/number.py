"""An answer is a number."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Closed


class NumberCheck(Closed):
    """The answer is one number, with a unit or without, for tasks whose every question asks for one."""

    kind: Literal["number"]
    """Which check."""
