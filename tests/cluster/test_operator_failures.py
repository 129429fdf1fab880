"""What goes wrong in pods and specs, and what the operator makes of it, on a real control plane."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import unbuilt
from harness.cluster.client import Api
from harness.cluster.cluster_runs import (
    RUNS,
    cluster_run,
    conditions,
    jobs,
    keys_of,
    kstatus,
    message,
    plan_of,
    status_of,
    step,
    wait_event,
    wait_phase,
    wait_run,
)
from harness.cluster.controlplane import ControlPlane
from harness.cluster.kubelet_standin import FakeKubelet
from harness.cluster.lives import Life
from harness.cluster.operator_process import OperatorProcess, operating

pytestmark = pytest.mark.slow

SHORT = {"spec__evaluation": None, "spec__rollout__shards": 1}
"""Three steps: challenger-train-1, solver-rollout-1, solver-train-1."""


@pytest.fixture(scope="module", autouse=True)
def operator(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    with operating(control_plane, tmp_path_factory.mktemp("operator")) as operator:
        yield operator


@pytest.mark.parametrize(("code", "reason"), [(2, "InvalidInput"), (4, "EmptyCurriculum")])
def test_what_no_retry_cures_stops_the_run_until_a_person_answers(
    api: Api, namespace: str, kubelet: FakeKubelet, code: int, reason: str
):
    kubelet.script["solver-train-1"] = [Life(exit_code=code)]
    run = api.create(cluster_run(**SHORT), namespace)
    failed = wait_phase(api, namespace, "demo", "Failed")
    assert conditions(failed) == {"Stalled": reason, "Failed": reason}
    assert kstatus(failed) == "Failed"
    assert message(failed) == f"solver-train-1: ordered to end with {code}; order otherwise"
    attempt = status_of(failed)["attempts"][-1]
    assert (attempt["step"], attempt["exitCode"], attempt["reason"]) == ("solver-train-1", code, reason)
    assert [pod.exit_code for pod in kubelet.lived] == [0, 0, code], "one Job, one pod"
    assert len(jobs(api, namespace)) == 3
    wait_event(api, namespace, "StepFailed")

    api.patch(RUNS, "demo", {"spec": {"pods": {"env": [{"name": "A", "value": "answer"}]}}}, namespace)
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert (step(done, "solver-train-1")["attempts"], step(done, "challenger-train-1")["attempts"]) == (2, 1)
    assert sorted(kubelet.trained) == keys_of(run)


def test_a_guard_stops_the_run_and_changing_it_lets_the_run_go_on(api: Api, namespace: str, kubelet: FakeKubelet):
    guards = {"inBand": {"limit": 0.6, "action": "stop"}, "diversity": {"action": "ignore"}}
    run = api.create(cluster_run(**SHORT, spec__guards=guards), namespace)
    failed = wait_phase(api, namespace, "demo", "Failed")
    tripped = dict.fromkeys(("Stalled", "Failed", "GuardTripped"), "GuardTripped")
    assert conditions(failed) == tripped and kstatus(failed) == "Failed"
    measured = "in iteration 1 50.0 % of the valid questions are in the band, below 60.0 %"
    assert message(failed).startswith(f"guard inBand: {measured}; change spec.guards.inBand")
    assert status_of(failed)["watch"] == "tripped: inBand"
    by_guard = {guard["name"]: guard for guard in status_of(failed)["guards"]}
    assert "diversity" not in by_guard and by_guard["heldOut"]["state"] == by_guard["kl"]["state"] == "Blind"
    assert (by_guard["inBand"]["state"], by_guard["inBand"]["value"], by_guard["entropy"]["state"]) == (
        "Tripped",
        0.5,
        "Waiting",
    )
    assert len(jobs(api, namespace)) == 2
    fact = f"guard inBand: {measured}"
    wait_event(api, namespace, fact)

    api.patch(RUNS, "demo", {"spec": {"guards": {"inBand": {"action": "warn"}}}}, namespace)
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert conditions(done)["GuardTripped"] == "GuardWarned" and status_of(done)["watch"] == "warned: inBand"
    assert sorted(kubelet.trained) == keys_of(run)


def test_a_guard_rolls_the_run_back_once_and_then_stops_it(api: Api, namespace: str, kubelet: FakeKubelet):
    guards = {"inBand": {"limit": 0.6, "action": "rollback"}, "maxRollbacks": 1}
    run = api.create(cluster_run(**SHORT, spec__guards=guards), namespace)
    failed = wait_phase(api, namespace, "demo", "Failed")
    assert "; raise spec.guards.maxRollbacks, 1 rollbacks are done, or change spec.guards.inBand" in message(failed)
    (rollback,) = status_of(failed)["rollbacks"]
    abandoned = {name: planned.key for name, planned in plan_of(run).by_name.items() if name != "solver-train-1"}
    assert (rollback["iteration"], rollback["guard"], rollback["abandoned"]) == (1, "inBand", abandoned)
    anew = {name: step(failed, name)["key"] for name in abandoned}
    assert not set(anew.values()) & set(abandoned.values()), "another seed, another key"
    assert len(jobs(api, namespace)) == 4 and len(kubelet.trained) == 4
    fact = "goes back to the base, and on from there with another seed: guard inBand, in iteration 1 50.0 %"
    wait_event(api, namespace, fact)

    api.patch(RUNS, "demo", {"spec": {"guards": {"inBand": {"action": "warn"}}}}, namespace)
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert {name: step(done, name)["key"] for name in abandoned} == anew
    assert len(kubelet.trained) == 5 and len(status_of(done)["rollbacks"]) == 1


def test_a_guard_ends_the_run_with_the_best_solver(api: Api, namespace: str, kubelet: FakeKubelet):
    guards = {"inBand": {"limit": 0.6, "action": "promoteBest", "patience": 2}}
    run = cluster_run(spec__rollout__shards=1, spec__iterations=3, spec__guards=guards)
    api.create(run, namespace)
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert conditions(done)["Complete"] == conditions(done)["Ready"] == "GuardTripped" and kstatus(done) == "Current"
    best = status_of(done)["best"]
    assert (best["iteration"], best["modelUri"]) == (1, status_of(done)["modelUri"])
    known = {record["name"] for record in status_of(done)["steps"] if record["state"] == "Succeeded"}
    assert "solver-rollout-2" in known and "solver-train-2" not in known


def test_a_service_that_fails_for_a_while_is_the_jobs_affair(api: Api, namespace: str, kubelet: FakeKubelet):
    kubelet.script["challenger-train-1"] = [Life(exit_code=3), Life(exit_code=3)]
    run = api.create(cluster_run(**SHORT), namespace)
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert (step(done, "challenger-train-1")["attempts"], len(jobs(api, namespace))) == (1, 3)
    assert sorted(kubelet.trained) == keys_of(run)


def test_one_that_fails_for_good_ends_the_run_at_its_limit(api: Api, namespace: str, kubelet: FakeKubelet):
    kubelet.script["challenger-train-1"] = [Life(exit_code=3)] * 9
    api.create(cluster_run(**SHORT, spec__backoffLimit=1), namespace)
    failed = wait_phase(api, namespace, "demo", "Failed")
    assert conditions(failed) == {"Stalled": "BackoffLimitExceeded", "Failed": "BackoffLimitExceeded"}
    assert "challenger-train-1 failed 2 times (spec.backoffLimit is 1), the last time: ordered to end" in message(
        failed
    )
    assert len(jobs(api, namespace)) == 1 and len(kubelet.lived) == 2
    assert step(failed, "challenger-train-1")["failures"] == 2


def test_a_lost_result_is_asked_for_again_after_a_while(api: Api, namespace: str, kubelet: FakeKubelet):
    kubelet.script["challenger-train-1"] = [Life(message=False)]
    run = api.create(cluster_run(**SHORT), namespace)
    waits = wait_run(api, namespace, "demo", lambda run: conditions(run).get("Reconciling") == "BackingOff")
    assert "challenger-train-1 is tried again at" in message(waits) and kstatus(waits) == "InProgress"
    lost = step(waits, "challenger-train-1")
    assert (lost["state"], lost["reason"], lost["failures"]) == ("Pending", "ResultLost", 1) and lost["retryAt"]
    done = wait_phase(api, namespace, "demo", "Succeeded")
    found = step(done, "challenger-train-1")
    assert (found["attempts"], found["reused"]) == (2, True) and found["metrics"]
    assert sorted(kubelet.trained) == keys_of(run)
    second = next(job for job in jobs(api, namespace) if job["metadata"]["labels"]["selfevo.dev/attempt"] == "2")
    assert second["metadata"]["creationTimestamp"] >= lost["retryAt"].split(".")[0]


def test_an_image_that_is_not_there_stalls_the_run_until_it_is_named_rightly(
    api: Api, namespace: str, kubelet: FakeKubelet
):
    kubelet.script["challenger-train-1"] = [Life(image_error="ErrImagePull")]
    run = api.create(cluster_run(**SHORT, spec__pods={"image": "registry.example/wrong:1"}), namespace)
    stuck = wait_run(api, namespace, "demo", lambda run: "Stalled" in conditions(run))
    assert conditions(stuck) == {"Stalled": "ErrImagePull"}
    assert "container trainer of pod demo-challenger-train-1-" in message(stuck)
    (first,) = jobs(api, namespace)
    api.patch(RUNS, "demo", {"spec": {"pods": {"image": "registry.example/right:1"}}}, namespace)
    done = wait_phase(api, namespace, "demo", "Succeeded")
    second = jobs(api, namespace)[0]
    image = second["spec"]["template"]["spec"]["containers"][0]["image"]
    assert (first["metadata"]["name"], image) == (second["metadata"]["name"], "registry.example/right:1")
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert (step(done, "challenger-train-1")["attempts"], step(done, "challenger-train-1")["failures"]) == (1, 0)
    assert sorted(kubelet.trained) == keys_of(run)


def test_a_full_cluster_is_waited_for(api: Api, namespace: str, kubelet: FakeKubelet):
    kubelet.script["challenger-train-1"] = [Life(unschedulable="0/3 nodes are available: 3 Insufficient gpu.")]
    api.create(cluster_run(**SHORT), namespace)
    waits = wait_run(api, namespace, "demo", lambda run: conditions(run).get("Reconciling") == "Unschedulable")
    assert conditions(waits) == {"Reconciling": "Unschedulable"} and kstatus(waits) == "InProgress"
    assert "3 Insufficient gpu" in message(waits)


def test_a_deadline_ends_a_step_for_good_and_says_what_to_raise(api: Api, namespace: str, kubelet: FakeKubelet):
    kubelet.script["challenger-train-1"] = [Life(hangs=True)]
    api.create(cluster_run(**SHORT, spec__challenger__pods={"activeDeadlineSeconds": 2}), namespace)
    failed = wait_phase(api, namespace, "demo", "Failed")
    assert conditions(failed) == {"Stalled": "DeadlineExceeded", "Failed": "DeadlineExceeded"}
    assert "raise pods.activeDeadlineSeconds" in message(failed)
    assert len(jobs(api, namespace)) == 1 and kubelet.trained == []


def test_an_evicted_pod_is_replaced_and_nothing_is_counted(api: Api, namespace: str, kubelet: FakeKubelet):
    kubelet.script["challenger-train-1"] = [Life(evicted=True)]
    run = api.create(cluster_run(**SHORT, spec__backoffLimit=0), namespace)
    done = wait_phase(api, namespace, "demo", "Succeeded")
    first = step(done, "challenger-train-1")
    assert (first["attempts"], first["failures"], len(jobs(api, namespace))) == (1, 0, 3)
    assert sorted(kubelet.trained) == keys_of(run)


def test_memory_that_was_not_enough_is_named(api: Api, namespace: str, kubelet: FakeKubelet):
    kubelet.script["challenger-train-1"] = [Life(oom=True)]
    api.create(cluster_run(**SHORT, spec__backoffLimit=0), namespace)
    failed = wait_phase(api, namespace, "demo", "Failed")
    attempt = status_of(failed)["attempts"][-1]
    assert (attempt["exitCode"], attempt["reason"]) == (137, "OOMKilled")


@pytest.mark.parametrize(
    ("changes", "reason", "sentence"),
    [
        (
            {"spec__storage__uri": "file:///store"},
            "InvalidInput",
            "spec.storage.uri is 'file:///store', and a pod's disk is gone with the pod; use s3://<bucket>/<prefix>",
        ),
        (
            unbuilt.ASKED,
            "NotBuilt",
            unbuilt.SENTENCE,
        ),
    ],
)
def test_what_a_cluster_cannot_do_is_reported_and_nothing_is_made(
    api: Api, namespace: str, kubelet: FakeKubelet, changes: dict, reason: str, sentence: str
):
    api.create(cluster_run(**SHORT, **changes), namespace)
    refused = wait_run(api, namespace, "demo", lambda run: "Stalled" in conditions(run))
    assert conditions(refused)["Stalled"] == reason
    assert message(refused).endswith(sentence)
    assert jobs(api, namespace) == []
