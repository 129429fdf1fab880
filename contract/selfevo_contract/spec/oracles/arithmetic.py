"""Sums and differences, computed."""

from __future__ import annotations

from typing import ClassVar, Literal

from selfevo_contract.base import Closed


class ArithmeticOracle(Closed):
    """`a + b` and `a - b` in decimal digits, computed exactly."""

    exact: ClassVar[bool] = True

    kind: Literal["arithmetic"]
    """Which oracle."""
