"""The interface, and the choice of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from selfevo_contract.errors import InputError
from selfevo_contract.grpo import Sampling
from selfevo_contract.inputs import Loading
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
        self, prompts: Sequence[Messages], sampling: Sampling, samples: int, seed: int
    ) -> list[list[Completion]]:
        """``samples`` completions of each prompt.

        The result depends on the arguments and the weights alone, never on the process's random state, and leaves that
        state as it was: a resumed run generates what the undisturbed one did.

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
