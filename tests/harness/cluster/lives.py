"""What can become of a trainer's pod, and what a store would hold after it. Nothing here talks to a cluster."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from selfevo_contract.phases import PHASES

LABEL = "selfevo.dev/"
INDEX = "batch.kubernetes.io/job-completion-index"
REASONS = {2: "InvalidInput", 3: "ServiceFailed", 4: "EmptyCurriculum", 143: "Terminated"}


@dataclass(frozen=True)
class Life:
    """One pod's. The default is a good one: it runs, commits, says so and ends with 0."""

    seconds: float | None = None
    """As a container; what the kubelet is set to when not given."""
    exit_code: int = 0
    message: bool | str = True
    """The termination message: the one that fits, none at all, or this text."""
    commits: bool | None = None
    """Whether the output is in the store at the end. When not given: if it ends with 0."""
    hangs: bool = False
    """Works until `release` or its deletion."""
    deaf: bool = False
    """Ignores SIGTERM: a deletion takes its whole grace period, and then the exit code is 137."""
    oom: bool = False
    evicted: bool = False
    """In the middle of its work, by the eviction API."""
    image_error: str = ""
    """Never starts: waits with this reason (ErrImagePull)."""
    unschedulable: str = ""
    """Never gets a node, for this reason in words."""

    @property
    def leaves_output(self) -> bool:
        return self.exit_code == 0 and not self.oom if self.commits is None else self.commits


@dataclass(frozen=True)
class Role:
    """What a pod is for, as its labels, annotations and environment say."""

    run: str
    step: str
    phase: str
    key: str
    iteration: int
    index: int | None = None
    shards: int = 1

    @classmethod
    def of(cls, pod: Mapping[str, Any]) -> Role:
        """The pod's own words; a pod that says nothing is a step of its own, called after it."""
        labels = pod["metadata"].get("labels") or {}
        notes = pod["metadata"].get("annotations") or {}
        config = _config(pod)
        index = notes.get(INDEX)
        return cls(
            run=labels.get(LABEL + "run", ""),
            step=labels.get(LABEL + "step", pod["metadata"]["name"]),
            phase=labels.get(LABEL + "phase", "solver-train"),
            key=notes.get(LABEL + "key", ""),
            iteration=int(labels.get(LABEL + "iteration", 0)),
            index=None if index is None else int(index),
            shards=config.get("inputs", {}).get("shards", 1),
        )

    @property
    def shard(self) -> int | None:
        """Of a step in shards, the part that this pod makes. Pods that train together have an index, and one output."""
        return self.index if PHASES[self.phase].sharded else None

    @property
    def place(self) -> str:
        """What one pod at a time may have: the step's, or the index's in it."""
        return f"{self.run}/{self.step}" if self.index is None else f"{self.run}/{self.step}/{self.index}"

    @property
    def work(self) -> str:
        """What nobody may do twice: the key, or ``<key>/<shard>``."""
        return self.key if self.shard is None else f"{self.key}/{self.shard}"


def _config(pod: Mapping[str, Any]) -> dict[str, Any]:
    for container in pod["spec"]["containers"]:
        for variable in container.get("env") or []:
            if variable["name"] == "SELFEVO_PHASE_CONFIG":
                config: dict[str, Any] = json.loads(variable["value"])
                return config
    return {}


def made_up_metrics(role: Role) -> dict[str, float]:
    """Figures that hang together: evaluation gets better with each iteration."""
    t = role.iteration
    return {
        "evaluate": {"mean": 0.5 + 0.1 * t, "greedy": 0.6 + 0.1 * t},
        "finetune-evaluate": {"mean": 0.7 + 0.05 * t},
        "solver-rollout": {"questions": 16.0, "kept": 8.0, "in_band_share": 0.5, "majority_share_mean": 0.6},
        "challenger-train": {"reward_first": 0.3, "reward_last": 0.4},
    }.get(role.phase, {"reward_first": 0.5, "reward_last": 0.7})


TOKENS = 1000
"""That a pod of a rollout has generated."""


@dataclass
class Store:
    """What is committed, and what was trained for it. Threads share it."""

    committed: dict[str, dict[str, float]] = field(default_factory=dict)
    """Key -> its metrics."""
    trained: list[str] = field(default_factory=list)
    """Work that was carried to its end, each time that it was: a key twice is a step trained twice."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """By the name of a step: in place of the made-up ones."""
    _shards: dict[str, set[int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def has(self, role: Role) -> bool:
        """Whether a pod of this role finds its output when it starts."""
        with self._lock:
            return role.key in self.committed or role.shard in self._shards.get(role.key, ())

    def commit(self, role: Role, *, works: bool) -> str:
        """The pod's outcome. ``works`` when it did not find its output at the start, but made it."""
        with self._lock:
            before = role.key in self.committed
            if works:
                self.trained.append(role.work)
            if role.shard is not None:
                shards = self._shards.setdefault(role.key, set())
                shards.add(role.shard)
                if len(shards) < role.shards:
                    return "shard"
            if not before:
                self.committed[role.key] = self.metrics.get(role.step, made_up_metrics(role))
            return "found" if before else "committed"


def termination_message(role: Role, outcome: str, exit_code: int, metrics: Mapping[str, float]) -> str:
    """The PhaseResult that a trainer leaves."""
    result: dict[str, Any] = {"phase": role.phase, "key": role.key, "outcome": outcome, "exitCode": exit_code}
    if exit_code:
        result["reason"] = REASONS.get(exit_code, "Crashed")
        result["message"] = f"ordered to end with {exit_code}; order otherwise"
    if outcome in ("committed", "found"):
        result["metrics"] = dict(metrics)
    if role.phase == "solver-rollout" and not exit_code:
        result["tokens"] = TOKENS
    return json.dumps({**result, "timings": {"total": 0.1}}, separators=(",", ":"))
