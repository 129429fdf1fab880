"""Fixtures of the trainer's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def before_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[int], None]], list[int]]]:
    """Calls a function before every call of the engine, with the number of completions that are asked for."""
    from selfevo_trainer.engines.transformers_engine import TransformersEngine

    real = TransformersEngine.generate

    def arrange(happen: Callable[[int], None]) -> list[int]:
        asked: list[int] = []

        def generate(self: Any, prompts: Any, sampling: Any, samples: int, *rest: Any) -> Any:
            happen(len(prompts) * samples)
            completions = real(self, prompts, sampling, samples, *rest)
            asked.append(len(prompts) * samples)
            return completions

        monkeypatch.setattr(TransformersEngine, "generate", generate)
        return asked

    yield arrange
