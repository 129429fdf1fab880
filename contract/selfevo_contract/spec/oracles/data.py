"""Questions whose answers are known."""

from __future__ import annotations

from typing import ClassVar, Literal

from selfevo_contract.base import Closed
from selfevo_contract.rules import Rule
from selfevo_contract.spec.data import Data


class DataOracle(Closed):
    """Questions with their true answers; those of a curriculum are found among them by their text, without regard to
    case and spaces."""

    exact: ClassVar[bool] = True

    kind: Literal["data"]
    """Which oracle."""
    data: Data
    """JSON lines with the columns question and answer."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.data)",
            lambda oracle: True,  # it has no default
            "an oracle of kind data needs data; put the file's uri there",
        ),
    )
