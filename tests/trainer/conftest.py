"""Fixtures of the trainer's tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import pytest

from harness.inprocess import Phases, sigterm
from harness.triad import Triad, through


@pytest.fixture(scope="session")
def triad(tmp_path_factory: pytest.TempPathFactory) -> Triad:
    """A run with a Verifier, an iteration of which is done."""
    made = Triad(tmp_path_factory.mktemp("triad"))
    steps = ("challenger-train-1", "solver-rollout-1", "verifier-train-1", "solver-train-1")
    through(made.variant(), "verifier-train-0", *steps)
    return made


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


@pytest.fixture
def killed_until_done(before_calls: Callable[[Callable[[int], None]], list[int]]) -> Callable[..., tuple[Phases, int]]:
    """Makes a step that is killed again and again, at random calls of the engine, until it is committed."""

    def play(
        cut: Callable[[int], Phases],
        step: str,
        shards: Sequence[int],
        committed: Callable[[Phases], Collection[Any]],
        *,
        kills: int,
        calls: int,
        attempts: int,
    ) -> tuple[Phases, int]:
        """The run, and the completions that were asked for in all.

        Args:
            cut: the run with so many shards; ``shards`` has their number for each attempt, over and over.
            committed: what the step has committed so far, which has to stay.
            kills: how often it is killed, each time within ``calls`` calls; in fewer than ``attempts`` attempts.
        """
        rng = random.Random(len(shards))
        killed = until_kill = attempt = 0

        def maybe(_: int) -> None:
            nonlocal killed, until_kill
            until_kill -= 1
            if until_kill < 0 and killed < kills:
                killed += 1
                sigterm()

        asked = before_calls(maybe)
        phases = cut(shards[0])
        done: Collection[Any] = []
        while phases.manifest(step) is None:
            count = shards[attempt % len(shards)]
            phases = cut(count)
            attempt += 1
            assert attempt < attempts
            for shard in range(count):
                until_kill = rng.randrange(calls)
                ended = phases(step, shard)
                assert ended.code == (0 if ended.result.outcome in ("shard", "committed", "found") else 143), ended.log
                assert set(done) <= set(committed(phases)), "what is committed stays"
                done = committed(phases)
        assert killed == kills
        return phases, sum(asked)

    return play
