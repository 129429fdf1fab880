"""What Kueue says of a Job that waits, and when it is asked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.objects import job_object
from selfevo_operator.api.kube import ApiError
from selfevo_operator.api.queued import Queued
from selfevo_operator.observed.evidence import Evidence
from selfevo_operator.observed.snapshots import attempt_of, job_snapshot
from selfevo_operator.observed.workloads import why_no_workload, why_queued

Object = dict[str, Any]


def workload(*conditions: tuple[str, str, str, str], active: bool | None = None) -> Object:
    found = [{"type": t, "status": s, "reason": r, "message": m} for t, s, r, m in conditions]
    spec = {} if active is None else {"active": active}
    return {"metadata": {"name": "job-demo-1"}, "spec": spec, "status": {"conditions": found}}


LIMIT = "exceeding the maximum number of re-queuing retries"


@pytest.mark.parametrize(
    ("made", "reason", "stuck", "words"),
    [
        (workload(("QuotaReserved", "False", "NoMatchingFlavor", "no flavor fits")), "NoMatchingFlavor", True, "fits"),
        (workload(("QuotaReserved", "False", "Misconfigured", "ClusterQueue x not found")), "Misconfigured", True, "x"),
        (workload(("QuotaReserved", "False", "Misconfigured", "ClusterQueue x is inactive")), "Queued", False, "x"),
        (workload(("QuotaReserved", "False", "ExceedsMaxQuota", "16 of 8")), "ExceedsMaxQuota", True, "16 of 8"),
        (workload(("QuotaReserved", "False", "Inadmissible", "LocalQueue b doesn't exist")), "Inadmissible", True, "b"),
        (workload(("QuotaReserved", "False", "Pending", "3 more needed")), "Queued", False, "3 more needed"),
        (workload(("QuotaReserved", "False", "WaitingForQuota", "3 more needed")), "Queued", False, "3 more needed"),
        (
            workload(("Evicted", "True", "PodsReadyTimeout", "Exceeded 5m"), ("QuotaReserved", "False", "Pending", "")),
            *("Queued", False, "PodsReadyTimeout"),
        ),
        (workload(("Evicted", "True", "Deactivated", LIMIT), active=False), "Deactivated", True, LIMIT),
        (workload(active=False), "Deactivated", True, "does not say why"),
    ],
)
def test_a_workload_says_why_its_job_waits(made: Object, reason: str, stuck: bool, words: str) -> None:
    blocker = why_queued(made)
    assert blocker is not None and (blocker.reason, blocker.stuck) == (reason, stuck)
    assert words in blocker.message


@pytest.mark.parametrize("made", [workload(), workload(("QuotaReserved", "True", "QuotaReserved", "in x"))])
def test_a_workload_may_say_nothing(made: Object) -> None:
    assert why_queued(made) is None


def event(kind: str, reason: str, message: str, component: str = "batch/job-kueue-controller") -> Object:
    return {"type": kind, "reason": reason, "message": message, "source": {"component": component}}


REFUSED = event("Warning", "ErrWorkloadCompose", 'workloadpriorityclass "no-such" not found')


@pytest.mark.parametrize(
    ("workloads", "events", "words"),
    [
        ([], [REFUSED], 'workloadpriorityclass "no-such" not found'),
        (None, [REFUSED], 'workloadpriorityclass "no-such" not found'),
        ([], [], "spec.priorityClass"),
        (None, [], None),
        (None, [event("Warning", "x", "y", "job-controller")], None),
        (None, [REFUSED, event("Normal", "CreatedWorkload", "Created Workload: n/w")], None),
    ],
)
def test_a_job_of_which_kueue_makes_no_workload_says_so(
    workloads: Any, events: list[Object], words: str | None
) -> None:
    blocker = why_no_workload(workloads, events)
    assert (blocker is None) == (words is None)
    if blocker is not None and words is not None:
        assert (blocker.reason, blocker.stuck) == ("NoWorkload", True) and words in blocker.message


class Kueue:
    def __init__(self) -> None:
        self.workloads: list[Object] | None = None
        self.events: list[Object] = []
        self.asked: list[str] = []
        self.error: ApiError | None = None

    async def list_workloads(self, namespace: str, job_uid: str) -> list[Object] | None:
        self.asked.append("workloads")
        if self.error:
            raise self.error
        return self.workloads

    async def list_events(self, namespace: str, uid: str) -> list[Object]:
        self.asked.append("events")
        return self.events


class Waits:
    def __init__(self) -> None:
        self.kueue, self.now = Kueue(), datetime(2026, 1, 1, tzinfo=UTC)
        self.queued = Queued(self.kueue, lambda: self.now)  # type: ignore[arg-type]
        held = job_object(labels={"kueue.x-k8s.io/queue-name": "team-a"})
        held["spec"]["suspend"] = True
        self.job = job_snapshot(held)

    def after(self, seconds: float) -> str:
        self.now += timedelta(seconds=seconds)
        blocker = asyncio.run(self.queued.why("run", self.job))
        return blocker.reason if blocker else ""


def test_kueue_is_asked_after_a_while_and_then_now_and_again() -> None:
    waits = Waits()
    waits.kueue.workloads = [workload(active=False)]
    assert [waits.after(0), waits.after(9)] == ["", ""] and waits.kueue.asked == []
    assert [waits.after(1), waits.after(5)] == ["Deactivated"] * 2 and waits.kueue.asked == ["workloads"]
    waits.kueue.workloads = [workload()]
    assert waits.after(25) == "" and waits.queued.ask_again_in("run") == 20, "to name the queue after a minute"
    waits.after(200)
    assert waits.queued.ask_again_in("run") == 300
    waits.queued.forget("run", waits.job.uid)
    assert waits.queued.ask_again_in("run") is None


def test_without_the_right_to_read_workloads_events_tell_once() -> None:
    waits = Waits()
    waits.kueue.events = [event("Normal", "CreatedWorkload", "Created Workload: n/w")]
    assert [waits.after(seconds) for seconds in (0, 10, 30)] == ["", "", ""]
    assert waits.queued.ask_again_in("run") == 20
    assert [waits.after(seconds) for seconds in (20, 300, 300)] == ["Queued"] * 3
    blocker = asyncio.run(waits.queued.why("run", waits.job))
    assert blocker is not None and not blocker.stuck and "kubectl get localqueue team-a -n lab" in blocker.message
    assert waits.kueue.asked.count("events") == 1 and waits.queued.ask_again_in("run") is None


def test_a_class_that_does_not_exist_is_reported_within_a_minute() -> None:
    waits = Waits()
    waits.kueue.events = [REFUSED]
    assert [waits.after(seconds) for seconds in (0, 10, 30)] == ["", "", "NoWorkload"]


def test_an_error_is_nothing_that_kueue_reported() -> None:
    waits = Waits()
    waits.kueue.error = ApiError(500, "InternalError", "later")
    assert [waits.after(seconds) for seconds in (0, 10, 30)] == ["", "", ""]


def test_an_error_takes_nothing_back_and_does_not_end_the_asking() -> None:
    waits = Waits()
    waits.kueue.workloads = [workload(active=False)]
    waits.kueue.events = [event("Normal", "CreatedWorkload", "Created Workload: n/w")]
    assert [waits.after(seconds) for seconds in (0, 10)] == ["", "Deactivated"]
    waits.kueue.error = ApiError(500, "InternalError", "later")
    assert [waits.after(seconds) for seconds in (60, 60)] == ["Deactivated", "Deactivated"]
    assert waits.queued.ask_again_in("run") is not None


def test_what_kueue_reported_is_why_the_attempt_waits_and_the_pods_last_reason_stays_in_it() -> None:
    waits = Waits()
    waits.kueue.workloads = [workload(("Evicted", "True", "Deactivated", LIMIT), active=False)]
    waits.after(0)
    waits.after(10)
    blocker = asyncio.run(waits.queued.why("run", waits.job))
    assert blocker is not None
    pulled = attempt_of(job_snapshot(job_object(status={"active": 1})), Evidence(waiting=blocker)).waiting
    attempt = attempt_of(waits.job, Evidence(waiting=blocker, before=pulled))
    assert attempt.waiting is not None and (attempt.waiting.reason, attempt.waiting.stuck) == ("Deactivated", True)
    assert attempt.waiting.message.startswith(f"{waits.job.name} is held in queue team-a: Kueue has deactivated")
    assert "before that, " in attempt.waiting.message
