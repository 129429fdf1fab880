"""Runs of examples/writing.yaml, cut down, whose judge may be in a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.inprocess import Phases
from harness.sidecar import give_model
from runs import EXAMPLES, example
from selfevo_contract.judging import QUESTIONS_SCORED

WRITING = EXAMPLES / "writing"
ROLLOUT, TRAINING, ASKING = "solver-rollout-1", "solver-train-1", "challenger-train-1"


def writing(folder: Path, over: dict[str, Any] | None = None, server: dict[str, Any] | None = None) -> Phases:
    """The run with its store in ``folder``: its Challenger is the base, and one step of each training is enough."""
    part = {"promptsPerStep": 2, "numGenerations": 4, "perDeviceTrainBatchSize": 8, "maxSteps": 1}
    spec: dict[str, Any] = {
        "iterations": 1,
        "challenger": {"grpo": part, "checkpointEvery": 1},
        "rollout": {"questions": 24, "samples": 3, **(over or {}).get("rollout", {})},
        "solver": {"grpo": part, "checkpointEvery": 1},
        "verifier": {
            "model": {"uri": f"file://{WRITING / 'judge'}"},
            "anchors": {"data": {"uri": f"file://{WRITING / 'anchors.jsonl'}"}},
            "maxSteps": 0,
            "curriculumShare": 1.0,
            **({} if server is None else {"server": server}),
        },
        **{name: value for name, value in (over or {}).items() if name != "rollout"},
    }
    return Phases(example("writing", spec, store=folder / "store"), folder)


def begun(phases: Phases) -> Phases:
    """``phases``, whose first judge is there, and whose Challenger is the base."""
    ended = phases("verifier-train-0")
    assert ended.code == 0, ended.result.message
    give_model(phases, ASKING, WRITING / "base")
    return phases


def scores(phases: Phases) -> list[float]:
    """Of the answers of the rollout, in the order of its questions."""
    return [score for row in phases.rows(ROLLOUT, QUESTIONS_SCORED) for score in row.get("scores") or []]
