"""TRL's trainers as they are checkpointed and resumed here: `DealingTrainer` generates, the others do not."""

from __future__ import annotations

from typing import Any

from transformers.trainer import Trainer as TransformersTrainer

from selfevo_trainer.grpo.completions import StepCompletions
from selfevo_trainer.grpo.dealing import DealingTrainer


class WithoutCompletions(TransformersTrainer):
    """What TRL's trainers that generate nothing have in common: a checkpoint has no completions, a step is one
    update. To be mixed in before one of them."""

    kept: StepCompletions | None = None
    _metrics: Any
    """TRL's, by mode."""

    def resume_at(self, update: int, restored: StepCompletions | None) -> None:
        """Nothing that TRL's checkpoint does not hold, but a count that it shows."""

    @property
    def first_update(self) -> int:
        """Optimizer updates that were done when the step under way began."""
        return self.state.global_step

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Nothing here: `hooks.Hooks.on_save` takes a snapshot."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's metrics, less its count of tokens, which begins again when training is resumed."""
        self._metrics["train"].pop("num_tokens", None)
        super().log(logs, start_time)


Trainer = DealingTrainer | WithoutCompletions
