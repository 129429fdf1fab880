"""How far running steps are: heard from hostile logs, at bounded cost, recorded seldom, and nothing hangs on it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.objects import RUN_UID, job_object, run_object
from selfevo_contract.process import Progress
from selfevo_contract.status import StepProgress
from selfevo_core.progress import progress_of
from selfevo_operator.api.kube import ApiError, Endpoint, Kube
from selfevo_operator.api.progress import ProgressReader
from selfevo_operator.observed.cache import Cache, Key
from selfevo_operator.observed.reported import newest_report, pods_that_report
from selfevo_operator.observed.snapshots import job_snapshot

from .test_controller import World
from .test_reconcile import Scenario

AT = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
STEP = "evaluate-0"


def report(done: int = 7, total: int = 15, **fields: Any) -> Progress:
    return Progress(phase="evaluate", step=STEP, doing="answering", done=done, total=total, **fields)


def line(content: Progress | str, at: str = "2026-01-01T12:00:00.123456789Z") -> str:
    return (
        f"{at} {content if isinstance(content, str) else content.model_dump_json(by_alias=True, exclude_none=True)}\n"
    )


# --- one step out of its processes ------------------------------------------------------------------------------------


def test_shards_are_summed_and_the_slowest_says_when_it_ends() -> None:
    first = report(30, 40, tokens_per_second=100.0, truncated_share=0.1, seconds_left=10.0, shard=0)
    second = report(10, 40, tokens_per_second=50.0, truncated_share=0.5, seconds_left=60.0, shard=1)
    assert progress_of([first, second], AT, 2) == StepProgress(
        doing="answering", done=40, total=80, percent=50, tokens_per_second=150.0, truncated_share=0.2,
        ends_at="2026-01-01T12:01:00.000Z", at="2026-01-01T12:00:00.000Z",
    )  # fmt: skip
    assert progress_of([], AT) is None


def test_shards_that_are_not_heard_of_have_done_nothing_yet() -> None:
    known = progress_of([report(30, 40, seconds_left=1.0)], AT, processes=4)
    assert known is not None and (known.done, known.total, known.percent, known.ends_at) == (30, 160, 18, None)


def test_a_message_is_held_in_bounds() -> None:
    newest = report(
        10**30, -5, tokens_per_second=1e300, truncated_share=7.0, seconds_left=1e300,
    ).model_copy(update={"doing": "\x1b[2J<script>`$(rm)`" + "a" * 500})  # fmt: skip
    known = progress_of([newest], AT)
    assert known is not None
    assert (known.done, known.total, known.percent) == (10**12, 0, None)
    assert (known.tokens_per_second, known.truncated_share) == (1e9, 1.0)
    assert known.doing.startswith("2Jscript(rm)a") and len(known.doing) == 60
    assert known.ends_at is not None and known.ends_at.startswith("2035-12-30")
    over = progress_of([report(99, 15)], AT)
    assert over is not None and (over.done, over.percent) == (15, 100)
    wild = Progress.model_construct(**{**dict(report()), "tokens_per_second": float("nan"), "seconds_left": -3.0})
    known = progress_of([wild], AT)
    assert known is not None and known.tokens_per_second is None and known.ends_at == known.at


def test_figures_of_a_training_are_those_of_its_newest_report_in_few_digits() -> None:
    newest = report(
        metrics={"reward": 0.123456789, "kl": 1e-5, "completions/mean_length": 4.0, "a b\x1b": 1.0, "x": 1e300}
    )
    known = progress_of([report(metrics={"old": 1.0}), newest], AT)
    assert known is not None
    assert known.metrics == {"reward": 0.1235, "kl": 1e-5, "completions/mean_length": 4.0, "x": 1e12}
    many = progress_of([report(metrics={f"m{n}": float(n) for n in range(99)})], AT)
    assert many is not None and list(many.metrics or {}) == [f"m{n}" for n in range(8)]
    wild = report().model_copy(update={"metrics": {"reward": float("nan"), "x" * 41: 1.0}})
    known = progress_of([wild], AT)
    assert known is not None and known.metrics is None


# --- out of a log -----------------------------------------------------------------------------------------------------


def test_the_last_report_of_this_step_counts_and_nothing_else_does() -> None:
    other = report(9).model_copy(update={"step": "solver-train-1"})
    log = (
        line(report(1)) + line(report(2)) + line("Loading weights: 50 %") + line(other)
        + line('{"event":"progress","phase":"evaluate","step":"evaluate-0","doing":"x","done":99,"free":"text"}')
        + line('{"event":"progress","phase":"evaluate","step":"evaluate-0","doing":"x","done":"99"}')
        + line('{"event":"progress","phase":"evaluate","step":"evaluate-0","doing":"x","done":NaN}')
        + line('{"phase":"evaluate"}') + line("{" * 5000) + line("[1]")
        + line(report(88).model_copy(update={"doing": "x" * 5000}))
        + line(report(77), at="yesterday") + line(report(66), at="2026-01-01T12:00:00") + "\x00\n\n"
        + line(report(55))[:90]
    )  # fmt: skip
    found = newest_report(log, STEP)
    assert found is not None and found.progress.done == 2
    assert found.at == AT.replace(microsecond=123456)
    assert newest_report("", STEP) is None and newest_report(log, "solver-train-2") is None


def pod(name: str, index: int = 0, state: str = "running", made: str = "1") -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": f"2026-01-01T00:0{made}:00Z",
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        },
        "status": {"containerStatuses": [{"name": "trainer", "state": {state: {}}}]},
    }


def test_of_each_shard_the_newest_pod_that_has_begun_is_asked_and_of_a_team_the_first() -> None:
    pods = [
        pod("b", 1),
        pod("new", 0, made="2"),
        pod("old", 0),
        pod("not-yet", 2, "waiting"),
        {"metadata": {"name": "x"}},
    ]
    job = job_snapshot(job_object(completions=3))
    assert pods_that_report(job, pods) == {0: "new", 1: "b"}
    assert pods_that_report(replace(job, together=3), pods) == {0: "new"}


# --- at bounded cost --------------------------------------------------------------------------------------------------


class Logs:
    """Pods with logs; ``errors`` are raised first."""

    def __init__(self, jobs: int = 1, completions: int = 1) -> None:
        self.now = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
        self.cache, self.asked = Cache(), list[str]()
        self.logs: dict[str, str] = {}
        self.errors: list[ApiError] = []
        self.pods = [pod(f"p{index}", index) for index in range(completions)]
        self.cache.put_run(run_object(status={"phase": "Running"}))
        for number in range(jobs):
            status = {"startTime": "2026-01-01T00:00:00Z", "ready": completions}
            self.cache.put_job(
                job_object(uid=f"j{number}", name=f"job-{number}", status=status, completions=completions)
            )
        self.reader = ProgressReader(self, self.cache, lambda: self.now, 30.0)  # type: ignore[arg-type]

    async def list_pods(self, namespace: str, job_uid: str, *, cached: bool = False) -> list[dict[str, Any]]:
        self.asked.append(f"pods {job_uid}")
        assert cached
        return self.pods

    async def pod_log(self, namespace: str, name: str) -> str:
        self.asked.append(name)
        if self.errors:
            raise self.errors.pop(0)
        return self.logs.get(name, "")

    def poll(self, seconds: float = 0) -> list[bool]:
        """Whether something had changed, for each run whose turn it was."""
        self.now += timedelta(seconds=seconds)
        self.asked.clear()
        return [asyncio.run(self.reader.poll(run, jobs)) for run, jobs in self.reader.due()]

    @property
    def known(self) -> StepProgress | None:
        return self.reader.of(self.cache.jobs_of(RUN_UID)[0])


def test_a_run_is_asked_every_30_seconds_and_what_is_unchanged_is_no_event() -> None:
    logs = Logs()
    assert logs.poll() == [False] and logs.asked == ["pods j0", "p0"] and logs.known is None
    logs.logs["p0"] = line(report(7), at="2026-01-01T00:09:59Z")
    assert logs.poll(29) == []
    assert logs.poll(1) == [True] and logs.asked == ["p0"], "its pods are known"
    assert logs.known == progress_of([report(7)], datetime(2026, 1, 1, 0, 9, 59, tzinfo=UTC))
    assert logs.poll(30) == [False] and logs.poll(30) == [False]


def test_a_step_that_has_just_begun_is_not_asked() -> None:
    logs = Logs()
    logs.now = datetime(2026, 1, 1, 0, 0, 29, tzinfo=UTC)
    assert logs.poll() == []
    assert logs.poll(1) == [False]


@pytest.mark.parametrize(
    "change",
    [
        lambda logs: logs.cache.put_run(run_object(2, status={"phase": "Suspended"})),
        lambda logs: logs.cache.put_job(job_object(2, uid="j0", name="job-0", status={"ready": 0})),
        lambda logs: logs.cache.put_job(
            job_object(2, uid="j0", name="job-0", status={"ready": 1}, deletionTimestamp="2026-01-01T00:01:00Z")
        ),
    ],
    ids=["the run is suspended", "no pod is ready", "the Job is ending"],
)
def test_who_does_not_run_is_not_asked(change: Any) -> None:
    logs = Logs()
    change(logs)
    assert logs.poll() == []


def test_many_shards_are_asked_a_few_at_a_time_until_all_were() -> None:
    logs = Logs(completions=10)
    for index in range(10):
        logs.logs[f"p{index}"] = line(report(5, 10, shard=index), at="2026-01-01T00:09:00Z")
    heard = []
    for _ in range(3):
        logs.poll(30)
        assert len([name for name in logs.asked if name.startswith("p") and name[1:].isdigit()]) == 4
        assert logs.known is not None
        heard.append((logs.known.done, logs.known.total))
    assert heard == [(20, 100), (40, 100), (50, 100)]


def test_a_pod_that_is_replaced_says_nothing_any_more() -> None:
    logs = Logs()
    logs.logs["p0"] = line(report(7), at="2026-01-01T00:09:00Z")
    logs.poll()
    logs.pods = [pod("p0"), pod("next", made="2")]
    status = {"startTime": "2026-01-01T00:00:00Z", "ready": 1, "failed": 1}
    logs.cache.put_job(job_object(2, uid="j0", name="job-0", status=status))
    logs.logs["next"] = line(report(1), at="2026-01-01T00:10:20Z")
    assert logs.poll(30) == [True] and logs.asked == ["pods j0", "next"]
    assert logs.known is not None and logs.known.done == 1


def test_pods_that_had_not_begun_are_listed_again() -> None:
    logs = Logs()
    logs.pods = [pod("p0", state="waiting")]
    assert logs.poll() == [False] and logs.asked == ["pods j0"]
    logs.pods, logs.logs["p0"] = [pod("p0")], line(report(7), at="2026-01-01T00:10:20Z")
    assert logs.poll(30) == [True]


def test_a_run_of_many_jobs_costs_a_few_questions() -> None:
    logs = Logs(jobs=9)
    logs.poll()
    assert [name for name in logs.asked if name.startswith("pods")] == [f"pods j{number}" for number in range(4)]


def test_a_log_that_cannot_be_had_is_asked_for_again_and_one_that_may_not_seldom() -> None:
    logs = Logs()
    logs.logs["p0"] = line(report(7), at="2026-01-01T00:09:00Z")
    logs.errors = [ApiError(404, "NotFound", "no such pod"), ApiError(500, "", "no kubelet"), ApiError(403, "", "no")]
    assert logs.poll() == [False] and logs.poll(30) == [False] and logs.asked == ["pods j0", "p0"]
    assert logs.poll(30) == [False], "may not"
    assert logs.poll(599) == []
    assert logs.poll(1) == [True]


def test_the_reader_tells_which_runs_have_changed_and_outlives_a_defect() -> None:
    logs = Logs()
    logs.logs["p0"] = line(report(7), at="2026-01-01T00:09:00Z")
    logs.pods = [{}]  # no pod is like this

    async def scene() -> list[Key]:
        changed, notified = list[Key](), asyncio.Event()

        def tell(key: Key) -> None:
            changed.append(key)
            notified.set()

        logs.reader._every = timedelta(seconds=0.01)
        task = asyncio.create_task(logs.reader.run(tell))
        while not logs.asked:
            await asyncio.sleep(0.01)
        logs.pods = [pod("p0")]
        while not notified.is_set():
            logs.now += timedelta(seconds=1)
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return changed

    assert asyncio.run(asyncio.wait_for(scene(), 60)) == [Key("lab", "demo")]


def test_what_is_asked_of_the_api_server_is_bounded() -> None:
    asked = []

    class Server(Kube):
        async def _once(self, method: str, verb: str, resource: str, path: str, *rest: Any) -> Any:
            asked.append((method, verb, resource, path))
            return rest[-1](b"\xff text")

    server = Server(None, Endpoint("", None, dict), lambda *call: None)  # type: ignore[arg-type]
    assert asyncio.run(server.pod_log("lab", "p0")) == "\ufffd text"
    query = "container=trainer&timestamps=true&tailLines=20&limitBytes=65536"
    assert asked == [("GET", "get", "pods/log", f"/api/v1/namespaces/lab/pods/p0/log?{query}")]


# --- in the record ----------------------------------------------------------------------------------------------------

FAR = StepProgress(done=7, total=15, percent=46, at="2026-01-01T12:00:00.000Z")


def test_a_running_step_shows_it_until_it_ends() -> None:
    scenario = Scenario()
    scenario.attempt(STEP, progress=FAR)
    scenario.reconcile()
    assert scenario.step(STEP).progress == FAR
    scenario.attempt(STEP)  # an operator that was started anew has heard nothing yet
    scenario.reconcile()
    assert scenario.step(STEP).progress == FAR
    scenario.attempt(STEP, state="Succeeded")
    scenario.reconcile()
    assert scenario.step(STEP).progress is None


def test_the_next_attempt_does_not_show_what_the_last_one_reported() -> None:
    scenario = Scenario()
    scenario.attempt(STEP, progress=FAR)
    scenario.reconcile()
    scenario.attempts.clear()
    scenario.reconcile()
    assert scenario.step(STEP).progress is None
    scenario.attempt(STEP, progress=FAR)
    scenario.reconcile()
    scenario.attempt(STEP, state="Failed", exit_code=3)
    scenario.reconcile()
    assert scenario.step(STEP).progress is None
    scenario.attempt(STEP, 2)
    scenario.reconcile(60)
    assert scenario.step(STEP).state == "Running" and scenario.step(STEP).progress is None


def test_of_an_attempt_that_came_between_two_reconciles_the_one_before_says_nothing() -> None:
    scenario = Scenario()
    scenario.attempt(STEP, progress=FAR)
    scenario.reconcile()
    scenario.attempt(STEP, state="Failed", exit_code=3)
    scenario.attempt(STEP, 2)
    scenario.reconcile()
    assert scenario.step(STEP).state == "Running" and scenario.step(STEP).progress is None


def test_it_is_written_into_the_status_and_once() -> None:
    world = World()
    world.controller._reader._progress = lambda job: FAR
    world.reconcile()
    world.see(world.names[0], {"ready": 1, "startTime": "2026-01-01T00:00:01Z"})
    world.reconcile(60)
    assert "patch status" in world.cluster.calls
    running = next(step for step in world.status["steps"] if step["state"] == "Running")
    assert running["progress"] == {"doing": "", "done": 7, "total": 15, "percent": 46, "at": FAR.at}
    world.reconcile(60)
    assert "patch status" not in world.cluster.calls
