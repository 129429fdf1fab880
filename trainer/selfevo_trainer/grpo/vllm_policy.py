"""The policy's own generation by vLLM: which mode, what both have in common, and TRL's vllm_mode="colocate", in the
training process; `vllm_served` has the other.

TRL brings the weights over before a step's completions are drawn, corrects the loss for what vLLM computes otherwise,
and measures that difference. What is ours: vLLM is opened as our engines open theirs (dtype given, the model's own
sampling habits without a say, no log), each completion has a seed of its own, and ends where ours end.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import ensure_master_addr_port

from selfevo_contract import reasons
from selfevo_contract.errors import InputError, ServiceError
from selfevo_contract.phases import GrpoInputs
from selfevo_contract.process import MASTER_PORT_ENV
from selfevo_contract.spec.grpo import Grpo
from selfevo_trainer.context import Context
from selfevo_trainer.distributed import collective
from selfevo_trainer.engines.drawing import stream
from selfevo_trainer.engines.vllm_limits import memory_reason
from selfevo_trainer.engines.vllm_process import library, random_state_kept, request, surroundings, threads_kept
from selfevo_trainer.grpo.vllm_served import PolicyByServer
from selfevo_trainer.models.loading import first_line

DIFFERENCE = "sampling/sampling_logp_difference/mean"
"""TRL's metric: |log-probability by vLLM - by the policy| of a step's tokens, on average."""
LARGEST_DIFFERENCE = 0.05
"""Above it vLLM serves other weights."""
_FIELD = "grpo.generation"


def take_over(context: Context, trainer: GRPOTrainer, inputs: GrpoInputs, longest_prompt: int) -> Policy:
    """Have vLLM generate for ``trainer`` from now on.

    Args:
        longest_prompt: tokens of the training's longest prompt.

    Raises:
        InputError: vLLM is not installed, cannot be given new weights here, does not support the model, or has not the
            memory for it.
        ServiceError: its server does not become ready.
    """
    check_machine()
    served = inputs.grpo.policy_server is not None
    policy: Any = (PolicyByServer if served else PolicyByVllm)(context, trainer, inputs, longest_prompt)
    # As its __init__ sets them for use_vllm, which would open vLLM with the dtype that the folder's config.json names.
    trainer.use_vllm = True
    trainer.vllm_mode = "server" if served else "colocate"
    trainer.vllm_generation = policy
    trainer._last_loaded_step = -1
    made: Policy = policy
    return made


def check_machine() -> None:
    """Raises InputError where vLLM cannot be given new weights: its CPU build packs them once, when it loads them."""
    if not torch.cuda.is_available():
        raise InputError(f"{_FIELD} is 'vllm', and there is no GPU here; choose {_FIELD} 'transformers'")


def check_difference(grpo: Grpo, history: Sequence[Mapping[str, Any]]) -> None:
    """Raises ServiceError when vLLM's log-probabilities say that it does not serve the policy's weights.

    vLLM's are those that it draws from. A topP leaves at least that share of the probability, which makes the rest at
    most -log(topP) likelier; what a topK leaves is not known, so that nothing is judged then.

    Args:
        history: TRL's metrics, a row for each update.
    """
    difference = next((row[DIFFERENCE] for row in reversed(history) if DIFFERENCE in row), 0.0)
    limit = LARGEST_DIFFERENCE - math.log(grpo.top_p)
    if not grpo.top_k and difference > limit:
        raise ServiceError(
            f"vLLM finds the tokens that it generated otherwise likely than the weights in training do ({DIFFERENCE} "
            f"{difference:.3g}, at most {limit:.3g}): it serves other weights; try again, or choose {_FIELD} "
            "'transformers'",
            reason=reasons.OTHER_WEIGHTS_SERVED,
        )


class PolicyByVllm(VLLMGeneration):
    """TRL's vLLM of one training process."""

    def __init__(self, context: Context, trainer: Any, inputs: GrpoInputs, longest_prompt: int) -> None:
        grpo = inputs.grpo
        self._context, self._trainer, self._inputs = context, trainer, inputs
        self.llm: Any = None
        super().__init__(
            trainer.model,
            trainer.accelerator,
            trainer.processing_class,
            mode="colocate",
            gpu_memory_utilization=grpo.vllm_gpu_memory_utilization,
            max_model_length=longest_prompt + grpo.max_completion_length,
            enable_sleep_mode=grpo.vllm_enable_sleep_mode and torch.cuda.is_available(),
        )

    def _init_vllm(self) -> None:
        grpo, loading = self._inputs.grpo, self._inputs.loading
        vllm = library(_FIELD)
        with threads_kept(), random_state_kept(is_child=False), surroundings(child=False):
            os.environ |= {
                "RANK": str(self.accelerator.process_index),
                "LOCAL_RANK": str(self.accelerator.local_process_index),
                "WORLD_SIZE": str(self.accelerator.num_processes),
            }
            if self.accelerator.num_processes == 1:
                os.environ.pop(MASTER_PORT_ENV, None)  # it joins nobody: any port will do, and this one may be taken
            ensure_master_addr_port()
            try:
                self.llm = vllm.LLM(
                    model=self.model.name_or_path,
                    skip_tokenizer_init=True,
                    trust_remote_code=loading.trust_remote_code,
                    # "auto" would load float32 weights in 16 bits.
                    dtype=loading.dtype,
                    load_format="safetensors",
                    max_model_len=self.max_model_length,
                    gpu_memory_utilization=self.gpu_memory_utilization,
                    enable_sleep_mode=self.enable_sleep_mode,
                    # The process and its group are the training's: vLLM starts none of its own.
                    distributed_executor_backend="external_launcher",
                    # On a CPU compiling takes minutes and a C++ compiler.
                    enforce_eager=not torch.cuda.is_available(),
                    enable_prefix_caching=True,
                    # The correction of the loss wants the probabilities that were drawn from.
                    logprobs_mode="processed_logprobs",
                    generation_config="vllm",
                    disable_log_stats=True,
                )
                if self.enable_sleep_mode:
                    self.llm.sleep(level=2)
            except Exception as error:
                raise _start_error(error, vllm.__version__, grpo.vllm_gpu_memory_utilization) from error
        self._llm_weights_sleeping = self.enable_sleep_mode
        self.accelerator.wait_for_everyone()

    def sync_weights(self) -> None:
        """See VLLMGeneration; the time counts as generation."""
        with self._context.clock.during("generation"):
            super().sync_weights()  # type: ignore[no-untyped-call]

    def generate(
        self, prompts: list[list[int]], images: Any, num_generations: int, profiler: Any = None
    ) -> tuple[list[list[int]], list[list[int]], list[list[list[float]]], None]:
        """See VLLMGeneration.generate; a row for each completion of this process.

        A completion's random numbers belong to its number among all of the step, so that a resumed step draws the same.
        """
        if self._llm_weights_sleeping:
            self.sync_weights()
        seed, step = self._inputs.seed, self._trainer.state.global_step
        first = collective.rank() * len(prompts)
        sampling, ends = self._inputs.grpo.sampling, self.model.generation_config.eos_token_id
        parameters = [
            request(sampling, ends, stream(seed, step, first + row), logprobs=0) for row in range(len(prompts))
        ]
        with self._context.clock.during("generation"), random_state_kept(is_child=False), profiler or nullcontext():
            if self.enable_sleep_mode:
                self.llm.wake_up(tags=["kv_cache"])
            made = self.llm.generate([{"prompt_token_ids": ids} for ids in prompts], parameters, use_tqdm=False)
            if self.enable_sleep_mode:
                self.llm.sleep(level=2)
                self._llm_weights_sleeping = True
        outputs = [output.outputs[0] for output in made]
        if bad := sum(not output.token_ids for output in outputs):
            raise ServiceError(f"vLLM gave no completion to {bad} of {len(made)} requests; its log above says why")
        tokens = [list(output.token_ids) for output in outputs]
        self._context.clock.tokens += sum(map(len, tokens))
        logprobs = [
            [[entry[token].logprob] for token, entry in zip(row, output.logprobs, strict=True)]
            for row, output in zip(tokens, outputs, strict=True)
        ]
        return prompts, tokens, logprobs, None

    def close(self) -> None:
        """Give the memory back."""
        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None


Policy = PolicyByServer | PolicyByVllm


def _start_error(error: Exception, version: str, share: float) -> InputError:
    other = f"choose {_FIELD} 'transformers'"
    if (why := memory_reason(error)) is not None:
        return InputError(
            f"the memory is too small for vLLM beside the training, with grpo.vllmGpuMemoryUtilization {share:g} "
            f"({why}); change that share, take larger GPUs, or {other}"
        )
    return InputError(
        f"vLLM {version} cannot generate for the model in training ({first_line(error)}); its log above may say more; "
        f"{other}"
    )
