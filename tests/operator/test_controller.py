"""The controller against a cluster of dictionaries: the calls of a reconcile, their order, and what refusals do."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness import unbuilt
from harness.objects import ended, pod
from harness.runs import document
from selfevo_contract.plan import plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_operator.api.kube import ApiError
from selfevo_operator.controller import AT_ONCE, Controller
from selfevo_operator.manifests.settings import PodSettings
from selfevo_operator.observed.cache import Cache, Key

DEMO = Key("default", "demo")


class Cluster:
    """`kube.Api` over dictionaries; ``refuse`` says which calls fail, ``calls`` which were made."""

    def __init__(self) -> None:
        self.version, self.calls, self.jobs = 10, [], {}
        self.refuse: dict[str, list[ApiError]] = {}
        self.pods: list[dict[str, Any]] = []
        self.job_events: list[dict[str, Any]] = []
        self.run: dict[str, Any] = {}
        self.events: list[Mapping[str, Any]] = []

    def _called(self, call: str, what: str = "") -> None:
        self.calls.append(f"{call} {what}".strip())
        if self.refuse.get(call):
            raise self.refuse[call].pop(0)

    def stored(self, obj: Mapping[str, Any], uid: str) -> dict[str, Any]:
        self.version += 1
        made = copy.deepcopy(dict(obj))
        made["metadata"] |= {"uid": uid, "resourceVersion": str(self.version)}
        made["metadata"].setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        return made

    async def get_run(self, namespace: str, name: str) -> dict[str, Any]:
        self._called("get run")
        return self.run

    async def patch_status(self, namespace: str, name: str, patch: list[dict[str, Any]]) -> dict[str, Any]:
        self._called("patch status")
        if patch[0]["value"] != self.run["metadata"]["resourceVersion"]:
            raise ApiError(422, "Invalid", "the test failed")
        status = dict(self.run.get("status") or {})
        for operation in patch[1:]:
            if operation["path"] != "/status":
                field = operation["path"].split("/")[2]
                status.pop(field, None)
                if operation["op"] == "add":
                    status[field] = operation["value"]
        self.run = self.stored({**self.run, "status": status}, self.run["metadata"]["uid"])
        return self.run

    async def get_job(self, namespace: str, name: str) -> dict[str, Any]:
        self._called("get job", name)
        if name not in self.jobs:
            raise ApiError(404, "NotFound", name)
        return self.jobs[name]

    async def create_job(self, namespace: str, job: Mapping[str, Any]) -> dict[str, Any]:
        name = job["metadata"]["name"]
        self._called("create job", name)
        if name in self.jobs:
            raise ApiError(409, "AlreadyExists", f"jobs {name!r} already exists")
        self.jobs[name] = self.stored({**job, "kind": "Job"}, f"uid-{name}")
        return self.jobs[name]

    async def delete_job(self, namespace: str, name: str, uid: str, version: int) -> dict[str, Any]:
        self._called("delete job", f"{name} {uid}")
        job = copy.deepcopy(self.jobs[name])
        if (job["metadata"]["uid"], job["metadata"]["resourceVersion"]) != (uid, str(version)):
            raise ApiError(409, "Conflict", "Precondition failed")
        job["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
        self.jobs[name] = self.stored(job, uid)
        return self.jobs[name]

    async def create_service(self, namespace: str, service: Mapping[str, Any]) -> None:
        self._called("create service")

    async def list_pods(self, namespace: str, job_uid: str, *, cached: bool = False) -> list[dict[str, Any]]:
        self._called("list pods")
        return self.pods

    async def list_workloads(self, namespace: str, job_uid: str) -> None:
        return None

    async def list_events(self, namespace: str, uid: str) -> list[dict[str, Any]]:
        self._called("list events")
        return self.job_events

    async def create_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        self._called("create event", event["reason"])
        self.events.append(event)


class World:
    """One run, its controller, and a clock."""

    def __init__(self, **changes: Any) -> None:
        self.cluster, self.cache = Cluster(), Cache()
        self.now = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
        self.generation = 0
        self.changes: dict[str, Any] = {"spec__storage__uri": "s3://models/x", "spec__challenger__grpo__maxSteps": 0}
        self.edit(**changes)
        self.controller = Controller(self.cluster, self.cache, PodSettings(image="trainer"), lambda: self.now)

    def edit(self, **changes: Any) -> None:
        self.generation += 1
        self.changes |= changes
        made = document(**self.changes)
        made["metadata"] |= {"generation": self.generation}
        if "status" in self.cluster.run:
            made["status"] = self.cluster.run["status"]
        self.cluster.run = self.cluster.stored(made, "run-1")
        self.cache.put_run(self.cluster.run)

    def reconcile(self, seconds: float = 0) -> float | None:
        self.now += timedelta(seconds=seconds)
        self.cluster.calls.clear()
        return asyncio.run(self.controller.reconcile_run(DEMO))

    def see(self, name: str, status: dict[str, Any] | None = None, **spec: Any) -> None:
        job = copy.deepcopy(self.cluster.jobs[name])
        job["status"] = status or {}
        job["spec"] |= spec
        self.cluster.jobs[name] = self.cluster.stored(job, job["metadata"]["uid"])
        self.cache.put_job(self.cluster.jobs[name])

    def finish(self, name: str, outcome: str = "committed") -> None:
        key = self.cluster.jobs[name]["metadata"]["annotations"]["selfevo.dev/key"]
        phase = self.cluster.jobs[name]["metadata"]["labels"]["selfevo.dev/phase"]
        result = f'{{"phase": "{phase}", "key": "{key}", "outcome": "{outcome}", "metrics": {{"mean": 0.5}}}}'
        self.cluster.pods = [pod(0, result)]
        self.see(name, ended("Complete"))

    @property
    def status(self) -> dict[str, Any]:
        return self.cluster.run["status"]

    def condition(self, kind: str) -> tuple[str, str, str]:
        found = next(c for c in self.status["conditions"] if c["type"] == kind)
        return found["status"], found["reason"], found["message"]

    @property
    def names(self) -> list[str]:
        return list(self.cluster.jobs)


def test_a_first_reconcile_creates_the_job_reports_so_once_and_sends_one_event() -> None:
    world = World()
    world.reconcile()
    (name,) = world.names
    assert world.cluster.calls == [f"create job {name}", "patch status", "create event StepStarted"]
    assert world.status["steps"][0]["state"] == "Running"
    assert world.status["attempts"][0]["name"] == name


def test_a_transition_is_three_writes_and_one_read_and_a_second_reconcile_none() -> None:
    world = World()
    world.reconcile()
    world.finish(world.names[0])
    world.reconcile(1)
    assert world.cluster.calls == [
        "list pods",
        f"create job {world.names[1]}",
        "patch status",
        "create event StepSucceeded",
    ]
    assert world.status["score"] == 0.5
    world.reconcile(1)
    assert world.cluster.calls == []


def test_the_next_job_is_created_before_anything_is_written_down() -> None:
    world = World()
    world.reconcile()
    world.finish(world.names[0])
    world.cluster.refuse["patch status"] = [ApiError(500, "InternalError", "etcd is away")]
    with pytest.raises(ApiError):
        world.reconcile(1)
    assert len(world.names) == 2
    world.reconcile(1)
    assert world.cluster.calls == ["get run", "patch status", "create event StepSucceeded"]


def test_a_record_that_comes_during_a_reconcile_is_what_the_next_job_is_decided_by() -> None:
    """The reply to the write of a step's end is lost, its Job is gone, and the watch shows the record late."""
    world = World(spec__parallelSteps=2, spec__challenger__grpo__maxSteps=1)
    world.reconcile()
    names = world.names
    assert len(names) == 2
    known = world.cluster.run
    for step in (written := copy.deepcopy(known))["status"]["steps"]:
        if names[1].startswith(f"demo-{step['name']}-"):
            step.update(state="Succeeded", ended=1)
    for name in names:
        world.cache.drop_job(world.cluster.jobs.pop(name))
    written = world.cluster.stored(written, "run-1")
    create_job = world.cluster.create_job

    async def meanwhile(namespace: str, job: Mapping[str, Any]) -> dict[str, Any]:
        world.cluster.run = written
        world.cache.put_run(written)  # the watch
        return await create_job(namespace, job)

    world.cluster.create_job = meanwhile  # type: ignore[method-assign]
    assert world.reconcile(20) == AT_ONCE
    assert [call for call in world.cluster.calls if call.startswith("create job")] == [f"create job {names[0]}"]
    world.reconcile()
    assert f"create job {names[1]}" not in world.cluster.calls, "that step is done"


