"""A judge is trained on ordered pairs by TRL's RewardTrainer, with the checkpoints and hooks that GRPO's training has.

The Bradley-Terry loss: -log sigma(J(chosen) - J(rejected)). The centring term, coefficient x (J(chosen) +
J(rejected))^2, is of Eisenstein et al., arXiv 2312.09244.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from selfevo_contract.errors import InputError
from selfevo_contract.judging import PairRow
from selfevo_contract.phases import Loading
from selfevo_contract.rows import UpdateRow
from selfevo_contract.spec.lora import Lora
from selfevo_contract.spec.verifier import Verifier
from selfevo_trainer.context import Context
from selfevo_trainer.grpo.arguments import common_arguments
from selfevo_trainer.grpo.checkpointer import Checkpointer
from selfevo_trainer.grpo.checkpoints import kept_files
from selfevo_trainer.grpo.hooks import Hooks
from selfevo_trainer.grpo.resuming import train_on
from selfevo_trainer.grpo.trainers import WithoutCompletions
from selfevo_trainer.judges.encoding import Encoder
from selfevo_trainer.judges.scalar import load_classifier
from selfevo_trainer.models.loading import load_tokenizer


@dataclass(frozen=True)
class Training:
    """How a judge is trained (`grpo.checkpointer.Steps`): in one process, a step being one optimizer update."""

    max_steps: int
    learning_rate: float
    warmup: float
    """Share of the steps."""
    seed: int
    head: int | None = None
    """Seed of a fresh score head; None: the model has one."""
    updates_per_step: int = 1
    sharded: bool = False

    @property
    def updates(self) -> int:
        """Optimizer updates."""
        return self.max_steps


class JudgeTrainer(WithoutCompletions, RewardTrainer):
    """TRL's trainer. Its order of rows is transformers' own, which a checkpoint resumes."""


def train_judge(
    context: Context, start: Path, pairs: Sequence[PairRow], settings: Verifier, loading: Loading, how: Training
) -> tuple[dict[str, Path], list[UpdateRow]]:
    """Train the model in ``start`` on ``pairs``, over and over until all steps have their batch; from the newest
    checkpoint if there is one.

    Weights are float32, as a role's are (docs/decisions/0003-master-weights.md); an adapter is merged at the end.

    Returns:
        the judge's files by name, and a row for each step.

    Raises:
        Terminated: SIGTERM came; what was done is committed as a checkpoint, if the grace period was long enough.
        DataError: a weight became infinite or NaN.
        InputError: the model cannot be loaded, or has not the modules that lora names.
    """
    tokenizer = load_tokenizer(start, loading)
    with context.clock.during("load"):
        model = load_classifier(start, tokenizer, loading, torch.float32, fresh=how.head)
        if settings.lora is not None:
            model = _adapted(model, settings.lora, how.seed)
    encode = Encoder(tokenizer, settings.max_length)
    rows = [pairs[i] for i in _dealt(len(pairs), how.max_steps * settings.batch_size, how.seed)]
    dataset = Dataset.from_list(
        [
            {"chosen_ids": encode(row.question, row.chosen), "rejected_ids": encode(row.question, row.rejected)}
            for row in rows
        ]
    )
    hooks = Hooks(context, how, Checkpointer(context, how), lambda history: None)
    trainer = JudgeTrainer(
        model=model,
        args=_config(settings, loading, how, context.workdir / "judge-trainer"),
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[hooks],
    )
    trainer.remove_callback(PrinterCallback)  # standard output carries our lines of progress and nothing else
    train_on(context, trainer, how, hooks)
    trained: Any = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    if settings.lora is not None:
        trained = trained.merge_and_unload()
    folder = context.workdir / "judge-trained"
    trained.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    history = [
        UpdateRow.model_validate({**row, "update": int(row["step"]), "step": int(row["step"])})
        for row in trainer.state.log_history
        if "loss" in row
    ]
    return kept_files(folder), history


def _config(settings: Verifier, loading: Loading, how: Training, output: Path) -> RewardConfig:
    a_pass = _divisor(settings.batch_size, settings.per_device_train_batch_size)
    return RewardConfig(
        output_dir=str(output),
        seed=how.seed,
        max_steps=how.max_steps,
        per_device_train_batch_size=a_pass,
        gradient_accumulation_steps=settings.batch_size // a_pass,
        learning_rate=how.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=round(how.warmup * how.max_steps),
        center_rewards_coefficient=settings.center_rewards_coefficient or None,
        max_length=None,  # `Encoder` has cut what is too long
        gradient_checkpointing=torch.cuda.is_available(),
        **common_arguments(loading),
    )


def _divisor(batch: int, most: int) -> int:
    """The largest divisor of ``batch`` that is at most ``most``.

    >>> _divisor(64, 8), _divisor(6, 4), _divisor(5, 4), _divisor(2, 8)
    (8, 3, 1, 2)
    """
    return next(size for size in range(min(batch, most), 0, -1) if batch % size == 0)


def _dealt(pairs: int, wanted: int, seed: int) -> list[int]:
    """Numbers of pairs: all of them in a random order, again and again."""
    order: list[int] = []
    rng = random.Random(seed)
    while len(order) < wanted:
        order += rng.sample(range(pairs), pairs)
    return order[:wanted]


def _adapted(model: Any, lora: Lora, seed: int) -> Any:
    """``model`` with a new adapter; the score head is trained whole."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a factor of a quotient: it may be any number
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or "all-linear",
        modules_to_save=["score"],
        task_type="SEQ_CLS",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except ValueError:
            raise InputError(
                f"spec.verifier.lora.targetModules is {lora.target_modules}, and the judge has no such modules; name "
                "some that it has, or leave the field out for all"
            ) from None
