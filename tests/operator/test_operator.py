"""The running operator's judgement: when a watch is dead, and what the probes say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from harness.objects import ended, job_object, run_object
from selfevo_operator.api.kube import ApiError, Page
from selfevo_operator.manifests.settings import PodSettings
from selfevo_operator.observed.cache import Key
from selfevo_operator.runtime.errors import OperatorError
from selfevo_operator.runtime.operator import Operator
from selfevo_operator.runtime.settings import Patience, Settings
from selfevo_traces.base import NOWHERE, Sender

STUCK_S = Patience().stuck
DEMO = Key("lab", "demo")


class Lists:
    """Lists as they are set, and nothing else of a cluster."""

    def __init__(self) -> None:
        self.version, self.runs, self.jobs = 10, [run_object(1)], [job_object(1)]
        self.listed = 0

    async def list_runs(self, namespace: str | None) -> AsyncIterator[Page]:
        yield Page(self.runs, self.version, True)

    async def list_jobs(self, namespace: str | None) -> AsyncIterator[Page]:
        yield Page(self.jobs, self.version, True)
        self.listed += 1


def operator_of(api: object = None, *namespaces: str, resync_seconds: float = 60, sender: Sender = NOWHERE) -> Operator:
    settings = Settings(
        namespaces=namespaces, pods=PodSettings(image="x"), host="", port=0, workers=2, resync_seconds=resync_seconds,
        kubeconfig=None, verbose=False,
    )  # fmt: skip
    made = Operator(api, settings, sender)  # type: ignore[arg-type]
    made.scopes.listed = True
    return made


def listing(operator: Operator, lists: Lists) -> None:
    asyncio.run(operator.resync.list_all(lists))  # type: ignore[arg-type]


def test_a_list_that_is_ahead_once_is_a_race() -> None:
    operator, lists = operator_of(), Lists()
    listing(operator, lists)
    listing(operator, lists)
    listing(operator, lists)
    assert operator.queue.take(time.monotonic()) == DEMO


def test_a_watch_that_says_nothing_while_lists_show_changes_twice_is_dead() -> None:
    operator, lists = operator_of(), Lists()
    listing(operator, lists)
    lists.jobs = [job_object(2, status={"ready": 1})]
    with pytest.raises(OperatorError, match="the watch of jobs has been silent for 120 s"):
        listing(operator, lists)


def test_a_busy_watch_may_be_behind_every_list() -> None:
    operator, lists = operator_of(), Lists()
    for version in range(1, 9):
        lists.jobs = [job_object(version, status={"failed": version})]
        lists.runs = [run_object(version)]
        listing(operator, lists)
        operator.saw_job("MODIFIED", job_object(1))
        operator.saw_run("MODIFIED", run_object(1))


def test_events_bring_runs_into_the_queue_and_old_ones_do_not() -> None:
    operator = operator_of()
    operator.saw_run("ADDED", run_object(5))
    assert operator.queue.take(0) == DEMO
    operator.queue.done(DEMO, 0)
    operator.saw_run("MODIFIED", run_object(5))
    operator.saw_run(None, run_object(4))
    assert operator.queue.take(0) is None
    operator.saw_job("ADDED", job_object(6))
    assert operator.queue.take(0) == DEMO


def test_nothing_is_ready_before_everything_is_listed() -> None:
    operator = operator_of()
    operator.scopes.listed = False
    assert "not listed" in operator.probes.unready()
    operator.scopes.listed = True
    assert operator.probes.unready() == ""


class Half(Lists):
    """One namespace is refused to us."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = {"closed"}

    async def list_runs(self, namespace: str | None) -> AsyncIterator[Page]:
        if namespace in self.refuses:
            raise ApiError(403, "Forbidden", f"no lists in {namespace}")
        runs = [run for run in self.runs if run["metadata"]["namespace"] == namespace]
        yield Page(runs, self.version, True)

    async def list_jobs(self, namespace: str | None) -> AsyncIterator[Page]:
        yield Page([], self.version, True)


def refused_of(operator: Operator, namespace: str) -> float | None:
    return operator.metrics.registry.get_sample_value("selfevo_namespace_refused", {"namespace": namespace})