def test_a_record_that_comes_while_a_service_is_created_is_what_its_job_is_decided_by() -> None:
    grpo = {"maxSteps": 1, "perDeviceTrainBatchSize": 8}
    over = {f"spec__challenger__grpo__{name}": value for name, value in grpo.items()}
    world = World(spec__parallelSteps=2, spec__challenger__pods={"nodes": 2}, **over)
    create_service = world.cluster.create_service

    async def meanwhile(namespace: str, service: Mapping[str, Any]) -> None:
        await create_service(namespace, service)
        world.edit(spec__suspend=True)  # the watch

    world.cluster.create_service = meanwhile  # type: ignore[method-assign]
    world.reconcile()
    assert "create service" in world.cluster.calls
    assert [name.split("-")[1] for name in world.cluster.jobs] == ["evaluate"]


def test_a_new_operator_asks_for_the_jobs_whose_end_nobody_saw_by_name() -> None:
    """Another one bears the name since, whose every record was lost, and it has lost our label."""
    world = World()
    world.reconcile()
    (name,) = world.names
    world.edit(spec__suspend=True)
    world.cache.drop_job(world.cluster.jobs.pop(name))
    world.reconcile()
    assert world.status["attempts"][0] | {"state": "Failed", "reason": "Lost"} == world.status["attempts"][0]

    world.edit(spec__suspend=False)
    world.cluster.refuse["patch status"] = [ApiError(503, "ServiceUnavailable", "shutting down")]
    with pytest.raises(ApiError):
        world.reconcile(1)
    assert world.names == [name]
    world.cache = Cache()
    world.edit(spec__suspend=True)
    world.controller = Controller(world.cluster, world.cache, PodSettings(image="trainer"), lambda: world.now)
    world.reconcile(1)
    assert f"delete job {name} uid-{name}" in world.cluster.calls


