"""A fine-tuned model is scored on held-out questions, as Solvers are. Its scores say nothing of what the best is."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.phases.base import PhaseType
from selfevo_contract.phases.evaluate import HeldOutInputs


class FinetuneEvaluateInputs(HeldOutInputs):
    """Held-out accuracy of one fine-tuned model."""

    phase: Literal["finetune-evaluate"] = "finetune-evaluate"


FINETUNE_EVALUATE = PhaseType(
    inputs=FinetuneEvaluateInputs,
    part="evaluation",
    metrics="finetuned",
    title="Evaluation after fine-tuning",
    makes="Score of fine-tuned {}",
    models=("model",),
    steps=(("base", "evaluate"),),
    generates=(("model", ""),),
    sharded=True,
    closes=True,
)
