"""A Challenger's questions are rated in parts, and what is known of a step when it ends early is not asked again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from harness.runs import make_run
from selfevo_contract.judging import TOKENS
from selfevo_contract.plan import plan
from selfevo_contract.rows import Tally
from selfevo_trainer.process.signals import Interrupted
from selfevo_trainer.ratings import Rating

pytestmark = pytest.mark.slow  # it imports torch

QUESTIONS = ["q" + "x" * number for number in range(7)]
STATE = SimpleNamespace(log_history=[{TOKENS: 5.0}], global_step=3)


class Solver:
    """Answers nothing, and remembers which questions were put to it."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def generate(self, prompts: Sequence[Any], sampling: Any, samples: int, seed: int, streams: list[int]) -> list[Any]:
        self.asked += streams
        return [[]] * len(prompts)


class Costly:
    """A judge that takes ten tokens a question."""

    form: ClassVar[str] = ""

    def __init__(self) -> None:
        self.used = self.reported = self.before = 0.0

    def question(self, completion: str, held_out: Any) -> str:
        return completion

    def rate(self, questions: Sequence[str], answers: Sequence[Any]) -> list[Rating]:
        self.used += 10 * len(questions)
        return [Rating(len(text) / 10, Tally(answers=1), figures={"score": len(text) / 3}) for text in questions]

    def spent(self) -> dict[str, float]:
        more, self.reported = self.used - self.reported, self.used
        return {TOKENS: more}

    def goes_on(self, history: Sequence[Mapping[str, Any]]) -> None:
        self.before = sum(row.get(TOKENS, 0.0) for row in history)


def test_a_step_that_ended_between_two_parts_costs_and_earns_what_a_whole_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from selfevo_trainer.phases import challenger_train

    monkeypatch.setattr(challenger_train, "PART", 2)
    inputs: Any = next(step for step in plan(make_run().spec).steps if step.phase == "challenger-train").inputs

    def attempt(parts: list[dict[str, Any]], ends_at: int = 0, part: int | None = None) -> tuple[Any, list[int], float]:
        solver, judge, moments = Solver(), Costly(), []
        held_out: Any = None
        engine: Any = solver
        reward = challenger_train.ChallengerReward(inputs, engine, judge, held_out, part=part)

        def between() -> None:
            moments.append(len(parts))
            if len(moments) == ends_at:
                raise Interrupted

        reward.parts, reward.between_parts = parts, between
        metrics: dict[str, float] = {}
        try:
            rewards = reward(QUESTIONS, STATE, metrics.__setitem__)
        except Interrupted:
            return None, solver.asked, judge.before
        return (rewards, metrics), solver.asked, judge.before

    whole, asked, before = attempt([])
    assert (asked, before, whole[1][TOKENS]) == (list(range(7)), 5.0, 70.0)
    in_one_part = attempt([], ends_at=1, part=challenger_train.PART_OF_BATCHING)  # there is no moment between parts
    assert in_one_part == (whole, asked, before)
    kept: list[dict[str, Any]] = []
    assert attempt(kept, ends_at=2)[:2] == (None, [0, 1, 2, 3])
    again, asked, before = attempt(json.loads(json.dumps(kept)))
    assert (asked, before) == ([4, 5, 6], 45.0)  # the judge's budget knows of what the first attempt has asked
    assert again == whole