def test_after_a_write_whose_reply_is_lost_the_run_is_asked_for() -> None:
    """Its record may say by now that the step is done whose Job is gone."""
    world = World()
    world.reconcile()
    (first,) = world.names
    world.finish(first)
    world.cluster.refuse["create job"] = [ApiError(403, "Forbidden", "exceeded quota")]
    patch_status = world.cluster.patch_status

    async def lost(namespace: str, name: str, patch: list[dict[str, Any]]) -> dict[str, Any]:
        await patch_status(namespace, name, patch)
        raise ApiError(0, "Unreachable", "no answer")

    world.cluster.patch_status = lost  # type: ignore[method-assign]
    with pytest.raises(ApiError):
        world.reconcile(1)
    world.cluster.patch_status = patch_status  # type: ignore[method-assign]
    world.cache.drop_job(world.cluster.jobs.pop(first))
    assert world.reconcile(1) == AT_ONCE and world.cluster.calls == ["get run"]
    world.reconcile()
    assert [call for call in world.cluster.calls if call.startswith(("get run", "create job"))] == [
        f"create job {world.names[0]}"
    ]
    assert world.names[0] != first and world.status["steps"][0]["state"] == "Succeeded"


def test_after_a_write_that_was_refused_the_run_is_not_asked_for() -> None:
    world = World()
    world.cluster.refuse["patch status"] = [ApiError(429, "TooManyRequests", "too many requests")]
    with pytest.raises(ApiError):
        world.reconcile()
    world.reconcile(1)
    assert world.cluster.calls == ["patch status", "create event StepStarted"]


