"""Generation in the trainer's own process by vLLM.

vLLM runs inside this process, and not as a child as is its default: what goes wrong at its start is an exception here
and no line in a child's log, requests are batched alike each time, and a CPU's threads stay as they were bound. One of
several training processes cannot have it so, for vLLM would take their process group for its own: there it is a child.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from selfevo_contract.errors import InputError, ServiceError
from selfevo_contract.spec import engines
from selfevo_contract.spec.sampling import Sampling
from selfevo_trainer.engines import vllm_adapters
from selfevo_trainer.engines.base import Completion, Frozen
from selfevo_trainer.engines.drawing import completions_of
from selfevo_trainer.engines.vllm_limits import Limits, limits, start_error
from selfevo_trainer.engines.vllm_process import library, random_state_kept, request, surroundings, threads_kept
from selfevo_trainer.models import adapters
from selfevo_trainer.models.loading import (
    eos_token_ids,
    first_line,
    load_config,
    load_generation_config,
    load_tokenizer,
    not_finite,
)
from selfevo_trainer.prompts import Messages, encode_all

_HOTTEST = 2.0


def open_engine(settings: engines.VllmEngine, weights: Frozen) -> VllmEngine:
    """The engine with ``weights``.

    Raises:
        InputError: vLLM is not installed, does not support the model, or has not the memory for it.
    """
    return VllmEngine(settings, weights)


class VllmEngine:
    """vLLM's offline engine: a request for each (prompt, sample), with a seed of its own."""

    def __init__(self, settings: engines.VllmEngine, weights: Frozen) -> None:
        self.is_child = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.llm: Any = None
        self.adapter: Any = None
        """What names the adapter in every request; None for whole weights."""
        self.sleeps = self.asleep = False
        with random_state_kept(self.is_child):
            self.vllm = library("engine.kind")
            self._open(settings, weights)

    def _open(self, settings: engines.VllmEngine, weights: Frozen) -> None:
        self.tokenizer = load_tokenizer(weights.path, weights.loading)
        config = load_config(weights.path, weights.loading)
        generation_config = load_generation_config(weights.path, weights.loading)
        self.eos = eos_token_ids(generation_config, self.tokenizer, weights.loading)
        fixed = limits(settings, weights, config, gpus=1 if self.is_child else torch.cuda.device_count())
        with threads_kept(), surroundings(self.is_child):
            try:
                self.llm = self._start(settings, weights, fixed)
                # Some of what it does not support shows when it computes, and no weight says that it overflows.
                first = self.score([list(range(min(8, len(self.tokenizer))))])
            except Exception as error:
                self.close()
                raise start_error(error, self.vllm.__version__, settings, weights, config) from error
        self.longest = int(self.llm.model_config.max_model_len)
        if not np.isfinite(first).all():
            self.close()
            raise not_finite(weights.path, weights.loading)

    def _start(self, settings: engines.VllmEngine, weights: Frozen, fixed: Limits) -> Any:
        from vllm.platforms import current_platform

        on_cpu = current_platform.is_cpu()
        # The CPU build has no sleep mode, nor has a CPU a second memory.
        self.sleeps = settings.enable_sleep_mode and weights.beside_training and not on_cpu
        # Of a prompt that is cut it takes a draw back, which a CPU's generators cannot (gpu_model_runner, set_offset).
        own: dict[str, Any] = {"enable_chunked_prefill": False} if on_cpu else {}
        if adapters.is_adapter(weights.path):
            from vllm.lora.request import LoRARequest

            room = vllm_adapters.room_for([weights.path])
            own |= {"enable_lora": True, "max_lora_rank": room.rank, "lora_target_modules": room.targets}
            self.adapter = LoRARequest("adapter", 1, str(weights.path))
        return self.vllm.LLM(
            model=str(adapters.whole(weights.path)),
            **own,
            # Prompts are token ids and answers are decoded here, so that every engine has one tokenizer: ours.
            skip_tokenizer_init=True,
            trust_remote_code=weights.loading.trust_remote_code,
            # "auto" would load float32 weights in 16 bits.
            dtype=weights.loading.dtype,
            quantization=weights.loading.quantization,
            load_format="safetensors",
            max_model_len=fixed.max_model_length,
            max_num_seqs=settings.max_sequences,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            tensor_parallel_size=fixed.tensor_parallel_size,
            # On a CPU compiling takes minutes and a C++ compiler.
            enforce_eager=settings.enforce_eager or on_cpu,
            enable_prefix_caching=True,
            enable_sleep_mode=self.sleeps,
            # The model's own sampling habits have no say.
            generation_config="vllm",
            disable_log_stats=True,
        )

    def generate(
        self,
        prompts: Sequence[Messages],
        sampling: Sampling,
        samples: int,
        seed: int,
        streams: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """See `Engine.generate`."""
        if not prompts:
            return []
        ids = encode_all(self.tokenizer, prompts)
        self._check(ids, sampling)
        rows = completions_of(len(ids), samples, seed, streams)
        made = self._ask([ids[i] for i, _ in rows], [request(sampling, self.eos, own) for _, own in rows])
        tokens = [list(output.outputs[0].token_ids) for output in made]
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        found: list[list[Completion]] = [[] for _ in prompts]
        for (i, _), text, row in zip(rows, texts, tokens, strict=True):
            found[i].append(Completion(text, len(row), row[-1] not in self.eos))
        return found

    def _ask(self, ids: list[list[int]], parameters: list[Any]) -> list[Any]:
        """vLLM's outputs, in order.

        Raises:
            InputError: the GPU's memory ran out.
            ServiceError: vLLM's process has ended.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        requests = [{"prompt_token_ids": row} for row in ids]
        try:
            with random_state_kept(self.is_child), self._awake():
                made: list[Any] = self.llm.generate(requests, parameters, use_tqdm=False, lora_request=self.adapter)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"the GPU's memory ran out while vLLM generated ({first_line(error)}); lower engine.maxSequences or "
                "engine.gpuMemoryUtilization"
            ) from error
        except EngineDeadError as error:
            raise ServiceError("vLLM's process ended while it generated; its log above says why") from error
        if bad := [output for output in made if not output.finished or not output.outputs[0].token_ids]:
            raise ServiceError(f"vLLM gave no answer to {len(bad)} of {len(made)} requests; its log above says why")
        return made

    @contextlib.contextmanager
    def _awake(self) -> Iterator[None]:
        """What is asked for within it is answered; outside of it vLLM sleeps, where that is asked for."""
        if self.asleep:
            torch.cuda.empty_cache()  # what the training has freed is torch's until then
            self.llm.wake_up()
            self.asleep = False
        yield
        if self.sleeps:
            self.llm.sleep(level=1)  # the same weights come back
            self.asleep = True

    def _check(self, ids: list[list[int]], sampling: Sampling) -> None:
        if sampling.temperature > _HOTTEST:
            raise InputError(
                f"temperature is {sampling.temperature:g}, and vLLM takes at most {_HOTTEST:g}; lower it, or choose "
                "engine.kind 'transformers'"
            )
        longest = max(map(len, ids))
        if longest + sampling.max_completion_length > self.longest:
            raise InputError(
                f"a prompt of {longest} tokens and maxCompletionLength {sampling.max_completion_length} are more than "
                f"the {self.longest} tokens that vLLM has room for; shorten one of them, or raise "
                "engine.maxModelLength where the model and the memory allow it"
            )

    def score(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """See `Engine.score`."""
        ids = [list(row) for row in rows]
        parameters = self.vllm.SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        made = self._ask(ids, [parameters] * len(ids))
        return [
            [entry[token].logprob for token, entry in zip(row[1:], output.prompt_logprobs[1:], strict=True)]
            for row, output in zip(ids, made, strict=True)
        ]

    def close(self) -> None:
        """Give the memory back: processes and process groups too, so that another model can be opened here."""
        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
        if self.is_child:
            gc.collect()
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()
