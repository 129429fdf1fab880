"""A run that goes on from another one, on a real control plane: it waits, finds what it begins with, outlives it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cluster.client import ApiError
from harness.cluster.cluster_runs import (
    RUNS,
    cluster_run,
    conditions,
    jobs,
    status_of,
    wait_event,
    wait_phase,
    wait_run,
)
from harness.cluster.controlplane import ControlPlane
from harness.cluster.kubelet_standin import FakeKubelet
from harness.cluster.operator_process import operating

pytestmark = pytest.mark.slow

ASKED = {"run": "demo", "iteration": 1}


def test_a_fork_waits_for_its_source_and_goes_on_when_that_is_deleted(
    control_plane: ControlPlane, namespace: str, kubelet: FakeKubelet, tmp_path: Path
) -> None:
    api = control_plane.admin
    fork = cluster_run("fork", spec__iterations=2, spec__forkFrom=ASKED, spec__seed=7)
    with operating(control_plane, tmp_path, [namespace]):
        api.create(fork, namespace)
        waiting = wait_run(api, namespace, "fork", lambda run: bool(conditions(run)))
        assert conditions(waiting)["Reconciling"] == "ForkPending" and jobs(api, namespace) == []
        with pytest.raises(ApiError, match="forkFrom cannot be added or removed after creation"):
            api.patch(RUNS, "fork", {"spec": {"forkFrom": None}}, namespace)
        api.create(cluster_run(), namespace)
        found = wait_run(api, namespace, "fork", lambda run: "fork" in status_of(run))
        source = api.get(RUNS, "demo", namespace)
        keys = {step["name"]: step["key"] for step in status_of(source)["steps"]}
        assert status_of(found)["fork"]["solver"] == keys["solver-train-1"]
        api.delete(RUNS, "demo", namespace)
        done = wait_phase(api, namespace, "fork", "Succeeded")
        recorded = wait_event(api, namespace, "run goes on from iteration 1 of run demo", "fork")
    assert "Forked" in [reason for reason, _ in recorded]
    assert status_of(done)["fork"] == status_of(found)["fork"]
    assert [line["iteration"] for line in status_of(done)["iterations"]] == [0, 1, 2]


def test_a_fork_of_what_can_never_be_is_refused(
    control_plane: ControlPlane, namespace: str, kubelet: FakeKubelet, tmp_path: Path
) -> None:
    api = control_plane.admin
    with operating(control_plane, tmp_path, [namespace]):
        api.create(cluster_run(spec__suspend=True), namespace)
        api.create(cluster_run("fork", spec__iterations=9, spec__forkFrom={**ASKED, "iteration": 2}), namespace)
        refused = wait_phase(api, namespace, "fork", "Failed")
        assert conditions(refused)["Failed"] == "ForkRefused" and jobs(api, namespace, "fork") == []
