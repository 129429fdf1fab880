"""A run with a Verifier on the shipped base, for real and tiny."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from harness.inprocess import Phases
from harness.tiny import BASE, settings
from runs import arithmetic
from selfevo_contract.spec.run import RunSpec


def write_anchors(path: Path, count: int = 64) -> Path:
    """Sums with a boxed value over one without a box: what even a tiny judge can learn."""
    rng = random.Random(0)
    rows = []
    for _ in range(count):
        a, b = rng.randrange(10, 100), rng.randrange(10, 100)
        rows.append({"question": f"{a} + {b}", "chosen": f"\\boxed{{{a + b}}}", "rejected": f"{a + b}"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Triad:
    """A run with a Verifier. Variants share a store, and with it every step whose inputs are equal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.anchors = write_anchors(folder / "anchors.jsonl")

    def variant(self, **verifier: Any) -> Phases:
        spec = settings(
            {
                "model": {"uri": f"file://{BASE}", "digest": None},
                "challenger": {"reward": {"mode": "judged"}},
                "rollout": {"questions": 48, "shards": 2},
                "solver": {"reward": {"mode": "judged"}},
                "verifier": {
                    "anchors": {"data": {"uri": f"file://{self.anchors}"}, "own": 2},
                    "pairs": ["swap", "corrupt"],
                    "head": {"maxSteps": 30, "learningRate": 1e-3},
                    "batchSize": 8,
                    "maxSteps": 2,
                    "maxLength": 96,
                    "promotion": {"lengthCorrelation": 1.0},  # of these anchors the longer answer is always the better
                    "curriculumShare": 1.0,
                    **verifier,
                },
            }
        )
        spec["rollout"]["band"] = {}
        run = arithmetic(spec, store=self.folder / "store")
        return Phases(run.model_copy(update={"spec": without_oracle(run.spec)}), self.folder)


def without_oracle(spec: RunSpec) -> RunSpec:
    return spec.model_copy(update={"rollout": spec.rollout.model_copy(update={"oracle": None})})


def through(phases: Phases, *steps: str) -> None:
    for step in steps:
        for shard in range(phases.step(step).shards):
            ended = phases(step, shard)
            assert ended.code == 0, f"{step}: {ended.result and ended.result.message}"
