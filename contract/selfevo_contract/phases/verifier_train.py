"""The Verifier is trained on pairs of answers. It has its place in the plan and is not built yet."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Wire
from selfevo_contract.phases.base import ModelRef, PhaseType
from selfevo_contract.spec.verifier import Verifier


class VerifierTrainInputs(Wire):
    """Bradley-Terry training of the Verifier (not built yet)."""

    phase: Literal["verifier-train"] = "verifier-train"
    seed: int
    solver: ModelRef
    challenger: ModelRef
    verifier: ModelRef
    settings: Verifier


VERIFIER_TRAIN = PhaseType(
    inputs=VerifierTrainInputs,
    part="verifier",
    metrics="verifier",
    title="Verifier training",
    makes="Verifier {}",
    models=("solver", "challenger", "verifier"),
)
