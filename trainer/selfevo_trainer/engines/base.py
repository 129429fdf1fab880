"""The interface, and the choice of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from selfevo_contract.errors import InputError
from selfevo_contract.grpo import Sampling
from selfevo_contract.phases import Loading
from selfevo_contract.spec import Engine as EngineSpec
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


def open_engine(spec: EngineSpec, model: Path, loading: Loading) -> Engine:
    """The engine that ``spec`` asks for, with the weights at ``model``.

    Raises:
        InputError: the kind is not built yet.
    """
    if spec.kind == "transformers":
        from selfevo_trainer.engines.transformers_engine import TransformersEngine

        return TransformersEngine(model, loading, spec.batch_size)
    raise InputError(f"engine.kind {spec.kind!r} is not built yet; use 'transformers'", reason="NotBuilt")