def test_a_namespace_that_is_refused_is_reported_and_the_others_are_served(caplog: pytest.LogCaptureFixture) -> None:
    operator, lists = operator_of(None, "closed", "lab"), Half()
    operator.scopes.listed = False
    closed = run_object(2, uid="c")
    closed["metadata"]["namespace"] = "closed"
    listing(operator, lists)
    operator.scopes.listed = True
    assert operator.queue.take(time.monotonic()) == DEMO
    operator.queue.done(DEMO, 0)
    operator.saw_run("ADDED", closed)
    assert operator.queue.take(time.monotonic()) is None, "of a namespace that was never listed nothing is decided"
    listing(operator, lists)
    assert refused_of(operator, "closed") == 1 and refused_of(operator, "lab") is None
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert message.startswith("namespace closed cannot be served: no lists in closed")
    lists.refuses.clear()
    lists.runs.append(closed)
    listing(operator, lists)
    assert refused_of(operator, "closed") == 0
    assert operator.queue.take(time.monotonic()) == Key("closed", "demo")
    operator.watch_refused("lab", "no watches")
    listing(operator, lists)
    assert refused_of(operator, "lab") == 1, "a list is no watch"
    operator.watch_refused("lab", "")
    assert refused_of(operator, "lab") == 0


def test_when_no_namespace_is_let_through_that_is_an_error() -> None:
    operator, lists = operator_of(None, "closed", "lab"), Half()
    lists.refuses = {"closed", "lab"}
    with pytest.raises(ApiError, match="no lists in closed"):
        listing(operator, lists)


def test_a_watch_event_of_one_namespace_counts_for_all() -> None:
    operator, lists = operator_of(None, "closed", "lab"), Half()
    lists.refuses.clear()
    for version in range(20, 26):
        lists.runs = [run_object(version)]
        listing(operator, lists)
        operator.saw_run("MODIFIED", run_object(1))


def test_a_reconcile_that_hangs_and_a_run_that_is_never_reconciled_are_unhealthy() -> None:
    operator, now = operator_of(), time.monotonic()
    assert operator.probes.unhealthy() == ""
    operator.queue.add(DEMO, now - STUCK_S - 1)
    assert "has waited" in operator.probes.unhealthy()
    operator.queue.take(now - STUCK_S - 1)
    assert "a reconcile has taken" in operator.probes.unhealthy()
    operator.queue.done(DEMO, now)
    assert operator.probes.unhealthy() == ""


def test_metrics_tell_of_each_run_when_it_went_on_and_how_long_runs_wait() -> None:
    operator = operator_of()
    ready = {"type": "Ready", "status": "False", "reason": "StepsRunning"}
    attempts = [
        {"startedAt": "2026-01-01T00:00:00.000Z", "finishedAt": "2026-01-01T01:00:00.000Z", "state": "Succeeded"},
        {"startedAt": "2026-01-01T02:00:00.000Z", "state": "Running"},
    ]
    started = {"startedAt": "2026-01-01T00:00:00.000Z"}
    operator.saw_run("ADDED", run_object(5, status={**started, "conditions": [ready], "attempts": attempts}))
    queued = {**started, "conditions": [{**ready, "reason": "Queued"}], "attempts": attempts}
    operator.saw_run("ADDED", run_object(6, uid="q", name="queued", status=queued))
    sample = operator.metrics.registry.get_sample_value
    name = "selfevo_run_went_on_timestamp_seconds"
    assert sample(name, {"run_namespace": "lab", "run": "demo"}) == datetime(2026, 1, 1, 2, tzinfo=UTC).timestamp()
    assert sample(name, {"run_namespace": "lab", "run": "queued"}) is None
    operator.queue.add(Key("lab", "late"), time.monotonic() - 100, pressing=True)
    assert sample("selfevo_queue_depth") == 3 and (sample("selfevo_queue_oldest_seconds") or 0) >= 0


