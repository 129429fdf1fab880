"""A run that waits for a person, on a real control plane: what the API server refuses, and what an approval does."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cluster.client import ApiError
from harness.cluster.cluster_runs import RUNS, cluster_run, conditions, jobs, wait_event, wait_phase
from harness.cluster.controlplane import ControlPlane
from harness.cluster.kubelet_standin import FakeKubelet
from harness.cluster.operator_process import operating

pytestmark = pytest.mark.slow


def test_an_iteration_waits_until_a_person_has_approved_it(
    control_plane: ControlPlane, namespace: str, kubelet: FakeKubelet, tmp_path: Path
) -> None:
    api = control_plane.admin
    with operating(control_plane, tmp_path, [namespace], flags=["--resync-seconds", "1"]):
        api.create(cluster_run(spec__review={"before": [1]}), namespace)
        waiting = wait_phase(api, namespace, "demo", "Suspended")
        assert conditions(waiting)["Suspended"] == "AwaitingReview"
        assert [job["metadata"]["labels"]["selfevo.dev/step"] for job in jobs(api, namespace)] == ["evaluate-0"]
        with pytest.raises(ApiError, match="approvedIteration is above iterations"):
            api.patch(RUNS, "demo", {"spec": {"approvedIteration": 2}}, namespace)
        api.patch(RUNS, "demo", {"spec": {"approvedIteration": 1}}, namespace)
        wait_phase(api, namespace, "demo", "Succeeded")
        # One Event a change: with the end of the evaluation.
        wait_event(api, namespace, "iteration 1 waits for a person")
