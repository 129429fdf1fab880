"""The settings of training and sampling. Names are TRL's (GRPOConfig), in camelCase, wherever TRL has one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.rules import Rule


class Sampling(Closed):
    """How text is sampled from a model."""

    temperature: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Softmax temperature; 0 is greedy decoding."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Nucleus sampling: the smallest set of tokens whose probability reaches this."""
    top_k: Annotated[Whole, Field(ge=0, le=1_000_000)] = 0
    """Sample among this many most likely tokens only; 0 turns it off."""
    max_completion_length: Annotated[Whole, Field(ge=1, le=1_000_000)] = 4096
    """Longest completion, in tokens."""


class Grpo(Closed):
    """GRPO (TRL's GRPOTrainer). Defaults are R-Zero's (docs/method.md, «GRPO settings of the reference»)."""

    max_steps: Annotated[Whole, Field(ge=0, le=1_000_000)] = 15
    """Optimizer steps; 0 leaves the weights as they are."""
    prompts_per_step: Annotated[Whole, Field(ge=1, le=1_000_000)] = 128
    """Prompts of one step; each gets numGenerations completions."""
    num_generations: Annotated[Whole, Field(ge=2, le=1024)] = 5
    """Group size: completions of one prompt, among which advantages are normalised."""
    per_device_train_batch_size: Annotated[Whole, Field(ge=1, le=1_000_000)] = 8
    """Completions in one forward and backward pass of one device; gradients are accumulated over the rest."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-6
    """AdamW's learning rate."""
    lr_scheduler_type: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant"
    """Schedule of the learning rate."""
    warmup_steps: Annotated[Whole, Field(ge=0, le=1_000_000)] = 0
    """Steps of linear warm-up."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """AdamW's weight decay."""
    adam_epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """AdamW's epsilon. Where nearly all groups have equal rewards, gradients are tiny and a small epsilon lets AdamW
    blow them up to full steps; a larger one keeps tiny gradients tiny."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Gradients are clipped to this norm."""
    beta: Annotated[float, Field(ge=0, le=10)] = 0.01
    """Coefficient of the KL divergence to the weights that the phase starts from (k3 estimator)."""
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Lower clip range of the probability ratio."""
    epsilon_high: Annotated[float, Field(gt=0, le=10)] = 0.3
    """Upper clip range of the probability ratio."""
    loss_type: Literal["grpo", "dapo", "bnpo", "dr_grpo"] = "grpo"
    """How token losses are averaged."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the standard deviation of the group, of the batch, or nothing."""
    num_iterations: Annotated[Whole, Field(ge=1, le=64)] = 1
    """Optimizer passes over one batch of completions (mu in the GRPO paper)."""
    mask_truncated_completions: bool = False
    """Leave completions that hit maxCompletionLength out of the loss."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Softmax temperature of the role's completions, in training and in rollout."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Nucleus sampling of the role's completions."""
    top_k: Annotated[Whole, Field(ge=0, le=1_000_000)] = 0
    """Top-k sampling of the role's completions; 0 turns it off."""
    max_completion_length: Annotated[Whole, Field(ge=1, le=1_000_000)] = 4096
    """Longest completion, in tokens."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.promptsPerStep * self.numGenerations % self.perDeviceTrainBatchSize == 0",
            lambda grpo: grpo.completions_per_step % grpo.per_device_train_batch_size == 0,
            "perDeviceTrainBatchSize does not divide the completions of a step (promptsPerStep x numGenerations); "
            "choose a divisor of them",
            lambda grpo: (
                f"perDeviceTrainBatchSize {grpo.per_device_train_batch_size} does not divide the "
                f"{grpo.completions_per_step} completions of a step (promptsPerStep {grpo.prompts_per_step} x "
                f"numGenerations {grpo.num_generations}); choose a divisor of {grpo.completions_per_step}"
            ),
        ),
    )

    @property
    def completions_per_step(self) -> int:
        """Completions of one step over all devices."""
        return self.prompts_per_step * self.num_generations

    @property
    def sampling(self) -> Sampling:
        """The role's sampling, as rollout and the frozen Solver use it."""
        return Sampling.model_validate(
            {
                "temperature": self.temperature,
                "topP": self.top_p,
                "topK": self.top_k,
                "maxCompletionLength": self.max_completion_length,
            }
        )


class ChallengerGrpo(Grpo):
    """GRPO of the Challenger: the same settings, the reference's other sizes."""

    max_steps: Annotated[Whole, Field(ge=0, le=1_000_000)] = 5
    """Optimizer steps; 0 leaves the Challenger untrained (the control arm)."""
    prompts_per_step: Annotated[Whole, Field(ge=1, le=1_000_000)] = 512
    """Prompts of one step; all are the same Challenger prompt, each gets numGenerations completions."""
    num_generations: Annotated[Whole, Field(ge=2, le=1024)] = 4
    """Group size: completions of one prompt, among which advantages are normalised."""
