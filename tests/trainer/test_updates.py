"""The reference's schedule, scaled down, in TRL's real trainer: how often weights change, when the clip range acts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.curricula import give_curriculum
from harness.inprocess import Phases
from harness.tiny import settings, write_questions
from runs import arithmetic

pytestmark = pytest.mark.slow

RATE = {"learningRate": 0.003, "adamEpsilon": 1e-8, "beta": 0.0, "maxCompletionLength": 24}
"""A learning rate at which one update takes the ratio out of the clip range."""


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each step of AdamW."""
    import torch

    counted: list[int] = []
    step = torch.optim.AdamW.step

    def counting(self: Any, *arguments: Any, **named: Any) -> Any:
        counted.append(1)
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", counting)
    return counted


def trained(folder: Path, role: str, grpo: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl after a training of this role."""
    over = settings({role: {"grpo": {**RATE, **grpo}}}, questions=write_questions(folder / "heldout.jsonl", 4))
    phases = Phases(arithmetic(over, store=folder / "store"), folder)
    if role == "solver":
        give_curriculum(phases)
    name = f"{role}-train-1"
    ended = phases(name)
    assert ended.code == 0, ended.log
    assert [line.done for line in ended.progress if line.doing == "training"][-1] == grpo["maxSteps"]
    return [json.loads(line) for line in phases.read(name, "metrics.jsonl").splitlines()]


@pytest.mark.parametrize(
    ("role", "prompts", "a_step"),
    [
        ("challenger", {"promptsPerStep": 32, "promptsPerUpdate": 1, "numGenerations": 4}, 32),  # 512 / 16
        ("solver", {"promptsPerStep": 16, "promptsPerUpdate": 4, "numGenerations": 5}, 4),  # 512 / 128
        ("solver", {"promptsPerStep": 4, "promptsPerUpdate": 4, "numGenerations": 5}, 1),
        ("solver", {"promptsPerStep": 4, "promptsPerUpdate": 2, "numGenerations": 5, "numIterations": 2}, 4),
    ],
)
def test_a_step_makes_the_references_updates_and_the_ratio_leaves_1_within_it(
    tmp_path: Path, updates: list[int], role: str, prompts: dict[str, Any], a_step: int
) -> None:
    batch = prompts["promptsPerUpdate"] * prompts["numGenerations"]
    rows = trained(tmp_path, role, {"maxSteps": 2, "perDeviceTrainBatchSize": batch, **prompts})
    assert len(updates) == len(rows) == 2 * a_step
    assert [(row["step"], row["update"]) for row in rows] == [
        (1 + update // a_step, update + 1) for update in range(2 * a_step)
    ]
    # What is measured of a step's completions stands with its first update.
    assert [row["update"] for row in rows if "reward" in row] == [1, a_step + 1]
    first = [row["clip_ratio/region_mean"] for row in rows if (row["update"] - 1) % a_step == 0]
    later = [row["clip_ratio/region_mean"] for row in rows if (row["update"] - 1) % a_step]
    assert first == [0.0, 0.0], "the first update is made by the policy that wrote"
    assert (sum(later) > 0) == (a_step > 1), later