def test_after_a_restart_a_suspended_run_stops_a_job_that_no_list_shows() -> None:
    world = World()
    world.reconcile()
    (first,) = world.names
    bare = copy.deepcopy(world.cluster.jobs[first])
    del bare["metadata"]["labels"]["app.kubernetes.io/managed-by"]
    world.cluster.jobs[first] = world.cluster.stored(bare, bare["metadata"]["uid"])
    world.cache = Cache()  # of another process: its lists go by the label
    world.controller = Controller(world.cluster, world.cache, PodSettings(image="trainer"), lambda: world.now)
    world.edit(spec__suspend=True)
    world.reconcile(1)
    assert world.cluster.calls[:2] == [f"get job {first}", f"delete job {first} uid-{first}"]
    world.reconcile(1)
    assert f"get job {first}" not in world.cluster.calls


def test_a_record_that_is_not_ours_asks_for_nothing() -> None:
    world = World()
    world.reconcile()
    world.cluster.run["status"]["attempts"] = [{"state": "Running", "name": 7}]
    world.cache = Cache()
    world.controller = Controller(world.cluster, world.cache, PodSettings(image="trainer"), lambda: world.now)
    world.edit(spec__suspend=True)
    world.reconcile(1)
    assert not [call for call in world.cluster.calls if call.startswith("get job")]


def test_a_lost_reply_to_a_create_meets_its_own_job() -> None:
    world = World()
    world.reconcile()
    first = world.names[0]
    world.cache.drop_job(world.cluster.jobs[first])
    # As after a restart whose list is older than the Job.
    world.cache._gone.pop(world.cluster.jobs[first]["metadata"]["uid"])
    world.cache.take_doubted("run-1")
    world.reconcile(1)
    assert world.cluster.calls[:2] == [f"create job {first}", f"get job {first}"]
    assert world.condition("Stalled")[0] == "False"


def test_a_job_that_lost_our_label_is_met_once_and_asked_for_now_and_then() -> None:
    world = World()
    world.reconcile()
    (first,) = world.names
    bare = copy.deepcopy(world.cluster.jobs[first])
    del bare["metadata"]["labels"]["app.kubernetes.io/managed-by"]
    world.cluster.jobs[first] = world.cluster.stored(bare, bare["metadata"]["uid"])
    world.cache.drop_job(world.cluster.jobs[first])  # so the watch tells it
    world.reconcile(1)
    assert world.cluster.calls == [f"get job {first}"]
    for _ in range(3):
        assert (world.reconcile(5) or 0) >= 5 and not {f"create job {first}", f"get job {first}"} & set(
            world.cluster.calls
        )
    key = bare["metadata"]["annotations"]["selfevo.dev/key"]
    world.cluster.pods = [pod(0, f'{{"phase": "evaluate", "key": "{key}", "outcome": "committed"}}')]
    done = {**copy.deepcopy(bare), "status": ended("Complete")}
    world.cluster.jobs[first] = world.cluster.stored(done, bare["metadata"]["uid"])
    world.reconcile(20)
    assert world.status["steps"][0]["state"] == "Succeeded", "known from the answer alone"


def test_nothing_is_done_again_at_once_when_nothing_comes_of_it() -> None:
    world = World()
    world.reconcile()
    (first,) = world.names
    world.cache.drop_job({"metadata": {"uid": f"uid-{first}", "resourceVersion": str(1 << 61)}})
    waits = [world.reconcile(1) or 0 for _ in range(4)]  # it exists, and we take it for gone: whatever the reason
    assert waits == [1, 2, 4, 8]


def test_a_namesake_that_is_not_ours_is_left_alone_and_reported() -> None:
    world = World()
    world.reconcile()
    (name,) = world.names
    other = copy.deepcopy(world.cluster.jobs[name])
    other["metadata"]["ownerReferences"][0]["uid"] = "somebody-else"
    world = World()
    world.cluster.jobs[name] = world.cluster.stored(other, "foreign")
    assert world.reconcile() == 5
    assert world.condition("Stalled")[:2] == ("True", "NameTaken")
    assert name in world.condition("Stalled")[2] and "delete it" in world.condition("Stalled")[2]
    assert not any(call.startswith("delete") for call in world.cluster.calls)


