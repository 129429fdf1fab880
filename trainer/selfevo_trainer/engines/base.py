"""The interface of all engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from selfevo_contract.phases import Loading
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


@dataclass(frozen=True)
class Frozen:
    """The weights that an engine serves, and what it must have room for."""

    path: Path
    """A folder with config.json, tokenizer and safetensors."""
    loading: Loading
    name: str
    """Which model it is, for servers and messages: ``<phase>/<key>`` of its step, or the address of the base."""
    role: str
    """The field of the phase's inputs that names it: ``challenger``, ``solver``, ``model``."""
    longest: int
    """Most tokens of a prompt and its completion together; 0 when nothing bounds the prompt."""
    beside_training: bool = False
    """Other weights are trained in the same process between two calls, on the same GPU."""


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

    def score(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability (natural logarithm) of every token of each row but its first, given the tokens before it, at
        temperature 1 and over the whole vocabulary. Shapes: rows of L >= 2 token ids -> rows of L - 1 numbers."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...
