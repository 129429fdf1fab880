"""Lines that are to be sorted, sorted."""

from __future__ import annotations

from typing import ClassVar, Literal

from selfevo_contract.base import Closed


class SortingOracle(Closed):
    """Single letters with blanks between them, in the order of their code points: capitals first."""

    exact: ClassVar[bool] = True

    kind: Literal["sorting"]
    """Which oracle."""
