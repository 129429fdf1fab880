"""What people and other controllers do to runs and Jobs while they live, on a real control plane."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from harness.cluster.client import Api, ApiError
from harness.cluster.cluster_runs import (
    RUNS,
    Object,
    cluster_run,
    conditions,
    eventually,
    jobs,
    keys_of,
    kstatus,
    message,
    phase_of,
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
from harness.cluster.manifests import job
from harness.cluster.operator_process import OperatorProcess, operating
from selfevo_core.attempts import attempt_name

pytestmark = pytest.mark.slow

SHORT = {"spec__evaluation": None, "spec__rollout__shards": 1}
"""Three steps: challenger-train-1, solver-rollout-1, solver-train-1."""


@pytest.fixture(scope="module", autouse=True)
def operator(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    with operating(control_plane, tmp_path_factory.mktemp("operator")) as operator:
        yield operator


def change(api: Api, namespace: str, **spec: object) -> Object:
    return api.patch(RUNS, "demo", {"spec": spec}, namespace)


def test_a_run_that_is_held_gives_its_place_up_and_goes_on_where_it_was(api: Api, namespace: str, kubelet: FakeKubelet):
    # The pod takes its whole grace period to end: the next one must not start beside it.
    kubelet.script["solver-train-1"] = [Life(hangs=True, deaf=True)]
    run = api.create(cluster_run(**SHORT, spec__pods={"terminationGracePeriodSeconds": 3}), namespace)
    kubelet.wait_running("solver-train-1")
    (first,) = [
        each for each in jobs(api, namespace) if each["metadata"]["labels"]["selfevo.dev/step"] == "solver-train-1"
    ]
    change(api, namespace, suspend=True)
    held = wait_phase(api, namespace, "demo", "Suspended")
    assert conditions(held) == {"Suspended": "Suspended"}
    assert message(held).startswith("suspended, 2 of 3 steps done")  # its Job may still be ending
    change(api, namespace, suspend=False)  # while the Job is still there: it is deleted in the foreground
    assert wait_run(api, namespace, "demo", lambda run: phase_of(run) == "Running")
    name = first["metadata"]["name"]
    assert api.get("jobs", name, namespace)["metadata"]["uid"] == first["metadata"]["uid"]
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert api.get("jobs", name, namespace)["metadata"]["uid"] != first["metadata"]["uid"]
    assert (step(done, "solver-train-1")["attempts"], step(done, "solver-train-1")["failures"]) == (1, 0)
    assert sorted(kubelet.trained) == keys_of(run)
    assert kubelet.overlaps == []
    assert [pod.exit_code for pod in kubelet.lived] == [0, 0, 137, 0]
    assert [reason for reason, _ in wait_event(api, namespace, "Resumed") if reason in ("Suspended", "Resumed")] == [
        "Suspended",
        "Resumed",
    ]


def test_a_run_that_is_created_held_starts_nothing(api: Api, namespace: str, kubelet: FakeKubelet):
    api.create(cluster_run(**SHORT, spec__suspend=True), namespace)
    wait_phase(api, namespace, "demo", "Suspended")
    time.sleep(0.5)
    assert jobs(api, namespace) == []
    change(api, namespace, suspend=False)
    wait_phase(api, namespace, "demo", "Succeeded")


def test_more_iterations_go_on_from_the_end(api: Api, namespace: str, kubelet: FakeKubelet):
    api.create(cluster_run(spec__rollout__shards=1), namespace)
    first = wait_phase(api, namespace, "demo", "Succeeded")
    raised = change(api, namespace, iterations=2)
    running = wait_run(api, namespace, "demo", lambda run: phase_of(run) == "Running")
    assert kstatus(running) == "InProgress" and "Complete" not in conditions(running)
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert sorted(kubelet.trained) == keys_of(raised)
    assert len(jobs(api, namespace)) == 9
    assert (done["status"]["best"]["iteration"], done["status"]["score"]) == (2, 0.7)
    assert done["status"]["finishedAt"] > first["status"]["finishedAt"]
    with pytest.raises(ApiError, match="iterations can be raised, not lowered"):
        change(api, namespace, iterations=1)


def test_a_deleted_run_takes_its_jobs_and_pods_along_and_its_namesake_trains_nothing_again(
    api: Api, namespace: str, kubelet: FakeKubelet, operator: OperatorProcess
):
    kubelet.script["solver-train-1"] = [Life(hangs=True)]
    run = cluster_run(**SHORT)
    old = api.create(run, namespace)
    kubelet.wait_running("solver-train-1")
    api.delete(RUNS, "demo", namespace)
    eventually(lambda: jobs(api, namespace) == [] and api.list("pods", namespace) == [])
    before = operator.metric("selfevo_api_calls_total", verb="create", resource="jobs")

    new = api.create(run, namespace)
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert [s["reused"] for s in status_of(done)["steps"]] == [True, True, False]
    assert sorted(kubelet.trained) == keys_of(new)
    assert operator.metric("selfevo_api_calls_total", verb="create", resource="jobs") == before + 3
    owners = {each["metadata"]["ownerReferences"][0]["uid"] for each in jobs(api, namespace)}
    assert owners == {new["metadata"]["uid"]}


@pytest.mark.parametrize("disguised", [False, True], ids=["of somebody else", "with our labels and another owner"])
def test_a_job_that_is_not_the_runs_is_left_alone(api: Api, namespace: str, kubelet: FakeKubelet, disguised: bool):
    run = cluster_run(**SHORT)
    first = plan_of(run).steps[0]
    foreign = job(attempt_name("demo", first, 1), suspend=True)
    if disguised:
        ours = {"app.kubernetes.io/managed-by": "selfevo-operator", "selfevo.dev/run": "demo"}
        foreign["metadata"]["labels"] |= {**ours, "selfevo.dev/step": first.name, "selfevo.dev/attempt": "1"}
        foreign["metadata"]["annotations"]["selfevo.dev/key"] = first.key
        owner = api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}}, namespace)
        uid = owner["metadata"]["uid"]
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "controller": True}
        foreign["metadata"]["ownerReferences"] = [reference]
    api.create(foreign, namespace)
    name = foreign["metadata"]["name"]
    api.wait("jobs", name, namespace, until=lambda found: found["status"].get("conditions"))
    before = api.get("jobs", name, namespace)
    api.create(run, namespace)
    taken = wait_run(api, namespace, "demo", lambda run: "Stalled" in conditions(run))
    assert conditions(taken)["Stalled"] == "NameTaken"
    assert message(taken).endswith(
        f"Job {name} exists and is not controlled by this run; delete it, or give the run another name"
    )
    assert step(taken, first.name)["attempts"] == 0
    change(api, namespace, suspend=True)  # a reconcile that deletes what is the run's
    wait_phase(api, namespace, "demo", "Suspended")
    assert api.get("jobs", name, namespace) == before
    api.delete("jobs", name, namespace)
    change(api, namespace, suspend=False)
    wait_phase(api, namespace, "demo", "Succeeded")


def test_a_job_that_a_person_deletes_is_made_again(api: Api, namespace: str, kubelet: FakeKubelet):
    kubelet.script["solver-train-1"] = [Life(hangs=True)]
    run = api.create(cluster_run(**SHORT), namespace)
    kubelet.wait_running("solver-train-1")
    name = jobs(api, namespace, "demo")[-1]["metadata"]["name"]
    api.delete("jobs", name, namespace)
    for each in jobs(api, namespace):  # and the record of what was done goes too
        api.delete("jobs", each["metadata"]["name"], namespace)
    done = wait_phase(api, namespace, "demo", "Succeeded")
    # What is deleted in the background, as kubectl does it, may outlive its Job for a moment. An overlap is no fault
    # here: the store keeps the two apart.
    assert sorted(kubelet.trained) == keys_of(run)
    assert [s["failures"] for s in status_of(done)["steps"]] == [0, 0, 0]
    assert [each["metadata"]["labels"]["selfevo.dev/step"] for each in jobs(api, namespace)] == ["solver-train-1"]


def test_a_queue_that_takes_a_running_job_back_is_no_failure(api: Api, namespace: str, kubelet: FakeKubelet):
    kubelet.script["challenger-train-1"] = [Life(hangs=True)]
    run = api.create(cluster_run(**SHORT, spec__queue="team-a", spec__backoffLimit=0), namespace)
    kubelet.wait_running("challenger-train-1")
    (first,) = jobs(api, namespace)
    name = first["metadata"]["name"]
    assert first["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    api.patch("jobs", name, {"spec": {"suspend": True}}, namespace)
    queued = wait_run(api, namespace, "demo", lambda run: conditions(run).get("Reconciling") == "Queued")
    assert conditions(queued) == {"Reconciling": "Queued"} and kstatus(queued) == "InProgress"
    assert message(queued).endswith(f"{name} is held in queue team-a")
    api.patch("jobs", name, {"spec": {"suspend": False}}, namespace)
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert [pod.exit_code for pod in kubelet.lived] == [143, 0, 0, 0]
    assert (step(done, "challenger-train-1")["attempts"], step(done, "challenger-train-1")["failures"]) == (1, 0)
    assert api.get("jobs", name, namespace)["metadata"]["uid"] == first["metadata"]["uid"]
    assert sorted(kubelet.trained) == keys_of(run)


def test_a_job_that_waits_in_a_queue_from_its_birth(api: Api, namespace: str, kubelet: FakeKubelet):
    # As Kueue's webhook does: every Job of the namespace is born suspended.
    policy = _born_suspended(namespace)
    for manifest in policy:
        api.create(manifest)
    try:
        probe = job("probe")
        eventually(lambda: api.create(probe, namespace, dryRun="All")["spec"]["suspend"])  # the policy is in force
        api.create(cluster_run(**SHORT, spec__queue="team-a"), namespace)
        queued = wait_run(api, namespace, "demo", lambda run: conditions(run).get("Reconciling") == "Queued")
        assert status_of(queued)["attempts"][0]["state"] == "Pending" and kubelet.lived == []
        for name in ("challenger-train-1", "solver-rollout-1", "solver-train-1"):
            wait_run(api, namespace, "demo", lambda run, name=name: step(run, name).get("attempts") == 1)
            held = next(j for j in jobs(api, namespace) if j["metadata"]["labels"]["selfevo.dev/step"] == name)
            api.patch("jobs", held["metadata"]["name"], {"spec": {"suspend": False}}, namespace)
        done = wait_phase(api, namespace, "demo", "Succeeded")
        assert [s["attempts"] for s in status_of(done)["steps"]] == [1, 1, 1]
    finally:
        for kind in ("mutatingadmissionpolicybindings", "mutatingadmissionpolicies"):
            api.delete(f"admissionregistration.k8s.io/v1/{kind}", policy[0]["metadata"]["name"])


def _born_suspended(namespace: str) -> list[Object]:
    group = "admissionregistration.k8s.io/v1"
    name = f"suspended-{namespace}"
    policy = {
        "apiVersion": group,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "resourceRules": [
                    {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
                ],
            },
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [
                {
                    "patchType": "ApplyConfiguration",
                    "applyConfiguration": {"expression": "Object{spec: Object.spec{suspend: true}}"},
                }
            ],
        },
    }
    binding = {
        "apiVersion": group,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name},
    }
    return [policy, binding]


def test_what_another_writer_puts_into_the_status_stays(api: Api, namespace: str, kubelet: FakeKubelet):
    kubelet.script["challenger-train-1"] = [Life(hangs=True)]
    api.create(cluster_run(**SHORT), namespace)
    kubelet.wait_running("challenger-train-1")
    theirs = {
        "type": "example.com/Approved",
        "status": "True",
        "reason": "ByHand",
        "message": "",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-11-24T00:00:00Z",
    }
    applied = {
        "apiVersion": "selfevo.dev/v1alpha1",
        "kind": "SelfEvolutionRun",
        "metadata": {"name": "demo"},
        "status": {"conditions": [theirs]},
    }
    api.patch(RUNS, "demo", applied, namespace, "status", kind="apply", fieldManager="approver")
    kubelet.release("challenger-train-1")
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert theirs in done["status"]["conditions"] and len(done["status"]["conditions"]) == 7


def test_an_edit_of_the_pods_reaches_what_has_not_begun(api: Api, namespace: str, kubelet: FakeKubelet):
    kubelet.script["challenger-train-1"] = [Life(hangs=True)]
    run = api.create(cluster_run(**SHORT), namespace)
    kubelet.wait_running("challenger-train-1")
    (first,) = jobs(api, namespace)
    api.wait("jobs", first["metadata"]["name"], namespace, until=lambda job: job["status"].get("ready"))
    # And the operator has heard of it: what has not begun, so far as it knows, is made anew.
    wait_run(api, namespace, "demo", lambda run: conditions(run).get("Reconciling") == "StepsRunning")
    change(api, namespace, pods={"nodeSelector": {"pool": "large"}})
    wait_run(api, namespace, "demo", lambda run: status_of(run)["observedGeneration"] == 2)
    assert [each["metadata"]["uid"] for each in jobs(api, namespace)] == [first["metadata"]["uid"]]
    kubelet.release("challenger-train-1")
    wait_phase(api, namespace, "demo", "Succeeded")
    assert sorted(kubelet.trained) == keys_of(run)
    selectors = {
        each["metadata"]["labels"]["selfevo.dev/step"]: each["spec"]["template"]["spec"].get("nodeSelector")
        for each in jobs(api, namespace)
    }
    large = {"pool": "large"}
    assert selectors == {"challenger-train-1": None, "solver-rollout-1": large, "solver-train-1": large}


def test_two_runs_with_equal_steps_share_them(api: Api, namespace: str, kubelet: FakeKubelet):
    run = cluster_run("first", **SHORT)
    api.create(run, namespace)
    wait_phase(api, namespace, "first", "Succeeded")
    api.create({**run, "metadata": {"name": "second"}}, namespace)
    second = wait_phase(api, namespace, "second", "Succeeded")
    assert all(s["reused"] for s in status_of(second)["steps"])
    assert sorted(kubelet.trained) == keys_of(run)
