"""finetune-evaluate: held-out scores of a fine-tuned model, and its gains over the base's; as evaluate."""

from __future__ import annotations

from selfevo_contract.phases import FinetuneEvaluateInputs
from selfevo_contract.process import PhaseResult
from selfevo_trainer.context import Context
from selfevo_trainer.phases import evaluate


def run(context: Context, inputs: FinetuneEvaluateInputs) -> PhaseResult:
    """Answer what is missing of this shard's questions, then score the whole if no shard's are missing."""
    return evaluate.run(context, inputs)
