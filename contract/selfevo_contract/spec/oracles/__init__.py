"""What knows, or finds out, the true answer to a question of a curriculum: the settings of each kind, one kind a file.

A kind is a file beside this one and a name in `Oracle`; ``exact`` says whether what it answers is the truth, for every
question that it answers at all, so that labels may be taken from it (`rollout.labels: truth`).
"""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import Field

from selfevo_contract.spec.oracles.arithmetic import ArithmeticOracle
from selfevo_contract.spec.oracles.data import DataOracle
from selfevo_contract.spec.oracles.endpoint import EndpointOracle
from selfevo_contract.spec.oracles.sorting import SortingOracle

__all__ = ["ORACLES", "ArithmeticOracle", "DataOracle", "EndpointOracle", "Oracle", "SortingOracle"]

Oracle = Annotated[ArithmeticOracle | DataOracle | EndpointOracle | SortingOracle, Field(discriminator="kind")]

ORACLES: dict[str, Any] = {
    get_args(settings.model_fields["kind"].annotation)[0]: settings for settings in get_args(get_args(Oracle)[0])
}
"""Every kind of oracle, with the class of its settings."""
EXACT = tuple(kind for kind, settings in ORACLES.items() if settings.exact)
"""The kinds that labels may be taken from."""
