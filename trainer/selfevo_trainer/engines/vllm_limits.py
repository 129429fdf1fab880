"""What vLLM is given of a machine and a model, and the errors when that does not go together. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selfevo_contract.errors import InputError
from selfevo_contract.spec import engines
from selfevo_trainer.engines.base import Frozen
from selfevo_trainer.models.loading import first_line

_AUTO = -1
"""vLLM's own word for «as long as the model and the memory allow»."""
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # nothing is sent to anybody
    # FlashInfer's sampler knows no seed of a request, so that vLLM passes it over for ours; yet it would be compiled at
    # the start, by an nvcc that no image has (vllm/v1/worker/gpu/sample/sampler.py).
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
}
"""Of every vLLM, in this process or a server of its own."""
OF_A_RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables of a process among those that train, which a vLLM beside it is none of."""
_LEAST = 256
"""Tokens for which there is room in any case: what an engine is asked to score may be longer than what it answers."""
MEMORY = (
    "memory utilization",
    "cache blocks",
    "KV cache memory",
    "Available memory on node",
    "out of memory",
    "OutOfMemoryError",
)
"""How vLLM's and torch's errors read when the memory is too small."""


@dataclass(frozen=True)
class Limits:
    """What is settled before vLLM starts."""

    max_model_length: int
    """Tokens of a prompt and its completion; -1: as long as the model and the memory allow."""
    tensor_parallel_size: int


def limits(settings: engines.VllmEngine, weights: Frozen, config: Any, gpus: int) -> Limits:
    """See `Limits`.

    Args:
        config: the model's configuration, of transformers.
        gpus: how many this process may use; 0 on a machine without any.

    Raises:
        InputError: a setting is not possible with this model or on this machine.
    """
    text = config.get_text_config()
    return Limits(_max_model_length(settings, weights, text), _tensor_parallel_size(settings, text, max(gpus, 1)))


def _max_model_length(settings: engines.VllmEngine, weights: Frozen, config: Any) -> int:
    positions = getattr(config, "max_position_embeddings", None)
    wanted = settings.max_model_length
    if wanted is None:
        if not weights.longest:
            return _AUTO
        # Where the model has fewer positions, prompts may still be shorter than allowed; generate() checks each.
        return min(max(weights.longest, _LEAST), positions or weights.longest)
    if positions is not None and wanted > positions:
        raise InputError(
            f"engine.maxModelLength is {wanted}, and the model in {weights.path} has {positions} positions "
            "(max_position_embeddings in config.json); lower it"
        )
    return wanted


def _tensor_parallel_size(settings: engines.VllmEngine, config: Any, gpus: int) -> int:
    wanted = settings.tensor_parallel_size
    if wanted is None:
        return max(size for size in _splits(config) if size <= gpus)
    check_split("engine.tensorParallelSize", wanted, config)
    if wanted > gpus:
        raise InputError(
            f"engine.tensorParallelSize is {wanted}, and this process has {gpus} GPU{'s' * (gpus > 1)}; lower it, or "
            "give the pods more in resources.limits"
        )
    return wanted


def _splits(config: Any) -> list[int]:
    """Over how many GPUs the model can be split."""
    heads = config.num_attention_heads
    of_values = getattr(config, "num_key_value_heads", None) or heads
    return [
        size
        for size in range(1, heads + 1)
        # Fewer key-value heads than GPUs are copied.
        if heads % size == 0 and (of_values % size == 0 or size % of_values == 0)
    ]


def check_split(field: str, wanted: int, config: Any) -> None:
    """Raises InputError when the model cannot be split over as many GPUs as ``field`` wants."""
    possible, heads = _splits(config), config.num_attention_heads
    if wanted not in possible:
        raise InputError(
            f"{field} is {wanted}, which does not divide the model's {heads} attention heads "
            f"({getattr(config, 'num_key_value_heads', None) or heads} of keys and values); choose one of "
            f"{', '.join(map(str, possible))}"
        )


def start_error(
    error: Exception, version: str, settings: engines.VllmEngine, weights: Frozen, config: Any
) -> InputError:
    """The error for an exception that vLLM raised at its start."""
    raised = f"{type(error).__name__}: {error}"
    other = "choose engine.kind 'transformers'"
    if (why := memory_reason(error)) is not None:
        return InputError(
            f"the memory is too small for vLLM with engine.gpuMemoryUtilization {settings.gpu_memory_utilization:g} "
            f"({why}); change that share, lower engine.maxModelLength or engine.maxSequences, or "
            "take a larger GPU"
        )
    if any(words in raised.lower() for words in ("head_size", "head size", "head_dim")):
        text = config.get_text_config()
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return InputError(
            f"vLLM {version} does not support the attention heads of the model in {weights.path}, which have {size} "
            f"elements (head_dim); {other}"
        )
    if "architectures" in raised:
        architecture = (getattr(config, "architectures", None) or [config.model_type])[0]
        return InputError(f"vLLM {version} does not support the architecture {architecture!r}; {other}")
    return InputError(
        f"vLLM {version} cannot serve the model in {weights.path} ({first_line(error)}); its log above may say more; "
        f"{other}"
    )


def memory_reason(error: Exception) -> str | None:
    """The line of ``error`` that says that the memory is too small; None when it says something else."""
    if not any(words in f"{type(error).__name__}: {error}" for words in MEMORY):
        return None
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    return next((line for line in lines if any(word in line for word in MEMORY)), first_line(error))[:300]
