"""The registry of phases, and what identifies a step: its key is the digest of its phase's inputs and of nothing else.

Resources, queue, image, engine, shards, chunks, checkpoint interval and names are not here: changing them must not
train anything again (docs/design.md, decision 1).

A phase is one file beside this one and one line in `PHASES`; its inputs are one line of `Inputs`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter

from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_contract.canonical import digest
from selfevo_contract.phases.base import BaseModelRef, Loading, ModelRef, PhaseType, StepModelRef
from selfevo_contract.phases.challenger_train import CHALLENGER_TRAIN, ChallengerTrainInputs
from selfevo_contract.phases.evaluate import EVALUATE, EvaluateInputs, HeldOutInputs
from selfevo_contract.phases.finetune import FINETUNE, FinetuneInputs
from selfevo_contract.phases.finetune_evaluate import FINETUNE_EVALUATE, FinetuneEvaluateInputs
from selfevo_contract.phases.publish import PUBLISH, HeldOutTask, JudgedBy, Made, PublishInputs, WatchedBy
from selfevo_contract.phases.solver_rollout import SOLVER_ROLLOUT, SolverRolloutInputs
from selfevo_contract.phases.solver_train import SOLVER_TRAIN, SolverTrainInputs
from selfevo_contract.phases.verifier_train import VERIFIER_TRAIN, VerifierTrainInputs

__all__ = [
    "CHALLENGER_TRAIN",
    "EVALUATE",
    "FINETUNE",
    "FINETUNE_EVALUATE",
    "PHASES",
    "PUBLISH",
    "SOLVER_ROLLOUT",
    "SOLVER_TRAIN",
    "VERIFIER_TRAIN",
    "BaseModelRef",
    "BuiltInputs",
    "ChallengerTrainInputs",
    "EvaluateInputs",
    "FinetuneEvaluateInputs",
    "FinetuneInputs",
    "GrpoInputs",
    "HeldOutInputs",
    "HeldOutTask",
    "Inputs",
    "JudgedBy",
    "Loading",
    "Made",
    "ModelRef",
    "Phase",
    "PhaseType",
    "PublishInputs",
    "SolverRolloutInputs",
    "SolverTrainInputs",
    "StepModelRef",
    "VerifierTrainInputs",
    "WatchedBy",
    "input_key",
    "inputs_adapter",
]

PHASES = MappingProxyType(
    {
        phase.name: phase
        for phase in (
            CHALLENGER_TRAIN,
            SOLVER_ROLLOUT,
            VERIFIER_TRAIN,
            SOLVER_TRAIN,
            EVALUATE,
            FINETUNE,
            FINETUNE_EVALUATE,
            PUBLISH,
        )
    }
)
"""Every phase by its name, in the order of an iteration."""


def _known(name: str) -> str:
    if name not in PHASES:
        raise ValueError(f"is {name!r}; it must be one of {', '.join(PHASES)}")
    return name


Phase = Annotated[str, AfterValidator(_known)]
"""The name of a phase."""

BuiltInputs = (
    ChallengerTrainInputs
    | SolverRolloutInputs
    | SolverTrainInputs
    | VerifierTrainInputs
    | EvaluateInputs
    | FinetuneInputs
    | FinetuneEvaluateInputs
    | PublishInputs
)
"""Those of the phases that this version does."""
Inputs = Annotated[BuiltInputs, Field(discriminator="phase")]
GrpoInputs = ChallengerTrainInputs | SolverTrainInputs | FinetuneInputs
"""Those of the phases that train, by the settings `grpo`."""
inputs_adapter: TypeAdapter[Inputs] = TypeAdapter(Inputs)


_HOW = frozenset(
    {
        *("pods", "shards", "sharding", "cpuOffload", "vllmMode", "vllmTensorParallelSize", "engine"),
        *("guards", "endpoint", "maxUnscored", "server", "checkpointEvery"),
    }
)
"""Fields, wherever they are, that say how something is computed and not what."""


def _identity(value: object) -> object:
    # Where a digest names the bytes, the address does not matter: the same weights elsewhere are the same input.
    if isinstance(value, dict):
        if "uri" in value and value.get("digest") is not None:
            value = {name: item for name, item in value.items() if name != "uri"}
        return {name: _identity(item) for name, item in value.items() if name not in _HOW}
    if isinstance(value, list):
        return [_identity(item) for item in value]
    return value


def input_key(inputs: Inputs) -> str:
    """The step's key: sha256 of the canonical JSON of its inputs and of the artifact schema's version."""
    return digest({"schemaVersion": SCHEMA_VERSION, "inputs": _identity(inputs.wire())})
