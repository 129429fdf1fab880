"""Runs on a real API server: documents that a cluster can have, and what their statuses say."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from typing import Any

from harness.cluster.client import Api
from harness.patience import Patience
from harness.runs import document
from selfevo_contract.plan import Plan, plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import Fork

Object = dict[str, Any]
RUNS = "selfevolutionruns"
OURS = "app.kubernetes.io/managed-by=selfevo-operator"
_seeds = itertools.count(1)

STEPS = ("evaluate-0", "challenger-train-1", "solver-rollout-1", "solver-train-1", "evaluate-1")
"""Of a run with one iteration, in the order in which they start."""


def cluster_run(name: str = "demo", **changes: Any) -> Object:
    """A run of one iteration. Its seed is its own, so that it shares no step with another one."""
    made = {"spec__storage__uri": "s3://bucket/selfevo", "spec__iterations": 1, "spec__seed": next(_seeds), **changes}
    run = document(**made)
    run["metadata"] = {"name": name}
    evaluation = run["spec"].get("evaluation")
    if evaluation:
        evaluation["tasks"][0]["data"]["uri"] = "s3://bucket/heldout.jsonl"
    return run


def plan_of(run: Object, fork: Fork | None = None) -> Plan:
    """What the run's spec, defaults filled in by whoever, asks for."""
    metadata = {"name": run["metadata"]["name"], "namespace": "default"}
    return plan(SelfEvolutionRun.model_validate({**run, "metadata": metadata, "status": None}).spec, (), fork)


def keys_of(run: Object) -> list[str]:
    """The work of its steps, one entry a shard, as `FakeKubelet.trained` has it when all is done once; sorted."""
    found = []
    for step in plan_of(run).steps:
        found += [f"{step.key}/{index}" for index in range(step.shards)] if step.type.sharded else [step.key]
    return sorted(found)


def status_of(run: Object | None) -> Object:
    return (run or {}).get("status") or {}


def phase_of(run: Object | None) -> str:
    return str(status_of(run).get("phase", ""))


def conditions(run: Object) -> dict[str, str]:
    """The reason of each condition that is true."""
    return {c["type"]: c["reason"] for c in status_of(run).get("conditions", []) if c["status"] == "True"}


def message(run: Object) -> str:
    """What the run says of itself."""
    return next((c["message"] for c in status_of(run).get("conditions", []) if c["type"] == "Ready"), "")


def kstatus(run: Object) -> str:
    """As kstatus (and with it kpt, Flux and `kubectl wait`-like tools) reads the conditions."""
    if run["metadata"].get("deletionTimestamp"):
        return "Terminating"
    if status_of(run).get("observedGeneration") != run["metadata"]["generation"]:
        return "InProgress"
    known = {c["type"]: c["status"] for c in status_of(run).get("conditions", [])}
    if known.get("Reconciling") == "True":
        return "InProgress"
    if known.get("Stalled") == "True":
        return "Failed"
    return "Current" if known.get("Ready") == "True" else "InProgress"


def step(run: Object, name: str) -> Object:
    """The record of a step; empty when there is none."""
    return next((s for s in status_of(run).get("steps", []) if s["name"] == name), {})


def wait_run(api: Api, namespace: str, name: str, until: Callable[[Object], Any], limit_s: float = 300.0) -> Object:
    """The run, when ``until(run)``."""
    patience = Patience(limit_s)
    run: Object
    while not until(run := api.get(RUNS, name, namespace)):
        assert not patience.over(), f"{name} after {limit_s} s: {json.dumps(status_of(run))}"
        patience.rest()
    return run


def wait_phase(api: Api, namespace: str, name: str, phase: str, limit_s: float = 300.0) -> Object:
    """The run, when it is in this phase, of its present spec."""

    def there(run: Object) -> bool:
        return phase_of(run) == phase and status_of(run)["observedGeneration"] == run["metadata"]["generation"]

    return wait_run(api, namespace, name, there, limit_s)


def jobs(api: Api, namespace: str, run: str = "") -> list[Object]:
    """The operator's Jobs, of one run or of all, the oldest first."""
    labels = f"{OURS},selfevo.dev/run={run}" if run else OURS
    return sorted(api.list("jobs", namespace, labels), key=lambda job: job["metadata"]["creationTimestamp"])


def events(api: Api, namespace: str, run: str = "demo") -> list[tuple[str, str]]:
    """Reason and message of the Events about the run, in the order in which they were sent."""
    found = [e for e in api.list("events", namespace) if e["involvedObject"]["kind"] == "SelfEvolutionRun"]
    found = [e for e in found if e["involvedObject"]["name"] == run]
    found.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
    return [(event["reason"], event["message"]) for event in found]


def end_state(run: Object) -> Object:
    """The status without what differs between two good runs of the same spec: times, and how many tries it took."""
    status = copy.deepcopy(status_of(run))
    for name in ("startedAt", "finishedAt", "attempts"):
        status.pop(name, None)
    for entry in status.get("conditions", []):
        entry.pop("lastTransitionTime")
    for entry in status.get("steps", []):
        for name in ("startedAt", "finishedAt", "attempts", "ended", "failures", "retryAt", "reused", "timings"):
            entry.pop(name, None)
    return status


def eventually(true: Callable[[], Any], limit_s: float = 180.0, why: Callable[[], object] = lambda: "") -> None:
    patience = Patience(limit_s)
    while not true():
        assert not patience.over(), f"not within {limit_s} s: {why()}"
        patience.rest()


def wait_event(api: Api, namespace: str, text: str, run: str = "demo", limit_s: float = 180.0) -> list[tuple[str, str]]:
    """The Events about the run, once a reason or a message of them contains ``text``.

    The operator writes an Event after the status that it tells of: a test that has seen the status waits for it.
    """
    found: list[tuple[str, str]] = []

    def there() -> bool:
        found[:] = events(api, namespace, run)
        return any(text in reason or text in message for reason, message in found)

    eventually(there, limit_s, why=lambda: f"no Event tells {text!r}: {found}")
    return found