def test_a_refused_job_is_reported_in_the_clusters_words_and_tried_again_ever_later() -> None:
    world = World()
    refusal = ApiError(403, "Forbidden", "exceeded quota: team-a")
    world.cluster.refuse["create job"] = [refusal] * 4
    assert [world.reconcile(1), world.reconcile(5), world.reconcile(10), world.reconcile(20)] == [
        5,
        10,
        20,
        40,
    ]
    assert world.condition("Stalled") == ("True", "CreateRefused", world.condition("Stalled")[2])
    assert "exceeded quota: team-a" in world.condition("Stalled")[2]
    world.reconcile(40)
    assert world.condition("Stalled")[0] == "False"
    assert len(world.names) == 1


def test_when_somebody_wrote_meanwhile_it_reconciles_again_at_once_with_what_they_wrote() -> None:
    world = World()
    world.cluster.run = world.cluster.stored(world.cluster.run, "run-1")
    assert world.reconcile() == AT_ONCE
    assert world.cluster.calls[-2:] == ["patch status", "get run"]
    world.reconcile()
    assert world.status["phase"] == "Running"


def test_also_a_run_that_makes_no_sense_is_reconciled_again_when_somebody_wrote_meanwhile() -> None:
    world = World(**unbuilt.ASKED)
    world.cluster.run = world.cluster.stored(world.cluster.run, "run-1")
    assert world.reconcile() == AT_ONCE
    world.reconcile()
    assert world.status["phase"] == "Failed"


def test_a_status_that_the_server_does_not_like_is_no_conflict() -> None:
    world = World()
    world.cluster.refuse["patch status"] = [ApiError(422, "Invalid", "status.score: must be a number")]
    with pytest.raises(ApiError, match="must be a number"):
        world.reconcile()


def test_a_lost_event_is_not_worth_a_second_reconcile() -> None:
    world = World()
    world.cluster.refuse["create event"] = [ApiError(500, "InternalError", "no")]
    world.reconcile()
    world.reconcile(1)
    assert world.cluster.calls == []


def test_suspending_deletes_the_job_by_uid_once_and_resuming_waits_until_it_is_gone() -> None:
    world = World()
    world.reconcile()
    (name,) = world.names
    world.edit(spec__suspend=True)
    world.reconcile(1)
    assert world.cluster.calls[0] == f"delete job {name} uid-{name}"
    assert world.condition("Suspended")[0] == "True"
    world.reconcile(1)
    assert world.cluster.calls == []
    world.edit(spec__suspend=False)
    world.reconcile(1)
    assert not any("job" in call for call in world.cluster.calls)
    world.cache.drop_job(world.cluster.jobs.pop(name))
    world.reconcile(1)
    assert world.cluster.calls[0] == f"create job {name}"


def test_a_job_that_was_deleted_already_is_no_error() -> None:
    world = World()
    world.reconcile()
    world.edit(spec__suspend=True)
    world.cluster.refuse["delete job"] = [ApiError(404, "NotFound", "gone")]
    world.reconcile(1)
    assert world.condition("Suspended")[0] == "True"


def test_a_conflict_on_deleting_is_tried_again_unless_another_job_bears_the_name() -> None:
    world = World()
    world.reconcile()
    (name,) = world.names
    world.edit(spec__suspend=True)
    world.cluster.refuse["delete job"] = [ApiError(409, "Conflict", "the object has been modified")] * 4
    with pytest.raises(ApiError):
        world.reconcile(1)
    assert [job.name for job in world.cache.jobs_of("run-1")] == [name]
    world.cluster.jobs[name]["metadata"]["uid"] = "of another one"
    world.reconcile(1)
    assert world.cache.jobs_of("run-1") == []


def test_a_job_that_somebody_took_from_the_run_unseen_is_not_deleted() -> None:
    world = World()
    world.reconcile()
    (name,) = world.names
    world.edit(spec__suspend=True)
    taken = copy.deepcopy(world.cluster.jobs[name])
    taken["metadata"]["ownerReferences"] = []
    world.cluster.jobs[name] = world.cluster.stored(taken, taken["metadata"]["uid"])
    world.reconcile(1)
    assert "deletionTimestamp" not in world.cluster.jobs[name]["metadata"]
    assert world.cache.jobs_of("run-1") == []


