"""What the Challenger remembers of earlier iterations (challenger.reward.memory)."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.inprocess import Phases
from harness.tiny import settings, write_questions
from runs import arithmetic
from selfevo_contract.rows import QUESTIONS
from selfevo_contract.rows_between import MEMORY

STILL = {"grpo": {"maxSteps": 0}}


@pytest.mark.slow
def test_a_challenger_is_held_against_what_all_iterations_before_asked(tmp_path: Path) -> None:
    over = {
        "iterations": 3,
        "challenger": {"grpo": {"maxSteps": 1}, "reward": {"memory": {"distance": 1.0, "pool": 50}}},
        "rollout": {"shards": 1, "questions": 30},
        "solver": STILL,
    }
    spec = settings(over, questions=write_questions(tmp_path / "heldout.jsonl"))
    phases = Phases(arithmetic(spec, store=tmp_path / "store"), tmp_path)
    asked: list[str] = []
    for iteration in (1, 2, 3):
        assert phases(f"challenger-train-{iteration}").code == 0
        committed = phases.committed(f"challenger-train-{iteration}")
        if iteration == 1:
            assert committed.file(MEMORY.name) is None and committed.metrics["memory_last"] == 0
            assert "similar_last" not in committed.metrics
        else:
            # The first of them carries its memory on to the next; the pool keeps the newest.
            remembered = [row["question"] for row in phases.rows(f"challenger-train-{iteration}", MEMORY)]
            assert remembered == asked[-50:] and (iteration == 2 or len(asked) > 50)
            # Sums share tokens, so that some lie nearer than the largest distance.
            assert 0 < committed.metrics["memory_last"] <= committed.metrics["similar_last"] <= 1
            assert committed.parents["earlier"].startswith("solver-rollout/")
        if iteration < 3:
            assert phases(f"solver-rollout-{iteration}").code == 0
            rows = phases.rows(f"solver-rollout-{iteration}", QUESTIONS)
            asked += [row["question"] for row in rows if row["question"] is not None]
