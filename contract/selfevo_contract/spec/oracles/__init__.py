"""What knows, or finds out, the true answer to a question of a curriculum: the settings of each kind, one kind a file.

A kind is a file beside this one and a name in `Oracle`; ``exact`` says whether what it answers is the truth, for every
question that it answers at all, so that labels may be taken from it (`rollout.labels: truth`).
"""

from __future__ import annotations

from typing import Any, get_args

from selfevo_contract.spec.oracles.arithmetic import ArithmeticOracle

__all__ = ["ORACLES", "ArithmeticOracle", "Oracle"]

Oracle = ArithmeticOracle

ORACLES: dict[str, Any] = {get_args(ArithmeticOracle.model_fields["kind"].annotation)[0]: ArithmeticOracle}
"""Every kind of oracle, with the class of its settings."""