def test_a_run_that_is_found_deleted_is_not_reconciled_again() -> None:
    world = World()
    world.cluster.refuse["patch status"] = [ApiError(404, "NotFound", "gone")]
    world.reconcile()
    assert world.reconcile(1) is None and world.cluster.calls == []


def test_a_job_without_pods_is_asked_for_the_reason_after_a_while_and_not_all_the_time() -> None:
    world = World()
    world.reconcile()
    state = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    world.cluster.pods = [pod(containerStatuses=[{"name": "trainer", "state": state}])]
    world.see(world.names[0], {"active": 1})
    assert world.reconcile(1) == 10
    assert "list pods" not in world.cluster.calls
    world.reconcile(10)
    assert "list pods" in world.cluster.calls
    assert world.condition("Stalled")[:2] == ("True", "ErrImagePull")
    world.reconcile(10)
    assert "list pods" not in world.cluster.calls


def test_without_a_write_slot_the_next_job_is_made_and_the_record_follows_at_the_next_reconcile() -> None:
    world = World()
    world.reconcile()
    world.finish(world.names[0])
    world.now += timedelta(seconds=1)
    world.cluster.calls.clear()
    asyncio.run(world.controller.reconcile_run(DEMO, lambda: False))
    assert world.cluster.calls == ["list pods", f"create job {world.names[1]}"]
    asked: list[bool] = []
    asyncio.run(world.controller.reconcile_run(DEMO, lambda: asked.append(True) or True))  # type: ignore[func-returns-value]
    assert world.cluster.calls[2:] == ["patch status", "create event StepSucceeded"]
    asyncio.run(world.controller.reconcile_run(DEMO, lambda: asked.append(True) or True))  # type: ignore[func-returns-value]
    assert asked == [True]  # where nothing is to be written, nobody is asked


def test_an_attempt_that_waits_for_the_record_of_the_last_one_waits_for_a_write_slot() -> None:
    world = World()
    world.reconcile()
    world.cluster.pods = [pod(1)]
    world.see(world.names[0], ended("Failed", "BackoffLimitExceeded"))
    world.now += timedelta(hours=1)
    world.cluster.calls.clear()
    assert asyncio.run(world.controller.reconcile_run(DEMO, lambda: False)) is None
    assert world.cluster.calls == ["list pods"]
    assert world.reconcile() == AT_ONCE
    world.reconcile()
    assert world.cluster.calls[0] == f"create job {world.names[1]}"


def test_a_job_that_its_queue_has_sent_away_goes_to_another_queue_when_the_spec_says_so() -> None:
    world = World(spec__queue="team-a")
    world.reconcile()
    (name,) = world.names
    world.see(name, {"ready": 0, "failed": 1}, suspend=True)
    world.reconcile(1)
    assert world.condition("Reconciling")[1] == "Queued"
    world.edit(spec__queue="team-b")
    world.reconcile(1)
    assert world.cluster.calls[0] == f"delete job {name} uid-{name}"
    world.cache.drop_job(world.cluster.jobs.pop(name))
    world.reconcile(1)
    assert world.cluster.jobs[name]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-b"


def test_corrected_pods_replace_a_job_that_has_not_begun() -> None:
    world = World(spec__pods={"image": "wrong"})
    world.reconcile()
    (name,) = world.names
    world.edit(spec__pods={"image": "right"})
    world.reconcile(1)
    assert world.cluster.calls[:2] == ["list pods", f"delete job {name} uid-{name}"]
    world.cache.drop_job(world.cluster.jobs.pop(name))
    world.reconcile(1)
    image = world.cluster.jobs[name]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert (world.cluster.calls[0], image) == (f"create job {name}", "right")


@pytest.mark.parametrize("container", [{"running": {}}, {"terminated": {"exitCode": 0}}], ids=["begun", "ended"])
def test_corrected_pods_leave_a_job_alone_whose_pod_is_not_counted_as_ready(container: dict[str, Any]) -> None:
    world = World(spec__pods={"image": "old"})
    world.reconcile()
    (name,) = world.names
    world.see(name, {"active": 1, "ready": 0})
    world.cluster.pods = [pod(containerStatuses=[{"name": "trainer", "state": container}])]
    for seconds in (1, 10, 60):
        world.edit(spec__pods={"image": f"new-{seconds}"})
        world.reconcile(seconds)
        assert world.names == [name] and not any("delete" in call for call in world.cluster.calls)


