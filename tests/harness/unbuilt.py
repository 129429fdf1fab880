"""A run that asks for what this version does not have, whichever fields are built: an engine its phase has none of.

It goes the way of a field in `NOT_BUILT`: the same function refuses it, with the same reason. `unbuilt_field` makes a
field such, in this process, whether one is left or not.
"""

from __future__ import annotations

from typing import Any

import pytest

from selfevo_contract import run
from selfevo_contract.phases import SOLVER_TRAIN
from selfevo_contract.spec.engines import ENGINES

KIND = next(kind for kind in ENGINES if kind not in SOLVER_TRAIN.engines)
ENGINE = {"kind": KIND}
FIELD = "spec.solver.engine"
ASKED: dict[str, Any] = {"spec__solver__engine": ENGINE}
"""For `harness.runs.document` and its like."""
TAKEN_BACK: dict[str, Any] = {"spec__solver__engine": None}
SENTENCE = (
    f"{FIELD}.kind asks for {KIND!r}, which this version of selfevo does not have yet; "
    f"use {' or '.join(map(repr, SOLVER_TRAIN.engines))}"
)


def unbuilt_field(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a field that is not built for as long as the test runs; `harness.runs.document` sets it."""
    monkeypatch.setattr(run, "NOT_BUILT", {"evaluation": "evaluations"})
    return "spec.evaluation"
