"""The policy's completions of a step are generated in parts of a bounded number of tokens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from selfevo_trainer.grpo import generation
from selfevo_trainer.grpo.generation import cut, generate_in_parts
from selfevo_trainer.grpo.snapshots import set_random_state
from selfevo_trainer.process.clock import Clock
from selfevo_trainer.process.signals import Interrupted

pytestmark = pytest.mark.slow  # transformers and TRL are a worker's first ten seconds


@pytest.mark.parametrize(
    ("sequences", "each", "budget", "sizes"),
    [
        (10, 100, 1000, [10]),
        (10, 100, 999, [5, 5]),
        (10, 100, 400, [4, 3, 3]),
        (3, 100, 1, [1, 1, 1]),  # one sequence is generated whatever it takes
        (1, 5, 10**9, [1]),
    ],
)
def test_parts_are_even_and_within_the_budget(sequences: int, each: int, budget: int, sizes: list[int]) -> None:
    parts = cut(sequences, each, budget)
    assert [end - begin for begin, end in parts] == sizes
    assert parts[0][0] == 0 and parts[-1][1] == sequences
    assert all(before[1] == after[0] for before, after in itertools.pairwise(parts))


def test_trl_gets_what_one_call_would_give_padded_to_the_longest_part() -> None:
    asked: list[int] = []

    def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> torch.Tensor:
        """Repeats each prompt's first token as often as it says, as long as the part's longest needs it."""
        assert len(input_ids) == len(attention_mask)
        asked.append(len(input_ids))
        first = input_ids[:, :1]
        steps = torch.arange(int(first.max()))
        return torch.cat([input_ids, torch.where(steps < first, first, 0)], dim=1)

    model = SimpleNamespace(generate=generate)
    clock = Clock()
    context: Any = SimpleNamespace(clock=clock, rank=SimpleNamespace(size=1), stop=SimpleNamespace(requested=False))
    generate_in_parts(context, model, budget=14)
    ids = torch.tensor([[1, 9], [2, 9], [3, 9], [1, 9], [1, 9]])
    config = SimpleNamespace(max_new_tokens=5, pad_token_id=0)
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    assert asked == [2, 2, 1]  # seven tokens each
    assert out.tolist() == [[1, 9, 1, 0, 0], [2, 9, 2, 2, 0], [3, 9, 3, 3, 3], [1, 9, 1, 0, 0], [1, 9, 1, 0, 0]]
    assert clock.seconds["generation"] > 0
    assert clock.tokens == 1 + 2 + 3 + 1 + 1  # padding was not generated


class Kept:
    """A `Keeper` with what an earlier attempt had."""

    def __init__(self, parts: Sequence[torch.Tensor] = (), random: Any = None) -> None:
        self.taken = (list(parts), random) if parts else None
        self.kept: list[tuple[list[Any], float, int]] = []

    def take_parts(self) -> Any:
        taken, self.taken = self.taken, None
        return taken

    def keep_parts(self, parts: Sequence[torch.Tensor], random: Any, number: int) -> None:
        with torch.random.fork_rng():
            set_random_state(random)
            self.kept.append(([part.tolist() for part in parts], float(torch.rand(1)), number))


@pytest.mark.parametrize(
    ("together", "others", "expected"),
    [(False, 4, (2, 6)), (True, 4, (2, 4)), (True, 1, (1, 2)), (True, 0, None), (False, 0, (2, 2))],
)
def test_processes_that_stop_keep_what_is_whole_and_as_much_in_each_where_they_go_together(
    monkeypatch: pytest.MonkeyPatch, together: bool, others: int, expected: tuple[int, int] | None
) -> None:
    stop = SimpleNamespace(requested=False)
    calls: list[int] = []
    drawn: list[float] = []

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        calls.append(1)
        stop.requested = len(calls) == 3  # it comes within the third part, which may be cut off
        drawn.append(float(torch.rand(1)))
        return torch.cat([input_ids, input_ids], dim=1)

    monkeypatch.setattr(
        generation.collective, "all_gather", lambda values: [*values, others]
    )  # of parts; and of prompts
    context: Any = SimpleNamespace(clock=Clock(), rank=SimpleNamespace(size=2), stop=stop)
    model, keeper = SimpleNamespace(generate=generate), Kept()
    generate_in_parts(context, model, budget=7, keeper=keeper, together=together)
    ids = torch.arange(1, 11).reshape(5, 2)
    config = SimpleNamespace(max_new_tokens=5, pad_token_id=0)
    torch.manual_seed(0)
    with pytest.raises(Interrupted):
        model.generate(input_ids=ids, generation_config=config)
    assert len(drawn) == 3
    if expected is None:
        assert keeper.kept == []
        return
    own, number = expected
    whole = [[[a, b, a, b]] for a, b in ids.tolist()]
    assert keeper.kept == [(whole[:own], drawn[own], number)]  # what comes next is drawn as it was

    stop.requested, seen = False, list(drawn)
    again = SimpleNamespace(
        generate=lambda input_ids, **_: drawn.append(float(torch.rand(1))) or torch.cat([input_ids] * 2, dim=1)
    )
    del drawn[:]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(own):
            torch.rand(1)
        begun = Kept([torch.tensor(part) for part in whole[:own]], generation.random_state())
    monkeypatch.setattr(generation.collective, "any_rank", bool)
    generate_in_parts(context, again, budget=7, keeper=begun)
    out = again.generate(input_ids=ids, generation_config=config)
    assert out.tolist() == [rows[0] for rows in whole]
    assert len(drawn) == 5 - own and drawn[: 3 - own] == seen[own:]


@pytest.mark.parametrize(
    ("sizes", "others", "together", "reused"),
    [
        ([2, 2], 2, True, True),
        ([2, 2], 1, False, True),  # each goes its way
        ([2, 2], 1, True, False),  # they would go through other parts
        ([3, 2], 2, True, False),  # cut by another longest prompt
        ([2, 2, 1, 1], 4, False, False),
    ],
)
def test_parts_of_a_training_that_cut_elsewhere_are_generated_again(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], others: int, together: bool, reused: bool
) -> None:
    asked: list[int] = []

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        asked.append(len(input_ids))
        return torch.cat([input_ids, input_ids], dim=1)

    monkeypatch.setattr(generation.collective, "all_gather", lambda values: [*values, others])
    monkeypatch.setattr(generation.collective, "any_rank", bool)
    context: Any = SimpleNamespace(clock=Clock(), rank=SimpleNamespace(size=2), stop=SimpleNamespace(requested=False))
    ids = torch.arange(10).reshape(5, 2)
    kept = [torch.cat([part, part], dim=1) for part in torch.zeros(sum(sizes), 2, dtype=torch.long).split(sizes)]
    model = SimpleNamespace(generate=generate)
    generate_in_parts(context, model, budget=14, keeper=Kept(kept, generation.random_state()), together=together)
    out = model.generate(input_ids=ids, generation_config=SimpleNamespace(max_new_tokens=5, pad_token_id=0))
    assert len(out) == 5
    assert asked == ([1] if reused else [2, 2, 1])
