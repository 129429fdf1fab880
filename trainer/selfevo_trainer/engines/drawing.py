"""Random draws that belong to (prompt, sample): what else is generated at the same time has no say in them.

transformers samples with one random stream for a whole batch, so the batch's size and order decide who gets which
number. Here each row has a stream of its own, addressed by a counter: draw ``t`` of a row is a hash of (row, t).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from selfevo_contract.spec.sampling import Sampling

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def stream(seed: int, prompt: int, sample: int) -> int:
    """The random stream of one completion, in [0, 2**64). 64 bits, so that two of millions do not meet.

    >>> stream(7, 0, 0) == stream(7, 0, 0), stream(7, 0, 1) == stream(7, 1, 0)
    (True, False)
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{prompt}/{sample}".encode()).digest()[:8], "big")


def completions_of(
    prompts: int, samples: int, seed: int, streams: Sequence[int] | None = None
) -> list[tuple[int, int]]:
    """What `Engine.generate` is asked for, prompt by prompt: the prompt's index and the completion's random stream."""
    numbers = range(prompts) if streams is None else streams
    return [(i, stream(seed, numbers[i], sample)) for i in range(prompts) for sample in range(samples)]


def vllm_seed(own: int) -> int:
    """The seed of a request for the random stream ``own``: vLLM takes signed numbers of 64 bits, of which -1 is none,
    so that 63 bits are left."""
    return own >> 1


def greedy_config(longest: int, ends: Collection[int], pad: int, begin: int | None = None) -> GenerationConfig:
    """Settings of transformers' `generate` that draw nothing themselves: sampling is `processors`'.

    Args:
        longest: most new tokens.
        ends: tokens that end a completion.
    """
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=longest,
        eos_token_id=sorted(ends),
        pad_token_id=pad,
        bos_token_id=begin,
        # These are transformers' defaults: with any others it warns that greedy decoding ignores them.
        do_sample=False,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
    )


def uniform(streams_B: np.ndarray, draw: int) -> np.ndarray:
    """Number ``draw`` of each stream: float64 in (0, 1), of 32 bits, so that no product with a sum rounds up to it.

    Source: SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014), whose n-th
    number is a hash of the state + n * gamma.
    """
    with np.errstate(over="ignore"):  # modulo 2**64, as it is meant
        z = streams_B + np.uint64(draw + 1) * _GAMMA
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    numbers: np.ndarray = ((z >> np.uint64(32)).astype(np.float64) + 0.5) / 2.0**32
    return numbers


class Drawn(LogitsProcessor):
    """Leaves each row the one token that its own stream draws from its distribution (inverse of the distribution
    function, tokens in the order of their ids). Last of the processors, with ``do_sample=False``."""

    def __init__(self, streams: Sequence[int], prompt_length: int) -> None:
        self.streams_B = np.array(streams, dtype=np.uint64)
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Shapes: input_ids (B, length so far), scores (B, V) -> (B, V), 0 for the drawn token and -inf elsewhere.

        Raises:
            RuntimeError: scores are NaN or infinite; in the words of torch.multinomial, which context.py knows.
        """
        numbers_B = torch.from_numpy(uniform(self.streams_B, input_ids.shape[1] - self.prompt_length))
        # float32 sums of a large vocabulary's tail would depend on their order
        cdf_BV = torch.softmax(scores.float(), dim=-1).cumsum(dim=-1, dtype=torch.float64)
        if not torch.isfinite(cdf_BV[:, -1]).all():
            raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
        wanted_B1 = numbers_B.to(cdf_BV.device)[:, None] * cdf_BV[:, -1:]
        # The first token whose sum is above: never one of probability 0.
        token_B1 = torch.searchsorted(cdf_BV, wanted_B1, right=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, token_B1, 0.0)


def processors(sampling: Sampling, streams: Sequence[int], prompt_length: int) -> LogitsProcessorList:
    """What makes `generate(do_sample=False)` sample: temperature, top-k, top-p in their order, then the draw."""
    warpers = LogitsProcessorList()
    if sampling.temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    warpers.append(Drawn(streams, prompt_length))
    return warpers
