"""The settings of training. Names are TRL's (GRPOConfig), in camelCase, wherever TRL has one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.rules import Rule
from selfevo_contract.spec.engines.server import ServerEngine
from selfevo_contract.spec.lora import Lora
from selfevo_contract.spec.sampling import Sampling

LEARNING_RATE = 1e-6
"""AdamW's learning rate for all weights: the paper's and the code's."""
LORA_LEARNING_RATE = 1e-5
"""The same for an adapter, ten times as high: so much higher was the best rate for LoRA than that of full training over
a range of models and tasks (Schulman and Thinking Machines Lab, LoRA Without Regret, 2025)."""


class Grpo(Closed):
    """GRPO (TRL's GRPOTrainer). Defaults are those of R-Zero's public code (docs/method.md, «One step»)."""

    max_steps: Annotated[Whole, Field(ge=0, le=1_000_000)] = 15
    """Steps: in each, promptsPerStep prompts get numGenerations completions, which are then trained on in one or more
    optimizer updates (promptsPerUpdate). 0 leaves the weights as they are. 15 is the paper's and the code's."""
    prompts_per_step: Annotated[Whole, Field(ge=1, le=1_000_000)] = 512
    """Prompts of one step; each gets numGenerations completions. 512 is the code's."""
    prompts_per_update: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = None
    """Prompts of one optimizer update, a divisor of promptsPerStep; promptsPerStep when not given, which makes one
    update of a step. In TRL's arguments, gradient_accumulation_steps makes an update's completions,
    steps_per_generation a step's, and max_steps counts updates. The code takes 128 of 512: four updates a step, of
    which the last three are off-policy, so that the clip range acts. The paper's table says 128 and does not say of
    what."""
    num_generations: Annotated[Whole, Field(ge=2, le=1024)] = 5
    """Group size: completions of one prompt, among which advantages are normalised. 5 is the paper's and the code's."""
    per_device_train_batch_size: Annotated[Whole, Field(ge=1, le=1_000_000)] = 8
    """Completions in one forward and backward pass of one device; gradients are accumulated over the rest."""
    lora: Lora | None = None
    """Train an adapter on the base model, which stays as it is; all weights when not given."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """AdamW's learning rate. When not given: 1e-6, the paper's and the code's, and ten times that with lora."""
    lr_scheduler_type: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant"
    """Schedule of the learning rate."""
    warmup_steps: Annotated[Whole, Field(ge=0, le=1_000_000)] = 0
    """Optimizer updates of linear warm-up."""
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
    delta: Annotated[float, Field(ge=0, le=1000)] = 3.0
    """Dual clip: the ratio is cut at this where the advantage is negative; 0 turns it off. 3 is the code's."""
    loss_type: Literal["grpo", "dapo", "bnpo", "dr_grpo"] = "grpo"
    """How token losses are averaged."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the standard deviation of the group, of the batch, or nothing."""
    num_iterations: Annotated[Whole, Field(ge=1, le=64)] = 1
    """Optimizer passes over the completions of one step (mu in the GRPO paper)."""
    mask_truncated_completions: bool = False
    """Leave completions that hit maxCompletionLength out of the loss."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    sharding: Literal["none", "fsdp"] | None = None
    """`fsdp`: the processes of a training share weights, reference, gradients and AdamW's moments out among them
    (PyTorch's FSDP2), and gather one layer at a time; needs two GPUs or more. `none`, as when not given: each process
    holds all of them. It says how a step is computed and not what, so that it is no input of the step."""
    cpu_offload: bool | None = None
    """With sharding fsdp: each process keeps its share of weights, reference, gradients and AdamW's moments in CPU
    memory (PyTorch's CPUOffloadPolicy). A layer is copied to the GPU when it is gathered, and AdamW computes on the
    CPU. It takes less of the GPU's memory, more of the pod's, and more time; like sharding it is no input of the
    step."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Softmax temperature of the role's completions, in training and in rollout."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Nucleus sampling of the role's completions."""
    top_k: Annotated[Whole, Field(ge=0, le=1_000_000)] = 0
    """Top-k sampling of the role's completions; 0 turns it off."""
    max_completion_length: Annotated[Whole, Field(ge=1, le=1_000_000)] = 4096
    """Longest completion, in tokens."""
    generation_batch_tokens: Annotated[Whole, Field(ge=1, le=1_000_000_000)] = 131_072
    """Tokens of the sequences that one device generates at once, prompts and full completions: a step's completions are
    generated in that many parts. It bounds the memory of keys and values, and has a say in what is drawn. With
    generation vllm, vLLM itself decides."""
    generation: Literal["transformers", "vllm"] = "transformers"
    """What generates the completions of training. `vllm`: vLLM, which gets the new weights before each step; it needs a
    GPU and head sizes that vLLM knows."""
    vllm_mode: Literal["colocate", "server"] | None = None
    """With generation vllm: where vLLM runs. `colocate`, as when not given: in each training process, on the same GPU.
    `server`: one server beside the trainer, with GPUs of its own, which all processes of the pod ask; then weights may
    be sharded. Seeds are the same, and it says where completions are computed and not which: it is no input of the
    step."""
    vllm_tensor_parallel_size: Annotated[Whole, Field(ge=1, le=64)] | None = None
    """With vllmMode server: the server's GPUs, over which its model is split, beside those that train; 1 when not
    given. No input of the step."""
    vllm_gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.3
    """With vllmMode colocate: the share of the GPU's memory that vLLM takes for its copy of the weights and its cache.
    0.3 is TRL's. A server takes 0.9 of its own GPUs."""
    vllm_enable_sleep_mode: bool = True
    """With vllmMode colocate: vLLM gives its memory back while the weights are trained."""
    vllm_importance_sampling_mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = (
        "token_truncate"
    )
    """With generation vllm: how the loss is corrected for tokens that vLLM drew with another probability than training
    computes. TRL's own default, sequence_mask, multiplies over a completion, where a topP below 1 alone shrinks the
    weight of thousands of tokens towards 0; over one token it is at least topP."""
    vllm_importance_sampling_clip_max: Annotated[float, Field(gt=0, le=1000)] = 3.0
    """With generation vllm: the correction's upper limit. 3 is TRL's."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.sharding) || self.sharding != 'fsdp' || self.generation != 'vllm' || (has(self.vllmMode) && "
            "self.vllmMode == 'server')",
            lambda grpo: not (grpo.sharded and grpo.colocated),
            "generation vllm with vllmMode colocate needs whole weights on each GPU, which sharding fsdp does not "
            "have; set vllmMode to server, or choose one of them",
            lambda grpo: (
                f"generation {grpo.generation} with vllmMode {grpo.vllm_mode or 'colocate'} needs whole weights on "
                f"each GPU, which sharding {grpo.sharding} does not have; set vllmMode to server, or choose one of them"
            ),
        ),
        Rule(
            "!has(self.vllmMode) || self.vllmMode != 'server' || self.generation == 'vllm'",
            lambda grpo: grpo.vllm_mode != "server" or grpo.generation == "vllm",
            "vllmMode server says where vLLM generates, and generation is not vllm; set generation to vllm, or remove "
            "vllmMode",
            lambda grpo: (
                f"vllmMode {grpo.vllm_mode} says where vLLM generates, and generation is {grpo.generation}; set "
                "generation to vllm, or remove vllmMode"
            ),
        ),
        Rule(
            "!has(self.vllmTensorParallelSize) || (has(self.vllmMode) && self.vllmMode == 'server')",
            lambda grpo: grpo.vllm_tensor_parallel_size is None or grpo.vllm_mode == "server",
            "vllmTensorParallelSize says how many GPUs a server has, and vllmMode is not server; set vllmMode to "
            "server, or remove vllmTensorParallelSize",
            lambda grpo: (
                f"vllmTensorParallelSize {grpo.vllm_tensor_parallel_size} says how many GPUs a server has, and "
                f"vllmMode is {grpo.vllm_mode or 'colocate'}; set vllmMode to server, or remove vllmTensorParallelSize"
            ),
        ),
        Rule(
            "!has(self.cpuOffload) || !self.cpuOffload || (has(self.sharding) && self.sharding == 'fsdp')",
            lambda grpo: grpo.sharded or not grpo.cpu_offload,
            "cpuOffload keeps in CPU memory what sharding fsdp shares out, and sharding is not fsdp; set sharding to "
            "fsdp, or remove cpuOffload",
            lambda grpo: (
                "cpuOffload keeps in CPU memory what sharding fsdp shares out, and sharding is "
                f"{grpo.sharding or 'none'}; set sharding to fsdp, or remove cpuOffload"
            ),
        ),
        Rule(
            "!has(self.promptsPerUpdate) || self.promptsPerStep % self.promptsPerUpdate == 0",
            lambda grpo: grpo.prompts_per_step % (grpo.prompts_per_update or 1) == 0,
            "promptsPerUpdate does not divide promptsPerStep; choose a divisor of it",
            lambda grpo: (
                f"promptsPerUpdate {grpo.prompts_per_update} does not divide promptsPerStep {grpo.prompts_per_step}; "
                "choose a divisor of it"
            ),
        ),
        Rule(
            "(has(self.promptsPerUpdate) ? self.promptsPerUpdate : self.promptsPerStep) * self.numGenerations % "
            "self.perDeviceTrainBatchSize == 0",
            lambda grpo: grpo.divides_over(1),
            "perDeviceTrainBatchSize does not divide the completions of an update (promptsPerUpdate x numGenerations); "
            "choose a divisor of them",
            lambda grpo: (
                f"perDeviceTrainBatchSize {grpo.per_device_train_batch_size} does not divide the "
                f"{grpo.completions_per_update} completions of an update "
                f"({'promptsPerUpdate' if grpo.prompts_per_update else 'promptsPerStep'} "
                f"{grpo.prompts_per_update or grpo.prompts_per_step} x numGenerations {grpo.num_generations}); "
                f"choose a divisor of {grpo.completions_per_update}"
            ),
        ),
        Rule(
            "self.delta == 0.0 || self.delta > 1.0 + self.epsilonHigh",
            lambda grpo: grpo.delta == 0 or grpo.delta > 1 + grpo.epsilon_high,
            "delta is not above 1 + epsilonHigh, so that it would cut what the clip range allows; raise it, or write 0 "
            "to turn it off",
            lambda grpo: (
                f"delta {grpo.delta} is not above 1 + epsilonHigh {grpo.epsilon_high}, so that it would cut what the "
                "clip range allows; raise it, or write 0 to turn it off"
            ),
        ),
    )

    @property
    def sharded(self) -> bool:
        """Whether the processes of a training share what they hold out among them."""
        return self.sharding == "fsdp"

    @property
    def offloaded(self) -> bool:
        """Whether these shares lie in CPU memory between uses."""
        return self.sharded and bool(self.cpu_offload)

    @property
    def colocated(self) -> bool:
        """Whether vLLM generates in the training process, with whole weights of its own on the same GPU."""
        return self.generation == "vllm" and self.vllm_mode != "server"

    @property
    def policy_server(self) -> ServerEngine | None:
        """The server of the policy's own completions, beside the trainer; None where there is none."""
        if self.generation != "vllm" or self.vllm_mode != "server":
            return None
        return ServerEngine(kind="server", gpus=self.vllm_tensor_parallel_size)

    @property
    def rate(self) -> float:
        """The learning rate: as given, or by what is trained."""
        return self.learning_rate or (LEARNING_RATE if self.lora is None else LORA_LEARNING_RATE)

    @property
    def completions_per_step(self) -> int:
        """Completions of one step over all devices."""
        return self.prompts_per_step * self.num_generations

    def divides_over(self, processes: int) -> bool:
        """Whether ``processes`` can share an update: each makes the same number of full passes."""
        return self.completions_per_update % (self.per_device_train_batch_size * processes) == 0

    @property
    def completions_per_update(self) -> int:
        """Completions of one optimizer update over all devices."""
        return (self.prompts_per_update or self.prompts_per_step) * self.num_generations

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates of one step: its completions cut into updates, numIterations times."""
        return self.completions_per_step // self.completions_per_update * self.num_iterations

    @property
    def updates(self) -> int:
        """Optimizer updates of the whole training: 160 and 60 with the settings of R-Zero's code."""
        return self.max_steps * self.updates_per_step

    def step_of(self, update: int) -> int:
        """The step that optimizer update ``update`` (from 1) belongs to, from 1."""
        return -(-update // self.updates_per_step)

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
    """Steps: in each, promptsPerStep prompts get numGenerations completions, which are then trained on in one or more
    optimizer updates (promptsPerUpdate). 0 leaves the Challenger untrained (the control arm). 5 is the paper's and the
    code's."""
    prompts_per_step: Annotated[Whole, Field(ge=1, le=1_000_000)] = 512
    """Prompts of one step; all are the same Challenger prompt, each gets numGenerations completions. 512 is the
    code's."""
    prompts_per_update: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = None
    """Prompts of one optimizer update, a divisor of promptsPerStep; promptsPerStep when not given, which makes one
    update of a step. The code takes 16 of 512: 32 updates a step."""
    num_generations: Annotated[Whole, Field(ge=2, le=1024)] = 4
    """Group size: completions of one prompt, among which advantages are normalised. 4 is the paper's and the code's."""
