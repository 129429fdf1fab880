"""The Challenger is trained by GRPO: it is paid for questions at the edge of what the frozen Solver can do."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Sha256, Wire
from selfevo_contract.phases.base import Loading, ModelRef, PhaseType, StepModelRef
from selfevo_contract.spec.challenger import ChallengerReward
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.grading import Grading
from selfevo_contract.spec.grpo import ChallengerGrpo
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.rollout import Contamination
from selfevo_contract.spec.rubric import Rubric
from selfevo_contract.spec.sampling import Sampling
from selfevo_contract.spec.well_formed import Check


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
    earlier: Sha256 | None = None
    """Of a run with reward.memory: the rollout of the iteration before, whose questions are remembered; None in the
    first one."""
    solver_prompt: Prompt
    max_prompt_length: int = 2048
    solver_sampling: Sampling
    well_formed: list[Check] | None = None
    grading: Grading
    exclude: list[Data]
    held_out: list[Data]
    """The data of the run's tasks, in their order."""
    contamination: Contamination
    judge: StepModelRef | None = None
    """Of a run with a Verifier: the verifier-train step whose judge scores the answers."""
    judge_length: int | None = None
    """verifier.maxLength."""
    rubric: Rubric | None = None
    """Of a run whose Verifier is of kind rubric: the criteria and the model that scores the answers by them."""


CHALLENGER_TRAIN = PhaseType(
    inputs=ChallengerTrainInputs,
    part="challenger",
    metrics="challenger",
    title="Challenger training",
    makes="Challenger {}",
    models=("challenger", "solver", "judge"),
    generates=(("solver", "solver_sampling"),),
    steps=(("earlier", "solver-rollout"),),
    judged=True,
    distributed=True,
)
