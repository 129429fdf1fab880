"""Training on labelled data after the last iteration."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.rules import Rule
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.names import Interval
from selfevo_contract.spec.pods import Pods

SFT_LEARNING_RATE = 1e-5
"""AdamW's learning rate of supervised training, for all weights."""
LORA_FACTOR = 10
"""How much higher it is for an adapter (as in `spec.grpo`)."""


class Finetune(Closed):
    """Training on labelled data after the last iteration: of the best Solver and, as its control, of the base. Both are
    scored on the tasks of spec.evaluation. With solver.grpo.lora an adapter is trained, else all weights."""

    kind: Literal["sft", "grpo"] = "sft"
    """`sft`: supervised, on the answers as they stand in the data. `grpo`: on the model's own completions, paid as the
    Solver is, for the true answer in place of a label."""
    data: Data
    """JSON lines with the columns question and answer. Questions that repeat a held-out one are left out."""
    answers: Literal["math", "choice", "number", "text"] = "math"
    """What its answers are, as in evaluation.tasks[].answers."""
    control: bool = True
    """Train the base on the same data for as many steps, too, and score it: what the run itself was worth."""
    max_steps: Annotated[Whole, Field(ge=1, le=1_000_000)] = 100
    """Optimizer updates."""
    batch: Annotated[Whole, Field(ge=1, le=1_000_000)] = 32
    """Questions of one update."""
    per_device_train_batch_size: Annotated[Whole, Field(ge=1, le=1_000_000)] = 8
    """Sequences in one forward and backward pass, a divisor of batch; gradients are accumulated over the rest."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """AdamW's learning rate. When not given: 1e-5 for sft and ten times that with solver.grpo.lora; solver.grpo's for
    grpo."""
    checkpoint_every: Interval = "10m"
    """How often training's state goes to the store, as solver.checkpointEvery."""
    pods: Pods = Pods()
    """Pods of its phase, over spec.pods."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.batch % self.perDeviceTrainBatchSize == 0",
            lambda finetune: finetune.batch % finetune.per_device_train_batch_size == 0,
            "perDeviceTrainBatchSize does not divide batch; choose a divisor of it",
            lambda finetune: (
                f"perDeviceTrainBatchSize {finetune.per_device_train_batch_size} does not divide batch "
                f"{finetune.batch}; choose a divisor of it"
            ),
        ),
    )

    def training(self, solver: Grpo) -> Grpo:
        """What is trained by, of a run whose Solver is trained by ``solver``. One step is one update.

        Supervised training has its schedule, its batch and its optimizer from here, and nothing else.
        """
        own: dict[str, object] = {
            "max_steps": self.max_steps,
            "prompts_per_step": self.batch,
            "prompts_per_update": None,
            "num_iterations": 1,
            "per_device_train_batch_size": self.per_device_train_batch_size,
            "sharding": None,  # it trains in one process
            "cpu_offload": None,
            "vllm_mode": None,  # and has no server beside it
            "vllm_tensor_parallel_size": None,
        }
        if self.kind == "grpo":
            return solver.model_copy(update={**own, "learning_rate": self.learning_rate or solver.learning_rate})
        kept = (
            "lora",
            "lr_scheduler_type",
            "warmup_steps",
            "weight_decay",
            "adam_epsilon",
            "max_grad_norm",
            "gradient_checkpointing",
            "max_completion_length",
        )
        rate = self.learning_rate or SFT_LEARNING_RATE * (1 if solver.lora is None else LORA_FACTOR)
        shared = {name: getattr(solver, name) for name in kept}
        return Grpo().model_copy(update={**shared, **own, "learning_rate": rate, "beta": 0.0})
