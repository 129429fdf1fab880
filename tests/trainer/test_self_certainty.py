"""solver.reward.mode selfCertainty: the formula, what it is computed from, and a training that it pays."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.curricula import ROWS, give_curriculum
from harness.inprocess import Phases
from harness.tiny import settings, write_questions
from runs import arithmetic
from selfevo_contract.spec.grpo import Grpo

WORDS = 7


def by_definition(logits: Any) -> float:
    """KL(U || p) = sum_j 1/V log((1/V) / p_j), p the softmax."""
    import torch

    p = torch.softmax(logits.double(), dim=-1)
    return sum(math.log(1 / len(p) / float(each)) for each in p) / len(p)


class Bigrams:
    """A model whose next token depends on the token alone; it has what a reward asks of one."""

    training = True

    def __init__(self) -> None:
        import torch

        self.table = 3 * torch.randn(WORDS, WORDS, generator=torch.Generator().manual_seed(0))
        self.passes: list[Any] = []

    def train(self, training: bool) -> None:
        self.training = training

    def eval(self) -> None:
        self.training = False

    def __call__(self, input_ids: Any, attention_mask: Any, logits_to_keep: int, use_cache: bool) -> Any:
        assert not self.training and not use_cache
        self.passes.append((input_ids.tolist(), attention_mask.tolist()))
        return SimpleNamespace(logits=self.table[input_ids][:, -logits_to_keep:])


class Letters:
    """A tokenizer: each letter is a token."""

    pad_token_id, chat_template, is_fast = 0, None, False
    added_tokens_decoder: dict[int, Any] = {}

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": ["_abcdef".index(letter) for letter in text]}


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_it_is_the_mean_divergence_of_the_uniform_from_the_policys_distribution(temperature: float) -> None:
    """Prompts and answers of several lengths, padded in one pass; each token is judged where the one before stands."""
    from selfevo_trainer.grpo.certainty import PolicyDistributions
    from selfevo_trainer.solver_rewards import SelfCertaintyReward

    model, prompts, answers = Bigrams(), ["ab", "cdefa", "f"], [[3], [1, 5, 2], []]
    reward = SelfCertaintyReward("selfCertainty")
    reward.policy = PolicyDistributions(model, Letters(), Grpo(temperature=temperature, maxCompletionLength=8))
    found = reward(prompts=prompts, completion_ids=answers, completions=["", "", ""], label=["1"] * 3)
    before = [[2], [1, 1, 5]]
    expected = [
        sum(by_definition(model.table[token] / temperature) for token in tokens) / len(tokens) for tokens in before
    ]
    assert found == pytest.approx([*expected, 0.0], abs=1e-5)
    assert model.training and model.passes == [
        (
            [[0, 0, 0, 1, 2, 3, 0, 0], [3, 4, 5, 6, 1, 1, 5, 2], [0, 0, 0, 0, 6, 0, 0, 0]],
            [[0, 0, 0, 1, 1, 1, 0, 0], [1] * 8, [0, 0, 0, 0, 1, 0, 0, 0]],
        )
    ]


def test_a_pass_has_as_many_answers_as_the_memory_is_counted_for() -> None:
    from selfevo_contract.sizing.memory import CERTAINTY_TOKENS
    from selfevo_trainer.grpo.certainty import PolicyDistributions

    model = Bigrams()
    longest = CERTAINTY_TOKENS // 2
    found = PolicyDistributions(model, Letters(), Grpo(maxCompletionLength=longest)).from_uniform(
        ["a"] * 5, [[1], [2], [3], [4], [5]]
    )
    assert [len(rows) for rows, _ in model.passes] == [2, 2, 1] and len(found) == 5
    alone = PolicyDistributions(model, Letters(), Grpo(maxCompletionLength=3 * CERTAINTY_TOKENS))
    assert alone.from_uniform(["a"] * 2, [[1], [2]]) == found[:2]
    assert [len(rows) for rows, _ in model.passes[3:]] == [1, 1]
    # Short answers may have long prompts: a pass has no more of them than one of the training.
    short = Grpo(maxCompletionLength=8, perDeviceTrainBatchSize=4)
    assert len(PolicyDistributions(model, Letters(), short).from_uniform(["a"] * 5, [[1], [2], [3], [4], [5]])) == 5
    assert [len(rows) for rows, _ in model.passes[5:]] == [4, 1]


@pytest.mark.slow
def test_a_solver_that_it_pays_becomes_surer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The distributions are the policy's: of whole rows without padding they are the same."""
    import torch

    from selfevo_trainer.grpo.certainty import PolicyDistributions
    from selfevo_trainer.prompts import encode_all

    asked: list[tuple[list[float], list[float]]] = []
    real = PolicyDistributions.from_uniform

    def checked(self: PolicyDistributions, prompts: Any, completions: Any) -> list[list[float]]:
        found = real(self, prompts, completions)
        first, own = encode_all(self.tokenizer, prompts[:1])[0], completions[0]
        with torch.no_grad():
            logits = self.model(input_ids=torch.tensor([[*first, *own]])).logits[0, len(first) - 1 : -1]
        asked.append((found[0], [by_definition(each / self.temperature) for each in logits]))
        return found

    monkeypatch.setattr(PolicyDistributions, "from_uniform", checked)
    grpo = {"learningRate": 0.001, "maxSteps": 5, "beta": 0.0, "promptsPerStep": 2, "promptsPerUpdate": 2}
    over = settings(
        {"solver": {"grpo": grpo, "reward": {"mode": "selfCertainty"}}},
        questions=write_questions(tmp_path / "heldout.jsonl", 4),
    )
    phases = Phases(arithmetic(over, store=tmp_path / "store"), tmp_path)
    give_curriculum(phases, ROWS[:1])
    ended = phases("solver-train-1")
    assert ended.code == 0, ended.log
    rows = [json.loads(line) for line in phases.read("solver-train-1", "metrics.jsonl").splitlines()]
    rewards = [row["reward"] for row in rows]
    assert len(asked) == len(rewards) == 5 and rewards[-1] > rewards[0] > 0
    assert {"reward_first", "reward_last"} <= phases.committed("solver-train-1").metrics.keys()
    for found, expected in asked:
        assert found == pytest.approx(expected, rel=1e-4)
