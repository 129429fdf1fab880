"""A model is scored on held-out questions."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Wire
from selfevo_contract.phases.base import Loading, ModelRef, PhaseType
from selfevo_contract.spec.evaluation import Task
from selfevo_contract.spec.grading import Grading
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.sampling import Sampling


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


EVALUATE = PhaseType(
    inputs=EvaluateInputs,
    part="evaluation",
    metrics="evaluation",
    title="Evaluation",
    makes="Score {}",
    models=("model",),
    scores=True,
)
