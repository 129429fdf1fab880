"""The policy's completions of a step are generated in parts of a bounded number of tokens."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from selfevo_trainer.grpo.generation import cut, generate_in_parts
from selfevo_trainer.process.clock import Clock

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


def test_training_learns_from_completions_that_were_generated_in_parts(tmp_path: Any) -> None:
    from harness.curricula import give_curriculum
    from harness.inprocess import Phases
    from harness.tiny import settings, write_questions
    from runs import arithmetic

    questions = write_questions(tmp_path / "heldout.jsonl", 4)
    over = {"solver": {"grpo": {"generationBatchTokens": 100}}}
    phases = Phases(arithmetic(settings(over, questions=questions), store=tmp_path / "store"), tmp_path)
    give_curriculum(phases)
    ended = phases("solver-train-1")
    assert ended.code == 0, ended.log
    assert ended.result.metrics["reward_last"] > 0
