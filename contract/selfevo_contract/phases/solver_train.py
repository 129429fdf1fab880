"""The Solver is trained by GRPO over a curriculum."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Sha256, Wire
from selfevo_contract.phases.base import Loading, ModelRef, PhaseType, StepModelRef
from selfevo_contract.phases.solver_rollout import SOLVER_ROLLOUT
from selfevo_contract.spec.grading import Grading
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.rubric import Rubric
from selfevo_contract.spec.solver import SolverReward
from selfevo_contract.spec.well_formed import Check


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
    well_formed: list[Check] | None = None
    """rollout.wellFormed, where answers vote on their own reward (solver.reward.mode confidence)."""
    judge: StepModelRef | None = None
    """Of a run with a Verifier: this iteration's verifier-train step, whose judge scores the answers."""
    judge_length: int | None = None
    """verifier.maxLength."""
    rubric: Rubric | None = None
    """Of a run whose Verifier is of kind rubric: the criteria and the model that scores the answers by them."""


SOLVER_TRAIN = PhaseType(
    inputs=SolverTrainInputs,
    part="solver",
    metrics="solver",
    title="Solver training",
    makes="Solver {}",
    models=("solver", "judge"),
    steps=(("curriculum", SOLVER_ROLLOUT.name),),
    judged=True,
    distributed=True,
    trains_solver=True,
)