def test_a_slow_api_server_is_no_reason_to_start_anew_and_a_reconcile_without_end_is() -> None:
    operator, now = operator_of(), time.monotonic()
    operator.queue.add(DEMO, now - STUCK_S - 1)
    operator.queue.add(Key("lab", "other"), now - STUCK_S - 1)
    operator.queue.take(now - STUCK_S - 1)
    assert operator.probes.unhealthy() != ""
    operator.called("create", "jobs", 0)  # it did not answer in time
    assert operator.probes.unhealthy() == ""
    operator.queue.done(DEMO, now)
    assert operator.probes.unhealthy() == "" and operator.queue.age(now) > STUCK_S
    operator.queue.take(now - 11 * STUCK_S)
    assert "a reconcile has taken" in operator.probes.unhealthy()


def test_what_was_deleted_before_a_watch_began_is_found_by_a_list_then() -> None:
    async def scene() -> None:
        operator, lists = operator_of(), Lists()
        listing = asyncio.create_task(operator.resync.run(lists))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        assert operator.cache.job_count() == 1
        lists.jobs, lists.version = [], 11
        operator.resync.watch_began()
        began = time.monotonic()
        while operator.cache.job_count():
            assert time.monotonic() < began + 20, "the next regular list is in 60 s"
            await asyncio.sleep(0.01)
        listing.cancel()

    asyncio.run(scene())


def test_a_list_because_a_watch_began_brings_its_changes_alone_and_a_regular_one_everybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("selfevo_operator.runtime.resync._SETTLE_S", 0.01)

    async def reconciled_after(resync_seconds: float, lists_more: int) -> Key | None:
        operator, lists = operator_of(resync_seconds=resync_seconds), Lists()
        listing = asyncio.create_task(operator.resync.run(lists))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        now = time.monotonic()
        assert operator.queue.take(now) == DEMO
        operator.queue.done(DEMO, now)
        operator.resync.watch_began()
        began, before = time.monotonic(), lists.listed
        while lists.listed < before + lists_more:
            assert time.monotonic() < began + 60, "no list"
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)  # what the list brings is taken in
        listing.cancel()
        return operator.queue.take(time.monotonic())

    assert asyncio.run(reconciled_after(600.0, 1)) is None
    assert asyncio.run(reconciled_after(0.1, 3)) == DEMO


def test_while_no_write_slot_is_free_a_pod_that_has_begun_waits_for_room_and_not_for_a_reconcile() -> None:
    operator = operator_of()
    operator.saw_job("ADDED", job_object(1))
    operator.queue.done(operator.queue.take(0) or DEMO, 0)
    for name in ("a", "b"):
        assert operator.workers.write_slots.may_write(Key("lab", name))
    operator.saw_job("MODIFIED", job_object(2, status={"startTime": "2026-01-01T00:00:01Z", "ready": 1}))
    assert operator.queue.next_due() is None and operator.queue.depth == 0
    assert operator.workers.write_slots.end(Key("lab", "a")) == DEMO


def test_a_pod_that_has_begun_waits_a_moment_for_what_may_follow_and_an_end_does_not() -> None:
    operator = operator_of()
    operator.saw_job("ADDED", job_object(1))
    now = time.monotonic()
    assert operator.queue.take(now) == DEMO
    operator.queue.done(DEMO, now)
    operator.saw_job("MODIFIED", job_object(2, status={"startTime": "2026-01-01T00:00:01Z", "ready": 1}))
    assert operator.queue.take(now) is None
    assert now < (operator.queue.next_due() or 0) < time.monotonic() + 1.01
    operator.saw_job("MODIFIED", job_object(3, status=ended("Complete", succeeded=1)))
    assert operator.queue.take(time.monotonic()) == DEMO


def test_pods_that_have_ended_well_are_asked_at_once_and_without_a_reconcile() -> None:
    asked: list[str] = []

    class Pods:
        async def list_pods(self, namespace: str, job_uid: str, *, cached: bool = False) -> list[dict[str, object]]:
            asked.append(job_uid)
            return []

    async def scene() -> None:
        operator = operator_of(Pods())
        operator.saw_job("ADDED", job_object(1))
        now = time.monotonic()
        operator.queue.done(operator.queue.take(now) or DEMO, now)
        for version in (2, 3):
            operator.saw_job("MODIFIED", job_object(version, status={"uncountedTerminatedPods": {"succeeded": ["p"]}}))
        assert operator.queue.take(now) is None
        await asyncio.sleep(0.01)

    asyncio.run(scene())
    assert asked == ["j1"]
