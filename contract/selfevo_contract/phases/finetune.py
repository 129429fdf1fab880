"""A model is trained on labelled data: the best Solver after the last iteration and, as its control, the base."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Wire
from selfevo_contract.phases.base import Loading, ModelRef, PhaseType
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.grading import Grading
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.rollout import Contamination
from selfevo_contract.spec.solver import SolverReward


class FinetuneInputs(Wire):
    """Training on labelled data."""

    phase: Literal["finetune"] = "finetune"
    seed: int
    model: ModelRef
    """Where it starts."""
    kind: Literal["sft", "grpo"]
    data: Data
    answers: Literal["math", "choice", "number", "text"]
    loading: Loading
    prompt: Prompt
    max_prompt_length: int
    grpo: Grpo
    """As `Finetune.training` makes it."""
    reward: SolverReward | None = None
    """Of kind grpo."""
    grading: Grading
    exclude: list[Data] = []
    held_out: list[Data] = []
    """The tasks' data. What repeats a question of it is not trained on."""
    contamination: Contamination


FINETUNE = PhaseType(
    inputs=FinetuneInputs,
    part="finetune",
    metrics="finetune",
    title="Fine-tuning",
    makes="Fine-tuned {}",
    models=("model",),
    closes=True,
)
