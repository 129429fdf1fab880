"""A Job without a pod: when that is worth a word, and whose words it is."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.objects import job_object, pod
from selfevo_core.attempts import Blocker
from selfevo_operator.api.pod_evidence import PodEvidence
from selfevo_operator.observed.podless import why_no_pod
from selfevo_operator.observed.snapshots import attempt_of, job_snapshot

JOB = "demo-evaluate-0-aaaaaaaa-1"
QUOTA = f'pods "{JOB}-7xk2p" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=0, limited: pods=0'
STARTED = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)


def created_not(message: str = f"Error creating: {QUOTA}", at: str = "2026-01-01T00:00:20Z") -> dict[str, Any]:
    return {"type": "Warning", "reason": "FailedCreate", "message": message, "lastTimestamp": at}


@pytest.mark.parametrize(
    ("events", "waited", "since", "stuck", "expected"),
    [
        ([created_not()], 29, "", None, ""),
        ([created_not()], 30, "", True, f'no pod of {JOB} can be created: pods "{JOB}-…" is forbidden: exceeded quota'),
        ([created_not("(combined from similar events): Error creating: no")], 30, "", True, "can be created: no"),
        ([created_not("old", "2026-01-01T00:00:10Z"), created_not("new")], 30, "", True, "can be created: new"),
        ([{"reason": "SuccessfulCreate", "message": "made"}], 30, "", False, "had no pod for 30 s, and no event"),
        ([], 299, "", False, "kubectl describe job"),
        ([], 300, "", True, "kubectl describe job"),
        ([], 300, "2026-01-01T00:00:10", None, ""),  # between two pods
        ([created_not()], 300, "2026-01-01T00:00:30", None, ""),  # an event from before the last pod is over
        ([created_not()], 30, "2026-01-01T00:00:10", True, "exceeded quota"),
        ([{**created_not(), "lastTimestamp": None, "eventTime": "2026-01-01T00:00:20.5Z"}], 30, "", True, "quota"),
    ],
)
def test_why_there_is_no_pod(events: list[dict], waited: float, since: str, stuck: bool | None, expected: str) -> None:
    found = why_no_pod(JOB, events, waited, since)
    assert (found.stuck if found else None) == stuck
    assert expected in (found.message if found else "")
    assert found is None or found.reason == "PodsNotCreated"


def test_the_sentence_stays_the_same_whatever_the_pod_was_to_be_called() -> None:
    names = ("7xk2p", "0-z9z9z")
    messages = {why_no_pod(JOB, [created_not(f'pods "{JOB}-{name}" is forbidden: no')], 60) for name in names}
    assert len(messages) == 1


class Cluster:
    """A Job's pods and Events, as the API server's cache and as etcd has them."""

    def __init__(self, cached: list[dict], now: list[dict], events: list[dict]) -> None:
        self.cached, self.now, self.events, self.asked = cached, now, events, 0

    async def list_pods(self, namespace: str, job_uid: str, *, cached: bool = False) -> list[dict]:
        return self.cached if cached else self.now

    async def list_workloads(self, namespace: str, job_uid: str) -> None:
        return None

    async def list_events(self, namespace: str, uid: str) -> list[dict]:
        self.asked += 1
        return self.events


def waiting_after(cluster: Cluster, seconds: float, **status: Any) -> Blocker | None:
    snapshot = job_snapshot(job_object(status={"startTime": "2026-01-01T00:00:01Z", **status}))
    pod_evidence = PodEvidence(cluster, lambda: STARTED + timedelta(seconds=seconds))  # type: ignore[arg-type]
    return attempt_of(snapshot, asyncio.run(pod_evidence.of_start("run", snapshot))).waiting


def test_a_job_without_a_pod_is_asked_about_in_time_and_stalls() -> None:
    cluster = Cluster([], [], [created_not()])
    assert waiting_after(cluster, 12) is None and cluster.asked == 0
    found = waiting_after(cluster, 31)
    assert found is not None and found.stuck and "exceeded quota" in found.message
    snapshot, now = job_snapshot(job_object(status={"startTime": "2026-01-01T00:00:01Z"})), [12.0]
    pod_evidence = PodEvidence(cluster, lambda: STARTED + timedelta(seconds=now[0]))  # type: ignore[arg-type]
    asyncio.run(pod_evidence.of_start("run", snapshot))
    assert pod_evidence.ask_again_in("run", [snapshot]) == 18
    now[0] += 18
    assert asyncio.run(pod_evidence.of_start("run", snapshot)).waiting is not None


def test_a_cache_that_lacks_the_pods_is_no_evidence() -> None:
    assert waiting_after(Cluster([], [pod(phase="Pending")], [created_not()]), 60) is None


def test_between_two_pods_a_job_runs_unless_the_next_one_is_refused() -> None:
    dead = pod(1, phase="Failed")  # it ended at 00:01:00
    assert waiting_after(Cluster([dead], [dead], [created_not()]), 200, failed=1) is None
    found = waiting_after(Cluster([dead], [dead], [created_not(at="2026-01-01T00:02:00Z")]), 200, failed=1)
    assert found is not None and found.reason == "PodsNotCreated"


def test_of_pods_that_train_together_one_that_is_refused_is_reported_while_the_others_wait() -> None:
    there = pod(containerStatuses=[{"name": "trainer", "state": {"running": {}}}], phase="Running")
    job = job_object(status={"startTime": "2026-01-01T00:00:01Z", "ready": 1}, completions=2)
    job["metadata"]["labels"]["selfevo.dev/phase"] = "solver-train"

    def blocker_of(events: list[dict], seconds: float) -> Blocker | None:
        pod_evidence = PodEvidence(Cluster([there], [there], events), lambda: STARTED + timedelta(seconds=seconds))  # type: ignore[arg-type]
        return attempt_of(job_snapshot(job), asyncio.run(pod_evidence.of_start("run", job_snapshot(job)))).waiting

    found = blocker_of([created_not(at="2026-01-01T00:01:00Z")], 90)
    assert found is not None and found.reason == "PodsNotCreated" and "1 of the 2 pods" in found.message
    assert blocker_of([created_not(at="2026-01-01T00:01:00Z")], 900) is None, "that was long ago"
    assert blocker_of([], 90) is None
