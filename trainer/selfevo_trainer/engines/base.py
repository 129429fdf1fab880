"""The interface of all engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from selfevo_contract.spec.sampling import Sampling
from selfevo_trainer.prompts import Messages


@dataclass(frozen=True)
class Completion:
    """One sampled text."""

    text: str
    tokens: int
    """Generated tokens, the end token included."""
    truncated: bool
    """It was cut at maxCompletionLength."""


class Engine(Protocol):
    """Generates text with frozen weights."""

    def generate(
        self,
        prompts: Sequence[Messages],
        sampling: Sampling,
        samples: int,
        seed: int,
        streams: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """``samples`` completions of each prompt.

        A random stream belongs to (seed, number of the prompt, number of the sample), never to a batch. So a completion
        depends on those, its prompt, the sampling and the weights alone: not on the engine's batch size, on the order
        of the prompts or on what else is in the call, nor on the process's random state, which is left as it was. That
        holds up to the rounding of logits, which differs in the last bits between batches of other widths: a token
        changes only where the drawn number lies that close to the border between two (tests/trainer/test_engine.py).

        Args:
            streams: the number of each prompt, where the call holds a part of something larger; its index in the call
                when not given. Two prompts with one number and one text get the same completions.

        Returns:
            one list for each prompt, in order, each of length ``samples``.
        """
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...
