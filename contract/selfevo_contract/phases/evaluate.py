"""A model is scored on held-out questions."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Sha256, Wire
from selfevo_contract.phases.base import Loading, ModelRef, PhaseType
from selfevo_contract.spec.evaluation import Task
from selfevo_contract.spec.grading import Grading
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.sampling import Sampling


class HeldOutInputs(Wire):
    """Of any phase that scores a model on held-out questions."""

    phase: str
    seed: int
    model: ModelRef
    loading: Loading
    tasks: list[Task]
    """What is not given, or is as below, is None; so are groups, by which nothing is computed."""
    samples: int
    prompt: Prompt
    sampling: Sampling
    grading: Grading
    shards: int = 1
    """How many processes share the questions of all tasks, of which tasks with shards of their own have the first; no
    part of the key, for it changes no row."""
    base: Sha256 | None = None
    """Key of the base's evaluation, over which gains are computed; None for the base itself."""

    def samples_of(self, task: Task) -> int:
        """Answers sampled for each question of ``task``."""
        return task.samples or self.samples

    def prompt_of(self, task: Task) -> Prompt:
        """What the model is asked in ``task``."""
        return task.prompt or self.prompt

    def sampling_of(self, task: Task) -> Sampling:
        """How its answers are sampled in ``task``."""
        return task.sampling or self.sampling


class EvaluateInputs(HeldOutInputs):
    """Held-out accuracy of one model."""

    phase: Literal["evaluate"] = "evaluate"


EVALUATE = PhaseType(
    inputs=EvaluateInputs,
    part="evaluation",
    metrics="evaluation",
    title="Evaluation",
    makes="Score {}",
    models=("model",),
    steps=(("base", "evaluate"),),
    generates=(("model", ""),),
    scores=True,
    kept=("consensus",),
    sharded=True,
)
