"""GRPO by TRL's GRPOTrainer and supervised training by its SFTTrainer, their own way: reward functions, callbacks,
``train(resume_from_checkpoint=)``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback

from selfevo_contract.errors import SelfevoError
from selfevo_contract.fingerprint import FINGERPRINT, ProbeRow
from selfevo_contract.phases import GrpoInputs
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import METRICS, UpdateRow, write_rows
from selfevo_contract.spec.grpo import Grpo
from selfevo_trainer.context import Context
from selfevo_trainer.distributed import collective
from selfevo_trainer.engines import probes
from selfevo_trainer.grpo import checkpoints, sharding, vllm_policy
from selfevo_trainer.grpo.certainty import PolicyDistributions
from selfevo_trainer.grpo.checkpointer import Checkpointer
from selfevo_trainer.grpo.config import grpo_config
from selfevo_trainer.grpo.dealing import DealingTrainer
from selfevo_trainer.grpo.generation import generate_in_parts
from selfevo_trainer.grpo.hooks import Hooks, timed_reward
from selfevo_trainer.grpo.resuming import train_on
from selfevo_trainer.grpo.supervised import SupervisedTrainer, sft_config
from selfevo_trainer.grpo.trainers import Trainer
from selfevo_trainer.grpo.vllm_policy import Policy
from selfevo_trainer.models import adapters
from selfevo_trainer.models.loading import eos_token_ids, load_for_training
from selfevo_trainer.prompts import encode_all
from selfevo_trainer.rewards.base import ByPolicy, InParts, RewardFunction


@dataclass(frozen=True)
class TrainRequest:
    """What is trained, on which prompts, for which reward."""

    inputs: GrpoInputs
    model_dir: Path
    """Where the training starts."""
    tokenizer: Any
    """The model's."""
    dataset: Dataset
    """One row for each prompt of the whole training, in order (`dealing.schedule`)."""
    reward: RewardFunction | None
    """None: supervised training, on the tokens and labels of ``dataset``."""
    check_history: Callable[[list[dict[str, Any]]], None] = lambda history: None
    """Gets TRL's metrics of all steps so far after each; raises DataError when going on makes no sense."""


def train(context: Context, request: TrainRequest) -> tuple[dict[str, Path], list[UpdateRow]]:
    """Train the model of ``request``, from the newest checkpoint if there is one.

    Returns:
        the files to commit (name -> path), and a row for each optimizer update. Both are empty in a process that is not
        the first.

    Raises:
        Terminated: SIGTERM came; what was done is committed as a checkpoint, if the grace period was long enough.
        DataError: the loss is not finite, or ``check_history`` raised it.
        ServiceError: training ended before its last step.
    """
    grpo = request.inputs.grpo
    with context.clock.during("load"):
        hooks = Hooks(context, grpo, Checkpointer(context, grpo), lambda history: _check(request, history))
        trainer = _trainer(context, request, hooks)
        # Before a checkpoint's weights take the place of those that the whole training began with.
        with sharding.all_cores() if grpo.sharded else contextlib.nullcontext():
            probe = _probe(trainer.model, request) if context.rank.first else []
        policy = _generates(context, trainer, request)  # the probe is one batch of transformers'
    try:
        train_on(context, trainer, grpo, hooks)
    finally:
        if policy is not None:
            policy.close()
    history = [_row(row, grpo) for row in trainer.state.log_history if "loss" in row]
    with context.clock.during("store"):
        weights = _saved(trainer, context.workdir / "model")
    if not context.rank.first:
        return {}, []
    if context.config.base is not None and adapters.is_adapter(folder := context.workdir / "model"):
        adapters.complete(folder, adapters.whole(request.model_dir), context.config.base.uri)
    with context.clock.during("load"):
        fingerprint = _fingerprint(trainer, probe) if weights is None else _fingerprint_of(weights, request, probe)
    return _model_files(context, history, fingerprint), history


def _check(request: TrainRequest, history: list[dict[str, Any]]) -> None:
    vllm_policy.check_difference(request.inputs.grpo, history)
    request.check_history(history)


def _trainer(context: Context, request: TrainRequest, hooks: Hooks) -> Trainer:
    inputs, tokenizer = request.inputs, request.tokenizer
    model = load_for_training(request.model_dir, inputs.loading, inputs.grpo.lora, inputs.seed)
    # TRL takes where answers end from here, and the trained model keeps it.
    model.generation_config.eos_token_id = sorted(eos_token_ids(model.generation_config, tokenizer, inputs.loading))
    output = context.workdir / "trainer"
    if request.reward is None:
        learner = SupervisedTrainer(
            model=model,
            args=sft_config(inputs.grpo, inputs.loading, inputs.seed, output),
            train_dataset=request.dataset,
            processing_class=tokenizer,
            callbacks=[hooks],
        )
        learner.remove_callback(PrinterCallback)
        return learner
    reward: Any = timed_reward(context, request.reward)
    args = grpo_config(inputs.grpo, inputs.loading, inputs.seed, output, context.rank.size)
    with sharding.reference_by_layers() if inputs.grpo.sharded else contextlib.nullcontext():
        trainer = DealingTrainer(
            model=model,
            reward_funcs=reward,
            args=args,
            train_dataset=request.dataset,
            processing_class=tokenizer,
            callbacks=[hooks],
        )
    if isinstance(request.reward, ByPolicy):
        request.reward.policy = PolicyDistributions(trainer.model, tokenizer, inputs.grpo)
    if isinstance(request.reward, InParts):
        trainer.in_parts, request.reward.between_parts = request.reward, trainer.unscored
    trainer.stop, trainer.on_unscored = context.stop, hooks.on_unscored
    trainer.remove_callback(PrinterCallback)  # standard output carries our lines of progress and nothing else
    return trainer