def test_corrected_pods_replace_a_job_whose_next_pod_finds_no_image_any_more() -> None:
    world = World(spec__pods={"image": "gone"})
    world.reconcile()
    (name,) = world.names
    world.see(name, {"active": 1, "failed": 1})
    world.edit(spec__pods={"image": "right"})
    world.reconcile(10)
    assert not any("delete" in call for call in world.cluster.calls), "between two pods it goes on"
    state = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    world.cluster.pods = [pod(containerStatuses=[{"name": "trainer", "state": state}])]
    world.reconcile(30)
    assert f"delete job {name} uid-{name}" in world.cluster.calls


def test_a_run_that_failed_records_how_what_ran_beside_it_ended() -> None:
    world = World(spec__parallelSteps=2, spec__challenger__grpo__maxSteps=2)
    world.reconcile()
    evaluate, train = world.names
    world.cluster.pods = [pod(2)]
    world.see(train, ended("Failed", "PodFailurePolicy", "Container trainer failed with exit code 2"))
    world.reconcile(1)
    assert f"delete job {evaluate} uid-{evaluate}" in world.cluster.calls
    world.cache.drop_job(world.cluster.jobs.pop(evaluate))
    world.reconcile(5)
    assert {a["name"]: (a["state"], a["reason"]) for a in world.status["attempts"]}[evaluate] == ("Failed", "RunFailed")
    assert world.reconcile(5) is None and world.cluster.calls == []


def test_a_run_that_does_not_fit_on_the_gpus_that_it_names_is_refused_before_anything_is_queued() -> None:
    world = World(spec__model__uri="hf://Qwen/Qwen3-8B-Base@main", spec__pods={"gpuMemory": "24Gi"})
    world.reconcile()
    assert world.condition("Failed")[:2] == ("True", "GpuTooSmall")
    assert "spec.pods.gpuMemory is 24Gi" in world.condition("Failed")[2]
    assert world.cluster.jobs == {}
    world.edit(spec__pods={"gpuMemory": "1Ti"})
    world.reconcile(1)
    assert world.cluster.jobs


def test_a_spec_that_makes_no_sense_fails_the_run_with_a_sentence_and_keeps_what_was_done() -> None:
    world = World()
    world.reconcile()
    done = world.status["steps"]
    world.edit(**unbuilt.ASKED)
    world.reconcile(1)
    assert world.condition("Failed")[:2] == ("True", "NotBuilt")
    assert world.condition("Failed")[2] == unbuilt.SENTENCE
    assert world.status["steps"] == done
    world.edit(**unbuilt.TAKEN_BACK)
    world.reconcile(1)
    assert world.status["phase"] == "Running"


def test_a_run_edited_into_what_is_refused_still_stops_when_it_is_asked_to() -> None:
    world = World()
    world.reconcile()
    (name,) = world.names
    world.edit(**unbuilt.ASKED)
    world.reconcile(1)
    assert world.status["phase"] == "Failed" and not any("delete" in call for call in world.cluster.calls)
    assert world.status["attempts"][0]["state"] == "Running", "what runs goes on"
    world.edit(spec__suspend=True)
    world.reconcile(1)
    assert world.cluster.calls[:2] == [f"delete job {name} uid-{name}", "patch status"]
    assert world.status["phase"] == "Suspended"
    assert world.condition("Suspended")[:2] == world.condition("Stalled")[:2] == ("True", "NotBuilt")
    assert world.status["attempts"][0]["reason"] == "Suspended"
    world.reconcile(1)
    assert world.cluster.calls == [], "it is reported once"
    world.cache.drop_job(world.cluster.jobs.pop(name))
    world.reconcile(1)
    assert world.status["attempts"][0]["state"] == "Failed"
    world.edit(**unbuilt.TAKEN_BACK, spec__suspend=False)
    world.reconcile(1)
    assert world.names == [name] and world.status["phase"] == "Running"


