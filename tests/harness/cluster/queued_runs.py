"""Runs that wait in a queue for eight GPUs, and what tests ask of them."""

from __future__ import annotations

from typing import Any

from harness.cluster.admitter import GPU, Flavor, Queue
from harness.cluster.client import Api
from harness.cluster.cluster_runs import cluster_run, conditions, jobs
from harness.cluster.kubelet_standin import FakeKubelet

Object = dict[str, Any]
POOL = {"selfevo.test/pool": "h100"}
EIGHT = Queue((Flavor("h100", 8, POOL),))
SHARDS = 4


def gpus(count: int) -> Object:
    return {"resources": {"limits": {GPU: count}}}


def queued_run(name: str = "demo", **changes: Any) -> Object:
    """Trains on all eight GPUs, rolls out in four pods with two each."""
    roles = {f"spec__{role}__pods": gpus(8) for role in ("challenger", "solver")}
    batches = {f"spec__{role}__grpo__perDeviceTrainBatchSize": 2 for role in ("challenger", "solver")}
    parts = {"spec__rollout__shards": SHARDS, "spec__rollout__pods": gpus(2), "spec__evaluation": None}
    return cluster_run(name, **{"spec__queue": "team-a", **roles, **batches, **parts, **changes})


def reason(run: Object) -> str:
    return conditions(run).get("Reconciling", "")


def job_of(api: Api, namespace: str, name: str, run: str = "demo") -> Object:
    found = [each for each in jobs(api, namespace, run) if each["metadata"]["labels"]["selfevo.dev/step"] == name]
    assert len(found) == 1, [each["metadata"]["name"] for each in found]
    return found[0]


def working(kubelet: FakeKubelet, name: str) -> int:
    return sum(pod.role.step == name and pod.exit_code is None for pod in kubelet.lived)
