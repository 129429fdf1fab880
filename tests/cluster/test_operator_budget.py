"""A budget on a real control plane: counted, used up, raised; across a restart of the operator."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cluster.cluster_runs import (
    RUNS,
    cluster_run,
    conditions,
    eventually,
    jobs,
    status_of,
    wait_event,
    wait_phase,
    wait_run,
)
from harness.cluster.controlplane import ControlPlane
from harness.cluster.kubelet_standin import FakeKubelet
from harness.cluster.lives import Life
from harness.cluster.operator_process import operating

pytestmark = pytest.mark.slow


def test_a_run_out_of_budget_waits_also_for_another_operator_and_goes_on_when_it_is_raised(
    control_plane: ControlPlane, namespace: str, kubelet: FakeKubelet, tmp_path: Path
) -> None:
    api = control_plane.admin
    limits = {"resources": {"limits": {"nvidia.com/gpu": 8}}}
    kubelet.script["evaluate-0"] = [Life(hangs=True)]  # its pod runs until the budget stops it
    made = cluster_run(spec__budget={"gpuHours": 0.0001}, spec__evaluation__pods=limits, spec__parallelSteps=1)
    with operating(control_plane, tmp_path, [namespace], flags=["--resync-seconds", "1"]):
        api.create(made, namespace)
        stopped = wait_phase(api, namespace, "demo", "Suspended")
        assert conditions(stopped)["Suspended"] == "BudgetExceeded"
        usage = status_of(stopped)["usage"]
        assert usage["gpuHours"] >= 0.0001 and usage["low"] == ["gpuHours"]
        # What it was stopped in saves and ends.
        ended = wait_run(api, namespace, "demo", lambda run: not live(run))
        before = len(jobs(api, namespace))
        wait_event(api, namespace, "BudgetExceeded")
    spent = status_of(ended)["usage"]["gpuHours"]
    with operating(control_plane, tmp_path, [namespace], flags=["--resync-seconds", "1"]) as operator:
        eventually(lambda: operator.metric("selfevo_reconcile_duration_seconds_count") >= 1)
        run = api.get(RUNS, "demo", namespace)
        assert status_of(run)["usage"]["gpuHours"] == spent
        assert len(jobs(api, namespace)) == before, "it starts nothing"
        api.patch(RUNS, "demo", {"spec": {"budget": {"gpuHours": 1000}}}, namespace)
        done = wait_phase(api, namespace, "demo", "Succeeded")
        usage = status_of(done)["usage"]
        assert usage["gpuHours"] >= spent and usage.get("low", []) == []
        assert usage["phases"]["evaluate"]["gpuHours"] == usage["gpuHours"]
        assert usage["wallHours"] > 0


def live(run: dict) -> bool:
    return any(attempt["state"] in ("Pending", "Running") for attempt in status_of(run)["attempts"])
