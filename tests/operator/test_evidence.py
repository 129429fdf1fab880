"""What pods say, by tables: which container failed and why, what waits, and what is lost with its node."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.objects import ended, job_object, pod
from selfevo_contract.status import StepStatus
from selfevo_core.attempt_end import attempt_history
from selfevo_core.attempts import ObservedAttempt
from selfevo_core.observe import observe
from selfevo_core.policies.retry import Backoff
from selfevo_operator.observed.evidence import Evidence, evidence_of
from selfevo_operator.observed.snapshots import attempt_of, job_snapshot

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "pods.json").read_text())
NOW = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
Object = dict[str, Any]


def failed(*pods: Object) -> ObservedAttempt:
    status = ended("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit", failed=1)
    return attempt_of(job_snapshot(job_object(status=status)), evidence_of(pods, NOW))


def failed_pod(**status: Any) -> Object:
    return {"metadata": {"name": "p"}, "status": {"phase": "Failed", **status}}


def waits(*pods: Object, **status: Any) -> ObservedAttempt:
    return attempt_of(job_snapshot(job_object(status={"active": 1, **status})), evidence_of(pods, NOW))


@dataclass(frozen=True)
class Want:
    reason: str
    words: tuple[str, ...]
    code: int | None = None
    stuck: bool | None = None
    """Of pods that wait; None of pods that failed."""


WANTED = {
    "injected init container fails with exit code 1": Want(
        "ContainerFailed", ("init container vault-agent-init", "exit code 1", "permission denied"), 1
    ),
    "injected init container is OOMKilled": Want("OOMKilled", ("init container istio-init",), 137),
    "sidecar fails, trainer exited 0": Want(
        "ContainerFailed", ("container fluent-bit", "exit code 1", "cannot reach the log server"), 1
    ),
    "pod rejected by the kubelet (device plugin)": Want("UnexpectedAdmissionError", ("p1", "no healthy devices")),
    "OutOfcpu": Want("OutOfcpu", ("enough resource: cpu",)),
    "evicted before its container began (ephemeral storage)": Want("Evicted", ("ephemeral-storage",)),
    "trainer waits: ImageInspectError": Want("ImageInspectError", ("trainer", "Failed to inspect"), stuck=True),
    "trainer waits: RegistryUnavailable": Want("RegistryUnavailable", ("Registry is unavailable",), stuck=True),
    "trainer waits: SignatureValidationFailed": Want("SignatureValidationFailed", ("not valid",), stuck=True),
    "trainer waits: PostStartHookError": Want("PostStartHookError", ("container trainer",), stuck=True),
    "trainer waits: CreateContainerError": Want("CreateContainerError", ("control",), stuck=True),
    "native sidecar in CrashLoopBackOff holds the trainer back": Want(
        "CrashLoopBackOff", ("container istio-proxy", "back-off 5m0s"), stuck=True
    ),
    "pod is SchedulingGated (Kueue topology, other gates)": Want(
        "Queued", ("Scheduling is blocked due to non-empty scheduling gates",), stuck=False
    ),
    "control: Unschedulable": Want("Unschedulable", ("0/3 nodes are available",), stuck=False),
}


def test_every_golden_pod_has_its_row() -> None:
    assert {case["case"] for case in GOLDEN} == set(WANTED)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["case"])
def test_golden_pods(case: Object) -> None:
    want = WANTED[case["case"]]
    if want.stuck is None:
        attempt = failed(*case["pods"])
        (line,) = attempt_history([], [attempt], {})
        assert (line.reason, line.exit_code) == (want.reason, want.code)
        message = line.message
    else:
        attempt = waits(*case["pods"])
        assert attempt.waiting is not None and attempt.state == "Pending"
        assert (attempt.waiting.reason, attempt.waiting.stuck) == (want.reason, want.stuck)
        message = attempt.waiting.message
    assert all(words in message for words in want.words), message


# --- kinds of the same ------------------------------------------------------------------------------------------------


def terminated(name: str, code: int, message: str = "", reason: str = "Error", at: str = "1") -> Object:
    finished = f"2026-01-01T00:0{at}:00Z"
    return {"name": name, "state": {"terminated": {"exitCode": code, "message": message, "reason": reason,
                                                   "finishedAt": finished}}}  # fmt: skip


@pytest.mark.parametrize("code", [2, 4, 143])
def test_a_code_of_a_container_that_is_not_ours_has_no_meaning_of_ours(code: int) -> None:
    attempt = failed(failed_pod(initContainerStatuses=[terminated("vault-agent-init", code, "no such role")]))
    record = StepStatus(name="evaluate-0", phase="evaluate", iteration=0, key="a" * 64)
    after = observe(record, [attempt], spec_changed=False, backoff_limit=3, backoff=Backoff(), now=NOW)
    assert (after.state, after.failures, after.reason) == ("Pending", 1, "ContainerFailed")
    assert after.message == f"init container vault-agent-init ended with exit code {code}: no such role"


def test_the_container_that_fetches_a_model_speaks_for_the_trainer() -> None:
    attempt = failed(failed_pod(initContainerStatuses=[terminated("fetch-model", 2, "no such model")]))
    assert (attempt.exit_code, attempt.culprit) == (2, "")


def test_the_trainers_own_failure_comes_first_and_the_first_of_the_others_before_the_rest() -> None:
    trainer = terminated("trainer", 3, "the store is down", at="3")
    early, late = terminated("b", 5, at="1"), terminated("a", 6, at="2")
    assert failed(failed_pod(containerStatuses=[trainer, early])).message == "the store is down"
    trainer = terminated("trainer", 0, reason="Completed", at="3")
    assert "container b ended with exit code 5" in failed(failed_pod(containerStatuses=[late, early])).message


def test_what_a_native_sidecar_ends_with_is_nobodys_failure() -> None:
    made = failed_pod(reason="OutOfpods", initContainerStatuses=[terminated("istio-proxy", 143)])
    made["spec"] = {"initContainers": [{"name": "istio-proxy", "restartPolicy": "Always"}]}
    assert failed(made).reason == "OutOfpods"


UNKNOWN = "ContainerStatusUnknown"
"""A kubelet that finds no container writes 137 for it."""


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        ({"reason": "OutOfnvidia.com/gpu", "message": "no"}, "OutOfnvidia_com_gpu", None),
        ({"reason": "NodeShutdown"}, "NodeShutdown", None),
        ({}, "PodFailed", None),
        ({"containerStatuses": [terminated("trainer", 137, reason=UNKNOWN)]}, UNKNOWN, None),
        ({"containerStatuses": [terminated("trainer", 128, "exec: python", "StartError")]}, "StartError", 128),
        ({"containerStatuses": [terminated("trainer", 137)], "reason": "Evicted", "message": "disk"}, "Evicted", 137),
    ],
)  # fmt: skip
def test_no_exit_code_is_made_up(status: Object, reason: str, code: int | None) -> None:
    attempt = failed(failed_pod(**status))
    assert (attempt.reason, attempt.exit_code) == (reason, code)


def test_a_disrupted_pod_tells_only_where_no_other_one_does() -> None:
    gone = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "taint"}
    own = failed_pod(containerStatuses=[terminated("trainer", 1, "boom", at="1")])
    taken = failed_pod(containerStatuses=[terminated("trainer", 137, at="2")], conditions=[gone])
    assert failed(own, taken).message == "boom"
    assert failed(taken).reason == "DeletionByTaintManager"


def test_a_container_that_crashes_again_and_again_tells_how_it_ended() -> None:
    last = {"lastState": terminated("x", 7, "bad certificate")["state"]}
    waiting = {"name": "istio-proxy", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, **last}
    attempt = waits(pod(initContainerStatuses=[waiting]))
    assert attempt.waiting is not None and attempt.waiting.message.endswith("exit code 7: bad certificate")


def test_a_pod_without_a_scheduler_and_one_that_has_just_got_its_node() -> None:
    alone = pod()
    alone["spec"] = {"schedulerName": "no-such-scheduler"}
    attempt = waits(alone)
    assert attempt.waiting is not None and attempt.waiting.reason == "Unschedulable"
    assert "no-such-scheduler" in attempt.waiting.message
    placed = pod(containerStatuses=[{"name": "trainer", "state": {"waiting": {"reason": "ContainerCreating"}}}])
    placed["spec"] = {"schedulerName": "default-scheduler", "nodeName": "n1"}
    attempt = waits(placed)
    assert attempt.waiting is not None and (attempt.waiting.reason, attempt.waiting.stuck) == ("PodStarting", False)


# --- pods that are ending, and nodes that are lost --------------------------------------------------------------------

RUNNING = {"containerStatuses": [{"name": "trainer", "ready": True, "state": {"running": {}}}]}


def on_node(until: str | None = None, **status: Any) -> Object:
    made = pod(**status)
    made["metadata"] |= {"name": "p7"} | ({"deletionTimestamp": until} if until else {})
    made["spec"] = {"nodeName": "n1", "schedulerName": "default-scheduler"}
    return made


@pytest.mark.parametrize(
    ("until", "reason", "stuck"),
    [
        ("2026-01-01T00:11:00Z", "Ending", False),
        ("2026-01-01T00:09:45Z", "Ending", False),
        ("2026-01-01T00:09:00Z", "NodeLost", True),
    ],
)
def test_a_pod_that_has_not_ended_after_its_grace_is_lost_with_its_node(until: str, reason: str, stuck: bool) -> None:
    attempt = waits(on_node(until, **RUNNING), terminating=1)
    assert attempt.waiting is not None and attempt.state == "Running"
    assert (attempt.waiting.reason, attempt.waiting.stuck) == (reason, stuck)
    if stuck:
        assert "p7" in attempt.waiting.message and "node n1" in attempt.waiting.message


def test_a_pod_on_a_node_that_is_not_heard_of_does_not_run_as_far_as_is_known() -> None:
    silent = on_node(**RUNNING, conditions=[{"type": "Ready", "status": "False"}])
    attempt = waits(silent)
    assert attempt.waiting is not None and (attempt.waiting.reason, attempt.state) == ("NodeLost", "Running")
    loaded = on_node(**RUNNING, conditions=[{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}])
    assert waits(loaded).waiting is None


# --- pods that train together -----------------------------------------------------------------------------------------


def together(*pods: Object, **status: Any) -> ObservedAttempt:
    job = job_object(completions=2, status={"active": 2, **status})
    job["metadata"]["labels"]["selfevo.dev/phase"] = "solver-train"
    return attempt_of(job_snapshot(job), evidence_of(pods, NOW))


def test_a_group_of_which_one_pod_is_missing_does_not_run() -> None:
    pulling = on_node(containerStatuses=[{"name": "trainer", "state": {"waiting": {"reason": "ImagePullBackOff"}}}])
    attempt = together(on_node(**RUNNING), pulling, ready=1)
    assert attempt.state == "Pending" and attempt.waiting is not None
    assert (attempt.waiting.reason, attempt.waiting.stuck) == ("ImagePullBackOff", True)
    assert "1 of the 2 pods" in attempt.waiting.message
    starting = on_node(containerStatuses=[{"name": "trainer", "state": {"waiting": {"reason": "ContainerCreating"}}}])
    attempt = together(on_node(**RUNNING), starting, ready=1)
    assert attempt.waiting is not None and attempt.waiting.reason == "PodStarting"
    assert together(on_node(**RUNNING), on_node(**RUNNING), ready=1).state == "Running"
    assert together(ready=1, succeeded=1).state == "Running"  # the other one has ended well


def test_shards_do_not_wait_for_each_other() -> None:
    job = job_object(completions=2, status={"active": 2, "ready": 1})
    job["metadata"]["labels"]["selfevo.dev/phase"] = "solver-rollout"
    waiting = on_node(containerStatuses=[{"name": "trainer", "state": {"waiting": {"reason": "ImagePullBackOff"}}}])
    assert attempt_of(job_snapshot(job), evidence_of([waiting], NOW)).state == "Running"


# --- Jobs that are ending ---------------------------------------------------------------------------------------------


def test_a_job_that_loses_its_place_is_ending_until_its_pods_have_ended() -> None:
    job = job_object(labels={"kueue.x-k8s.io/queue-name": "team-a"}, status={"terminating": 1, "ready": 0})
    job["spec"]["suspend"] = True
    attempt = attempt_of(job_snapshot(job))
    assert attempt.waiting is not None and (attempt.state, attempt.waiting.reason) == ("Running", "Ending")
    job["status"] = {"terminating": 0}
    attempt = attempt_of(job_snapshot(job), Evidence(before=waits(GOLDEN[6]["pods"][0]).waiting))
    assert attempt.waiting is not None and (attempt.state, attempt.waiting.reason) == ("Pending", "Queued")
    assert attempt.waiting.message.endswith("waits: ImageInspectError: Failed to inspect image")
