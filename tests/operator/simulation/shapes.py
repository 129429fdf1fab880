"""The runs that are simulated: small, and each different in what Kubernetes does with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.runs import TRIAD, document

FIRST, SECOND = "demo", "demo-2"
FORKED = 1


@dataclass(frozen=True, eq=False)
class Shape:
    """One kind of run."""

    name: str
    iterations: int = 1
    changes: Mapping[str, Any] = field(default_factory=dict)
    poison: Mapping[str, str] = field(default_factory=dict)
    """Step -> exit code that each of its processes ends with, or «slow»: it never ends."""
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Step -> what it measures beside its scores."""
    neighbour: bool = False
    """A second run of the same spec beside it."""
    fork: Mapping[str, Any] = field(default_factory=dict)
    """Changes of a second run, which goes on from iteration FORKED of the first one."""
    moving: bool = False
    """What the second run begins with depends on when it is found."""
    outlived: bool = False
    """The first run is deleted for good as soon as the second one has found what it begins with."""

    @property
    def runs(self) -> tuple[str, ...]:
        """Their names."""
        return (FIRST, SECOND) if self.neighbour or self.fork else (FIRST,)

    def spec(self, name: str = FIRST, **changes: Any) -> dict[str, Any]:
        """The spec that a person wants in the end."""
        base = {"spec__storage__uri": "s3://models/selfevo", "spec__ttlSecondsAfterFinished": 300}
        own = {"spec__iterations": self.iterations, **self.changes}
        if self.fork and name == SECOND:
            own |= {"spec__forkFrom": {"run": FIRST, "iteration": FORKED}, "spec__iterations": FORKED + 1, **self.fork}
        made: dict[str, Any] = document(**{**base, **own, **changes})["spec"]
        return made

    def first_iterations(self, name: str) -> int:
        """The fewest that a run of this name can have."""
        return FORKED + 1 if self.fork and name == SECOND else 1


ONE_SHARD = {"spec__rollout__shards": 1}
TWO_NODES = {"spec__solver__pods": {"nodes": 2}, "spec__solver__grpo__perDeviceTrainBatchSize": 8}
CURES = {"spec__backoffLimit": 100}
SHAPES = (
    Shape("plain", changes=CURES),
    Shape("longer", iterations=2, changes=CURES | ONE_SHARD),
    Shape("parallel", iterations=2, changes=CURES | {"spec__parallelSteps": 2, "spec__evaluation__shards": 3}),
    Shape("queued", changes=CURES | ONE_SHARD | {"spec__queue": "team-a"}),
    # evaluate-0 and evaluate-1 have one key: the Solver is never trained
    Shape("control", changes=CURES | {"spec__solver__grpo__maxSteps": 0, "spec__parallelSteps": 3}),
    Shape("nodes", changes=CURES | TWO_NODES | {"spec__evaluation": None}),
    Shape("neighbours", changes=CURES | {"spec__rollout__shards": 2, "spec__evaluation": None}, neighbour=True),
    Shape("wrong input", changes=ONE_SHARD, poison={"solver-rollout-1": "2"}),
    Shape("bad data", changes={"spec__parallelSteps": 2}, poison={"challenger-train-1": "4"}),
    Shape("crashing", changes={"spec__backoffLimit": 0}, poison={"solver-train-1": "1"}),
    Shape("too slow", changes={"spec__solver__pods": {"activeDeadlineSeconds": 60}}, poison={"solver-train-1": "slow"}),
)
GUARDED = (
    Shape(
        "guarded",
        iterations=2,
        changes=CURES | {"spec__guards": {"truncation": {"action": "stop"}}, "spec__parallelSteps": 2},
        figures={"solver-rollout-1": {"answers/truncated": 0.9}},
    ),
    Shape(
        "rolled back",
        iterations=2,
        changes=CURES
        | {"spec__guards": {"maxRollbacks": 2, "truncation": {"action": "rollback"}}, "spec__parallelSteps": 2},
        figures={"solver-rollout-1": {"answers/truncated": 0.9}},
    ),
    Shape(
        "promoted",
        iterations=2,
        changes=CURES
        | ONE_SHARD
        | {"spec__guards": {"standardErrors": 0, "inBand": {"action": "promoteBest"}}, "spec__parallelSteps": 2},
        figures={"solver-rollout-2": {"in_band_share": 0.0}},
    ),
)
"""Runs with guards. Their seeds are `GUARD_SEEDS`, so that each of the others lives on as it did."""
GUARD_SEEDS = range(1_000_000, 2_000_000)
NO_SCORES = {"spec__evaluation": None}
GOES_BACK = CURES | {"spec__guards": {"maxRollbacks": 2, "truncation": {"action": "rollback"}}}
FORKS = (
    Shape("forked", changes=CURES | ONE_SHARD, fork={"spec__seed": 7}),
    Shape("outlived", iterations=2, changes=CURES | ONE_SHARD | NO_SCORES, fork={"spec__seed": 7}, outlived=True),
    # the first run goes back to where the second one begins, again and again
    Shape(
        "forked and rolled back",
        iterations=2,
        changes=GOES_BACK,
        figures={"solver-rollout-1": {"answers/truncated": 0.01}, "solver-rollout-2": {"answers/truncated": 0.9}},
        fork={"spec__seed": 7, "spec__guards": None},
    ),
    # and to the base: who forks it late begins with something else
    Shape(
        "rolled back past its fork",
        iterations=2,
        changes=GOES_BACK,
        figures={"solver-rollout-2": {"answers/truncated": 0.9}},
        fork={"spec__seed": 7, "spec__guards": None},
        moving=True,
    ),
    # whose judge is another iteration's, and is trained on
    Shape("forked with a judge", changes=CURES | ONE_SHARD | NO_SCORES | TRIAD, fork={"spec__seed": 7}),
)
"""A run and one that goes on from it."""
FORK_SEEDS = range(2_000_000, 3_000_000)

PUBLISH = {"to": "hf://acme/sums", "tokenSecret": {"name": "hub"}}
FINETUNED = (
    Shape(
        "fine-tuned",
        iterations=2,
        changes=CURES
        | ONE_SHARD
        | {"spec__finetune": {"data": {"uri": "s3://models/labelled.jsonl"}}, "spec__parallelSteps": 2},
    ),
    Shape(
        "fine-tuned without scores",
        changes=CURES
        | ONE_SHARD
        | {"spec__finetune": {"data": {"uri": "s3://models/labelled.jsonl"}}, "spec__evaluation": None},
    ),
    Shape(
        "published at the end",
        iterations=2,
        changes=CURES | ONE_SHARD | {"spec__publish": PUBLISH, "spec__parallelSteps": 2},
    ),
    Shape(
        "each published",
        iterations=2,
        changes=CURES | ONE_SHARD | {"spec__publish": {**PUBLISH, "what": "each"}},
    ),
)
"""Runs that are fine-tuned at the end, or published; the seeds are their own, too."""
FINETUNE_SEEDS = range(3_000_000, 4_000_000)
