"""The judge of a run with a Verifier begins (iteration 0), and is trained on pairs of answers (each iteration)."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Sha256, Wire
from selfevo_contract.phases.base import BaseModelRef, Loading, ModelRef, PhaseType, StepModelRef
from selfevo_contract.phases.solver_rollout import SOLVER_ROLLOUT
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.sampling import Sampling
from selfevo_contract.spec.verifier import Verifier


class VerifierTrainInputs(Wire):
    """What a judge comes of. Iteration 0 has ``base`` and none of the fields from ``solver`` to ``rollout``."""

    phase: Literal["verifier-train"] = "verifier-train"
    seed: int
    base: BaseModelRef | None = None
    """Iteration 0: the reward model, or the base that gets a fresh score head (settings.model is None)."""
    solver: ModelRef | None = None
    """The Solver before this iteration's training, which wrote the rollout's answers."""
    challenger: ModelRef | None = None
    """This iteration's Challenger; only where the maker `role` asks for its answers."""
    earlier_solver: ModelRef | None = None
    """The Solver of the iteration before that; only where the maker `temporal` asks for its answers."""
    judge: StepModelRef | None = None
    """The verifier-train step of the iteration before: its judge, and the pairs that are replayed."""
    first_judge: StepModelRef | None = None
    """The verifier-train step of iteration 0, whose judge the gate asks."""
    rollout: Sha256 | None = None
    """Key of this iteration's solver-rollout: its curriculum has the tasks."""
    loading: Loading
    solver_prompt: Prompt
    max_prompt_length: int = 2048
    answer_sampling: Sampling
    settings: Verifier


VERIFIER_TRAIN = PhaseType(
    inputs=VerifierTrainInputs,
    part="verifier",
    metrics="verifier",
    title="Verifier training",
    makes="Verifier {}",
    models=("base", "solver", "challenger", "earlier_solver", "judge", "first_judge"),
    steps=(("rollout", SOLVER_ROLLOUT.name),),
    kept=("promoted",),
)
