"""Our settings as TRL's: Grpo -> GRPOConfig."""

from __future__ import annotations

from pathlib import Path

from trl.trainer.grpo_config import GRPOConfig

from selfevo_contract.phases import Loading
from selfevo_contract.spec.grpo import Grpo
from selfevo_trainer.distributed import collective
from selfevo_trainer.distributed.layout import check_batch
from selfevo_trainer.grpo import sharding
from selfevo_trainer.grpo.arguments import common_arguments


def grpo_config(grpo: Grpo, loading: Loading, seed: int, output_dir: Path, processes: int = 1) -> GRPOConfig:
    """Our settings as TRL's.

    TRL counts optimizer updates: ``max_steps`` is maxSteps x updates a step, ``gradient_accumulation_steps`` makes one
    update's completions and ``steps_per_generation`` a step's, both in passes of perDeviceTrainBatchSize on each
    process. A step's completions are dealt out to its updates at random (`dealing.deal`), after advantages were
    normalised by group.

    Raises:
        InputError: the batch does not divide over the processes.
    """
    check_batch(grpo, processes)
    sharded = sharding.arguments(loading, offloaded=grpo.offloaded) if grpo.sharded else {}
    a_pass = grpo.per_device_train_batch_size * processes
    made = GRPOConfig(
        output_dir=str(output_dir),
        seed=seed,
        max_steps=grpo.updates,
        per_device_train_batch_size=grpo.per_device_train_batch_size,
        gradient_accumulation_steps=grpo.completions_per_update // a_pass,
        steps_per_generation=grpo.completions_per_step // a_pass,
        num_generations=grpo.num_generations,
        num_iterations=grpo.num_iterations,
        learning_rate=grpo.rate,
        lr_scheduler_type=grpo.lr_scheduler_type,
        warmup_steps=grpo.warmup_steps,
        weight_decay=grpo.weight_decay,
        adam_epsilon=grpo.adam_epsilon,
        max_grad_norm=grpo.max_grad_norm,
        beta=grpo.beta,
        epsilon=grpo.epsilon,
        epsilon_high=grpo.epsilon_high,
        delta=grpo.delta or None,
        loss_type=grpo.loss_type,
        scale_rewards=grpo.scale_rewards,
        mask_truncated_completions=grpo.mask_truncated_completions,
        gradient_checkpointing=grpo.gradient_checkpointing,
        temperature=grpo.temperature,
        top_p=grpo.top_p,
        top_k=grpo.top_k,
        max_completion_length=grpo.max_completion_length,
        # TRL's own default (True) turns the k3 estimator of the KL into another one; R-Zero's is k3 as it is
        use_bias_correction_kl=False,
        trust_remote_code=loading.trust_remote_code,  # the reference is loaded by TRL itself, from the model's folder
        # The policy's vLLM is opened by `vllm_policy`, not by TRL; these it reads all the same.
        vllm_importance_sampling_mode=grpo.vllm_importance_sampling_mode,
        vllm_importance_sampling_clip_max=grpo.vllm_importance_sampling_clip_max,
        shuffle_dataset=False,  # the order is ours, see `dealing.schedule`
        ddp_timeout=collective.TIMEOUT_S,
        **common_arguments(loading),
        **sharded,
    )
    return sharding.in_float32(made)