def _generates(context: Context, trainer: Trainer, request: TrainRequest) -> Policy | None:
    """Settle what generates the policy's completions."""
    if not isinstance(trainer, DealingTrainer):
        return None
    grpo = request.inputs.grpo
    if grpo.generation == "transformers":
        budget = grpo.generation_batch_tokens
        generate_in_parts(context, trainer.model, budget, keeper=trainer, together=grpo.sharded)
        return None
    prompts = {str(prompt): prompt for prompt in request.dataset["prompt"]}
    longest = max(map(len, encode_all(request.tokenizer, list(prompts.values()))))
    return vllm_policy.take_over(context, trainer, request.inputs, longest)


def _row(row: dict[str, Any], grpo: Grpo) -> UpdateRow:
    update = int(row["step"])  # as TRL counts
    return UpdateRow.model_validate({**row, "update": update, "step": grpo.step_of(update)})


def _probe(model: Any, request: TrainRequest) -> list[ProbeRow]:
    rows = request.dataset[: min(probes.ROWS, len(request.dataset))]["prompt"]
    ends = set(model.generation_config.eos_token_id)
    longest = request.inputs.grpo.max_completion_length
    prompts = encode_all(request.tokenizer, rows)
    return probes.draw(model, request.tokenizer, prompts, ends, request.inputs.loading.dtype, longest)


def _saved(trainer: Trainer, folder: Path) -> dict[str, torch.Tensor] | None:
    """Save the model, whole. Returns its weights in the first process where no process holds them all."""
    if not sharding.is_sharded(trainer.model):
        trainer.save_model(str(folder))
        return None
    weights = sharding.whole_weights(trainer.model)
    if collective.rank() == 0:
        saver: Any = trainer
        saver._save(str(folder), state_dict=weights)
    return weights


def _fingerprint_of(weights: dict[str, torch.Tensor], request: TrainRequest, probe: list[ProbeRow]) -> list[ProbeRow]:
    """The same of ``weights`` that were gathered from all processes, on the CPU, where there is room for them."""
    inputs = request.inputs
    model = load_for_training(request.model_dir, inputs.loading, inputs.grpo.lora, inputs.seed)
    sharding.put(weights, model)
    with sharding.all_cores():
        return probes.after_training(model, probe)


def _fingerprint(trainer: Trainer, probe: list[ProbeRow]) -> list[ProbeRow]:
    """Of the weights in memory, not of the files: a file that did not become what they are is found by it, too."""
    # In float32: without the autocast that training wraps around the forward pass.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return probes.after_training(model, probe)


def _model_files(context: Context, history: Sequence[UpdateRow], fingerprint: Sequence[ProbeRow]) -> dict[str, Path]:
    files = {f"model/{name}": file for name, file in checkpoints.kept_files(context.workdir / "model").items()}
    files[METRICS.name] = write_rows(context.workdir / METRICS.name, history)
    files[FINGERPRINT.name] = write_rows(context.workdir / FINGERPRINT.name, fingerprint)
    return files


def summary(history: Sequence[UpdateRow], names: Sequence[str]) -> dict[str, float]:
    """First and last value of each metric, for the manifest."""
    rows = [row.metrics for row in history]
    found: dict[str, float] = {}
    for name in names:
        values = [row[name] for row in rows if name in row]
        if values:
            found[f"{name}_first"], found[f"{name}_last"] = float(values[0]), float(values[-1])
    return found


def commit_training(
    context: Context,
    files: dict[str, Path],
    history: Sequence[UpdateRow],
    names: Sequence[str],
    counted: Mapping[str, float] = MappingProxyType({}),
) -> PhaseResult:
    """Commit what training made, with a summary of the metrics ``names`` and what was ``counted`` before, and clear the
    checkpoints.

    Of several processes the first one does; what the others return here is read by nobody.
    """
    if not context.rank.first:
        return context.result("committed", {})
    committed = context.commit(context.config.prefix, files, {**counted, **summary(history, names)})
    with contextlib.suppress(SelfevoError):  # who finds the output clears them, too
        checkpoints.clear(context)
    return context.result("committed" if committed.won else "found", committed.manifest.metrics)
