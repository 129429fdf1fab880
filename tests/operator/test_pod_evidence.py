"""What pods say is asked as seldom and as early as may be, and an old answer is not taken for the end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.objects import ended, job_object, pod, result
from selfevo_operator.api.kube import ApiError
from selfevo_operator.api.pod_evidence import Beside, PodEvidence
from selfevo_operator.observed.snapshots import JobSnapshot, job_snapshot


class Pods:
    """Pods as they are, and as a cache that is behind has them."""

    def __init__(self) -> None:
        self.now: list[dict[str, Any]] = []
        self.cached: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.error: ApiError | None = None
        self.time = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
        self.held: asyncio.Event | None = None
        self.pod_evidence = self.pod_evidence_of(asyncio.run)  # a question asked beside a reconcile is answered at once

    def pod_evidence_of(self, beside: Beside) -> PodEvidence:
        return PodEvidence(self, lambda: self.time, beside)  # type: ignore[arg-type]

    async def list_pods(self, namespace: str, job_uid: str, *, cached: bool = False) -> list[dict[str, Any]]:
        self.asked.append("cached" if cached else "now")
        if self.held is not None:
            await self.held.wait()
        if self.error is not None:
            raise self.error
        return self.cached if cached else self.now

    async def list_workloads(self, namespace: str, job_uid: str) -> None:
        return None

    async def list_events(self, namespace: str, uid: str) -> list[dict[str, Any]]:
        self.asked.append("events")
        return self.events

    def outcomes(self, job: JobSnapshot) -> list[str]:
        evidence = asyncio.run(self.pod_evidence.of_end(job))
        return [end.result.outcome for end in evidence.ends if end.result is not None]


def job(status: dict[str, Any], completions: int = 1) -> JobSnapshot:
    made = job_object(status=status)
    made["spec"]["completions"] = completions
    return job_snapshot(made)


COMPLETE = ended("Complete", succeeded=1)
SUCCEEDING = {"uncountedTerminatedPods": {"succeeded": ["p"]}}


def test_the_end_of_a_job_is_asked_once() -> None:
    pods = Pods()
    pods.cached = [pod(0, result())]
    assert pods.outcomes(job(COMPLETE)) == pods.outcomes(job(COMPLETE)) == ["committed"]
    assert pods.asked == ["cached"]


def test_a_recorded_end_is_forgotten() -> None:
    pods = Pods()
    pods.cached = [pod(0, result())]
    pods.outcomes(job(COMPLETE))
    pods.pod_evidence.forget_end(job(COMPLETE))
    pods.outcomes(job(COMPLETE))
    assert pods.asked == ["cached", "cached"]


@pytest.mark.parametrize(
    "behind",
    [[], [pod()], [pod(1, "boom")], [pod(0)]],
    ids=["it has no pod", "the pod runs", "it has an earlier pod only", "there is no result"],
)
def test_a_cache_that_is_behind_is_not_the_end(behind: list[dict[str, Any]]) -> None:
    pods = Pods()
    pods.cached, pods.now = behind, [pod(0, result("found"))]
    assert pods.outcomes(job(COMPLETE)) == ["found"]
    assert pods.asked == ["cached", "now"]


def test_of_shards_all_must_have_ended_well() -> None:
    pods = Pods()
    pods.cached, pods.now = [pod(0, result("found"))], [pod(0, result("found")), pod(0, result())]
    assert pods.outcomes(job(COMPLETE, completions=2)) == ["found", "committed"]
    assert pods.asked == ["cached", "now"]


def test_of_a_failure_the_pods_are_asked_as_they_are() -> None:
    pods = Pods()
    pods.cached, pods.now = [pod(0, result())], [pod(2, "no")]
    assert pods.outcomes(job(ended("Failed", "PodFailurePolicy", "x"))) == []
    assert pods.asked == ["now"]


def test_what_is_about_to_succeed_is_asked_before_its_end() -> None:
    pods = Pods()
    pods.cached = [pod(0, result())]
    succeeding = job(SUCCEEDING)
    assert succeeding.succeeding and not succeeding.finished
    pods.pod_evidence.prefetch_result(succeeding)
    pods.pod_evidence.prefetch_result(succeeding)
    assert pods.outcomes(job(COMPLETE)) == ["committed"]
    assert pods.asked == ["cached"]


def test_the_end_waits_for_a_question_that_is_under_way_and_nobody_else_does() -> None:
    pods = Pods()
    pods.cached = [pod(0, result())]

    async def scene() -> int:
        pods.held, pod_evidence = asyncio.Event(), pods.pod_evidence_of(asyncio.create_task)
        pod_evidence.prefetch_result(job(SUCCEEDING))
        pod_evidence.prefetch_result(job(SUCCEEDING))
        end = asyncio.create_task(pod_evidence.of_end(job(COMPLETE)))
        await asyncio.sleep(0)
        assert not end.done()
        pods.held.set()
        return len((await end).ends)

    assert (asyncio.run(scene()), pods.asked) == (1, ["cached"])


def test_what_seemed_a_success_and_failed_is_asked_again() -> None:
    pods = Pods()
    pods.cached, pods.now = [pod(0, result())], [pod(137)]
    pods.pod_evidence.prefetch_result(job(SUCCEEDING))
    assert pods.outcomes(job(ended("Failed", "DeadlineExceeded", "late"))) == []
    assert pods.asked == ["cached", "now"]


def test_a_question_asked_early_may_fail() -> None:
    pods = Pods()
    pods.error = ApiError(429, "TooManyRequests", "later")
    pods.pod_evidence.prefetch_result(job(SUCCEEDING))
    with pytest.raises(ApiError, match="later"):
        pods.outcomes(job(COMPLETE))
    pods.error, pods.cached = None, [pod(0, result())]
    assert pods.outcomes(job(COMPLETE)) == ["committed"]


@pytest.mark.parametrize(
    ("status", "completions"),
    [({}, 1), ({"active": 1, "ready": 1}, 1), ({"uncountedTerminatedPods": {"failed": ["p"]}}, 1), (SUCCEEDING, 2)],
)
def test_what_still_has_pods_to_run_does_not_succeed_yet(status: dict[str, Any], completions: int) -> None:
    assert not job(status, completions).succeeding


def test_a_job_that_does_not_start_is_asked_after_a_while_and_then_now_and_again() -> None:
    pods = Pods()
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    pods.cached = [pod(containerStatuses=[{"name": "trainer", "state": waiting}])]
    young = job({"startTime": "2026-01-01T00:09:55Z"})
    assert asyncio.run(pods.pod_evidence.of_start("run", young)).waiting is None and pods.asked == []
    assert pods.pod_evidence.ask_again_in("run", [young]) == 10
    pods.time += timedelta(seconds=6)
    for _ in range(2):
        evidence = asyncio.run(pods.pod_evidence.of_start("run", young))
        assert evidence.waiting is not None and evidence.waiting.reason == "ErrImagePull"
    assert pods.asked == ["cached"] and pods.pod_evidence.ask_again_in("run", [young]) == 30
    pods.time += timedelta(seconds=31)
    asyncio.run(pods.pod_evidence.of_start("run", young))
    assert pods.asked == ["cached", "cached"]
    asyncio.run(pods.pod_evidence.of_start("run", job({"ready": 1})))
    assert pods.pod_evidence.ask_again_in("run", [young]) == 10


def test_reasons_are_asked_for_a_few_jobs_at_a_time() -> None:
    pods, answer = Pods(), asyncio.Event()

    async def slow(namespace: str, job_uid: str, *, cached: bool = False) -> list[dict[str, Any]]:
        pods.asked.append(job_uid)
        await answer.wait()
        return [pod()]

    async def run() -> None:
        pods.list_pods = slow  # type: ignore[method-assign]
        jobs = [job_snapshot(job_object(uid=f"job{n}", status={"startTime": "2026-01-01T00:00:00Z"})) for n in range(6)]
        reads = [asyncio.create_task(pods.pod_evidence.of_start(f"run{n}", each)) for n, each in enumerate(jobs)]
        await asyncio.sleep(0.01)
        assert pods.asked == ["job0", "job1", "job2", "job3"]
        answer.set()
        await asyncio.gather(*reads)
        await pods.pod_evidence.of_start("run5", jobs[5])
        assert pods.asked[4:] == ["job5"]

    asyncio.run(run())