@pytest.mark.parametrize("status", [403, 500, 0])
def test_a_job_that_cannot_be_deleted_is_reported_and_tried_again(status: int) -> None:
    world = World()
    world.reconcile()
    world.edit(spec__suspend=True)
    world.cluster.refuse["delete job"] = [ApiError(status, "", "no deletion today")] * 2
    if status == 403:
        assert [world.reconcile(1), world.reconcile(5)] == [5, 10]
    else:
        for _ in range(2):
            with pytest.raises(ApiError):
                world.reconcile(1)
    assert world.condition("Suspended")[:2] == ("True", "DeleteRefused")
    assert "no deletion today" in world.condition("Ready")[2]
    assert world.condition("Stalled")[0] == str(status == 403)
    world.reconcile(20)
    assert world.condition("Suspended")[:2] == ("True", "Suspended")


def test_while_a_webhook_fails_a_new_run_says_so_and_the_end_of_a_job_is_recorded() -> None:
    world = World()
    error = ApiError(500, "InternalError", 'failed calling webhook "mjob.kb.io": connection refused')
    world.cluster.refuse["create job"] = [error]
    with pytest.raises(ApiError):
        world.reconcile()
    assert world.condition("Reconciling")[:2] == ("True", "CreateRefused")
    assert "mjob.kb.io" in world.condition("Ready")[2] and world.condition("Stalled")[0] == "False"
    world.reconcile(1)
    world.finish(world.names[0])
    world.cluster.refuse["create job"] = [error] * 2
    for _ in range(2):
        with pytest.raises(ApiError):
            world.reconcile(1)
    assert world.status["steps"][0]["state"] == "Succeeded" and world.status["score"] == 0.5
    assert "patch status" not in world.cluster.calls, "what is written is not written again"
    world.reconcile(1)
    assert world.condition("Reconciling")[:2] == ("True", "StepsRunning") and len(world.names) == 2


def test_an_end_that_must_not_be_read_is_reported_and_read_when_it_may_be() -> None:
    world = World()
    world.reconcile()
    world.finish(world.names[0])
    world.cluster.refuse["list pods"] = [ApiError(403, "Forbidden", "pods is forbidden")] * 2
    assert world.reconcile(1) == 30
    assert world.condition("Stalled")[:2] == ("True", "PodsUnreadable")
    assert len(world.names) == 1
    world.reconcile(30)
    world.reconcile(30)
    assert world.status["score"] == 0.5 and len(world.names) == 2


def test_what_cannot_be_stopped_is_reported_of_a_failed_run_as_well() -> None:
    world = World(spec__parallelSteps=2, spec__challenger__grpo__maxSteps=2)
    world.reconcile()
    _, train = world.names
    world.cluster.pods = [pod(2)]
    world.see(train, ended("Failed", "PodFailurePolicy", "Container trainer failed with exit code 2"))
    world.cluster.refuse["delete job"] = [ApiError(403, "Forbidden", "no deletion today")]
    world.reconcile(1)
    assert world.status["phase"] == "Failed" and "no deletion today" in world.condition("Failed")[2]


def test_a_store_that_a_pod_cannot_keep_is_reported() -> None:
    world = World(spec__storage__uri="file:///tmp/x")
    world.reconcile()
    assert world.condition("Stalled")[0] == "True"
    assert "spec.storage.uri" in world.condition("Stalled")[2]
    assert world.names == []


def test_a_run_that_is_gone_or_going_is_left_to_the_garbage_collector() -> None:
    world = World()
    assert asyncio.run(world.controller.reconcile_run(Key("default", "nobody"))) is None
    world.cluster.run["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "99"}
    world.cache.put_run(world.cluster.run)
    assert world.reconcile() is None
    assert world.cluster.calls == []


def test_a_finished_run_costs_no_thought() -> None:
    world = World(spec__iterations=1)
    while len(world.names) < len(plan(SelfEvolutionRun.model_validate(document(**world.changes)).spec).steps):
        world.reconcile(1)
        world.finish(world.names[-1])
    world.reconcile(1)
    assert world.status["phase"] == "Succeeded"
    world.controller._reader.parse = None  # type: ignore[assignment, method-assign]
    assert world.reconcile(1) is None
    assert world.cluster.calls == []
