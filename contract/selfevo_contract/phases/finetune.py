"""The last Solver is trained on labelled data. It has its place in the plan and is not built yet."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Wire
from selfevo_contract.phases.base import ModelRef, PhaseType
from selfevo_contract.spec.finetune import Finetune


class FinetuneInputs(Wire):
    """Supervised training on labelled data (not built yet)."""

    phase: Literal["finetune"] = "finetune"
    seed: int
    model: ModelRef
    settings: Finetune


FINETUNE = PhaseType(
    inputs=FinetuneInputs,
    part="finetune",
    metrics="finetune",
    title="Fine-tuning",
    makes="Fine-tuned",
    models=("model",),
    closes=True,
)
