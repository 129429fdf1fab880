"""Supervised training by TRL's SFTTrainer, with the hooks, checkpoints and order of rows that GRPO's training has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import SequentialSampler
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from selfevo_contract.phases import Loading
from selfevo_contract.spec.grpo import Grpo
from selfevo_trainer.grpo.arguments import common_arguments
from selfevo_trainer.grpo.trainers import WithoutCompletions


def sft_config(grpo: Grpo, loading: Loading, seed: int, output_dir: Path) -> SFTConfig:
    """The settings of ``grpo`` that supervised training has (`Finetune.training`), as TRL's."""
    return SFTConfig(
        output_dir=str(output_dir),
        seed=seed,
        max_steps=grpo.updates,
        per_device_train_batch_size=grpo.per_device_train_batch_size,
        gradient_accumulation_steps=grpo.prompts_per_step // grpo.per_device_train_batch_size,
        learning_rate=grpo.rate,
        lr_scheduler_type=grpo.lr_scheduler_type,
        warmup_steps=grpo.warmup_steps,
        weight_decay=grpo.weight_decay,
        adam_epsilon=grpo.adam_epsilon,
        max_grad_norm=grpo.max_grad_norm,
        gradient_checkpointing=grpo.gradient_checkpointing,
        max_length=None,  # what is too long was left out; nothing is cut
        dataset_kwargs={"skip_prepare_dataset": True},  # tokens and labels are ours
        **common_arguments(loading),
    )


class SupervisedTrainer(WithoutCompletions, SFTTrainer):
    """TRL's trainer with our order of rows."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        dataset: Any = self.train_dataset
        return SequentialSampler(dataset)  # `dealing.schedule` has shuffled it
