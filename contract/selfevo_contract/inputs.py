"""What determines a step's output, phase by phase. A step's key is the digest of this and of nothing else.

Resources, queue, image, engine, shard parallelism, checkpoint interval and names are not here: changing them must not
train anything again (docs/design.md, decision 1).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_contract.base import Sha256, Wire
from selfevo_contract.canonical import digest
from selfevo_contract.grpo import ChallengerGrpo, Grpo, Sampling
from selfevo_contract.parts import Finetune, Verifier
from selfevo_contract.spec import (
    ArithmeticTruth,
    Band,
    ChallengerReward,
    Data,
    Grading,
    Prompt,
    SolverReward,
    Task,
)

Phase = Literal["challenger-train", "solver-rollout", "solver-train", "verifier-train", "evaluate", "finetune"]


class BaseModelRef(Wire):
    """The base model."""

    kind: Literal["base"] = "base"
    uri: str
    digest: Sha256 | None = None


class StepModelRef(Wire):
    """The model that a step of this plan wrote."""

    kind: Literal["step"] = "step"
    phase: Phase
    key: Sha256


ModelRef = Annotated[BaseModelRef | StepModelRef, Field(discriminator="kind")]


class Loading(Wire):
    """How weights are loaded."""

    dtype: Literal["float32", "bfloat16", "float16"]
    trust_remote_code: bool
    stop_tokens: list[str] | None = None


class ChallengerTrainInputs(Wire):
    """GRPO on the Challenger; the frozen Solver answers."""

    phase: Literal["challenger-train"] = "challenger-train"
    seed: int
    challenger: ModelRef
    solver: ModelRef
    loading: Loading
    prompt: Prompt
    grpo: ChallengerGrpo
    reward: ChallengerReward
    solver_prompt: Prompt
    max_prompt_length: int = 2048
    solver_sampling: Sampling
    grading: Grading
    exclude: list[Data]


class SolverRolloutInputs(Wire):
    """The Challenger writes questions, the Solver answers each, the vote labels, the band filters."""

    phase: Literal["solver-rollout"] = "solver-rollout"
    seed: int
    challenger: ModelRef
    solver: ModelRef
    loading: Loading
    questions: int
    samples: int
    shards: int
    band: Band
    min_curriculum: int
    labels: Literal["majority", "random", "truth"]
    truth: ArithmeticTruth | None = None
    challenger_prompt: Prompt
    solver_prompt: Prompt
    max_prompt_length: int = 2048
    question_sampling: Sampling
    answer_sampling: Sampling
    grading: Grading
    exclude: list[Data]


class SolverTrainInputs(Wire):
    """GRPO on the Solver over a curriculum."""

    phase: Literal["solver-train"] = "solver-train"
    seed: int
    solver: ModelRef
    curriculum: Sha256
    """Key of the solver-rollout step."""
    loading: Loading
    prompt: Prompt
    grpo: Grpo
    reward: SolverReward
    grading: Grading


class VerifierTrainInputs(Wire):
    """Bradley-Terry training of the Verifier (not built yet)."""

    phase: Literal["verifier-train"] = "verifier-train"
    seed: int
    solver: ModelRef
    challenger: ModelRef
    verifier: ModelRef
    settings: Verifier


class EvaluateInputs(Wire):
    """Held-out accuracy of one model."""

    phase: Literal["evaluate"] = "evaluate"
    seed: int
    model: ModelRef
    loading: Loading
    tasks: list[Task]
    samples: int
    prompt: Prompt
    sampling: Sampling
    grading: Grading


class FinetuneInputs(Wire):
    """Supervised training on labelled data (not built yet)."""

    phase: Literal["finetune"] = "finetune"
    seed: int
    model: ModelRef
    settings: Finetune


Inputs = Annotated[
    ChallengerTrainInputs
    | SolverRolloutInputs
    | SolverTrainInputs
    | VerifierTrainInputs
    | EvaluateInputs
    | FinetuneInputs,
    Field(discriminator="phase"),
]
inputs_adapter: TypeAdapter[Inputs] = TypeAdapter(Inputs)


def _identity(value: object) -> object:
    # Where a digest names the bytes, the address does not matter: the same weights elsewhere are the same input.
    if isinstance(value, dict):
        if "uri" in value and value.get("digest") is not None:
            value = {name: item for name, item in value.items() if name != "uri"}
        dropped = ("pods",)
        return {name: _identity(item) for name, item in value.items() if name not in dropped}
    if isinstance(value, list):
        return [_identity(item) for item in value]
    return value


def input_key(inputs: Inputs) -> str:
    """The step's key: sha256 of the canonical JSON of its inputs and of the artifact schema's version."""
    return digest({"schemaVersion": SCHEMA_VERSION, "inputs": _identity(inputs.wire())})
