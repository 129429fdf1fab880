"""What vLLM has to know of adapters before it starts: room for the largest, and which modules they are beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfevo_contract.errors import InputError
from selfevo_trainer.models import adapters

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""vLLM's own list (vllm/config/lora.py, MaxLoRARanks): it has kernels for these."""


@dataclass(frozen=True)
class Room:
    """For some adapters on one base."""

    rank: int
    """vLLM's max_lora_rank."""
    targets: list[str]
    """Endings of modules' names. Without them vLLM adapts the output layer too, whose log-probabilities of prompts then
    fail."""


def room_for(folders: Sequence[Path]) -> Room:
    """Room for the adapters in ``folders``, at least one.

    Raises:
        InputError: a rank is larger than any that vLLM has kernels for.
    """
    forms = [adapters.form_of(folder) for folder in folders]
    largest = max(rank for rank, _ in forms)
    if largest > _RANKS[-1]:
        raise InputError(
            f"grpo.lora.rank is {largest}, and vLLM takes adapters of at most {_RANKS[-1]}; lower it, or choose "
            "engine.kind 'transformers'"
        )
    rank = next(room for room in _RANKS if room >= largest)
    return Room(rank, sorted({target for _, targets in forms for target in targets}))
