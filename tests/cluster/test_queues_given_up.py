"""What Kueue does to Jobs beyond holding and admitting them, found on the real one (docs/queues.md)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness.cluster.admitter import CRD, WORKLOADS, Admitter, Flavor, Queue
from harness.cluster.client import Api, ApiError
from harness.cluster.cluster_runs import RUNS, conditions, eventually, jobs, message, wait_phase, wait_run
from harness.cluster.controlplane import ControlPlane
from harness.cluster.kubelet_standin import FakeKubelet
from harness.cluster.lives import Life
from harness.cluster.operator_process import USER, operating
from harness.cluster.queued_runs import EIGHT, gpus, job_of, queued_run, reason, working

pytestmark = pytest.mark.slow
RBAC = "rbac.authorization.k8s.io"


@pytest.fixture(autouse=True)
def operator(control_plane: ControlPlane, api: Api, namespace: str, tmp_path: Path) -> Iterator[None]:
    """One that may read Workloads, as the chart's kueue.readWorkloads has it."""
    api.apply(CRD)
    eventually(lambda: _is_served(api, namespace))
    rule = {"apiGroups": ["kueue.x-k8s.io"], "resources": ["workloads"], "verbs": ["get", "list"]}
    named = {"metadata": {"name": "workloads"}, "apiVersion": f"{RBAC}/v1"}
    api.apply({**named, "kind": "Role", "rules": [rule]}, namespace)
    role = {"apiGroup": RBAC, "kind": "Role", "name": "workloads"}
    subject = {"apiGroup": RBAC, "kind": "User", "name": USER}
    api.apply({**named, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]}, namespace)
    flags = ["--resync-seconds", "2", "--read-workloads"]
    with operating(control_plane, tmp_path, [namespace], flags=flags):
        yield


def _is_served(api: Api, namespace: str) -> bool:
    with suppress(ApiError):
        return api.list(WORKLOADS, namespace) == []
    return False


def test_a_job_that_kueue_gave_up_says_so_with_its_words_and_the_pods_last_reason(
    api: Api, namespace: str, kubelet: FakeKubelet, queue: Any
):
    kubelet.script["challenger-train-1"] = [Life(image_error="ImagePullBackOff")] * 2
    admitter: Admitter = queue({"team-a": EIGHT}, pods_ready_s=20.0, requeuing_limit=0, workloads=True)
    api.create(queued_run(), namespace)
    # Within the time-out, while its pods can still say it.
    wait_run(api, namespace, "demo", lambda run: conditions(run).get("Stalled") == "ImagePullBackOff")
    assert admitter.events("Evicted") == []
    given_up = wait_run(api, namespace, "demo", lambda run: conditions(run).get("Stalled") == "Deactivated")
    assert "exceeding the maximum number of re-queuing retries" in message(given_up)
    assert "before that, container trainer" in message(given_up) and "ImagePullBackOff" in message(given_up)
    name = job_of(api, namespace, "challenger-train-1")["metadata"]["uid"]
    kubelet.script.clear()
    api.patch(RUNS, "demo", {"spec": {"pods": {"image": "registry.example/selfevo/trainer:mended"}}}, namespace)
    wait_phase(api, namespace, "demo", "Succeeded")
    assert job_of(api, namespace, "challenger-train-1")["metadata"]["uid"] != name, (
        "a Workload that is given up stays so"
    )


def test_pods_of_two_runs_overlap_while_one_that_was_evicted_saves_and_it_says_that_it_is_ending(
    api: Api, namespace: str, kubelet: FakeKubelet, queue: Any
):
    kubelet.script["challenger-train-1"] = [Life(hangs=True, deaf=True)]
    preempting = Queue((Flavor("h100", 8),), preempts=True)
    queue({"team-a": preempting}, priorities={"patient": 0, "urgent": 100})
    slow = {"terminationGracePeriodSeconds": 60, **gpus(8)}
    api.create(queued_run("patient", spec__priorityClass="patient", spec__challenger__pods=slow), namespace)
    kubelet.wait_running("challenger-train-1", 120)
    kubelet.script["challenger-train-1"] = [Life(hangs=True)]
    api.create(queued_run("urgent", spec__priorityClass="urgent"), namespace)
    kubelet.wait_for(lambda: working(kubelet, "challenger-train-1") == 2, 60)  # beside the one that still saves
    ending = wait_run(api, namespace, "patient", lambda run: reason(run) == "Ending")
    assert "queue team-a has taken its place away" in message(ending)
    kubelet.release("challenger-train-1")
    wait_phase(api, namespace, "urgent", "Succeeded")


def test_a_rollout_that_was_admitted_in_part_is_evicted_once_and_not_twice(
    api: Api, namespace: str, kubelet: FakeKubelet, queue: Any
):
    kubelet.script |= {f"solver-rollout-1/{index}": [Life(hangs=True)] * 2 for index in (1, 2, 3)}
    admitter: Admitter = queue({"team-a": EIGHT, "inference": Queue((Flavor("h100", 5),))})
    api.create(queued_run(spec__rollout__queue="inference", spec__rollout__minShards=1), namespace)
    kubelet.wait_for(lambda: working(kubelet, "solver-rollout-1") == 2 and len(kubelet.trained) == 2, 120)
    eventually(lambda: job_of(api, namespace, "solver-rollout-1")["status"].get("succeeded") == 1)
    for kind in ("Evicted", "EvictionRefused"):
        admitter.evict("solver-rollout-1")
        assert len(admitter.events(kind)) == 1
        kubelet.wait_for(lambda: working(kubelet, "solver-rollout-1") == 2, 120)
    kubelet.release("solver-rollout-1")
    wait_phase(api, namespace, "demo", "Succeeded")
    assert all(each["spec"]["suspend"] is False for each in jobs(api, namespace))
