"""Runs in a queue, on a real control plane: what Kueue does to their Jobs, and what comes of it (docs/queues.md)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cluster.admitter import PREFIX, Admitter, Flavor, Queue
from harness.cluster.client import Api
from harness.cluster.cluster_runs import (
    RUNS,
    STEPS,
    cluster_run,
    conditions,
    eventually,
    jobs,
    keys_of,
    message,
    phase_of,
    status_of,
    step,
    wait_phase,
    wait_run,
)
from harness.cluster.controlplane import ControlPlane
from harness.cluster.kubelet_standin import FakeKubelet
from harness.cluster.lives import Life
from harness.cluster.operator_process import operating
from harness.cluster.queued_runs import EIGHT, POOL, SHARDS, gpus, job_of, queued_run, reason, working

pytestmark = pytest.mark.slow
Object = dict[str, Any]


@pytest.fixture(autouse=True)
def operator(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[None]:
    with operating(control_plane, tmp_path, [namespace], flags=["--resync-seconds", "2"]):
        yield


def test_a_whole_run_goes_through_its_queues(api: Api, namespace: str, kubelet: FakeKubelet, queue: Any):
    slices = Queue((Flavor("slices", 8, {"selfevo.test/pool": "mig"}),))
    admitter: Admitter = queue({"team-a": EIGHT, "inference": slices}, priorities={"low": -10})
    run = api.create(
        queued_run(
            spec__rollout__queue="inference", spec__priorityClass="low", spec__pods={"nodeSelector": {"os": "a"}}
        ),
        namespace,
    )
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert sorted(kubelet.trained) == keys_of(run)
    assert kubelet.overlaps == []
    assert admitter.events("Admitted") == [
        (job_of(api, namespace, "challenger-train-1")["metadata"]["name"], 1),
        (job_of(api, namespace, "solver-rollout-1")["metadata"]["name"], SHARDS),
        (job_of(api, namespace, "solver-train-1")["metadata"]["name"], 1),
    ]
    assert admitter.most == {"team-a": 8, "inference": 8}
    for each in jobs(api, namespace):
        rollout = each["metadata"]["labels"]["selfevo.dev/phase"] == "solver-rollout"
        kueues = {name: value for name, value in each["metadata"]["labels"].items() if name.startswith(PREFIX)}
        assert kueues == {PREFIX + "queue-name": "inference" if rollout else "team-a", PREFIX + "priority-class": "low"}
        # Where the queue's nodes are is added to where the run may go.
        pool = "mig" if rollout else "h100"
        assert each["spec"]["template"]["spec"]["nodeSelector"] == {"os": "a", "selfevo.test/pool": pool}
        assert each["status"]["conditions"][0]["type"] == "Suspended"
    for pod in api.list("pods", namespace):
        assert "selfevo.test/pool" in pod["spec"]["nodeSelector"], "a pod that was there before its Job was admitted"
    assert [(s["attempts"], s["failures"]) for s in status_of(done)["steps"]] == [(1, 0)] * 3


def test_a_run_that_is_never_admitted_is_queued_and_nothing_else(
    api: Api, namespace: str, kubelet: FakeKubelet, queue: Any
):
    admitter: Admitter = queue({"team-a": Queue((Flavor("h100", 7),))})  # one less than the Challenger wants
    run = api.create(queued_run(), namespace)
    queued = wait_run(api, namespace, "demo", lambda run: reason(run) == "Queued")
    (name,) = [each["metadata"]["name"] for each in jobs(api, namespace)]
    assert message(queued) == f"0 of 3 steps done, {name} is held in queue team-a"
    assert conditions(queued) == {"Reconciling": "Queued"}
    assert [(s["state"], s["failures"]) for s in status_of(queued)["steps"]] == [("Pending", 0)]
    version = queued["metadata"]["resourceVersion"]
    time.sleep(5)  # lists and reconciles in between; a Job of our own without a ready pod would be asked for the reason
    assert api.get(RUNS, "demo", namespace)["metadata"]["resourceVersion"] == version, "it writes while it waits"
    assert kubelet.lived == [] and admitter.recorded == []

    admitter.queues["team-a"] = EIGHT  # the administrator raises the quota
    wait_phase(api, namespace, "demo", "Succeeded")
    assert sorted(kubelet.trained) == keys_of(run)


def test_a_queue_that_does_not_exist_can_be_corrected_in_the_spec(
    api: Api, namespace: str, kubelet: FakeKubelet, queue: Any
):
    queue({"team-a": EIGHT})
    api.create(queued_run(spec__queue="team-b"), namespace)
    queued = wait_run(api, namespace, "demo", lambda run: reason(run) == "Queued")
    assert "held in queue team-b" in message(queued)
    api.patch(RUNS, "demo", {"spec": {"queue": "team-a"}}, namespace)
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert [(s["attempts"], s["failures"]) for s in status_of(done)["steps"]] == [(1, 0)] * 3
    assert kubelet.overlaps == []


def test_an_evicted_step_saves_waits_and_goes_on_uncounted(api: Api, namespace: str, kubelet: FakeKubelet, queue: Any):
    kubelet.script["solver-train-1"] = [Life(hangs=True), Life(hangs=True)]
    admitter: Admitter = queue({"team-a": EIGHT})
    run = api.create(queued_run(spec__backoffLimit=0), namespace)  # one counted failure would be the end
    for _ in range(2):
        pod = kubelet.wait_running("solver-train-1")
        wait_run(api, namespace, "demo", lambda run: reason(run) == "StepsRunning")
        admitter.holding = True
        name = admitter.evict("solver-train-1")
        queued = wait_run(api, namespace, "demo", lambda run: reason(run) == "Queued")
        assert message(queued) == f"2 of 3 steps done, {name} is held in queue team-a"
        assert conditions(queued) == {"Reconciling": "Queued"}
        eventually(lambda name=name: ("Requeued", name, 1) in admitter.recorded)
        job = api.get("jobs", name, namespace)
        assert (job["status"].get("active", 0), job["status"].get("failed", 0)) == (0, 0)
        assert "nodeSelector" not in job["spec"]["template"]["spec"]
        assert next(lived.exit_code for lived in kubelet.lived if lived.name == pod) == 143
        admitter.recorded.remove(("Requeued", name, 1))
        admitter.holding = False
    done = wait_phase(api, namespace, "demo", "Succeeded")
    record = step(done, "solver-train-1")
    assert (record["attempts"], record["failures"]) == (1, 0)
    assert sorted(kubelet.trained) == keys_of(run) and kubelet.overlaps == []
    assert [lived.exit_code for lived in kubelet.lived if lived.role.step == "solver-train-1"] == [143, 143, 0]
    assert [attempt["state"] for attempt in status_of(done)["attempts"]] == ["Succeeded"] * 3


def test_a_pod_that_does_not_save_in_time_is_not_counted_either_and_keeps_its_place_until_it_has_ended(
    api: Api, namespace: str, kubelet: FakeKubelet, queue: Any
):
    kubelet.script["solver-train-1"] = [Life(hangs=True, deaf=True)]
    admitter: Admitter = queue({"team-a": EIGHT})
    solver = {"terminationGracePeriodSeconds": 3, **gpus(8)}
    api.create(queued_run(spec__backoffLimit=0, spec__solver__pods=solver), namespace)
    kubelet.wait_running("solver-train-1")
    name = admitter.evict("solver-train-1")  # and half a second later it is admitted again
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert admitter.events("Admitted")[-2:] == [(name, 1), (name, 1)]
    record = step(done, "solver-train-1")
    assert (record["attempts"], record["failures"]) == (1, 0)
    assert [lived.exit_code for lived in kubelet.lived if lived.role.step == "solver-train-1"] == [137, 0]
    assert kubelet.overlaps == [], "two pods trained at one time"


def test_an_evicted_rollout_keeps_its_shards(api: Api, namespace: str, kubelet: FakeKubelet, queue: Any):
    kubelet.script |= {f"solver-rollout-1/{index}": [Life(hangs=True)] for index in (1, 3)}
    admitter: Admitter = queue({"team-a": EIGHT})
    run = api.create(queued_run(), namespace)
    kubelet.wait_for(lambda: working(kubelet, "solver-rollout-1") == 2 and len(kubelet.trained) == 3)
    eventually(lambda: job_of(api, namespace, "solver-rollout-1")["status"].get("succeeded") == 2)
    admitter.holding = True
    admitter.evict("solver-rollout-1")
    queued = wait_run(api, namespace, "demo", lambda run: reason(run) == "Queued")
    assert step(queued, "solver-rollout-1")["state"] == "Pending"
    admitter.holding = False
    wait_phase(api, namespace, "demo", "Succeeded")
    assert sorted(kubelet.trained) == keys_of(run), "a shard was made twice, or not at all"
    assert job_of(api, namespace, "solver-rollout-1")["status"]["completedIndexes"] == f"0-{SHARDS - 1}"


def test_a_rollout_takes_what_its_queue_has_left(api: Api, namespace: str, kubelet: FakeKubelet, queue: Any):
    kubelet.default = Life(hangs=True)
    for name in ("challenger-train-1", "solver-train-1"):
        kubelet.release(name)
    # Room for the Challenger, and for two shards and a half.
    admitter: Admitter = queue({"team-a": EIGHT, "inference": Queue((Flavor("h100", 5),))})
    run = api.create(queued_run(spec__rollout__queue="inference", spec__rollout__minShards=1), namespace)
    kubelet.wait_for(lambda: working(kubelet, "solver-rollout-1") == 2)
    rollout = job_of(api, namespace, "solver-rollout-1")
    assert (rollout["spec"]["parallelism"], rollout["spec"]["completions"]) == (2, SHARDS)
    wait_run(api, namespace, "demo", lambda run: reason(run) == "StepsRunning")
    time.sleep(1)
    assert working(kubelet, "solver-rollout-1") == 2
    assert job_of(api, namespace, "solver-rollout-1")["metadata"]["uid"] == rollout["metadata"]["uid"]
    kubelet.release("solver-rollout-1")
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert sorted(kubelet.trained) == keys_of(run)
    assert admitter.most["inference"] == 4
    assert (step(done, "solver-rollout-1")["attempts"], step(done, "solver-rollout-1")["failures"]) == (1, 0)


def test_training_is_not_admitted_in_part(api: Api, namespace: str, kubelet: FakeKubelet, queue: Any):
    nodes = {"spec__solver__pods": {"nodes": 2, **gpus(4)}, "spec__solver__grpo__perDeviceTrainBatchSize": 2}
    admitter: Admitter = queue({"team-a": EIGHT})
    api.create(queued_run(**nodes), namespace)
    kubelet.script["solver-rollout-1"] = [Life(hangs=True)] * SHARDS
    kubelet.wait_for(lambda: working(kubelet, "solver-rollout-1") == SHARDS)
    admitter.queues["team-a"] = Queue((Flavor("h100", 4, POOL),))
    kubelet.release("solver-rollout-1")
    queued = wait_run(api, namespace, "demo", lambda run: step(run, "solver-train-1") and reason(run) == "Queued")
    assert "solver-train-1" in message(queued)
    admitter.queues["team-a"] = EIGHT
    wait_phase(api, namespace, "demo", "Succeeded")
    assert admitter.events("Admitted")[-1][1] == 2


def test_an_urgent_run_takes_the_place_of_a_patient_one(api: Api, namespace: str, kubelet: FakeKubelet, queue: Any):
    kubelet.script["challenger-train-1"] = [Life(hangs=True)]
    preempting = Queue((Flavor("h100", 8, POOL),), preempts=True)
    admitter: Admitter = queue({"team-a": preempting}, priorities={"patient": 0, "urgent": 100})
    patient = api.create(queued_run("patient", spec__priorityClass="patient"), namespace)
    kubelet.wait_running("challenger-train-1")
    urgent = api.create(queued_run("urgent", spec__priorityClass="urgent"), namespace)
    wait_run(api, namespace, "patient", lambda run: reason(run) == "Queued")
    for name in ("urgent", "patient"):
        done = wait_phase(api, namespace, name, "Succeeded")
        assert [(s["attempts"], s["failures"]) for s in status_of(done)["steps"]] == [(1, 0)] * 3
    finished = {run: api.get(RUNS, run, namespace)["status"]["finishedAt"] for run in ("urgent", "patient")}
    assert finished["urgent"] < finished["patient"]
    assert sorted(kubelet.trained) == sorted([*keys_of(patient), *keys_of(urgent)])
    assert admitter.most["team-a"] == 8, "more was admitted than there is"
    assert len(admitter.events("Evicted")) >= 1


def test_a_person_may_hold_a_run_that_is_queued_and_let_it_go_on(
    api: Api, namespace: str, kubelet: FakeKubelet, queue: Any
):
    admitter: Admitter = queue({"team-a": EIGHT})
    admitter.holding = True
    api.create(queued_run(), namespace)
    wait_run(api, namespace, "demo", lambda run: reason(run) == "Queued")
    api.patch(RUNS, "demo", {"spec": {"suspend": True}}, namespace)
    held = wait_phase(api, namespace, "demo", "Suspended")
    assert conditions(held) == {"Suspended": "Suspended"}
    eventually(lambda: jobs(api, namespace) == [])  # it keeps no place in the queue
    admitter.holding = False
    api.patch(RUNS, "demo", {"spec": {"suspend": False}}, namespace)
    wait_phase(api, namespace, "demo", "Succeeded")


def test_deleting_a_queued_run_leaves_nothing(api: Api, namespace: str, kubelet: FakeKubelet, queue: Any):
    admitter: Admitter = queue({"team-a": EIGHT})
    admitter.holding = True
    api.create(queued_run(), namespace)
    wait_run(api, namespace, "demo", lambda run: reason(run) == "Queued")
    api.delete(RUNS, "demo", namespace, propagation="Foreground")
    eventually(lambda: api.find(RUNS, "demo", namespace) is None and jobs(api, namespace) == [])
    eventually(lambda: admitter.workloads == {})


def test_without_kueue_a_run_with_a_queue_just_goes(api: Api, namespace: str, kubelet: FakeKubelet):
    run = api.create(cluster_run(spec__queue="team-a", spec__priorityClass="low"), namespace)
    wait_phase(api, namespace, "demo", "Succeeded")
    assert sorted(kubelet.trained) == keys_of(run)
    named = [each["metadata"]["labels"][PREFIX + "queue-name"] for each in jobs(api, namespace)]
    assert named == ["team-a"] * len(STEPS)
    assert not any(each["spec"].get("suspend") for each in jobs(api, namespace))


def test_places_are_given_in_turn_and_a_finished_job_makes_room(
    api: Api, namespace: str, kubelet: FakeKubelet, queue: Any
):
    admitter: Admitter = queue({"team-a": EIGHT})
    made = [api.create(queued_run(f"run-{number}"), namespace) for number in range(3)]
    for run in made:
        wait_phase(api, namespace, run["metadata"]["name"], "Succeeded")
    assert sorted(kubelet.trained) == sorted(itertools.chain.from_iterable(map(keys_of, made)))
    assert admitter.most["team-a"] == 8 and admitter.events("Evicted") == []
    assert all(phase_of(api.get(RUNS, run["metadata"]["name"], namespace)) == "Succeeded" for run in made)
