"""The Solver is trained by GRPO over a curriculum."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Sha256, Wire
from selfevo_contract.phases.base import Loading, ModelRef, PhaseType
from selfevo_contract.phases.solver_rollout import SOLVER_ROLLOUT
from selfevo_contract.spec.grading import Grading
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.solver import SolverReward


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


SOLVER_TRAIN = PhaseType(
    inputs=SolverTrainInputs,
    part="solver",
    metrics="solver",
    title="Solver training",
    makes="Solver {}",
    models=("solver",),
    steps=(("curriculum", SOLVER_ROLLOUT.name),),
    distributed=True,
    trains_solver=True,
)
